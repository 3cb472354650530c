//go:build !unix

package fsys

import (
	"errors"
	"io/fs"
)

// Private returns an error unless info is that of a directory. Who may write to
// it is not in its mode bits here; directories in a user's profile are private.
func Private(info fs.FileInfo, shared bool) error {
	if !info.IsDir() {
		return errors.New("not a directory")
	}
	return nil
}

// PrivateFile is Private for a regular file.
func PrivateFile(info fs.FileInfo, shared bool) error {
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	return nil
}

// Share returns fsy: what is created inherits the rights of its directory here.
func Share(fsy FS, dir fs.FileInfo) FS { return fsy }

// ShareBelow returns fsy, as Share does.
func ShareBelow(fsy FS, above fs.FileInfo) FS { return fsy }

// Closed finds nothing to refuse.
func Closed(fs.FileInfo) error { return nil }

// OpenDir has nothing to open.
func OpenDir(fsy FS, name string, info, above fs.FileInfo) (fs.FileInfo, error) { return info, nil }

// Holds finds nothing to refuse.
func Holds(fs.FileInfo, bool) error { return nil }

// OwnGroup reports false: groups do not matter here.
func OwnGroup(int) bool { return false }
