package session2

import (
	"database/sql"
	"strconv"
	"strings"

	"github.com/session2/session2/internal/sqlstore"
)

// PostgresStore keeps records in a table of PostgreSQL, or of a database that
// speaks as it does. Load, Save, Delete, Has and Touch cost one round trip each,
// by statements that stay prepared. Goroutines, processes and machines may share
// the table; several stores share a database under different table names.
//
// The column types, and times counted by the application, leave nothing to the
// server's time zone, encoding, collation or clock. A Touch changes no indexed
// column and stays heap-only.
//
// Setup creates the tables with their indexes if they are not there, and changes
// nothing that is; where all is there it needs no right to create anything. Close
// closes the prepared statements, and leaves the database open to whom it belongs;
// a store of [Open] closes its own.
//
// After a broken connection, a deadlock or a serialization failure the store asks
// again by itself, a few times. It does not send a create twice whose answer was
// lost: if no record is there, that is [ErrUncertain]. Where the context ended while
// the server had a statement, or the answer was lost for good, the error of Delete
// and Touch matches ErrUncertain: it may have been done. So it is with DeleteOld and
// DeleteUser: their number may then be too small, and some sessions may be left.
//
// DeleteOld deletes a hundred records at a time, passing over those that somebody is
// changing right now, and rests in between for three times as long as they took.
// Several may run at once: they share the work, and each counts what it removed
// itself. DeleteUser deletes a thousand at a time. Touch writes neither data nor an
// index. Iter and IterUser go in the order of IDs, read some records at a time, more
// of small ones, and hold neither a row nor a connection while the loop's body runs.
// All promises of [Capabilities] hold, Durable as far as the server was not told to
// acknowledge commits before they are on its disk.
type PostgresStore struct{ sqlStore }

// NewPostgresStore returns a store on db, which stays the caller's to close and
// may come from any driver, such as lib/pq or pgx's stdlib. It does not call
// the database: Setup does.
func NewPostgresStore(db *sql.DB, opts *SQLOptions) (*PostgresStore, error) {
	o, names, err := opts.fill(db)
	if err != nil {
		return nil, err
	}
	r := postgresNames(names)
	return &PostgresStore{newSQLStore(db, sqlstore.Queries{
		Load:       r.Replace(postgresLoad),
		Has:        r.Replace(postgresHas),
		Version:    r.Replace(postgresVersion),
		Insert:     r.Replace(postgresInsert),
		Update:     r.Replace(postgresUpdate),
		Confirm:    r.Replace(postgresConfirm),
		Delete:     r.Replace(postgresDelete),
		Touch:      r.Replace(postgresTouch),
		Page:       sqlList(r, postgresPage),
		UserPage:   sqlList(r, postgresUserPage),
		UserIDs:    r.Replace(postgresUserIDs),
		DeleteUser: r.Replace(postgresDeleteUser),
		DeleteMany: r.Replace(postgresDeleteMany),
		Accessed:   postgresSweep(r, "accessed"),
		Expires:    postgresSweep(r, "expires"),
	}, sqlstore.Schema{
		Version: sqlSchemaVersion,
		DDL:     sqlReplace(r, postgresDDL),
		Current: r.Replace(postgresCurrent),
		Note:    r.Replace(postgresNote),
	}, sqlstore.Options{NoPrepare: o.NoPrepare, Timeout: o.Timeout, Fault: postgresFault})}, nil
}

// postgresNames fills in the queries: {t} is the table, {m} the one that notes
// the schema's version, {n} what the names of indexes begin with, {ids} the
// arguments of a full batch of IDs, {last} the one after them, and {many} and
// {end} likewise of a large batch.
func postgresNames(names []string) *strings.Replacer {
	quoted := `"` + strings.Join(names, `"."`) + `"`
	many := make([]string, sqlstore.ManyIDs)
	for i := range many {
		many[i] = "$" + strconv.Itoa(i+1)
	}
	return strings.NewReplacer(
		"{t}", quoted,
		"{m}", strings.TrimSuffix(quoted, `"`)+`_meta"`,
		"{n}", names[len(names)-1],
		"{ids}", strings.Join(many[:sqlstore.BatchIDs], ","),
		"{last}", "$"+strconv.Itoa(sqlstore.BatchIDs+1),
		"{many}", strings.Join(many, ","),
		"{end}", "$"+strconv.Itoa(sqlstore.ManyIDs+1),
		"{all}", strconv.Itoa(sqlstore.ManyIDs),
	)
}

// The columns by_accessed and by_expires are lazy index keys: see
// [sqlstore.Sweep]. The fill factor leaves room on each page for the new
// versions of rows that touches make.
var postgresDDL = []string{`CREATE TABLE IF NOT EXISTS {t} (
	id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
	version bigint NOT NULL,
	username bytea NOT NULL,
	created bigint NOT NULL,
	accessed bigint NOT NULL,
	expires bigint NOT NULL,
	by_accessed bigint NOT NULL,
	by_expires bigint NOT NULL,
	data bytea NOT NULL
) WITH (fillfactor = 75)`,
	`CREATE INDEX IF NOT EXISTS "{n}_username_idx" ON {t} (username, id) WHERE username <> ''`,
	`CREATE INDEX IF NOT EXISTS "{n}_accessed_idx" ON {t} (by_accessed, id)`,
	`CREATE INDEX IF NOT EXISTS "{n}_expires_idx" ON {t} (by_expires, id)`,
	`CREATE TABLE IF NOT EXISTS {m} (version bigint PRIMARY KEY)`,
}

const (
	postgresCurrent = `SELECT max(version) FROM {m}`
	postgresNote    = `INSERT INTO {m} (version) VALUES ($1) ON CONFLICT DO NOTHING`

	postgresLoad    = `SELECT version, username, created, accessed, expires, data FROM {t} WHERE id = $1`
	postgresHas     = `SELECT 1 FROM {t} WHERE id = $1`
	postgresVersion = `SELECT version FROM {t} WHERE id = $1`

	postgresInsert = `INSERT INTO {t} (id, version, username, created, accessed, expires, data, by_accessed, by_expires)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO NOTHING`

	postgresUpdate = `UPDATE {t} SET version = $1, username = $2, created = $3, accessed = $4, expires = $5, data = $6,
by_accessed = LEAST(by_accessed, $7), by_expires = LEAST(by_expires, $8) WHERE id = $9 AND version = $10`

	// A commit that waits for a synchronous standby is seen by others once its
	// client has given up. One that comes after it waits for both.
	postgresConfirm = `UPDATE {t} SET version = version WHERE id = $1 AND version = $2`

	postgresDelete = `DELETE FROM {t} WHERE id = $1`

	postgresTouch = `UPDATE {t} SET accessed = GREATEST(accessed, $1), expires = GREATEST(expires, $2)
WHERE id = $3 AND (accessed < $4 OR expires < $5)`

	postgresPage = `SELECT id, version, username, created, accessed, expires, data FROM {t}
WHERE id >= $1 ORDER BY id LIMIT {rows}`

	// The second condition is the partial index's.
	postgresUserPage = `SELECT id, version, username, created, accessed, expires, data FROM {t}
WHERE username = $1 AND username <> '' AND id >= $2 ORDER BY id LIMIT {rows}`

	postgresUserIDs = `SELECT id FROM {t} WHERE username = $1 AND username <> '' AND id >= $2 ORDER BY id LIMIT {all}`

	postgresDeleteUser = `DELETE FROM {t} WHERE id IN ({ids}) AND username = {last}`
	postgresDeleteMany = `DELETE FROM {t} WHERE id IN ({many}) AND username = {end}`
)

// postgresSweep is the queries of a sweep by one of the times. The comparison
// of pairs begins right behind a place in the index. $3 repeats $1 for MySQL's
// sake and says nothing here: were it a second bound, the planner would expect
// so few rows between the two that it fetched and sorted all that are old. Rows
// that are locked are being changed, or deleted by another sweep.
func postgresSweep(r *strings.Replacer, col string) sqlstore.Sweep {
	c := strings.NewReplacer("{c}", col, "{free}", `id = ANY(ARRAY(
SELECT id FROM {t} WHERE id IN ({ids}) FOR UPDATE SKIP LOCKED))`)
	fill := func(query string) string { return r.Replace(c.Replace(query)) }
	return sqlstore.Sweep{
		Find: fill(`SELECT id, by_{c}, {c} FROM {t}
WHERE (by_{c}, id) > ($1, $2) AND $3::bigint IS NOT NULL AND by_{c} <= $4 ORDER BY by_{c}, id LIMIT 100`),
		Delete: sqlstore.Skipping{
			Skip: fill(`DELETE FROM {t} WHERE {free} AND {c} <= {last}`),
			Wait: fill(`DELETE FROM {t} WHERE id IN ({ids}) AND {c} <= {last}`),
		},
		Refile: sqlstore.Skipping{
			Skip: fill(`UPDATE {t} SET by_accessed = accessed, by_expires = expires WHERE {free} AND by_{c} < {c}`),
			Wait: fill(`UPDATE {t} SET by_accessed = accessed, by_expires = expires WHERE id IN ({ids}) AND by_{c} < {c}`),
		},
	}
}

// sqlList fills in the two queries of a list.
func sqlList(r *strings.Replacer, query string) sqlstore.List {
	rows := func(n int) string { return strings.ReplaceAll(r.Replace(query), "{rows}", strconv.Itoa(n)) }
	return sqlstore.List{Narrow: rows(sqlstore.PageRows), Wide: rows(sqlstore.WideRows)}
}

func sqlReplace(r *strings.Replacer, list []string) []string {
	done := make([]string, len(list))
	for i, text := range list {
		done[i] = r.Replace(text)
	}
	return done
}
