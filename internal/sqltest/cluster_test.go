//go:build cluster

package sqltest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// ledger is load on a few records, through several stores over the same data.
// Each record's Data is the list of its entries. Every entry is added by a
// conditional Save, and asked for until it is known to be there: so that in the
// end each one must be there, once.
type ledger struct {
	stores []session2.Store
	ids    []session2.ID

	mu    sync.Mutex
	moved sync.Cond
	acked map[session2.ID][]uint64
	total int
	errs  map[string]int // that were not those of a conflict, by text
	fatal error
}

// newLedger creates the records.
func newLedger(t testing.TB, records int, stores ...session2.Store) *ledger {
	t.Helper()
	l := &ledger{stores: stores, acked: make(map[session2.ID][]uint64), errs: make(map[string]int)}
	l.moved.L = &l.mu
	for i := range records {
		rec := sqlRecord(byte(i + 1))
		rec.Data = nil
		// The store's timeout may be short.
		testsite.Must(t, until(func() (bool, error) { return stores[0].Save(t.Context(), rec, 0) == nil, nil }))
		l.ids = append(l.ids, rec.ID)
	}
	return l
}

// run starts workers for each store, and returns what ends them and waits.
func (l *ledger) run(t testing.TB, workers int) (stop func()) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	quit := make(chan struct{})
	stopWatch := context.AfterFunc(ctx, func() { l.fail(ctx.Err()) })
	var wg sync.WaitGroup
	for i := range workers * len(l.stores) {
		wg.Go(func() {
			for at := i; ; at++ {
				select {
				case <-quit:
					return
				default:
				}
				if err := l.add(ctx, l.ids[at%len(l.ids)], i); err != nil {
					l.fail(err)
					return
				}
			}
		})
	}
	return func() {
		close(quit)
		wg.Wait()
		stopWatch()
		cancel()
	}
}

// add adds an entry, beginning with one of the stores, and going on to the next
// after each failure, as a client of a cluster does.
func (l *ledger) add(ctx context.Context, id session2.ID, at int) error {
	entry := rand.Uint64()
	for ctx.Err() == nil {
		done, err := l.try(ctx, l.stores[at%len(l.stores)], id, entry)
		switch {
		case done:
			l.ack(id, entry)
			return nil
		case errors.Is(err, session2.ErrNotFound):
			return fmt.Errorf("a record is lost: %w", err)
		case errors.Is(err, session2.ErrConflict):
		default:
			l.note(err)
			at++
		}
	}
	return ctx.Err()
}

// try adds an entry unless it is there already.
func (l *ledger) try(ctx context.Context, store session2.Store, id session2.ID, entry uint64) (done bool, err error) {
	rec, err := store.Load(ctx, id)
	if err != nil || slices.Contains(entries(rec.Data), entry) {
		return err == nil, err
	}
	prev := rec.Version
	rec.Version = session2.Version(1 + rand.Uint64N(1<<62))
	rec.Data = binary.BigEndian.AppendUint64(rec.Data, entry)
	err = store.Save(ctx, rec, prev)
	return err == nil, err
}

func entries(data []byte) (list []uint64) {
	for ; len(data) > 0; data = data[8:] {
		list = append(list, binary.BigEndian.Uint64(data))
	}
	return list
}

func (l *ledger) ack(id session2.ID, entry uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[id] = append(l.acked[id], entry)
	l.total++
	l.moved.Broadcast()
}

func (l *ledger) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs[err.Error()[len("session2: save 00000000000000000000000000000000"):]]++
}

func (l *ledger) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fatal == nil {
		l.fatal = err
	}
	l.moved.Broadcast()
}

// await waits until so many more entries are acknowledged.
func (l *ledger) await(t testing.TB, more int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for want := l.total + more; l.total < want; l.moved.Wait() {
		if l.fatal != nil {
			t.Fatalf("after %d entries: %v; errors: %v", l.total, l.fatal, l.errs)
		}
	}
}

// check finds each acknowledged entry once, and no other, in each store.
func (l *ledger) check(t testing.TB, stores ...session2.Store) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fatal != nil {
		t.Fatalf("after %d entries: %v; errors: %v", l.total, l.fatal, l.errs)
	}
	t.Logf("%d entries acknowledged; errors on the way: %v", l.total, l.errs)
	for _, id := range l.ids {
		want := slices.Sorted(slices.Values(l.acked[id]))
		for i, store := range stores {
			rec, err := store.Load(t.Context(), id)
			testsite.Must(t, err)
			if got := slices.Sorted(slices.Values(entries(rec.Data))); !slices.Equal(got, want) {
				t.Errorf("store %d, record %v: got %d entries, want the %d that were acknowledged",
					i, id, len(got), len(want))
			}
		}
	}
}
