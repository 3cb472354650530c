package session2

import (
	"context"
	"errors"
	"fmt"
)

// What a commit is to do is decided here, by functions of what was loaded, what
// was changed, what the client presented, the time and the randomness given.
// commit.go does it.

var (
	errBegun = errors.New("session2: changes lost: the response has begun, and tells its client no new token any more: " +
		"call SetUser, Set, CSRFToken and the like before the first byte is written")

	errNotRevoked = errors.New("session2: the response has begun, and its cookie can no longer be revoked; " +
		"what the cookie opened has ended")
)

// untold returns why the client cannot be told of a new token.
func (a *attempt) untold() error {
	if a.way == byOther {
		return errReadOnly
	}
	return errBegun
}

// untold reports whether err says so.
func untold(err error) bool { return errors.Is(err, errBegun) || errors.Is(err, errReadOnly) }

// outcome is what became of a commit.
type outcome int

const (
	pending outcome = iota // not known yet; with an error, the commit has failed
	stored                 // as planned
	landed                 // likewise, by a try whose answer was lost
	nothing                // was to be done, but what others have done meanwhile
	vetoed                 // by the function of Key.Commit; with its error
	dropped                // as if the request had come just before the end or the login; with an error
	tooLate                // for a cookie: the response has begun; with an error
)

// changeError is a change that cannot be made: a mistake in the program, such as
// a value that cannot be encoded.
type changeError struct{ cause error }

func (e *changeError) Error() string { return e.cause.Error() }
func (e *changeError) Unwrap() error { return e.cause }

// attempt is what one try of a commit starts from.
type attempt struct {
	cfg     *Config
	life    life
	view    *state // life.base with the session's own log applied, as the handler sees it
	log     []op
	spare   []byte // room for the versions that are stored; nil: none
	viewed  int    // so many of them: the session's own, without what Key.Commit does
	guards  guarded
	login   bool   // the log signs somebody in
	user    string // whom
	level   int    // and how much that one has proved
	cookie  bool   // a cookie can be sent, or the client be told of a token otherwise
	way     way    // how the client carries its token
	passive bool   // the request is no use of the session
	spend   bool   // a form token's own Save: nothing else is done on the occasion
	join    bool   // a login whose twin was faster: the twin's token is ours, too
	origin  *state // life.base at first
	claim   *claim // the request has the session for itself; nil: it does not
	leaves  bool   // and gives it back with this commit
	own     bool   // a login that starts a session of its own, beside the one presented
}

// plan is what a try is to do.
type plan struct {
	next   *state
	token  token
	todo   todo
	cookie cookieAction
	event  EventKind

	unchanged bool // the log changes nothing: all this is housekeeping
	nobodys   bool // doEnd ends a session that nobody is signed in to, and that merely came to hold nothing
}

type todo int

const (
	doNothing todo = iota
	doTouch        // note the access
	doSave         // create or replace
	doEnd          // it came to hold nothing: Save it expired, then Delete
)

// idle reports whether there is nothing to do, as for most requests.
func (a *attempt) idle(now instant) bool {
	st := a.life.base
	switch {
	case len(a.log) > 0:
		return false
	case !st.stored():
		return true
	}
	return st.hasInfo() && !a.over(now) && !a.resend() &&
		!a.noteSeen(st) && !a.periodic(st, now) && !a.accessed(st, now)
}

// resend reports whether the answer with the token's successor was lost, or is
// under way: then the same successor goes out again. Once it was seen the browser
// may hold a newer one.
func (a *attempt) resend() bool { return a.life.unseen && a.cookie }

// noteSeen reports whether the current token has come for the first time, which
// starts the grace of the one before it.
func (a *attempt) noteSeen(st *state) bool {
	return a.life.standing == current && a.life.presented && st.ident.unseen()
}

// periodic reports whether it is time to replace the current token.
func (a *attempt) periodic(st *state, now instant) bool {
	return a.life.standing == current && a.cookie && st.ident.due(a.cfg.RenewEvery, now)
}

// accessed reports whether the access is to be written.
func (a *attempt) accessed(st *state, now instant) bool {
	return !a.passive && now >= st.accessed.add(a.cfg.resolution(st))
}

// over reports whether the session's time is over, by what the attempt knows of
// it. Others may have used it since.
func (a *attempt) over(now instant) bool {
	return a.life.base.stored() && a.cfg.expired(a.life.base, now)
}

// apply makes the changes to the session as it is now, as the handler did or
// else by doing them again. What the application does then may take its time, so
// ctx is looked at between any two of them.
func (a *attempt) apply(ctx context.Context) (*state, error) {
	next, log := a.view, a.log[a.viewed:]
	a.view = nil
	if next == nil {
		next, log = a.life.base.clone(), a.log
		next.joins = a.join
	}
	for _, o := range log {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("session2: save %v: %w", a.life.token.id, err)
		}
		if err := o.apply(next); err != nil {
			return nil, err
		}
	}
	return next, nil
}

// decide makes the plan.
func (a *attempt) decide(ctx context.Context, now instant, n nonce) (plan, error) {
	next, err := a.apply(ctx)
	if err != nil {
		return plan{}, err
	}
	if key, lost := a.guards.lost(a.life.base); lost && !a.own {
		return plan{}, fmt.Errorf("session2: save %v: key %q was read and then set, and another request "+
			"has changed it in between; Key.Update is made for that: %w", a.life.token.id, key, ErrLostUpdate)
	}
	p := plan{next: next, token: a.life.token}
	switch {
	case !next.stored() && !next.hasInfo():
	case !next.stored():
		p.todo, p.cookie, p.event = doSave, setCookie, EventCreated
		next.realm = a.cfg.Realm
		next.ident = identity{hash: p.token.secret.hash(), since: now}
	case !next.hasInfo() && !a.spend:
		p.nobodys = a.life.base.user == "" && !next.renew
		p.todo, p.cookie, p.event = doEnd, revokeCookie, EventDestroyed
	default:
		a.decideStored(&p, now, n)
	}
	return p, nil
}

// decideEmpty plans for a session that holds nothing and does not end yet.
func (a *attempt) decideEmpty(p plan, now instant, n nonce) plan {
	p = plan{next: p.next, token: a.life.token}
	a.decideStored(&p, now, n)
	return p
}

// decideStored plans for a session that is stored and stays so.
func (a *attempt) decideStored(p *plan, now instant, n nonce) {
	p.next.values.settle()
	if p.unchanged = !p.next.changed(a.life.base); !p.unchanged {
		p.todo = doSave
	}
	if a.leaves && a.claim.leave(p.next) {
		p.todo = doSave
	}
	if p.next.reissue && a.way.cookie() { // these are attributes of the cookie
		p.cookie = setCookie
	}
	switch {
	case a.spend:
	case a.join:
		p.cookie = setCookie
	case p.next.renew && p.next.signIn && p.next.user == a.life.base.user:
		p.rotate(n, signedInAgain, now)
	case p.next.renew && p.next.signIn:
		p.rotate(n, signedIn, now)
	case p.next.renew:
		p.rotate(n, renewed, now)
	case a.resend():
		p.cookie = setCookie
	default:
		a.decidePeriodic(p, now, n)
	}
	if p.next.renew && p.event == EventRenewed { // whoever else has a turn has a dead token now
		p.next.turns = p.next.turns.only(a.claim)
	}
	if p.todo == doNothing && a.accessed(p.next, now) {
		p.todo = doTouch
	}
}

func (a *attempt) decidePeriodic(p *plan, now instant, n nonce) {
	if a.noteSeen(p.next) {
		p.next.ident = p.next.ident.markSeen(now)
		p.todo = doSave
	}
	if a.periodic(p.next, now) {
		p.rotate(n, periodic, now)
	}
}

func (p *plan) rotate(n nonce, why reason, now instant) {
	p.next.ident, p.token.secret = p.next.ident.rotate(p.token.secret, n, why, now)
	p.todo, p.cookie, p.event = doSave, setCookie, EventRenewed
}

// rebase sets the attempt on the record as it is now; st is nil if the session
// has ended. own is the session to start where a login needs one of its own.
func (a *attempt) rebase(st *state, v verdict, own life) (outcome, error) {
	id := a.life.token.id
	now := life{base: st, token: token{id, v.secret}, shown: a.life.shown, presented: a.life.presented,
		standing: v.standing, unseen: v.unseen}
	a.join, a.own, a.view = false, false, nil
	switch {
	case st != nil && (v.opens() || a.joins(st, v)) && a.claim.lost(st): // whatever the log would make of what others have done
		return pending, fmt.Errorf("session2: save %v: %w", id, errTurnLost)
	case st != nil && v.opens():
		a.life = now
	case a.joins(st, v):
		now.unseen = false
		a.life, a.join = now, true
	case a.login:
		a.life, a.own = own, true
	case len(a.log) == 0:
		return nothing, nil
	case st == nil:
		return dropped, a.dropped(ErrNotFound)
	case a.life.standing == superseded: // it was when the request came: it was served as nobody's
		return dropped, a.dropped(ErrStale)
	default:
		return pending, fmt.Errorf("session2: save %v: %w", id, ErrStale)
	}
	return pending, nil
}

// joins reports whether the attempt is a login that comes upon its twin's.
func (a *attempt) joins(st *state, v verdict) bool {
	return a.login && st != nil && v.twin && st.user == a.user && st.level() == a.level
}

// dropped is the error that says why changes are lost.
func (a *attempt) dropped(cause error) error {
	return fmt.Errorf("session2: save %v: changes dropped: %w", a.life.token.id, cause)
}

// remembers tells from a newer record whether a Save took effect whose answer was
// lost: landed if it did, pending if it did not, ErrUncertain if the record no longer
// remembers.
func (st *state) remembers(mine, prev Version) (outcome, error) {
	switch {
	case st.versions.contains(mine):
		return landed, nil
	case st.versions.contains(prev):
		return pending, nil
	}
	return pending, fmt.Errorf("session2: save %v: %w", st.id, ErrUncertain)
}

// record completes the plan's state, and returns the record to store. What the
// library itself keeps in it does not count against MaxBytes, and a session that
// is larger already, by another configuration, may still shrink.
func (a *attempt) record(p *plan, version Version, now instant) (Record, error) {
	next := p.next
	next.version = version
	next.versions, a.spare = next.versions.with(version, a.spare), nil
	if now > next.accessed && (!a.passive || next.signIn) {
		next.accessed = now
	}
	next.signIn, next.renew, next.reissue, next.joins = false, false, false, false
	next.expires = a.cfg.expiry(next)
	if p.todo == doEnd { // over by its limit as well, which no concurrent Touch moves
		next.expires, next.lifetime, next.login = now, 1, 0
	}
	next.values.settle()
	if next.box != nil && p.todo != doEnd {
		return Record{}, fmt.Errorf("session2: save %v: %w", next.id, errUnopened)
	}
	data, size := a.encode(p)
	if size > a.cfg.MaxBytes && p.todo != doEnd {
		if _, before := encodeData(a.life.base); size > before {
			return Record{}, fmt.Errorf("session2: save %v: %d bytes where %d are allowed: %w",
				next.id, size, a.cfg.MaxBytes, ErrTooLarge)
		}
	}
	return Record{
		ID: next.id, Version: version, User: userKey(next.realm, next.user),
		Created: next.created.time(), Accessed: next.accessed.time(), Expires: next.expires.time(),
		Data: data,
	}, nil
}

// encode returns the Data of the plan's record, and how many bytes of them are the
// application's.
func (a *attempt) encode(p *plan) (data []byte, size int) {
	switch {
	case !a.cfg.Sealed:
		return encodeData(p.next)
	case p.todo == doEnd:
		return encodeEnded(p.next), 0
	}
	return encodeSealed(p.next, p.token.secret)
}
