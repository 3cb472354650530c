package storetest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/session2/session2"
)

// processing holds the clauses on several stores over the same data, in one
// process and in several, and on processes that die.
var processing = []clause{
	{says: "What one store does another over the same data shows at once", needs: processes, check: twoStores},
	{says: "What one store touches, sweeps and lists by user another over the same data does too",
		needs: processes | touches | sweeps | users | lists, check: twoStoresOptional},
	{says: "Counting by load and conditional save in two stores over the same data comes out exact",
		needs: processes | threads, check: countInTwo},
	{says: "Two stores over the same data may save and load at once, and each shows what the other saved",
		needs: processes | threads, check: saveAndLoadInTwo},
	{says: "Counting by load and conditional save in 4 processes comes out exact",
		needs: processes, check: countInProcesses},
	{says: "Of several processes that create one ID at once exactly one wins",
		needs: processes, check: createInProcesses},
	{says: "Setup may be called by several processes at once and never drops data",
		needs: processes | setsUp, check: setupInProcesses},
	{says: "Readers beside a writing process see whole records only", needs: processes, check: readBesideProcess},
	{says: "A process that is killed while it writes holds nobody up", needs: processes, check: killHoldsNobodyUp},
	{says: "After kill -9 every acknowledged change is there and nothing is half done",
		needs: durable, check: killLosesNothing},
}

// through runs f with another store in the place of the one examined.
func (e *exam) through(store session2.Store, f func()) {
	own := e.store
	e.store = store
	f()
	e.store = own
}

func twoStores(e *exam) {
	other := e.another()
	rec := e.record()
	e.through(other, func() { e.lacks(rec.ID) })
	e.save(rec, 0)
	for range 5 {
		e.through(other, func() {
			e.holds(rec)
			next := e.next(rec)
			e.answers("create", e.store.Save(e.ctx(), next, 0), session2.ErrConflict)
			e.save(next, rec.Version)
			rec = next
		})
		e.holds(rec)
		e.answers("Save", e.store.Save(e.ctx(), e.next(rec), e.version()), session2.ErrConflict)
	}
	e.through(other, func() { e.remove(rec.ID) })
	e.lacks(rec.ID)
	e.answers("Save", e.store.Save(e.ctx(), e.next(rec), rec.Version), session2.ErrNotFound)
	e.save(rec, 0)
	e.through(other, func() { e.holds(rec) })
}

func twoStoresOptional(e *exam) {
	other := e.another()
	recs := e.recordsOf("alice", 3)
	e.create(recs...)
	e.through(other, func() {
		e.owns("alice", recs...)
		e.listsAll(recs...)
		recs[0].Accessed, recs[0].Expires = recs[0].Accessed.Add(time.Second), recs[0].Expires.Add(time.Hour)
		e.touch(recs[0].ID, recs[0].Accessed, recs[0].Expires)
		next := e.next(recs[1])
		next.Expires = next.Accessed
		e.save(next, recs[1].Version)
	})
	e.holds(recs[0])
	e.sweep(time.Hour, 1)
	e.through(other, func() {
		e.owns("alice", recs[0], recs[2])
		e.sweep(time.Hour, 0)
		e.dismiss("alice", 2)
	})
	e.owns("alice")
	e.listsAll()
}

func countInTwo(e *exam) {
	const workers, each = 4, 15
	stores := []session2.Store{e.store, e.another()}
	rec := e.record()
	rec.Data = make([]byte, 8)
	e.save(rec, 0)
	sources := make([]func() session2.Version, workers)
	for i := range sources {
		sources[i] = versions(e.version())
	}
	e.together(workers, func(i int) error { return count(e, stores[i%2], rec.ID, sources[i], each) })
	if got := number(e.load(rec.ID)); got != workers*each {
		e.Fatalf("got %d, want %d", got, workers*each)
	}
}

// saveAndLoadInTwo is above all for the race detector: what one store reads of
// the other's changes meets what its own change is still at. It starts anew each
// time, and looks a few times only: a reader that never rests would cover up what
// the detector has noted of the others.
func saveAndLoadInTwo(e *exam) {
	other := e.another()
	own, theirs := e.record(), e.record()
	e.create(own, theirs)
	for range 40 {
		nextOwn, nextTheirs := e.next(own), e.next(theirs)
		e.together(3, func(i int) error {
			switch i {
			case 0:
				return e.store.Save(e.ctx(), nextOwn, own.Version)
			case 1:
				return other.Save(e.ctx(), nextTheirs, theirs.Version)
			}
			return loadBeside(e, theirs, nextTheirs)
		})
		own, theirs = nextOwn, nextTheirs
		e.holds(own, theirs)
		e.through(other, func() { e.holds(own, theirs) })
	}
}

// loadBeside loads a record while it is being replaced, and wants it to be the
// one before or, from some time on, the one after.
func loadBeside(e *exam, before, after session2.Record) error {
	replaced := false
	for range 10 {
		got, err := e.store.Load(e.ctx(), before.ID)
		if err != nil {
			return err
		}
		want := before
		if replaced = replaced || got.Version == after.Version; replaced {
			want = after
		}
		if d := diff(got, want); d != "" {
			return fmt.Errorf("a Load beside another store's Save: %s", d)
		}
	}
	return nil
}

func countInProcesses(e *exam) {
	const workers, each = 4, 20 // in a round
	rec := e.record()
	rec.Data = make([]byte, 8)
	e.save(rec, 0)
	want := 0
	for _, reports := range e.parallel(workers, job{Work: "count", ID: rec.ID, N: each}) {
		for _, n := range reports {
			want += n
		}
	}
	if got := number(e.load(rec.ID)); got != uint64(want) {
		e.Fatalf("%d processes counted %d steps: got %d", workers, want, got)
	}
}

func countJob(e *exam, j job) error {
	return e.rounds(func() error {
		err := count(e, e.store, j.ID, e.version, j.N)
		if err == nil {
			report("counted", j.N)
		}
		return err
	})
}

// step derives the ID of a job's i-th record.
func step(base session2.ID, i int) session2.ID {
	binary.BigEndian.PutUint64(base[8:], uint64(i))
	return base
}

func createInProcesses(e *exam) {
	const workers, n = 4, 15
	base := e.id()
	var won []int
	for _, reports := range e.parallel(workers, job{Work: "create", ID: base, N: n}) {
		won = append(won, reports...)
	}
	slices.Sort(won)
	for i := range n {
		if i >= len(won) || won[i] != i {
			e.Fatalf("got the winners of the records %v, want each from 0 to %d once", won, n-1)
		}
		if got := e.load(step(base, i)); diff(got, pattern(got)) != "" {
			e.Fatalf("record %d: %s", i, diff(got, pattern(got)))
		}
	}
	if len(won) != n {
		e.Fatalf("got %d winners for %d records", len(won), n)
	}
}

func createJob(e *exam, j job) error {
	for i := range j.N {
		rec := e.record()
		rec.ID = step(j.ID, i)
		err := e.store.Save(e.ctx(), pattern(rec), 0)
		if err == nil {
			report("won", i)
		} else if !errors.Is(err, session2.ErrConflict) {
			return fmt.Errorf("create record %d: %w", i, err)
		}
	}
	return nil
}

func setupInProcesses(e *exam) {
	recs := e.recordsOf("alice", 5)
	e.create(recs...)
	e.parallel(3, job{Work: "setup"})
	e.holds(recs...)
}

func setupJob(e *exam, _ job) error {
	return e.rounds(func() error {
		if err := e.store.(session2.SetupStore).Setup(e.ctx()); err != nil {
			return fmt.Errorf("in Setup: %w", err)
		}
		return nil
	})
}

// mainRecord creates the record that a write job goes on with. Its version counts the
// job's steps.
func (e *exam) mainRecord() session2.Record {
	rec := e.record()
	rec.Version = 1
	rec = pattern(rec)
	e.save(rec, 0)
	return rec
}

// writeJob changes three records in each step, and reports the step when all
// three changes are acknowledged: it creates the step's own record, saves the
// main record, and deletes the record of two steps before.
func writeJob(e *exam, j job) error {
	main, err := e.store.Load(e.ctx(), j.ID)
	if err != nil {
		return fmt.Errorf("load the main record: %w", err)
	}
	done := int(main.Version) - 1
	if err := e.store.Delete(e.ctx(), step(j.ID, done-2)); err != nil { // the last process may have died before
		return err
	}
	for i := done + 1; i <= done+j.N; i++ {
		prev := main.Version
		main.Version++
		main = pattern(main)
		own := main
		own.ID = step(j.ID, i)
		err := errors.Join(
			e.store.Save(e.ctx(), own, 0),
			e.store.Save(e.ctx(), main, prev),
			e.store.Delete(e.ctx(), step(j.ID, i-2)),
		)
		if err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		report("acknowledged", i)
	}
	return nil
}

func readBesideProcess(e *exam) {
	main := e.mainRecord()
	const steps = 20
	p := e.start(job{Work: "write", ID: main.ID, N: steps})
	e.signal(p)
	for {
		if _, n, ok := p.next(); !ok || n == steps {
			break
		}
		for range 20 {
			if got := e.load(main.ID); diff(got, pattern(got)) != "" {
				e.Fatalf("a torn record: %s", diff(got, pattern(got)))
			}
		}
	}
	p.finish()
	if got := e.load(main.ID).Version; got != steps+1 {
		e.Fatalf("after %d steps of the other process: got version %d, want %d", steps, got, steps+1)
	}
}

// killWriter lets a process write, kills it some steps on, and returns the last
// step that it reported.
func (e *exam) killWriter(id session2.ID) int {
	e.Helper()
	last := 0
	p := e.start(job{Work: "write", ID: id, N: 1 << 30})
	e.signal(p)
	for steps := 1 + e.rand.IntN(12); ; steps-- {
		if steps == 0 {
			p.kill()
		}
		_, n, ok := p.next()
		if !ok {
			break
		}
		last = n
	}
	if p.cmd.Wait(); last == 0 {
		e.Fatalf("another process ended before its first step: %s", p.errors.String())
	}
	return last
}

func killHoldsNobodyUp(e *exam) {
	main := e.mainRecord()
	for range 3 {
		e.killWriter(main.ID)
		now := e.load(main.ID)
		next := now
		next.Version++
		e.save(pattern(next), now.Version)
		e.remove(e.record().ID)
	}
}

// killLosesNothing closes its own store first: a durable store need not share
// its data with another process.
func killLosesNothing(e *exam) {
	main := e.mainRecord()
	for range 3 {
		e.close()
		acknowledged := e.killWriter(main.ID)
		e.store = e.another()
		e.survived(main.ID, acknowledged)
		e.agrees()
	}
	e.killAfterEach()
}

// The changes of a changeJob.
const (
	changeCreate = iota
	changeSave
	changeDelete
	changes
)

// killAfterEach kills a process just after each kind of change, when that alone was
// acknowledged: no later change can have taken it to the disk.
func (e *exam) killAfterEach() {
	e.Helper()
	for change := range changes {
		rec := e.record()
		rec.Version = 1
		rec = pattern(rec)
		if change != changeCreate {
			e.save(rec, 0)
		}
		e.close()
		p := e.start(job{Work: "change", ID: rec.ID, N: change})
		e.signal(p)
		_, _, ok := p.next()
		p.kill()
		if p.cmd.Wait(); !ok {
			e.Fatalf("another process ended before its change: %s", p.errors.String())
		}
		e.store = e.another()
		switch change {
		case changeDelete:
			e.lacks(rec.ID)
		default:
			got := e.load(rec.ID)
			if want := session2.Version(1 + change); got.Version != want || diff(got, pattern(got)) != "" {
				e.Fatalf("after a Save that was acknowledged: got version %d, want %d", got.Version, want)
			}
		}
	}
}

// changeJob makes one change, reports it, and waits to be killed.
func changeJob(e *exam, j job) (err error) {
	rec := e.record()
	rec.ID, rec.Version = j.ID, session2.Version(1+j.N)
	switch j.N {
	case changeCreate:
		err = e.store.Save(e.ctx(), pattern(rec), 0)
	case changeSave:
		err = e.store.Save(e.ctx(), pattern(rec), 1)
	default:
		err = e.store.Delete(e.ctx(), rec.ID)
	}
	if err == nil {
		report("acknowledged", j.N)
		select {} // the process ends with its parent, if not before
	}
	return err
}

// survived checks what a killed writeJob leaves: all steps that it reported,
// and the next one begun or not.
func (e *exam) survived(id session2.ID, last int) {
	e.Helper()
	main := e.load(id)
	if done := int(main.Version) - 1; done != last && done != last+1 {
		e.Fatalf("the main record shows step %d, and step %d was acknowledged", done, last)
	}
	if d := diff(main, pattern(main)); d != "" {
		e.Fatalf("the main record is half of one step and half of another: %s", d)
	}
	e.load(step(id, last)) // created
	for i := max(1, last-10); i <= last-2; i++ {
		e.lacks(step(id, i))
	}
	switch got, err := e.store.Load(e.ctx(), step(id, last+1)); {
	case err == nil:
		if d := diff(got, pattern(got)); d != "" {
			e.Fatalf("the record that was being created: %s", d)
		}
	case !errors.Is(err, session2.ErrNotFound):
		e.Fatalf("Load of the record that was being created: %v", err)
	}
}

// agrees checks that the lists and the records say the same. What a process asked of a
// server just before it died may come true between two looks, once.
func (e *exam) agrees() {
	e.Helper()
	if e.has&lists == 0 || e.disagreement() == "" {
		return
	}
	if d := e.disagreement(); d != "" {
		e.Fatalf("%s", d)
	}
}

func (e *exam) disagreement() string {
	recs, err := collect(e.iter())
	if err != nil {
		return fmt.Sprintf("Iter: %v", err)
	}
	byUser := map[string][]session2.Record{}
	for _, rec := range recs {
		byUser[rec.User] = append(byUser[rec.User], rec)
		got, err := e.store.Load(e.ctx(), rec.ID)
		if err != nil {
			return fmt.Sprintf("Load of a listed record: %v", err)
		}
		if d := diff(got, rec); d != "" {
			return "Load of a listed record: " + d
		}
	}
	if e.has&users == 0 {
		return ""
	}
	for user, own := range byUser {
		got, err := collect(e.iterUser(user))
		if err != nil {
			return fmt.Sprintf("IterUser(%q): %v", user, err)
		}
		if d := diffAll(got, own); d != "" {
			return fmt.Sprintf("IterUser(%q): %s", user, d)
		}
	}
	return ""
}
