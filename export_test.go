package session2

import (
	"net/http"
	"net/url"
	"time"
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
func EncodeValue(c Codec, v any) ([]byte, error) {
	e, err := encodeAny(c, "", v)
	if err != nil {
		return nil, err
	}
	return e.data(), nil
}

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

// Lines returns in how many lines of Exclusive requests of m are.
func Lines(m *Manager) int {
	m.lines.mu.Lock()
	defer m.lines.mu.Unlock()
	return len(m.lines.of)
}

// Turns returns how many requests of Exclusive a record shows.
func Turns(rec Record) int {
	st, err := decodeRecord(rec)
	if err != nil {
		return -1
	}
	return len(st.turns)
}

// TurnsOf returns what is left of turns with these numbers and times when one of the
// given number wants a turn, and whether that is to be stored.
func TurnsOf(now time.Time, want uint64, numbers []uint64, until []time.Time) (next []uint64, save bool) {
	var q turns
	for i, n := range numbers {
		q = append(q, turn{n, instantOf(until[i])})
	}
	q, save = q.take(want, instantOf(now))
	for _, t := range q {
		next = append(next, t.number)
	}
	return next, save
}

// OpensSealed reports whether the verifier of a token by itself opens what is sealed
// in a record.
func OpensSealed(rec Record, text string) bool {
	st, err := decodeRecord(rec)
	t, ok := parseToken(text)
	return err == nil && ok && st.box != nil && st.open(t.secret) == nil
}

// SplitSealed parts the Data of a sealed record before the sealed section.
func SplitSealed(rec Record) (head, section []byte) {
	st, err := decodeRecord(rec)
	if err != nil || st.box == nil {
		return rec.Data, nil
	}
	n := len(st.box.head)
	return rec.Data[:n:n], rec.Data[n:]
}

// Mask spells a form token's or CSRF token's bytes, Unmask reads them.
func Mask(b [len(mark{})]byte) string { return mark(b).mask() }

func Unmask(s string) ([len(mark{})]byte, bool) {
	m, ok := unmask(s)
	return m, ok
}

// StorePath returns the path that the URL of an embedded store names.
func StorePath(rawURL string) (string, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", err
	}
	return storePath(u)
}

// HeaderSays returns what lines of the header of this name say, and whether that is for
// a manager of such a Transport.
func HeaderSays(name string, lines ...string) (text string, ours bool) {
	t := Transport{Header: name}
	return t.said(http.Header{name: lines})
}

// Busy reports whether the manager keeps anything for requests under way, or room for many.
func Busy(m *Manager) bool {
	return len(m.open.held) > 0 || m.open.most > manyHeld || m.handed.hashes != nil || m.lines.of != nil ||
		m.watch.of != nil
}

// Crowd has n requests of as many sessions come and go.
func Crowd(m *Manager, n int) {
	ids := make([]ID, n)
	for i := range ids {
		ids[i] = newToken().id
		m.open.enter(ids[i])
	}
	for _, id := range ids {
		m.open.leave(id)
	}
}
