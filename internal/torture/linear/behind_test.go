package linear

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/session2/session2"
)

// behind is a broken store: what a Save acknowledged, it writes before the next call.
// Only the death of a process shows it.
type behind struct {
	store
	mu   sync.Mutex
	late func() // the Save
}

// flushed returns the store with all written, for one call.
func (b *behind) flushed() (s store, unlock func()) {
	b.mu.Lock()
	if b.late != nil {
		b.late()
		b.late = nil
	}
	return b.store, b.mu.Unlock
}

func writeBehind(s store) store {
	own := &behind{store: s}
	b := newBroken(s)
	b.save = own.save
	b.load = func(ctx context.Context, id session2.ID) (session2.Record, error) {
		s, unlock := own.flushed()
		defer unlock()
		return s.Load(ctx, id)
	}
	b.has = func(ctx context.Context, id session2.ID) (bool, error) {
		s, unlock := own.flushed()
		defer unlock()
		return s.Has(ctx, id)
	}
	b.remove = func(ctx context.Context, id session2.ID) error {
		s, unlock := own.flushed()
		defer unlock()
		return s.Delete(ctx, id)
	}
	b.touch = func(ctx context.Context, id session2.ID, accessed, expires time.Time) error {
		s, unlock := own.flushed()
		defer unlock()
		return s.Touch(ctx, id, accessed, expires)
	}
	b.deleteOld = func(ctx context.Context, age time.Duration) (int, error) {
		s, unlock := own.flushed()
		defer unlock()
		return s.DeleteOld(ctx, age)
	}
	b.deleteUser = func(ctx context.Context, user string, keep ...session2.ID) (int, error) {
		s, unlock := own.flushed()
		defer unlock()
		return s.DeleteUser(ctx, user, keep...)
	}
	b.iter = func(ctx context.Context) iter.Seq2[session2.Record, error] {
		s, unlock := own.flushed()
		defer unlock()
		return s.Iter(ctx)
	}
	b.iterUser = func(ctx context.Context, user string) iter.Seq2[session2.Record, error] {
		s, unlock := own.flushed()
		defer unlock()
		return s.IterUser(ctx, user)
	}
	return b
}

func (b *behind) save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	s, unlock := b.flushed()
	defer unlock()
	old, err := s.Load(ctx, rec.ID)
	if err != nil && !errors.Is(err, session2.ErrNotFound) {
		return err
	}
	write, err := admit(old, rec, prev)
	if write {
		b.late = func() { s.Save(context.Background(), rec, prev) }
	}
	return err
}

// A store that writes what it acknowledged only later is found out by a kill, and by
// nothing else.
func TestBrokenWriteBehind(t *testing.T) {
	t.Parallel()
	url := "bolt:" + t.TempDir() + "/b?timeout=1m"
	for n := 1; n <= 100; n++ {
		p := newPlan(uint64(n))
		rng := rand.New(rand.NewPCG(p.Seed, 2))
		c := &children{t: t, h: new(history)}
		j := newJob(p, url, 0)
		j.Behind, j.Plan.Calls = true, 16
		f := fate{kill: 1 + rng.IntN(j.lines())}
		if n <= 2 {
			f.kill, j.Plan.Calls = 0, 40
		}
		c.run(j, f)
		if f.kill == 0 { // the end of the process would be such a death
			c.h.must(t, p.Seed, rules{keys: p.Keys})
			continue
		}
		stores := open(t, url, 1)
		p.settle(stores, c.h)
		session2.Close(stores[0])
		if c.h.check(rules{keys: p.Keys}) != nil {
			t.Logf("found after %d kills", n-2)
			return
		}
	}
	t.Error("not found")
}
