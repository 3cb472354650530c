package session2

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/session2/session2/internal/realm"
	"github.com/session2/session2/internal/record"
)

// A session moves in three steps. Its record is prepared in the new store: it is written
// there inside a marker, which counts for nothing yet. A conditional Save in the old store
// then puts a marker in the record's place that names the prepared one: in that moment it
// has moved. At last the prepared record becomes one like any other, and the old store's
// marker says that the move is done. A session is created in the same steps, from nothing,
// and one that has not moved ends by a marker that names nothing.
//
// So each step is one conditional Save, and whoever finds a session between two steps can
// take the next. A process that stood still and goes on fails at its next step, or prepares
// what is never named, for the old store's marker outlives the session.

// A marker is a record of nobody's session, in a realm that no manager opens, so that one
// that is left behind is no corrupt record. It holds the version of what it names, and then
// the whole record that is prepared, or that the move is done.
var (
	preparedMark, _ = encodeData(&state{realm: realm.Prepared})
	movedMark, _    = encodeData(&state{realm: realm.Moved})
)

const done = "done"

// markedFor is for how long a marker stays after its session's end.
const markedFor = 7 * 24 * time.Hour

// kind is what a store has of a session.
type kind int

const (
	none     kind = iota // or a marker that means nothing in this store
	alive                // the record
	prepared             // new store: what it holds takes the place of what the old one has
	moved                // old store: the new one decides, by what is prepared as it names
)

// half is what one of the stores has of a session.
type half struct {
	kind
	stored Version // 0: no record at all
	Record         // if it is alive or prepared
	names  Version // prepared: what it replaces in the old store; moved: what was prepared
	done   bool    // moved: by all steps
}

// pair is what both stores have of a session. What is alive in the new store decides: the
// old one was not asked then.
type pair struct{ old, new half }

// ready reports whether the prepared record can take the place of what the old store has.
func (p *pair) ready() bool {
	return p.new.kind == prepared && p.old.kind != moved && p.new.names == p.old.stored
}

// named reports whether the prepared record has done so.
func (p *pair) named() bool {
	return p.new.kind == prepared && p.old.kind == moved && p.old.names == p.new.stored
}

// record returns the session's record, if there is one.
func (p *pair) record() (rec Record, found bool) {
	switch {
	case p.new.kind == alive || p.named():
		return p.new.Record, true
	case p.old.kind == alive:
		return p.old.Record, true
	}
	return Record{}, false
}

// look finds out what both stores have.
func (m *Migrating) look(ctx context.Context, id ID) (p pair, err error) {
	if p.new, err = halfOf(ctx, m.new, id, prepared); err != nil || p.new.kind == alive {
		return p, err
	}
	p.old, err = halfOf(ctx, m.old, id, moved)
	if err == nil && p.old.kind == moved && !p.named() { // it may have moved since the first look
		p.new, err = halfOf(ctx, m.new, id, prepared)
	}
	return p, err
}

// halfOf loads what a store has, in which markers are of one kind.
func halfOf(ctx context.Context, store Store, id ID, markers kind) (half, error) {
	rec, err := store.Load(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return half{}, nil
	case err != nil:
		return half{}, err
	}
	h, err := halfFrom(rec)
	if err == nil && h.kind != alive && h.kind != markers { // of a move in the other direction, before
		h.kind = none
	}
	return h, err
}

// halfFrom reads a record that may be a marker.
func halfFrom(rec Record) (half, error) {
	h := half{kind: alive, stored: rec.Version, Record: rec}
	switch {
	case bytes.HasPrefix(rec.Data, preparedMark):
		h.kind = prepared
	case bytes.HasPrefix(rec.Data, movedMark):
		h.kind = moved
	default:
		return h, nil
	}
	var st state
	if err := decodeData(&st, rec.Data); err != nil || len(st.agent) < 8 {
		return h, opError("load", rec.ID, ErrCorrupt)
	}
	content := []byte(st.agent)
	h.names, h.done = Version(binary.BigEndian.Uint64(content)), string(content[8:]) == done
	if h.kind == prepared {
		whole, err := record.Decode(content[8:])
		if err != nil {
			return h, opError("load", rec.ID, fmt.Errorf("%w: %w", ErrCorrupt, err))
		}
		h.Record = recordFrom(&whole)
	}
	return h, nil
}

// newMarker returns a marker for the session of rec that outlives it.
func newMarker(rec Record, within string, names Version, held string) Record {
	content := append(binary.BigEndian.AppendUint64(nil, uint64(names)), held...)
	data, _ := encodeData(&state{realm: within, agent: string(content)})
	ends := time.Now()
	for _, t := range []time.Time{rec.Accessed, rec.Expires} {
		if t.After(ends) {
			ends = t
		}
	}
	ends = ends.Add(markedFor)
	return Record{ID: rec.ID, Version: newVersion(), Created: rec.Created, Accessed: ends, Expires: ends, Data: data}
}

// raced reports whether others were faster.
func raced(err error) bool { return errors.Is(err, ErrConflict) || errors.Is(err, ErrNotFound) }

// movingTries bounds how often a call begins again since others were faster. A record moves
// once, and may be changed a few times before.
const movingTries = 8

// replace has next take the place of what the old store has, in the new one.
func (m *Migrating) replace(ctx context.Context, p pair, next Record) error {
	r := recordOf(next)
	held, err := record.Append(nil, &r)
	if err != nil {
		return opError("save", next.ID, err)
	}
	ready := newMarker(next, realm.Prepared, p.old.stored, string(held))
	if err := m.new.Save(ctx, ready, p.new.stored); err != nil {
		return err
	}
	err = m.checked(ctx, p, half{kind: prepared, stored: ready.Version, Record: next, names: p.old.stored})
	if raced(err) && p.old.stored == 0 {
		// Once the old store has nothing again, it would be ready again.
		void := newMarker(next, realm.Prepared, ready.Version, string(held))
		if m.new.Save(ctx, void, ready.Version) != nil {
			return opError("save", next.ID, ErrUncertain)
		}
	}
	if err != nil && !raced(err) { // somebody else may take the next step
		err = opError("save", next.ID, record.Uncertain(err))
	}
	return err
}

// checked takes the other steps once it has read what is prepared.
func (m *Migrating) checked(ctx context.Context, p pair, ready half) (err error) {
	if p.new, err = halfOf(ctx, m.new, ready.ID, prepared); err != nil {
		return err
	}
	if p.new.stored != ready.stored {
		return m.outcome(ctx, ready, opError("save", ready.ID, ErrConflict))
	}
	return m.advance(ctx, p)
}

// advance takes the steps that are left once a record is prepared.
func (m *Migrating) advance(ctx context.Context, p pair) error {
	if !p.named() {
		named := newMarker(p.new.Record, realm.Moved, p.new.stored, "")
		named.User = p.new.User // for DeleteUser to find what is between two steps
		err := m.old.Save(ctx, named, p.old.stored)
		if raced(err) {
			return m.outcome(ctx, p.new, err)
		} else if err != nil {
			return err
		}
		p.old = half{kind: moved, stored: named.Version, names: p.new.stored}
	}
	if err := m.new.Save(ctx, p.new.Record, p.new.stored); err != nil && !raced(err) {
		return err
	}
	return m.finish(ctx, p.new.Record, p.old)
}

// outcome returns err, unless somebody else has taken the steps that are left of what was
// prepared.
func (m *Migrating) outcome(ctx context.Context, ready half, err error) error {
	old, loadErr := halfOf(ctx, m.old, ready.ID, moved)
	switch {
	case loadErr != nil:
		return loadErr
	case old.kind != moved || old.names != ready.stored:
		return err
	case !old.done:
		return m.advance(ctx, pair{old: old, new: ready})
	}
	return nil
}

// finish has the marker in the old store say that the move is done, or that what it is put in
// the place of is deleted.
func (m *Migrating) finish(ctx context.Context, rec Record, old half) error {
	err := m.old.Save(ctx, newMarker(rec, realm.Moved, old.names, done), old.stored)
	if old.kind == moved && raced(err) {
		return nil
	}
	return err
}

// settle moves what the old store has.
func (m *Migrating) settle(ctx context.Context, id ID) error {
	for range movingTries {
		p, err := m.look(ctx, id)
		switch {
		case err != nil:
			return err
		case p.named(), p.ready() && p.old.kind == alive:
			err = m.advance(ctx, p)
		case p.old.kind == alive:
			err = m.replace(ctx, p, p.old.Record)
		}
		if !raced(err) {
			return err
		}
	}
	return opError("move", id, ErrConflict)
}

// endOf deletes the record if it is the user's and in the old store, and reports whether it
// did. One that moves has moved when it returns.
func (m *Migrating) endOf(ctx context.Context, id ID, user string) (bool, error) {
	for range movingTries {
		p, err := m.look(ctx, id)
		switch {
		case err != nil:
			return false, err
		case p.named():
			err = m.advance(ctx, p)
		case p.old.kind != alive || p.old.User != user:
			return false, nil
		default:
			if err = m.finish(ctx, p.old.Record, p.old); err == nil {
				return true, nil
			}
		}
		if err != nil && !raced(err) {
			return false, err
		}
	}
	return false, opError("delete user", id, ErrUncertain)
}

// Copy moves all that is left in the old store, and returns how many records it moved. It
// calls progress, unless it is nil, after each of them with the number so far. A record
// that cannot be read stays, unless its store sets it aside as a FileStore does, and is in
// the error; the others are moved all the same. It fails at once with an error matching
// [errors.ErrUnsupported] if the old store cannot list its records. Several processes may
// run it, and it may be run again.
func (m *Migrating) Copy(ctx context.Context, progress func(moved int)) (moved int, err error) {
	var failures []error
	for h, err := range m.left(ctx) {
		if err == nil {
			err = m.copyOne(ctx, h)
		}
		switch {
		case errors.Is(err, ErrCorrupt) && len(failures) < maxFailures:
			failures = append(failures, err)
		case errors.Is(err, ErrCorrupt):
		case err != nil:
			return moved, err
		case h.kind == alive: // and not what others move or create
			if moved++; progress != nil {
				progress(moved)
			}
		}
	}
	return moved, errors.Join(failures...)
}

const maxFailures = 100

func (m *Migrating) copyOne(ctx context.Context, h half) error {
	if err := m.settle(ctx, h.ID); err != nil || h.kind == alive {
		return err
	}
	return m.finish(ctx, h.Record, h)
}

// Left returns how many records the old store has that have not moved, those that cannot be
// read included, and ends the moves that others have broken off. When it is 0 and no process
// holds any more, the new store is enough.
func (m *Migrating) Left(ctx context.Context) (n int, err error) {
	for h, err := range m.left(ctx) {
		if err == nil && h.kind == moved {
			if err = m.copyOne(ctx, h); err == nil {
				continue
			}
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			return n, err
		}
		n++
	}
	return n, nil
}

// left lists what the old store has that has not moved, or not by all steps.
func (m *Migrating) left(ctx context.Context) iter.Seq2[half, error] {
	return halves(iterAll(ctx, m.old))
}

// halves leaves out the markers of what is done, and of what is prepared.
func halves(records iter.Seq2[Record, error]) iter.Seq2[half, error] {
	return func(yield func(half, error) bool) {
		for rec, err := range records {
			h := half{Record: rec}
			if err == nil {
				h, err = halfFrom(rec)
			}
			if err == nil && (h.kind == prepared || h.done) {
				continue
			}
			if !yield(h, err) {
				return
			}
		}
	}
}
