package session2

import (
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/session2/session2/internal/sqlstore"
)

// MySQLStore keeps records in an InnoDB table of MySQL or MariaDB, or of a
// database that speaks as they do. Load, Save, Delete, Has and Touch cost one
// round trip each, by statements that stay prepared. Goroutines, processes and
// machines may share the table; several stores share a database under different
// table names.
//
// The columns are bytes and integers, and the application counts the time, so
// that nothing depends on a collation, a character set, the sql_mode, a time zone
// or the server's clock, nor on the driver's parseTime, loc, clientFoundRows and
// interpolateParams. A record's data must fit the server's max_allowed_packet.
//
// What [PostgresStore] says of its calls holds here as well.
type MySQLStore struct{ sqlStore }

// NewMySQLStore returns a store on db, which is one of
// [github.com/go-sql-driver/mysql] and stays the caller's to close. It does not
// call the database: Setup does. The driver logs broken connections to standard
// error unless [mysql.SetLogger] or the Logger of its [mysql.Config] says otherwise.
func NewMySQLStore(db *sql.DB, opts *SQLOptions) (*MySQLStore, error) {
	o, names, err := opts.fill(db)
	if err != nil {
		return nil, err
	}
	r := mysqlNames(names)
	return &MySQLStore{newSQLStore(db, sqlstore.Queries{
		Load:       r.Replace(mysqlLoad),
		Has:        r.Replace(mysqlHas),
		Version:    r.Replace(mysqlVersion),
		Insert:     r.Replace(mysqlInsert),
		Update:     r.Replace(mysqlUpdate),
		Delete:     r.Replace(mysqlDelete),
		Touch:      r.Replace(mysqlTouch),
		Page:       sqlList(r, mysqlPage),
		UserPage:   sqlList(r, mysqlUserPage),
		UserIDs:    r.Replace(mysqlUserIDs),
		DeleteUser: r.Replace(mysqlDeleteUser),
		DeleteMany: r.Replace(mysqlDeleteMany),
		Accessed:   mysqlSweep(r, "accessed"),
		Expires:    mysqlSweep(r, "expires"),
	}, sqlstore.Schema{
		Version: sqlSchemaVersion,
		DDL:     sqlReplace(r, mysqlDDL),
		Current: r.Replace(mysqlCurrent),
		Note:    r.Replace(mysqlNote),

		Autocommit: "SELECT @@autocommit",
	}, sqlstore.Options{NoPrepare: o.NoPrepare, Timeout: o.Timeout, Fault: mysqlFault, Bytes: mysqlBytes, Inline: mysqlInline})}, nil
}

// mysqlNames fills in the queries: {t} is the table, {m} the one that notes the
// schema's version, and {ids} and {many} the arguments of a full batch of IDs and
// of a large one.
func mysqlNames(names []string) *strings.Replacer {
	quoted := "`" + strings.Join(names, "`.`") + "`"
	return strings.NewReplacer(
		"{t}", quoted,
		"{m}", strings.TrimSuffix(quoted, "`")+"_meta`",
		"{ids}", strings.TrimSuffix(strings.Repeat("UNHEX(?),", sqlstore.BatchIDs), ","),
		"{many}", strings.TrimSuffix(strings.Repeat("UNHEX(?),", sqlstore.ManyIDs), ","),
		"{all}", strconv.Itoa(sqlstore.ManyIDs),
		"{bytes}", "COALESCE(UNHEX(?), X'')",
	)
}

// The columns by_accessed and by_expires are lazy index keys: see
// [sqlstore.Sweep]. InnoDB adds the primary key to each index by itself.
var mysqlDDL = []string{`CREATE TABLE IF NOT EXISTS {t} (
	id binary(16) NOT NULL PRIMARY KEY,
	version bigint NOT NULL,
	username varbinary(1024) NOT NULL,
	created bigint NOT NULL,
	accessed bigint NOT NULL,
	expires bigint NOT NULL,
	by_accessed bigint NOT NULL,
	by_expires bigint NOT NULL,
	data longblob NOT NULL,
	INDEX username_idx (username),
	INDEX accessed_idx (by_accessed),
	INDEX expires_idx (by_expires)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC`,
	`CREATE TABLE IF NOT EXISTS {m} (version bigint NOT NULL PRIMARY KEY) ENGINE=InnoDB`,
}

const (
	mysqlCurrent = `SELECT max(version) FROM {m}`
	mysqlNote    = `INSERT IGNORE INTO {m} (version) VALUES (?)`

	mysqlLoad    = `SELECT version, username, created, accessed, expires, data FROM {t} WHERE id = UNHEX(?)`
	mysqlHas     = `SELECT 1 FROM {t} WHERE id = UNHEX(?)`
	mysqlVersion = `SELECT version FROM {t} WHERE id = UNHEX(?)`

	// No INSERT IGNORE here: it would hide other errors and cut off what is too long.
	mysqlInsert = `INSERT INTO {t} (id, version, username, created, accessed, expires, data, by_accessed, by_expires)
VALUES (UNHEX(?), ?, {bytes}, ?, ?, ?, {bytes}, ?, ?)`

	// A row that is found is changed, in its version if in nothing else, so that
	// it counts as affected either way.
	mysqlUpdate = `UPDATE {t} SET version = ?, username = {bytes}, created = ?, accessed = ?, expires = ?, data = {bytes},
by_accessed = LEAST(by_accessed, ?), by_expires = LEAST(by_expires, ?) WHERE id = UNHEX(?) AND version = ?`

	mysqlDelete = `DELETE FROM {t} WHERE id = UNHEX(?)`

	mysqlTouch = `UPDATE {t} SET accessed = GREATEST(accessed, ?), expires = GREATEST(expires, ?)
WHERE id = UNHEX(?) AND (accessed < ? OR expires < ?)`

	mysqlPage = `SELECT id, version, username, created, accessed, expires, data FROM {t}
WHERE id >= UNHEX(?) ORDER BY id LIMIT {rows}`

	mysqlUserPage = `SELECT id, version, username, created, accessed, expires, data FROM {t}
WHERE username = UNHEX(?) AND id >= UNHEX(?) ORDER BY id LIMIT {rows}`

	mysqlUserIDs = `SELECT id FROM {t} WHERE username = UNHEX(?) AND id >= UNHEX(?) ORDER BY id LIMIT {all}`

	mysqlDeleteUser = `DELETE FROM {t} WHERE id IN ({ids}) AND username = UNHEX(?)`
	mysqlDeleteMany = `DELETE FROM {t} WHERE id IN ({many}) AND username = UNHEX(?)`
)

// mysqlSweep is the queries of a sweep by one of the times. Its DELETE and
// UPDATE go by primary key, so that they lock the rows they change and no range
// of an index. Neither can pass over locked rows by itself, but a SELECT within
// can; its LIMIT keeps the optimizer from dissolving it. The time is compared
// outside, as TiDB takes SKIP LOCKED and locks nothing.
func mysqlSweep(r *strings.Replacer, col string) sqlstore.Sweep {
	c := strings.NewReplacer("{c}", col, "{free}", `(SELECT id FROM {t} WHERE id IN ({ids})
LIMIT 100 FOR UPDATE SKIP LOCKED) AS free STRAIGHT_JOIN {t} AS s`)
	fill := func(query string) string { return r.Replace(c.Replace(query)) }
	return sqlstore.Sweep{
		Find: fill(`SELECT id, by_{c}, {c} FROM {t}
WHERE (by_{c} = ? AND id > UNHEX(?) OR by_{c} > ?) AND by_{c} <= ? ORDER BY by_{c}, id LIMIT 100`),
		Delete: sqlstore.Skipping{
			Skip: fill(`DELETE s FROM {free} WHERE s.id = free.id AND s.{c} <= ?`),
			Wait: fill(`DELETE FROM {t} WHERE id IN ({ids}) AND {c} <= ?`),
		},
		Refile: sqlstore.Skipping{
			Skip: fill(`UPDATE {free} SET s.by_accessed = s.accessed, s.by_expires = s.expires WHERE s.id = free.id AND s.by_{c} < s.{c}`),
			Wait: fill(`UPDATE {t} SET by_accessed = accessed, by_expires = expires WHERE id IN ({ids}) AND by_{c} < {c}`),
		},
	}
}

// mysqlBytes has bytes go to the server as hexadecimal digits. The driver sends
// them as text, which the server translates where its settings say so, and, if
// it is not to prepare statements, puts them between quotes, which some
// character sets let nobody escape. No setting can change what digits mean. The
// one that takes empty text for NULL is why {bytes} is what it is.
func mysqlBytes(b []byte) any { return hex.EncodeToString(b) }

// mysqlInline puts arguments into a statement's text: numbers, and the digits of
// mysqlBytes, which mean the same whatever the settings. There is no question mark
// in our statements but those of arguments.
func mysqlInline(query string, args []any) (string, error) {
	parts := strings.Split(query, "?")
	var b strings.Builder
	for i, arg := range args {
		if v, ok := arg.(driver.Valuer); ok {
			var err error
			if arg, err = v.Value(); err != nil {
				return "", err
			}
		}
		b.WriteString(parts[i])
		switch v := arg.(type) {
		case int64:
			b.WriteString(strconv.FormatInt(v, 10))
		case string:
			b.WriteString("'" + v + "'")
		default:
			return "", fmt.Errorf("an argument of type %T", arg)
		}
	}
	b.WriteString(parts[len(args)])
	return b.String(), nil
}
