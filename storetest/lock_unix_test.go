//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package storetest_test

import (
	"os"
	"syscall"
)

// lockFile excludes other processes, and other stores of this one.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
