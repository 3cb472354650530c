package sqlstore

import (
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// NewMySQL returns a store on a database that speaks as MySQL does.
func NewMySQL(db *sql.DB, o Options) (*Store, error) { return newStore(db, o, mysqlDialect) }

func mysqlDialect(names []string) dialect {
	r := mysqlNames(names)
	return dialect{q: Queries{
		Load:       r.Replace(mysqlLoad),
		Has:        r.Replace(mysqlHas),
		Version:    r.Replace(mysqlVersion),
		Insert:     r.Replace(mysqlInsert),
		Update:     r.Replace(mysqlUpdate),
		Delete:     r.Replace(mysqlDelete),
		Touch:      r.Replace(mysqlTouch),
		Page:       lists(r, mysqlPage),
		UserPage:   lists(r, mysqlUserPage),
		UserIDs:    r.Replace(mysqlUserIDs),
		DeleteUser: r.Replace(mysqlDeleteUser),
		DeleteMany: r.Replace(mysqlDeleteMany),
		Accessed:   mysqlSweep(r, "accessed"),
		Expires:    mysqlSweep(r, "expires"),
	}, schema: mysqlSchema(r, names), meaning: mysqlFault, bytes: mysqlBytes, inline: mysqlInline}
}

// mysqlNames fills in the queries: {t} is the table, {m} the one that notes the
// schema's version, {db} and {name} are what the catalogue calls the table, and {ids}
// and {many} the arguments of a full batch of IDs and of a large one.
func mysqlNames(names []string) *strings.Replacer {
	quoted := "`" + strings.Join(names, "`.`") + "`"
	db := "DATABASE()"
	if len(names) == 2 {
		db = "'" + names[0] + "'"
	}
	return strings.NewReplacer(
		"{t}", quoted,
		"{m}", strings.TrimSuffix(quoted, "`")+"_meta`",
		"{db}", db,
		"{name}", names[len(names)-1],
		"{ids}", strings.TrimSuffix(strings.Repeat("UNHEX(?),", BatchIDs), ","),
		"{many}", strings.TrimSuffix(strings.Repeat("UNHEX(?),", ManyIDs), ","),
		"{all}", strconv.Itoa(ManyIDs),
		"{bytes}", "COALESCE(UNHEX(?), X'')",
	)
}

const (
	mysqlLoad    = `SELECT version, username, created, accessed, expires, data FROM {t} WHERE id = UNHEX(?)`
	mysqlHas     = `SELECT 1 FROM {t} WHERE id = UNHEX(?)`
	mysqlVersion = `SELECT version FROM {t} WHERE id = UNHEX(?)`

	// No INSERT IGNORE here: it would hide other errors and cut off what is too long.
	mysqlInsert = `INSERT INTO {t} (version, username, created, accessed, expires, data, by_accessed, by_expires, id)
VALUES (?, {bytes}, ?, ?, ?, {bytes}, ?, ?, UNHEX(?))`

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
func mysqlSweep(r *strings.Replacer, col string) Sweep {
	c := strings.NewReplacer("{c}", col, "{free}", `(SELECT id FROM {t} WHERE id IN ({ids})
LIMIT 100 FOR UPDATE SKIP LOCKED) AS free STRAIGHT_JOIN {t} AS s`)
	fill := func(query string) string { return r.Replace(c.Replace(query)) }
	return Sweep{
		Find: fill(`SELECT id, by_{c}, {c} FROM {t}
WHERE (by_{c} = ? AND id > UNHEX(?) OR by_{c} > ?) AND by_{c} <= ? ORDER BY by_{c}, id LIMIT 100`),
		Delete: Skipping{
			Skip: fill(`DELETE s FROM {free} WHERE s.id = free.id AND s.{c} <= ?`),
			Wait: fill(`DELETE FROM {t} WHERE id IN ({ids}) AND {c} <= ?`),
		},
		Refile: Skipping{
			Skip: fill(`UPDATE {free} SET s.by_accessed = s.accessed, s.by_expires = s.expires ` +
				`WHERE s.id = free.id AND s.by_{c} < s.{c}`),
			Wait: fill(`UPDATE {t} SET by_accessed = accessed, by_expires = expires ` +
				`WHERE id IN ({ids}) AND by_{c} < {c}`),
		},
	}
}

// mysqlBytes has bytes go to the server as hexadecimal digits. The driver sends
// them as text, which the server translates where its settings say so, and, if
// it is not to prepare statements, puts them between quotes, which some
// character sets let nobody escape. No setting can change what digits mean. The
// one that takes empty text for NULL is why {bytes} is what it is.
func mysqlBytes(b []byte) any {
	var text strings.Builder // allocates once, and hex.EncodeToString twice
	text.Grow(2 * len(b))
	var part [256]byte
	for len(b) > 0 {
		n := min(len(b), len(part)/2)
		text.Write(part[:hex.Encode(part[:], b[:n])])
		b = b[n:]
	}
	return text.String()
}

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

// mysqlFault tells errors apart by their number.
func mysqlFault(err error) Fault {
	var my *mysql.MySQLError
	switch {
	case errors.Is(err, mysql.ErrPktTooLarge):
		return TooLarge
	case errors.Is(err, mysql.ErrInvalidConn):
		return Broken
	case !errors.As(err, &my):
		return connFault(err)
	case says(my, mysqlTooLarge):
		return TooLarge
	}
	switch fault, ok := mysqlNumbers[my.Number]; {
	case my.Number == 8113 && says(my, []string{"1054"}): // TiDB names the column
		return Foreign
	case ok:
		return fault
	}
	return mysqlOther(my)
}

// mysqlTooLarge is what is said of a record that is too large under numbers that
// mean other things as well.
var mysqlTooLarge = []string{
	"max_allowed_packet",      // 1153, or 1105, which means many things
	"message larger than max", // Vitess: grpc_max_message_size
	"Maximum writeset size",   // 1105, Galera: wsrep_max_ws_size
	`error 90 "Message too`,   // 1180, Galera's, in earlier releases
}

// mysqlNumbers are those that a class does not tell.
var mysqlNumbers = faults(map[Fault][]uint16{
	Duplicate: {1062, 1586, 1050, 1061}, // duplicate entry, table exists, index exists
	Missing: {
		1146, 1051, 1109, 1932, // no such table, also in Vitess's schema; none in the engine
		8113, // TiDB: the schema changed under a prepared statement
	},
	Foreign: {1054},                   // no such column
	Unknown: {1064, 1235, 1093, 1175}, // syntax, not supported, the same table twice, sql_safe_updates
	Vague:   {1105, 1815},             // TiDB's planner, and whatever Vitess has no number for
	TooLarge: {
		1153, 1118, 1301, 1406, // packet, row, result, column
		1197, 1705, 1713, // binary log's cache, undo record
		8004, 8025, // TiDB: transaction, entry
	},
	ReadOnly: {1290, 1792, 1836, 1874}, // by an option, in a transaction, a mode (TiDB's too), InnoDB
	Aborted: {
		1213, 1205, 3572, 1689, // deadlock, lock wait timeout, lock not available, lock aborted
		1020, 1615, // the record changed since it was read (innodb_snapshot_isolation); to be prepared anew
		3101,                         // another member's change came first (Group Replication)
		1040, 1203, 1226, 1041, 1135, // too many connections, or too much else: some may be free soon
		8002, 8005, 8022, 9007, // TiDB: conflict, commit failed and rolled back
		8027, 8028, // TiDB: the schema is changing
	},
	Broken: {
		1053, 1152, 1158, 1159, 1160, 1161, // shutdown, network
		1927, 2006, 2013, 4031, // connection killed, idle for too long
		1317, 1969, // interrupted, out of time: Vitess's also when it does not know
		1047, 3032, 3168, // node not ready (Galera), offline, not available
		// Error during commit: a Galera node that loses the others does not know if they have it.
		1180,
		9001, 9002, 9003, 9004, 9005, 9010, 9011, 8229, // TiDB: no answer from the store in time
	},
	Unprepared: {1461, 1243, 8111}, // max_prepared_stmt_count; no such statement, as behind a pooler
	Refused: {
		1021, 1114, // disk full, table full
		1036, 1364, 1366, 3819, 8001, 8020, 8121, // these have no class of their own
		1044, 1045, 1049, 1142, 1143, 1227, 1370, 1698, // access denied, no database; some servers leave the class away
		1048, 1264, 1265, 1451, 1452, 4025, // constraints, likewise
	},
})

// faults turns a list of the numbers of each fault around.
func faults(lists map[Fault][]uint16) map[uint16]Fault {
	byNumber := make(map[uint16]Fault)
	for fault, list := range lists {
		for _, n := range list {
			byNumber[n] = fault
		}
	}
	return byNumber
}

// mysqlOther goes by an error's class, where it has one: of HY000, which means
// anything, nothing is known.
func mysqlOther(my *mysql.MySQLError) Fault {
	switch state := string(my.SQLState[:]); state[:2] {
	case "08", "40", "70": // connection, rollback, interrupted
		return Broken
	case "HY", "XA", "XX", "\x00\x00":
		return Failed
	}
	return Refused
}
