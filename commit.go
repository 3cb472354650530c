package session2

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// maxReplays bounds how often one commit starts anew because others were
// faster. CommitTimeout usually ends it before.
const maxReplays = 1000

// txn is one commit under way.
type txn struct {
	attempt
	s       *Session
	version Version // of what this commit writes, in whichever try: by it a try that landed is known
	lost    bool    // the answer to a Save was lost
	behind  bool    // what the attempt starts from is old: load before deciding
	resets  int     // the session's, as the log was taken down
	ends    int
	plan    plan
}

// commit stores the session's changes and does the housekeeping that is due.
func (s *Session) commit(ctx context.Context) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	t, doomed, err := s.start()
	if t == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.m.cfg.CommitTimeout)
	defer cancel()
	err = t.run(ctx)
	if doomed != nil && !failsRequest(err) {
		if failed := t.bury(ctx, doomed); failed != nil {
			err = failed
		} else {
			s.buried(ctx, doomed)
			doomed = nil
		}
	}
	return s.settle(ctx, t, doomed != nil, err)
}

// failsRequest reports whether what became of a commit is a failure, and not
// only less than was asked for.
func failsRequest(err error) bool {
	return err != nil && !errors.Is(err, errLanded) && !errors.Is(err, errQuiet) &&
		!errors.Is(err, errBegun) && !errors.As(err, new(*droppedError))
}

// start takes down what is to be committed. It returns nil if there is nothing
// to commit, with an error if nothing may be.
func (s *Session) start() (*txn, *life, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.work == nil {
		return nil, nil, nil
	}
	if err := firstError(s.broken, s.wrong); err != nil {
		return nil, nil, err
	}
	if len(s.log) > 0 {
		s.draw()
	}
	a := attempt{cfg: &s.m.cfg, life: s.life, log: s.log[:len(s.log):len(s.log)],
		login: s.work.login, user: s.work.user, cookie: !s.begun}
	if s.doomed == nil && a.idle(microNow()) {
		return nil, nil, nil
	}
	behind := a.life.standing == superseded || a.resend() && len(a.log) == 0
	return &txn{attempt: a, s: s, behind: behind, resets: s.resets, ends: s.ends}, s.doomed, nil
}

func microNow() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// run commits. A failure that leaves it open whether the changes are stored is
// ErrUncertain.
func (t *txn) run(ctx context.Context) error {
	err := t.tries(ctx)
	if t.lost && failsRequest(err) && failedByStore(err) && !errors.Is(err, ErrStale) {
		return uncertain(err)
	}
	return err
}

// uncertain marks the failure of what may have been done all the same.
func uncertain(err error) error {
	if errors.Is(err, ErrUncertain) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUncertain, err)
}

// tries tries until a try has its way, or there is none to be had.
func (t *txn) tries(ctx context.Context) (err error) {
	if t.life.standing == superseded && !t.login {
		return &droppedError{t.life.token.id, ErrStale}
	}
	// One version has one content: a try that lands late stands for the next.
	n := newNonce()
	t.version = newVersion()
	for try := range maxReplays {
		if t.behind {
			if err := t.reload(ctx); err != nil {
				return err
			}
		}
		now := microNow()
		if t.plan, err = t.decide(now, n); err != nil {
			return err
		}
		err = t.write(ctx, now)
		if !errors.Is(err, ErrConflict) && !errors.Is(err, ErrUncertain) && !absent(err) {
			return err
		}
		t.lost = t.lost || errors.Is(err, ErrUncertain)
		t.behind = true
		if !absent(err) {
			t.emit(ctx, EventConflict, err)
		}
		if try > 0 {
			if sleep(ctx, rand.N(min(time.Duration(try)*time.Millisecond, 20*time.Millisecond))) != nil {
				break
			}
		}
	}
	return fmt.Errorf("session2: save %v: others were faster each time: %w", t.life.token.id, ErrConflict)
}

// reload bases the attempt on the record as it is now.
func (t *txn) reload(ctx context.Context) error {
	m, own := t.s.m, t.s.newLife()
	creating := !t.life.base.stored() && t.life.standing == current
	if creating && !t.lost {
		t.life, t.behind = own, false // somebody else's record has the ID that was drawn: draw another
		return nil
	}
	st, err := t.fetch(ctx)
	switch {
	case err != nil && !absent(err):
		return err
	case err != nil && creating: // it did not land, or is gone before anybody had its token
		t.life, t.behind, t.lost = own, false, false
		return nil
	case err != nil && t.lost && t.plan.todo == doEnd:
		return t.gone(ctx, st)
	case err != nil:
		st = nil
	case t.lost:
		if err := landed(st, t.version, t.life.base.version); err != nil {
			t.plan.next = st
			return err
		}
	}
	var v verdict
	if st != nil {
		v = st.ident.judge(t.life.shown, t.s.arrived, m.cfg.RenewGrace)
	}
	err = t.rebase(st, v, own)
	t.behind = false
	t.lost = t.lost && t.life.token.id != own.token.id
	return err
}

// fetch loads the record as it is now. It asks until the store answers: where
// the answer to a Save was lost, nothing else can tell what became of it.
func (t *txn) fetch(ctx context.Context) (st *state, err error) {
	again(ctx, func() bool {
		st, err = t.s.m.fetch(ctx, t.life.token.id)
		return err == nil || absent(err)
	})
	return st, err
}

// gone is for a session that is over, as was meant. st is what is left of it,
// nil if nothing is: then another request may have ended it, and the browser may
// hold a newer cookie.
func (t *txn) gone(ctx context.Context, st *state) error {
	if st == nil || !slices.Contains(st.versions, t.version) {
		t.plan.cookie, t.plan.event = keepCookie, 0
		return errLanded
	}
	t.remove(ctx, st.id)
	return errLanded
}

// remove deletes a record that was saved as expired. If that fails, it will be
// swept.
func (t *txn) remove(ctx context.Context, id ID) {
	if err := t.s.m.store.Delete(ctx, id); err != nil {
		t.emit(ctx, EventStoreError, err)
	}
}

// write carries out one try.
func (t *txn) write(ctx context.Context, now time.Time) error {
	if t.plan.todo == doTouch {
		done, err := t.touch(ctx, now)
		if done || err != nil {
			return err
		}
		t.plan.todo = doSave
	}
	if t.plan.todo == doNothing {
		return nil
	}
	rec, err := t.plan.record(t.cfg, t.version, now)
	if err != nil {
		return err
	}
	if err := t.save(ctx, rec, t.life.base.version); err != nil || t.plan.todo != doEnd {
		return err
	}
	t.remove(ctx, rec.ID)
	return nil
}

// touch notes the access. It reports false if the store cannot, and the record
// has to be saved instead.
func (t *txn) touch(ctx context.Context, now time.Time) (bool, error) {
	next := t.plan.next
	next.accessed = now
	next.expires = t.cfg.expiry(next)
	err := touch(ctx, t.s.m.store, next.id, next.accessed, next.expires)
	if errors.Is(err, errors.ErrUnsupported) {
		return false, nil
	}
	return true, err
}

// save asks the store to Save until it has an answer. One that fails for other
// reasons than a conflict may have landed: it is asked again, and a conflict is
// then uncertain.
func (t *txn) save(ctx context.Context, rec Record, prev Version) (err error) {
	again(ctx, func() bool {
		err = t.s.m.store.Save(ctx, rec, prev)
		switch {
		case err == nil, absent(err), refused(err), errors.Is(err, ErrUncertain), errors.Is(err, ErrConflict):
			return true
		}
		if !t.lost {
			t.emit(ctx, EventStoreError, err)
		}
		t.lost = true
		return false
	})
	return err
}

// bury deletes the session that Destroy ended. If that fails, the logout has
// failed, and what was created after it is taken back.
func (t *txn) bury(ctx context.Context, doomed *life) (err error) {
	store := t.s.m.store
	again(ctx, func() bool {
		err = store.Delete(ctx, doomed.base.id)
		return err == nil
	})
	if err == nil {
		return nil
	}
	t.emit(ctx, EventStoreError, err)
	if t.plan.todo == doSave && t.plan.event == EventCreated {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.cfg.CommitTimeout)
		defer cancel()
		store.Delete(undo, t.plan.next.id)
	}
	return uncertain(err)
}

// again calls f until it is done, or ctx is.
func again(ctx context.Context, f func() (done bool)) {
	for wait := 10 * time.Millisecond; !f(); wait = min(2*wait, 500*time.Millisecond) {
		if sleep(ctx, wait/2+rand.N(wait/2)) != nil {
			return
		}
	}
}

func (t *txn) emit(ctx context.Context, kind EventKind, err error) {
	t.s.m.emit(ctx, Event{Kind: kind, ID: t.life.token.id, User: t.life.base.user, Err: err})
}

// sleep waits for d, or returns ctx's error.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
