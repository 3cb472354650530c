//go:build windows

package fsys

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

func openFile(name string, flag int, perm fs.FileMode) (f *os.File, err error) {
	err = insist(func() error {
		f, err = os.OpenFile(name, flag, perm)
		return err
	})
	return f, err
}

func rename(oldName, newName string) error {
	return insist(func() error { return os.Rename(oldName, newName) })
}

func remove(name string) error {
	return insist(func() error { return os.Remove(name) })
}

// syncDir does nothing: Windows cannot sync a directory, and NTFS journals names.
func syncDir(string) error { return nil }

// insist repeats what Windows refuses while another process, a reader or a
// virus scanner, has the file open, which is over in a moment.
func insist(do func() error) error {
	for pause := time.Millisecond; ; pause *= 2 {
		err := do()
		if err == nil || !busy(err) || pause > 500*time.Millisecond {
			return err
		}
		time.Sleep(pause)
	}
}

func busy(err error) bool {
	return errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_ACCESS_DENIED)
}
