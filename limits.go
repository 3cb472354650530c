package session2

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/session2/session2/internal/record"
)

// How many sessions a user has (Config.MaxPerUser). A login that takes a new place
// does this, and one of the user's logins at a time (turn.go):
//
//  1. It lists the user's sessions, and is refused, or notes which of them must go.
//  2. It saves its own.
//  3. It ends those that must go: none of them, if its own Save has failed.

// place is a live session, as far as it matters which is the oldest.
type place struct {
	id             ID
	began, created instant
}

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.began, q.began), cmp.Compare(p.created, q.created),
		slices.Compare(p.id[:], q.id[:]))
}

// takesPlace reports whether the plan makes one more session of its user's. A login
// that joins its twin makes none; but the twin may have failed to end the oldest.
func (t *txn) takesPlace() bool {
	if t.cfg.MaxPerUser == 0 || !t.login || t.plan.todo != doSave {
		return false
	}
	return t.life.base.user != t.user || t.join && !t.cfg.RejectLogin
}

// makeRoom takes the user's turn, if the plan needs it, and notes which sessions must
// end for it. It returns ErrTooManySessions if there is no place and none is made.
func (t *txn) makeRoom(ctx context.Context) (err error) {
	t.oldest = nil
	if !t.takesPlace() {
		return nil
	}
	if t.turn == nil {
		if t.turn, err = t.s.m.takeTurn(ctx, t.user, 0); err != nil {
			return err
		}
	}
	t.oldest, err = t.tooMany(ctx)
	return err
}

// tooMany returns the user's oldest sessions, of which there is one for each that is
// one too many beside the session of this login.
func (t *txn) tooMany(ctx context.Context) ([]place, error) {
	var live []place
	var err error
	again(ctx, func() bool {
		live, err = t.others(ctx)
		return err == nil || refused(err)
	})
	over := len(live) + 1 - t.cfg.MaxPerUser
	switch {
	case err != nil:
		return nil, fmt.Errorf("session2: list the user's sessions: %w", err)
	case over <= 0:
		return nil, nil
	case t.cfg.RejectLogin:
		return nil, fmt.Errorf("session2: save %v: %w", t.life.token.id, ErrTooManySessions)
	}
	slices.SortFunc(live, place.compare)
	return live[:over], nil
}

// others returns the user's live sessions, without this login's own and those that it
// ends itself.
func (t *txn) others(ctx context.Context) (live []place, err error) {
	m, now := t.s.m, microNow()
	for rec, err := range iterUser(ctx, m.store, userKey(t.cfg.Realm, t.user)) {
		var st *state
		if err == nil {
			st, err = decodeRecord(rec)
		}
		switch {
		case errors.Is(err, ErrCorrupt): // nobody can use it
		case err != nil:
			return nil, err
		case t.cfg.expired(st, now), st.id == t.life.base.id, slices.Contains(t.abandoned, st.id):
		case slices.ContainsFunc(t.ended, func(e *state) bool { return e.id == st.id }):
		default:
			live = append(live, place{st.id, st.began(), st.created})
		}
	}
	return live, nil
}

// keepPlace ends the sessions that must go, now that the login is stored. If that
// fails the login is taken back: there would be one session too many.
func (t *txn) keepPlace(ctx context.Context) error {
	if !t.takesPlace() {
		return nil
	}
	var err error
	if !t.turn.sure(t.cfg) { // the Save took so long that another login may have had its turn beside this one
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.cfg.CommitTimeout)
		defer cancel()
		ctx, err = late, t.recount(late)
	}
	if err == nil {
		err = t.endOldest(ctx)
	}
	if err == nil {
		return nil
	}
	if t.join { // it is not this login's to take back
		return record.Uncertain(err)
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.cfg.CommitTimeout)
	defer cancel()
	if failed := t.s.m.store.Delete(undo, t.plan.next.id); failed == nil && errors.Is(err, ErrTooManySessions) {
		return err
	}
	return record.Uncertain(err)
}

// recount takes the turn and counts once more.
func (t *txn) recount(ctx context.Context) error {
	next, err := t.s.m.takeTurn(ctx, t.user, t.turn.version)
	if err != nil {
		return err
	}
	t.turn = next
	t.oldest, err = t.tooMany(ctx)
	return err
}

// endOldest ends the sessions that must go, unless they are another user's by now.
func (t *txn) endOldest(ctx context.Context) (err error) {
	m := t.s.m
	for _, p := range t.oldest {
		var ended, lost bool
		again(ctx, func() bool {
			ended, err = m.endIf(ctx, p.id, func(st *state) bool { return st.user == t.user })
			lost = lost || err != nil
			return ended || err == nil || refused(err)
		})
		if ended || lost && err == nil { // though its record may be left to the sweep
			t.hear(Event{Kind: EventRevoked, ID: p.id, User: t.user})
		} else if err != nil {
			return fmt.Errorf("session2: end %v, the user's oldest session: %w", p.id, err)
		}
	}
	return nil
}

// passTurn lets the next login have its turn, unless nobody knows whether this one's
// Save is still to land, as after a panic: then the turn ends by itself, and the next
// one counts it.
func (t *txn) passTurn(ctx context.Context, o outcome, err error) {
	if o == pending && (err == nil || errors.Is(err, ErrUncertain)) {
		return
	}
	if err := t.s.m.endTurn(ctx, t.turn); err != nil {
		t.event(EventStoreError, err)
	}
}

// lists refuses a store that cannot list a user's sessions, where it must.
func (c *Config) lists(store Store) error {
	var p problems
	_, byUser := store.(UserStore)
	_, all := store.(IterStore)
	p.when(c.MaxPerUser > 0 && !byUser && !all,
		"Config.MaxPerUser: the store is neither a UserStore nor an IterStore")
	return errors.Join(p...)
}
