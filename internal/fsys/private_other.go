//go:build !unix

package fsys

import (
	"errors"
	"io/fs"
)

// Private returns an error unless info is that of a folder. Who may write to
// it is not in its mode bits here; folders in a user's profile are private.
func Private(info fs.FileInfo) error {
	if !info.IsDir() {
		return errors.New("not a folder")
	}
	return nil
}

// PrivateFile is Private for a regular file.
func PrivateFile(info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	return nil
}
