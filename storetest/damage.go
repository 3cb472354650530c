package storetest

import (
	"errors"
	"strings"
	"time"

	"github.com/session2/session2"
)

// damaging holds the clauses on a record that cannot be read.
var damaging = []clause{
	{says: "A corrupt record is ErrCorrupt with its ID and no other record is lost",
		needs: damage | reopens, check: corruptLoad},
	{says: "Iter yields a corrupt record as ErrCorrupt and goes on",
		needs: damage | reopens | lists, check: corruptIter},
	{says: "A corrupt record stops neither IterUser nor DeleteUser of another user",
		needs: damage | reopens | users, check: corruptUser},
	{says: "A corrupt record does not stop DeleteOld", needs: damage | reopens | sweeps, check: corruptSweep},
	{says: "Delete removes a corrupt record", needs: damage | reopens, check: corruptDelete},
	{says: "Save does not replace what it cannot read and so not compare",
		needs: damage | reopens, check: corruptSave},
}

// corrupt creates the records and damages the first.
func (e *exam) corrupt(recs []session2.Record) {
	e.Helper()
	e.create(recs...)
	e.close()
	e.Corrupt(e.TB, e.dir, recs[0].ID)
	e.store = e.another()
}

// corruptLoad lets a store set a damaged record aside once it has told: the ID
// is free then.
func corruptLoad(e *exam) {
	recs := e.records(10)
	e.corrupt(recs)
	_, err := e.store.Load(e.ctx(), recs[0].ID)
	e.answers("Load", err, session2.ErrCorrupt)
	if !strings.Contains(err.Error(), recs[0].ID.String()) {
		e.Fatalf("Load: got the error %v, want the ID %v in it", err, recs[0].ID)
	}
	next := e.next(recs[1])
	e.save(next, recs[1].Version)
	recs[1] = next
	e.holds(recs[1:]...)
	_, err = e.store.Load(e.ctx(), recs[0].ID)
	if !errors.Is(err, session2.ErrNotFound) {
		e.answers("Load again", err, session2.ErrCorrupt)
	}
}

func corruptIter(e *exam) {
	recs := e.records(10)
	e.corrupt(recs)
	var got []session2.Record
	failed := 0
	for rec, err := range e.iter() {
		if err == nil {
			got = append(got, rec)
			continue
		}
		e.answers("Iter", err, session2.ErrCorrupt)
		if failed++; rec.ID != recs[0].ID && rec.ID != (session2.ID{}) {
			e.Fatalf("Iter: got ErrCorrupt for the record %v, want it for %v", rec.ID, recs[0].ID)
		}
	}
	if failed != 1 {
		e.Fatalf("Iter: got ErrCorrupt %d times, want once", failed)
	}
	if d := diffAll(got, recs[1:]); d != "" {
		e.Fatalf("Iter: %s", d)
	}
}

func corruptUser(e *exam) {
	recs := append(e.recordsOf("mallory", 1), e.recordsOf("alice", 5)...)
	e.corrupt(recs)
	var got []session2.Record
	for rec, err := range e.iterUser("alice") {
		if err == nil {
			got = append(got, rec)
		} else if !errors.Is(err, session2.ErrCorrupt) { // whose it is may be what cannot be read
			e.Fatalf("IterUser: %v", err)
		}
	}
	if d := diffAll(got, recs[1:]); d != "" {
		e.Fatalf("IterUser: %s", d)
	}
	e.dismiss("alice", 5)
	e.lacks(ids(recs[1:])...)
}

// corruptSweep does not ask for the corrupt record itself: it may be found by
// an index and removed, or stay.
func corruptSweep(e *exam) {
	recs := append(e.records(1), e.expired(5)...)
	young := e.records(2)
	e.create(young...)
	e.corrupt(recs)
	n, err := e.store.(session2.DeleteOldStore).DeleteOld(e.ctx(), time.Hour)
	if n < 5 || n > 6 || err != nil && !errors.Is(err, session2.ErrCorrupt) {
		e.Fatalf("DeleteOld: got %d, %v, want 5", n, err)
	}
	e.lacks(ids(recs[1:])...)
	e.holds(young...)
}

// corruptSave takes a conflict as well: what can be read of a damaged record may tell
// the store that its version is another.
func corruptSave(e *exam) {
	recs := e.records(3)
	e.corrupt(recs)
	next := e.next(recs[0])
	err := e.store.Save(e.ctx(), next, recs[0].Version)
	if !errors.Is(err, session2.ErrConflict) {
		e.answers("Save", err, session2.ErrCorrupt)
	}
	if got, err := e.store.Load(e.ctx(), next.ID); err == nil {
		e.Fatalf("Load: got the record with version %d, want none: nothing could be compared", got.Version)
	}
	e.holds(recs[1:]...)
}

func corruptDelete(e *exam) {
	recs := e.records(3)
	e.corrupt(recs)
	e.remove(recs[0].ID)
	e.lacks(recs[0].ID)
	e.save(recs[0], 0)
	e.holds(recs...)
}
