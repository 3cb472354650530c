//go:build !(linux || darwin || dragonfly || freebsd || illumos || netbsd || openbsd || windows)

package lockfile

import (
	"errors"
	"fmt"
	"runtime"
)

// tryLock fails: POSIX F_SETLK would be no lock (see the package's comment),
// and to go on without one would lose data.
func tryLock(File) (bool, error) {
	return false, fmt.Errorf("no usable file locks on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

func unlock(File) error { return nil }
