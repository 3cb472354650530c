package protocol

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"iter"
	"strings"

	"github.com/session2/session2"
)

// The checker reads sealed records by what the clients know: it derives the key from
// any token of the session that was ever issued or presented. It does so by its own
// means, as an auditor would, and not by the core's.

// These are tags of data.go.
const (
	tagIdentity = 1
	tagRetired  = 2
	tagSealed   = 17
)

var errNoKey = errors.New("no token that anybody has yields the key of what is sealed")

// contents takes a record apart, whether it is sealed or not.
func (w *world) contents(rec session2.Record) (session2.Contents, error) {
	c, err := session2.Inspect(rec)
	if err != nil || !c.Sealed {
		return c, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.issued {
		id, text, _ := strings.Cut(t, ".")
		secret, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil || id != rec.ID.String() {
			continue
		}
		if data, ok := opened(rec, secret); ok {
			rec.Data = data
			return session2.Inspect(rec)
		}
	}
	return c, errNoKey
}

// opened returns the Data of a sealed record as if it were not sealed, by a verifier
// that is the current one or was replaced.
func opened(rec session2.Record, v []byte) ([]byte, bool) {
	var head, text, current []byte
	var chain [][]byte // nonces, from v's own on
	for tag, b := range sections(rec.Data) {
		sum := sha256.Sum256(v)
		switch tag {
		case tagIdentity:
			current = b[:32]
		case tagRetired:
			if len(chain) > 0 || bytes.Equal(b[:32], sum[:]) {
				chain = append(chain, b[32:48])
			}
		case tagSealed:
			head, text = headOf(rec.Data), b
		}
	}
	for _, n := range chain {
		v = derive(v, n, "session2 successor v1")
	}
	if sum := sha256.Sum256(v); !bytes.Equal(sum[:], current) {
		return nil, false
	}
	plain, err := sealer(v, rec.ID).Open(nil, nil, text[1:], bound(rec, head, text[0]))
	if err != nil {
		return nil, false
	}
	return append(bytes.Clone(head), plain[1:]...), true
}

// sections returns the sections of a record's Data with their tags.
func sections(data []byte) iter.Seq2[byte, []byte] {
	return func(yield func(byte, []byte) bool) {
		for at := 1; at < len(data); {
			n, width := binary.Uvarint(data[at+1:])
			begin := at + 1 + width
			if !yield(data[at], data[begin:begin+int(n)]) {
				return
			}
			at = begin + int(n)
		}
	}
}

// headOf returns the Data up to the sealed section.
func headOf(data []byte) []byte {
	end := 1
	for tag, b := range sections(data) {
		if tag == tagSealed {
			break
		}
		end += 1 + len(binary.AppendUvarint(nil, uint64(len(b)))) + len(b)
	}
	return data[:end]
}

// bound is what a sealed section is bound to.
func bound(rec session2.Record, head []byte, info byte) []byte {
	b := bytes.Clone(rec.ID[:])
	b = binary.BigEndian.AppendUint64(b, uint64(rec.Version))
	b = binary.BigEndian.AppendUint64(b, uint64(rec.Created.UnixMicro()))
	b = append(b, info)
	b = binary.AppendUvarint(b, uint64(len(rec.User)))
	return append(append(b, rec.User...), head...)
}

func derive(v, salt []byte, info string) []byte {
	key, err := hkdf.Key(sha256.New, v, salt, info, 32)
	if err != nil {
		panic(err)
	}
	return key
}

func sealer(v []byte, id session2.ID) cipher.AEAD {
	block, err := aes.NewCipher(derive(v, id[:], "session2 sealed v1"))
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return aead
}

// checkSealed fails the run if a live session shows its values to whoever has the
// database alone, or not to those who have its token.
func (w *world) checkSealed(rec session2.Record) {
	c, err := session2.Inspect(rec)
	switch {
	case err != nil:
		w.fail(keeps, "%s: %v", w.name("S", rec.ID), err)
	case c.Sealed != w.cfg.Sealed:
		w.fail(secret, "%s: sealed is %v", w.name("S", rec.ID), c.Sealed)
	case w.ids[rec.ID]:
		if _, err := w.contents(rec); err != nil {
			w.fail(secret, "%s: %v", w.name("S", rec.ID), err)
		}
	}
}
