//go:build unix

package fsys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// Private returns an error unless info is that of a directory which belongs to
// this process's user and which nobody else may write to. With shared, its
// group may, and it may be another user's if its group is one of this process's.
func Private(info fs.FileInfo, shared bool) error {
	if !info.IsDir() {
		return errors.New("not a directory")
	}
	return guarded(info, shared)
}

// PrivateFile is Private for a regular file.
func PrivateFile(info fs.FileInfo, shared bool) error {
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	return guarded(info, shared)
}

// Holds returns an error if somebody who should not could put another directory in the
// place of one that is in the directory with this info: its owner, unless that is root, and
// who may write to it. Where the sticky bit is set, these can only rename what is theirs.
func Holds(info fs.FileInfo, shared bool) error {
	if info.Mode()&fs.ModeSticky == 0 {
		if err := writers(info, shared); err != nil {
			return err
		}
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid == 0 {
		return nil
	}
	return owner(info, shared)
}

// guarded returns an error if anybody may write who should not.
func guarded(info fs.FileInfo, shared bool) error {
	if err := writers(info, shared); err != nil {
		return err
	}
	return owner(info, shared)
}

// owner returns an error if the owner is another user, who with shared has no group of this
// process's.
func owner(info fs.FileInfo, shared bool) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || int(st.Uid) == os.Geteuid():
		return nil
	case !shared:
		return fmt.Errorf("it belongs to another user (uid %d, and this process is of uid %d): use chown, or run as that one",
			st.Uid, os.Geteuid())
	case !inGroup(int(st.Gid)):
		return fmt.Errorf("it belongs to another user (uid %d), and its group %d is none of this process's",
			st.Uid, st.Gid)
	}
	return nil
}

// writers returns an error if the mode lets others write, or without shared the group. The
// group that is the user's alone is nobody else.
func writers(info fs.FileInfo, shared bool) error {
	mode := info.Mode()
	switch st, ok := info.Sys().(*syscall.Stat_t); {
	case mode.Perm()&0o002 != 0:
		return fmt.Errorf("others may write to it (mode %v): use chmod o-w", mode)
	case mode.Perm()&0o020 != 0 && !shared && !(ok && OwnGroup(int(st.Gid))):
		return fmt.Errorf("others may write to it (mode %v): use chmod g-w, or trust its group by the option SharedGroup, "+
			"in a URL group=true", mode)
	}
	return nil
}

// inGroup reports whether this process is of the group.
func inGroup(gid int) bool {
	groups, _ := os.Getgroups()
	return gid == os.Getegid() || slices.Contains(groups, gid)
}
