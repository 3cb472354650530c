package soak

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
)

func TestMain(m *testing.M) {
	if r, w, err := os.Pipe(); err == nil { // the runtime's own descriptors come with the first of these
		r.Close()
		w.Close()
	}
	testdb.Main(m)
}

// seconds reads a time from the environment.
func seconds(t *testing.T, name string, otherwise float64) time.Duration {
	t.Helper()
	n, err := strconv.ParseFloat(cmp.Or(os.Getenv(name), fmt.Sprint(otherwise)), 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return time.Duration(n * float64(time.Second))
}

// Managers at full load leave nothing behind, and nothing of them grows.
func TestSoak(t *testing.T) {
	for _, g := range grounds {
		t.Run(g.name, func(t *testing.T) { // one after the other: they are measured by process
			r := newRun(t, g.make(t))
			for _, w := range r.soak(open) {
				t.Error(w)
			}
		})
	}
}

// open opens a store by its URL.
func open(url string) (store, error) {
	s, err := session2.Open(context.Background(), url)
	if err != nil {
		return nil, err
	}
	return s.(store), session2.Setup(context.Background(), s)
}

// run is the use of one store.
type run struct {
	t        *testing.T
	time     time.Duration
	interval time.Duration
	patience time.Duration // how long what ends by itself may take, on a machine that is busy
	ground   ground
	store    store
	sites    []*site
	gate     sync.RWMutex
	notes    *notes
	speed    histogram
	samples  []sample
	wrong    []string
}

func newRun(t *testing.T, g ground) *run {
	total := seconds(t, "SOAK_SECONDS", 2)
	interval := seconds(t, "SOAK_INTERVAL", max(0.1, total.Seconds()/120))
	return &run{t: t, time: total, interval: interval, patience: 2 * time.Minute, ground: g, notes: newNotes()}
}

func (r *run) fault(format string, args ...any) {
	r.wrong = append(r.wrong, fmt.Sprintf(format, args...))
}

// soak uses a store and returns what is wrong.
func (r *run) soak(open func(url string) (store, error)) []string {
	before := measureProcess()
	var err error
	if r.store, err = open(r.ground.url); err != nil {
		r.t.Fatal(err)
	}
	fresh, err := r.ground.size()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, name := range []string{"clear", "sealed"} {
		st, err := newSite(r.store, name, r.time, &r.gate, r.notes, &r.speed)
		if err != nil {
			r.t.Fatal(err)
		}
		r.sites = append(r.sites, st)
	}
	r.use()
	r.wrong = append(r.wrong, r.notes.complaints()...)
	r.sites = nil // so that nothing holds on to what the managers have
	r.closed(before, fresh)
	if len(r.samples) > 0 {
		r.wrong = append(r.wrong, verdict(r.samples)...)
		r.t.Logf("%s%s", r.row(), r.notes)
	}
	return r.wrong
}

// use has the clients use the store, and then ends all that they have begun.
func (r *run) use() {
	sweeping, stopSweeping := context.WithCancel(context.Background())
	var sweepers, acting sync.WaitGroup
	for _, st := range r.sites {
		sweepers.Go(func() { st.Cleanup(sweeping, r.sites[0].limits.idle/4) })
	}
	sweepers.Go(func() { r.deleteOld(sweeping) })
	ctx, stop := context.WithTimeout(context.Background(), r.time)
	defer stop()
	seed := rand.Uint64()
	for i := range clients {
		acting.Go(func() { newClient(r.sites[i%len(r.sites)], seed, uint64(i)).run(ctx) })
	}
	r.watch(ctx)
	stop()
	acting.Wait()
	r.endAll()
	stopSweeping()
	sweepers.Wait()
}

// deleteOld sweeps by age, which Cleanup does not.
func (r *run) deleteOld(ctx context.Context) {
	for ctx.Err() == nil {
		_, err := r.store.DeleteOld(ctx, r.sites[0].limits.lifetime)
		if ctx.Err() == nil {
			r.notes.check("DeleteOld", err)
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// pause returns after d, or when ctx has ended.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// watch takes samples until ctx ends, one at least.
func (r *run) watch(ctx context.Context) {
	r.speed.take()
	for start := time.Now(); ; start = time.Now() {
		pause(ctx, r.interval)
		since := time.Since(start)
		if ctx.Err() != nil && len(r.samples) > 0 {
			return // there are clients that have stopped
		}
		r.gate.Lock()
		s, err := r.measure(since)
		r.gate.Unlock()
		if err != nil {
			r.fault("measure: %v", err)
			return
		}
		r.samples = append(r.samples, s)
		r.t.Log(s)
	}
}

// until asks until it is so, and reports whether it came to that.
func (r *run) until(is func() bool) bool {
	for deadline := time.Now().Add(r.patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// endAll ends the sessions of one manager, and waits for those of the other one to
// expire: streams and records must go with them.
func (r *run) endAll() {
	if _, err := r.sites[0].RevokeAll(context.Background()); err != nil {
		r.fault("RevokeAll: %v", err)
	}
	for _, st := range r.sites {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			st.streams.Wait()
		}()
		select {
		case <-ended:
		case <-time.After(r.patience):
			r.fault("streams go on though their sessions have ended\n%s", allStacks())
		}
	}
	var left float64
	gone := r.until(func() bool {
		_, err := r.store.DeleteOld(context.Background(), math.MaxInt64)
		r.notes.check("DeleteOld", err)
		left, err = countRecords(r.store)
		r.notes.check("Iter", err)
		return left == 0
	})
	if !gone {
		r.fault("%.0f records are left", left)
	}
}

// closed closes the store and looks for what is left of it. fresh is its size when it
// was new.
func (r *run) closed(before process, fresh []figure) {
	size, err := r.ground.size()
	if err != nil {
		r.fault("size: %v", err)
	}
	for i, f := range size {
		if !f.keeps && f.value > fresh[i].value {
			r.fault("%.0f %s are left, want %.0f", f.value, f.rule.name, fresh[i].value)
		}
	}
	if err := session2.Close(r.store); err != nil {
		r.fault("close: %v", err)
	}
	r.store = nil
	if left, err := r.ground.emptied(); err != nil || left != "" {
		r.fault("left: %s %v", left, err)
	}
	var after process
	if !r.until(func() bool { after = measureProcess(); return after.goroutines <= before.goroutines }) {
		r.fault("%.0f goroutines are left\n%s", after.goroutines-before.goroutines, allStacks())
	}
	if !r.until(func() bool { after = measureProcess(); return after.fds <= before.fds }) {
		r.fault("%.0f descriptors are left\n%s", after.fds-before.fds, descriptorList())
	}
	if more := after.heap - before.heap; more > heapLeft {
		r.fault("%.0f bytes of the heap are left, want %.0f at most", more, float64(heapLeft))
	}
}

// heapLeft is what packages keep for ever once they are used, such as encoding/gob what
// it knows of types.
const heapLeft = 1 << 20

// row is the row of a table.
func (r *run) row() string {
	first, last := r.samples[0], r.samples[len(r.samples)-1]
	var size []string
	for i, f := range first.size {
		size = append(size, fmt.Sprintf("%s %.0f/%.0f", f.rule.name, f.value, last.size[i].value))
	}
	return fmt.Sprintf("| %s | %d requests | %.0f/s | heap KiB %.0f/%.0f | fds %.0f/%.0f | goroutines %.0f/%.0f | "+
		"records %.0f/%.0f | %s | p50 %v/%v | p99 %v/%v |", r.t.Name(), r.notes.requests.Load(),
		float64(r.notes.requests.Load())/r.time.Seconds(), first.heap/1024, last.heap/1024, first.fds, last.fds,
		first.goroutines, last.goroutines, first.records, last.records, strings.Join(size, ", "),
		first.speed.p50, last.speed.p50, first.speed.p99, last.speed.p99)
}
