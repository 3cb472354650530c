// Package sqlite keeps sessions of [github.com/session2/session2] in a table of SQLite,
// over any driver of database/sql. It imports none itself: the program does, for example
// modernc.org/sqlite or github.com/mattn/go-sqlite3.
//
// [NewStore] uses the file and the pool of the application, [Open] a file of its own.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/session2/session2"
)

// Options are the options of [NewStore]. The zero value is the default.
type Options struct {
	// Table is the name of the table, by default session2_sessions. It is made of ASCII
	// letters, digits and underscores, has 100 characters at most, does not begin with
	// a digit or with sqlite_, and does not end in _meta, _user_idx, _accessed_idx or
	// _expires_idx. A second table, with _meta after its name, holds the version of the
	// schema, and the names of the indexes begin with the table's.
	Table string

	// Timeout bounds each statement, with its wait for a free connection and for the
	// lock that other writers hold. By default 5 seconds; negative: none but the
	// caller's context.
	Timeout time.Duration
}

// Store keeps records in a table of an SQLite file, one row a session. Goroutines and
// processes on one machine may share the file, also with tables that are not the
// store's. Load, Has, Save, Delete and Touch are one statement each, which commits by
// itself, so that no call holds a lock after it returns.
//
// SQLite has one writer at a time. A write of the store waits for the others' for as
// long as its context and Options.Timeout let it. In one store the writers take turns;
// between stores, processes and transactions of the application, whoever asks at the
// right moment is next. An application that has a write transaction open on the file
// makes every Save wait, its own requests' as well: commit it before the response's
// first byte.
//
// Setup creates the tables if they are not there, and changes nothing that is. Close
// leaves a database of the application open; a store of [Open] closes its own.
// DeleteOld and DeleteUser delete a hundred records at a time. DeleteOld rests in
// between, for three times as long as the hundred took. Where the context ends while a
// statement is under way, their error matches [session2.ErrUncertain] as well: the
// number may be too small. Iter and IterUser go in the order of IDs, and hold neither a
// row nor a connection while the loop's body runs.
type Store struct {
	db      *sql.DB
	q       queries
	timeout time.Duration
	caps    session2.Capabilities
	turn    chan struct{} // full while a write is under way
	closed  atomic.Bool
	file    *file // nil: of the application
}

var (
	_ session2.Store          = (*Store)(nil)
	_ session2.SetupStore     = (*Store)(nil)
	_ session2.DeleteOldStore = (*Store)(nil)
	_ session2.IterStore      = (*Store)(nil)
	_ session2.TouchStore     = (*Store)(nil)
	_ session2.UserStore      = (*Store)(nil)
	_ session2.CapableStore   = (*Store)(nil)
	_ io.Closer               = (*Store)(nil)
)

// NewStore returns a store on db, which stays the caller's to configure and to close.
// It asks the database for its settings, for Capabilities, and changes none; nil
// options are the defaults. The application should have each connection of its pool run
//
//	PRAGMA journal_mode = WAL     readers and a writer at once; it stays in the file
//	PRAGMA synchronous = FULL     or no Save is Durable; mattn's default in WAL mode is less
//	PRAGMA busy_timeout = 100     milliseconds; more only if it needs them itself
//
// in the data source name, with modernc.org/sqlite
//
//	file:app.db?_pragma=journal_mode(wal)&_pragma=synchronous(full)&_pragma=busy_timeout(100)
//
// and with mattn/go-sqlite3
//
//	file:app.db?_journal_mode=WAL&_synchronous=FULL&_busy_timeout=100
//
// A PRAGMA that is run by db.Exec holds for one connection of the pool only.
func NewStore(db *sql.DB, opts *Options) (*Store, error) {
	if db == nil {
		return nil, errors.New("session2: a store needs a database, and this one is nil")
	}
	s, err := newStore(db, opts)
	if err != nil {
		return nil, err
	}
	s.caps, err = call(context.Background(), s, s.settings)
	if err != nil {
		return nil, failed("ask for the settings of the database", err)
	}
	return s, nil
}

var tableForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,99}$`)
var tableTaken = regexp.MustCompile(`(?i)^sqlite_|_meta$|_(user|accessed|expires)_idx$`)

func newStore(db *sql.DB, opts *Options) (*Store, error) {
	o := Options{Table: "session2_sessions", Timeout: 5 * time.Second}
	if opts != nil && opts.Table != "" {
		o.Table = opts.Table
	}
	if opts != nil && opts.Timeout != 0 {
		o.Timeout = opts.Timeout
	}
	if !tableForm.MatchString(o.Table) || tableTaken.MatchString(o.Table) {
		return nil, fmt.Errorf("session2: %q is no name for a table of sessions", o.Table)
	}
	return &Store{db: db, q: queriesOf(o.Table), timeout: o.Timeout, turn: make(chan struct{}, 1)}, nil
}

// Capabilities returns what the store promises. It promises ThreadSafe;
// MultiprocessSafe if the database is a file that no connection has for itself alone;
// and Durable if two connections of the pool, which NewStore asks, have settings that
// make it so: synchronous is FULL or EXTRA in the journal modes WAL, TRUNCATE and
// PERSIST, or EXTRA in the mode DELETE. It never promises MultihostSafe: network file
// systems keep SQLite's locks badly.
func (s *Store) Capabilities() session2.Capabilities { return s.caps }

// Close ends the use of the store. Later calls return an error matching
// [io/fs.ErrClosed], but for Close itself, which may be called again.
func (s *Store) Close() error {
	s.closed.Store(true)
	if s.file == nil {
		return nil
	}
	return failed("close", s.db.Close())
}

// check returns why no call can be made.
func (s *Store) check(ctx context.Context) error {
	if s.closed.Load() {
		return fs.ErrClosed
	}
	return ctx.Err()
}

// failed names the operation that failed; nil stays nil.
func failed(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("session2: %s: %w", op, err)
}

// failedFor names the record as well.
func failedFor(op string, id session2.ID, err error) error {
	return failed(op+" "+id.String(), err)
}
