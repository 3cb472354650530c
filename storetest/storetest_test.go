package storetest_test

import (
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/storetest"
)

func TestReferenceInMemory(t *testing.T) {
	storetest.Run(t, func(testing.TB, string) session2.Store { return newReference() }, nil)
}

func TestReferenceInFolder(t *testing.T) {
	storetest.Run(t, func(_ testing.TB, dir string) session2.Store { return openReference(dir) },
		&storetest.Options{Corrupt: corrupt})
}
