package sqlstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/session2/session2/internal/record"
)

// saved is what became of a Save.
type saved struct {
	written bool
	lost    bool   // an answer was lost: an earlier attempt may have been written
	found   bool   // if it was not written: whether there is a record,
	version uint64 // and its version
}

// Save writes the record over the version prev, or creates it if prev is zero.
// One statement decides and writes; only if it wrote nothing does another one
// look why. Nothing was found and nothing written where a create's answer was
// lost: it may have landed and been deleted since, and must not come back.
func (s *Store) Save(ctx context.Context, r record.Record, prev uint64) error {
	if len(r.User) > maxUser {
		return fmt.Errorf("%w: the user's name exceeds %d bytes", record.ErrTooLarge, maxUser)
	}
	w := &saving{s: s, r: r, data: s.arg(r.Data), prev: prev}
	o, err := quick(ctx, s, w.attempt, w.own)
	switch {
	case err != nil && o.lost:
		return unheard(err)
	case err != nil && !errors.Is(err, errSilent): // else o is none of an attempt's
		return Mark(err, record.ErrNotDone)
	case err != nil || o.written:
		return err
	}
	write, err := record.Admit(o.found, o.version, r.Version, prev)
	switch {
	case o.lost && (write || errors.Is(err, record.ErrConflict)): // a create that is not there may have been
		return record.ErrUncertain
	case o.lost && err != nil:
		return record.Uncertain(err) // written, and deleted since; or deleted
	}
	return err
}

// saving is one Save, over all its attempts.
type saving struct {
	s    *Store
	r    record.Record
	data any
	prev uint64

	lost  bool // as saved's
	taken int  // how often a key was taken, and no record had it
}

// own has the data be the saving's own: the caller's are the caller's again once it has given up.
func (w *saving) own() {
	if b, ok := w.data.([]byte); ok {
		w.data = bytes.Clone(b)
	}
}

func (w *saving) attempt(ctx context.Context, here bool) (o saved, err error) {
	var taken error
	once := w.lost && w.prev == 0
	if w.r.Version != w.prev && !once { // else it is written already, or is not to be
		o.written, taken, err = w.write(ctx, here)
	}
	o.lost = w.lost
	if err != nil || o.written {
		return o, err
	}
	o.found, o.version, err = w.s.version(ctx, w.r.ID, here)
	switch {
	case err != nil:
		return o, err
	case !o.found && taken != nil && w.taken > attempts:
		return o, taken // by another constraint than the primary key
	case w.writable(o):
		return o, errMoved
	case o.found && o.version == w.r.Version:
		return o, w.confirm(ctx, here)
	}
	return o, nil
}

// confirm makes sure that what an earlier attempt wrote is as safe as what was
// acknowledged, in a database that shows it before.
func (w *saving) confirm(ctx context.Context, here bool) error {
	if w.s.q.Confirm == "" {
		return nil
	}
	done, err := w.s.execOnce(ctx, w.s.q.Confirm, w.s.named(w.r.ID[:], int64(w.r.Version)), false, here)
	if err == nil && done.rows == 0 {
		return errMoved
	}
	return err
}

// writable reports whether what was found could be written over after all.
// That is so where the record changed between the two statements, and where an
// attempt whose answer was lost did nothing.
func (w *saving) writable(o saved) bool {
	if !o.found || w.prev == 0 {
		return !o.found && w.prev == 0 && !w.lost
	}
	return o.version == w.prev && o.version != w.r.Version
}

// none are no bytes, as an argument.
var none any = []byte{}

// write makes one attempt. taken is not nil if a create found its key taken.
func (w *saving) write(ctx context.Context, here bool) (done bool, taken, err error) {
	s, r := w.s, &w.r
	// Each becomes a piece of memory of its own: those that come twice are made once.
	version, accessed, expires, id := any(int64(r.Version)), any(r.Accessed), any(r.Expires), any(r.ID[:])
	create, created := w.prev == 0, accessed
	if r.Created != r.Accessed {
		created = r.Created
	}
	user := none
	if r.User != "" {
		user = []byte(r.User)
	}
	list := append(make([]any, 0, 10), version, user, created, accessed, expires, w.data)
	if !s.repeats {
		list = append(list, accessed, expires)
	}
	var out written
	if create {
		out, err = s.execOnce(ctx, s.q.Insert, s.named(append(list, id)...), true, here)
	} else {
		out, err = s.execOnce(ctx, s.q.Update, s.named(append(list, id, int64(w.prev))...), false, here)
	}
	w.lost = w.lost || out.lost
	if create && s.fault(err) == Duplicate {
		w.taken++
		return false, err, nil
	}
	return out.rows > 0, nil, err
}

func (s *Store) version(ctx context.Context, id [16]byte, here bool) (found bool, version uint64, err error) {
	f, err := s.look(s.q.Version, id, 1).once(ctx, here)
	return f.ok, f.r.Version, err
}
