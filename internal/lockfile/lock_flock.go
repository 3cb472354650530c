//go:build darwin || dragonfly || freebsd || illumos || netbsd || openbsd

package lockfile

import (
	"errors"

	"golang.org/x/sys/unix"
)

// tryLock puts a flock on the file, unless somebody else's is in the way.
func tryLock(f File) (bool, error) {
	err := flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// unlock takes the lock off.
func unlock(f File) error { return flock(f, unix.LOCK_UN) }
