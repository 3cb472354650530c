// Package realm is how a record's User, by which stores find a user's sessions,
// names the realm as well: so that they find those of one realm only.
package realm

import "strings"

// mark stands before and after the realm. No realm holds one.
const mark = "\x1f"

// The realms of the markers that Migrating writes. No manager opens them.
const (
	Prepared = "session2: prepared"
	Moved    = "session2: moved"
)

// IsMarkers reports whether what is in the realm is a marker.
func IsMarkers(realm string) bool { return realm == Prepared || realm == Moved }

// Key returns what stands in a record's User. It is the user as it is in the
// default realm, which is "", and for "", who is nobody.
func Key(realm, user string) string {
	if user == "" || realm == "" && !strings.HasPrefix(user, mark) {
		return user
	}
	return mark + realm + mark + user
}

// User returns the user of a key whose realm is known.
func User(realm, key string) string {
	if !strings.HasPrefix(key, mark) { // as in the default realm
		return key
	}
	return strings.TrimPrefix(key, mark+realm+mark)
}

// Split returns the realm and the user of a key by itself. That of nobody tells
// no realm.
func Split(key string) (realm, user string, ok bool) {
	if rest, marked := strings.CutPrefix(key, mark); marked {
		if realm, user, ok = strings.Cut(rest, mark); ok {
			return realm, user, true
		}
	}
	return "", key, key != ""
}
