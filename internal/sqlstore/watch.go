package sqlstore

import (
	"context"
	"database/sql/driver"
	"sync"
	"time"
)

// An ender is a connection of our own connectors. It implements all that their drivers' do.
type ender interface {
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

// unwatched is how long a call goes on at most before anybody looks if its context is done.
const unwatched = 20 * time.Millisecond

// A watch ends the calls of an [ender] with their contexts, one call at a time. A driver that
// is given a context that may end has a goroutine watch, for each call. To wake that, and its
// thread, takes about as long as all the rest that is done for a call on this side, and most
// calls are over at once.
type watch struct {
	conn  ender
	ended chan struct{} // conn has ended a call

	mu    sync.Mutex
	ctx   context.Context // of the call that is under way, or nil
	stmt  driver.Stmt
	stop  func() bool // once its context is watched
	timer *time.Timer
	timed bool // the timer is yet to fire: it is not stopped, as to start it wakes a thread
}

func newWatch(c ender) *watch {
	w := &watch{conn: c, ended: make(chan struct{}, 1)}
	w.timer = time.AfterFunc(time.Hour, w.begin)
	w.timer.Stop()
	return w
}

// call calls f, with a context that does not end.
func (w *watch) call(ctx context.Context, stmt driver.Stmt, f func(context.Context, driver.Stmt) error) error {
	w.start(ctx, stmt)
	defer func() {
		if stop := w.over(); stop != nil && !stop() {
			<-w.ended // nobody else has the connection before
		}
	}()
	return f(context.Background(), stmt)
}

func (w *watch) start(ctx context.Context, stmt driver.Stmt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ctx, w.stmt = ctx, stmt
	if !w.timed {
		w.timed = true
		w.timer.Reset(unwatched)
	}
}

// over returns how to stop watching the call that was under way, if it is watched.
func (w *watch) over() (stop func() bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	stop = w.stop
	w.ctx, w.stmt, w.stop = nil, nil, nil
	return stop
}

// begin begins to watch the context of the call that is under way, which may be a later one
// than that for which the timer was started.
func (w *watch) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timed = false
	if w.ctx == nil {
		return
	}
	stmt := w.stmt
	w.stop = context.AfterFunc(w.ctx, func() {
		w.conn.end(stmt)
		w.ended <- struct{}{}
	})
}
