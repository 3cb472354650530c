package session2

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"
)

// Migrating is a Store that moves an application's sessions from one store to another
// while it runs: nobody is logged out, and nothing stops. It looks in both. A new session
// is created in the new store, a session that is saved moves there first, and [Migrating.Copy]
// moves the others; a move is a copy that only creates, and then a removal. A session that
// was deleted stays deleted, whatever a process that stood still in the middle of its move
// does later: the new store keeps a mark of it for a week.
//
// One process moves by itself. Where several share the stores, deploy in three steps:
// first, in all of them, a Migrating that holds ([Migrating.Hold]), which creates in the old
// store and finds what has moved; then one that moves, with Copy in one of them; then, when
// [Migrating.Left] returns 0, and after longer than any process may stand still, the new store
// alone, which leaves no marks. To go back, stop all processes, and swap the stores.
//
// Each call costs a call to each store while sessions are in both. It is as capable as the
// less capable of the two, and goroutines may share it if they may share both.
type Migrating struct {
	old, new Store
	hold     atomic.Bool
}

var (
	_ SetupStore     = (*Migrating)(nil)
	_ DeleteOldStore = (*Migrating)(nil)
	_ IterStore      = (*Migrating)(nil)
	_ TouchStore     = (*Migrating)(nil)
	_ UserStore      = (*Migrating)(nil)
	_ CapableStore   = (*Migrating)(nil)
)

// NewMigrating returns a store that moves sessions from old to new. The two must not keep
// their data in the same place. Close closes both.
func NewMigrating(old, new Store) *Migrating { return &Migrating{old: old, new: new} }

// Hold has this process move nothing: sessions stay where they are, and those that are
// created go to the old store. Processes that hold and processes that move may run at once,
// but none that uses the old store alone beside one that moves. Hold(false) ends it. It is
// safe for concurrent use.
func (m *Migrating) Hold(hold bool) { m.hold.Store(hold) }

// Capabilities returns what both stores promise.
func (m *Migrating) Capabilities() Capabilities {
	a, b := capabilities(m.old), capabilities(m.new)
	return Capabilities{
		ThreadSafe:       a.ThreadSafe && b.ThreadSafe,
		MultiprocessSafe: a.MultiprocessSafe && b.MultiprocessSafe,
		MultihostSafe:    a.MultihostSafe && b.MultihostSafe,
		Durable:          a.Durable && b.Durable,
	}
}

// Setup prepares both stores.
func (m *Migrating) Setup(ctx context.Context) error {
	return errors.Join(Setup(ctx, m.old), Setup(ctx, m.new))
}

// Close closes both stores.
func (m *Migrating) Close() error { return errors.Join(Close(m.old), Close(m.new)) }

// Load returns the record, from whichever store has it.
func (m *Migrating) Load(ctx context.Context, id ID) (Record, error) {
	rec, _, err := m.find(ctx, id)
	return rec, err
}

// Has reports whether one of the stores has the record.
func (m *Migrating) Has(ctx context.Context, id ID) (bool, error) {
	switch _, err := m.Load(ctx, id); {
	case err == nil, errors.Is(err, ErrCorrupt):
		return true, nil
	case errors.Is(err, ErrNotFound):
		return false, nil
	default:
		return false, err
	}
}

// Save replaces the record where it is, and moves it before that unless this process
// holds.
func (m *Migrating) Save(ctx context.Context, rec Record, prev Version) error {
	r := recordOf(rec)
	if err := r.Check(); err != nil {
		return opError("save", rec.ID, err)
	}
	if prev == 0 {
		return m.create(ctx, rec)
	}
	for range movingTries {
		err := m.saveNew(ctx, rec, prev)
		if !errors.Is(err, ErrNotFound) || errors.Is(err, errDeleted) {
			return err
		}
		old, found, err := m.loadOld(ctx, rec.ID)
		switch {
		case err != nil:
			return err
		case !found: // moved since the first look, or not there
			return m.saveNew(ctx, rec, prev)
		case old.frozen:
			err = m.finish(ctx, old)
		case old.Version == rec.Version: // it landed before
			return nil
		case old.Version != prev:
			return opError("save", rec.ID, ErrConflict)
		case m.hold.Load():
			if err = m.old.Save(ctx, rec, prev); err == nil {
				return nil
			}
		default:
			err = m.move(ctx, old)
		}
		if err != nil && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return opError("save", rec.ID, ErrConflict) // others were faster each time
}

// movingTries bounds how often a call begins again since the record has moved meanwhile:
// a record moves once, and may be changed a few times in the old store before.
const movingTries = 8

// saveNew saves to the new store. Where the record was deleted it returns errDeleted,
// which is an ErrNotFound.
func (m *Migrating) saveNew(ctx context.Context, rec Record, prev Version) error {
	err := m.new.Save(ctx, rec, prev)
	if !errors.Is(err, ErrConflict) {
		return err
	}
	there, loadErr := m.new.Load(ctx, rec.ID)
	if loadErr == nil && isTombstone(there) {
		return opError("save", rec.ID, errDeleted)
	}
	return err
}

// Delete removes the record from both stores. A mark in the new one keeps it from coming
// back, and is removed by a sweep after a week.
func (m *Migrating) Delete(ctx context.Context, id ID) error {
	if err := m.bury(ctx, id); err != nil {
		return err
	}
	return m.old.Delete(ctx, id)
}

// Touch notes an access, wherever the record is. One beside its move may be lost.
func (m *Migrating) Touch(ctx context.Context, id ID, accessed, expires time.Time) error {
	if err := touch(ctx, m.old, id, accessed, expires); err != nil {
		return err
	}
	return touch(ctx, m.new, id, accessed, expires)
}

// DeleteOld sweeps both stores.
func (m *Migrating) DeleteOld(ctx context.Context, age time.Duration) (int, error) {
	n, err := deleteOld(ctx, m.old, age)
	if err != nil {
		return n, err
	}
	more, err := deleteOld(ctx, m.new, age)
	return n + more, err
}

// Iter lists the records of both stores. It keeps the IDs of those in the old one in
// memory, so that none that moves meanwhile is seen twice.
func (m *Migrating) Iter(ctx context.Context) iter.Seq2[Record, error] {
	return m.both(ctx, iterAll(ctx, m.old), iterAll(ctx, m.new))
}

// IterUser lists the user's records in both stores, if both have an index.
func (m *Migrating) IterUser(ctx context.Context, user string) iter.Seq2[Record, error] {
	a, ok1 := m.old.(UserStore)
	b, ok2 := m.new.(UserStore)
	if !ok1 || !ok2 {
		return func(yield func(Record, error) bool) {
			yield(Record{}, fmt.Errorf("session2: iter user: %w", errors.ErrUnsupported))
		}
	}
	return m.both(ctx, a.IterUser(ctx, user), b.IterUser(ctx, user))
}

// both lists the old store's records and then the new one's: a record moves in that
// direction only.
func (m *Migrating) both(ctx context.Context, old, new iter.Seq2[Record, error]) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		seen := make(map[ID]bool)
		for rec, err := range old {
			if err == nil && isFrozen(rec) { // the new store may have a newer one
				id := rec.ID
				if rec, err = m.Load(ctx, id); errors.Is(err, ErrNotFound) {
					continue
				}
				rec.ID = id
			}
			seen[rec.ID] = true
			if !yield(rec, err) || err != nil && !errors.Is(err, ErrCorrupt) {
				return
			}
		}
		for rec, err := range new {
			if err == nil && (isTombstone(rec) || seen[rec.ID]) {
				continue
			}
			if !yield(rec, err) {
				return
			}
		}
	}
}

// DeleteUser removes the user's records from both stores, if both have an index, and
// returns their number. It deletes one by one, so that none comes back.
func (m *Migrating) DeleteUser(ctx context.Context, user string, keep ...ID) (n int, err error) {
	kept := make(map[ID]bool)
	for _, id := range keep {
		kept[id] = true
	}
	for rec, err := range m.IterUser(ctx, user) {
		switch {
		case errors.Is(err, ErrCorrupt):
			continue
		case err != nil:
			return n, err
		case kept[rec.ID]:
			continue
		}
		ended, err := m.endOf(ctx, rec.ID, user)
		if err != nil {
			return n, err
		}
		if ended {
			n++
		}
	}
	return n, nil
}
