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
	conn   driver.ConnPrepareContext
	ends   *endedConn // nil if the driver ends its calls
	prompt bool       // it ends a call with its context
	used   uint64     // when it was last used, as counted by conns.uses
	stmts  map[string]driver.Stmt
}

// errIndirect says that a statement has to go through database/sql: nothing was
// sent, or a query whose connection broke.
var errIndirect = errors.New("not without database/sql")

// on lends f a statement that is prepared on one of the pool's connections, and the context to
// call it with. It returns [errIndirect] where there can be none; and [errElsewhere] where it is
// to be done here, on the caller's goroutine, and something could hold it up: a connection that
// is yet to be made, or one that does not end a call with its context.
func (s *Store) on(ctx context.Context, query string, here bool,
	f func(context.Context, driver.Stmt) error,
) error {
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
		own, err := s.conns.of(dc, s.db)
		if err != nil {
			return err
		}
		if s.prompt.Load() != own.prompt {
			s.prompt.Store(own.prompt)
		}
		if here && !own.prompt {
			return errElsewhere
		}
		stmt, err := own.stmt(ctx, query)
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil { // lib/pq may have closed it, and answered no error
			return err
		}
		return own.ends.call(ctx, stmt, f)
	})
}

// of returns what there is of the connection, or errIndirect, for one that it cannot
// know again or prepare on, and once the store is closed. The pool tells nobody which
// connections it has closed. So where there are many more than it has, those that were
// not used for the longest time are forgotten.
func (c *conns) of(dc any, db *sql.DB) (*connStmts, error) {
	conn, ok := dc.(driver.Conn)
	preparer, can := dc.(driver.ConnPrepareContext)
	if !ok || !can || reflect.TypeOf(dc).Kind() != reflect.Pointer {
		return nil, errIndirect
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errIndirect
	}
	own := c.byConn[conn]
	if own == nil {
		c.forget(2*db.Stats().OpenConnections + 8)
		own = &connStmts{conn: preparer, prompt: isPrompt(dc), stmts: make(map[string]driver.Stmt)}
		if e, ok := dc.(ender); ok {
			own.ends = newEndedConn(e)
		}
		if c.byConn == nil {
			c.byConn = make(map[driver.Conn]*connStmts)
		}
		c.byConn[conn] = own
	}
	c.uses++
	own.used = c.uses
	return own, nil
}

// stmt returns the statement as prepared on the connection.
func (own *connStmts) stmt(ctx context.Context, query string) (driver.Stmt, error) {
	if stmt := own.stmts[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := own.conn.PrepareContext(ctx, query)
	if err != nil {
		return nil, errIndirect // which says why, and gets over more
	}
	own.stmts[query] = stmt
	return stmt, nil
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
