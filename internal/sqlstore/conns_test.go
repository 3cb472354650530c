package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"testing"
)

// counting is a driver whose connections count the statements that are open.
type counting struct{ open, prepared int }

func (c *counting) Connect(context.Context) (driver.Conn, error) { return &countingConn{c: c}, nil }
func (c *counting) Driver() driver.Driver                        { return nil }

type countingConn struct {
	driver.Conn
	c *counting
}

func (c *countingConn) Close() error { return nil }

func (c *countingConn) PrepareContext(context.Context, string) (driver.Stmt, error) {
	c.c.open++
	c.c.prepared++
	return &countingStmt{c: c.c}, nil
}

type countingStmt struct {
	driver.Stmt
	c *counting
}

func (s *countingStmt) Close() error {
	s.c.open--
	return nil
}

func (s *countingStmt) ExecContext(context.Context, []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), nil
}

// TestStatementsOfConnections finds that each connection prepares a statement once,
// that those of closed connections are forgotten, and that Close closes the rest.
func TestStatementsOfConnections(t *testing.T) {
	c := new(counting)
	db := sql.OpenDB(c)
	defer db.Close()
	db.SetMaxOpenConns(1)
	s, err := newStore(db, Options{}, func([]string) dialect {
		return dialect{q: Queries{Delete: "DELETE"}, meaning: func(error) Fault { return Failed }}
	})
	if err != nil {
		t.Fatal(err)
	}
	const reconnects = 100
	for i := range reconnects {
		for range 3 {
			if err := s.Delete(t.Context(), [16]byte{}); err != nil {
				t.Fatal(err)
			}
		}
		if i < reconnects-1 {
			db.SetMaxIdleConns(-1) // closes the connection
			db.SetMaxIdleConns(1)
		}
	}
	if c.prepared != reconnects {
		t.Errorf("got %d statements prepared on %d connections, want one each", c.prepared, reconnects)
	}
	if n := len(s.conns.byConn); n > 10 {
		t.Errorf("got %d connections remembered, of a pool of one, want 10 at most", n)
	}
	before := c.open
	if err := s.Close(); err != nil || before-c.open != 1 {
		t.Errorf("Close: got %v, and %d statements closed, want that of the open connection", err, before-c.open)
	}
}
