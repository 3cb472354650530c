package session2_test

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/fsys"
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

func (f *faultFS) Mkdir(name string, perm fs.FileMode) error {
	return errors.Join(f.op("mkdir", name), f.unless(func() error { return f.FS.Mkdir(name, perm) }))
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

func (f *faultFile) ReadDir(n int) ([]fs.DirEntry, error) {
	if err := f.fs.op("read", f.Name()); err != nil {
		return nil, err
	}
	return f.File.ReadDir(n)
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
func TestStoresCloseWhatTheyDoNotOpen(t *testing.T) {
	type openFS = func(f fsys.FS, path string) (houseStore, error)
	for name, open := range map[string]openFS{
		"file": func(f fsys.FS, path string) (houseStore, error) { return session2.OpenFileStoreFS(f, path, nil) },
		"gob":  func(f fsys.FS, path string) (houseStore, error) { return session2.OpenGobStoreOn(f, path, nil, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			for n := 0; ; n++ {
				f := &faultFS{FS: fsys.OS, n: n, err: syscall.EIO}
				s, err := open(f, path)
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
		})
	}
}

// A refusal says that nothing was changed, at once; an error after a change is
// none. All others leave it open.
func TestFileStoreRefusesBeforeItChanges(t *testing.T) {
	ada, bob := fileRecord(1, "ada"), fileRecord(1, "bob")
	bob.Version = 2
	calls := map[string]func(ctx context.Context, s *session2.FileStore) error{
		"create":  func(ctx context.Context, s *session2.FileStore) error { return s.Save(ctx, fileRecord(2, "ada"), 0) },
		"replace": func(ctx context.Context, s *session2.FileStore) error { return s.Save(ctx, bob, ada.Version) },
		"again":   func(ctx context.Context, s *session2.FileStore) error { return s.Save(ctx, ada, 0) },
		"delete":  func(ctx context.Context, s *session2.FileStore) error { return s.Delete(ctx, ada.ID) },
		"delete user": func(ctx context.Context, s *session2.FileStore) error {
			_, err := s.DeleteUser(ctx, "ada")
			return err
		},
	}
	for name, call := range calls {
		for _, refusal := range []syscall.Errno{syscall.EACCES, syscall.EROFS} {
			for n := 0; ; n++ {
				f := &faultFS{FS: fsys.OS, n: math.MaxInt}
				s, err := session2.OpenFileStoreFS(f, t.TempDir(), nil)
				if err != nil {
					t.Fatal(err)
				}
				mustSave(t, s, ada, 0)
				f.failAfter(n, refusal)
				err = call(t.Context(), s)
				hit := f.hit()
				f.failAfter(math.MaxInt, nil)
				var got session2.Version
				for rec := range s.Iter(t.Context()) {
					got += rec.Version
				}
				synced := name == "again" && err != nil && strings.Contains(err.Error(), "sync")
				if errors.Is(err, refusal) && (got != ada.Version || synced) {
					t.Errorf("%s, %v after %d operations: a refusal, %v, but the change was made", name, refusal, n, err)
				}
				if n == 0 && !errors.Is(err, refusal) {
					t.Errorf("%s, %v at once: got %v, want a refusal", name, refusal, err)
				}
				if !hit {
					break
				}
			}
		}
	}
}
