package soak

import (
	"context"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/session2/session2"
)

// leaky is a store that does something besides each Load, and may leave out sweeps or
// refuse a Save.
type leaky struct {
	*session2.MemoryStore
	loads   atomic.Int64
	load    func()
	unswept bool
	full    bool
}

func (l *leaky) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	if l.load != nil && l.loads.Add(1)%20 == 0 {
		l.load()
	}
	return l.MemoryStore.Load(ctx, id)
}

func (l *leaky) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	if l.full && l.loads.Load()%20 == 19 {
		return syscall.ENOSPC
	}
	return l.MemoryStore.Save(ctx, rec, prev)
}

func (l *leaky) DeleteOld(ctx context.Context, age time.Duration) (int, error) {
	if l.unswept {
		return 0, nil
	}
	return l.MemoryStore.DeleteOld(ctx, age)
}

// Each kind of leak is found, be the run as short as it is.
func TestPlantedLeaks(t *testing.T) {
	over := make(chan struct{})
	var waiting sync.WaitGroup
	var mu sync.Mutex
	var files []*os.File
	var kept [][]byte
	t.Cleanup(func() {
		close(over)
		waiting.Wait()
		for _, f := range files {
			f.Close()
		}
	})
	for _, plant := range []struct {
		name  string
		leaks *leaky
		found string
	}{
		{"goroutines", &leaky{load: func() { waiting.Go(func() { <-over }) }}, "goroutines are left"},
		{"descriptors", &leaky{load: func() {
			f, err := os.Open(os.DevNull)
			if err != nil {
				return // there are no more of them
			}
			mu.Lock()
			defer mu.Unlock()
			files = append(files, f)
		}}, "descriptors are left"},
		{"heap", &leaky{load: func() {
			mu.Lock()
			defer mu.Unlock()
			kept = append(kept, make([]byte, 256<<10))
		}}, "of the heap are left"},
		{"records", &leaky{unswept: true}, "records are left"},
		{"errors", &leaky{load: func() {}, full: true}, "no space left"},
	} {
		t.Run(plant.name, func(t *testing.T) {
			r := newRun(t, onMemory(t))
			r.time, r.patience = 2*time.Second, 3*time.Second
			plant.leaks.MemoryStore = session2.NewMemoryStore()
			wrong := r.soak(func(string) (store, error) { return plant.leaks, nil })
			if text := strings.Join(wrong, "\n"); !strings.Contains(text, plant.found) {
				t.Errorf("%q is not in what was found: %.2000s", plant.found, text)
			}
		})
	}
	kept = nil
}
