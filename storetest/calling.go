package storetest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/session2/session2"
)

// calling holds the clauses on contexts and on Close.
var calling = []clause{
	{says: "A call whose context is done on entry returns the context's error and changes nothing", check: contextDone},
	{says: "A sweep whose context is done on entry returns the context's error and changes nothing",
		needs: sweeps, check: sweepContextDone},
	{says: "Touch with a context that is done on entry returns the context's error and changes nothing",
		needs: touches, check: touchContextDone},
	{says: "Iter with a context that is done on entry yields the context's error alone",
		needs: lists, check: iterContextDone},
	{says: "Iter yields the context's error and ends when that is done between two records",
		needs: lists, check: iterContextEnds},
	{says: "IterUser and DeleteUser with a context that is done on entry return the context's error and change nothing",
		needs: users, check: userContextDone},
	{says: "DeleteUser whose context ends in its midst returns the context's error or a number that is exact",
		needs: users, check: userContextEnds},
	{says: "DeleteOld whose context ends in its midst returns the context's error or a number that is exact",
		needs: sweeps, check: sweepContextEnds},
	{says: "Setup with a context that is done on entry returns the context's error",
		needs: setsUp, check: setupContextDone},
	{says: "Close may be called twice", needs: closes, check: closeTwice},
	{says: "A call after Close is an error that does not pass for an absent record",
		needs: closes, check: useAfterClose},
}

// doneContexts are the two ways for a context to be done.
func (e *exam) doneContexts() []context.Context {
	cancelled, cancel := context.WithCancel(e.ctx())
	cancel()
	late, cancel := context.WithDeadline(e.ctx(), time.Now().Add(-time.Hour))
	e.Cleanup(cancel)
	return []context.Context{cancelled, late}
}

// stopped wants the error of a context that is done.
func (e *exam) stopped(what string, ctx context.Context, err error) {
	e.Helper()
	if !errors.Is(err, ctx.Err()) {
		e.Fatalf("%s: got %v, want %v", what, err, ctx.Err())
	}
}

func contextDone(e *exam) {
	rec, absent := e.record(), e.record()
	e.save(rec, 0)
	for _, ctx := range e.doneContexts() {
		_, err := e.store.Load(ctx, rec.ID)
		e.stopped("Load", ctx, err)
		_, err = e.store.Load(ctx, absent.ID)
		e.stopped("Load of an absent record", ctx, err)
		_, err = e.store.Has(ctx, rec.ID)
		e.stopped("Has", ctx, err)
		e.stopped("Save that creates", ctx, e.store.Save(ctx, absent, 0))
		e.stopped("Save that replaces", ctx, e.store.Save(ctx, e.next(rec), rec.Version))
		e.stopped("Save that conflicts", ctx, e.store.Save(ctx, e.next(rec), e.version()))
		e.stopped("Save asked again", ctx, e.store.Save(ctx, rec, 0))
		e.stopped("Delete", ctx, e.store.Delete(ctx, rec.ID))
		e.stopped("Delete of an absent record", ctx, e.store.Delete(ctx, absent.ID))
	}
	e.holds(rec)
	e.lacks(absent.ID)
}

func sweepContextDone(e *exam) {
	rec := e.record()
	rec.Expires = rec.Created
	e.save(rec, 0)
	for _, ctx := range e.doneContexts() {
		n, err := e.store.(session2.DeleteOldStore).DeleteOld(ctx, time.Hour)
		e.stopped("DeleteOld", ctx, err)
		if n != 0 {
			e.Fatalf("DeleteOld: got %d, want 0", n)
		}
	}
	e.holds(rec)
}

func touchContextDone(e *exam) {
	rec := e.record()
	e.save(rec, 0)
	for _, ctx := range e.doneContexts() {
		err := e.store.(session2.TouchStore).Touch(ctx, rec.ID, rec.Accessed.Add(time.Hour), rec.Expires.Add(time.Hour))
		e.stopped("Touch", ctx, err)
	}
	e.holds(rec)
}

func iterContextDone(e *exam) {
	e.create(e.records(3)...)
	for _, ctx := range e.doneContexts() {
		recs, err := collect(e.store.(session2.IterStore).Iter(ctx))
		e.stopped("Iter", ctx, err)
		if len(recs) != 0 {
			e.Fatalf("Iter: got %d records before the error, want none", len(recs))
		}
	}
}

func iterContextEnds(e *exam) {
	e.create(e.records(5)...)
	ctx, cancel := context.WithCancel(e.ctx())
	defer cancel()
	n := 0
	var last error
	for _, err := range e.store.(session2.IterStore).Iter(ctx) {
		cancel()
		n, last = n+1, err
	}
	e.stopped("Iter", ctx, last)
	if n != 2 {
		e.Fatalf("Iter: got %d steps, want a record and the error", n)
	}
}

func userContextDone(e *exam) {
	recs := e.recordsOf("alice", 3)
	e.create(recs...)
	for _, ctx := range e.doneContexts() {
		got, err := collect(e.store.(session2.UserStore).IterUser(ctx, "alice"))
		e.stopped("IterUser", ctx, err)
		if len(got) != 0 {
			e.Fatalf("IterUser: got %d records before the error, want none", len(got))
		}
		_, err = e.store.(session2.UserStore).DeleteUser(ctx, "alice")
		e.stopped("DeleteUser", ctx, err)
	}
	e.holds(recs...)
}

// An ending context is done by a deadline once it was looked at so many times, so
// that a call ends in its midst, wherever it looks.
type ending struct {
	context.Context
	mu    sync.Mutex
	looks int
	done  chan struct{}
}

func (c *ending) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.looks--; c.looks == 0 {
		close(c.done)
	}
	return c.done
}

// left returns how many more looks it takes. A goroutine of package context may
// still look when the call is over.
func (c *ending) left() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.looks
}

func (c *ending) Err() error {
	select {
	case <-c.Done():
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// endsAnywhere wants call, which removes what create creates, to return the error
// of a context that ends at its first look, at its second one, and so on, or else
// to have removed all of it and to say so. If the number may be too small, the error
// is ErrUncertain as well.
func (e *exam) endsAnywhere(create func() []session2.Record, call func(ctx context.Context) (int, error)) {
	e.Helper()
	for looks := 1; looks <= 200; looks++ {
		recs := create()
		ctx := &ending{Context: e.ctx(), looks: looks, done: make(chan struct{})}
		n, err := call(ctx)
		unsure := errors.Is(err, session2.ErrUncertain)
		switch {
		case err == nil && n != len(recs):
			e.Fatalf("got %d and no error where the context ended at look %d, want %d", n, looks, len(recs))
		case unsure && !errors.Is(err, context.DeadlineExceeded):
			e.Fatalf("got %v, want %v as well", err, context.DeadlineExceeded)
		case err != nil && !unsure:
			e.answers("The call", err, context.DeadlineExceeded)
		}
		left := e.left(recs)
		if gone := len(recs) - left; n > gone || n < gone && !unsure || err == nil && left > 0 {
			e.Fatalf("got %d, %v where the context ended at look %d; %d are gone", n, err, looks, gone)
		}
		if ctx.left() > 0 { // it was never done
			return
		}
	}
}

// left removes records and returns how many there were.
func (e *exam) left(recs []session2.Record) (n int) {
	for _, rec := range recs {
		ok, err := e.store.Has(e.ctx(), rec.ID)
		if err != nil {
			e.Fatalf("Has: %v", err)
		}
		if ok {
			n++
			e.remove(rec.ID)
		}
	}
	return n
}

func userContextEnds(e *exam) {
	e.endsAnywhere(func() []session2.Record {
		recs := e.recordsOf("alice", 5)
		e.create(recs...)
		return recs
	}, func(ctx context.Context) (int, error) {
		return e.store.(session2.UserStore).DeleteUser(ctx, "alice")
	})
}

func sweepContextEnds(e *exam) {
	e.endsAnywhere(func() []session2.Record {
		recs := e.expired(5)
		e.create(recs...)
		return recs
	}, func(ctx context.Context) (int, error) {
		return e.store.(session2.DeleteOldStore).DeleteOld(ctx, time.Hour)
	})
}

func setupContextDone(e *exam) {
	for _, ctx := range e.doneContexts() {
		e.stopped("Setup", ctx, e.store.(session2.SetupStore).Setup(ctx))
	}
}

func closeTwice(e *exam) {
	e.save(e.record(), 0)
	e.close()
	e.close()
}

func useAfterClose(e *exam) {
	rec := e.recordsOf("alice", 1)[0]
	e.save(rec, 0)
	e.close()
	_, err := e.store.Load(e.ctx(), rec.ID)
	e.fails("Load", err)
	_, err = e.store.Has(e.ctx(), rec.ID)
	e.fails("Has", err)
	e.fails("Save that creates", e.store.Save(e.ctx(), e.record(), 0))
	e.fails("Save that replaces", e.store.Save(e.ctx(), e.next(rec), rec.Version))
	e.fails("Delete", e.store.Delete(e.ctx(), rec.ID))
	e.optionalAfterClose(rec)
	if e.has&reopens != 0 {
		e.reopen()
		e.holds(rec)
	}
}

// optionalAfterClose calls the optional methods that the store has.
func (e *exam) optionalAfterClose(rec session2.Record) {
	e.Helper()
	ctx := e.ctx()
	if e.has&sweeps != 0 {
		_, err := e.store.(session2.DeleteOldStore).DeleteOld(ctx, 0)
		e.fails("DeleteOld", err)
	}
	if e.has&lists != 0 {
		_, err := collect(e.store.(session2.IterStore).Iter(ctx))
		e.fails("Iter", err)
	}
	if e.has&touches != 0 {
		e.fails("Touch", e.store.(session2.TouchStore).Touch(ctx, rec.ID, rec.Accessed, rec.Expires.Add(time.Hour)))
	}
	if e.has&users != 0 {
		_, err := collect(e.store.(session2.UserStore).IterUser(ctx, rec.User))
		e.fails("IterUser", err)
		_, err = e.store.(session2.UserStore).DeleteUser(ctx, rec.User)
		e.fails("DeleteUser", err)
		_, err = e.store.(session2.UserStore).DeleteUser(ctx, "")
		e.fails("DeleteUser of the empty user", err)
	}
	if e.has&setsUp != 0 {
		e.fails("Setup", e.store.(session2.SetupStore).Setup(ctx))
	}
}
