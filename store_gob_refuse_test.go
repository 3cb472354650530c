package session2_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/lockfile"
)

var quietGob = &session2.GobOptions{Logger: slog.New(slog.DiscardHandler)}

// A refusal says that nothing was changed. An error after the append is none.
func TestGobStoreRefusesBeforeItChanges(t *testing.T) {
	for _, refusal := range []syscall.Errno{
		syscall.EACCES, syscall.EROFS, syscall.ENOSPC, syscall.EFBIG, syscall.EDQUOT,
	} {
		for n := 0; ; n++ {
			path := filepath.Join(t.TempDir(), "log")
			f := &faultFS{FS: fsys.OS, n: math.MaxInt}
			s, err := session2.OpenGobStoreOn(f, path, quietGob, 1<<20)
			mustGob(t, err)
			defer s.Close()
			mustGob(t, s.Save(ctxGob, gobRecord(0, 1), 0))
			f.failAfter(n, refusal)
			err = s.Save(ctxGob, gobRecord(1, 1), 0)
			if n == 0 && !errors.Is(err, refusal) {
				t.Errorf("%v at once: got %v, want a refusal", refusal, err)
			}
			hit := f.hit()
			landed, hasErr := openGob(t, path).Has(ctxGob, gobID(1))
			mustGob(t, hasErr)
			if errors.Is(err, refusal) && landed {
				t.Errorf("%v after %d operations: %v, but the record is there", refusal, n, err)
			}
			if !hit {
				break
			}
		}
	}
}

// A call that waits for the file past its deadline, or is called off, says which,
// and at once, also behind one that waits on.
func TestGobStoreWaitsNoLongerThanItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	s := openGob(t, path)
	mustGob(t, s.Save(ctxGob, gobRecord(0, 1), 0))
	unlock, err := lockfile.New(func() (lockfile.File, error) {
		return os.OpenFile(path+".lock", os.O_RDWR, 0)
	}).Lock(ctxGob)
	mustGob(t, err)
	rec := gobRecord(0, 2)
	calls := map[string]func(ctx context.Context) error{
		"Save":       func(ctx context.Context) error { return s.Save(ctx, rec, 1) },
		"Delete":     func(ctx context.Context) error { return s.Delete(ctx, rec.ID) },
		"Touch":      func(ctx context.Context) error { return s.Touch(ctx, rec.ID, time.Now(), time.Now()) },
		"DeleteOld":  func(ctx context.Context) error { _, err := s.DeleteOld(ctx, time.Hour); return err },
		"DeleteUser": func(ctx context.Context) error { _, err := s.DeleteUser(ctx, "alice"); return err },
	}
	late := func(name string) {
		ctx, cancel := context.WithTimeout(ctxGob, 20*time.Millisecond)
		defer cancel()
		if err := calls[name](ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s past its deadline: got %v, want %v", name, err, context.DeadlineExceeded)
		}
		ctx, cancel = context.WithCancel(ctxGob)
		time.AfterFunc(20*time.Millisecond, cancel)
		if err := calls[name](ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s called off: got %v, want %v", name, err, context.Canceled)
		}
	}
	for name := range calls {
		late(name) // it leads
	}
	patient := make(chan error)
	go func() { patient <- s.Save(ctxGob, gobRecord(1, 1), 0) }()
	for name := range calls {
		late(name) // it follows, or leads and hands on
	}
	unlock()
	mustGob(t, <-patient)
	if got, err := s.Load(ctxGob, rec.ID); err != nil || got.Version != 1 {
		t.Errorf("Load: got version %d, %v, want 1: what was given up must not happen", got.Version, err)
	}
}

// A compaction that fails once is tried again when as much again is dead, and
// then all is as before.
func TestGobStoreCompactsAfterAFailure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f := &faultFS{FS: fsys.OS, n: math.MaxInt}
	const slack = 4096
	s, err := session2.OpenGobStoreOn(f, path, quietGob, slack)
	mustGob(t, err)
	defer s.Close()
	size := func() int64 {
		info, err := os.Stat(path)
		mustGob(t, err)
		return info.Size()
	}
	versions := map[int]session2.Version{}
	temp := fsys.Temp(path)
	mustGob(t, os.Mkdir(temp, 0o700)) // no compaction gets past that
	for size() < 10*slack {
		mustGob(t, update(s, versions, 0))
	}
	mustGob(t, os.Remove(temp))
	for size() > slack {
		if mustGob(t, update(s, versions, 0)); size() > 100*slack {
			t.Fatal("it is not compacted any more")
		}
	}
	for range 100 {
		if mustGob(t, update(s, versions, 0)); size() > 3*slack {
			t.Fatalf("%d bytes after it was compacted again, want %d at most", size(), 3*slack)
		}
	}
}
