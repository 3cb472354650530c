package sqlstore

import (
	"context"
	"database/sql/driver"
	"io"
	"net"
	"testing"
	"time"
)

// endingConn is a connection that ends its calls itself, when it is let.
type endingConn struct{ ended, let chan driver.Stmt }

func (c *endingConn) end(stmt driver.Stmt) {
	c.ended <- stmt
	<-c.let
}

// TestWatch finds that a driver is given no context to watch, that a call is ended with its
// context all the same, and that nobody else has the connection before that is done.
func TestWatch(t *testing.T) {
	c := &endingConn{make(chan driver.Stmt), make(chan driver.Stmt)}
	w := newWatch(c)
	first, second := new(countingStmt), new(countingStmt)
	ctx, cancel := context.WithCancel(t.Context())
	check := func(ctx context.Context, got, want driver.Stmt) {
		if ctx.Done() != nil || got != want {
			t.Error("the driver has a context that may end, or another statement")
		}
	}
	for _, long := range []time.Duration{0, 2 * unwatched} { // the context of the second one is watched
		w.call(ctx, first, func(ctx context.Context, got driver.Stmt) error {
			time.Sleep(long)
			check(ctx, got, first)
			return nil
		})
	}
	over := make(chan bool)
	go func() {
		w.call(ctx, second, func(ctx context.Context, got driver.Stmt) error {
			cancel()
			check(ctx, got, second)
			check(ctx, <-c.ended, second)
			return nil
		})
		close(over)
	}()
	select {
	case <-over:
		t.Error("the call is over before it was ended")
	case c.let <- nil:
	}
	<-over
}

// TestEndedConnection finds that a connection whose call was ended is not used again, although
// its driver knows nothing of that.
func TestEndedConnection(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	c := &mysqlConn{fullConn: validConn{}, socket: near}
	if !c.IsValid() {
		t.Error("a new connection is not valid")
	}
	c.end(nil)
	if _, err := far.Read(make([]byte, 1)); c.IsValid() || err != io.EOF {
		t.Errorf("once a call was ended: valid is %v, and its socket says %v", c.IsValid(), err)
	}
}

// TestCutConnection finds likewise of PostgreSQL's, whose server could not be asked to cancel.
func TestCutConnection(t *testing.T) {
	c := &postgresConn{validConn{}, new(cancelDialer)}
	if !c.IsValid() {
		t.Error("a new connection is not valid")
	}
	if c.end(nil); c.IsValid() {
		t.Error("once a call was ended it is valid")
	}
}

type validConn struct{ fullConn }

func (validConn) IsValid() bool { return true }
