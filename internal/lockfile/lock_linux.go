//go:build linux

package lockfile

import (
	"errors"

	"golang.org/x/sys/unix"
)

// tryLock puts an open-file-description lock on the whole file, unless
// somebody else's is in the way.
func tryLock(f File, exclusive bool) (bool, error) {
	kind := int16(unix.F_RDLCK)
	if exclusive {
		kind = unix.F_WRLCK
	}
	err := setLock(f, kind)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return false, nil
	}
	return err == nil, err
}

// unlock takes the lock off.
func unlock(f File) error { return setLock(f, unix.F_UNLCK) }

func setLock(f File, kind int16) error {
	return control(f, func(fd uintptr) error {
		for {
			lock := unix.Flock_t{Type: kind} // offset and length zero: all of the file; Pid must be zero
			if err := unix.FcntlFlock(fd, unix.F_OFD_SETLK, &lock); err != unix.EINTR {
				return err
			}
		}
	})
}
