package main

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/session2/session2/internal/sqlstore"
)

// byHandSQL is a prepared SELECT, UPDATE or INSERT by primary key: in the barest table
// there is, or in one with the columns and the indexes of session2's.
type byHandSQL struct {
	like   bool // the table is like session2's
	db     sqlRunner
	delete string // removes at most a batch of what has ended
	rows   *rows  // nil where the table is the barest
}

// The statements that remove what has ended, in the batches that session2 removes.
const (
	postgresEnded = `DELETE FROM {t} WHERE id IN
(SELECT id FROM {t} WHERE by_expires <= {now} ORDER BY by_expires LIMIT {n})`
	mysqlEnded = `DELETE FROM {t} WHERE by_expires <= {now} ORDER BY by_expires LIMIT {n}`
)

const inBatches = ", in batches"

// sweeper removes what has ended by hand: in one statement, and batch by batch.
func (h byHandSQL) sweeper() *sweeper {
	return &sweeper{ways: []way{
		{", one statement", func() error { _, err := h.sweep(math.MaxInt32); return err }},
		{inBatches, func() error {
			for {
				if n, err := h.sweep(sqlstore.BatchIDs); err != nil || n == 0 {
					return err
				}
			}
		}},
	}}
}

func (h byHandSQL) sweep(most int) (int64, error) {
	now := strconv.FormatInt(time.Now().UnixMicro(), 10)
	result, err := h.rows.db.Exec(strings.NewReplacer("{now}", now, "{n}", strconv.Itoa(most)).Replace(h.delete))
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// sqlRunner runs the prepared statements.
type sqlRunner interface {
	row(q query, args ...any) interface{ Scan(...any) error }
	exec(q query, args ...any) error
	close() error
}

// query is one of the three statements.
type query int

const (
	sqlGet query = iota
	sqlPut
	sqlAdd
)

// byHandQueries are the statements for a table, with the marks for arguments that a
// database has.
func byHandQueries(table string, like bool, mark func(int) string) (list [3]string) {
	list = [3]string{
		"SELECT data FROM {t} WHERE id = ?",
		"UPDATE {t} SET data = ? WHERE id = ?",
		"INSERT INTO {t} (id, data) VALUES (?, ?)",
	}
	if like {
		list = [3]string{
			"SELECT version, username, created, accessed, expires, data FROM {t} WHERE id = ?",
			"UPDATE {t} SET version = ?, accessed = ?, expires = ?, data = ? WHERE id = ?",
			"INSERT INTO {t} (id, version, username, created, accessed, expires, by_accessed, by_expires, data)" +
				" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
		}
	}
	for i, text := range list {
		parts := strings.Split(strings.ReplaceAll(text, "{t}", table), "?")
		for j := range parts[:len(parts)-1] {
			parts[j] += mark(j + 1)
		}
		list[i] = strings.Join(parts, "")
	}
	return list
}

func (h byHandSQL) get(id [16]byte) (data []byte, err error) {
	row := h.db.row(sqlGet, id[:])
	if !h.like {
		return data, row.Scan(&data)
	}
	var version, created, accessed, expires int64
	var user []byte
	return data, row.Scan(&version, &user, &created, &accessed, &expires, &data)
}

func (h byHandSQL) put(id [16]byte, data []byte) error {
	if !h.like {
		return h.db.exec(sqlPut, data, id[:])
	}
	now := time.Now().UnixMicro()
	return h.db.exec(sqlPut, rand.Int64(), now, now+(24*time.Hour).Microseconds(), data, id[:])
}

func (h byHandSQL) add(id [16]byte, data []byte) error {
	if !h.like {
		return h.db.exec(sqlAdd, id[:], data)
	}
	now := time.Now().UnixMicro()
	end := now + (24 * time.Hour).Microseconds()
	return h.db.exec(sqlAdd, id[:], rand.Int64(), []byte{}, now, now, end, now, end, data)
}

func (h byHandSQL) close() error { return h.db.close() }

// prepared runs them by database/sql, on whatever driver.
type prepared struct {
	db   *sql.DB
	list [3]*sql.Stmt
}

func prepare(db *sql.DB, queries [3]string) (sqlRunner, error) {
	p := &prepared{db: db}
	for i, text := range queries {
		var err error
		if p.list[i], err = db.Prepare(text); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *prepared) row(q query, args ...any) interface{ Scan(...any) error } {
	return p.list[q].QueryRow(args...)
}

func (p *prepared) exec(q query, args ...any) error {
	result, err := p.list[q].Exec(args...)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); n != 1 || err != nil {
		return errors.Join(errNoValue, err)
	}
	return nil
}

func (p *prepared) close() error { return p.db.Close() }

// pooled runs them by pgx's own pool, which prepares them by itself.
type pooled struct {
	pool *pgxpool.Pool
	list [3]string
}

func (p *pooled) row(q query, args ...any) interface{ Scan(...any) error } {
	return p.pool.QueryRow(context.Background(), p.list[q], args...)
}

func (p *pooled) exec(q query, args ...any) error {
	tag, err := p.pool.Exec(context.Background(), p.list[q], args...)
	if err == nil && tag.RowsAffected() != 1 {
		err = errNoValue
	}
	return err
}

func (p *pooled) close() error {
	p.pool.Close()
	return nil
}
