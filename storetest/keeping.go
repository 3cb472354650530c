package storetest

import (
	"bytes"
	"time"

	"github.com/session2/session2"
)

// keeping holds the clauses on what comes back: all of it, and nobody else's.
var keeping = []clause{
	{says: "Data come back byte for byte whatever the bytes", check: anyBytes},
	{says: "Data of 1 MiB come back whole", check: largeData},
	{says: "Empty and nil Data are kept as no bytes", check: emptyData},
	{says: "Data may grow and shrink", check: growAndShrink},
	{says: "A user of any bytes is kept up to 255 of them", check: anyUser},
	{says: "Times are kept to the microsecond and come back in UTC", check: timesKept},
	{says: "The zero time and times before 1970 and in the far future are kept", check: oddTimes},
	{says: "Save copies the Data that it is given", check: copiesIn},
	{says: "Load hands out Data that the caller may change", check: copiesOut},
	{says: "What Load returned stays as it was when the record changes", check: loadedStays},
	{says: "Opened again the store shows everything", needs: reopens, check: reopenedShowsAll},
	{says: "Opened again the store shows no deleted record", needs: reopens, check: reopenedStaysDeleted},
}

func anyBytes(e *exam) {
	rec := e.record()
	var all [256]byte
	for i := range all {
		all[i] = byte(i)
	}
	var prev session2.Version
	for _, data := range [][]byte{
		all[:], {0}, {'\n'}, {0xff, 0xfe}, []byte("'\";--\\"), []byte("\r\n\x1a"),
		bytes.Repeat([]byte{0}, 5000), e.data(70_000),
	} {
		rec.Version, rec.Data = e.version(), data
		e.save(rec, prev)
		e.keeps(rec)
		prev = rec.Version
	}
}

func largeData(e *exam) {
	rec := e.record()
	rec.Data = e.data(1 << 20)
	e.save(rec, 0)
	e.holds(rec)
}

func emptyData(e *exam) {
	none, empty := e.record(), e.record()
	none.Data, empty.Data = nil, []byte{}
	e.create(none, empty)
	e.holds(none, empty)

	emptied, filled := e.record(), e.next(none)
	e.save(emptied, 0)
	last := e.next(emptied)
	last.Data = nil
	e.save(last, emptied.Version)
	e.save(filled, none.Version)
	e.keeps(last, filled, empty)
}

func growAndShrink(e *exam) {
	rec := e.record()
	var prev session2.Version
	for _, n := range []int{1, 100, 5_000, 200_000, 4_096, 300, 0, 7} {
		rec.Version, rec.Data = e.version(), e.data(n)
		e.save(rec, prev)
		e.holds(rec)
		prev = rec.Version
	}
}

func anyUser(e *exam) {
	recs := e.records(len(oddUsers))
	for i, user := range oddUsers {
		recs[i].User = user
	}
	e.create(recs...)
	e.keeps(recs...)
}

func timesKept(e *exam) {
	rec := e.record()
	zone := time.FixedZone("far east", 13*3600+45*60)
	rec.Created = time.Date(2024, 2, 29, 23, 59, 59, 123_456_789, zone)
	rec.Accessed = time.Date(2031, 12, 31, 0, 0, 0, 1_000, time.Local)
	rec.Expires = time.Now().Add(time.Hour) // with a monotonic clock reading
	e.save(rec, 0)
	e.keeps(rec)
}

func oddTimes(e *exam) {
	past := time.Date(1600, 1, 1, 0, 0, 0, 999_999_000, time.UTC)
	future := time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)
	edge := time.Unix(0, -1000).UTC()
	recs := e.records(4)
	recs[0].Created, recs[0].Accessed, recs[0].Expires = time.Time{}, time.Time{}, time.Time{}
	recs[1].Created, recs[1].Accessed, recs[1].Expires = past, edge, future
	recs[2].Created, recs[2].Accessed, recs[2].Expires = future, future, past
	recs[3].Created, recs[3].Accessed, recs[3].Expires = time.Unix(0, 0), time.Time{}, edge
	e.create(recs...)
	e.keeps(recs...)
}

func copiesIn(e *exam) {
	rec := e.record()
	want := bytes.Clone(rec.Data)
	e.save(rec, 0)
	clear(rec.Data)
	rec.Data = want
	e.holds(rec)

	second := e.next(rec)
	want = bytes.Clone(second.Data)
	e.save(second, rec.Version)
	clear(second.Data)
	second.Data = want
	e.holds(second)
}

// copiesOut also appends: Data handed out with room behind it must not reach
// into what belongs to others.
func copiesOut(e *exam) {
	recs := e.records(8)
	e.create(recs...)
	for _, rec := range recs {
		data := e.load(rec.ID).Data
		clear(data)
		clear(append(data, make([]byte, 100)...))
	}
	e.holds(recs...)
}

// loadedStays catches Data that point into a buffer or into mapped memory that
// the store uses again.
func loadedStays(e *exam) {
	recs := e.records(8)
	e.create(recs...)
	var loaded []session2.Record
	for _, rec := range recs {
		loaded = append(loaded, e.load(rec.ID))
	}
	for _, rec := range recs {
		second := e.next(rec)
		second.Data = bytes.Repeat([]byte{0xee}, len(rec.Data))
		e.save(second, rec.Version)
		e.load(rec.ID)
		e.remove(rec.ID)
	}
	for i, rec := range loaded {
		if d := diff(rec, recs[i]); d != "" {
			e.Fatalf("a record loaded before: %s", d)
		}
	}
}

func reopenedShowsAll(e *exam) {
	recs := append(e.records(20), e.recordsOf("alice", 3)...)
	recs[0].Data = e.data(100_000)
	e.create(recs...)
	for i := range recs[:10] {
		prev := recs[i].Version
		recs[i] = e.next(recs[i])
		e.save(recs[i], prev)
	}
	e.reopen()
	e.holds(recs...)
	e.answers("Save over a version before", e.store.Save(e.ctx(), e.next(recs[0]), e.version()), session2.ErrConflict)
	prev := recs[0].Version
	recs[0] = e.next(recs[0])
	e.save(recs[0], prev)
	e.reopen()
	e.holds(recs...)
}

func reopenedStaysDeleted(e *exam) {
	recs := e.records(10)
	e.create(recs...)
	for _, rec := range recs[:5] {
		e.remove(rec.ID)
	}
	e.reopen()
	for _, rec := range recs[:5] {
		e.lacks(rec.ID)
		e.answers("Save", e.store.Save(e.ctx(), e.next(rec), rec.Version), session2.ErrNotFound)
	}
	e.holds(recs[5:]...)
}
