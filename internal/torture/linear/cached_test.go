package linear

import (
	"context"
	"testing"
	"time"

	"github.com/session2/session2"
)

// looks is a store with a cache, whose Load is a request's first look at its session. In
// one process it is as exact as its store.
type looks struct{ store }

func (l looks) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	rec, _, err := l.store.(interface {
		LoadCached(ctx context.Context, id session2.ID) (session2.Record, bool, error)
	}).LoadCached(ctx, id)
	return rec, err
}

// cached puts a cache in front of s that forgets nothing by itself.
func cached(s store) store {
	return looks{session2.NewCache(s, &session2.CacheOptions{MaxAge: time.Hour}).(store)}
}

// hidden is a cached store whose cache does not see some changes.
type hidden struct {
	store
	behind store // changes go there, past the cache
}

func (h hidden) Delete(ctx context.Context, id session2.ID) error { return h.behind.Delete(ctx, id) }

// A cache that does not see a change is found out.
func TestCacheThatMissesChanges(t *testing.T) {
	for seed := uint64(1); seed <= 500; seed++ {
		s := session2.NewMemoryStore()
		p := newPlan(seed)
		h := new(history)
		stores := []store{hidden{cached(s), s}}
		p.clients(stores, h)
		p.settle(stores, h)
		s.Close()
		if h.check(rules{keys: p.Keys}) != nil {
			t.Logf("found after %d histories", seed)
			return
		}
	}
	t.Error("not found in 500 histories")
}
