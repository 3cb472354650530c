package storetest

import (
	"errors"
	"math"
	"sync/atomic"
	"time"

	"github.com/session2/session2"
)

// sweeping holds the clauses on DeleteOld.
var sweeping = []clause{
	{says: "DeleteOld removes what was not accessed for that long and counts it", needs: sweeps, check: sweepByAge},
	{says: "DeleteOld removes what has expired whatever its age", needs: sweeps, check: sweepExpired},
	{says: "DeleteOld with an age of zero removes what was accessed up to now", needs: sweeps, check: sweepAgeZero},
	{says: "DeleteOld tells times before 1970 and in the far future apart", needs: sweeps, check: sweepFarTimes},
	{says: "DeleteOld of a negative age is an error and removes nothing", needs: sweeps, check: sweepNegativeAge},
	{says: "DeleteOld removes nothing from an empty store and nothing twice", needs: sweeps, check: sweepEmpty},
	{says: "DeleteOld removes any number of records", needs: sweeps, check: sweepMany},
	{says: "DeleteOld spares a record that was old and has been saved since", needs: sweeps, check: sweepSparesSaved},
	{says: "DeleteOld spares a record that was old and has been touched since",
		needs: sweeps | touches, check: sweepSparesTouched},
	{says: "DeleteOld removes a record whose times a Save moved back", needs: sweeps, check: sweepMovedBack},
	{says: "DeleteOld spares a record created anew under the ID of an old one", needs: sweeps, check: sweepSparesAnew},
	{says: "A record that DeleteOld removed is as absent as a deleted one", needs: sweeps, check: sweptIsAbsent},
	{says: "Opened again the store knows what is old", needs: sweeps | reopens, check: sweepReopened},
	{says: "A record saved beside DeleteOld survives or the Save is told",
		needs: sweeps | threads, check: saveBesideSweep},
	{says: "A record touched beside DeleteOld survives once it shows the touch",
		needs: sweeps | touches | threads, check: touchBesideSweep},
	{says: "Several DeleteOld at once count every removed record once", needs: sweeps | threads, check: sweepsAtOnce},
}

// sweep wants DeleteOld to remove that many records.
func (e *exam) sweep(age time.Duration, want int) {
	e.Helper()
	n, err := e.store.(session2.DeleteOldStore).DeleteOld(e.ctx(), age)
	if n != want || err != nil {
		e.Fatalf("DeleteOld(%v): got %d, %v, want %d", age, n, err, want)
	}
}

// accessed returns n new records that were accessed that long ago.
func (e *exam) accessed(ago time.Duration, n int) []session2.Record {
	recs := e.records(n)
	for i := range recs {
		recs[i].Accessed = recs[i].Accessed.Add(time.Minute - ago)
	}
	return recs
}

// expired returns n new records that were accessed just now and have expired.
func (e *exam) expired(n int) []session2.Record {
	recs := e.records(n)
	for i := range recs {
		recs[i].Expires = recs[i].Accessed.Add(time.Duration(i) * time.Millisecond)
	}
	return recs
}

// ids returns the records' IDs.
func ids(recs []session2.Record) []session2.ID {
	ids := make([]session2.ID, len(recs))
	for i, rec := range recs {
		ids[i] = rec.ID
	}
	return ids
}

func sweepByAge(e *exam) {
	old, young := e.accessed(2*time.Hour, 3), e.accessed(30*time.Minute, 3)
	old[0].Accessed = time.Time{}
	e.create(old...)
	e.create(young...)
	e.sweep(9*365*24*time.Hour, 1) // the zero time alone is older
	e.sweep(time.Hour, 2)
	e.lacks(ids(old)...)
	e.holds(young...)
	e.sweep(20*time.Minute, 3)
	e.lacks(ids(young)...)
}

func sweepExpired(e *exam) {
	past, live := e.expired(3), e.records(3)
	past[0].Expires = time.Time{}
	past[1].Expires = time.Unix(-1, 0)
	live[0].Expires = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	e.create(past...)
	e.create(live...)
	e.sweep(math.MaxInt64, 3)
	e.lacks(ids(past)...)
	e.holds(live...)
}

func sweepAgeZero(e *exam) {
	past, ahead := e.accessed(time.Second, 3), e.accessed(-time.Hour, 3)
	e.create(past...)
	e.create(ahead...)
	e.sweep(0, 3)
	e.lacks(ids(past)...)
	e.holds(ahead...)
}

// sweepFarTimes catches an index in which times before 1970 are out of order.
func sweepFarTimes(e *exam) {
	far := time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	recs := e.records(6)
	for i, at := range []time.Time{
		{}, time.Date(1600, 1, 1, 0, 0, 0, 0, time.UTC), time.UnixMicro(-1), time.UnixMicro(0), time.UnixMicro(1), far,
	} {
		recs[i].Accessed, recs[i].Expires = at.UTC(), far
	}
	e.create(recs...)
	sinceEpoch := time.Since(time.UnixMicro(0))
	e.sweep(math.MaxInt64, 2)
	e.sweep(sinceEpoch+time.Hour, 0)
	e.holds(recs[2:]...)
	e.sweep(sinceEpoch-time.Hour, 3)
	e.lacks(ids(recs[:5])...)
	e.sweep(0, 0)
	e.holds(recs[5])
}

func sweepNegativeAge(e *exam) {
	recs := append(e.expired(2), e.accessed(2*time.Hour, 2)...)
	e.create(recs...)
	for _, age := range []time.Duration{-1, -time.Hour, math.MinInt64} {
		n, err := e.store.(session2.DeleteOldStore).DeleteOld(e.ctx(), age)
		if n != 0 || err == nil {
			e.Fatalf("DeleteOld(%v): got %d, %v, want 0 and an error", age, n, err)
		}
	}
	e.holds(recs...)
}

func sweepEmpty(e *exam) {
	e.sweep(0, 0)
	e.create(e.expired(3)...)
	e.sweep(time.Hour, 3)
	e.sweep(time.Hour, 0)
	e.sweep(0, 0)
}

func sweepMany(e *exam) {
	recs := append(e.accessed(2*time.Hour, 150), e.expired(150)...)
	for i := range 100 { // equal times must not hide one another in an index
		recs[i].Accessed, recs[i].Expires = recs[0].Accessed, recs[0].Expires
		recs[150+i].Accessed, recs[150+i].Expires = recs[150].Accessed, recs[150].Expires
	}
	young := e.records(30)
	e.create(recs...)
	e.create(young...)
	e.sweep(time.Hour, 300)
	e.lacks(ids(recs)...)
	e.holds(young...)
}

func sweepSparesSaved(e *exam) {
	recs := append(e.accessed(2*time.Hour, 2), e.expired(2)...)
	e.create(recs...)
	for i, rec := range recs {
		recs[i] = e.record()
		recs[i].ID = rec.ID
		e.save(recs[i], rec.Version)
	}
	e.sweep(time.Hour, 0)
	e.holds(recs...)
}

func sweepSparesTouched(e *exam) {
	recs := append(e.accessed(2*time.Hour, 2), e.expired(2)...)
	e.create(recs...)
	fresh := e.record()
	for i := range recs {
		recs[i].Accessed, recs[i].Expires = fresh.Accessed, fresh.Expires
		e.touch(recs[i].ID, fresh.Accessed, fresh.Expires)
	}
	e.sweep(time.Hour, 0)
	e.holds(recs...)
}

func sweepMovedBack(e *exam) {
	recs := e.records(4)
	e.create(recs...)
	for i, rec := range recs[:3] {
		next := e.next(rec)
		if i == 0 {
			next.Accessed = rec.Accessed.Add(-2 * time.Hour)
		} else {
			next.Expires = rec.Accessed
		}
		e.save(next, rec.Version)
	}
	e.sweep(time.Hour, 3)
	e.lacks(ids(recs[:3])...)
	e.holds(recs[3])
}

func sweepSparesAnew(e *exam) {
	recs := append(e.accessed(2*time.Hour, 2), e.expired(2)...)
	e.create(recs...)
	for i, rec := range recs {
		e.remove(rec.ID)
		recs[i] = e.record()
		recs[i].ID = rec.ID
		e.save(recs[i], 0)
	}
	e.sweep(time.Hour, 0)
	e.holds(recs...)
}

func sweptIsAbsent(e *exam) {
	rec := e.expired(1)[0]
	e.save(rec, 0)
	e.sweep(time.Hour, 1)
	e.lacks(rec.ID)
	e.answers("Save", e.store.Save(e.ctx(), e.next(rec), rec.Version), session2.ErrNotFound)
	e.remove(rec.ID)
	if e.has&lists != 0 {
		e.listsAll()
	}
	e.save(rec, 0)
	e.holds(rec)
}

func sweepReopened(e *exam) {
	old, past, young := e.accessed(2*time.Hour, 3), e.expired(3), e.records(3)
	e.create(old...)
	e.create(past...)
	e.create(young...)
	e.reopen()
	e.sweep(time.Hour, 6)
	e.reopen()
	e.lacks(ids(append(old, past...))...)
	e.holds(young...)
}

// saveBesideSweep: whoever is told that the Save landed has a live session.
func saveBesideSweep(e *exam) {
	for range 30 {
		old := e.accessed(2*time.Hour, 3)
		e.create(old...)
		fresh := e.records(3)
		kept := make([]bool, len(old))
		for i := range fresh {
			fresh[i].ID = old[i].ID
		}
		e.together(len(old)+1, func(i int) error {
			if i == len(old) {
				_, err := e.store.(session2.DeleteOldStore).DeleteOld(e.ctx(), time.Hour)
				return err
			}
			err := e.store.Save(e.ctx(), fresh[i], old[i].Version)
			kept[i] = err == nil
			if errors.Is(err, session2.ErrNotFound) {
				return nil
			}
			return err
		})
		for i, rec := range fresh {
			if kept[i] {
				e.holds(rec)
			} else {
				e.lacks(rec.ID)
			}
		}
	}
}

func touchBesideSweep(e *exam) {
	for range 30 {
		old := e.accessed(2*time.Hour, 3)
		e.create(old...)
		fresh := e.record()
		shown := make([]bool, len(old))
		e.together(len(old)+1, func(i int) error {
			if i == len(old) {
				_, err := e.store.(session2.DeleteOldStore).DeleteOld(e.ctx(), time.Hour)
				return err
			}
			if err := e.touchIn(e.store, old[i].ID, fresh.Accessed, fresh.Expires); err != nil {
				return err
			}
			_, err := e.store.Load(e.ctx(), old[i].ID)
			shown[i] = err == nil
			if errors.Is(err, session2.ErrNotFound) {
				return nil
			}
			return err
		})
		for i, rec := range old {
			if shown[i] {
				rec.Accessed, rec.Expires = fresh.Accessed, fresh.Expires
				e.holds(rec)
			}
		}
	}
}

func sweepsAtOnce(e *exam) {
	old, young := append(e.accessed(2*time.Hour, 60), e.expired(60)...), e.records(20)
	e.create(old...)
	e.create(young...)
	var sum atomic.Int64
	e.together(4, func(int) error {
		n, err := e.store.(session2.DeleteOldStore).DeleteOld(e.ctx(), time.Hour)
		sum.Add(int64(n))
		return err
	})
	if sum.Load() != int64(len(old)) {
		e.Fatalf("DeleteOld: got %d records counted, want %d", sum.Load(), len(old))
	}
	e.lacks(ids(old)...)
	e.holds(young...)
}
