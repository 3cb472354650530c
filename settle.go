package session2

import (
	"context"
	"errors"
	"fmt"
)

// settle takes over what a commit came to, and whether a logout has failed with
// it. It returns what the commit's caller is told.
func (s *Session) settle(ctx context.Context, t *txn, logout bool, err error) error {
	if errors.Is(err, errQuiet) {
		return nil
	}
	if err == nil || errors.Is(err, errLanded) {
		s.adopt(ctx, t, err != nil)
		return nil
	}
	var dropped *droppedError
	switch {
	case errors.As(err, &dropped), errors.Is(err, ErrStale):
		t.emit(ctx, EventConflict, err)
	case errors.Is(err, errBegun):
		s.m.cfg.Logger.ErrorContext(ctx, "session2: changes lost", "session", t.life.token.id.String(), "error", err.Error())
	case failedByStore(err):
		t.emit(ctx, EventStoreError, err)
	}
	if len(t.log) == 0 && !logout {
		return nil // housekeeping, for another time
	}
	s.fail(t, err)
	return err
}

// failedByStore reports whether err came from the store, and not from what it
// was given.
func failedByStore(err error) bool {
	return !errors.Is(err, ErrTooLarge) && !errors.As(err, new(*changeError))
}

// fail notes what is left of a session whose commit failed.
func (s *Session) fail(t *txn, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var dropped *droppedError
	switch {
	case errors.As(err, &dropped): // nothing can be stored for this token any more, but by a login
		s.life = s.shut(dropped.id, t.life.shown)
		s.note, s.cookie = firstError(s.note, err), keepCookie
		s.rework(t)
	case errors.Is(err, errBegun):
		s.note = firstError(s.note, err)
		s.rework(t)
	case errors.Is(err, ErrStale):
		s.broken, s.cookie = err, keepCookie
	case !failedByStore(err): // until Discard
		s.wrong = firstError(s.wrong, err)
	default: // it may have landed: no second application
		s.broken = err
	}
}

// shut is what a request goes on with whose token opens its session no more:
// nobody's.
func (s *Session) shut(id ID, shown verifier) life {
	st := s.newState()
	st.id = id
	return life{base: st, token: token{id: id}, shown: shown, standing: superseded}
}

// rework drops the changes of t, which are stored or lost, and applies what
// came after them to the session as it is now.
func (s *Session) rework(t *txn) {
	log := s.log
	if !t.spend && s.resets == t.resets { // else they are no longer in the log
		log = log[len(t.log):]
	}
	s.work, s.log, s.gen = s.life.base, nil, s.gen+1
	for _, o := range log {
		s.apply(o)
	}
}

// adopt makes what was committed the base of what comes next.
func (s *Session) adopt(ctx context.Context, t *txn, late bool) {
	before := t.life.base
	next := t.adopted(late)
	s.mu.Lock()
	if t.plan.todo == doEnd {
		next = life{base: s.newState()}
	}
	s.life = next
	if s.ends != t.ends && next.base.stored() { // Destroy came while this commit ran: this is to end, too
		s.life, s.doomed = life{base: s.newState()}, &next
	}
	s.rework(t)
	if next.standing == superseded {
		s.note = firstError(s.note, fmt.Errorf("session2: save %v: landed, but: %w", next.token.id, ErrStale))
	}
	if t.plan.cookie == setCookie {
		s.cookie = setCookie
	}
	s.mu.Unlock()
	switch t.plan.event {
	case EventDestroyed:
		s.ended(ctx, before)
	case EventCreated, EventRenewed:
		s.m.emit(ctx, Event{Kind: t.plan.event, ID: t.plan.next.id, User: t.plan.next.user})
	}
}

// buried notes that the session that Destroy ended is deleted.
func (s *Session) buried(ctx context.Context, doomed *life) {
	s.mu.Lock()
	if s.doomed == doomed {
		s.doomed = nil
	}
	s.mu.Unlock()
	s.ended(ctx, doomed.base)
}

// ended revokes the cookie of a session that is no more.
func (s *Session) ended(ctx context.Context, st *state) {
	s.mu.Lock()
	s.cookie = revokeCookie
	begun := s.begun
	if begun {
		s.note = firstError(s.note, errBegun)
	}
	s.mu.Unlock()
	if begun {
		s.m.cfg.Logger.ErrorContext(ctx, "session2: cookie not revoked", "session", st.id.String(), "error", errBegun.Error())
	}
	s.m.emit(ctx, Event{Kind: EventDestroyed, ID: st.id, User: st.user})
}

// adopted returns the session as the commit left it. A commit that was found to
// have landed late leaves the cookie alone if its token has been replaced since;
// by a login, and the session is another's.
func (t *txn) adopted(late bool) life {
	l := life{base: t.plan.next, token: t.plan.token, shown: t.life.shown, standing: t.life.standing}
	l.unseen = t.life.unseen && t.plan.cookie == keepCookie
	if t.plan.event != 0 || t.join {
		l.shown, l.standing = l.token.secret, current
	}
	if late && t.plan.token.secret.hash() != t.plan.next.ident.hash {
		t.plan.cookie = keepCookie
		v := l.base.ident.judge(l.shown, t.s.arrived, t.cfg.RenewGrace)
		if !v.opens() {
			return t.s.shut(l.token.id, l.shown)
		}
		l.token.secret, l.standing, l.unseen = v.secret, v.standing, v.unseen
	}
	return l
}
