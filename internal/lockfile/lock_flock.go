//go:build darwin || dragonfly || freebsd || illumos || netbsd || openbsd

package lockfile

import (
	"errors"

	"golang.org/x/sys/unix"
)

// tryLock puts a flock on the file, unless somebody else's is in the way.
func tryLock(f File, exclusive bool) (bool, error) {
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	err := flock(f, how|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// unlock takes the lock off.
func unlock(f File) error { return flock(f, unix.LOCK_UN) }

func flock(f File, how int) error {
	return control(f, func(fd uintptr) error {
		for {
			if err := unix.Flock(int(fd), how); err != unix.EINTR {
				return err
			}
		}
	})
}
