// Package sqlstore is the back end that the SQL stores share: it runs their
// finished queries, one round trip a call where nothing goes wrong, and asks again
// where that is safe.
package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/session2/session2/internal/record"
	"github.com/session2/session2/internal/tally"
)

const (
	// BatchIDs is the number of IDs that the queries of a sweep return at most,
	// and that those with a list of IDs take, always.
	BatchIDs = 100

	// ManyIDs is that number for the queries about a user who has many sessions.
	ManyIDs = 1000

	maxUser = 1024 // bytes: what an index can hold in every database
)

// A Sweep is the queries that find and delete what is old by one time.
//
// The indexed column is lazy: it holds that time or an earlier one. Touches and
// saves leave it where it is unless the time moves back, so that they write no
// index; a sweep that meets a row filed too early files it anew. Whatever the
// index says, the row's own time decides, in the statement that deletes.
type Sweep struct {
	Find   string   // from, id, from, to: (id, filed, time) of rows filed behind (from, id), up to to
	Delete Skipping // the IDs, to: deletes those whose time is at or before to
	Refile Skipping // the IDs: files rows at their times, both: the other one is due about then
}

// Skipping is a statement in two forms with the same arguments: one that passes
// over rows which others have locked, and one for servers that do not know how
// and wait.
type Skipping struct{ Skip, Wait string }

// Queries are the statements of one store. Beside each are its arguments, in
// their order; every argument appears once, but in Insert and Update where dialect.repeats.
type Queries struct {
	Load       string // id: version, user, created, accessed, expires, data
	Has        string // id: 1
	Version    string // id: version
	Insert     string // version, user, created, accessed, expires, data, accessed, expires, id
	Update     string // those, prev
	Confirm    string // id, version: commits again, unchanged, what is there; "" where nobody sees it before it is safe
	Barrier    string // a text: commits behind all that can be seen by now; "" likewise
	Delete     string // id
	Touch      string // accessed, expires, id, accessed, expires
	Page       List   // from: id and the columns of Load, from that id on
	UserPage   List   // user, from: likewise
	UserIDs    string // user, from: id, ManyIDs of them at most
	DeleteUser string // the IDs, user
	DeleteMany string // ManyIDs IDs, user
	Accessed   Sweep
	Expires    Sweep
}

// dialect is what the stores of one kind of database have of their own.
type dialect struct {
	q       Queries
	schema  Schema
	meaning func(error) Fault // tells the database's errors apart
	bytes   func([]byte) any  // the argument for bytes, which shares no memory with them; nil: they themselves
	repeats bool              // a statement names an argument wherever it wants it, and has it once

	// inline puts arguments into the text of a statement. It is nil where no server
	// runs out of prepared statements.
	inline func(query string, args []any) (string, error)
}

// Store runs the queries. Goroutines may share it.
type Store struct {
	dialect
	db      *sql.DB
	opts    Options
	last    func() error // of Close; or nil
	closed  atomic.Bool
	waits   atomic.Bool  // the server knows no Skipping.Skip
	prompt  atomic.Bool  // the pool's connections are, by the latest that was used
	heard   atomic.Int64 // when the server has answered last, by began; 0: not yet
	conns   conns
	watches watches

	mu    sync.Mutex
	stmts map[string]*sql.Stmt // by query, each prepared when first used
}

// newStore returns a Store. It does not call the database.
func newStore(db *sql.DB, o Options, speak func(table []string) dialect) (*Store, error) {
	if db == nil {
		return nil, errors.New("a store needs a database, and this one is nil")
	}
	table, err := o.table()
	if err != nil {
		return nil, err
	}
	o.Timeout = o.Wait()
	return &Store{dialect: speak(table), db: db, opts: o, stmts: make(map[string]*sql.Stmt)}, nil
}

// OnClose has Close call last at its end. It comes before any other call.
func (s *Store) OnClose(last func() error) { s.last = last }

// Close closes the prepared statements, and then calls what OnClose was given, within
// the timeout. It may be called twice; later calls return [fs.ErrClosed].
func (s *Store) Close() error {
	s.closed.Store(true)
	s.mu.Lock()
	stmts := s.stmts
	s.stmts = nil
	s.mu.Unlock()
	_, err := timed(context.Background(), s, func(ctx context.Context) (struct{}, error) {
		errs := []error{s.conns.close(ctx, s.db)}
		for _, stmt := range stmts {
			errs = append(errs, stmt.Close()) // asks the server
		}
		if s.last != nil {
			errs = append(errs, s.last())
		}
		return struct{}{}, errors.Join(errs...)
	})
	return err
}

// Load reads a record.
func (s *Store) Load(ctx context.Context, id [16]byte) (record.Record, error) {
	f, err := quick(ctx, s, s.look(s.q.Load, id, 6).once, nil)
	if err == nil && !f.ok {
		err = record.ErrNotFound
	}
	if err != nil {
		return record.Record{}, err
	}
	f.r.ID = id
	return f.r, checkRow(&f.r)
}

// checkRow says what is wrong with a row.
func checkRow(r *record.Record) error {
	if r.Version == 0 {
		return record.Corrupt(errors.New("its version is zero"))
	}
	return nil
}

// Has reports whether there is a record.
func (s *Store) Has(ctx context.Context, id [16]byte) (bool, error) {
	f, err := quick(ctx, s, s.look(s.q.Has, id, 1).once, nil)
	return f.ok, err
}

// Delete removes a record.
func (s *Store) Delete(ctx context.Context, id [16]byte) error {
	return s.change(ctx, s.q.Delete, s.named(id[:]))
}

// Touch moves a record's times forward.
func (s *Store) Touch(ctx context.Context, id [16]byte, to record.Access) error {
	accessed, expires := any(to.Accessed), any(to.Expires)
	return s.change(ctx, s.q.Touch, s.named(accessed, expires, id[:], accessed, expires))
}

// Confirm waits until what can be seen by now is as safe as what was acknowledged, in a
// database that shows it before.
func (s *Store) Confirm(ctx context.Context) error {
	if s.q.Barrier == "" {
		return s.check(ctx)
	}
	_, err := s.exec(ctx, s.q.Barrier, s.named("session2"))
	if fault := s.fault(err); fault == Foreign || fault == Unknown { // it speaks as PostgreSQL does, and is none
		return nil
	}
	return err
}

// change runs a statement that may be run twice, and whose rows nobody counts. Where the
// first answer was lost, the second statement may have found nothing left to do.
func (s *Store) change(ctx context.Context, query string, args []driver.NamedValue) error {
	w, err := s.exec(ctx, query, args)
	if err == nil && w.lost {
		err = s.Confirm(ctx)
	}
	switch {
	case err == nil:
		return nil
	case w.lost:
		return unheard(err)
	}
	return Mark(err, record.ErrNotDone)
}

// DeleteUser removes the records of one user but those to keep, in batches, and
// returns their number. Where an answer was lost it goes on if it can, and says at
// the end that the number may be too small.
func (s *Store) DeleteUser(ctx context.Context, user string, keep ...[16]byte) (total int, err error) {
	if user == "" {
		return 0, s.check(ctx)
	}
	kept := make(map[[16]byte]bool, len(keep))
	for _, id := range keep {
		kept[id] = true
	}
	sure := true
	defer func() { err = uncounted(sure, err) }()
	for from, more := ([16]byte{}), true; more; {
		ids, err := query(ctx, s, s.q.UserIDs, s.args([]byte(user), from[:]), func(rows *sql.Rows, id *[16]byte) error {
			return rows.Scan(idOf(id))
		})
		if err != nil {
			return total, err
		}
		if len(ids) == 0 {
			break
		}
		from, more = Next(ids[len(ids)-1])
		more = more && len(ids) == ManyIDs
		if ids = slices.DeleteFunc(ids, func(id [16]byte) bool { return kept[id] }); len(ids) == 0 {
			continue
		}
		w, err := s.deleteIDs(ctx, user, ids)
		total += w.rows
		tally.Add(ctx, w.rows)
		sure = sure && w.exact(len(ids), err)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func (s *Store) deleteIDs(ctx context.Context, user string, ids [][16]byte) (written, error) {
	q, size := s.q.DeleteUser, BatchIDs
	if len(ids) > BatchIDs {
		q, size = s.q.DeleteMany, ManyIDs
	}
	return s.exec(ctx, q, s.named(append(batch(ids, size), []byte(user))...))
}

// args makes arguments of a list. Drivers take a nil slice for NULL, which no
// column of ours takes, so there must be none.
func (s *Store) args(list ...any) []any {
	for i, v := range list {
		list[i] = s.arg(v)
	}
	return list
}

// named makes arguments as drivers take them. Ours are of types that every driver knows.
func (s *Store) named(list ...any) []driver.NamedValue {
	args := make([]driver.NamedValue, len(list))
	for i, v := range list {
		args[i] = driver.NamedValue{Ordinal: i + 1, Value: s.arg(v)}
	}
	return args
}

func (s *Store) arg(v any) any {
	switch b, ok := v.([]byte); {
	case ok && s.bytes != nil:
		return s.bytes(b)
	case ok && b == nil:
		return none
	}
	return v
}

// batch returns exactly size arguments, in order, so that concurrent batches
// lock rows in one order; what is left over repeats the last ID.
func batch(ids [][16]byte, size int) []any {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b [16]byte) int { return slices.Compare(a[:], b[:]) })
	list := make([]any, size, size+1)
	for i := range list {
		list[i] = ids[min(i, len(ids)-1)][:]
	}
	return list
}

// check returns why no call can be made.
func (s *Store) check(ctx context.Context) error {
	if s.closed.Load() {
		return fs.ErrClosed
	}
	return ctx.Err()
}
