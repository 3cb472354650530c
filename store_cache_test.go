package session2_test

import (
	"context"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/storetest"
)

// nearStore is a cache whose Load may be old, as a request's first look is. Other openings
// of the same data do not see what it saves at once, and it does not say that they would.
type nearStore struct{ houseStore }

func newNearStore(store session2.Store) nearStore {
	return nearStore{session2.NewCache(store, nil).(houseStore)}
}

func (s nearStore) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	rec, _, err := s.houseStore.(interface {
		LoadCached(ctx context.Context, id session2.ID) (session2.Record, bool, error)
	}).LoadCached(ctx, id)
	return rec, err
}

func (s nearStore) Capabilities() session2.Capabilities {
	caps := s.houseStore.Capabilities()
	caps.MultiprocessSafe, caps.MultihostSafe = false, false
	return caps
}

// A cache keeps the contract of stores with all that its store promises. Within one
// process what it has cached keeps it, too.
func TestCacheConformance(t *testing.T) {
	for name, open := range map[string]func(t testing.TB, dir string) session2.Store{
		"memory": func(testing.TB, string) session2.Store { return session2.NewMemoryStore() },
		"file":   func(t testing.TB, dir string) session2.Store { return openFile(t, dir, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t testing.TB, dir string) session2.Store {
				return session2.NewCache(open(t, dir), nil)
			}, nil)
		})
		t.Run(name+", cached", func(t *testing.T) {
			storetest.Run(t, func(t testing.TB, dir string) session2.Store { return newNearStore(open(t, dir)) }, nil)
		})
	}
}
