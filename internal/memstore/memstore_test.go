package memstore_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"iter"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/storetest"
)

func TestMemoryStore(t *testing.T) {
	storetest.Run(t, func(testing.TB, string) session2.Store { return session2.NewMemoryStore() }, nil)
}

// newRecord returns the nth record of user, made and used now, for an hour.
func newRecord(n uint64, user string) session2.Record {
	now := time.Now()
	rec := session2.Record{Version: 1, User: user, Created: now, Accessed: now, Expires: now.Add(time.Hour),
		Data: []byte("data")}
	binary.BigEndian.PutUint64(rec.ID[8:], n)
	return rec
}

func fill(t testing.TB, store *session2.MemoryStore, n int, user string) {
	t.Helper()
	for i := range uint64(n) {
		if err := store.Save(t.Context(), newRecord(i, user), 0); err != nil {
			t.Fatalf("Save: %v", err)
		}
	}
}

func count(t testing.TB, seq iter.Seq2[session2.Record, error]) int {
	t.Helper()
	n := 0
	for rec, err := range seq {
		if err != nil {
			t.Fatalf("iterating: %v, %v", rec.ID, err)
		}
		n++
	}
	return n
}

// calls is every call that takes a context.
var calls = map[string]func(context.Context, *session2.MemoryStore) error{
	"Load": func(ctx context.Context, s *session2.MemoryStore) error {
		_, err := s.Load(ctx, session2.ID{})
		return err
	},
	"Save": func(ctx context.Context, s *session2.MemoryStore) error {
		return s.Save(ctx, newRecord(99, ""), 0)
	},
	"Delete": func(ctx context.Context, s *session2.MemoryStore) error { return s.Delete(ctx, session2.ID{}) },
	"Has": func(ctx context.Context, s *session2.MemoryStore) error {
		_, err := s.Has(ctx, session2.ID{})
		return err
	},
	"Touch": func(ctx context.Context, s *session2.MemoryStore) error {
		return s.Touch(ctx, session2.ID{}, time.Now(), time.Now())
	},
	"DeleteOld": func(ctx context.Context, s *session2.MemoryStore) error {
		_, err := s.DeleteOld(ctx, 0)
		return err
	},
	"DeleteUser": func(ctx context.Context, s *session2.MemoryStore) error {
		_, err := s.DeleteUser(ctx, "alice")
		return err
	},
	"Iter": func(ctx context.Context, s *session2.MemoryStore) error { return firstError(s.Iter(ctx)) },
	"IterUser": func(ctx context.Context, s *session2.MemoryStore) error {
		return firstError(s.IterUser(ctx, "alice"))
	},
}

func firstError(seq iter.Seq2[session2.Record, error]) error {
	for _, err := range seq {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestMemoryClosed(t *testing.T) {
	store := session2.NewMemoryStore()
	fill(t, store, 10, "alice")
	for range 2 {
		if err := store.Close(); err != nil {
			t.Fatalf("Close() = %v", err)
		}
	}
	for name, call := range calls {
		if err := call(t.Context(), store); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s after Close = %v, want an error matching fs.ErrClosed", name, err)
		}
	}
}

func TestMemoryCancelled(t *testing.T) {
	store := session2.NewMemoryStore()
	fill(t, store, 10, "alice")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range calls {
		if err := call(ctx, store); !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context = %v, want context.Canceled", name, err)
		}
	}
	if got := count(t, store.Iter(t.Context())); got != 10 {
		t.Errorf("afterwards there are %d records, want 10", got)
	}
}

// An iteration stops at a cancellation or a Close in its midst, and says why.
func TestMemoryIterEnds(t *testing.T) {
	store := session2.NewMemoryStore()
	fill(t, store, 1000, "alice")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	var err error
	for _, err = range store.Iter(ctx) {
		if n++; n == 10 {
			cancel()
		}
	}
	if n != 11 || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled at the 10th record, Iter ended at the %dth with %v", n, err)
	}
	n = 0
	for _, err = range store.IterUser(t.Context(), "alice") {
		if n++; n == 10 {
			store.Close()
		}
	}
	if n != 11 || !errors.Is(err, fs.ErrClosed) {
		t.Errorf("closed at the 10th record, IterUser ended at the %dth with %v", n, err)
	}
}

// The body of a loop may change the store: records that went or changed hands
// before their turn are not shown.
func TestMemoryIterBody(t *testing.T) {
	store := session2.NewMemoryStore()
	fill(t, store, 1000, "alice")
	n := 0
	for _, err := range store.IterUser(t.Context(), "alice") {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n > 1 {
			continue
		}
		for i := range uint64(1000) {
			rec := newRecord(i, "bob")
			rec.Version = 2
			if err := store.Save(t.Context(), rec, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n != 1 {
		t.Errorf("IterUser(alice) showed %d records, want 1: the others are bob's", n)
	}
	if n := count(t, store.IterUser(t.Context(), "bob")); n != 1000 {
		t.Errorf("IterUser(bob) shows %d records, want 1000", n)
	}
}

// DeleteOld finds everything that is due, however many batches that takes,
// and nothing else.
func TestMemoryDeleteOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 50_000 // several batches a shard
		store := session2.NewMemoryStore()
		fill(t, store, n, "alice")
		time.Sleep(10 * time.Minute)
		kept := newRecord(1, "")
		if err := store.Touch(t.Context(), kept.ID, time.Now(), time.Time{}); err != nil {
			t.Fatal(err)
		}
		if got, err := store.DeleteOld(t.Context(), 11*time.Minute); got != 0 || err != nil {
			t.Errorf("DeleteOld(11m) = %d, %v, want 0, nil", got, err)
		}
		if got, err := store.DeleteOld(t.Context(), 10*time.Minute); got != n-1 || err != nil {
			t.Errorf("DeleteOld(10m) = %d, %v, want %d, nil", got, err, n-1)
		}
		time.Sleep(50 * time.Minute)
		if got, err := store.DeleteOld(t.Context(), 24*time.Hour); got != 1 || err != nil {
			t.Errorf("DeleteOld(24h) an hour later = %d, %v, want 1, nil", got, err)
		}
		if _, err := store.DeleteOld(t.Context(), -1); err == nil {
			t.Error("DeleteOld(-1) = nil, want an error")
		}
	})
}

// A session that was touched before a sweep got to it survives the sweep,
// however late in the sweep that is.
func TestMemoryTouchBesideSweep(t *testing.T) {
	for range 500 {
		store := session2.NewMemoryStore()
		ids := fillOneShard(t, store, 300)
		var survivors []session2.ID
		var wg sync.WaitGroup
		started := make(chan bool)
		wg.Go(func() {
			close(started)
			survivors = touchAll(t, store, ids)
		})
		<-started
		if _, err := store.DeleteOld(t.Context(), time.Minute); err != nil {
			t.Error(err)
		}
		wg.Wait()
		for _, id := range survivors {
			if found, err := store.Has(t.Context(), id); !found || err != nil {
				t.Fatalf("Has(%v) after the sweep = %v, %v; it had been touched", id, found, err)
			}
		}
		if n := count(t, store.Iter(t.Context())); n != len(survivors) {
			t.Fatalf("%d records are left, want the %d touched ones", n, len(survivors))
		}
	}
}

// fillOneShard saves n records that were last used an hour ago, all under one lock.
func fillOneShard(t *testing.T, store *session2.MemoryStore, n int) (ids []session2.ID) {
	for i := range uint64(n) {
		rec := newRecord(i<<16, "")
		rec.Accessed = rec.Accessed.Add(-time.Hour)
		if err := store.Save(t.Context(), rec, 0); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, rec.ID)
	}
	return ids
}

// touchAll touches the records and returns those that it touched in time.
func touchAll(t *testing.T, store *session2.MemoryStore, ids []session2.ID) (touched []session2.ID) {
	for _, id := range ids {
		if err := store.Touch(t.Context(), id, time.Now(), time.Time{}); err != nil {
			t.Error(err)
		}
		found, err := store.Has(t.Context(), id)
		if err != nil {
			t.Error(err)
		}
		if found {
			touched = append(touched, id)
		}
	}
	return touched
}

func BenchmarkMemoryLoad(b *testing.B) {
	store := session2.NewMemoryStore()
	fill(b, store, 100_000, "alice")
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	id := newRecord(77, "").ID
	b.ReportAllocs()
	for b.Loop() {
		if _, err := store.Load(ctx, id); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMemoryLoadParallel(b *testing.B) {
	store := session2.NewMemoryStore()
	fill(b, store, 100_000, "alice")
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		var id session2.ID
		for n := uint64(0); pb.Next(); n++ {
			binary.BigEndian.PutUint64(id[8:], n*7919%100_000)
			if _, err := store.Load(b.Context(), id); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkMemorySave(b *testing.B) {
	store := session2.NewMemoryStore()
	fill(b, store, 100_000, "alice")
	rec := newRecord(77, "alice")
	b.ReportAllocs()
	for b.Loop() {
		prev := rec.Version
		rec.Version++
		rec.Accessed = rec.Accessed.Add(time.Second)
		if err := store.Save(b.Context(), rec, prev); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMemoryTouch(b *testing.B) {
	store := session2.NewMemoryStore()
	fill(b, store, 100_000, "alice")
	var id session2.ID
	now := time.Now()
	b.ReportAllocs()
	for n := uint64(0); b.Loop(); n++ {
		binary.BigEndian.PutUint64(id[8:], n*7919%100_000)
		now = now.Add(time.Second)
		if err := store.Touch(b.Context(), id, now, now.Add(time.Hour)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMemoryUser(b *testing.B) {
	store := session2.NewMemoryStore()
	fill(b, store, 100_000, "")
	for n := range uint64(3) {
		store.Save(b.Context(), newRecord(200_000+n, "alice"), 0)
	}
	b.ReportAllocs()
	for b.Loop() {
		if n := count(b, store.IterUser(b.Context(), "alice")); n != 3 {
			b.Fatalf("%d sessions, want 3", n)
		}
	}
}
