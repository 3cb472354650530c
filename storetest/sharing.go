package storetest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/session2/session2"
)

// sharing holds the clauses on goroutines that share a store. They do not apply
// to a store without ThreadSafe, whose calls the manager serialises.
var sharing = []clause{
	{says: "Counting by load and conditional save in 8 goroutines comes out exact",
		needs: threads, check: countTogether},
	{says: "Of several creations of one ID at once exactly one wins", needs: threads, check: createTogether},
	{says: "Of several saves over one version at once exactly one wins", needs: threads, check: replaceTogether},
	{says: "One Save asked twice at once answers nil both times", needs: threads, check: askTogether},
	{says: "Readers beside a writer see whole records only", needs: threads, check: readBesideSave},
	{says: "A Save beside a Delete does not revive the record", needs: threads, check: saveBesideDelete},
	{says: "Goroutines with records of their own do not disturb one another", needs: threads, check: workApart},
}

// count adds one to the number in the record's data, n times, by loading and
// saving over the version loaded. It is what a manager does to merge changes.
func count(e *exam, store session2.Store, id session2.ID, version func() session2.Version, n int) error {
	for done := 0; done < n; {
		rec, err := store.Load(e.ctx(), id)
		if err != nil {
			return err
		}
		prev := rec.Version
		rec.Version = version()
		rec.Data = binary.BigEndian.AppendUint64(nil, number(rec)+1)
		switch err := store.Save(e.ctx(), rec, prev); {
		case err == nil:
			done++
		case !errors.Is(err, session2.ErrConflict):
			return fmt.Errorf("count to %d: %w", number(rec), err)
		}
	}
	return nil
}

// number reads what count wrote.
func number(rec session2.Record) uint64 {
	if len(rec.Data) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(rec.Data)
}

// versions returns a source of versions for one of several goroutines.
func versions(start session2.Version) func() session2.Version {
	return func() session2.Version {
		start = max(1, start*6364136223846793005+1442695040888963407)
		return start
	}
}

func countTogether(e *exam) {
	const workers, each = 8, 20
	rec := e.record()
	rec.Data = make([]byte, 8)
	e.save(rec, 0)
	sources := make([]func() session2.Version, workers)
	for i := range sources {
		sources[i] = versions(e.version())
	}
	e.together(workers, func(i int) error { return count(e, e.store, rec.ID, sources[i], each) })
	if got := number(e.load(rec.ID)); got != workers*each {
		e.Fatalf("%d goroutines counted to %d each: got %d, want %d", workers, each, got, workers*each)
	}
}

// contest saves all the records at once and wants exactly one to win, the
// others to get ErrConflict, and the winner to be stored.
func (e *exam) contest(recs []session2.Record, prev session2.Version) {
	e.Helper()
	errs := make([]error, len(recs))
	e.together(len(recs), func(i int) error {
		errs[i] = e.store.Save(e.ctx(), recs[i], prev)
		return nil
	})
	winner := -1
	for i, err := range errs {
		if err != nil {
			e.answers("Save of a loser", err, session2.ErrConflict)
		} else if winner >= 0 {
			e.Fatalf("Save: at least two of %d were told that they won", len(recs))
		} else {
			winner = i
		}
	}
	if winner < 0 {
		e.Fatalf("Save: none of %d won", len(recs))
	}
	e.holds(recs[winner])
}

func createTogether(e *exam) {
	for range 15 {
		recs := e.records(8)
		for i := range recs {
			recs[i].ID = recs[0].ID
		}
		e.contest(recs, 0)
	}
}

func replaceTogether(e *exam) {
	for range 15 {
		first := e.record()
		e.save(first, 0)
		recs := make([]session2.Record, 8)
		for i := range recs {
			recs[i] = e.next(first)
		}
		e.contest(recs, first.Version)
	}
}

func askTogether(e *exam) {
	rec := e.record()
	e.save(rec, 0)
	for range 15 {
		next := e.next(rec)
		e.together(4, func(int) error { return e.store.Save(e.ctx(), next, rec.Version) })
		e.holds(next)
		rec = next
	}
}

// pattern fills a record so that each part tells the version.
func pattern(rec session2.Record) session2.Record {
	rec.User = fmt.Sprintf("user %d", rec.Version)
	unit := binary.BigEndian.AppendUint64(nil, uint64(rec.Version))
	rec.Data = bytes.Repeat(unit, 1+int(rec.Version%4096))
	return rec
}

func readBesideSave(e *exam) {
	const saves, readers = 40, 3
	rec := pattern(e.record())
	e.save(rec, 0)
	chain := []session2.Record{rec}
	for range saves {
		rec.Version = e.version()
		chain = append(chain, pattern(rec))
	}
	written := make(chan struct{})
	e.together(1+readers, func(i int) error {
		if i > 0 {
			return e.readWhole(rec.ID, written)
		}
		defer close(written)
		for i, next := range chain[1:] {
			if err := e.store.Save(e.ctx(), next, chain[i].Version); err != nil {
				return err
			}
		}
		return nil
	})
	e.holds(chain[saves])
}

// readWhole loads a record that is being written until done, and wants its
// parts to belong together each time.
func (e *exam) readWhole(id session2.ID, done <-chan struct{}) error {
	for {
		got, err := e.store.Load(e.ctx(), id)
		if err != nil {
			return fmt.Errorf("a Load beside Save: %w", err)
		}
		if d := diff(got, pattern(got)); d != "" {
			return fmt.Errorf("a Load beside Save shows a torn record: %s", d)
		}
		select {
		case <-done:
			return nil
		default:
		}
	}
}

func saveBesideDelete(e *exam) {
	for range 20 {
		rec := e.record()
		e.save(rec, 0)
		sources := []func() session2.Version{versions(e.version()), versions(e.version())}
		deleted := make(chan struct{})
		e.together(3, func(i int) error {
			if i < 2 {
				return e.countUntil(deleted, rec.ID, sources[i])
			}
			defer close(deleted)
			if err := e.store.Delete(e.ctx(), rec.ID); err != nil {
				return err
			}
			_, err := e.store.Load(e.ctx(), rec.ID)
			if !errors.Is(err, session2.ErrNotFound) {
				return fmt.Errorf("a Load right after Delete: got %v, want ErrNotFound", err)
			}
			return nil
		})
		e.lacks(rec.ID)
	}
}

// countUntil counts until the record is gone, at the latest when done.
func (e *exam) countUntil(done <-chan struct{}, id session2.ID, version func() session2.Version) error {
	for {
		err := count(e, e.store, id, version, 1)
		if errors.Is(err, session2.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		select {
		case <-done:
			return nil
		default:
		}
	}
}

func workApart(e *exam) {
	const each = 10
	recs := e.records(8)
	e.create(recs...)
	sources := make([]func() session2.Version, len(recs))
	for i := range sources {
		sources[i] = versions(e.version())
	}
	e.together(len(recs), func(i int) error {
		prev := recs[i].Version
		for range each {
			recs[i].Version = sources[i]()
			recs[i].Data = bytes.Repeat([]byte{byte(i)}, int(recs[i].Version%3000))
			if err := e.store.Save(e.ctx(), recs[i], prev); err != nil {
				return err
			}
			prev = recs[i].Version
		}
		return nil
	})
	e.holds(recs...)
}
