package sqltest

import (
	"testing"

	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
)

// TestMain stops the database servers when the tests have run, and finds that no test
// leaves a goroutine behind.
func TestMain(m *testing.M) { testsite.Exit(testdb.Run(m)) }
