package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Index is one that lists and sweeps go by.
type Index struct {
	Name, Column string // of the index, and its first column
	DDL          string // makes the index
}

// manyRows is how many records a table may have in which Setup makes an index. In one of so
// many that takes a fraction of a second; in a larger one it would hold up what other processes
// write, again at each start if it does not end within the timeout.
const manyRows = 100_000

// ready returns what would keep the store from working on tables that are there: Setup is
// the check of readiness that an operator has. Where the server does not take such a
// statement, or has no such catalogue, that is not checked.
func (s *Store) ready(ctx context.Context) error {
	if err := s.writable(ctx); err != nil {
		return err
	}
	known, err := s.facts(ctx)
	if err != nil || !known.has("table") {
		return err
	}
	switch engine := known.first("engine"); {
	case engine != "":
		return s.unfit("has the engine %s, which has no transactions", engine)
	case s.schema.Unique && !known["key"]["id"]:
		return s.keyless()
	}
	return s.indexes(ctx, known)
}

// writable returns an error that names the kinds of statements that are refused.
func (s *Store) writable(ctx context.Context) error {
	var kinds []string
	var no error
	for _, w := range s.schema.Writes {
		err := s.direct(ctx, w.Query)
		switch fault := s.fault(err); {
		case err == nil, s.unsaid(err):
		case fault != Refused && fault != ReadOnly:
			return err
		default:
			kinds, no = append(kinds, w.Kind), err
		}
	}
	if no == nil {
		return nil
	}
	return fmt.Errorf("the database refuses the store every %s: %w", strings.Join(kinds, ", "), no)
}

// unfit is the error of a table that cannot be used as it is.
func (s *Store) unfit(format string, args ...any) error {
	return Mark(fmt.Errorf("the table %s "+format, append([]any{s.schema.Table}, args...)...), fs.ErrPermission)
}

// keyless is the error of a table whose primary key is gone.
func (s *Store) keyless() error {
	return s.unfit("has no primary key on id, which %s makes", s.schema.Key)
}

// blame says what a definite no was the answer to. Other errors stay as they are.
func (s *Store) blame(err error, what string) error {
	switch s.fault(err) {
	case Refused, ReadOnly, Unknown:
		return fmt.Errorf("%s: %w", what, err)
	}
	return err
}

// unsaid reports whether an error leaves open what a statement of ready was to find out.
func (s *Store) unsaid(err error) bool {
	switch s.fault(err) {
	case Unknown, Vague, Unprepared:
		return true
	case Failed:
		return !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled)
	}
	return false
}

// indexes makes the indexes that are missing, if the store may, and names those that it may not.
func (s *Store) indexes(ctx context.Context, known facts) error {
	for _, ix := range s.schema.Indexes {
		if known.index(ix) {
			continue
		}
		err := s.index(ctx, ix)
		switch fault := s.fault(err); {
		case err == nil:
		case fault == Duplicate, fault == Aborted, fault == Broken:
			return err // of another process at the same time, or to be tried again
		default:
			return fmt.Errorf("the table %s has no index on %s, which %s makes: %w",
				s.schema.Table, ix.Column, ix.DDL, err)
		}
	}
	return nil
}

// index makes an index in a table that is not large.
func (s *Store) index(ctx context.Context, ix Index) error {
	rows, err := one[int64](ctx, s, s.schema.Many)
	if err != nil {
		return err
	}
	if rows > manyRows {
		return Mark(fmt.Errorf("not done in more than %d records, as it would hold up writes", manyRows),
			fs.ErrPermission)
	}
	if err := s.direct(ctx, ix.DDL); err != nil {
		return err
	}
	known, err := s.facts(ctx)
	if err != nil || !known.has("table") || known.index(ix) {
		return err
	}
	return Mark(fmt.Errorf("another one has the name %s, or it is not valid", ix.Name), fs.ErrPermission)
}

// writes returns a statement of each kind that changes no row, and no other way than a store
// does. The ID is none that a record can have. insert is the end of the INSERT.
func writes(r *strings.Replacer, insert string) []Write {
	const columns = "id, version, username, created, accessed, expires, by_accessed, by_expires, data"
	var set []string
	for _, c := range strings.Split(columns, ", ")[1:] {
		set = append(set, c+" = "+c)
	}
	return []Write{
		{"INSERT", r.Replace("INSERT INTO {t} (" + columns + ") SELECT " + columns +
			" FROM {t} WHERE id = '' AND 1 = 0" + insert)},
		{"UPDATE", r.Replace("UPDATE {t} SET " + strings.Join(set, ", ") + " WHERE id = '' AND 1 = 0")},
		{"DELETE", r.Replace("DELETE FROM {t} WHERE id = '' AND 1 = 0")},
	}
}

// many is the query for how many records there are, as far as one more than manyRows.
func many(r *strings.Replacer) string {
	return r.Replace("SELECT COUNT(*) FROM (SELECT id FROM {t} LIMIT " + strconv.Itoa(manyRows+1) + ") AS some_of_them")
}

// facts are what a database's catalogue tells of the table, by kind: table, index (its name),
// first (an index's first column), key (the columns that are unique by themselves), and
// engine, if it has no transactions. All but that are in lower case: MySQL makes no
// difference. There are none where the catalogue does not tell.
type facts map[string]map[string]bool

func (f facts) has(kind string) bool { return len(f[kind]) > 0 }

func (f facts) first(kind string) string {
	for _, name := range slices.Sorted(maps.Keys(f[kind])) {
		return name
	}
	return ""
}

func (f facts) index(ix Index) bool {
	return f["index"][strings.ToLower(ix.Name)] || f["first"][ix.Column]
}

func (s *Store) facts(ctx context.Context) (facts, error) {
	known, err := timed(ctx, s, func(ctx context.Context) (facts, error) {
		rows, err := s.db.QueryContext(ctx, s.schema.Facts)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		return collect(rows)
	})
	switch s.fault(err) {
	case Missing, Foreign, Refused: // of the catalogue
		return nil, nil
	}
	if err != nil && s.unsaid(err) {
		return nil, nil
	}
	return known, err
}

func collect(rows *sql.Rows) (facts, error) {
	known := make(facts)
	for rows.Next() {
		var kind, name string
		if err := rows.Scan(&kind, &name); err != nil {
			return nil, err
		}
		if kind != "engine" {
			name = strings.ToLower(name)
		}
		if known[kind] == nil {
			known[kind] = make(map[string]bool)
		}
		known[kind][name] = true
	}
	return known, rows.Err()
}
