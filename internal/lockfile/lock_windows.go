//go:build windows

package lockfile

import (
	"errors"

	"golang.org/x/sys/windows"
)

// region is the one byte that is locked. It lies behind all that a file can
// hold, for a lock on Windows keeps others from reading and writing, too.
func region() *windows.Overlapped {
	return &windows.Overlapped{Offset: 0xfffffffe, OffsetHigh: 0x7fffffff}
}

// tryLock locks the region, unless somebody else's lock is in the way.
func tryLock(f File) (bool, error) {
	const flags = windows.LOCKFILE_FAIL_IMMEDIATELY | windows.LOCKFILE_EXCLUSIVE_LOCK
	err := control(f, func(fd uintptr) error {
		return windows.LockFileEx(windows.Handle(fd), flags, 0, 1, 0, region())
	})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return false, nil
	}
	return err == nil, err
}

// unlock takes the lock off.
func unlock(f File) error {
	return control(f, func(fd uintptr) error {
		return windows.UnlockFileEx(windows.Handle(fd), 0, 1, 0, region())
	})
}
