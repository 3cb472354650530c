package session2

import (
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/session2/session2/internal/sqlstore"
)

const sqlSchemaVersion = 1

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

// sqlStore is what both SQL stores are, but for their SQL. It promises everything;
// Durable holds as far as the server was not told to acknowledge commits before
// they are on its disk.
type sqlStore struct {
	adapter
	run    *sqlstore.Store
	schema sqlstore.Schema
}

func newSQLStore(db *sql.DB, q sqlstore.Queries, schema sqlstore.Schema, opts sqlstore.Options) sqlStore {
	run := sqlstore.New(db, q, schema, opts)
	caps := Capabilities{ThreadSafe: true, MultiprocessSafe: true, MultihostSafe: true, Durable: true}
	return sqlStore{adapter{run, caps}, run, schema}
}

// Schema returns the statements that create what the store needs, for those who
// do not let applications create tables. They may be run again. The store then
// needs SELECT, INSERT, UPDATE and DELETE on the first table and SELECT on the
// second, with _meta after its name.
func (s *sqlStore) Schema() []string {
	note := strings.NewReplacer("$1", strconv.Itoa(sqlSchemaVersion), "?", strconv.Itoa(sqlSchemaVersion))
	return append(append([]string(nil), s.schema.DDL...), note.Replace(s.schema.Note))
}
