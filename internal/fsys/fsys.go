// Package fsys is the seam through which the stores that keep files do all
// that they do to a file system, so that a test can record it, delay it, make
// it fail, cut it off and replay it as after a power cut. It also knows who may
// write to a file or directory, and how to share one with a group.
package fsys

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// An FS is a file system. Its methods are those of package os; SyncDir makes
// durable what was created, renamed and removed in a directory. OpenFile does not wait
// for the other end of a FIFO: it opens it, or returns an error matching [ErrIrregular].
type FS interface {
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	Mkdir(name string, perm fs.FileMode) error
	Rename(oldName, newName string) error
	Link(oldName, newName string) error
	Remove(name string) error
	Lstat(name string) (fs.FileInfo, error)
	SyncDir(name string) error
}

// A File is an open file or directory; an [*os.File] is one.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.WriterAt
	io.Seeker
	io.Closer
	syscall.Conn // for locks
	Name() string
	Stat() (fs.FileInfo, error)
	ReadDir(n int) ([]fs.DirEntry, error)
	Truncate(size int64) error
	Chmod(mode fs.FileMode) error
	Chown(uid, gid int) error
	Sync() error
}

// ErrIrregular says that what is in the place of a file cannot be opened: a socket, or a
// FIFO that nobody reads.
var ErrIrregular = errors.New("neither a regular file nor a directory")

// OS is the operating system's file system.
var OS FS = osFS{}

type osFS struct{}

func (osFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := openFile(name, flag, perm)
	if err != nil {
		return nil, err // not f: a nil *os.File in an interface is not nil
	}
	return f, nil
}

func (osFS) Mkdir(name string, perm fs.FileMode) error { return os.Mkdir(name, perm) }
func (osFS) Rename(oldName, newName string) error      { return rename(oldName, newName) }
func (osFS) Link(oldName, newName string) error        { return os.Link(oldName, newName) }
func (osFS) Remove(name string) error                  { return remove(name) }
func (osFS) Lstat(name string) (fs.FileInfo, error)    { return os.Lstat(name) }
func (osFS) SyncDir(name string) error                 { return syncDir(name) }

const tempSuffix = ".tmp"

// Temp returns the name of the temporary that [WriteFile] uses for name. It is
// always the same, so that the next writer reuses what a killed one left.
func Temp(name string) string { return name + tempSuffix }

// IsTemp reports whether a file of this name is a temporary.
func IsTemp(name string) bool { return strings.HasSuffix(name, tempSuffix) }

// WriteFile replaces the file name by what write writes, so that a reader, and
// whoever looks after a crash, sees all of the old or all of the new: it writes
// a temporary in the same directory, renames it over name, and leaves none
// behind when it fails. With sync, the file is durable before it gets its name,
// and the name is when WriteFile returns; if only that last step fails, the new
// file is in place, and the error is one that [Late] returns. The caller holds
// the lock on name.
func WriteFile(fsys FS, name string, sync bool, write func(io.Writer) error) error {
	if err := Replace(fsys, name, sync, write); err != nil || !sync {
		return err
	}
	return Late(fsys.SyncDir(filepath.Dir(name)))
}

// Replace is WriteFile without its last step: the caller syncs the directory.
func Replace(fsys FS, name string, sync bool, write func(io.Writer) error) error {
	temp := Temp(name)
	if err := writeTemp(fsys, temp, sync, write); err != nil {
		return err
	}
	err := fsys.Rename(temp, name)
	if err != nil {
		fsys.Remove(temp)
	}
	return err
}

// writeTemp writes the temporary, or removes it.
func writeTemp(fsys FS, temp string, sync bool, write func(io.Writer) error) (err error) {
	f, err := fsys.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			fsys.Remove(temp)
		}
	}()
	err = write(f)
	if err == nil && sync {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// Late returns the error of a step that comes after a change was made. Such an
// error must not pass for a refusal, which would say that nothing was changed;
// so it matches none of the errors that stand for one, such as [fs.ErrPermission]
// and [syscall.ENOSPC].
func Late(err error) error { return noRefusal(err, "changed, but not known to be durable: ") }

// Partly is [Late] for the error of a change of which a part was made, or may
// have been.
func Partly(err error) error { return noRefusal(err, "may have been changed in part: ") }

// refusals are the errors from which a caller concludes that nothing was changed.
var refusals = []error{
	fs.ErrPermission, fs.ErrClosed, errors.ErrUnsupported,
	syscall.EROFS, syscall.ENOSPC, syscall.EFBIG, syscall.EDQUOT,
}

// Refused reports whether err says that nothing was changed, and that asking again
// is of no use.
func Refused(err error) bool {
	return slices.ContainsFunc(refusals, func(refusal error) bool { return errors.Is(err, refusal) })
}

// Recognized returns err so that it matches the refusal that its text ends with, if
// there is one: some packages keep no more of an error than its text.
func Recognized(err error) error {
	for _, refusal := range refusals {
		if strings.HasSuffix(err.Error(), refusal.Error()) {
			return recognized{err, refusal}
		}
	}
	return err
}

type recognized struct {
	error
	refusal error
}

func (r recognized) Unwrap() []error { return []error{r.error, r.refusal} }

func noRefusal(err error, prefix string) error {
	if Refused(err) {
		return errors.New(prefix + err.Error())
	}
	return err
}
