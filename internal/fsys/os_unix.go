//go:build !windows

package fsys

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// openFile is [os.OpenFile] but that it does not try to have the file polled, which
// for files and directories is refused, and costs four system calls; and that it does
// not wait for the other end of a FIFO.
func openFile(name string, flag int, perm fs.FileMode) (*os.File, error) {
	for nowait := unix.O_NONBLOCK; ; {
		fd, err := unix.Open(name, flag|unix.O_CLOEXEC|nowait, uint32(perm.Perm()))
		switch err {
		case nil:
			unix.FcntlInt(uintptr(fd), unix.F_SETFL, flag) // without O_NONBLOCK, for which package os would have it polled
			return os.NewFile(uintptr(fd), name), nil
		case unix.EINTR:
		case unix.EAGAIN: // a file server has a lease on it, and is asked to give it back
			nowait = 0
		case unix.ENXIO: // a socket, or a FIFO that nobody reads
			return nil, &fs.PathError{Op: "open", Path: name, Err: ErrIrregular}
		default:
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
	}
}

// rename is [os.Rename] but that it does not look at newName first, for the sake of
// which error a directory there makes.
func rename(oldName, newName string) error {
	for {
		switch err := unix.Rename(oldName, newName); err {
		case nil:
			return nil
		case unix.EINTR:
		default:
			return &os.LinkError{Op: "rename", Old: oldName, New: newName, Err: err}
		}
	}
}

func remove(name string) error { return os.Remove(name) }

func syncDir(name string) error {
	d, err := openFile(name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	err = d.Sync()
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	return err
}
