package main

import (
	"context"
	crand "crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// byHandSQL is a prepared SELECT, UPDATE or INSERT by primary key: in the barest table
// there is, or in one with the columns and the indexes of session2's.
type byHandSQL struct {
	like  bool // the table is like session2's
	db    sqlRunner
	sweep func() error
}

// sqlSweep removes what has ended in one statement, as one does by hand.
func sqlSweep(db *sql.DB, table string) func() error {
	return func() error {
		_, err := db.Exec(fmt.Sprintf("DELETE FROM %s WHERE by_expires <= %d", table, time.Now().UnixMicro()))
		return err
	}
}

func (h byHandSQL) sweeper() *sweeper {
	if h.sweep == nil {
		return nil
	}
	return &sweeper{sweep: h.sweep, expiring: answer(func(http.ResponseWriter, *http.Request) error {
		var id [16]byte
		crand.Read(id[:])
		return h.insert(id, byHandData(), shortLife)
	})}
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
	return h.insert(id, data, 24*time.Hour)
}

// insert is for a table that is like session2's.
func (h byHandSQL) insert(id [16]byte, data []byte, life time.Duration) error {
	now := time.Now().UnixMicro()
	end := now + life.Microseconds()
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
