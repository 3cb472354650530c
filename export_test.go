package session2

import (
	"cmp"
	"net/http"
	"net/url"

	bolt "go.etcd.io/bbolt"

	"github.com/session2/session2/internal/fsys"
)

// HoldsInfo reports whether a record holds something worth storing.
func HoldsInfo(rec Record) bool {
	st, err := decodeRecord(rec)
	return err == nil && st.hasInfo()
}

// EncodeToken spells a token of the given parts.
func EncodeToken(id ID, secret [32]byte) string { return token{id, verifier(secret)}.encode() }

// ParseToken parses a token and spells it again.
func ParseToken(s string) (again string, ok bool) {
	t, ok := parseToken(s)
	return t.encode(), ok
}

// PrintableSecrets returns what must not show itself in print.
func PrintableSecrets(secret [32]byte) []any {
	v := verifier(secret)
	return []any{v, token{secret: v}, &v, &token{secret: v}}
}

// Effective returns the configuration that a manager goes by.
func Effective(m *Manager) Config { return m.cfg }

// DecodeValue decodes an encoded value for a reader that names no type.
func DecodeValue(c Codec, b []byte) (any, error) { return decodeAny(c, b) }

// DecodeValueAs decodes an encoded value as a T.
func DecodeValueAs[T any](c Codec, b []byte) (T, error) { return decodeTyped[T](c, b) }

// EncodeValue encodes what Set was given.
func EncodeValue(c Codec, v any) ([]byte, error) { return encodeAny(c, v) }

// State is a record's Data, taken apart.
type State = state

// DecodeState takes a record's Data apart, EncodeState puts it together.
func DecodeState(data []byte) (*State, error) {
	st := &state{}
	err := decodeData(st, data)
	return st, err
}

// EncodeState returns a record's Data.
func EncodeState(st *State) []byte {
	data, _ := encodeData(st)
	return data
}

// WriterWith returns the handler's ResponseWriter that has the given optional
// methods, one bit each: Flush, Hijack, Push, CloseNotify.
func WriterWith(has int) http.ResponseWriter { return (*writer)(&exchange{}).with(has) }

// Commits counts the transactions that b commits from now on.
func (b *BoltStore) Commits() (count func() int) {
	n, update := 0, b.bolt.update
	b.bolt.update = func(f func(*bolt.Tx) error) error {
		err := update(f)
		if err == nil {
			n++
		}
		return err
	}
	return func() int { return n }
}

// LoseAnswers has b's commits take effect and then fail with err, as after a
// failed fsync, until err is nil.
func (b *BoltStore) LoseAnswers(err *error) {
	update := b.bolt.update
	b.bolt.update = func(f func(*bolt.Tx) error) error {
		if err := update(f); err != nil {
			return err
		}
		return *err
	}
}

// FailCommits has b's commits fail with err and change nothing, from now on.
func (b *BoltStore) FailCommits(err error) {
	b.bolt.update = func(f func(*bolt.Tx) error) error {
		return b.bolt.db.Update(func(tx *bolt.Tx) error { return cmp.Or(f(tx), err) })
	}
}

// BreakCommits has bbolt panic in the midst of b's commits, and keep its lock.
func (b *BoltStore) BreakCommits() {
	b.bolt.update = func(func(*bolt.Tx) error) error {
		if _, err := b.bolt.db.Begin(true); err != nil {
			return err
		}
		panic("damaged page")
	}
}

// BoltPage and BoltSweep are the bounds of one transaction.
const (
	BoltPage  = boltPage
	BoltSweep = boltSweep
)

// BoltUserKey returns the key under which the index by user has a record.
func BoltUserKey(user string, id ID) []byte { return append(boltUser(user), id[:]...) }

// BoltTimeKey returns the key under which an index by time has a record.
func BoltTimeKey(µs int64, id ID) []byte { return boltTimeKey(µs, id) }

// OpenFileStoreFS is OpenFileStore on a file system of the test's.
func OpenFileStoreFS(fs fsys.FS, dir string, opts *FileOptions) (*FileStore, error) {
	return openFileStore(fs, dir, opts)
}

// MySQLServerName is whose certificate a store of this URL expects.
func MySQLServerName(rawURL string) (string, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", err
	}
	cfg, err := mysqlConfig(u, &openOptions{query: u.Query()})
	if err != nil {
		return "", err
	}
	return cfg.TLS.ServerName, nil
}
