package session2

import (
	"database/sql"

	"github.com/session2/session2/internal/sqlstore"
)

// MySQLStore keeps records in an InnoDB table of MySQL or MariaDB, or of a database
// that speaks as they do. Goroutines, processes and machines may share the table;
// several stores share a database under different table names.
//
// The columns are bytes and integers, and the application counts the time, so that
// nothing depends on a collation, a character set, the sql_mode, a time zone or the
// server's clock, nor on the driver's parseTime, loc, clientFoundRows and
// interpolateParams. A record's data must fit the server's max_allowed_packet.
//
// What [PostgresStore] says of its calls holds here as well, but for heap-only updates.
type MySQLStore struct{ sqlStore }

// NewMySQLStore returns a store on db, which is one of
// [github.com/go-sql-driver/mysql] and stays the caller's to close. It does not
// call the database: Setup does. The driver logs broken connections to standard
// error unless [mysql.SetLogger] or the Logger of its [mysql.Config] says otherwise.
func NewMySQLStore(db *sql.DB, opts *SQLOptions) (*MySQLStore, error) {
	s, err := newSQLStore(sqlstore.NewMySQL(db, opts.fill()))
	if err != nil {
		return nil, err
	}
	return &MySQLStore{s}, nil
}
