package session2

import (
	"context"
	"fmt"
	"time"

	"github.com/session2/session2/internal/sqlstore"
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

// fill returns the options as the back end has them; nil are the defaults.
func (o *SQLOptions) fill() sqlstore.Options { return sqlstore.Options(filled(o)) }

// sqlStore is what both SQL stores are. It promises everything; Durable holds as far
// as the server was not told to acknowledge commits before they are on its disk.
type sqlStore struct {
	adapter
	sql *sqlstore.Store
}

// newSQLStore is for what the back end's constructor returns.
func newSQLStore(back *sqlstore.Store, err error) (sqlStore, error) {
	if err != nil {
		return sqlStore{}, fmt.Errorf("session2: %w", err)
	}
	caps := Capabilities{ThreadSafe: true, MultiprocessSafe: true, MultihostSafe: true, Durable: true}
	return sqlStore{adapter{back, caps}, back}, nil
}

// Schema returns the statements that create what the store needs, for those who
// do not let applications create tables. They may be run again. The store then
// needs SELECT, INSERT, UPDATE and DELETE on the first table and SELECT on the
// second, with _meta after its name.
func (s *sqlStore) Schema() []string { return s.sql.Schema() }

// CheckSchema returns an error if a later release has made the tables, as Setup does, but
// makes nothing. Tables that are not there are no error. It is for tools that go on without
// Setup: each command of session2 calls it.
func (s *sqlStore) CheckSchema(ctx context.Context) error {
	return s.do(ctx, "check schema", s.sql.CheckSchema)
}
