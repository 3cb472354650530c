package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"reflect"
	"sync"
)

// conns keeps the statements of the calls that every request makes, prepared on
// each of the pool's connections. These go to the driver without the Stmt and
// the Rows of database/sql, which start a goroutine for every query whose
// context may end, and run a statement twice without telling.
type conns struct {
	mu     sync.Mutex
	byConn map[driver.Conn]*connStmts
	uses   uint64
	closed bool
}

// connStmts are one connection's statements. They belong to whom [sql.Conn.Raw]
// has lent the connection.
type connStmts struct {
	used  uint64 // when it was last used, as counted by conns.uses
	stmts map[string]driver.Stmt
}

// errIndirect says that a statement has to go through database/sql: nothing was
// sent, or a query whose connection broke.
var errIndirect = errors.New("not without database/sql")

// on lends f a statement that is prepared on one of the pool's connections. It
// returns [errIndirect] where there can be none; and [errElsewhere] where it is to be
// done here, on the caller's goroutine, and something could hold it up: a connection that
// is yet to be made, or one that does not end a call with its context.
func (s *Store) on(ctx context.Context, query string, here bool, f func(driver.Stmt) error) error {
	if s.opts.NoPrepare {
		return errIndirect
	}
	if here && s.connects() {
		return errElsewhere
	}
	c, err := s.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Raw(func(dc any) error {
		prompt := isPrompt(dc)
		if s.prompt.Load() != prompt {
			s.prompt.Store(prompt)
		}
		if here && !prompt {
			return errElsewhere
		}
		stmt, err := s.conns.stmt(ctx, dc, query, s.db)
		if err != nil {
			return err
		}
		return f(stmt)
	})
}

// connects reports whether the pool may make a connection for the next call. Where it has
// as many as it may, the call waits for one, and not longer than its context lasts. An idle
// one may turn out to be dead, and be made anew all the same: by these drivers, that ends
// with the context as well.
func (s *Store) connects() bool {
	pool := s.db.Stats()
	return pool.Idle == 0 && (pool.MaxOpenConnections == 0 || pool.OpenConnections < pool.MaxOpenConnections)
}

// isPrompt reports whether a connection ends each call when its context ends, whatever the
// server does, as those of these two drivers do. One that is wrapped is of another type.
func isPrompt(dc any) bool {
	t := reflect.TypeOf(dc)
	if t.Kind() != reflect.Pointer {
		return false
	}
	switch t = t.Elem(); t.PkgPath() {
	case "github.com/go-sql-driver/mysql":
		return t.Name() == "mysqlConn"
	case "github.com/jackc/pgx/v5/stdlib":
		return t.Name() == "Conn"
	}
	return false
}

// stmt returns the statement as prepared on the connection.
func (c *conns) stmt(ctx context.Context, dc any, query string, db *sql.DB) (driver.Stmt, error) {
	conn, ok := dc.(driver.Conn)
	preparer, can := dc.(driver.ConnPrepareContext)
	if !ok || !can || reflect.TypeOf(dc).Kind() != reflect.Pointer {
		return nil, errIndirect
	}
	own := c.of(conn, db)
	if own == nil {
		return nil, errIndirect
	}
	if stmt := own.stmts[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := preparer.PrepareContext(ctx, query)
	if err != nil {
		return nil, errIndirect // which says why, and gets over more
	}
	own.stmts[query] = stmt
	return stmt, nil
}

// of returns the connection's statements, or nil once the store is closed. The
// pool tells nobody which connections it has closed. So where there are many
// more than it has, those that were not used for the longest time are forgotten.
func (c *conns) of(conn driver.Conn, db *sql.DB) *connStmts {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	own := c.byConn[conn]
	if own == nil {
		c.forget(2*db.Stats().OpenConnections + 8)
		own = &connStmts{stmts: make(map[string]driver.Stmt)}
		if c.byConn == nil {
			c.byConn = make(map[driver.Conn]*connStmts)
		}
		c.byConn[conn] = own
	}
	c.uses++
	own.used = c.uses
	return own
}

// forget makes room for one connection more, where there are to be so many.
func (c *conns) forget(most int) {
	for len(c.byConn) >= most {
		var oldest driver.Conn
		for conn, own := range c.byConn {
			if oldest == nil || own.used < c.byConn[oldest].used {
				oldest = conn
			}
		}
		delete(c.byConn, oldest)
	}
}

// close closes the statements on the connections that are idle. Those of others
// end with their connections.
func (c *conns) close(ctx context.Context, db *sql.DB) error {
	c.mu.Lock()
	byConn := c.byConn
	c.byConn, c.closed = nil, true
	c.mu.Unlock()
	if len(byConn) == 0 {
		return nil
	}
	var errs []error
	for range db.Stats().Idle {
		conn, err := db.Conn(ctx)
		if err != nil {
			break // the database is closed, or does not answer
		}
		defer conn.Close() // and not before: each is to be another one
		errs = append(errs, conn.Raw(func(dc any) error {
			dcn, _ := dc.(driver.Conn)
			own := byConn[dcn]
			if own == nil {
				return nil
			}
			var errs []error
			for _, stmt := range own.stmts {
				errs = append(errs, stmt.Close())
			}
			return errors.Join(errs...)
		}))
	}
	return errors.Join(errs...)
}
