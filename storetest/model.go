package storetest

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/session2/session2"
)

// A model is what a store must hold, and play is a few IDs, versions and users
// drawn again and again, so that the calls meet.
type model map[session2.ID]session2.Record

type play struct {
	*exam
	model
	ids      []session2.ID
	versions []session2.Version
	users    []string
}

// randomCalls makes random calls and compares each answer with the model's. The
// seed that Run logged repeats them.
func randomCalls(e *exam) {
	p := &play{exam: e, model: model{}, users: []string{"", "al", "alice", "Alice"}}
	for range 5 {
		p.ids = append(p.ids, e.id())
		p.versions = append(p.versions, e.version())
	}
	calls := p.calls()
	for range 400 {
		calls[e.rand.IntN(len(calls))]()
	}
	p.compare()
}

// calls returns the calls that the store offers; those that comes more often
// are listed more often.
func (p *play) calls() []func() {
	calls := []func(){p.saveAny, p.saveAny, p.saveOnTop, p.saveOnTop, p.saveOnTop, p.saveOnTop, p.loadAny, p.deleteAny}
	if p.has&touches != 0 {
		calls = append(calls, p.touchAny)
	}
	if p.has&sweeps != 0 {
		calls = append(calls, p.sweepAny)
	}
	if p.has&users != 0 {
		calls = append(calls, p.ownAny, p.dismissAny)
	}
	if p.has&lists != 0 {
		calls = append(calls, func() { p.listsAll(slices.Collect(maps.Values(p.model))...) })
	}
	return calls
}

func pick[T any](e *exam, from []T) T { return from[e.rand.IntN(len(from))] }

// clock returns a time near now, and never so near to a full hour from now that
// the run of the test could matter.
func (p *play) clock() time.Time {
	steps := time.Duration(p.rand.IntN(24) - 12)
	return time.Now().UTC().Truncate(time.Microsecond).Add(steps*10*time.Minute + 5*time.Minute)
}

func (p *play) draw() session2.Record {
	return session2.Record{
		ID: pick(p.exam, p.ids), Version: pick(p.exam, p.versions), User: pick(p.exam, p.users),
		Created: p.clock(), Accessed: p.clock(), Expires: p.clock(), Data: p.data(p.rand.IntN(50)),
	}
}

// saveAny saves over any version, mostly in vain.
func (p *play) saveAny() {
	prev := session2.Version(0)
	if p.rand.IntN(3) > 0 {
		prev = pick(p.exam, p.versions)
	}
	p.saveAs(p.draw(), prev)
}

// saveOnTop saves over what is there.
func (p *play) saveOnTop() {
	rec := p.draw()
	p.saveAs(rec, p.model[rec.ID].Version)
}

func (p *play) saveAs(rec session2.Record, prev session2.Version) {
	want := p.model.save(rec, prev)
	err := p.store.Save(p.ctx(), rec, prev)
	if !errors.Is(err, want) {
		p.Fatalf("Save of version %d over %d: got %v, want %v", rec.Version, prev, err, want)
	}
}

// save is the contract of Save in the fewest words.
func (m model) save(rec session2.Record, prev session2.Version) error {
	old, found := m[rec.ID]
	switch {
	case found && old.Version == rec.Version:
		return nil
	case found && old.Version != prev:
		return session2.ErrConflict
	case !found && prev != 0:
		return session2.ErrNotFound
	}
	m[rec.ID] = rec
	return nil
}

func (p *play) loadAny() {
	id := pick(p.exam, p.ids)
	if rec, ok := p.model[id]; ok {
		p.holds(rec)
	} else {
		p.lacks(id)
	}
}

func (p *play) deleteAny() {
	id := pick(p.exam, p.ids)
	p.remove(id)
	delete(p.model, id)
}

func (p *play) touchAny() {
	id, accessed, expires := pick(p.exam, p.ids), p.clock(), p.clock()
	p.touch(id, accessed, expires)
	if rec, ok := p.model[id]; ok {
		if accessed.After(rec.Accessed) {
			rec.Accessed = accessed
		}
		if expires.After(rec.Expires) {
			rec.Expires = expires
		}
		p.model[id] = rec
	}
}

func (p *play) sweepAny() {
	age := time.Duration(p.rand.IntN(3)) * time.Hour
	now := time.Now()
	p.sweep(age, p.removeIf(func(rec session2.Record) bool {
		return !rec.Accessed.After(now.Add(-age)) || !rec.Expires.After(now)
	}))
}

func (p *play) ownAny() {
	user := pick(p.exam, p.users)
	var want []session2.Record
	for _, rec := range p.model {
		if user != "" && rec.User == user {
			want = append(want, rec)
		}
	}
	p.owns(user, want...)
}

func (p *play) dismissAny() {
	user := pick(p.exam, p.users)
	p.dismiss(user, p.removeIf(func(rec session2.Record) bool { return user != "" && rec.User == user }))
}

// removeIf removes from the model and counts.
func (p *play) removeIf(gone func(session2.Record) bool) int {
	before := len(p.model)
	maps.DeleteFunc(p.model, func(_ session2.ID, rec session2.Record) bool { return gone(rec) })
	return before - len(p.model)
}

func (p *play) compare() {
	for _, id := range p.ids {
		if rec, ok := p.model[id]; ok {
			p.holds(rec)
		} else {
			p.lacks(id)
		}
	}
	if p.has&lists != 0 {
		p.listsAll(slices.Collect(maps.Values(p.model))...)
	}
}
