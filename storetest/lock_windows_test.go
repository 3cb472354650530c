package storetest_test

import (
	"errors"
	"syscall"
	"time"
)

const sharingViolation syscall.Errno = 32

// lockFile excludes other processes, and other stores of this one: nobody else
// opens a file that was opened without sharing.
func lockFile(path string) (unlock func(), err error) {
	name, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	for {
		h, err := syscall.CreateFile(name, syscall.GENERIC_READ, 0, nil,
			syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
		if err == nil {
			return func() { syscall.CloseHandle(h) }, nil
		}
		if !errors.Is(err, sharingViolation) {
			return nil, err
		}
		time.Sleep(time.Millisecond)
	}
}
