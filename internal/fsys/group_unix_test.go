//go:build unix

package fsys

import "testing"

func TestOwnGroup(t *testing.T) {
	const users = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000:Ann:/home/ann:/bin/sh\n" +
		"bob:x:1001:1001::/home/bob:/bin/sh\nservice:x:999:1001::/:/bin/false\n"
	for _, c := range []struct {
		what, groups string
		uid, gid     int
		want         bool
	}{
		{"her own", "root:x:0:\nann:x:1000:\nusers:x:100:ann,bob", 1000, 1000, true},
		{"her own, and she is named", "ann:x:1000:ann\n", 1000, 1000, true},
		{"it has another member", "ann:x:1000:bob\n", 1000, 1000, false},
		{"and another one", "ann:x:1000:ann,bob\n", 1000, 1000, false},
		{"by a second name", "ann:x:1000:\nstaff:x:1000:bob\n", 1000, 1000, false},
		{"another user's", "ann:x:1000:\nbob:x:1001:\n", 1000, 1001, false},
		{"one of several users", "users:x:100:ann,bob\n", 1000, 100, false},
		{"somebody else's first", "bob:x:1001:\n", 1001, 1001, false},
		{"not in the file", "root:x:0:\n", 1000, 1000, false},
		{"an unknown user's", "ann:x:1000:\n", 1234, 1000, false},
		{"an unknown user's, without a name", ":x:1234:\n", 1234, 1234, false},
		{"root's", "root:x:0:\n", 0, 0, false},
		{"malformed", "ann:x\nann", 1000, 1000, false},
	} {
		if got := ownGroup(users, c.groups, c.uid, c.gid); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}
