package sqlstore

import (
	"context"
	"database/sql/driver"
)

// An ender is a connection of our own connectors.
type ender interface {
	fullConn

	// end ends the call of a statement that is under way, which returns soon then. The
	// connection is used no more.
	end(stmt driver.Stmt)
}

// fullConn is what the connections of the drivers are.
type fullConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// An endedConn ends the calls of one connection, one at a time.
type endedConn struct {
	conn ender
	stmt driver.Stmt   // of the call under way
	done chan struct{} // that was ended
	ending
}

func newEndedConn(c ender) *endedConn {
	e := &endedConn{conn: c, done: make(chan struct{}, 1)}
	e.ending.f = func() {
		e.conn.end(e.stmt)
		e.done <- struct{}{}
	}
	return e
}

// call lends f a statement. A driver that is given a context which may end has a goroutine watch
// it, for each call: to wake that, and its thread, takes about as long as all the rest that is
// done for a call on this side. So where the connection is an [ender], f is to give it one that
// does not, and the call is ended from here.
func (e *endedConn) call(ctx context.Context, stmt driver.Stmt, f func(context.Context, driver.Stmt) error) error {
	if e == nil {
		return f(ctx, stmt)
	}
	e.stmt = stmt
	stop := e.stop
	if w, ok := ctx.(*watch); ok {
		e.at(w)
	} else {
		stop = context.AfterFunc(ctx, e.f)
	}
	defer func() {
		if !stop() {
			<-e.done // nobody else has the connection before
		}
	}()
	return f(context.Background(), stmt)
}
