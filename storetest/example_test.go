package storetest_test

import (
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/storetest"
)

// A store's own test hands Run a function that opens it. A store in memory has
// no use for dir; one on disk keeps its files there.
func ExampleRun() {
	_ = func(t *testing.T) { // func TestConformance(t *testing.T)
		storetest.Run(t, func(t testing.TB, dir string) session2.Store {
			return session2.NewMemoryStore()
		}, nil)
	}
	// Output:
}
