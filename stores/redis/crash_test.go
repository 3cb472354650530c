package redisstore_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
	redisstore "github.com/session2/session2/stores/redis"
)

// writer saves one record again and again, and deletes others.
type writer struct {
	rec     session2.Record
	version session2.Version // the latest that was acknowledged
	deleted []session2.ID    // whose Delete was acknowledged
}

// work goes on until a call fails.
func (w *writer) work(t *testing.T, store *redisstore.Store) {
	ctx := t.Context()
	for v := w.version + 1; ; v++ {
		if store.Save(ctx, next(w.rec, v), w.version) != nil {
			return
		}
		w.version = v
		other := next(w.rec, v)
		other.ID[8], other.ID[9] = byte(v>>8), byte(v)
		if store.Save(ctx, other, 0) != nil || store.Delete(ctx, other.ID) != nil {
			return
		}
		w.deleted = append(w.deleted, other.ID)
	}
}

// TestKillLosesNothing kills the server under load: every change that it acknowledged is there
// when it is back, and at most the one that was under way besides.
func TestKillLosesNothing(t *testing.T) {
	t.Parallel()
	server := testdb.NewRedis(t)
	store := open(t, connect(t, server.DSN()), redisstore.Options{})
	if !store.Capabilities().Durable {
		t.Fatal("the server is not durable")
	}
	writers := make([]*writer, 8)
	for i := range writers {
		writers[i] = &writer{rec: record(byte(i))}
	}
	for range 3 {
		var work sync.WaitGroup
		for _, w := range writers {
			work.Go(func() { w.work(t, store) })
		}
		probe := record(200) // its saves show that the others are under way
		for range 20 {
			testsite.Must(t, store.Save(t.Context(), probe, 0))
			testsite.Must(t, store.Delete(t.Context(), probe.ID))
		}
		server.Kill()
		work.Wait()
		server.Start()
		for _, w := range writers {
			recovers(t, store, w.rec)
			got, err := store.Load(t.Context(), w.rec.ID)
			if err != nil || got.Version != w.version && got.Version != w.version+1 {
				t.Errorf("got version %d, %v, and %d was acknowledged", got.Version, err, w.version)
			}
			w.version = got.Version
			for _, id := range w.deleted {
				if _, err := store.Load(t.Context(), id); !errors.Is(err, session2.ErrNotFound) {
					t.Errorf("a record whose Delete was acknowledged: got %v", err)
				}
			}
			w.deleted = nil
		}
	}
	for _, w := range writers {
		if w.version < 2 {
			t.Errorf("a writer came to version %d only", w.version)
		}
	}
}
