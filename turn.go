package session2

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// No store has a transaction over several records. So logins of one user that are
// counted (Config.MaxPerUser) take turns, by a record that only one of them can have
// created. It is no session: no verifier has the hash zero, so no token opens it, and
// fetch says that it is not there. It is nobody's, so that no list of a user's
// sessions has it.

// turn is the right of one login to count its user's sessions. It ends by itself, for
// its holder may have been killed.
type turn struct {
	id      ID
	version Version
	until   instant
}

// isTurn reports whether a record is a turn and no session.
func (st *state) isTurn() bool { return st.ident.hash == hash{} }

// turnID returns under which ID the logins of a user meet.
func turnID(realmName, user string) ID {
	sum := sha256.Sum256([]byte("session2 turn v1\x00" + userKey(realmName, user)))
	return ID(sum[:])
}

// turnRecord returns the record of a turn that begins now.
func (m *Manager) turnRecord(id ID) Record {
	now := microNow()
	data, _ := encodeData(&state{realm: m.cfg.Realm, ident: identity{since: now}})
	return Record{ID: id, Version: newVersion(), Created: now.time(), Accessed: now.time(),
		Expires: now.add(2 * m.cfg.CommitTimeout).time(), Data: data}
}

// takeTurn waits for the user's turn until ctx ends. prev is the version of a turn
// that the caller has had, or zero.
func (m *Manager) takeTurn(ctx context.Context, user string, prev Version) (*turn, error) {
	id := turnID(m.cfg.Realm, user)
	rec := m.turnRecord(id)
	for try := 1; ; try++ {
		err := m.store.Save(ctx, rec, prev)
		if err == nil {
			return &turn{id, rec.Version, instantOf(rec.Expires)}, nil
		}
		if refused(err) {
			return nil, fmt.Errorf("session2: wait for other logins of the user: %w", err)
		}
		found, free, lookErr := m.lookAtTurn(ctx, id)
		if lookErr == nil && found.Version == rec.Version { // the answer was lost
			return &turn{id, rec.Version, instantOf(rec.Expires)}, nil
		}
		prev = 0
		if free {
			prev = found.Version
		}
		lost := !errors.Is(err, ErrConflict) && !absent(err) // it may still land, and one version has one content
		if (lost || !free) && sleep(ctx, turnPause(try)) != nil {
			return nil, fmt.Errorf("session2: wait for other logins of the user: %w", err)
		}
		if !lost {
			rec = m.turnRecord(id)
		}
	}
}

// turnPause is how long to wait before the next try.
func turnPause(try int) time.Duration {
	wait := min(time.Duration(try)*time.Millisecond, 20*time.Millisecond)
	return wait/2 + rand.N(wait)
}

// lookAtTurn returns the turn that is stored, the zero Record if there is none, and
// whether it is free: its time is over.
func (m *Manager) lookAtTurn(ctx context.Context, id ID) (rec Record, free bool, err error) {
	rec, err = m.store.Load(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return Record{}, true, nil
	case errors.Is(err, ErrCorrupt): // nobody can hold it, and no Save replaces it
		return Record{}, true, m.store.Delete(ctx, id)
	case err != nil:
		return Record{}, false, err
	}
	return rec, microNow() >= instantOf(rec.Expires), nil
}

// sure reports whether nobody can have taken the turn over yet, with time to spare for
// a call that is under way and for clocks that differ.
func (t *turn) sure(cfg *Config) bool { return microNow() < t.until.add(-cfg.CommitTimeout) }

// endTurn lets the next login have its turn. One that is nearly over ends by itself:
// a Delete might come so late that it ends another's.
func (m *Manager) endTurn(ctx context.Context, t *turn) error {
	if !t.sure(&m.cfg) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.cfg.CommitTimeout)
	defer cancel()
	return m.store.Delete(ctx, t.id)
}
