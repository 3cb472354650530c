package fsys

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// Place prepares for a store that is one file at path, with others beside it.
// It returns the file's absolute path without symbolic links, so that neither a
// later change of the working directory nor one of the links leads elsewhere,
// and a rename replaces no link by a file. The directory must be there. It
// returns an error if somebody else may write to the directory or the file; with
// shared, their group may, and the file system returned leaves to that group
// what it creates.
func Place(fsy FS, path string, shared bool) (string, FS, error) {
	if path == "" { // of an unset variable, as likely as not
		return "", nil, errors.New("no file is named")
	}
	path, err := resolve(fsy, path)
	if err != nil {
		return "", nil, err
	}
	dir, err := fsy.Lstat(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	if err := Private(dir, shared); err != nil {
		return "", nil, fmt.Errorf("refusing %s: %w", filepath.Dir(path), err)
	}
	if info, err := fsy.Lstat(path); err == nil {
		if err := PrivateFile(info, shared); err != nil {
			return "", nil, fmt.Errorf("refusing %s: %w", path, err)
		}
	}
	if shared {
		fsy = Share(fsy, dir)
	}
	return path, fsy, nil
}

// resolve returns the absolute path without symbolic links of a file that need
// not be there. A link to nowhere is an error.
func resolve(fsy FS, path string) (string, error) {
	dir, err := filepath.Abs(filepath.Dir(path))
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, filepath.Base(path))
	if info, err := fsy.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return filepath.EvalSymlinks(path)
	}
	return path, nil
}
