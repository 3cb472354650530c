//go:build unix

package fsys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// Private returns an error unless info is that of a folder which belongs to
// this process's user and which nobody else may write to.
func Private(info fs.FileInfo) error {
	if !info.IsDir() {
		return errors.New("not a folder")
	}
	return guarded(info)
}

// PrivateFile is Private for a regular file.
func PrivateFile(info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	return guarded(info)
}

// guarded returns an error if anybody but this process's user may write.
func guarded(info fs.FileInfo) error {
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others may write to it (mode %v)", info.Mode())
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to another user (uid %d)", st.Uid)
	}
	return nil
}
