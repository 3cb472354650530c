//go:build unix

package fsys

import (
	"iter"
	"os"
	"strconv"
	"strings"
)

// OwnGroup reports whether a group is this process's user's alone, as far as the system's
// files tell. Many systems give each user such a group, and have it write to what the user
// makes (a umask of 002). Root has none.
func OwnGroup(gid int) bool {
	users, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return false
	}
	groups, err := os.ReadFile("/etc/group")
	return err == nil && ownGroup(string(users), string(groups), os.Geteuid(), gid)
}

// ownGroup goes by the lines of passwd(5) and group(5): the group has the user's name and
// no other members, and it is nobody else's first one.
func ownGroup(users, groups string, uid, gid int) bool {
	if uid == 0 || gid == 0 {
		return false
	}
	name := ""
	for user := range entries(users, 4) {
		own := user[2] == strconv.Itoa(uid)
		if own {
			name = user[0]
		}
		if !own && user[3] == strconv.Itoa(gid) {
			return false
		}
	}
	found := false
	for group := range entries(groups, 4) {
		if group[2] != strconv.Itoa(gid) {
			continue
		}
		if group[0] != name || group[3] != "" && group[3] != name {
			return false
		}
		found = true
	}
	return found && name != ""
}

// entries yields the fields of each line that has at least so many.
func entries(text string, fields int) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		for line := range strings.Lines(text) {
			f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
			if len(f) >= fields && !yield(f) {
				return
			}
		}
	}
}
