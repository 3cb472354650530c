package sqltest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"sync"
	"testing"
)

// tappedDriver wraps a driver: it counts the calls that go to the server, and
// tampers with those of one statement where a test says so.
type tappedDriver struct {
	driver driver.Driver
	dsn    string

	mu     sync.Mutex
	counts map[string]int // "prepare", "exec", "query", "direct", "begin"
	after  func(query string) error
	before func(query string) error
	asked  func(query string) error
}

// tap opens the database through a tap.
func tap(t testing.TB, name, dsn string) (*sql.DB, *tappedDriver) {
	t.Helper()
	d := &tappedDriver{driver: openSQL(t, name, dsn).Driver(), dsn: dsn, counts: make(map[string]int)}
	db := sql.OpenDB(d)
	t.Cleanup(func() { db.Close() })
	return db, d
}

// unconnected returns a database that nobody may call.
func unconnected(t testing.TB) *sql.DB {
	t.Helper()
	db := sql.OpenDB(&tappedDriver{})
	t.Cleanup(func() { db.Close() })
	return db
}

func (d *tappedDriver) Driver() driver.Driver { return d.driver }

func (d *tappedDriver) Connect(context.Context) (driver.Conn, error) {
	c, err := d.driver.Open(d.dsn)
	if err != nil {
		return nil, err
	}
	return &tappedConn{Conn: c, tap: d}, nil
}

func (d *tappedDriver) count(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counts[what]++
}

// taken returns the counts so far, and begins anew.
func (d *tappedDriver) taken() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := fmt.Sprint(d.counts)
	clear(d.counts)
	return s
}

// failures returns how many executions failed, not counting those that were
// tampered with.
func (d *tappedDriver) failures() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts["failed"]
}

// tamper sets what happens before and after each execution of a statement; an
// error takes the place of its answer.
func (d *tappedDriver) tamper(before, after func(query string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.before, d.after = before, after
}

// tamperQueries sets what happens before each query: an error takes the place of its rows.
func (d *tappedDriver) tamperQueries(asked func(query string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = asked
}

func (d *tappedDriver) hook(which *func(string) error, query string) error {
	d.mu.Lock()
	f := *which
	d.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(query)
}

// tappedConn offers only what must be prepared: whatever goes to the server is
// seen.
type tappedConn struct {
	driver.Conn
	tap *tappedDriver
}

func (c *tappedConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	c.tap.count("prepare")
	s, err := c.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return &tappedStmt{Stmt: s, tap: c.tap, query: query}, nil
}

func (c *tappedConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	c.tap.count("begin")
	return c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
}

func (c *tappedConn) CheckNamedValue(nv *driver.NamedValue) error {
	return c.Conn.(driver.NamedValueChecker).CheckNamedValue(nv)
}

type tappedStmt struct {
	driver.Stmt
	tap   *tappedDriver
	query string
}

func (s *tappedStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	s.tap.count("exec")
	if err := s.tap.hook(&s.tap.before, s.query); err != nil {
		return nil, err
	}
	res, err := s.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
	if err != nil {
		s.tap.count("failed")
	} else {
		err = s.tap.hook(&s.tap.after, s.query)
	}
	if err != nil {
		return nil, err
	}
	return res, nil
}

func (s *tappedStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	s.tap.count("query")
	if err := s.tap.hook(&s.tap.asked, s.query); err != nil {
		return nil, err
	}
	return s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
}
