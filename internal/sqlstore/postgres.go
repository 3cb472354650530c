package sqlstore

import (
	"database/sql"
	"errors"
	"strconv"
	"strings"
)

// NewPostgres returns a store on a database that speaks as PostgreSQL does.
func NewPostgres(db *sql.DB, o Options) (*Store, error) { return newStore(db, o, postgresDialect) }

func postgresDialect(names []string) dialect {
	r := postgresNames(names)
	return dialect{q: Queries{
		Load:       r.Replace(postgresLoad),
		Has:        r.Replace(postgresHas),
		Version:    r.Replace(postgresVersion),
		Insert:     r.Replace(postgresInsert),
		Update:     r.Replace(postgresUpdate),
		Confirm:    r.Replace(postgresConfirm),
		Barrier:    postgresBarrier,
		Delete:     r.Replace(postgresDelete),
		Touch:      r.Replace(postgresTouch),
		Page:       lists(r, postgresPage),
		UserPage:   lists(r, postgresUserPage),
		UserIDs:    r.Replace(postgresUserIDs),
		DeleteUser: r.Replace(postgresDeleteUser),
		DeleteMany: r.Replace(postgresDeleteMany),
		Accessed:   postgresSweep(r, "accessed"),
		Expires:    postgresSweep(r, "expires"),
	}, schema: postgresSchema(r, names), meaning: postgresFault, repeats: true}
}

// postgresNames fills in the queries: {t} is the table, {m} the one that notes
// the schema's version, {n} what the names of indexes begin with, {ids} the
// arguments of a full batch of IDs, {last} the one after them, and {many} and
// {end} likewise of a large batch.
func postgresNames(names []string) *strings.Replacer {
	quoted := `"` + strings.Join(names, `"."`) + `"`
	many := make([]string, ManyIDs)
	for i := range many {
		many[i] = "$" + strconv.Itoa(i+1)
	}
	return strings.NewReplacer(
		"{t}", quoted,
		"{m}", strings.TrimSuffix(quoted, `"`)+`_meta"`,
		"{n}", names[len(names)-1],
		"{ids}", strings.Join(many[:BatchIDs], ","),
		"{last}", "$"+strconv.Itoa(BatchIDs+1),
		"{many}", strings.Join(many, ","),
		"{end}", "$"+strconv.Itoa(ManyIDs+1),
		"{all}", strconv.Itoa(ManyIDs),
	)
}

const (
	postgresLoad    = `SELECT version, username, created, accessed, expires, data FROM {t} WHERE id = $1`
	postgresHas     = `SELECT 1 FROM {t} WHERE id = $1`
	postgresVersion = `SELECT version FROM {t} WHERE id = $1`

	// ON CONFLICT would have the server insert in two steps, for a key that is hardly ever taken.
	postgresInsert = `INSERT INTO {t} (version, username, created, accessed, expires, data, by_accessed, by_expires, id)
VALUES ($1, $2, $3, $4, $5, $6, $4, $5, $7)`

	postgresUpdate = `UPDATE {t} SET version = $1, username = $2, created = $3, accessed = $4, expires = $5, data = $6,
by_accessed = LEAST(by_accessed, $4), by_expires = LEAST(by_expires, $5) WHERE id = $7 AND version = $8`

	// A commit that waits for a synchronous standby is seen by others once its
	// client has given up. One that comes after it waits for both.
	postgresConfirm = `UPDATE {t} SET version = version WHERE id = $1 AND version = $2`

	// Where there is no row to commit again, a message in the log that nobody reads will do.
	postgresBarrier = `SELECT pg_logical_emit_message(true, $1, '')`

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
func postgresSweep(r *strings.Replacer, col string) Sweep {
	c := strings.NewReplacer("{c}", col, "{free}", `id = ANY(ARRAY(
SELECT id FROM {t} WHERE id IN ({ids}) FOR UPDATE SKIP LOCKED))`)
	fill := func(query string) string { return r.Replace(c.Replace(query)) }
	return Sweep{
		Find: fill(`SELECT id, by_{c}, {c} FROM {t}
WHERE (by_{c}, id) > ($1, $2) AND $3::bigint IS NOT NULL AND by_{c} <= $4 ORDER BY by_{c}, id LIMIT 100`),
		Delete: Skipping{
			Skip: fill(`DELETE FROM {t} WHERE {free} AND {c} <= {last}`),
			Wait: fill(`DELETE FROM {t} WHERE id IN ({ids}) AND {c} <= {last}`),
		},
		Refile: Skipping{
			Skip: fill(`UPDATE {t} SET by_accessed = accessed, by_expires = expires WHERE {free} AND by_{c} < {c}`),
			Wait: fill(`UPDATE {t} SET by_accessed = accessed, by_expires = expires ` +
				`WHERE id IN ({ids}) AND by_{c} < {c}`),
		},
	}
}

// postgresFault tells errors apart by their SQLSTATE, which lib/pq and pgx both
// show by this method.
func postgresFault(err error) Fault {
	var state interface{ SQLState() string }
	if !errors.As(err, &state) {
		return connFault(err)
	}
	if says(err, postgresTooLarge) {
		return TooLarge
	}
	code := state.SQLState()
	if says(err, postgresStartup) {
		return Refused
	}
	switch code {
	case "23505", "42P07", "42710": // unique violation, duplicate table, duplicate object
		return Duplicate
	case "42P01": // undefined table
		return Missing
	case "42703", "42804", "42883": // undefined column; one of another type: datatype mismatch, no such operator
		return Foreign
	case "42P10": // invalid column reference: nothing makes an ID unique, as Setup's ON CONFLICT needs
		return Keyless
	case "42601", "0A000": // syntax error, feature not supported
		return Unknown
	case "54000", "22001": // program limit exceeded, string too long
		return TooLarge
	case "25006": // read-only transaction: a standby, or a primary that became one
		return ReadOnly
	case "40000", "40001", "40P01": // rolled back, serialization failure, deadlock
		return Aborted
	case "55P03", "57014": // lock not available, query cancelled
		return Aborted
	case "53300": // too many connections: one of the pool's may be free soon
		return Aborted
	case "40003", "25P03", "25P04": // completion unknown; idle for too long, transaction for too long
		return Broken
	}
	return postgresClass(code, err)
}

// postgresClass is for the codes that are nothing special in their class.
func postgresClass(code string, err error) Fault {
	switch code[:min(2, len(code))] {
	case "08", "57": // connection exception, which is all that PgBouncer says; shutdown and the like
		return Broken
	case "XX", "58", "": // internal error, which YugabyteDB and CockroachDB answer for much else; system error
		if strings.Contains(err.Error(), "OBJECT_NOT_FOUND") { // YugabyteDB: a table that was dropped
			return Missing
		}
		return Failed
	}
	return Refused
}

// postgresStartup is what PgBouncer says of a setting that it does not pass on, under the code
// that it has for everything, of which most passes.
var postgresStartup = []string{"unsupported startup parameter"}

// postgresTooLarge is what is said of a record that is too large under codes that
// mean other things as well.
var postgresTooLarge = []string{
	"invalid memory alloc request size",       // PostgreSQL: a gigabyte
	"command is too large",                    // CockroachDB: kv.raft.command.max_size
	"bigger than maximum allowed message",     // CockroachDB: sql.conn.max_read_buffer_message_size
	"too long RPC message", "RPC message too", // YugabyteDB: rpc_max_message_size
}
