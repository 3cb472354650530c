package lockfile_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/session2/session2/internal/lockfile"
)

// countedFile counts how many of its kind are open.
type countedFile struct {
	*os.File
	open *atomic.Int32
}

func (f countedFile) Close() error {
	f.open.Add(-1)
	return f.File.Close()
}

// kept returns a Mutex that keeps its file open, how often it has opened one, and how
// many of these are open.
func kept(path string) (m *lockfile.Mutex, opened, open *atomic.Int32) {
	opened, open = new(atomic.Int32), new(atomic.Int32)
	m = lockfile.NewKept(func() (lockfile.File, error) {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		opened.Add(1)
		open.Add(1)
		return countedFile{f, open}, nil
	}, func() (fs.FileInfo, error) { return os.Lstat(path) })
	return m, opened, open
}

// The file is opened once, however often the lock is taken and waited for, and is
// closed by Close, or when a lock that was taken before is given up.
func TestKeptFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	m, opened, open := kept(path)
	other, _, otherOpen := kept(path)
	for range 10 {
		unlock := mustLock(t, m)
		if _, err := other.Lock(within(short)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Lock while locked: %v, want the context's error", err)
		}
		unlock()
		unlock() // does nothing
		mustLock(t, other)()
	}
	if opened.Load() != 1 || open.Load() != 1 {
		t.Errorf("opened %d times, %d are open, want 1 and 1", opened.Load(), open.Load())
	}
	m.Close()
	if n := open.Load(); n != 0 {
		t.Errorf("%d files are open after Close", n)
	}
	unlock := mustLock(t, other)
	other.Close()
	if _, err := m.Lock(within(short)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close has given up the lock: %v", err)
	}
	unlock()
	mustLock(t, m)() // works further
	mustLock(t, other)()
	if n, k := open.Load(), otherOpen.Load(); n != 0 || k != 0 {
		t.Errorf("%d and %d files are open after Close", n, k)
	}
}

// Whoever removes the file, or moves it away, has all go on to the new one.
func TestKeptFileReplaced(t *testing.T) {
	for name, replace := range map[string]func(path string) error{
		"removed": os.Remove,
		"moved":   func(path string) error { return os.Rename(path, path+".away") },
	} {
		path := filepath.Join(t.TempDir(), "lock")
		m, _, files := kept(path)
		mustLock(t, m)()
		if err := replace(path); err != nil {
			t.Fatal(err)
		}
		unlock := mustLock(t, open(path))
		if _, err := m.Lock(within(short)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: Lock while another has the new file's: %v, want the context's error", name, err)
		}
		unlock()
		mustLock(t, m)()
		if n := files.Load(); n != 1 {
			t.Errorf("%s: %d files are open, want 1", name, n)
		}
	}
}
