package storetest

import (
	"fmt"
	"iter"
	"runtime"
	"time"

	"github.com/session2/session2"
)

// listing holds the clauses on Iter.
var listing = []clause{
	{says: "Iter yields nothing in a fresh store", needs: lists, check: iterEmpty},
	{says: "Iter yields every record exactly once and whole", needs: lists, check: iterAll},
	{says: "Iter yields expired records and nothing deleted", needs: lists, check: iterStates},
	{says: "Iter stops when it is told to", needs: lists, check: iterStops},
	{says: "The body of an Iter loop may call the store", needs: lists, check: iterBodyCalls},
	{says: "Iter yields records present throughout exactly once while its body changes the store",
		needs: lists, check: iterBesideChanges},
	{says: "Iter yields records present throughout exactly once while others change the store",
		needs: lists | threads, check: iterBesideOthers},
	{says: "Iter hands out Data that the caller may change and keep", needs: lists, check: iterCopies},
	{says: "Iter streams and does not hold all records in memory", needs: lists, check: iterStreams},
	{says: "Opened again the store lists everything", needs: lists | reopens, check: iterReopened},
}

func (e *exam) iter() iter.Seq2[session2.Record, error] {
	return e.store.(session2.IterStore).Iter(e.ctx())
}

// listsAll wants Iter to yield exactly these records.
func (e *exam) listsAll(want ...session2.Record) {
	e.Helper()
	got, err := collect(e.iter())
	if err != nil {
		e.Fatalf("Iter: got %v after %d records, want %d records", err, len(got), len(want))
	}
	if d := diffAll(got, want); d != "" {
		e.Fatalf("Iter: %s", d)
	}
}

func iterEmpty(e *exam) { e.listsAll() }

func iterAll(e *exam) {
	recs := append(e.records(300), e.recordsOf("alice", 10)...)
	recs[0].ID, recs[1].ID = session2.ID{}, session2.ID{0: 0xff, 15: 0xff}
	recs[2].Data, recs[3].Data = nil, e.data(100_000)
	e.create(recs...)
	e.listsAll(recs...)
}

func iterStates(e *exam) {
	recs := e.records(6)
	recs[0].Expires, recs[1].Expires = recs[0].Created, time.Time{}
	e.create(recs...)
	for i := range recs[:3] {
		prev := recs[i].Version
		recs[i] = e.next(recs[i])
		e.save(recs[i], prev)
	}
	e.remove(recs[5].ID)
	e.listsAll(recs[:5]...)
	for _, rec := range recs {
		e.remove(rec.ID)
	}
	e.listsAll()
}

func iterStops(e *exam) {
	recs := e.records(30)
	e.create(recs...)
	for _, stop := range []int{1, 7, 30} {
		n := 0
		for _, err := range e.iter() {
			if n++; err != nil || n == stop {
				break
			}
		}
		if n != stop {
			e.Fatalf("got %d records, want %d", n, stop)
		}
		next := e.next(recs[0]) // nothing is left locked
		e.save(next, recs[0].Version)
		recs[0] = next
	}
	e.listsAll(recs...)
}

// iterBodyCalls also grows the store by a lot under the loop, and loops within
// the loop: a store that keeps a lock or a transaction open over its yield
// would wait for itself.
func iterBodyCalls(e *exam) {
	recs := e.records(10)
	e.create(recs...)
	added := e.records(10)
	n := 0
	for rec, err := range e.iter() {
		if err != nil {
			e.Fatalf("Iter: %v", err)
		}
		if n++; n > len(added) {
			break // what the body adds may be yielded too
		}
		e.load(rec.ID)
		big := added[n-1]
		big.Data = make([]byte, 100_000)
		e.save(big, 0)
		if n == 5 {
			e.countAtLeast(len(recs))
		}
	}
	if n < len(recs) {
		e.Fatalf("got %d records, want at least the %d that were there throughout", n, len(recs))
	}
}

// countAtLeast iterates, from within an iteration.
func (e *exam) countAtLeast(n int) {
	e.Helper()
	got, err := collect(e.iter())
	if err != nil || len(got) < n {
		e.Fatalf("Iter within Iter: got %d records and %v, want at least %d", len(got), err, n)
	}
}

func iterBesideChanges(e *exam) {
	steady, passing := e.records(200), e.records(40)
	e.create(steady...)
	e.create(passing[:20]...)
	n := 0
	var got []session2.Record
	for rec, err := range e.iter() {
		if err != nil {
			e.Fatalf("Iter: %v", err)
		}
		got = append(got, rec)
		if n < 20 { // one comes, one goes, one changes and stays
			e.save(passing[20+n], 0)
			e.remove(passing[n].ID)
			next := e.next(steady[5*n])
			e.save(next, steady[5*n].Version)
			steady[5*n] = next
		}
		n++
	}
	e.sawThroughout(got, steady)
}

// sawThroughout wants each of the steady records once and no record twice.
func (e *exam) sawThroughout(got, steady []session2.Record) {
	e.Helper()
	seen, err := byID(got)
	if err != nil {
		e.Fatalf("Iter: %v", err)
	}
	for _, rec := range steady {
		if _, ok := seen[rec.ID]; !ok {
			e.Fatalf("Iter: record %v, which was there throughout, is missing among %d", rec.ID, len(got))
		}
	}
}

func iterBesideOthers(e *exam) {
	steady, changing, passing := e.records(100), e.records(10), e.records(60)
	e.create(steady...)
	e.create(changing...)
	next := make([]session2.Record, len(changing))
	for i, rec := range changing {
		next[i] = e.next(rec)
	}
	passes := make([][]session2.Record, 8)
	e.together(3, func(worker int) error {
		switch worker {
		case 0:
			return e.comeAndGo(passing)
		case 1:
			return e.saveEach(next, changing)
		}
		for i := range passes {
			var err error
			if passes[i], err = collect(e.iter()); err != nil {
				return fmt.Errorf("in Iter: %w", err)
			}
		}
		return nil
	})
	for _, got := range passes {
		e.sawThroughout(got, append(steady, changing...))
	}
}

// comeAndGo creates each record and deletes it again.
func (e *exam) comeAndGo(recs []session2.Record) error {
	for _, rec := range recs {
		if err := e.store.Save(e.ctx(), rec, 0); err != nil {
			return err
		}
		if err := e.store.Delete(e.ctx(), rec.ID); err != nil {
			return err
		}
	}
	return nil
}

// saveEach saves each record over the one of the same place in old.
func (e *exam) saveEach(recs, old []session2.Record) error {
	for i, rec := range recs {
		if err := e.store.Save(e.ctx(), rec, old[i].Version); err != nil {
			return err
		}
	}
	return nil
}

func iterCopies(e *exam) {
	recs := e.records(10)
	e.create(recs...)
	kept, err := collect(e.iter())
	if err != nil {
		e.Fatalf("Iter: %v", err)
	}
	for rec := range e.iter() {
		clear(rec.Data)
		clear(append(rec.Data, make([]byte, 100)...))
	}
	e.holds(recs...)
	for _, rec := range recs {
		e.save(e.next(rec), rec.Version)
		e.remove(rec.ID)
	}
	if d := diffAll(kept, recs); d != "" {
		e.Fatalf("records kept from an iteration: %s", d)
	}
}

// iterStreams compares the heap at the first record with the heap before. The
// measure is taken again while it is too large, for other goroutines use the heap
// as well.
func iterStreams(e *exam) {
	const n, size = 400, 16 << 10
	for range n / 50 { // so that the records do not all pass through here at once
		recs := e.records(50)
		for i := range recs {
			recs[i].Data = e.data(size)
		}
		e.create(recs...)
	}
	var least uint64 = n * size
	for i := 0; i < 50 && least > n*size/2; i++ {
		before := heapInUse()
		for _, err := range e.iter() {
			if err != nil {
				e.Fatalf("Iter: %v", err)
			}
			if now := heapInUse(); now < before+least {
				least = max(now, before) - before
			}
			break
		}
	}
	if least > n*size/2 {
		e.Fatalf("at the first of %d bytes of records the heap has grown by %d", n*size, least)
	}
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func iterReopened(e *exam) {
	recs := e.records(20)
	e.create(recs...)
	e.remove(recs[19].ID)
	e.reopen()
	e.listsAll(recs[:19]...)
}
