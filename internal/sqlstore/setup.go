package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/session2/session2/internal/record"
)

// schemaVersion is that of the schema that this release makes and uses.
const schemaVersion int64 = 1

// Schema is what Setup makes, and how it knows that it is there.
type Schema struct {
	DDL     []string // each does nothing if its object is there; the first makes the table
	Current string   // the version that is there
	Note    string   // version: notes it, once everything is there

	Table   string  // its name, for people
	Writes  []Write // one of each kind, on all columns
	Facts   string  // what the catalogue tells of the table: see facts
	Unique  bool    // Facts tells what is unique; else an INSERT fails where the ID is not
	Key     string  // makes the primary key, for people
	Indexes []Index
	Many    string // how many records there are, as far as one more than manyRows

	// Autocommit returns whether statements commit by themselves. It is empty
	// where they always do.
	Autocommit string
}

// Write is a statement that changes nothing, and needs the right to change the table.
type Write struct{ Kind, Query string }

// ErrNoAutocommit says that what the store writes would be lost.
var ErrNoAutocommit = errors.New("autocommit is off, so that no statement would be committed")

// autocommits returns an error if statements do not commit by themselves.
func (s *Store) autocommits(ctx context.Context) error {
	if s.schema.Autocommit == "" {
		return nil
	}
	on, err := one[bool](ctx, s, s.schema.Autocommit)
	if err == nil && !on {
		err = ErrNoAutocommit
	}
	return err
}

// Schema returns the statements that Setup runs.
func (s *Store) Schema() []string {
	version := strconv.FormatInt(schemaVersion, 10)
	note := strings.NewReplacer("$1", version, "?", version).Replace(s.schema.Note)
	return append(slices.Clone(s.schema.DDL), note)
}

// Setup makes what is not there, and returns what would keep the store from
// working. Any number of processes may call it at once: where the database cannot
// keep them apart, all but one see that they came too late and look again. It needs
// no right to create anything if all is there.
func (s *Store) Setup(ctx context.Context) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	start := time.Now()
	var out wayOut
	var err error
	for i := range attempts {
		if err = s.setup(ctx); err == nil {
			return nil
		}
		late := s.opts.Timeout > 0 && time.Since(start) > s.opts.Timeout
		fault := s.fault(err)
		ended := ctx.Err()
		switch {
		case ended != nil:
			return endedBy(ended, err)
		case fault == ReadOnly && out.next(ctx, s.db):
		case fault != Duplicate && fault != Aborted && fault != Broken:
			return s.explain(err)
		case late:
			return err
		}
		if ended := wait(ctx, 4*pause<<min(i, 4)); ended != nil {
			return endedBy(ended, err)
		}
	}
	return fmt.Errorf("%w: %w", ErrTooMany, err)
}

func (s *Store) setup(ctx context.Context) error {
	if err := s.autocommits(ctx); err != nil {
		return err
	}
	missing, there, err := s.missing(ctx)
	if err != nil {
		return err
	}
	if missing != "" {
		if err := s.create(ctx, there); err != nil {
			return s.blame(err, missing)
		}
	}
	return s.ready(ctx)
}

// create makes what is not there, and notes the version. Where the table of sessions is there
// already, its indexes are left to ready, which knows whether it is large.
func (s *Store) create(ctx context.Context, there bool) error {
	for _, ddl := range s.schema.DDL {
		if there && slices.ContainsFunc(s.schema.Indexes, func(ix Index) bool { return ix.DDL == ddl }) {
			continue
		}
		if err := s.direct(ctx, ddl); err != nil {
			return err
		}
	}
	err := s.direct(ctx, s.schema.Note, schemaVersion)
	if s.fault(err) == Duplicate {
		return nil // another process noted it
	}
	return err
}

// readable reports whether the table is there. It returns [ErrForeign] where its
// columns are not.
func (s *Store) readable(ctx context.Context) (bool, error) {
	_, err := s.Load(ctx, [16]byte{})
	if errors.Is(err, record.ErrNotFound) || errors.Is(err, record.ErrCorrupt) {
		err = nil // there may be one or not
	}
	for _, q := range []Sweep{s.q.Accessed, s.q.Expires} {
		if err == nil {
			w := walk{store: s, q: q, to: math.MinInt64}
			_, err = w.find(ctx) // of none
		}
	}
	if s.fault(err) == Missing {
		return false, nil
	}
	return err == nil, err
}

// missing says what is not there, or nothing, and whether the table of sessions is. It refuses
// what a later release made.
func (s *Store) missing(ctx context.Context) (what string, there bool, err error) {
	if what, err = s.missingNote(ctx); err != nil {
		return "", false, err
	}
	there, err = s.readable(ctx) // it may have been dropped, and its note not
	if err == nil && !there {
		what = fmt.Sprintf("there is no table %s, and Setup may not make it", s.schema.Table)
	}
	return what, there, err
}

// missingNote says what is missing of the schema's version.
func (s *Store) missingNote(ctx context.Context) (string, error) {
	version, err := one[sql.NullInt64](ctx, s, s.schema.Current)
	switch {
	case s.closed.Load():
		return "", fs.ErrClosed
	case s.fault(err) == Missing:
		return fmt.Sprintf("there is no table %s_meta, with the version of %s, and Setup may not make it",
			s.schema.Table, s.schema.Table), nil
	case err != nil:
		return "", err
	case version.Int64 > schemaVersion:
		return "", fmt.Errorf("the tables have version %d, of a later release: this one knows %d",
			version.Int64, schemaVersion)
	case version.Int64 != schemaVersion:
		return fmt.Sprintf("the table %s_meta, with the version of %s, is empty, and Setup may not fill it",
			s.schema.Table, s.schema.Table), nil
	}
	return "", nil
}

// CheckSchema refuses what a later release made, and makes nothing.
func (s *Store) CheckSchema(ctx context.Context) error {
	_, err := call(ctx, s, s.missingNote)
	return err
}

// one runs a query whose answer is one value.
func one[T any](ctx context.Context, s *Store, query string) (T, error) {
	return timed(ctx, s, func(ctx context.Context) (v T, err error) {
		err = s.db.QueryRowContext(ctx, query).Scan(&v)
		return v, err
	})
}

// direct runs a statement that is needed once, and need not be prepared.
func (s *Store) direct(ctx context.Context, query string, args ...any) error {
	_, err := timed(ctx, s, func(ctx context.Context) (sql.Result, error) {
		res, err := s.db.ExecContext(ctx, query, args...)
		if s.inlines(err) && len(args) > 0 {
			if query, err = s.inline(query, args); err == nil {
				return s.db.ExecContext(ctx, query)
			}
		}
		return res, err
	})
	return err
}
