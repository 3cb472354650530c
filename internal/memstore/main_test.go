package memstore_test

import (
	"testing"

	"github.com/session2/session2/internal/testsite"
)

// TestMain finds that no test leaves a goroutine behind.
func TestMain(m *testing.M) { testsite.Exit(m.Run()) }
