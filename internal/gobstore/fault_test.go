package gobstore_test

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/session2/session2/internal/faultfs"
	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/gobstore"
	"github.com/session2/session2/internal/record"
)

// inFile opens a store in a file of the test's.
func inFile(t *testing.T) faultfs.Open {
	path := filepath.Join(t.TempDir(), "s")
	return func(disk fsys.FS, log *slog.Logger) (record.Store, error) {
		return gobstore.Open(disk, path, gobstore.Options{Logger: log})
	}
}

func TestGobStoreClosesWhatItDoesNotOpen(t *testing.T) { faultfs.ClosesWhatItDoesNotOpen(t, inFile(t)) }

func TestGobStoreOutlivesAFullDisk(t *testing.T) { faultfs.OutlivesAFullDisk(t, inFile(t)) }
