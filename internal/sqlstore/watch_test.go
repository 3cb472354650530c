package sqlstore

import (
	"context"
	"database/sql/driver"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// endingConn is a connection that ends its calls itself, when it is let.
type endingConn struct {
	validConn
	ended, let chan driver.Stmt
}

func (c *endingConn) end(stmt driver.Stmt) {
	c.ended <- stmt
	<-c.let
}

// TestCallEndsWithItsContext finds that a driver is given no context to watch, that a call is
// ended with its context all the same, and that nobody else has the connection before that is
// done: once with a context of the store's own, and once with another.
func TestCallEndsWithItsContext(t *testing.T) {
	var all watches
	parent, cancel := context.WithCancel(t.Context())
	testEnding(t, all.begin(parent, time.Hour), cancel)
	testEnding(t, parent, cancel) // which is done by now
}

func testEnding(t *testing.T, ctx context.Context, cancel func()) {
	c := &endingConn{ended: make(chan driver.Stmt), let: make(chan driver.Stmt)}
	own := newEndedConn(c)
	first, second := new(countingStmt), new(countingStmt)
	check := func(ctx context.Context, got, want driver.Stmt) {
		if ctx.Done() != nil || got != want {
			t.Error("the driver has a context that may end, or another statement")
		}
	}
	own.call(t.Context(), first, func(ctx context.Context, got driver.Stmt) error {
		check(ctx, got, first)
		return nil
	})
	over := make(chan bool)
	go func() {
		own.call(ctx, second, func(ctx context.Context, got driver.Stmt) error {
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

// asked is a context that counts how often somebody begins to watch it.
type asked struct {
	context.Context
	done atomic.Int32
}

func (c *asked) Done() <-chan struct{} {
	c.done.Add(1)
	return c.Context.Done()
}

// TestWatchesNoCallThatIsOverSoon finds that nobody watches the context of a call that is over
// at once, and that many such calls leave nothing behind.
func TestWatchesNoCallThatIsOverSoon(t *testing.T) {
	all := watches{timed: true} // as if the next look were far off
	ctx := &asked{Context: t.Context()}
	for range 100 {
		first, second := all.begin(ctx, time.Hour), all.begin(ctx, time.Hour)
		first.over()
		second.over()
		second.over()
		if first.Err() != context.Canceled {
			t.Fatal("a call that is over has the error", first.Err())
		}
		<-first.Done()
	}
	if len(all.young) > 0 || ctx.done.Load() > 0 {
		t.Errorf("%d calls are left, and their context was watched %d times", len(all.young), ctx.done.Load())
	}
}

// TestWatchIsDone finds that a call's context is done with its parent, and at its deadline, and
// those that come of it likewise.
func TestWatchIsDone(t *testing.T) {
	var all watches
	ended, cancel := context.WithCancel(t.Context())
	defer cancel()
	soon, stop := context.WithTimeout(t.Context(), unwatched)
	defer stop()
	for name, c := range map[string]struct {
		parent  context.Context
		timeout time.Duration
		want    error
	}{
		"parent":            {ended, time.Hour, context.Canceled},
		"parent, no limit":  {ended, 0, context.Canceled},
		"parent's deadline": {soon, time.Hour, context.DeadlineExceeded},
		"timeout":           {t.Context(), 2 * unwatched, context.DeadlineExceeded},
		"short timeout":     {t.Context(), time.Nanosecond, context.DeadlineExceeded},
	} {
		w := all.begin(c.parent, c.timeout)
		child, release := context.WithCancel(w)
		defer release()
		called, stopped := make(chan bool), w.AfterFunc(func() { t.Error(name, "a function was called that was stopped") })
		w.AfterFunc(func() { close(called) })
		if !stopped() || stopped() {
			t.Error(name, "a function is not stopped, or twice")
		}
		if c.parent == ended && w.Err() == nil {
			cancel()
		}
		<-w.Done()
		<-child.Done()
		<-called
		if w.Err() != c.want || child.Err() != c.want {
			t.Errorf("%s: error %v, of its child %v", name, w.Err(), child.Err())
		}
		late := make(chan bool)
		w.AfterFunc(func() { close(late) })
		<-late
		if w.over(); w.Err() != c.want {
			t.Errorf("%s: error %v once it is over", name, w.Err())
		}
	}
}

// TestWatchSaysAtOnce finds that the context of a call that is yet to be watched has the error
// of its parent, and that of its deadline, and is done once it has said so. What it has said
// stays.
func TestWatchSaysAtOnce(t *testing.T) {
	all := watches{timed: true} // as if the next look were far off
	parent, cancel := context.WithCancel(t.Context())
	cancel()
	for want, w := range map[error]*watch{
		nil:                      all.begin(t.Context(), time.Hour),
		context.Canceled:         all.begin(parent, time.Hour),
		context.DeadlineExceeded: all.begin(t.Context(), time.Nanosecond),
	} {
		for range 2 {
			if err := w.Err(); err != want {
				t.Errorf("error %v, want %v", err, want)
			}
			select {
			case <-w.Done():
				if want == nil {
					t.Error("it is done")
				}
			default:
				if want != nil {
					t.Errorf("it is not done, for %v", want)
				}
			}
			if want != nil {
				w.over()
			}
		}
	}
}

// TestWatchIsNotAheadOfItsParent finds that what ends with its parent's deadline ends no sooner,
// by a clock of its own.
func TestWatchIsNotAheadOfItsParent(t *testing.T) {
	var all watches
	end := time.Now().Add(2 * unwatched)
	parent := &deadlineOnly{t.Context(), end}
	w := all.begin(parent, time.Hour)
	defer w.over()
	if got, ok := w.Deadline(); !ok || !got.Equal(end) {
		t.Errorf("its deadline is %v, %v, want its parent's, %v", got, ok, end)
	}
	for time.Now().Before(end.Add(unwatched)) {
		if err := w.Err(); err != nil {
			t.Fatal("it has ended, and its parent has not:", err)
		}
		time.Sleep(unwatched / 4)
	}
}

// deadlineOnly is a context whose deadline is there, and which is late to heed it.
type deadlineOnly struct {
	context.Context
	end time.Time
}

func (c *deadlineOnly) Deadline() (time.Time, bool) { return c.end, true }

// TestWatchOfAWatch finds that the parent of a call's context may be another call's, of the same
// store: drivers hand them to functions of the application's.
func TestWatchOfAWatch(t *testing.T) {
	var all watches
	outer := all.begin(t.Context(), 2*unwatched)
	inner := all.begin(outer, time.Hour)
	<-inner.Done()
	if err := inner.Err(); err != context.DeadlineExceeded {
		t.Error("error", err)
	}
	inner.over()
	outer.over()
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
