package session2

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/session2/session2/internal/sqlstore"
)

// What the errors of databases mean. An error that a server answered is a
// definite no, unless it is known to pass or to leave open what became of the
// statement. The engines' own numbers are from their documentation and source.

// postgresFault tells errors apart by their SQLSTATE, which lib/pq and pgx both
// show by this method.
func postgresFault(err error) sqlstore.Fault {
	var state interface{ SQLState() string }
	if !errors.As(err, &state) {
		return sqlConnFault(err)
	}
	if says(err, postgresTooLarge) {
		return sqlstore.TooLarge
	}
	code := state.SQLState()
	switch code {
	case "23505", "42P07", "42710": // unique violation, duplicate table, duplicate object
		return sqlstore.Duplicate
	case "42P01": // undefined table
		return sqlstore.Missing
	case "42703", "42804", "42883": // undefined column; one of another type: datatype mismatch, no such operator
		return sqlstore.Foreign
	case "42601", "0A000": // syntax error, feature not supported
		return sqlstore.Unknown
	case "54000", "22001": // program limit exceeded, string too long
		return sqlstore.TooLarge
	case "25006": // read-only transaction: a standby, or a primary that became one
		return sqlstore.ReadOnly
	case "40000", "40001", "40P01": // rolled back, serialization failure, deadlock
		return sqlstore.Aborted
	case "55P03", "57014": // lock not available, query cancelled
		return sqlstore.Aborted
	case "53300": // too many connections: one of the pool's may be free soon
		return sqlstore.Aborted
	case "40003", "25P03", "25P04": // completion unknown; idle for too long, transaction for too long
		return sqlstore.Broken
	}
	return postgresClass(code, err)
}

// postgresClass is for the codes that are nothing special in their class.
func postgresClass(code string, err error) sqlstore.Fault {
	switch code[:min(2, len(code))] {
	case "08", "57": // connection exception, which is all that PgBouncer says; shutdown and the like
		return sqlstore.Broken
	case "XX", "58", "": // internal error, which YugabyteDB and CockroachDB answer for much else; system error
		if strings.Contains(err.Error(), "OBJECT_NOT_FOUND") { // YugabyteDB: a table that was dropped
			return sqlstore.Missing
		}
		return sqlstore.Failed
	}
	return sqlstore.Refused
}

// postgresTooLarge is what is said of a record that is too large under codes that
// mean other things as well.
var postgresTooLarge = []string{
	"invalid memory alloc request size",       // PostgreSQL: a gigabyte
	"command is too large",                    // CockroachDB: kv.raft.command.max_size
	"bigger than maximum allowed message",     // CockroachDB: sql.conn.max_read_buffer_message_size
	"too long RPC message", "RPC message too", // YugabyteDB: rpc_max_message_size
}

func says(err error, texts []string) bool {
	for _, text := range texts {
		if strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}

// mysqlFault tells errors apart by their number.
func mysqlFault(err error) sqlstore.Fault {
	var my *mysql.MySQLError
	switch {
	case errors.Is(err, mysql.ErrPktTooLarge):
		return sqlstore.TooLarge
	case errors.Is(err, mysql.ErrInvalidConn):
		return sqlstore.Broken
	case !errors.As(err, &my):
		return sqlConnFault(err)
	case says(my, mysqlTooLarge):
		return sqlstore.TooLarge
	}
	switch fault, ok := mysqlNumbers[my.Number]; {
	case my.Number == 8113 && says(my, []string{"1054"}): // TiDB names the column
		return sqlstore.Foreign
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
var mysqlNumbers = faults(map[sqlstore.Fault][]uint16{
	sqlstore.Duplicate: {1062, 1586, 1050}, // duplicate entry, table exists
	sqlstore.Missing: {
		1146, 1051, 1109, 1932, // no such table, also in Vitess's schema; none in the engine
		8113, // TiDB: the schema changed under a prepared statement
	},
	sqlstore.Foreign: {1054},                   // no such column
	sqlstore.Unknown: {1064, 1235, 1093, 1175}, // syntax, not supported, the same table twice, sql_safe_updates
	sqlstore.Vague:   {1105, 1815},             // TiDB's planner, and whatever Vitess has no number for
	sqlstore.TooLarge: {
		1153, 1118, 1301, 1406, // packet, row, result, column
		1197, 1705, 1713, // binary log's cache, undo record
		8004, 8025, // TiDB: transaction, entry
	},
	sqlstore.ReadOnly: {1290, 1792, 1836, 1874}, // by an option, in a transaction, a mode (TiDB's too), InnoDB
	sqlstore.Aborted: {
		1213, 1205, 3572, 1689, // deadlock, lock wait timeout, lock not available, lock aborted
		1020, 1615, // the record changed since it was read (innodb_snapshot_isolation); to be prepared anew
		3101,                         // another member's change came first (Group Replication)
		1040, 1203, 1226, 1041, 1135, // too many connections, or too much else: some may be free soon
		8002, 8005, 8022, 9007, // TiDB: conflict, commit failed and rolled back
		8027, 8028, // TiDB: the schema is changing
	},
	sqlstore.Broken: {
		1053, 1152, 1158, 1159, 1160, 1161, // shutdown, network
		1927, 2006, 2013, 4031, // connection killed, idle for too long
		1317, 1969, // interrupted, out of time: Vitess's also when it does not know
		1047, 3032, 3168, // node not ready (Galera), offline, not available
		// Error during commit: a Galera node that loses the others does not know if they have it.
		1180,
		9001, 9002, 9003, 9004, 9005, 9010, 9011, 8229, // TiDB: no answer from the store in time
	},
	sqlstore.Unprepared: {1461, 1243, 8111}, // max_prepared_stmt_count; no such statement, as behind a pooler
	sqlstore.Refused: {
		1021, 1114, // disk full, table full
		1036, 1364, 1366, 3819, 8001, 8020, 8121, // these have no class of their own
		1044, 1045, 1049, 1142, 1143, 1227, 1370, 1698, // access denied, no database; some servers leave the class away
		1048, 1264, 1265, 1451, 1452, 4025, // constraints, likewise
	},
})

// faults turns a list of the numbers of each fault around.
func faults(lists map[sqlstore.Fault][]uint16) map[uint16]sqlstore.Fault {
	byNumber := make(map[uint16]sqlstore.Fault)
	for fault, list := range lists {
		for _, n := range list {
			byNumber[n] = fault
		}
	}
	return byNumber
}

// mysqlOther goes by an error's class, where it has one: of HY000, which means
// anything, nothing is known.
func mysqlOther(my *mysql.MySQLError) sqlstore.Fault {
	switch state := string(my.SQLState[:]); state[:2] {
	case "08", "40", "70": // connection, rollback, interrupted
		return sqlstore.Broken
	case "HY", "XA", "XX", "\x00\x00":
		return sqlstore.Failed
	}
	return sqlstore.Refused
}

// sqlConnFault tells whether an error that the server did not send means that
// the connection broke.
func sqlConnFault(err error) sqlstore.Fault {
	var netErr *net.OpError
	if fmt.Sprintf("%T", err) == "*pq.safeRetryError" { // from its handshake, and it unwraps to nothing
		return sqlstore.Broken
	}
	for _, broken := range []error{driver.ErrBadConn, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, broken) {
			return sqlstore.Broken
		}
	}
	if errors.As(err, &netErr) {
		return sqlstore.Broken
	}
	return sqlstore.Failed
}
