package sqltest

import (
	"testing"

	"github.com/session2/session2/internal/testdb"
)

// TestMain stops the database servers when the tests have run.
func TestMain(m *testing.M) { testdb.Main(m) }
