package session2

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// What a commit is to do is decided here, by functions of what was loaded, what
// was changed, what the client presented, the time and the randomness given.
// commit.go does it.

var (
	errBegun = errors.New("session2: the response has begun: its cookie can no longer be changed")

	// errQuiet ends a commit that was housekeeping only, and came too late.
	errQuiet = errors.New("session2: nothing to do")

	// errLanded ends a commit one of whose tries turns out to have landed.
	errLanded = errors.New("session2: landed")
)

// droppedError is what became of changes to a session that had ended, or whose
// token was replaced, by the time they came: nothing, as if the request had come
// just before that. The response goes out all the same.
type droppedError struct {
	id    ID
	cause error
}

func (e *droppedError) Error() string {
	return fmt.Sprintf("session2: save %v: changes dropped: %v", e.id, e.cause)
}

func (e *droppedError) Unwrap() error { return e.cause }

// changeError is a change that cannot be made to the session as it is now.
type changeError struct{ cause error }

func (e *changeError) Error() string { return e.cause.Error() }
func (e *changeError) Unwrap() error { return e.cause }

// attempt is what one try of a commit starts from.
type attempt struct {
	cfg    *Config
	life   life
	log    []op
	login  bool   // the log signs somebody in
	user   string // whom
	cookie bool   // a cookie can be sent
	spend  bool   // a form token's own Save: nothing else is done on the occasion
	join   bool   // a login whose twin was faster: the twin's token is ours, too
}

// plan is what a try is to do.
type plan struct {
	next   *state
	token  token
	todo   todo
	cookie cookieAction
	event  EventKind
}

type todo int

const (
	doNothing todo = iota
	doTouch        // note the access
	doSave         // create or replace
	doEnd          // it came to hold nothing: Save it expired, then Delete
)

// idle reports whether there is nothing to do, as for most requests.
func (a *attempt) idle(now time.Time) bool {
	st := a.life.base
	switch {
	case len(a.log) > 0:
		return false
	case !st.stored():
		return true
	}
	return st.hasInfo() && !a.resend() && !a.noteSeen(st) && !a.periodic(st, now) && !a.accessed(st, now)
}

// resend reports whether the answer with the token's successor was lost, or is
// under way: then the same successor goes out again.
func (a *attempt) resend() bool { return a.life.unseen && a.cookie }

// noteSeen reports whether the current token has come for the first time, which
// starts the grace of the one before it.
func (a *attempt) noteSeen(st *state) bool {
	return a.life.standing == current && st.ident.unseen()
}

// periodic reports whether it is time to replace the current token.
func (a *attempt) periodic(st *state, now time.Time) bool {
	return a.life.standing == current && a.cookie && st.ident.due(a.cfg.RenewEvery, now)
}

// accessed reports whether the access is to be written.
func (a *attempt) accessed(st *state, now time.Time) bool {
	return now.Sub(st.accessed) >= a.cfg.AccessResolution
}

// decide makes the plan.
func (a *attempt) decide(now time.Time, n nonce) (plan, error) {
	next := *a.life.base
	next.joins = a.join
	for _, o := range a.log {
		if err := o(&next); err != nil {
			return plan{}, &changeError{err}
		}
	}
	p := plan{next: &next, token: a.life.token}
	switch {
	case !next.stored() && !next.hasInfo():
	case !next.stored():
		p.todo, p.cookie, p.event = doSave, setCookie, EventCreated
		next.ident = identity{hash: p.token.secret.hash(), since: now}
	case !next.hasInfo() && !a.spend:
		p.todo, p.cookie, p.event = doEnd, revokeCookie, EventDestroyed
	default:
		a.decideStored(&p, now, n)
	}
	if p.cookie == setCookie && !a.cookie {
		return plan{}, errBegun
	}
	return p, nil
}

// decideStored plans for a session that is stored and stays so.
func (a *attempt) decideStored(p *plan, now time.Time, n nonce) {
	if len(a.log) > 0 {
		p.todo = doSave
	}
	if p.next.reissue {
		p.cookie = setCookie
	}
	switch {
	case a.spend:
	case a.join:
		p.cookie = setCookie
	case p.next.renew:
		p.rotate(n, true, now)
	case a.resend():
		p.cookie = setCookie
	default:
		a.decidePeriodic(p, now, n)
	}
	if p.todo == doNothing && a.accessed(p.next, now) {
		p.todo = doTouch
	}
}

func (a *attempt) decidePeriodic(p *plan, now time.Time, n nonce) {
	if a.noteSeen(p.next) {
		p.next.ident = p.next.ident.markSeen(now)
		p.todo = doSave
	}
	if a.periodic(p.next, now) {
		p.rotate(n, false, now)
	}
}

func (p *plan) rotate(n nonce, login bool, now time.Time) {
	p.next.ident, p.token.secret = p.next.ident.rotate(p.token.secret, n, login, now)
	p.todo, p.cookie, p.event = doSave, setCookie, EventRenewed
}

// rebase sets the attempt on the record as it is now; st is nil if the session
// has ended. own is the session to start where a login needs one of its own.
func (a *attempt) rebase(st *state, v verdict, own life) error {
	id := a.life.token.id
	shown := a.life.shown
	a.join = false
	switch {
	case st != nil && v.opens():
		a.life = life{st, token{id, v.secret}, shown, v.standing, v.unseen}
	case a.login && st != nil && v.standing == superseded && st.user == a.user:
		a.life = life{st, token{id, v.secret}, shown, v.standing, false}
		a.join = true
	case a.login:
		a.life = own
	case len(a.log) == 0:
		return errQuiet
	case st == nil:
		return &droppedError{id, ErrNotFound}
	case a.life.standing == superseded: // it was when the request came: it was served as nobody's
		return &droppedError{id, ErrStale}
	default:
		return fmt.Errorf("session2: save %v: %w", id, ErrStale)
	}
	return nil
}

// landed tells from a newer record whether a Save took effect whose answer was
// lost: errLanded if it did, nil if it did not, ErrUncertain if the record no
// longer remembers.
func landed(st *state, mine, prev Version) error {
	switch {
	case slices.Contains(st.versions, mine):
		return errLanded
	case slices.Contains(st.versions, prev):
		return nil
	}
	return fmt.Errorf("session2: save %v: %w", st.id, ErrUncertain)
}

// record completes the plan's state, and returns the record to store.
func (p *plan) record(cfg *Config, version Version, now time.Time) (Record, error) {
	next := p.next
	next.version = version
	next.versions = append(slices.Clip(next.versions), version)
	next.versions = next.versions[max(0, len(next.versions)-maxVersions):]
	next.login, next.renew, next.reissue, next.joins = false, false, false, false
	if now.After(next.accessed) {
		next.accessed = now
	}
	next.expires = cfg.expiry(next)
	if p.todo == doEnd { // over by its limit as well, which no concurrent Touch moves
		next.expires, next.lifetime = now, 1
	}
	data := encodeData(next)
	if len(data) > cfg.MaxBytes && p.todo != doEnd {
		return Record{}, fmt.Errorf("session2: save %v: %d bytes where %d are allowed: %w", next.id, len(data), cfg.MaxBytes, ErrTooLarge)
	}
	return Record{ID: next.id, Version: version, User: next.user, Created: next.created,
		Accessed: next.accessed, Expires: next.expires, Data: data}, nil
}
