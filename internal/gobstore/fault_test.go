package gobstore_test

import (
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/session2/session2/internal/faultfs"
	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/gobstore"
	"github.com/session2/session2/internal/testsite"
)

// Whatever fails in opening a store, all that it opened is closed.
func TestGobStoreClosesWhatItDoesNotOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for n := 0; ; n++ {
		f := faultfs.After(n, syscall.EIO)
		s, err := gobstore.Open(f, path, quiet)
		if err == nil {
			s.Close()
		}
		if f.Open() != 0 {
			t.Errorf("the operation after %d fails, opening returns %v: %d files stay open", n, err, f.Open())
		}
		if !f.Hit() {
			break
		}
	}
}

// A full disk costs the Saves that come meanwhile, each of which is told, and
// nothing that was acknowledged; and it is no damage, of which the log tells.
func TestGobStoreOutlivesAFullDisk(t *testing.T) {
	full, log := new(atomic.Bool), new(strings.Builder)
	path := filepath.Join(t.TempDir(), "s")
	open := func() *gobstore.Store {
		o := gobstore.Options{Logger: slog.New(slog.NewTextHandler(log, nil))}
		s, err := gobstore.Open(faultfs.Full{FS: fsys.OS, Now: full}, path, o)
		testsite.Must(t, err)
		return s
	}
	s, ctx := open(), t.Context()
	for i := range 10 {
		testsite.Must(t, s.Save(ctx, numbered(i, 1), 0))
	}
	full.Store(true)
	for i := range 20 {
		rec, prev := numbered(i, 100), uint64(1)
		if rec.User = "bob"; i >= 10 {
			prev = 0
		}
		if err := s.Save(ctx, rec, prev); !errors.Is(err, faultfs.ErrFull) {
			t.Fatalf("Save on a full disk: got %v, want %v", err, faultfs.ErrFull)
		}
	}
	full.Store(false)
	check := func(when string) {
		for i := range 10 {
			if got, err := s.Load(ctx, idOf(i)); err != nil || got.Version != 1 {
				t.Errorf("%s: Load: got version %d, %v, want 1", when, got.Version, err)
			}
		}
		if ok, err := s.Has(ctx, idOf(10)); ok || err != nil {
			t.Errorf("%s: Has of what did not fit: got %v, %v, want false", when, ok, err)
		}
	}
	check("with room again")
	rec := numbered(50, 1)
	rec.User = "bob"
	testsite.Must(t, s.Save(ctx, rec, 0))
	if n, err := s.DeleteUser(ctx, "bob"); n != 1 || err != nil {
		t.Errorf("DeleteUser: got %d, %v, want 1", n, err)
	}
	s.Close()
	s = open()
	defer s.Close()
	check("opened again")
	if log.Len() > 0 {
		t.Errorf("the log says %s", log)
	}
}
