package session2

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/session2/session2/internal/sqlstore"
)

const (
	sqlSchemaVersion = 1
	sqlMaxUser       = 1024 // bytes: what an index can hold in every database
)

// SQLOptions are the options of [NewPostgresStore] and [NewMySQLStore]. The
// zero value is the default.
type SQLOptions struct {
	// Table is the name of the table, by default session2_sessions; it may be
	// schema.table. Each name is made of ASCII letters, digits and underscores,
	// does not begin with a digit, does not end in _meta or _idx, and has 40
	// characters at most. A second table, with _meta after its name, holds the
	// version of the schema.
	Table string

	// NoPrepare sends each statement whole instead of preparing it once on each
	// connection. It is for poolers that hand out connections by the
	// transaction. A call still costs one round trip only if the driver is told
	// so, too: binary_parameters=yes for lib/pq, interpolateParams=true for
	// MySQL, default_query_exec_mode=exec for pgx. [Open] does that by itself.
	NoPrepare bool

	// Timeout bounds each statement, with its retries and its wait for a free
	// connection, so that a server that hangs holds up nobody for longer. By
	// default 5 seconds; negative: none but the caller's context.
	//
	// A call that was given up keeps its connection until the driver lets go of
	// it: lib/pq waits for an answer whatever the context says. So a server that
	// hangs may use up a pool that db.SetMaxOpenConns limits, and may be sent any
	// number of connections by one without limit. A store of [Open] ends such
	// connections by itself.
	Timeout time.Duration
}

// sqlName is one name; indexes need some of PostgreSQL's 63 bytes for theirs.
var sqlName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,39}$`)

// fill returns a copy with defaults, and the parts of the table's name.
func (o *SQLOptions) fill(db *sql.DB) (opts SQLOptions, names []string, err error) {
	if db == nil {
		return opts, nil, errors.New("session2: a store needs a database, and this one is nil")
	}
	if o != nil {
		opts = *o
	}
	if opts.Table == "" {
		opts.Table = "session2_sessions"
	}
	opts.Timeout = opts.wait()
	names = strings.Split(opts.Table, ".")
	ok := len(names) <= 2
	for _, name := range names {
		ok = ok && sqlName.MatchString(name)
	}
	if !ok {
		return opts, nil, fmt.Errorf("session2: %q is no name for a table: want letters, digits and underscores, at most 40", opts.Table)
	}
	if strings.HasSuffix(opts.Table, "_meta") || strings.HasSuffix(opts.Table, "_idx") { // another store's
		return opts, nil, fmt.Errorf("session2: %q is no name for a table: it ends in _meta or _idx", opts.Table)
	}
	return opts, names, nil
}

// wait returns the timeout, or its default.
func (o *SQLOptions) wait() time.Duration {
	if o.Timeout == 0 {
		return 5 * time.Second
	}
	return o.Timeout
}

// sqlStore is what both SQL stores are, but for their SQL.
type sqlStore struct {
	run    *sqlstore.Store
	schema sqlstore.Schema
	owned  func() error // closes the database if the store opened it itself
}

// Close closes the prepared statements, and leaves the database open to whom it
// belongs; a store of [Open] closes its own. Later calls answer an error
// matching [io/fs.ErrClosed], but for Close itself, which may be called again.
func (s *sqlStore) Close() error {
	return sqlError("close", s.run.Close(s.owned))
}

// Capabilities promises everything. Durable holds as far as the server was not
// told to acknowledge commits before they are on its disk.
func (s *sqlStore) Capabilities() Capabilities {
	return Capabilities{ThreadSafe: true, MultiprocessSafe: true, MultihostSafe: true, Durable: true}
}

// Setup creates the tables with their indexes if they are not there, and changes
// nothing that is. It may run in several processes at once. Where all is there it
// needs no right to create anything.
func (s *sqlStore) Setup(ctx context.Context) error {
	return sqlError("set up", s.run.Setup(ctx, s.schema))
}

// Schema returns the statements that create what the store needs, for those who
// do not let applications create tables. They may be run again. The store then
// needs SELECT, INSERT, UPDATE and DELETE on the first table and SELECT on the
// second, with _meta after its name.
func (s *sqlStore) Schema() []string {
	note := strings.NewReplacer("$1", strconv.Itoa(sqlSchemaVersion), "?", strconv.Itoa(sqlSchemaVersion))
	return append(append([]string(nil), s.schema.DDL...), note.Replace(s.schema.Note))
}

// Load returns the record, or an error matching [ErrNotFound]. The caller owns
// its Data.
func (s *sqlStore) Load(ctx context.Context, id ID) (Record, error) {
	row, found, err := s.run.Load(ctx, id)
	if err == nil && !found {
		err = ErrNotFound
	}
	rec := Record{}
	if err == nil {
		rec, err = sqlRecord(row)
	}
	if err != nil {
		return Record{}, opError("load", id, sqlKind(err))
	}
	return rec, nil
}

// Has reports whether there is a record.
func (s *sqlStore) Has(ctx context.Context, id ID) (bool, error) {
	found, err := s.run.Has(ctx, id)
	return found, opError("has", id, sqlKind(err))
}

// Save replaces the record if its version is still prev, or creates it for a
// zero prev. It returns [ErrConflict], [ErrNotFound] and [ErrUncertain] as
// [Store] says: after a broken connection, a deadlock or a serialization
// failure it asks again by itself, a few times. It does not send a create twice
// whose answer was lost: if no record is there, that is ErrUncertain.
func (s *sqlStore) Save(ctx context.Context, rec Record, prev Version) error {
	if err := checkSave(rec); err != nil {
		return err
	}
	if len(rec.User) > sqlMaxUser {
		return opError("save", rec.ID, fmt.Errorf("%w: the user's name exceeds %d bytes", ErrTooLarge, sqlMaxUser))
	}
	o, err := s.run.Save(ctx, sqlRow(rec), int64(prev))
	switch {
	case err != nil:
		return opError("save", rec.ID, sqlKind(err))
	case o.Written:
		return nil
	}
	write, err := admit(o.Found, Version(o.Version), rec.Version, prev)
	switch {
	case o.Lost && (write || errors.Is(err, ErrConflict)): // a create that is not there may have been
		err = ErrUncertain
	case o.Lost && err != nil:
		err = uncertain(err) // written, and deleted since; or deleted
	}
	return opError("save", rec.ID, err)
}

// Delete removes the record. An absent one is no error. Where the context ended
// while the server had the statement, or the answer was lost for good, the error
// matches [ErrUncertain]: the record may be gone.
func (s *sqlStore) Delete(ctx context.Context, id ID) error {
	return opError("delete", id, sqlKind(s.run.Delete(ctx, id)))
}

// Touch moves Accessed and Expires forward, each by itself and never back. An
// absent record is no error. It writes neither data nor an index. Its errors match
// [ErrUncertain] as Delete's do.
func (s *sqlStore) Touch(ctx context.Context, id ID, accessed, expires time.Time) error {
	return opError("touch", id, sqlKind(s.run.Touch(ctx, id, microTime(accessed), microTime(expires))))
}

// DeleteOld removes the records that were not accessed for age or have expired
// by this machine's clock, and returns their number. It finds them by index and
// deletes them a hundred at a time, passing over those that somebody is changing
// right now. Between the hundreds it rests for three times as long as they
// took. Several may run at once: they share the work, and each counts what it
// removed itself.
func (s *sqlStore) DeleteOld(ctx context.Context, age time.Duration) (int, error) {
	if err := checkAge(age); err != nil {
		return 0, err
	}
	now := time.Now()
	n, err := s.run.DeleteOld(ctx, microTime(now.Add(-age)), microTime(now))
	return n, sqlError("delete old", err)
}

// DeleteUser ends all sessions of the user but those to keep, a thousand at a
// time, and returns their number. For the empty user there are none. Where an
// answer of the database was lost, the number may be too small, and the error
// matches [ErrUncertain]. If the context ended while the server had a batch, the
// error matches both the context's and ErrUncertain, and some sessions may be left.
// So it is with DeleteOld.
func (s *sqlStore) DeleteUser(ctx context.Context, user string, keep ...ID) (int, error) {
	kept := make(map[[16]byte]bool, len(keep))
	for _, id := range keep {
		kept[id] = true
	}
	n, err := s.run.DeleteUser(ctx, user, func(id [16]byte) bool { return kept[id] })
	return n, sqlError("delete user", err)
}

// Iter lists all records, in the order of their IDs. It reads some at a time,
// more of small ones, and holds neither a row nor a connection while the loop's
// body runs.
func (s *sqlStore) Iter(ctx context.Context) iter.Seq2[Record, error] {
	return sqlEach(ctx, "iter", func() *sqlstore.Pages { return s.run.Pages() })
}

// IterUser lists the user's records likewise. For the empty user there are
// none.
func (s *sqlStore) IterUser(ctx context.Context, user string) iter.Seq2[Record, error] {
	return sqlEach(ctx, "iter user", func() *sqlstore.Pages { return s.run.UserPages(user) })
}

// sqlEach lists the records of one page after the other.
func sqlEach(ctx context.Context, op string, begin func() *sqlstore.Pages) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for pages := begin(); ; {
			rows, err := pages.Next(ctx)
			if err != nil {
				yield(Record{}, sqlError(op, err))
			}
			if len(rows) == 0 {
				return
			}
			for _, row := range rows {
				if err := ctx.Err(); err != nil {
					yield(Record{}, sqlError(op, err))
					return
				}
				rec, err := sqlRecord(row)
				if !yield(rec, opError(op, rec.ID, err)) {
					return
				}
			}
		}
	}
}

func sqlError(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("session2: %s: %w", op, sqlKind(err))
}

// sqlKind has an error match the sentinel for what it says.
func sqlKind(err error) error {
	switch {
	case errors.Is(err, sqlstore.ErrLost):
		return sqlstore.Mark(err, ErrUncertain)
	case errors.Is(err, sqlstore.ErrNoTable):
		return sqlstore.Mark(err, ErrNotSetUp)
	case errors.Is(err, sqlstore.ErrTooLarge):
		return sqlstore.Mark(err, ErrTooLarge)
	}
	return err
}

func sqlRow(rec Record) sqlstore.Record {
	return sqlstore.Record{
		ID: rec.ID, Version: int64(rec.Version), User: rec.User, Data: rec.Data,
		Created: microTime(rec.Created), Accessed: microTime(rec.Accessed), Expires: microTime(rec.Expires),
	}
}

func sqlRecord(row sqlstore.Record) (Record, error) {
	if row.Version == 0 {
		return Record{ID: row.ID}, corrupt(errors.New("its version is zero"))
	}
	return Record{
		ID: row.ID, Version: Version(row.Version), User: row.User, Data: row.Data,
		Created: timeMicro(row.Created), Accessed: timeMicro(row.Accessed), Expires: timeMicro(row.Expires),
	}, nil
}
