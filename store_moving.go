package session2

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// A session moves in three steps: its record in the old store is frozen, by a conditional
// Save of one that holds it; it is created in the new store; and it is removed from the
// old one. Whoever meets a frozen record can take the other steps, and all who do come to
// the same end: only one of them creates.
//
// A session is created likewise, in the old store first, where processes that hold create.
//
// A process may stand still before its second step for so long that the session is
// deleted meanwhile. A tombstone in the new store has it fail then. Nothing has it fail if
// a sweep has removed the record: it comes back as it was, and so is swept again.

const (
	frozenMark = "session2: moving" // before what a frozen record holds
	buriedFor  = 7 * 24 * time.Hour
)

// tombstone is the data of a tombstone: of a session in a realm of its own, which no manager
// opens, so that one that is left behind is no corrupt record.
var tombstone, _ = encodeData(&state{realm: "session2: deleted"})

var errDeleted = fmt.Errorf("%w: deleted", ErrNotFound)

// oldRecord is a record of the old store, as it is to be in the new one.
type oldRecord struct {
	Record
	frozen   bool
	replaces Version // of the tombstone that it is to replace in the new store, if any
}

func isFrozen(rec Record) bool {
	return bytes.HasPrefix(rec.Data, []byte(frozenMark)) && len(rec.Data) >= len(frozenMark)+2*8
}

func isTombstone(rec Record) bool { return bytes.Equal(rec.Data, tombstone) }

// freeze returns the record that holds old.
func freeze(old oldRecord) Record {
	data := binary.BigEndian.AppendUint64([]byte(frozenMark), uint64(old.Version))
	data = binary.BigEndian.AppendUint64(data, uint64(old.replaces))
	rec := old.Record
	rec.Data = append(data, rec.Data...)
	rec.Version = newVersion()
	return rec
}

// thaw is the inverse of freeze, and returns any other record as it is.
func thaw(rec Record) oldRecord {
	if !isFrozen(rec) {
		return oldRecord{Record: rec}
	}
	held := rec.Data[len(frozenMark):]
	rec.Version, rec.Data = Version(binary.BigEndian.Uint64(held)), held[2*8:]
	return oldRecord{Record: rec, frozen: true, replaces: Version(binary.BigEndian.Uint64(held[8:]))}
}

// loadOld loads from the old store.
func (m *Migrating) loadOld(ctx context.Context, id ID) (rec oldRecord, found bool, err error) {
	stored, err := m.old.Load(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return rec, false, nil
	}
	return thaw(stored), err == nil, err
}

// find returns the record, and whether it is in the old store. It looks in the new store
// once more at the end: a record that was in neither may have moved in between.
func (m *Migrating) find(ctx context.Context, id ID) (rec Record, inOld bool, err error) {
	for last := range 2 {
		rec, err = m.new.Load(ctx, id)
		if err == nil && isTombstone(rec) {
			return Record{}, false, opError("load", id, errDeleted)
		}
		if !errors.Is(err, ErrNotFound) || last == 1 {
			break
		}
		old, found, err := m.loadOld(ctx, id)
		if found || err != nil {
			return old.Record, true, err
		}
	}
	return rec, false, err
}

// move moves a record that is not frozen. ErrConflict or ErrNotFound says that it has
// changed meanwhile.
func (m *Migrating) move(ctx context.Context, rec oldRecord) error {
	if err := m.old.Save(ctx, freeze(rec), rec.Version); err != nil {
		return err
	}
	return m.finish(ctx, rec)
}

// finish takes the second and the third step. It removes nothing before it has read what
// it created.
func (m *Migrating) finish(ctx context.Context, rec oldRecord) error {
	err := m.new.Save(ctx, rec.Record, rec.replaces)
	if err != nil && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrNotFound) {
		return err
	} // else it has moved already, or was deleted
	there, err := m.new.Load(ctx, rec.ID)
	if err != nil && !errors.Is(err, ErrNotFound) { // deleted or swept since
		return err
	}
	if err == nil && there.Version == rec.Version && !sameRecord(there, rec.Record) {
		return opError("move", rec.ID, errors.New("the new store has not kept what it was given"))
	}
	return m.old.Delete(ctx, rec.ID)
}

// sameRecord compares all but what a Touch moves.
func sameRecord(a, b Record) bool {
	return a.User == b.User && microTime(a.Created) == microTime(b.Created) && bytes.Equal(a.Data, b.Data)
}

// create has a record begin: in the new store by way of the old one, or where this process
// holds in the old one alone.
func (m *Migrating) create(ctx context.Context, rec Record) error {
	for range movingTries {
		there, err := m.new.Load(ctx, rec.ID)
		switch {
		case err == nil && isTombstone(there), errors.Is(err, ErrNotFound):
		case err != nil:
			return err
		default:
			return begun(there, rec)
		}
		next := oldRecord{Record: rec, frozen: there.Version != 0 || !m.hold.Load(), replaces: there.Version}
		if err := m.begin(ctx, next); !errors.Is(err, errMoving) {
			return err
		}
	}
	return opError("save", rec.ID, ErrConflict)
}

// errMoving says that something is in the way that is on its way to the new store.
var errMoving = errors.New("record moves")

func (m *Migrating) begin(ctx context.Context, next oldRecord) error {
	stored := next.Record
	if next.frozen {
		stored = freeze(next)
	}
	err := m.old.Save(ctx, stored, 0)
	if errors.Is(err, ErrConflict) {
		old, found, err := m.loadOld(ctx, next.ID)
		switch {
		case err != nil:
			return err
		case !found:
			return errMoving
		case old.frozen:
			if err := m.finish(ctx, old); err != nil {
				return err
			}
			return errMoving
		}
		return begun(old.Record, next.Record)
	}
	if err != nil {
		return err
	}
	return m.confirm(ctx, next)
}

// confirm looks whether another record was created in the new store just before this one
// was in the old one, and was first.
func (m *Migrating) confirm(ctx context.Context, next oldRecord) error {
	there, err := m.new.Load(ctx, next.ID)
	free := errors.Is(err, ErrNotFound) || err == nil && isTombstone(there)
	switch {
	case err != nil && !free:
		return err
	case next.frozen && free && there.Version == next.replaces:
		return m.finish(ctx, next)
	case free && !next.frozen, there.Version == next.Version:
		return nil
	case !next.frozen:
		if old, found, err := m.loadOld(ctx, next.ID); err != nil || !found || old.frozen {
			return opError("save", next.ID, ErrUncertain) // it may have moved, and been changed since
		}
	}
	if err := m.old.Delete(ctx, next.ID); err != nil {
		return err
	}
	return errMoving
}

// begun is the outcome of creating what is there.
func begun(there, rec Record) error {
	if there.Version == rec.Version {
		return nil
	}
	return opError("save", rec.ID, ErrConflict)
}

// bury puts a tombstone in the place of what the new store has, if anything.
func (m *Migrating) bury(ctx context.Context, id ID) error {
	for try := 1; ; try++ {
		there, err := m.new.Load(ctx, id)
		if err == nil && isTombstone(there) {
			return nil
		}
		if errors.Is(err, ErrCorrupt) || err == nil && try > movingTries {
			// It cannot be compared with, or others save it all the time.
			there, err = Record{}, m.new.Delete(ctx, id)
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		err = m.new.Save(ctx, newTombstone(id), there.Version)
		if !errors.Is(err, ErrConflict) && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
}

func newTombstone(id ID) Record {
	now, ends := time.Now(), time.Now().Add(buriedFor)
	return Record{ID: id, Version: newVersion(), Created: now, Accessed: ends, Expires: ends, Data: bytes.Clone(tombstone)}
}

// endOf deletes the record if it is the user's, and reports whether it did.
func (m *Migrating) endOf(ctx context.Context, id ID, user string) (bool, error) {
	for range movingTries {
		rec, inOld, err := m.find(ctx, id)
		if errors.Is(err, ErrNotFound) || err == nil && rec.User != user {
			return false, nil
		}
		if err == nil && inOld {
			err = m.settle(ctx, id)
		} else if err == nil {
			if err = m.new.Save(ctx, newTombstone(id), rec.Version); err == nil {
				return true, nil
			}
		}
		if err != nil && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrNotFound) {
			return false, err
		}
	}
	return false, opError("delete user", id, ErrUncertain)
}

// settle moves a record of the old store, so that it can be ended in the new one by its
// version.
func (m *Migrating) settle(ctx context.Context, id ID) error {
	rec, found, err := m.loadOld(ctx, id)
	switch {
	case err != nil || !found:
		return err
	case rec.frozen:
		return m.finish(ctx, rec)
	}
	return m.move(ctx, rec)
}

// Copy moves all that is left in the old store, and returns how many records it moved. It
// calls progress, unless it is nil, after each of them with the number so far. A record
// that cannot be read stays, and is in the error; the others are moved all the same. It
// fails at once with an error matching [errors.ErrUnsupported] if the old store cannot list
// its records. Several processes may run it, and it may be run again.
func (m *Migrating) Copy(ctx context.Context, progress func(moved int)) (moved int, err error) {
	var failures []error
	for rec, err := range iterAll(ctx, m.old) {
		if err == nil {
			err = m.copyOne(ctx, rec.ID)
		}
		switch {
		case errors.Is(err, ErrCorrupt) && len(failures) < maxFailures:
			failures = append(failures, err)
		case errors.Is(err, ErrCorrupt):
		case err != nil:
			return moved, err
		default:
			if moved++; progress != nil {
				progress(moved)
			}
		}
	}
	return moved, errors.Join(failures...)
}

const maxFailures = 100

func (m *Migrating) copyOne(ctx context.Context, id ID) error {
	for range movingTries {
		err := m.settle(ctx, id)
		if !errors.Is(err, ErrConflict) && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return opError("move", id, ErrConflict)
}

// Left returns how many records the old store has, those that cannot be read included.
// When it is 0 and no process holds any more, the new store is enough.
func (m *Migrating) Left(ctx context.Context) (n int, err error) {
	for _, err := range iterAll(ctx, m.old) {
		if err != nil && !errors.Is(err, ErrCorrupt) {
			return n, err
		}
		n++
	}
	return n, nil
}
