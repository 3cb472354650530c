package session2

import (
	"database/sql"

	"github.com/session2/session2/internal/sqlstore"
)

// PostgresStore keeps records in a table of PostgreSQL, or of a database that speaks as
// it does. Load, Save, Delete, Has and Touch cost one round trip each, by statements
// that stay prepared; a Save that comes too late costs a second one. Goroutines,
// processes and machines may share the table; several stores share a database under
// different table names.
//
// The column types, and times counted by the application, leave nothing to the server's
// time zone, encoding, collation or clock. A Touch changes no indexed column, so that
// it is a heap-only update (HOT).
//
// Setup creates the tables with their indexes if they are not there, and changes
// nothing that is; where all is there it needs no right to create anything. It returns
// an error where the store could not work: without a right, on a server that takes no
// writes, over a table without its key or indexes. Close closes the prepared statements
// and leaves the database open, but for that of a store of [Open].
//
// After a broken connection, a deadlock or a serialization failure the store asks again
// by itself, a few times. It does not send a create twice whose answer was lost: if no
// record is there, that is [ErrUncertain]. Where the context ended while the server had
// a statement, or the answer was lost for good, the error of Delete and Touch matches
// ErrUncertain: it may have been done. So it is with DeleteOld and DeleteUser: their
// number may then be too small, and some sessions may be left.
//
// DeleteOld deletes a hundred records at a time, passing over those that somebody is
// changing right now, and rests in between for three times as long as they took.
// Several may run at once: they share the work, and each counts what it removed itself.
// DeleteUser deletes a thousand at a time. Iter and IterUser go in the order of IDs,
// read some records at a time, more of small ones, and hold neither a row nor a
// connection while the loop's body runs. All promises of [Capabilities] hold, Durable
// as far as the server was not told to acknowledge commits before they are on its disk.
type PostgresStore struct{ sqlStore }

// NewPostgresStore returns a store on db, which stays the caller's to close and
// may come from any driver, such as lib/pq or pgx's stdlib. It does not call
// the database: Setup does.
func NewPostgresStore(db *sql.DB, opts *SQLOptions) (*PostgresStore, error) {
	s, err := newSQLStore(sqlstore.NewPostgres(db, opts.fill()))
	if err != nil {
		return nil, err
	}
	return &PostgresStore{s}, nil
}
