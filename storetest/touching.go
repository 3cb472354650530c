package storetest

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/session2/session2"
)

// touching holds the clauses on Touch.
var touching = []clause{
	{says: "Touch moves Accessed and Expires forward and keeps all else, Version and Data too",
		needs: touches, check: touchMoves},
	{says: "Touch moves Accessed by itself and never back", needs: touches, check: touchMovesAccessed},
	{says: "Touch moves Expires by itself and never back", needs: touches, check: touchMovesExpires},
	{says: "Touch of an absent record creates nothing and is no error", needs: touches, check: touchAbsent},
	{says: "Touch of a deleted record does not revive it", needs: touches, check: touchDeleted},
	{says: "A Save after a Touch finds its version and replaces the times as well",
		needs: touches, check: saveAfterTouch},
	{says: "A record created anew shows nothing of the touches of the one before",
		needs: touches, check: touchForgotten},
	{says: "Touch keeps times to the microsecond", needs: touches, check: touchMicroseconds},
	{says: "Opened again the store shows what was touched", needs: touches | reopens, check: touchReopened},
	{says: "Of several touches at once the latest times win", needs: touches | threads, check: touchAtOnce},
	{says: "A Touch beside a Save neither loses the Save nor stops it",
		needs: touches | threads, check: touchBesideSave},
	{says: "A Touch beside a Delete does not revive the record", needs: touches | threads, check: touchBesideDelete},
}

// touch touches the record and wants no error.
func (e *exam) touch(id session2.ID, accessed, expires time.Time) {
	e.Helper()
	if err := e.touchIn(e.store, id, accessed, expires); err != nil {
		e.Fatalf("Touch: got %v, want nil", err)
	}
}

func (e *exam) touchIn(store session2.Store, id session2.ID, accessed, expires time.Time) error {
	return store.(session2.TouchStore).Touch(e.ctx(), id, accessed, expires)
}

func touchMoves(e *exam) {
	rec := e.recordsOf("alice", 1)[0]
	e.save(rec, 0)
	for range 3 {
		rec.Accessed, rec.Expires = rec.Accessed.Add(time.Second), rec.Expires.Add(time.Hour)
		e.touch(rec.ID, rec.Accessed, rec.Expires)
		e.holds(rec)
	}
}

func touchMovesAccessed(e *exam) {
	rec := e.record()
	e.save(rec, 0)
	e.touch(rec.ID, rec.Accessed.Add(-time.Hour), rec.Expires)
	e.holds(rec)
	e.touch(rec.ID, time.Time{}, time.Time{})
	e.holds(rec)
	rec.Accessed = rec.Accessed.Add(time.Minute)
	e.touch(rec.ID, rec.Accessed, rec.Expires.Add(-time.Hour))
	e.holds(rec)
}

func touchMovesExpires(e *exam) {
	rec := e.record()
	e.save(rec, 0)
	e.touch(rec.ID, rec.Accessed, rec.Expires.Add(-time.Minute))
	e.holds(rec)
	rec.Expires = rec.Expires.Add(time.Minute)
	e.touch(rec.ID, rec.Accessed.Add(-time.Hour), rec.Expires)
	e.holds(rec)
}

func touchAbsent(e *exam) {
	rec := e.record()
	e.touch(rec.ID, rec.Accessed, rec.Expires)
	e.lacks(rec.ID)
	e.save(rec, 0)
	e.holds(rec)
}

func touchDeleted(e *exam) {
	rec := e.record()
	e.save(rec, 0)
	e.touch(rec.ID, rec.Accessed.Add(time.Minute), rec.Expires)
	e.remove(rec.ID)
	e.touch(rec.ID, rec.Accessed.Add(time.Hour), rec.Expires.Add(time.Hour))
	e.lacks(rec.ID)
	e.answers("Save", e.store.Save(e.ctx(), e.next(rec), rec.Version), session2.ErrNotFound)
}

// saveAfterTouch: a session is ended by saving an expired record, and a touch
// that came before must not make it live on.
func saveAfterTouch(e *exam) {
	rec := e.record()
	e.save(rec, 0)
	e.touch(rec.ID, rec.Accessed.Add(time.Minute), rec.Expires.Add(time.Hour))
	next := e.next(rec)
	next.Expires = rec.Created
	e.save(next, rec.Version)
	e.holds(next)
}

func touchForgotten(e *exam) {
	rec := e.record()
	e.save(rec, 0)
	e.touch(rec.ID, rec.Accessed.Add(time.Hour), rec.Expires.Add(time.Hour))
	e.remove(rec.ID)
	anew := e.next(rec)
	e.save(anew, 0)
	e.holds(anew)
	e.remove(rec.ID)
	e.save(rec, 0) // in the very version that was touched
	e.holds(rec)
}

func touchMicroseconds(e *exam) {
	rec := e.record()
	e.save(rec, 0)
	rec.Accessed, rec.Expires = rec.Accessed.Add(3*time.Microsecond), rec.Expires.Add(7*time.Microsecond)
	zone := time.FixedZone("far west", -11*3600)
	e.touch(rec.ID, rec.Accessed.In(zone).Add(400), rec.Expires.In(zone).Add(400))
	e.holds(rec)
}

func touchReopened(e *exam) {
	recs := e.records(5)
	e.create(recs...)
	for i := range recs {
		recs[i].Accessed, recs[i].Expires = recs[i].Accessed.Add(time.Minute), recs[i].Expires.Add(time.Hour)
		e.touch(recs[i].ID, recs[i].Accessed, recs[i].Expires)
	}
	e.reopen()
	e.holds(recs...)
}

func touchAtOnce(e *exam) {
	const workers, each = 8, 10
	rec := e.record()
	e.save(rec, 0)
	steps := e.rand.Perm(workers * each)
	e.together(workers, func(w int) error {
		for _, step := range steps[w*each : (w+1)*each] {
			d := time.Duration(step) * time.Second
			if err := e.touchIn(e.store, rec.ID, rec.Accessed.Add(d), rec.Expires.Add(d)); err != nil {
				return err
			}
		}
		return nil
	})
	last := (workers*each - 1) * time.Second
	rec.Accessed, rec.Expires = rec.Accessed.Add(last), rec.Expires.Add(last)
	e.holds(rec)
}

// touchBesideSave saves on until touches have ended between several pairs of
// saves: a save in memory is over before another goroutine wakes up.
func touchBesideSave(e *exam) {
	const saves, meetings = 50, 20
	rec := e.record()
	e.save(rec, 0)
	last, version := rec, versions(e.version())
	var touched atomic.Int64
	done := make(chan struct{})
	touching, failed := context.WithCancel(e.ctx())
	e.together(3, func(worker int) error {
		if worker > 0 {
			defer failed() // before done, a touch has failed and there is nothing to wait for
			return e.touchUntil(done, rec, &touched)
		}
		defer close(done)
		met, seen := 0, touched.Load()
		for i := 0; i < saves || met < meetings && touching.Err() == nil; i++ {
			prev := last.Version
			last.Version = version()
			last.Data = binary.BigEndian.AppendUint64(nil, uint64(i))
			if err := e.store.Save(e.ctx(), last, prev); err != nil {
				return fmt.Errorf("save %d beside touches: %w", i, err)
			}
			if now := touched.Load(); now != seen {
				met, seen = met+1, now
			}
		}
		return nil
	})
	got := e.load(rec.ID)
	last.Accessed, last.Expires = got.Accessed, got.Expires
	if d := diff(got, last); d != "" {
		e.Fatalf("after the last Save: %s", d)
	}
}

// touchUntil touches the record until done, each time a little later.
func (e *exam) touchUntil(done <-chan struct{}, rec session2.Record, touched *atomic.Int64) error {
	for i := time.Duration(1); ; i++ {
		select {
		case <-done:
			return nil
		default:
		}
		err := e.touchIn(e.store, rec.ID, rec.Accessed.Add(i*time.Second), rec.Expires.Add(i*time.Second))
		if err != nil {
			return fmt.Errorf("touch %d: %w", i, err)
		}
		touched.Add(1)
	}
}

// touchOften touches the record n times, each time a little later.
func (e *exam) touchOften(rec session2.Record, n int) error {
	for i := range n {
		d := time.Duration(i) * time.Second
		if err := e.touchIn(e.store, rec.ID, rec.Accessed.Add(d), rec.Expires.Add(d)); err != nil {
			return fmt.Errorf("touch %d: %w", i, err)
		}
	}
	return nil
}

func touchBesideDelete(e *exam) {
	for range 20 {
		rec := e.record()
		e.save(rec, 0)
		e.together(3, func(worker int) error {
			if worker > 0 {
				return e.touchOften(rec, 5)
			}
			return e.store.Delete(e.ctx(), rec.ID)
		})
		e.lacks(rec.ID)
	}
}
