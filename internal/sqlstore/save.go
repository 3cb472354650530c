package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
)

// Outcome is what became of a Save.
type Outcome struct {
	Written bool
	Lost    bool  // an answer was lost: an earlier attempt may have been written
	Found   bool  // if it was not written: whether there is a record,
	Version int64 // and its version
}

// Save writes the record over the version prev, or creates it if prev is zero.
// One statement decides and writes; only if it wrote nothing does another one
// look why.
func (s *Store) Save(ctx context.Context, r Record, prev int64) (Outcome, error) {
	data := s.own(r.Data)
	var lost bool
	return call(ctx, s, func(ctx context.Context) (o Outcome, err error) {
		if r.Version != prev { // else it is written already, or is not to be
			o.Written, err = s.write(ctx, r, data, prev, &lost)
		}
		o.Lost = lost
		if err != nil || o.Written {
			return o, err
		}
		o.Found, o.Version, err = s.version(ctx, r.ID)
		switch {
		case err != nil:
			return o, err
		case o.writable(r.Version, prev):
			return o, errMoved
		case o.Found && o.Version == r.Version:
			return o, s.confirm(ctx, r)
		}
		return o, nil
	})
}

// confirm makes sure that what an earlier attempt wrote is as safe as what was
// acknowledged, in a database that shows it before.
func (s *Store) confirm(ctx context.Context, r Record) error {
	if s.q.Confirm == "" {
		return nil
	}
	n, err := s.execOnce(ctx, s.q.Confirm, s.args(r.ID[:], r.Version))
	if err == nil && n == 0 {
		return errMoved
	}
	return err
}

// writable reports whether what was found could be written over after all.
// That is so where the record changed between the two statements, and where an
// attempt whose answer was lost did nothing.
func (o *Outcome) writable(next, prev int64) bool {
	if !o.Found || prev == 0 {
		return !o.Found && prev == 0
	}
	return o.Version == prev && o.Version != next
}

// write makes one attempt, and reports in lost that there may have been one
// more whose answer was lost.
func (s *Store) write(ctx context.Context, r Record, data any, prev int64, lost *bool) (bool, error) {
	version := &counted{v: r.Version}
	user := []byte(r.User)
	var n int64
	var err error
	if prev == 0 {
		n, err = s.execOnce(ctx, s.q.Insert, s.args(r.ID[:], version, user, r.Created, r.Accessed, r.Expires, data, r.Accessed, r.Expires))
	} else {
		n, err = s.execOnce(ctx, s.q.Update, s.args(version, user, r.Created, r.Accessed, r.Expires, data, r.Accessed, r.Expires, r.ID[:], prev))
	}
	fault := s.fault(err)
	if version.calls > 0 && fault == Broken || version.calls > 1 && !s.opts.NoPrepare {
		*lost = true
	}
	if fault == Duplicate {
		return false, nil
	}
	return n > 0, err
}

func (s *Store) version(ctx context.Context, id [16]byte) (found bool, version int64, err error) {
	list, err := queryOnce(ctx, s, s.q.Version, s.args(id[:]), func(rows *sql.Rows, v *int64) error {
		return rows.Scan(v)
	})
	if len(list) == 0 {
		return false, 0, err
	}
	return true, list[0], err
}

// counted is an argument that counts how often it is handed to a driver. For a
// prepared statement that is once, unless database/sql tried again by itself on
// another connection; it does so where the driver answered ErrBadConn, which
// lib/pq does even after the server may have carried out the statement.
type counted struct {
	v     int64
	calls int
}

// Value implements [driver.Valuer].
func (c *counted) Value() (driver.Value, error) {
	c.calls++
	return c.v, nil
}
