package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/realm"
)

// origin is the realm of a record, which may not be known.
type origin struct {
	name  string
	known bool
}

// String returns the realm as a terminal shows it.
func (o origin) String() string {
	switch {
	case !o.known:
		return "?"
	case o.name == "?":
		return `"?"`
	}
	return plain(o.name)
}

// MarshalJSON implements [json.Marshaler].
func (o origin) MarshalJSON() ([]byte, error) {
	if !o.known {
		return []byte("null"), nil
	}
	return json.Marshal(o.name)
}

// compare orders by name, the unknown realm last.
func (o origin) compare(p origin) int {
	switch {
	case o.known == p.known:
		return strings.Compare(o.name, p.name)
	case o.known:
		return -1
	}
	return 1
}

// owner returns whose record it is. Where the data could not be read, the user's
// key tells the realm as well, if somebody is signed in.
func owner(rec session2.Record, c session2.Contents, unread error) (origin, string) {
	if unread == nil {
		return origin{c.Realm, true}, c.User
	}
	name, user, ok := realm.Split(rec.User)
	return origin{name, ok}, user
}

// chosen reports whether -realm leaves the realm's sessions in. Nobody can tell
// of an unknown one that it is the one that was meant.
func (j *job) chosen(o origin) bool {
	return !j.gave("realm") || o.known && o.name == j.realm
}

// userKey returns the store's key for a user of the realm that was named.
func (j *job) userKey(user string) string { return realm.Key(j.realm, user) }

const (
	hintRecords = 1000 // that are looked at
	hintRealms  = 5    // that are named
)

// hint says in which other realms the user has sessions, to whoever named a user
// and no realm. The first records stand for all: their IDs are random. What fails
// here is no failure of the command, which has done its work.
func (j *job) hint(ctx context.Context, user string) {
	if j.gave("realm") {
		return
	}
	var also []string
	for _, name := range j.someRealms(ctx) {
		if j.hasUser(ctx, realm.Key(name, user)) {
			also = append(also, fmt.Sprintf("-realm %v", origin{name, true}))
		}
		if len(also) == hintRealms {
			break
		}
	}
	if len(also) > 0 {
		j.bar.note(fmt.Sprintf("session2: only the default realm was looked at; the user %s has sessions in others: %s",
			plain(user), strings.Join(also, ", ")))
	}
}

// someRealms returns the realms of the first records, but the default one.
func (j *job) someRealms(ctx context.Context) (names []string) {
	s, ok := j.store.(session2.IterStore)
	if !ok {
		return nil
	}
	seen, n := map[origin]bool{{"", true}: true}, 0
	for rec, err := range s.Iter(ctx) {
		if n++; n > hintRecords {
			break
		}
		if err != nil {
			continue
		}
		c, err := session2.Inspect(rec)
		if o, _ := owner(rec, c, err); o.known && !seen[o] {
			seen[o] = true
			names = append(names, o.name)
		}
	}
	return names
}

// hasUser reports whether a session stands under the user's key.
func (j *job) hasUser(ctx context.Context, key string) bool {
	s, ok := j.store.(session2.UserStore)
	if !ok {
		return false
	}
	for _, err := range s.IterUser(ctx, key) {
		return err == nil || errors.Is(err, session2.ErrCorrupt)
	}
	return false
}
