// Package faultfs gives the tests of stores file systems that fail: after so many
// operations, or as a disk does that is full; and the tests that every store on files
// must pass there.
package faultfs

import (
	"errors"
	"io/fs"
	"math"
	"sync"
	"sync/atomic"

	"github.com/session2/session2/internal/fsys"
)

// FS is a file system on which all operations fail after the first n, and
// that counts what is open.
type FS struct {
	fsys.FS
	mu   sync.Mutex
	err  error
	n    int
	open int
}

// After returns a file system, on top of that of the machine, on which all but the
// first n operations fail.
func After(n int, err error) *FS { return &FS{FS: fsys.OS, n: n, err: err} }

// New returns one on which nothing fails yet.
func New() *FS { return After(math.MaxInt, nil) }

// Open returns how many files are open.
func (f *FS) Open() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open
}

// FailAfter makes all but the next n operations fail.
func (f *FS) FailAfter(n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n, f.err = n, err
}

// Hit reports whether an operation has failed.
func (f *FS) Hit() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n < 0
}

func (f *FS) op(op, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n--; f.n < 0 {
		return &fs.PathError{Op: op, Path: name, Err: f.err}
	}
	return nil
}

func (f *FS) opened(by int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open += by
}

func (f *FS) OpenFile(name string, flag int, perm fs.FileMode) (fsys.File, error) {
	if err := f.op("open", name); err != nil {
		return nil, err
	}
	opened, err := f.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	f.opened(1)
	return &file{File: opened, fs: f}, nil
}

func (f *FS) Mkdir(name string, perm fs.FileMode) error {
	return errors.Join(f.op("mkdir", name), f.unless(func() error { return f.FS.Mkdir(name, perm) }))
}

func (f *FS) Rename(oldName, newName string) error {
	return errors.Join(f.op("rename", oldName), f.unless(func() error { return f.FS.Rename(oldName, newName) }))
}

func (f *FS) Remove(name string) error {
	return errors.Join(f.op("remove", name), f.unless(func() error { return f.FS.Remove(name) }))
}

func (f *FS) SyncDir(name string) error {
	return errors.Join(f.op("sync", name), f.unless(func() error { return f.FS.SyncDir(name) }))
}

func (f *FS) unless(do func() error) error {
	if f.Hit() {
		return nil
	}
	return do()
}

type file struct {
	fsys.File
	fs     *FS
	closed bool
}

func (f *file) Write(b []byte) (int, error) {
	if err := f.fs.op("write", f.Name()); err != nil {
		return 0, err
	}
	return f.File.Write(b)
}

func (f *file) WriteAt(b []byte, off int64) (int, error) {
	if err := f.fs.op("write", f.Name()); err != nil {
		return 0, err
	}
	return f.File.WriteAt(b, off)
}

func (f *file) ReadAt(b []byte, off int64) (int, error) {
	if err := f.fs.op("read", f.Name()); err != nil {
		return 0, err
	}
	return f.File.ReadAt(b, off)
}

func (f *file) ReadDir(n int) ([]fs.DirEntry, error) {
	if err := f.fs.op("read", f.Name()); err != nil {
		return nil, err
	}
	return f.File.ReadDir(n)
}

func (f *file) Stat() (fs.FileInfo, error) {
	if err := f.fs.op("stat", f.Name()); err != nil {
		return nil, err
	}
	return f.File.Stat()
}

func (f *file) Sync() error {
	if err := f.fs.op("sync", f.Name()); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *file) Close() error {
	if !f.closed {
		f.closed = true
		f.fs.opened(-1)
	}
	return f.File.Close()
}

// Full is a file system that has no room left for as long as Now says so:
// the first half of each write fits.
type Full struct {
	fsys.FS
	Now *atomic.Bool
}

// ErrFull is what its writes fail with.
var ErrFull = errors.New("no space left")

func (f Full) OpenFile(name string, flag int, perm fs.FileMode) (fsys.File, error) {
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return fullFile{file, f.Now}, nil
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
		err = ErrFull
	}
	return n, err
}
