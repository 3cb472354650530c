package session2

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
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
func (t token) encode() string { return t.within("", "") }

// within returns the token between two texts.
func (t token) within(before, after string) string {
	var text [tokenLen]byte
	hex.Encode(text[:], t.id[:])
	text[2*len(t.id)] = '.'
	strict64.Encode(text[2*len(t.id)+1:], t.secret[:])
	var b strings.Builder
	b.Grow(len(before) + len(text) + len(after))
	b.WriteString(before)
	b.Write(text[:])
	b.WriteString(after)
	return b.String()
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
	if len(t.hashes) == 0 {
		t.hashes = nil // a map does not shrink
	}
}

func (t *handed) has(h hash) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.hashes[h] > 0
}

// maxRetired bounds the verifiers that a record remembers. One that is
// forgotten counts as never issued: it opens nothing, and raises no alarm.
const maxRetired = 32

// identity is the part of a record that tells who may use it. All of its
// methods are pure: what they decide follows from the record, the token and
// the times they are given.
type identity struct {
	hash    hash      // of the current verifier
	since   instant   // when it became the current one
	retired []retired // those before it, oldest first
}

// retired is a verifier that was replaced. Its successor is derived from it
// and nonce; the chain of successors ends in the current verifier.
type retired struct {
	hash  hash
	nonce nonce
	why   reason
	at    instant // when
	seen  instant // when a request first came with the successor; zero: none has yet
}

// reason is why a verifier was replaced. The first one leaves it good for a
// while, the others are changes of privileges, after which it is dead.
type reason byte

const (
	periodic reason = iota
	signedIn        // records of releases before Realm have it for renewed, too
	renewed
	signedInAgain // by the user whose session it was already
)

// standing is what a presented verifier is to a record.
type standing byte

// In the order in which they count, where a request presents several.
const (
	unknown    standing = iota // never issued, or dead for longer than the grace
	superseded                 // by a login or Renew within the grace: reads as anonymous
	reused                     // replaced periodically, and its time is over: somebody else has the cookie
	replaced                   // periodically, and still good
	current                    // the one that the client should have
)

// verdict is a judgement on a presented verifier.
type verdict struct {
	standing standing
	secret   verifier // the current verifier, unless standing is unknown
	unseen   bool     // replaced, and nobody has presented the successor yet
	twin     bool     // superseded by one login and by no other change of privileges
	sameUser bool     // superseded by Renew or a login of the same user only: whoever had it was the session's user
	after    bool     // superseded since the request had come
}

// opens reports whether the verifier opens the session.
func (v verdict) opens() bool { return v.standing == current || v.standing == replaced }

// judge says what the verifier is to the record, for a request that arrived at
// the given time: how long its handler took to look makes no thief of it.
func (i *identity) judge(v verifier, arrived instant, grace time.Duration) verdict {
	hash := v.hash()
	if subtle.ConstantTimeCompare(hash[:], i.hash[:]) == 1 {
		return verdict{standing: current, secret: v}
	}
	for k := len(i.retired) - 1; k >= 0; k-- {
		if subtle.ConstantTimeCompare(hash[:], i.retired[k].hash[:]) == 1 {
			return judgeRetired(v, i.retired[k:], arrived, grace)
		}
	}
	return verdict{}
}

// judgeRetired judges a verifier by the chain of replacements from it to the
// current one. The first change of privileges in it decides, whatever came before.
func judgeRetired(v verifier, chain []retired, arrived instant, grace time.Duration) verdict {
	first := chain[0]
	var changes []retired
	for _, r := range chain {
		v = v.successor(r.nonce)
		if r.why != periodic {
			changes = append(changes, r)
		}
	}
	if len(changes) > 0 {
		if arrived > changes[0].at.add(grace) {
			return verdict{}
		}
		return verdict{standing: superseded, secret: v,
			twin:     len(changes) == 1 && changes[0].why != renewed,
			after:    changes[0].at > arrived,
			sameUser: !slices.ContainsFunc(changes, func(r retired) bool { return r.why == signedIn })}
	}
	if first.seen != 0 && arrived > first.seen.add(grace) {
		return verdict{standing: reused, secret: v}
	}
	return verdict{standing: replaced, secret: v, unseen: first.seen == 0}
}

// rotate returns the identity whose current verifier is the successor of v,
// the one until now, and that successor. It is one Save on the same record.
func (i identity) rotate(v verifier, n nonce, why reason, now instant) (identity, verifier) {
	next := v.successor(n)
	list := append(make([]retired, 0, len(i.retired)+1), i.retired...)
	list = append(list, retired{hash: v.hash(), nonce: n, why: why, at: now})
	if len(list) > maxRetired {
		list = list[len(list)-maxRetired:]
	}
	return identity{hash: next.hash(), since: now, retired: list}, next
}

// due reports whether it is time for a periodic rotation: so long after the
// current verifier was made, or was first seen where it came by such a rotation
// itself. One that no client has come with is not replaced.
func (i *identity) due(every time.Duration, now instant) bool {
	since := i.since
	if n := len(i.retired); n > 0 && i.retired[n-1].why == periodic {
		since = i.retired[n-1].seen
	}
	return every > 0 && !i.unseen() && now >= since.add(every)
}

// unseen reports whether the current verifier, if it came by a periodic
// rotation, has yet to be noted as presented.
func (i *identity) unseen() bool {
	n := len(i.retired)
	return n > 0 && i.retired[n-1].why == periodic && i.retired[n-1].seen == 0
}

// markSeen notes that the current verifier was presented.
func (i identity) markSeen(now instant) identity {
	i.retired = append([]retired(nil), i.retired...)
	i.retired[len(i.retired)-1].seen = now
	return i
}
