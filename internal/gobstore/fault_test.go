package gobstore_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/gobstore"
	"github.com/session2/session2/internal/testsite"
)

// faultFS is a file system on which all operations fail after the first n, and
// that counts what is open.
type faultFS struct {
	fsys.FS
	err error

	mu   sync.Mutex
	n    int
	open int
}

// failAfter makes all but the next n operations fail.
func (f *faultFS) failAfter(n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n, f.err = n, err
}

// hit reports whether an operation has failed.
func (f *faultFS) hit() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n < 0
}

func (f *faultFS) op(op, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n--; f.n < 0 {
		return &fs.PathError{Op: op, Path: name, Err: f.err}
	}
	return nil
}

func (f *faultFS) opened(by int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open += by
}

func (f *faultFS) OpenFile(name string, flag int, perm fs.FileMode) (fsys.File, error) {
	if err := f.op("open", name); err != nil {
		return nil, err
	}
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	f.opened(1)
	return &faultFile{File: file, fs: f}, nil
}

func (f *faultFS) Rename(oldName, newName string) error {
	return errors.Join(f.op("rename", oldName), f.unless(func() error { return f.FS.Rename(oldName, newName) }))
}

func (f *faultFS) Remove(name string) error {
	return errors.Join(f.op("remove", name), f.unless(func() error { return f.FS.Remove(name) }))
}

func (f *faultFS) SyncDir(name string) error {
	return errors.Join(f.op("sync", name), f.unless(func() error { return f.FS.SyncDir(name) }))
}

func (f *faultFS) unless(do func() error) error {
	if f.hit() {
		return nil
	}
	return do()
}

type faultFile struct {
	fsys.File
	fs     *faultFS
	closed bool
}

func (f *faultFile) Write(b []byte) (int, error) {
	if err := f.fs.op("write", f.Name()); err != nil {
		return 0, err
	}
	return f.File.Write(b)
}

func (f *faultFile) WriteAt(b []byte, off int64) (int, error) {
	if err := f.fs.op("write", f.Name()); err != nil {
		return 0, err
	}
	return f.File.WriteAt(b, off)
}

func (f *faultFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.fs.op("read", f.Name()); err != nil {
		return 0, err
	}
	return f.File.ReadAt(b, off)
}

func (f *faultFile) Stat() (fs.FileInfo, error) {
	if err := f.fs.op("stat", f.Name()); err != nil {
		return nil, err
	}
	return f.File.Stat()
}

func (f *faultFile) Sync() error {
	if err := f.fs.op("sync", f.Name()); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultFile) Close() error {
	if !f.closed {
		f.closed = true
		f.fs.opened(-1)
	}
	return f.File.Close()
}

// Whatever fails in opening a store, all that it opened is closed.
func TestGobStoreClosesWhatItDoesNotOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for n := 0; ; n++ {
		f := &faultFS{FS: fsys.OS, n: n, err: syscall.EIO}
		s, err := gobstore.Open(f, path, quiet)
		if err == nil {
			s.Close()
		}
		if f.open != 0 {
			t.Errorf("the operation after %d fails, opening returns %v: %d files stay open", n, err, f.open)
		}
		if !f.hit() {
			break
		}
	}
}

// fullFS is a file system that has no room left for as long as full says so:
// the first half of each write fits.
type fullFS struct {
	fsys.FS
	full *atomic.Bool
}

var errFull = errors.New("no space left")

func (f fullFS) OpenFile(name string, flag int, perm fs.FileMode) (fsys.File, error) {
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return fullFile{file, f.full}, nil
}

type fullFile struct {
	fsys.File
	full *atomic.Bool
}

func (f fullFile) Write(b []byte) (int, error) {
	return f.half(b, f.File.Write)
}

func (f fullFile) WriteAt(b []byte, off int64) (int, error) {
	return f.half(b, func(b []byte) (int, error) { return f.File.WriteAt(b, off) })
}

func (f fullFile) half(b []byte, write func([]byte) (int, error)) (int, error) {
	if !f.full.Load() {
		return write(b)
	}
	n, err := write(b[:len(b)/2])
	if err == nil {
		err = errFull
	}
	return n, err
}

// A full disk costs the Saves that come meanwhile, each of which is told, and
// nothing that was acknowledged; and it is no damage, of which the log tells.
func TestGobStoreOutlivesAFullDisk(t *testing.T) {
	full, log := new(atomic.Bool), new(strings.Builder)
	path := filepath.Join(t.TempDir(), "s")
	open := func() *gobstore.Store {
		o := gobstore.Options{Logger: slog.New(slog.NewTextHandler(log, nil))}
		s, err := gobstore.Open(fullFS{fsys.OS, full}, path, o)
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
		if err := s.Save(ctx, rec, prev); !errors.Is(err, errFull) {
			t.Fatalf("Save on a full disk: got %v, want %v", err, errFull)
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
