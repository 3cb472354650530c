package session2_test

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/fsys"
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
// nothing that was acknowledged.
func TestStoresOutliveAFullDisk(t *testing.T) {
	full := new(atomic.Bool)
	disk := fullFS{fsys.OS, full}
	stores := map[string]func(path string) (houseStore, error){
		"file": func(path string) (houseStore, error) { return session2.OpenFileStoreFS(disk, path, nil) },
	}
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			full.Store(false)
			path := filepath.Join(t.TempDir(), "s")
			s, err := open(path)
			if err != nil {
				t.Fatal(err)
			}
			ctx := t.Context()
			for i := range byte(10) {
				if err := s.Save(ctx, houseRecord(i, "alice"), 0); err != nil {
					t.Fatal(err)
				}
			}
			full.Store(true)
			for i := range byte(20) {
				rec := houseRecord(i, "bob")
				prev := rec.Version
				if rec.Version += 100; i >= 10 {
					prev = 0
				}
				if err := s.Save(ctx, rec, prev); !errors.Is(err, errFull) {
					t.Fatalf("Save on a full disk: got %v, want %v", err, errFull)
				}
			}
			full.Store(false)
			check := func(when string) {
				for i := range byte(10) {
					want := houseRecord(i, "alice")
					if got, err := s.Load(ctx, want.ID); err != nil || got.Version != want.Version {
						t.Errorf("%s: Load: got version %d, %v, want %d", when, got.Version, err, want.Version)
					}
				}
				if ok, err := s.Has(ctx, houseRecord(10, "").ID); ok || err != nil {
					t.Errorf("%s: Has of what did not fit: got %v, %v, want false", when, ok, err)
				}
			}
			check("with room again")
			if err := s.Save(ctx, houseRecord(50, "bob"), 0); err != nil {
				t.Errorf("Save with room again: %v", err)
			}
			if n, err := s.DeleteUser(ctx, "bob"); n != 1 || err != nil {
				t.Errorf("DeleteUser: got %d, %v, want 1", n, err)
			}
			s.Close()
			if s, err = open(path); err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			check("opened again")
		})
	}
}

// agedRecord is one that was used last so many hours ago, and has not expired.
func agedRecord(n byte, hours int) session2.Record {
	rec := fileRecord(n, "ada")
	rec.Accessed = rec.Accessed.Add(-time.Duration(hours) * time.Hour)
	return rec
}

// sweeps fails the test unless DeleteOld returns n and an error that is want, or
// none.
func sweeps(t *testing.T, when string, s *session2.FileStore, age time.Duration, n int, want error) {
	t.Helper()
	if got, err := s.DeleteOld(t.Context(), age); got != n || !errors.Is(err, want) {
		t.Errorf("%s: DeleteOld returns %d, %v; want %d, %v", when, got, err, n, want)
	}
	if users, due, err := s.CheckIndexes(t.Context()); len(users)+len(due) > 0 || err != nil {
		t.Errorf("%s: CheckIndexes: got %v, %v, %v, want none", when, users, due, err)
	}
}

// On a full disk a sweep removes all that is old, though it cannot file the entries
// of what lives on anew; and what lives on is swept in its time.
func TestFileStoreSweepsAFullDisk(t *testing.T) {
	full := new(atomic.Bool)
	s, err := session2.OpenFileStoreFS(fullFS{fsys.OS, full}, t.TempDir(), nil)
	testsite.Must(t, err)
	mustSave(t, s, agedRecord(1, 4), 0)
	for i := range byte(3) {
		mustSave(t, s, agedRecord(2+i, 4-int(i)), 0) // the first one in the bucket of what lives on
	}
	sweeps(t, "with room", s, math.MaxInt64, 0, nil)
	testsite.Must(t, s.Touch(t.Context(), fileRecord(1, "").ID, time.Now(), time.Now().Add(time.Hour)))
	full.Store(true)
	sweeps(t, "full", s, time.Hour, 3, errFull)
	sweeps(t, "still full", s, time.Hour, 0, errFull)
	full.Store(false)
	sweeps(t, "with room again", s, time.Hour, 0, nil)
	sweeps(t, "in the end", s, 0, 1, nil)
}

// On a full disk a sweep also removes what is old and was announced only, by
// earlier sweeps' files and by new ones.
func TestFileStoreSweepsWhatItCannotTakeOver(t *testing.T) {
	full := new(atomic.Bool)
	dir := t.TempDir()
	s, err := session2.OpenFileStoreFS(fullFS{fsys.OS, full}, dir, nil)
	testsite.Must(t, err)
	for round := range byte(2) {
		full.Store(false)
		for i := range byte(4) { // each first byte has one that is old and one that lives on
			rec := agedRecord(i/2, 4*int(i%2))
			rec.ID[14], rec.ID[15] = round, i
			mustSave(t, s, rec, 0)
		}
		full.Store(true)
		sweeps(t, "full", s, time.Hour, 2, errFull)
		sweeps(t, "still full", s, time.Hour, 0, errFull)
	}
	full.Store(false)
	sweeps(t, "with room again", s, time.Hour, 0, nil)
	sweeps(t, "in the end", s, 0, 4, nil)
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// On a full disk a sweep removes the buckets in which no entry leads to a record,
// though it cannot write the others anew.
func TestFileStoreThinsAFullDisk(t *testing.T) {
	full := new(atomic.Bool)
	dir := t.TempDir()
	s, err := session2.OpenFileStoreFS(fullFS{fsys.OS, full}, dir, nil)
	testsite.Must(t, err)
	now := time.Now()
	for i := range byte(40) { // two a bucket
		rec := agedRecord(i, 0)
		rec.Accessed = now.Add(-time.Duration(i/2) * time.Hour)
		mustSave(t, s, rec, 0)
	}
	sweeps(t, "with room", s, math.MaxInt64, 0, nil)
	for i := range byte(40) { // a half of ten buckets, and all of ten
		if i%2 == 0 || i >= 20 {
			testsite.Must(t, s.Delete(t.Context(), fileRecord(i, "").ID))
		}
	}
	full.Store(true)
	sweeps(t, "full", s, math.MaxInt64, 0, errFull)
	if got := len(filesIn(t, filepath.Join(dir, "due", "accessed"))); got != 10 {
		t.Errorf("%d buckets are left, want the 10 that cannot be written anew", got)
	}
	full.Store(false)
	sweeps(t, "in the end", s, 0, 10, nil)
}
