package session2

import (
	"crypto/subtle"
	"slices"
	"time"
)

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
