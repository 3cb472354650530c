package session2

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/session2/session2/internal/realm"
)

// state is a session's record, taken apart. Whoever changes one works on a
// clone: what it shares with others is replaced or appended to, never changed.
type state struct {
	id       ID
	version  Version // zero: not stored
	realm    string
	user     string
	created  instant
	accessed instant
	expires  instant

	ident      identity
	versions   versions      // they tell whether a Save landed whose answer was lost
	login      instant       // the latest one into this session once it was stored: its Lifetime counts from then
	lifetime   time.Duration // of SetLifetime; 0: the configuration's
	idle       time.Duration // of SetIdleTimeout; 0: the configuration's; negative: none
	auth       authentication
	remote     string
	agent      string
	csrf       []mark
	forms      []mark
	flashes    []flash
	turns      turns // of Manager.Exclusive
	values     values
	persistent persistence
	box        *box // what of the above is sealed and was not opened yet; nil: nothing

	// What a log of changes asks of its commit; never stored.
	signIn  bool // SetUser signed somebody in
	renew   bool // the token is to be replaced
	reissue bool // the cookie's attributes changed, as far as anybody knows
	joins   bool // it comes upon the login of a twin
}

// mark is a random token of the page's: a form token or a CSRF token.
type mark [16]byte

// flash is a message for the next page. Its ID tells equal messages apart.
type flash struct {
	id   [8]byte
	data []byte
}

// persistence is what SetPersistent said.
type persistence byte

const (
	persistDefault persistence = iota // as CookieConfig.Persistent says
	persistYes
	persistNo
)

// versions are the latest few of a record, its own last, as they are stored.
type versions []byte

const versionSize = 8

// with returns the list with v at its end, in room unless that is nil.
func (l versions) with(v Version, room []byte) versions {
	const others = (maxVersions - 1) * versionSize
	if room == nil {
		room = make([]byte, 0, maxVersions*versionSize)
	}
	next := append(room[:0], l[max(0, len(l)-others):]...)
	return binary.BigEndian.AppendUint64(next, uint64(v))
}

func (l versions) contains(v Version) bool { return slices.Contains(l.list(), v) }

func (l versions) list() []Version {
	list := make([]Version, 0, maxVersions)
	for ; len(l) > 0; l = l[versionSize:] {
		list = append(list, Version(binary.BigEndian.Uint64(l)))
	}
	return list
}

const (
	maxVersions = 16
	maxForms    = 16
	maxCSRF     = 8
)

func (st *state) stored() bool { return st.version != 0 }

// hasInfo reports whether the session holds something worth storing.
func (st *state) hasInfo() bool { return st.user != "" || st.holds() }

// holds is hasInfo but for the user.
func (st *state) holds() bool {
	if st.box != nil {
		return st.box.holds()
	}
	return len(st.flashes)+len(st.forms)+len(st.csrf) > 0 || st.values.any()
}

// clear removes all that the application put into the session but the user.
func (st *state) clear() { st.values, st.flashes, st.forms, st.csrf = values{}, nil, nil, nil }

// clone returns a copy that can be changed by itself.
func (st *state) clone() *state { return st.cloneTo(new(state), nil) }

// cloneTo is clone with memory for the copy and for its edits.
func (st *state) cloneTo(c *state, edits []row[value]) *state {
	*c = *st
	c.values = st.values.cloneTo(edits)
	c.flashes = slices.Clip(st.flashes)
	return c
}

// frozenTo makes c a copy whose values are settled.
func (st *state) frozenTo(c *state) *state {
	*c = *st
	c.values = values{base: st.values.list()}
	c.flashes = slices.Clip(st.flashes)
	return c
}

// size returns about how much memory a state takes that was just decoded, beside the
// record.
func (st *state) size() int {
	const own, one = 512, 32 // a state, and an entry of a list
	n := own + one*(cap(st.values.base)+cap(st.flashes)) + 96*cap(st.ident.retired) +
		16*(cap(st.csrf)+cap(st.forms)+cap(st.turns)) + len(st.remote) + len(st.agent) + len(st.realm) + len(st.user)
	if st.box != nil {
		n += 128
	}
	return n
}

// changed reports whether st, made of base, differs from it in anything that
// the application can change, or asks for more than to be stored.
func (st *state) changed(base *state) bool {
	return st.renew || st.reissue || st.box != base.box ||
		st.user != base.user || st.lifetime != base.lifetime || st.idle != base.idle ||
		!slices.Equal(st.csrf, base.csrf) || !slices.Equal(st.forms, base.forms) ||
		!slices.EqualFunc(st.flashes, base.flashes, func(a, b flash) bool { return a.id == b.id }) ||
		!equalValues(st.values.list(), base.values.list())
}

// addMark returns list with m, the oldest dropped beyond limit.
func addMark(list []mark, m mark, limit int) []mark {
	list = append(slices.Clip(list), m)
	return list[max(0, len(list)-limit):]
}

// userKey returns what stands in a record's User, by which stores find a user's
// sessions: so that they find those of one realm only.
func userKey(realmName, user string) string { return realm.Key(realmName, user) }

// A record's Data: one byte of format version, then sections, each a tag, a
// length and that many bytes. A later release adds tags, or raises the version.
// Whatever this one does not know it refuses, so that no release rewrites a
// record that it understood only in part.
const dataFormat = 1

const (
	tagIdentity = iota + 1
	tagRetired  // one section each
	tagVersions
	tagLifetime
	tagPersistent
	tagRemote
	tagAgent
	tagCSRF
	tagForms
	tagFlash // one section each
	tagValue // one section each
	tagRealm
	tagIdle
	tagLogin
	tagTurns
	tagAuth
	tagSealed // the contents, instead of all sections for them; the last one
)

// encodeData returns the Data of st's record, and how many bytes of them are the
// application's. The values must be settled.
func encodeData(st *state) (data []byte, size int) {
	e := encoder{buf: make([]byte, 0, encodedSize(st))}
	e.head(st)
	size = e.contents(st)
	return e.buf, size
}

// head encodes what the server must know without the client.
func (e *encoder) head(st *state) {
	e.buf = append(e.buf, dataFormat)
	e.section(tagIdentity, st.ident.hash[:], instantBytes(st.ident.since))
	for _, r := range st.ident.retired {
		e.section(tagRetired, r.hash[:], r.nonce[:], []byte{byte(r.why)}, instantBytes(r.at), instantBytes(r.seen))
	}
	e.optional(tagVersions, st.versions)
	if st.lifetime != 0 {
		e.section(tagLifetime, binary.BigEndian.AppendUint64(nil, uint64(st.lifetime)))
	}
	if st.persistent != persistDefault {
		e.section(tagPersistent, []byte{byte(st.persistent)})
	}
	if st.idle != 0 {
		e.section(tagIdle, binary.BigEndian.AppendUint64(nil, uint64(st.idle)))
	}
	if st.login != 0 {
		e.section(tagLogin, instantBytes(st.login))
	}
	st.encodeAuth(e)
	e.optional(tagRealm, []byte(st.realm))
	e.optional(tagTurns, st.turns.bytes())
}

// contents encodes what is the application's and the user's, and returns how many
// bytes are the application's.
func (e *encoder) contents(st *state) (size int) {
	e.optional(tagRemote, []byte(st.remote))
	e.optional(tagAgent, []byte(st.agent))
	e.optional(tagCSRF, markBytes(st.csrf))
	e.optional(tagForms, markBytes(st.forms))
	own := len(e.buf)
	for _, f := range st.flashes {
		e.section(tagFlash, f.id[:], f.data)
	}
	for _, v := range st.values.base {
		e.value(v)
	}
	return len(e.buf) - own
}

// encodedSize is an upper bound that spares encodeData from growing its buffer, and is near
// enough that little of it is wasted.
func encodedSize(st *state) int {
	n := 128 + len(st.versions) + len(st.realm) + len(st.remote) + len(st.agent)
	n += 96*len(st.ident.retired) + 16*(len(st.forms)+len(st.csrf)+len(st.turns))
	for _, f := range st.flashes {
		n += len(f.data) + 24
	}
	for _, v := range st.values.base {
		n += len(v.both) + 8
	}
	return n
}

type encoder struct{ buf []byte }

func (e *encoder) section(tag byte, parts ...[]byte) {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	e.buf = binary.AppendUvarint(append(e.buf, tag), uint64(n))
	for _, p := range parts {
		e.buf = append(e.buf, p...)
	}
}

func (e *encoder) optional(tag byte, part []byte) {
	if len(part) > 0 {
		e.section(tag, part)
	}
}

func (e *encoder) value(v value) {
	var length [binary.MaxVarintLen64]byte
	e.section(tagValue, length[:binary.PutUvarint(length[:], uint64(v.n))], v.both)
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func instantBytes(t instant) []byte { return binary.BigEndian.AppendUint64(nil, uint64(t)) }
func bytesInstant(b []byte) instant { return instant(binary.BigEndian.Uint64(b)) }

func markBytes(list []mark) []byte {
	b := make([]byte, 0, 16*len(list))
	for _, m := range list {
		b = append(b, m[:]...)
	}
	return b
}

// decodeRecord takes a record apart. The state's values share rec.Data.
// Anything but what encodeData writes is an error that shows no data.
func decodeRecord(rec Record) (*state, error) {
	st := &state{id: rec.ID, version: rec.Version,
		created: instantOf(rec.Created), accessed: instantOf(rec.Accessed), expires: instantOf(rec.Expires)}
	if err := decodeData(st, rec.Data); err != nil {
		return nil, opError("decode", rec.ID, fmt.Errorf("%w: %w", ErrCorrupt, err))
	}
	st.user = realm.User(st.realm, rec.User)
	if st.box != nil {
		st.box.user = rec.User
	}
	return st, nil
}

var errFormat = errors.New("malformed data")

func decodeData(st *state, data []byte) error {
	if len(data) == 0 || data[0] != dataFormat {
		return errors.New("data of an unknown format")
	}
	seen, err := st.decodeSections(data)
	switch {
	case err != nil:
		return err
	case seen&(1<<tagIdentity) == 0, st.box != nil && seen&contents != 0:
		return errFormat
	}
	return nil
}

// decodeSections takes sections apart that follow the first byte, and returns which
// there were.
func (st *state) decodeSections(data []byte) (seen uint32, err error) {
	for at := 1; at < len(data); {
		tag, start := data[at], at
		n, width := binary.Uvarint(data[at+1:])
		from := at + 1 + width
		if width <= 0 || n > uint64(len(data)-from) {
			return 0, errFormat
		}
		at = from + int(n)
		single := tag != tagRetired && tag != tagFlash && tag != tagValue
		if tag == 0 || tag > tagSealed || single && seen&(1<<tag) != 0 {
			return 0, fmt.Errorf("data with an unexpected section %d", tag)
		}
		seen |= 1 << tag
		if tag == tagSealed && at == len(data) {
			err = st.decodeBox(data[:start:start], data[from:])
		} else {
			err = st.decodeSection(tag, data[from:at:at])
		}
		if err != nil {
			return 0, err
		}
	}
	return seen, nil
}

func (st *state) decodeSection(tag byte, b []byte) error {
	switch tag {
	case tagValue:
		return st.decodeValue(b)
	case tagFlash:
		return st.decodeFlash(b)
	case tagIdentity:
		return st.ident.decode(b)
	case tagRetired:
		return st.ident.decodeRetired(b)
	case tagVersions:
		return st.decodeVersions(b)
	case tagCSRF:
		return decodeMarks(&st.csrf, b, maxCSRF)
	case tagForms:
		return decodeMarks(&st.forms, b, maxForms)
	case tagRemote:
		st.remote = string(b)
	case tagAgent:
		st.agent = string(b)
	case tagLifetime:
		return st.decodeLifetime(b)
	case tagPersistent:
		return st.decodePersistent(b)
	case tagRealm:
		st.realm = string(b)
	case tagIdle:
		return st.decodeIdle(b)
	case tagLogin:
		return st.decodeLogin(b)
	case tagTurns:
		return st.decodeTurns(b)
	case tagAuth:
		return st.decodeAuth(b)
	default: // unknown, or a sealed one that is not the last
		return fmt.Errorf("data with an unexpected section %d", tag)
	}
	return nil
}

func (st *state) decodeValue(b []byte) error {
	n, width := binary.Uvarint(b)
	if width <= 0 || n > uint64(len(b)-width) {
		return errFormat
	}
	v := value{b[width:], int(n)}
	list := st.values.base
	if k := len(list); k > 0 && bytes.Compare(list[k-1].both[:list[k-1].n], v.both[:v.n]) >= 0 {
		return errFormat
	}
	if list == nil {
		list = make([]value, 0, 12)
	}
	st.values.base = append(list, v)
	return nil
}

func (st *state) decodeFlash(b []byte) error {
	var f flash
	if len(b) < len(f.id) {
		return errFormat
	}
	copy(f.id[:], b)
	f.data = b[len(f.id):]
	st.flashes = append(st.flashes, f)
	return nil
}

func (i *identity) decode(b []byte) error {
	if len(b) != len(i.hash)+8 {
		return errFormat
	}
	copy(i.hash[:], b)
	i.since = bytesInstant(b[len(i.hash):])
	return nil
}

func (i *identity) decodeRetired(b []byte) error {
	var r retired
	if len(b) != len(r.hash)+len(r.nonce)+1+8+8 || len(i.retired) == maxRetired {
		return errFormat
	}
	b = b[copy(r.hash[:], b):]
	b = b[copy(r.nonce[:], b):]
	r.why, r.at, r.seen = reason(b[0]), bytesInstant(b[1:]), bytesInstant(b[9:])
	if r.why > signedInAgain {
		return errFormat
	}
	i.retired = append(i.retired, r)
	return nil
}

func (st *state) decodeVersions(b []byte) error {
	if len(b)%versionSize != 0 || len(b) > maxVersions*versionSize {
		return errFormat
	}
	st.versions = b
	return nil
}

func decodeMarks(list *[]mark, b []byte, limit int) error {
	if len(b)%16 != 0 || len(b) > 16*limit {
		return errFormat
	}
	for ; len(b) > 0; b = b[16:] {
		*list = append(*list, mark(b[:16]))
	}
	return nil
}

func (st *state) decodeLifetime(b []byte) error {
	if len(b) != 8 {
		return errFormat
	}
	st.lifetime = time.Duration(binary.BigEndian.Uint64(b))
	if st.lifetime <= 0 {
		return errFormat
	}
	return nil
}

func (st *state) decodeIdle(b []byte) error {
	if len(b) != 8 {
		return errFormat
	}
	st.idle = time.Duration(binary.BigEndian.Uint64(b))
	if st.idle == 0 {
		return errFormat
	}
	return nil
}

func (st *state) decodeLogin(b []byte) error {
	if len(b) != 8 {
		return errFormat
	}
	st.login = bytesInstant(b)
	if st.login == 0 {
		return errFormat
	}
	return nil
}

func (st *state) decodePersistent(b []byte) error {
	if len(b) != 1 || b[0] != byte(persistYes) && b[0] != byte(persistNo) {
		return errFormat
	}
	st.persistent = persistence(b[0])
	return nil
}

// With Config.Sealed, what a record holds of the application's and of the user's is
// one section of its Data, encrypted under a key that is derived from the current
// verifier. The database has that verifier's hash only, the client has it, and the
// server for as long as a request lasts. What the server must know without the client
// stays in the clear beside it, and is bound to it: who may use the session, whose it
// is, its limits and its versions.

// contents are the tags that a sealed section holds, and that a record with one has
// nowhere else.
const contents = 1<<tagRemote | 1<<tagAgent | 1<<tagCSRF | 1<<tagForms | 1<<tagFlash | 1<<tagValue

// box is a sealed section, not opened yet.
type box struct {
	user string // the record's User
	head []byte // its Data up to the section
	info byte   // 1 if the session holds something besides a user: asked where nobody has the verifier
	text []byte // nonce, ciphertext and tag
}

func (b *box) holds() bool { return b.info == 1 }

var (
	errTampered = errors.New("the sealed data cannot be opened")
	errClear    = errors.New("the data are not sealed, and Config.Sealed is set")
	errSealed   = errors.New("the data are sealed, and Config.Sealed is not set")
	errUnopened = errors.New("the sealed data were not opened")
)

// sealer encrypts under the key that only this verifier yields, and only for this
// record (RFC 5869, NIST SP 800-38D). It draws a nonce for each Seal and puts it in
// front of the ciphertext.
func (v verifier) sealer(id ID) cipher.AEAD {
	key, err := hkdf.Key(sha256.New, v[:], id[:], "session2 sealed v1", 32)
	if err != nil {
		panic(err) // only for an output of more than 8160 bytes
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // only for a key of another length
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // only for another cipher
	}
	return aead
}

// bound is what a sealed section is good with and with nothing else. The times that
// Touch moves are not among it.
func (st *state) bound(b *box) []byte {
	data := make([]byte, 0, len(st.id)+8+8+1+binary.MaxVarintLen64+len(b.user)+len(b.head))
	data = append(data, st.id[:]...)
	data = binary.BigEndian.AppendUint64(data, uint64(st.version))
	data = append(data, instantBytes(st.created)...)
	data = append(data, b.info)
	data = binary.AppendUvarint(data, uint64(len(b.user)))
	data = append(data, b.user...)
	return append(data, b.head...)
}

// encodeSealed is encodeData with the contents sealed for v.
func encodeSealed(st *state, v verifier) (data []byte, size int) {
	plain := encoder{buf: make([]byte, 0, encodedSize(st))}
	plain.buf = append(plain.buf, dataFormat)
	size = plain.contents(st)
	e := encoder{buf: make([]byte, 0, encodedSize(st)+64)}
	e.head(st)
	b := box{user: userKey(st.realm, st.user), head: e.buf, info: boolByte(st.holds())}
	bound, seal := st.bound(&b), v.sealer(st.id)
	e.buf = binary.AppendUvarint(append(e.buf, tagSealed), uint64(1+len(plain.buf)+seal.Overhead()))
	e.buf = append(e.buf, b.info)
	return seal.Seal(e.buf, nil, plain.buf, bound), size
}

// encodeEnded is the Data of a sealed session that has ended: nobody opens it.
func encodeEnded(st *state) []byte {
	var e encoder
	e.head(st)
	return e.buf
}

func (st *state) decodeBox(head, b []byte) error {
	if len(b) == 0 || b[0] > 1 {
		return errFormat
	}
	st.box = &box{head: head, info: b[0], text: b[1:]}
	return nil
}

// unseal opens a state that was just decoded, for the client that has the current
// verifier. With Sealed a record that is not sealed is refused, or whoever writes
// into the database could have put it there; without, one that is.
func (m *Manager) unseal(st *state, v verifier) error {
	var err error
	switch {
	case m.cfg.Sealed && st.box == nil:
		err = errClear
	case !m.cfg.Sealed && st.box != nil:
		err = errSealed
	case m.cfg.Sealed:
		err = st.open(v)
	}
	if err != nil {
		return opError("open", st.id, fmt.Errorf("%w: %w", ErrCorrupt, err))
	}
	return nil
}

// open decrypts the sealed section. If it fails, the state is of no use.
func (st *state) open(v verifier) error {
	plain, err := v.sealer(st.id).Open(nil, nil, st.box.text, st.bound(st.box))
	if err != nil || len(plain) == 0 || plain[0] != dataFormat {
		return errTampered
	}
	seen, err := st.decodeSections(plain)
	if err == nil && seen&^contents != 0 {
		err = errFormat
	}
	if err == nil {
		st.box = nil
	}
	return err
}

// reopen is unseal for Check, whose token may have been replaced while its request ran,
// by a login of the same user as well: nothing of the state is shown to the handler. It
// returns the current verifier. Where the request's own was replaced too often for that,
// the state stays unopened.
func (s *Session) reopen(st *state, shown verifier) (verifier, error) {
	v := s.judge(st, shown)
	if v.opens() {
		s.mu.Lock()
		s.known = v.secret
		s.mu.Unlock()
	}
	if !s.m.cfg.Sealed {
		return verifier{}, s.m.unseal(st, verifier{})
	}
	if v.standing == unknown && st.box != nil {
		return verifier{}, nil
	}
	return v.secret, s.m.unseal(st, v.secret)
}
