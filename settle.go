package session2

import (
	"context"
	"errors"
)

// settle takes over what a commit came to. It returns what the commit's caller
// is told.
func (s *Session) settle(ctx context.Context, t *txn, doomed *life, err error) error {
	if errors.Is(err, errQuiet) {
		return nil
	}
	if err == nil || errors.Is(err, errLanded) {
		s.adopt(ctx, t, doomed, err != nil)
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
	if len(t.log) == 0 && doomed == nil {
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
		s.life = life{base: s.newState(), token: token{id: dropped.id}, shown: t.life.shown, standing: superseded}
		s.life.base.id = dropped.id
		s.note, s.cookie = firstError(s.note, err), keepCookie
		s.rework(t)
	case errors.Is(err, errBegun):
		s.note = firstError(s.note, err)
		s.rework(t)
	case errors.Is(err, ErrStale):
		s.broken, s.cookie = err, keepCookie
	case !failedByStore(err): // until the handler makes it smaller, or Discard
		s.wrong = firstError(s.wrong, err)
	default: // it may have landed: no second application
		s.broken = err
	}
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
func (s *Session) adopt(ctx context.Context, t *txn, doomed *life, late bool) {
	before := t.life.base
	next := t.adopted(late)
	ended := doomed != nil || t.plan.todo == doEnd
	s.mu.Lock()
	if t.plan.todo == doEnd {
		next = life{base: s.newState()}
	}
	s.life, s.doomed = next, nil
	if s.ends != t.ends && next.base.stored() { // Destroy came while this commit ran: this is to end, too
		s.life, s.doomed = life{base: s.newState()}, &next
	}
	s.rework(t)
	switch {
	case t.plan.cookie != keepCookie:
		s.cookie = t.plan.cookie
	case ended:
		s.cookie = revokeCookie
	}
	unrevoked := ended && s.begun
	if unrevoked {
		s.note = firstError(s.note, errBegun)
	}
	s.mu.Unlock()

	if unrevoked {
		s.m.cfg.Logger.ErrorContext(ctx, "session2: cookie not revoked", "session", before.id.String(), "error", errBegun.Error())
	}
	if doomed != nil {
		s.m.emit(ctx, Event{Kind: EventDestroyed, ID: doomed.base.id, User: doomed.base.user})
	}
	switch t.plan.event {
	case EventDestroyed:
		s.m.emit(ctx, Event{Kind: EventDestroyed, ID: before.id, User: before.user})
	case EventCreated, EventRenewed:
		s.m.emit(ctx, Event{Kind: t.plan.event, ID: t.plan.next.id, User: t.plan.next.user})
	}
}

// adopted returns the session as the commit left it. A commit that was found to
// have landed late leaves the cookie alone if its token has been replaced since.
func (t *txn) adopted(late bool) life {
	l := life{base: t.plan.next, token: t.plan.token, shown: t.life.shown, standing: t.life.standing}
	if t.plan.event != 0 || t.join {
		l.shown, l.standing = l.token.secret, current
	}
	if late && t.plan.token.secret.hash() != t.plan.next.ident.hash {
		t.plan.cookie = keepCookie
		v := l.base.ident.judge(l.shown, t.s.arrived, t.cfg.RenewGrace)
		l.token.secret, l.standing, l.unseen = v.secret, v.standing, v.unseen
	}
	return l
}
