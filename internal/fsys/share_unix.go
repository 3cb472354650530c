//go:build unix

package fsys

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"syscall"
)

// Share returns fsy such that all processes of a directory's group can use what
// it creates, whatever their umask and their first group: files that are open
// to their owner are open to the group as well, and so are directories. A nil
// dir leaves the group to the system.
//
// A file or directory gets its name only when it has its rights, so that
// nobody of the group finds one that is still closed, also not after a kill.
func Share(fsy FS, dir fs.FileInfo) FS {
	s := sharedFS{FS: fsy, gid: -1}
	if dir != nil {
		if st, ok := dir.Sys().(*syscall.Stat_t); ok {
			s.gid = int(st.Gid)
		}
	}
	return s
}

// ShareBelow is Share for what is still to be made in the directory with the info above: it
// gets that one's group if this process may give it that, and else the one that the system
// gives it.
func ShareBelow(fsy FS, above fs.FileInfo) FS {
	st, ok := above.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 && !inGroup(int(st.Gid)) {
		above = nil
	}
	return Share(fsy, above)
}

// Closed returns an error if the group of a directory cannot use what is in there.
func Closed(info fs.FileInfo) error {
	if info.Mode().Perm()&0o070 == 0o070 {
		return nil
	}
	return fmt.Errorf("it is closed to its group (mode %v): have its owner use chgrp -R and chmod -R g+rwX", info.Mode())
}

// OpenDir opens a directory that is closed to its group, if it is this process's user's, and
// returns its new info. A group that it was not given but by the system is none that
// anybody chose: then it gets that of the directory with the info above, as by ShareBelow.
func OpenDir(fsy FS, name string, info, above fs.FileInfo) (fs.FileInfo, error) {
	closed := Closed(info)
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case closed == nil:
		return info, nil
	case !ok || int(st.Uid) != os.Geteuid():
		return nil, closed
	}
	shared := Share(fsy, info)
	if info.Mode().Perm()&0o070 == 0 && int(st.Gid) == os.Getegid() {
		shared = ShareBelow(fsy, above)
	}
	if err := shared.(sharedFS).openDir(name, info.Mode().Perm()|0o700); err != nil {
		return nil, err
	}
	return fsy.Lstat(name)
}

type sharedFS struct {
	FS
	gid int
}

// createTries is how often others may be faster.
const createTries = 10

func (s sharedFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	switch {
	case flag&os.O_CREATE == 0:
		return s.FS.OpenFile(name, flag, perm)
	case IsTemp(name):
		return s.openTemp(name, flag, perm)
	}
	for try := 0; ; try++ {
		f, err := s.FS.OpenFile(name, flag&^os.O_CREATE, 0)
		if !errors.Is(err, fs.ErrNotExist) || try == createTries {
			return f, err
		}
		err = s.create(name, perm)
		if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
}

// openTemp opens a temporary, which the caller alone uses. What a killed writer
// of another user left may be closed to this one, and is removed.
func (s sharedFS) openTemp(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := s.FS.OpenFile(name, flag, perm)
	if errors.Is(err, fs.ErrPermission) && s.FS.Remove(name) == nil {
		f, err = s.FS.OpenFile(name, flag, perm)
	}
	if err != nil {
		return nil, err
	}
	if err := s.open(f, perm|perm>>3); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// create creates an empty file, or fails if there is one.
func (s sharedFS) create(name string, perm fs.FileMode) error {
	temp := another(name)
	f, err := s.openTemp(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	f.Close()
	err = s.FS.Link(temp, name)
	s.FS.Remove(temp)
	return err
}

func (s sharedFS) Mkdir(name string, perm fs.FileMode) error {
	if _, err := s.FS.Lstat(name); err == nil {
		return &fs.PathError{Op: "mkdir", Path: name, Err: fs.ErrExist}
	}
	temp := another(name)
	if err := s.FS.Mkdir(temp, perm); err != nil {
		return err
	}
	err := s.openDir(temp, perm)
	if err == nil {
		err = s.FS.Rename(temp, name) // over an empty directory, if somebody was faster, which is as good
	}
	if err != nil {
		s.FS.Remove(temp)
	}
	return err
}

func (s sharedFS) openDir(name string, perm fs.FileMode) error {
	d, err := s.FS.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	return s.open(d, perm|perm>>3&0o070|fs.ModeSetgid) // so that whatever is put there has the group
}

// open gives a file of this process's user to the group.
func (s sharedFS) open(f File, mode fs.FileMode) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) != os.Geteuid() {
		return nil // it could be opened
	}
	if s.gid >= 0 && int(st.Gid) != s.gid {
		if err := f.Chown(-1, s.gid); err != nil {
			return err
		}
	}
	if info.Mode()&(fs.ModePerm|fs.ModeSetgid) == mode {
		return nil
	}
	return f.Chmod(mode)
}

// another returns the name of a temporary that nobody else uses.
func another(name string) string { return Temp(fmt.Sprintf("%s.%016x", name, rand.Uint64())) }
