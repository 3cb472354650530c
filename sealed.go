package session2

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

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
	if !s.m.cfg.Sealed {
		return verifier{}, s.m.unseal(st, verifier{})
	}
	v := st.ident.judge(shown, s.arrived, s.m.cfg.RenewGrace)
	if v.standing == unknown && st.box != nil {
		return verifier{}, nil
	}
	return v.secret, s.m.unseal(st, v.secret)
}
