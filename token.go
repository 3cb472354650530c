package session2

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"sync"
)

// verifier is the secret half of a token: 256 bits. Records hold its hash, and
// nothing prints it.
type verifier [32]byte

// nonce is what only the server has: with it, and the verifier that a client
// holds, the successor of that verifier can be computed.
type nonce [16]byte

// token is what a client presents: the record's ID, which is public, and the
// verifier, which is not (ASVS 7.2.3: 256 bits from a CSPRNG).
type token struct {
	id     ID
	secret verifier
}

const (
	verifierLen = 43 // 32 bytes in base64, unpadded
	tokenLen    = 32 + 1 + verifierLen
)

// strict64 has one spelling for each value: the unused bits must be zero.
var strict64 = base64.RawURLEncoding.Strict()

// newToken draws a token that nobody has seen.
func newToken() token {
	var t token
	rand.Read(t.id[:])
	rand.Read(t.secret[:])
	return t
}

// newVersion draws a version for one commit.
func newVersion() Version {
	for {
		var b [8]byte
		rand.Read(b[:])
		var v Version
		for _, c := range b {
			v = v<<8 | Version(c)
		}
		if v != 0 {
			return v
		}
	}
}

func newNonce() (n nonce) {
	rand.Read(n[:])
	return n
}

// encode returns the token as its client must present it.
func (t token) encode() string {
	return t.id.String() + "." + strict64.EncodeToString(t.secret[:])
}

// parseToken takes what encode wrote and nothing else: a token has one
// spelling, and what has another never reaches the store.
func parseToken(s string) (token, bool) {
	if len(s) != tokenLen || s[32] != '.' {
		return token{}, false
	}
	id, err := ParseID(s[:32])
	if err != nil {
		return token{}, false
	}
	t := token{id: id}
	n, err := strict64.Decode(t.secret[:], []byte(s[33:]))
	return t, err == nil && n == len(t.secret)
}

// hash is what records hold of a verifier.
type hash [sha256.Size]byte

func (v verifier) hash() hash { return sha256.Sum256(v[:]) }

// successor derives the verifier that follows v, so that every request that
// still holds v is given the same one (RFC 5869).
func (v verifier) successor(n nonce) verifier {
	key, err := hkdf.Key(sha256.New, v[:], n[:], "session2 successor v1", len(v))
	if err != nil {
		panic(err) // only for an output of more than 8160 bytes
	}
	return verifier(key)
}

// A secret that ends up in a format verb or a log line shows nothing. Format
// is for every verb: by %d or %x alone, fmt would spell out the bytes.
const redacted = "[redacted]"

func (t token) String() string { return t.id.String() + "." + redacted }

func (verifier) Format(f fmt.State, _ rune)   { io.WriteString(f, redacted) }
func (t token) Format(f fmt.State, _ rune)    { io.WriteString(f, t.String()) }
func (verifier) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (t token) LogValue() slog.Value          { return slog.StringValue(t.String()) }
func (verifier) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// handed knows the tokens that running handlers were given by Session.Token.
type handed struct {
	mu     sync.Mutex
	hashes map[hash]int
}

func (t *handed) add(h hash) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.hashes == nil {
		t.hashes = make(map[hash]int)
	}
	t.hashes[h]++
}

func (t *handed) remove(h hash) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.hashes[h]--; t.hashes[h] <= 0 {
		delete(t.hashes, h)
	}
}

func (t *handed) has(h hash) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.hashes[h] > 0
}
