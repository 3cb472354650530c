package session2

import (
	"fmt"
	"io"
	"time"
)

// Contents is what a record's Data hold, for tools that look into a store. There is no
// token in it and no part of one: it opens no session.
type Contents struct {
	Realm      string        // whose manager's it is: [Config.Realm]
	User       string        // as the application knows it, without the realm
	RemoteAddr string        // of the request that began the session
	UserAgent  string        // likewise
	Lifetime   time.Duration // of [Session.SetLifetime]; 0: the manager's
	Idle       time.Duration // of [Session.SetIdleTimeout]; 0: the manager's; negative: none
	FormTokens int           // their number
	Flashes    []Item        // without keys, the oldest first
	Values     []Item        // ordered by key
	Sealed     bool          // by [Config.Sealed]: addresses, agents, form tokens, flashes and values are left out
	Versions   []Version     // the latest few of the record, its present one last
}

// Item is one encoded value. Printing it shows its key and its size, never the value.
type Item struct {
	Key  string // "" for a flash message
	Size int    // bytes
	data []byte
}

// Inspect takes a record apart as a manager would. If it cannot, the error matches
// [ErrCorrupt], and shows nothing of the data. The contents share the record's Data,
// which must not be changed.
func Inspect(rec Record) (Contents, error) {
	st, err := decodeRecord(rec)
	if err != nil {
		return Contents{}, err
	}
	c := Contents{
		Realm: st.realm, User: st.user, RemoteAddr: st.remote, UserAgent: st.agent,
		Lifetime: st.lifetime, Idle: st.idle, Sealed: st.box != nil,
		FormTokens: len(st.forms), Versions: st.versions.list(),
	}
	for _, f := range st.flashes {
		c.Flashes = append(c.Flashes, Item{Size: len(f.data), data: f.data})
	}
	for _, v := range st.values.base {
		c.Values = append(c.Values, Item{Key: v.key(), Size: len(v.data()), data: v.data()})
	}
	return c, nil
}

// Value decodes the value. What JSON wrote comes back in JSON's own types. It is an
// error if Gob wrote the value for a [Key], or for a type that this program has not
// registered, or if a codec of the application wrote it; but values of basic kinds are
// always decoded.
func (i Item) Value() (any, error) {
	v, err := decodeAny(i.codec(), i.data)
	if err != nil {
		return nil, fmt.Errorf("session2: key %q: a value of a type unknown to this program", i.Key)
	}
	return v, nil
}

// codec returns the codec that wrote the value.
func (i Item) codec() Codec {
	if len(i.data) > 1 && i.data[1] == codecMark(JSON{}) {
		return JSON{}
	}
	return Gob{}
}

// Format implements [fmt.Formatter].
func (i Item) Format(f fmt.State, _ rune) {
	io.WriteString(f, fmt.Sprintf("%q %d bytes", i.Key, i.Size))
}
