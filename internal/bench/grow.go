package main

import (
	"database/sql"
	"strings"
	"time"
)

// rows makes sessions inside a database server, which nobody uses: a table grows more
// quickly so than by requests.
type rows struct {
	db     *sql.DB
	insert string // copies at most so many rows, under new IDs, and with another end
	ends   int    // how often the end is an argument
}

// The statements that copy rows. The first 100 bytes of the data are enough, and times
// differ by up to an hour, so that indexes by them have something to sort.
const (
	postgresRows = `INSERT INTO {t} (id, version, username, created, accessed, expires, by_accessed, by_expires, data)
SELECT decode(md5(random()::text || id::text), 'hex'), version, username, created, accessed,
	$1 - r, accessed - r, $1 - r, substr(data, 1, 100)
FROM (SELECT *, (random() * 3600000000)::bigint AS r FROM {t} LIMIT $2) AS old`

	mysqlRows = `INSERT INTO {t} (id, version, username, created, accessed, expires, by_accessed, by_expires, data)
SELECT UNHEX(MD5(CONCAT(UUID(), RAND(), HEX(id)))), version, username, created, accessed,
	? - r, accessed - r, ? - r, SUBSTR(data, 1, 100)
FROM (SELECT *, FLOOR(RAND() * 3600000000) AS r FROM {t} LIMIT ?) AS old`
)

func rowsOfPostgres(db *sql.DB, table string) *rows {
	return &rows{db, strings.ReplaceAll(postgresRows, "{t}", table), 1}
}

func rowsOfMySQL(db *sql.DB, table string) *rows {
	return &rows{db, strings.ReplaceAll(mysqlRows, "{t}", table), 2}
}

// add makes n sessions of those that are there.
func (r *rows) add(n int, ends time.Time) error {
	const most = 200_000 // in one transaction
	for n > 0 {
		var args []any
		for range r.ends {
			args = append(args, ends.UnixMicro())
		}
		result, err := r.db.Exec(r.insert, append(args, min(n, most))...)
		if err != nil {
			return err
		}
		made, err := result.RowsAffected()
		if err != nil {
			return err
		}
		if made == 0 {
			return errNoValue
		}
		n -= int(made)
	}
	return nil
}
