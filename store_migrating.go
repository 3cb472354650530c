package session2

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
	"time"

	"github.com/session2/session2/internal/record"
)

// Migrating is a Store that moves an application's sessions from one store to another
// while it runs: nobody is logged out, and nothing stops. It looks in both. A session moves
// when it is saved, [Migrating.Copy] moves the others, and new ones begin in the new store.
// No process that stands still in the middle of a move, or is killed there, loses a session
// or brings one back that has ended: the old store keeps a marker for each session that has
// moved or ended, until a week after the session's time, and its sweeps remove them.
//
// One process moves by itself. Where several share the stores, deploy in three steps:
// first, in all of them, a Migrating that holds ([Migrating.Hold]), which creates in the old
// store and finds what has moved; then one that moves, with Copy in one of them; then, when
// [Migrating.Left] returns 0, the new store alone. To go back, stop all processes, and swap
// the stores.
//
// A session that has moved costs one call, as in the new store alone; others cost a call to
// each store, and a move some ten. A sweep may leave a session in the middle of its move to
// the next one. Migrating is as capable as the less capable of the two stores, and
// goroutines may share it if they may share both.
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

// NewMigrating returns a store that moves sessions from old to new, and panics if one of
// them is nil. The two must not keep their data in the same place. The zero Migrating is not
// usable.
func NewMigrating(old, new Store) *Migrating {
	if old == nil || new == nil {
		panic("session2: NewMigrating: a store is nil")
	}
	return &Migrating{old: old, new: new}
}

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

func (m *Migrating) confirm(ctx context.Context) error {
	return errors.Join(confirm(ctx, m.old), confirm(ctx, m.new))
}

// Setup prepares both stores.
func (m *Migrating) Setup(ctx context.Context) error {
	return errors.Join(Setup(ctx, m.old), Setup(ctx, m.new))
}

// Close closes both stores.
func (m *Migrating) Close() error { return errors.Join(Close(m.old), Close(m.new)) }

// Load returns the record, from whichever store has it, or an error that matches
// [ErrNotFound] or [ErrCorrupt], as Store says.
func (m *Migrating) Load(ctx context.Context, id ID) (Record, error) {
	p, err := m.look(ctx, id)
	if err != nil {
		return Record{}, err
	}
	rec, found := p.record()
	if !found {
		return rec, opError("load", id, ErrNotFound)
	}
	return rec, nil
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

// Save replaces the record, and moves it by that unless this process holds.
func (m *Migrating) Save(ctx context.Context, rec Record, prev Version) error {
	r := recordOf(rec)
	if err := r.Check(); err != nil {
		return opError("save", rec.ID, err)
	}
	if prev != 0 { // most have moved
		if err := m.new.Save(ctx, rec, prev); !raced(err) {
			return err
		}
	}
	for range movingTries {
		p, err := m.look(ctx, rec.ID)
		if err != nil {
			return err
		}
		if done, err := m.save(ctx, p, rec, prev); done || err != nil && !raced(err) {
			return err
		}
	}
	return opError("save", rec.ID, ErrConflict) // others were faster each time
}

// save takes the next step of a Save of what is in the two stores, and reports whether the
// outcome is known: others may have taken another step meanwhile.
func (m *Migrating) save(ctx context.Context, p pair, rec Record, prev Version) (done bool, err error) {
	there, found := p.record()
	write, err := record.Admit(found, uint64(there.Version), uint64(rec.Version), uint64(prev))
	switch {
	case err != nil:
		return true, opError("save", rec.ID, err)
	case !write && !p.named(): // it landed before
		return true, nil
	case p.named(), p.ready() && !m.hold.Load():
		return false, m.advance(ctx, p)
	case p.new.kind == alive, p.old.kind == moved:
		err = m.new.Save(ctx, rec, p.new.stored)
	case m.hold.Load():
		err = m.old.Save(ctx, rec, p.old.stored)
	default:
		err = m.replace(ctx, p, rec)
	}
	return err == nil, err
}

// Delete removes the record. One that has not moved leaves a marker in the old store, so
// that no process that moves it brings it back.
func (m *Migrating) Delete(ctx context.Context, id ID) error {
	for {
		p, err := m.look(ctx, id)
		switch {
		case errors.Is(err, ErrCorrupt):
			return errors.Join(m.new.Delete(ctx, id), m.old.Delete(ctx, id))
		case err != nil:
			return err
		case p.new.kind == alive, p.named():
			return m.new.Delete(ctx, id)
		case p.old.kind != alive:
			return nil
		}
		if err := m.finish(ctx, p.old.Record, p.old); !raced(err) {
			return err
		}
	}
}

// Touch notes an access, wherever the record is. One beside its move may be lost. The error
// matches [errors.ErrUnsupported] if that store has no Touch.
func (m *Migrating) Touch(ctx context.Context, id ID, accessed, expires time.Time) error {
	p, err := m.look(ctx, id)
	switch {
	case err != nil:
		return err
	case p.new.kind == alive:
		return touch(ctx, m.new, id, accessed, expires)
	case p.old.kind == alive:
		return touch(ctx, m.old, id, accessed, expires)
	}
	return nil
}

// DeleteOld sweeps both stores, and returns how many records that were, the old store's
// markers included. The error matches [errors.ErrUnsupported] if one of them has no
// DeleteOld; the other is swept all the same.
func (m *Migrating) DeleteOld(ctx context.Context, age time.Duration) (int, error) {
	n, oldErr := deleteOld(ctx, m.old, age)
	more, err := deleteOld(ctx, m.new, age)
	return n + more, errors.Join(oldErr, err)
}

// Iter lists the records of both stores. It keeps the IDs of those in the old one in
// memory, so that none that moves meanwhile is seen twice. It yields an error that matches
// [errors.ErrUnsupported] if one of them has no Iter.
func (m *Migrating) Iter(ctx context.Context) iter.Seq2[Record, error] {
	return m.both(ctx, iterAll(ctx, m.old), iterAll(ctx, m.new))
}

// IterUser lists the user's records in both stores. It yields an error that matches
// [errors.ErrUnsupported] if one of them has no index of users.
func (m *Migrating) IterUser(ctx context.Context, user string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		old, next, err := m.userStores()
		if err != nil {
			yield(Record{}, err)
			return
		}
		for rec, err := range m.both(ctx, old.IterUser(ctx, user), next.IterUser(ctx, user)) {
			if err == nil && rec.User != user { // it has changed while it moved
				continue
			}
			if !yield(rec, err) {
				return
			}
		}
	}
}

func (m *Migrating) userStores() (old, next UserStore, err error) {
	old, ok1 := m.old.(UserStore)
	next, ok2 := m.new.(UserStore)
	if !ok1 || !ok2 {
		err = fmt.Errorf("session2: index of users: %w", errors.ErrUnsupported)
	}
	return old, next, err
}

// both lists the old store's records and then the new one's: a record moves in that
// direction only.
func (m *Migrating) both(ctx context.Context, old, next iter.Seq2[Record, error]) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		seen := make(map[ID]bool)
		for h, err := range halves(old) {
			rec := h.Record
			if err == nil && h.kind == moved { // between two steps
				if rec, err = m.Load(ctx, h.ID); errors.Is(err, ErrNotFound) {
					continue
				}
				rec.ID = h.ID
			}
			seen[rec.ID] = true
			if !yield(rec, err) || err != nil && !errors.Is(err, ErrCorrupt) {
				return
			}
		}
		for h, err := range halves(next) {
			if err == nil && (h.kind != alive || seen[h.ID]) {
				continue
			}
			if !yield(h.Record, err) {
				return
			}
		}
	}
}

// DeleteUser removes the user's records from both stores, and returns their number. The
// error matches [errors.ErrUnsupported] if one of them has no index of users.
func (m *Migrating) DeleteUser(ctx context.Context, user string, keep ...ID) (n int, err error) {
	old, next, err := m.userStores()
	if err != nil {
		return 0, err
	}
	for rec, err := range old.IterUser(ctx, user) {
		switch {
		case errors.Is(err, ErrCorrupt), err == nil && slices.Contains(keep, rec.ID):
			continue
		case err != nil:
			return n, err
		}
		ended, err := m.endOf(ctx, rec.ID, user)
		if err != nil {
			return n, err
		}
		if ended {
			n++
		}
	}
	more, err := next.DeleteUser(ctx, user, keep...)
	return n + more, err
}
