package sqlite_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync/atomic"
)

// transact adds one to the application's number, in a transaction.
func transact(ctx context.Context, db *sql.DB, commit bool) error {
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	for { // as an application does that waits for the lock
		if _, err = c.ExecContext(ctx, "BEGIN IMMEDIATE"); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return err
	}
	_, err = c.ExecContext(ctx, "UPDATE app SET n = n + 1")
	end := "ROLLBACK"
	if commit {
		end = "COMMIT"
	}
	_, also := c.ExecContext(ctx, end)
	return errors.Join(err, also)
}

// A flakyConnector's connections carry a statement out and say that it failed, while lose
// is set.
type flakyConnector struct {
	driver driver.Driver
	dsn    string
	lose   atomic.Bool
}

func (c *flakyConnector) Driver() driver.Driver { return c.driver }

func (c *flakyConnector) Connect(context.Context) (driver.Conn, error) {
	conn, err := c.driver.Open(c.dsn)
	return &flakyConn{conn, c}, err
}

type flakyConn struct {
	driver.Conn
	c *flakyConnector
}

func (f *flakyConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	res, err := f.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
	if err == nil && f.c.lose.Load() {
		return nil, errors.New("disk I/O error")
	}
	return res, err
}

func (f *flakyConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return f.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
}
