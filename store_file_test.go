package session2_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/storetest"
)

func openFile(t testing.TB, dir string, opts *session2.FileOptions) *session2.FileStore {
	t.Helper()
	store, err := session2.OpenFileStore(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// sessionFile returns where a FileStore keeps a record.
func sessionFile(dir string, id session2.ID) string {
	return filepath.Join(dir, "sessions", id.String()[:2], id.String())
}

func TestFileStoreConformance(t *testing.T) {
	storetest.Run(t, func(t testing.TB, dir string) session2.Store {
		return openFile(t, filepath.Join(dir, "store"), nil)
	}, &storetest.Options{Corrupt: func(t testing.TB, dir string, id session2.ID) {
		flip(t, sessionFile(filepath.Join(dir, "store"), id), -1)
	}})
}

// flip damages a file at an offset, from its end if that is negative.
func flip(t testing.TB, name string, at int) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 0x10
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
