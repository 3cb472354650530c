package linear

import (
	"context"
	"iter"
	"testing"
	"time"

	"github.com/session2/session2"
)

// broken is a store with some of its methods replaced.
type broken struct {
	store
	load       func(ctx context.Context, id session2.ID) (session2.Record, error)
	save       func(ctx context.Context, rec session2.Record, prev session2.Version) error
	remove     func(ctx context.Context, id session2.ID) error
	has        func(ctx context.Context, id session2.ID) (bool, error)
	touch      func(ctx context.Context, id session2.ID, accessed, expires time.Time) error
	deleteOld  func(ctx context.Context, age time.Duration) (int, error)
	deleteUser func(ctx context.Context, user string, keep ...session2.ID) (int, error)
	iter       func(ctx context.Context) iter.Seq2[session2.Record, error]
	iterUser   func(ctx context.Context, user string) iter.Seq2[session2.Record, error]
}

func newBroken(s store) *broken {
	return &broken{
		store: s, load: s.Load, save: s.Save, remove: s.Delete, has: s.Has, touch: s.Touch,
		deleteOld: s.DeleteOld, deleteUser: s.DeleteUser,
		iter: s.Iter, iterUser: s.IterUser,
	}
}

func (b *broken) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	return b.load(ctx, id)
}

func (b *broken) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	return b.save(ctx, rec, prev)
}
func (b *broken) Delete(ctx context.Context, id session2.ID) error      { return b.remove(ctx, id) }
func (b *broken) Has(ctx context.Context, id session2.ID) (bool, error) { return b.has(ctx, id) }

func (b *broken) Touch(ctx context.Context, id session2.ID, accessed, expires time.Time) error {
	return b.touch(ctx, id, accessed, expires)
}

func (b *broken) DeleteOld(ctx context.Context, age time.Duration) (int, error) {
	return b.deleteOld(ctx, age)
}

func (b *broken) DeleteUser(ctx context.Context, user string, keep ...session2.ID) (int, error) {
	return b.deleteUser(ctx, user, keep...)
}

func (b *broken) Iter(ctx context.Context) iter.Seq2[session2.Record, error] { return b.iter(ctx) }

func (b *broken) IterUser(ctx context.Context, user string) iter.Seq2[session2.Record, error] {
	return b.iterUser(ctx, user)
}

// A broken store is found out, by the same checker, after a few histories.
func TestBrokenStores(t *testing.T) {
	for _, breakage := range breakages {
		t.Run(breakage.name, func(t *testing.T) {
			start := time.Now()
			for n := 1; ; n++ {
				if h, r := breakOnce(uint64(n), breakage.do); h.check(r) != nil {
					t.Logf("found after %d histories, in %v", n, time.Since(start).Round(time.Millisecond))
					return
				}
				if n >= 100 && time.Since(start) > time.Minute {
					t.Fatalf("not found in %d histories", n)
				}
			}
		})
	}
}

// breakOnce runs a history over a broken store.
func breakOnce(seed uint64, do func(b *broken, s store)) (*history, rules) {
	s := session2.NewMemoryStore()
	defer s.Close()
	b := newBroken(s)
	do(b, s)
	p := newPlan(seed)
	p.Cancel = 5
	h := new(history)
	p.clients([]store{b}, h)
	p.settle([]store{b}, h)
	return h, rules{keys: p.Keys}
}
