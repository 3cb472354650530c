package faultfs

import (
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/record"
	"github.com/session2/session2/internal/testsite"
)

// Open opens a store on a file system, over the same data each time.
type Open func(disk fsys.FS, log *slog.Logger) (record.Store, error)

// ClosesWhatItDoesNotOpen has each operation of opening a store fail in its turn:
// whatever fails, all that was opened is closed.
func ClosesWhatItDoesNotOpen(t *testing.T, open Open) {
	for n := 0; ; n++ {
		f := After(n, syscall.EIO)
		s, err := open(f, slog.New(slog.DiscardHandler))
		if err == nil {
			s.Close()
		}
		if f.Open() != 0 {
			t.Errorf("the operation after %d fails, opening returns %v: %d files stay open", n, err, f.Open())
		}
		if !f.Hit() {
			return
		}
	}
}

// OutlivesAFullDisk finds that a full disk costs the Saves that come meanwhile, each
// of which is told, and nothing that was acknowledged; and that it is no damage, of
// which the log tells.
func OutlivesAFullDisk(t *testing.T, open Open) {
	full, log, ctx := new(atomic.Bool), new(strings.Builder), t.Context()
	reopen := func() record.Store {
		s, err := open(Full{FS: fsys.OS, Now: full}, slog.New(slog.NewTextHandler(log, nil)))
		testsite.Must(t, err)
		return s
	}
	s := reopen()
	for i := range byte(10) {
		testsite.Must(t, s.Save(ctx, owned(i, "alice", 1), 0))
	}
	full.Store(true)
	for i := range byte(20) {
		prev := uint64(1)
		if i >= 10 {
			prev = 0
		}
		if err := s.Save(ctx, owned(i, "bob", 101), prev); !errors.Is(err, ErrFull) {
			t.Fatalf("Save on a full disk: got %v, want %v", err, ErrFull)
		}
	}
	full.Store(false)
	check := func(when string) {
		for i := range byte(10) {
			if got, err := s.Load(ctx, owned(i, "", 0).ID); err != nil || got.Version != 1 {
				t.Errorf("%s: Load: got version %d, %v, want 1", when, got.Version, err)
			}
		}
		if ok, err := s.Has(ctx, owned(10, "", 0).ID); ok || err != nil {
			t.Errorf("%s: Has of what did not fit: got %v, %v, want false", when, ok, err)
		}
	}
	check("with room again")
	if err := s.Save(ctx, owned(50, "bob", 1), 0); err != nil {
		t.Errorf("Save with room again: %v", err)
	}
	if n, err := s.DeleteUser(ctx, "bob"); n != 1 || err != nil {
		t.Errorf("DeleteUser: got %d, %v, want 1", n, err)
	}
	s.Close()
	s = reopen()
	defer s.Close()
	check("opened again")
	if log.Len() > 0 {
		t.Errorf("the log says %s", log)
	}
}

func owned(n byte, user string, version uint64) record.Record {
	now := time.Now()
	return record.Record{
		ID: [16]byte{n, 15: n}, Version: version, User: user, Created: now.UnixMicro(), Data: []byte("data"),
		Access: record.Access{Accessed: now.UnixMicro(), Expires: now.Add(time.Hour).UnixMicro()},
	}
}
