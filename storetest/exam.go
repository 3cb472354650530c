package storetest

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"github.com/session2/session2"
)

// An exam is one clause being checked: where to report, and a store over a
// fresh directory.
type exam struct {
	testing.TB
	*suite
	clause
	has    trait
	rand   *rand.Rand // for the clause's own goroutine
	dir    string
	store  session2.Store
	opened []session2.Store
	joined <-chan struct{} // in a process that does a job: closed when all do it
}

// examine checks one clause and reports to t. The check has a goroutine of its
// own, so that one that hangs fails by its name and the others still run.
func (s *suite) examine(t testing.TB, c clause, has trait) {
	t.Helper()
	hash := fnv.New64()
	hash.Write([]byte(c.says)) // so a clause draws the same numbers when run alone
	v := &verdict{TB: t}
	e := &exam{TB: v, suite: s, clause: c, has: has, rand: rand.New(rand.NewPCG(s.Seed, hash.Sum64()))}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer e.closeAll()
		defer e.recover()
		e.dir = v.TempDir()
		e.store = e.another()
		c.check(e)
	}()
	select {
	case <-done:
	case <-time.After(s.limit):
		v.close()
		t.Errorf("%s: the store hangs, or is too slow: no answer within %v", c.says, s.limit)
	}
}

// verdict is where a clause reports to. It is closed when the clause is given up, for
// what that says later would end the test binary.
type verdict struct {
	testing.TB
	mu     sync.RWMutex
	closed bool
}

func (v *verdict) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed = true
}

// open calls f unless the verdict is closed.
func (v *verdict) open(f func()) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if !v.closed {
		f()
	}
}

func (v *verdict) Log(args ...any)   { v.Helper(); v.open(func() { v.TB.Log(args...) }) }
func (v *verdict) Fail()             { v.open(v.TB.Fail) }
func (v *verdict) Error(args ...any) { v.Helper(); v.Errorf("%s", fmt.Sprintln(args...)) }
func (v *verdict) Fatal(args ...any) { v.Helper(); v.Fatalf("%s", fmt.Sprintln(args...)) }

func (v *verdict) Logf(format string, args ...any) {
	v.Helper()
	v.open(func() { v.TB.Logf(format, args...) })
}

func (v *verdict) Errorf(format string, args ...any) {
	v.Helper()
	v.open(func() { v.TB.Errorf(format, args...) })
}

func (v *verdict) Fatalf(format string, args ...any) {
	v.Helper()
	v.Errorf(format, args...)
	runtime.Goexit()
}

func (v *verdict) FailNow() {
	v.Fail()
	runtime.Goexit()
}

// recover makes a panic of the store a failure of the clause.
func (e *exam) recover() {
	if p := recover(); p != nil {
		e.Errorf("panic: %v\n%s", p, debug.Stack())
	}
}

// closeAll closes what the clause has opened, the clause's own Close included:
// closing twice is allowed.
func (e *exam) closeAll() {
	for _, store := range e.opened {
		func() {
			defer e.recover()
			if err := closeStore(store); err != nil {
				e.Errorf("Close: %v", err)
			}
		}()
	}
}

// Errorf reports that the clause does not hold.
func (e *exam) Errorf(format string, args ...any) {
	e.Helper()
	e.TB.Errorf("%s.\n\t%s", e.says, fmt.Sprintf(format, args...))
}

// Fatalf reports that the clause does not hold and ends it.
func (e *exam) Fatalf(format string, args ...any) {
	e.Helper()
	e.Errorf(format, args...)
	runtime.Goexit()
}

// ctx is the context of every call that is not about contexts.
func (e *exam) ctx() context.Context { return e.Context() }

// another opens one more store over the same data.
func (e *exam) another() session2.Store {
	store := e.suite.open(e.TB, e.dir)
	e.opened = append(e.opened, store)
	return store
}

// close closes the store that is being examined.
func (e *exam) close() {
	e.Helper()
	if err := closeStore(e.store); err != nil {
		e.Fatalf("Close: %v", err)
	}
}

// reopen closes the store and opens it again.
func (e *exam) reopen() {
	e.Helper()
	e.close()
	e.store = e.another()
}

// save saves and wants no error.
func (e *exam) save(rec session2.Record, prev session2.Version) {
	e.Helper()
	if err := e.store.Save(e.ctx(), rec, prev); err != nil {
		e.Fatalf("Save of version %d over %d: got %v, want nil", rec.Version, prev, err)
	}
}

// create creates records, several at a time where the store allows it.
func (e *exam) create(recs ...session2.Record) {
	e.Helper()
	e.spread(recs, func(rec session2.Record) error { return e.store.Save(e.ctx(), rec, 0) })
}

// remove deletes and wants no error.
func (e *exam) remove(id session2.ID) {
	e.Helper()
	if err := e.store.Delete(e.ctx(), id); err != nil {
		e.Fatalf("Delete: got %v, want nil", err)
	}
}

// load loads and wants a record.
func (e *exam) load(id session2.ID) session2.Record {
	e.Helper()
	rec, err := e.store.Load(e.ctx(), id)
	if err != nil {
		e.Fatalf("Load: got %v, want the record", err)
	}
	return rec
}

// holds wants the store to hold exactly these records under their IDs.
func (e *exam) holds(wants ...session2.Record) {
	e.Helper()
	for _, want := range wants {
		if d := diff(e.load(want.ID), want); d != "" {
			e.Fatalf("Load: %s", d)
		}
		if ok, err := e.store.Has(e.ctx(), want.ID); !ok || err != nil {
			e.Fatalf("Has of a stored record: got %v, %v, want true", ok, err)
		}
	}
}

// keeps wants the store to hold these records, and to hold them still when it is
// opened again, if it may be: what a store has in memory may be more exact than what
// it has written.
func (e *exam) keeps(wants ...session2.Record) {
	e.Helper()
	e.holds(wants...)
	if e.has&reopens != 0 {
		e.reopen()
		e.holds(wants...)
	}
}

// lacks wants the store to hold no record under these IDs.
func (e *exam) lacks(ids ...session2.ID) {
	e.Helper()
	for _, id := range ids {
		_, err := e.store.Load(e.ctx(), id)
		e.answers("Load of an absent record", err, session2.ErrNotFound)
		if ok, err := e.store.Has(e.ctx(), id); ok || err != nil {
			e.Fatalf("Has of an absent record: got %v, %v, want false", ok, err)
		}
	}
}

// answers wants one error of the contract and not another.
func (e *exam) answers(what string, err, want error) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Fatalf("%s: got %v, want %v", what, err, want)
	}
	for _, other := range []error{
		session2.ErrNotFound, session2.ErrConflict, session2.ErrUncertain, session2.ErrCorrupt,
	} {
		if other != want && errors.Is(err, other) {
			e.Fatalf("%s: got %v, which matches %v as well as %v", what, err, other, want)
		}
	}
}

// fails wants an error that says nothing about whether there is a record.
func (e *exam) fails(what string, err error) {
	e.Helper()
	if err == nil {
		e.Fatalf("%s: got nil, want an error", what)
	}
	if errors.Is(err, session2.ErrNotFound) || errors.Is(err, session2.ErrConflict) {
		e.Fatalf("%s: got %v, which tells of the record and not of the failure", what, err)
	}
}

// together runs f n times at once, from one start line, and ends the clause at
// the first error.
func (e *exam) together(n int, f func(i int) error) {
	e.Helper()
	errs := make([]error, n)
	start := make(chan struct{})
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					errs[i] = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
				}
			}()
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		e.Fatalf("%v", err)
	}
}

// spread calls f for each record, a few at a time where the store is
// ThreadSafe: one that syncs can then share its syncs.
func (e *exam) spread(recs []session2.Record, f func(session2.Record) error) {
	e.Helper()
	workers := min(16, len(recs))
	if e.has&threads == 0 {
		workers = min(1, len(recs))
	}
	e.together(workers, func(w int) error {
		for i := w; i < len(recs); i += workers {
			if err := f(recs[i]); err != nil {
				return fmt.Errorf("record %v: %w", recs[i].ID, err)
			}
		}
		return nil
	})
}

// collect drains a sequence up to its first error.
func collect(seq iter.Seq2[session2.Record, error]) ([]session2.Record, error) {
	var recs []session2.Record
	for rec, err := range seq {
		if err != nil {
			return recs, err
		}
		recs = append(recs, rec)
	}
	return recs, nil
}
