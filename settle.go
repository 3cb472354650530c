package session2

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// settle takes over what a commit came to. It returns what the commit's caller is
// told.
func (s *Session) settle(t *txn, o outcome, err error) error {
	switch o {
	case nothing:
		return nil
	case stored, landed:
		s.adopt(t, o == landed)
		return nil
	case vetoed:
		return err
	}
	housekeeping := (len(t.log) == 0 || t.plan.unchanged) && len(t.ended) == 0
	if housekeeping && !errors.Is(err, errTurnLost) { // for another time
		if failedByStore(err) && !errors.Is(err, errLate) {
			t.failure(EventStoreError, err)
			s.mu.Lock()
			s.neglected = true
			s.mu.Unlock()
		}
		return nil
	}
	t.failure(failureKind(o, err), err)
	if t.extra != nil && errors.Is(err, ErrTooLarge) { // the caller is told, and the change is nowhere any more
		return err
	}
	s.fail(t, o, err)
	return err
}

// failure notes the one event of a commit that failed: what the store said in its
// course is in the error.
func (t *txn) failure(kind EventKind, err error) {
	t.hearing = slices.DeleteFunc(t.hearing, func(e Event) bool { return e.Kind == EventStoreError })
	t.event(kind, err)
}

// failureKind returns the event that a failed commit is.
func failureKind(o outcome, err error) EventKind {
	switch {
	case o == dropped, o == tooLate, errors.Is(err, errLate):
		return EventDropped
	case errors.Is(err, ErrStale), errors.Is(err, ErrLostUpdate):
		return EventConflict
	case !failedByStore(err):
		return EventDropped
	case errors.Is(err, ErrConflict) && !errors.Is(err, ErrUncertain): // others were faster each time
		return EventDropped
	}
	return EventStoreError
}

// failedByStore reports whether err came from the store, and not from what it
// was given.
func failedByStore(err error) bool {
	return !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrLostUpdate) && !errors.Is(err, ErrTooManySessions) &&
		!errors.As(err, new(*changeError))
}

// fail notes what is left of a session whose commit failed.
func (s *Session) fail(t *txn, o outcome, err error) {
	s.mu.Lock()
	switch {
	case o == dropped: // nothing can be stored for this token any more, but by a login
		s.life, s.looks = s.shut(t.life.token.id, t.life.shown), looks{}
		s.life.gone = errors.Is(err, ErrNotFound)
		s.note = cmp.Or(s.note, err)
		if !t.revoke {
			s.cookie = keepCookie
		}
	case o == tooLate:
		s.note = cmp.Or(s.note, err)
	case errors.Is(err, ErrStale):
		s.broken, s.cookie = err, keepCookie
	case errors.Is(err, ErrLostUpdate): // until Discard, after which the handler sees what is stored now
		s.wrong = cmp.Or(s.wrong, err)
		if !t.join { // else the record is another login's
			s.life, s.looks = t.life, looks{}
		}
	case !failedByStore(err): // until Discard
		s.wrong = cmp.Or(s.wrong, err)
	default: // it may have landed: no second application
		s.broken = err
	}
	redo := o == dropped || o == tooLate
	if redo {
		s.forget(t)
	}
	s.mu.Unlock()
	if redo {
		s.rework()
	}
	if o == dropped {
		s.isOver(err)
	}
}

// shut is what a request goes on with whose token opens its session no more:
// nobody's.
func (s *Session) shut(id ID, shown verifier) life {
	st := s.newState()
	st.id = id
	return life{base: st, token: token{id: id}, shown: shown, standing: superseded}
}

// forget drops the changes of t, which are stored or lost, from the log. It is
// called with s.mu held; rework must follow.
func (s *Session) forget(t *txn) {
	if s.resets == t.resets { // else they are no longer in the log
		s.log = s.log[t.viewed:]
	}
	if len(s.log) == 0 {
		s.work, s.log, s.blind = s.life.base, nil, false
	}
	s.gen++
}

// rework applies what came after a commit to the session as it is now. That may
// call the application's functions, so no lock is held meanwhile.
func (s *Session) rework() {
	for {
		s.mu.Lock()
		base, log, gen := s.life.base, s.log, s.gen
		s.mu.Unlock()
		if len(log) == 0 {
			return
		}
		next := base.clone()
		var wrong error
		for _, o := range log {
			wrong = cmp.Or(wrong, o.apply(next))
		}
		if s.reworked(next, wrong, gen) {
			return
		}
	}
}

// reworked takes over what rework made, unless the session was changed again.
func (s *Session) reworked(next *state, wrong error, gen int32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gen != gen {
		return false
	}
	s.work, s.wrong = next, cmp.Or(s.wrong, wrong)
	return true
}

// adopt makes what was committed the base of what comes next.
func (s *Session) adopt(t *txn, late bool) {
	before := t.life.base
	next, cookie := t.adopted(late)
	if next.standing == superseded {
		s.hear(t.plan.next.id, news{now: t.plan.next})
	}
	s.mu.Lock()
	if t.plan.todo == doEnd {
		next = life{base: s.newState()}
	}
	switch {
	case t.seen == nil:
	case s.resets == t.resets:
		s.looks.committed(t.gen, t.seen)
	default:
		s.looks.storedAfterAll(t.origin, t.seen)
	}
	if t.own || t.plan.todo == doEnd {
		s.looks = looks{}
	}
	if t.extra != nil && !s.m.cfg.AllowLostUpdates {
		s.looks.told(t.extra)
	}
	if t.leaves && next.base.id == t.claim.id {
		t.claim.left.Store(true)
	}
	next.base.values.settle()
	if next.base.stored() && !next.base.hasInfo() {
		s.holdOwn(next.base.id)
		s.m.open.empty(next.base.id)
	}
	s.life = next
	if s.ends != t.ends && next.base.stored() { // Destroy came while this commit ran: this is to end, too
		s.life, s.undo = life{base: s.newState()}, &undo{life: next}
		s.ended = append(s.ended, next.base)
	}
	if next.standing == superseded {
		s.note = cmp.Or(s.note, fmt.Errorf("session2: save %v: landed, but: %w", next.token.id, ErrStale))
	} else {
		s.stale = nil
	}
	if cookie == setCookie {
		s.cookie = setCookie
		s.former = s.former || t.login
	}
	s.fresh = t.plan.todo == doSave && (!late || t.ownsToken())
	s.forget(t)
	s.mu.Unlock()
	s.rework()
	s.follow()
	switch t.plan.event {
	case EventDestroyed:
		s.tellEnd(t, before)
	case EventCreated, EventRenewed:
		t.hear(Event{Kind: t.plan.event, ID: t.plan.next.id, User: t.plan.next.user})
	}
	if t.plan.event == EventRenewed {
		s.m.tell(t.plan.next.id, news{now: t.plan.next})
	}
}

// buried notes that the sessions that Destroy or a login ended are deleted.
func (s *Session) buried(t *txn) {
	s.mu.Lock()
	s.ended = slices.DeleteFunc(slices.Clone(s.ended), func(st *state) bool { return slices.Contains(t.ended, st) })
	if len(s.ended) == 0 {
		s.undo = nil
	}
	s.passed = slices.DeleteFunc(s.passed, func(st *state) bool { return isAmong(t.ended, st) })
	s.stale = nil // if the session was ended by a token that Renew had replaced
	s.mu.Unlock()
	for _, st := range t.ended {
		s.tellEnd(t, st)
	}
	t.ended = nil
}

// isAmong reports whether a list has the session of st.
func isAmong(list []*state, st *state) bool {
	return slices.ContainsFunc(list, func(other *state) bool { return other.id == st.id })
}

// tellEnd revokes the cookie of a session that has ended, and reports the end.
func (s *Session) tellEnd(t *txn, st *state) {
	if t.claim != nil && t.claim.id == st.id {
		t.claim.left.Store(true)
	}
	s.revoked(t, st)
	t.hear(Event{Kind: EventDestroyed, ID: st.id, User: st.user})
}

// revoked takes the cookie of a session from the client.
func (s *Session) revoked(t *txn, st *state) {
	s.mu.Lock()
	s.cookie, s.former, s.loggedOut = revokeCookie, true, s.loggedOut || s.leaving
	if s.ends == t.ends {
		s.revoke = false
	}
	begun := s.begun && s.way != byOther // whose client is told nothing anyway
	if begun {
		s.note = cmp.Or(s.note, errNotRevoked)
	}
	s.mu.Unlock()
	if begun {
		t.hear(Event{Kind: EventDropped, ID: st.id, User: st.user, Err: errNotRevoked})
	}
}

// ownsToken reports whether the session still has the token that the commit has stored.
func (t *txn) ownsToken() bool { return t.plan.token.secret.hash() == t.plan.next.ident.hash }

// adopted returns the session as the commit left it, and what becomes of the cookie.
// A commit that was found to have landed late leaves the cookie alone if its token
// has been replaced since; by a login, and the session is another's.
func (t *txn) adopted(late bool) (life, cookieAction) {
	l := life{
		base: t.plan.next, token: t.plan.token,
		shown: t.life.shown, presented: t.life.presented, standing: t.life.standing,
	}
	l.unseen = t.life.unseen && t.plan.cookie == keepCookie
	if t.plan.event != 0 || t.join {
		l.shown, l.standing, l.presented = l.token.secret, current, false
	}
	if !late || t.ownsToken() {
		return l, t.plan.cookie
	}
	v := l.base.ident.judge(l.shown, t.s.arrived, t.cfg.RenewGrace)
	if !v.opens() || l.base.box != nil {
		return t.s.shut(l.token.id, l.shown), keepCookie
	}
	l.token.secret, l.standing, l.unseen = v.secret, v.standing, v.unseen
	return l, keepCookie
}
