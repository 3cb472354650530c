package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/session2/session2"
)

// Load returns the record, or an error matching [session2.ErrNotFound], or
// [session2.ErrCorrupt] if its version is zero. The caller owns its Data.
func (s *Store) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	rec, err := s.load(ctx, id)
	return rec, failedFor("load", id, err)
}

func (s *Store) load(ctx context.Context, id session2.ID) (session2.Record, error) {
	return call(ctx, s, func(ctx context.Context) (session2.Record, error) {
		rec, err := scan(s.db.QueryRowContext(ctx, s.q.load, id[:]))
		if errors.Is(err, sql.ErrNoRows) {
			err = session2.ErrNotFound
		}
		return rec, err
	})
}

// errVersion is for a record that nothing could be compared with.
var errVersion = fmt.Errorf("%w: its version is zero", session2.ErrCorrupt)

// scan reads the columns of a record. With ErrCorrupt it returns the ID alone.
func scan(row interface{ Scan(...any) error }) (rec session2.Record, err error) {
	var id, user []byte
	var version, created, accessed, expires int64
	if err := row.Scan(&id, &version, &user, &created, &accessed, &expires, &rec.Data); err != nil {
		return session2.Record{}, err
	}
	copy(rec.ID[:], id)
	if version == 0 {
		return session2.Record{ID: rec.ID}, errVersion
	}
	rec.Version, rec.User = session2.Version(version), string(user)
	rec.Created = time.UnixMicro(created).UTC()
	rec.Accessed = time.UnixMicro(accessed).UTC()
	rec.Expires = time.UnixMicro(expires).UTC()
	return rec, nil
}

// Has reports whether there is a record, without reading it.
func (s *Store) Has(ctx context.Context, id session2.ID) (bool, error) {
	found, err := call(ctx, s, func(ctx context.Context) (bool, error) {
		_, found, err := s.one(ctx, s.q.has, id)
		return found, err
	})
	return found, failedFor("has", id, err)
}

// one runs a query about one record, whose answer is a number, or no row.
func (s *Store) one(ctx context.Context, query string, id session2.ID) (n int64, found bool, err error) {
	err = s.db.QueryRowContext(ctx, query, id[:]).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, false, nil
	}
	return n, err == nil, err
}

// Save replaces the record if its version is still prev, or creates it for a zero prev, as
// [session2.Store] says. It keeps no reference to the Data. One statement decides and
// writes; only if it wrote nothing does another one look why.
func (s *Store) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	if rec.Version == 0 {
		return failedFor("save", rec.ID, errors.New("a stored record's version is never zero"))
	}
	args := []any{
		rec.ID[:], int64(rec.Version), []byte(rec.User),
		rec.Created.UnixMicro(), rec.Accessed.UnixMicro(), rec.Expires.UnixMicro(),
		append([]byte{}, rec.Data...), // not nil, which drivers take for NULL
	}
	_, err := call(ctx, s, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.save(ctx, args, rec.ID, rec.Version, prev)
	})
	return failedFor("save", rec.ID, err)
}

// save tries until what it finds is a reason not to write. It tries again where the
// record changed between two statements, and where a time has moved back.
func (s *Store) save(ctx context.Context, args []any, id session2.ID, next, prev session2.Version) error {
	query := s.q.insert
	if prev != 0 {
		query, args = s.q.update, append(args, int64(prev))
	}
	for {
		if next != prev { // else it is written already, or is not to be
			if n, err := s.exec(ctx, query, args...); err != nil || n > 0 {
				return err
			}
		}
		stored, found, err := s.one(ctx, s.q.version, id)
		if err != nil {
			return err
		}
		if again, err := admit(found, session2.Version(stored), next, prev); !again {
			return err
		}
		if prev != 0 {
			query = s.q.updateBack
		}
	}
}

// admit decides a Save that wrote nothing from what is stored: whether to try again, and
// if not, what it returns.
func admit(found bool, stored, next, prev session2.Version) (again bool, err error) {
	switch {
	case found && stored == 0:
		return false, errVersion
	case found && stored == next:
		return false, nil
	case found && stored != prev: // for a zero prev, too: there must be no record
		return false, session2.ErrConflict
	case !found && prev != 0:
		return false, session2.ErrNotFound
	}
	return true, nil
}

// Delete removes the record, whatever its version. An absent one is no error.
func (s *Store) Delete(ctx context.Context, id session2.ID) error {
	_, err := s.change(ctx, s.q.remove, id[:])
	return failedFor("delete", id, err)
}

// Touch moves Accessed and Expires forward, each by itself and never back. An absent
// record is no error.
func (s *Store) Touch(ctx context.Context, id session2.ID, accessed, expires time.Time) error {
	_, err := s.change(ctx, s.q.touch, id[:], accessed.UnixMicro(), expires.UnixMicro())
	return failedFor("touch", id, err)
}
