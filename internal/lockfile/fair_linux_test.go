package lockfile_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/session2/session2/internal/lockfile"
)

// awaitTickets waits until so many wait for the lock, or have waited for it and
// have it.
func awaitTickets(t *testing.T, path string, want int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for {
		n, err := lockfile.Waiting(f)
		if err != nil {
			t.Fatal(err)
		}
		if n == want {
			return
		}
		runtime.Gosched()
	}
}

// A roll lists who had the lock.
type roll struct {
	mu     sync.Mutex // for the race detector, which knows nothing of locks on files
	served []string
	wg     sync.WaitGroup
}

// serve has a goroutine take the lock once.
func (r *roll) serve(t *testing.T, m *lockfile.Mutex, name string) {
	r.wg.Go(func() {
		unlock, err := m.Lock(within(long))
		if err != nil {
			t.Error(err)
			return
		}
		defer unlock()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.served = append(r.served, name)
	})
}

func (r *roll) want(t *testing.T, want ...string) {
	t.Helper()
	if r.wg.Wait(); !slices.Equal(r.served, want) {
		t.Errorf("served in the order %v, want %v", r.served, want)
	}
}

// Beside a process that does nothing but take the lock, one that waits is next,
// and each further one has one turn of the busy process before it.
func TestWaiterBesideBusyProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	_, goOn := child(t, path)
	got := make(chan func())
	lock := func() {
		unlock, err := open(path).Lock(within(long))
		if err != nil {
			panic(err) // the test waits for it
		}
		got <- unlock
	}
	go lock()
	awaitTickets(t, path, 1)
	goOn() // the child gives the lock up, and wants it again
	unlock := <-got
	if n := turns(t, path); n != 0 {
		t.Errorf("the busy process had %d turns before the one that waited, want 0", n)
	}
	for round := range 50 {
		awaitTickets(t, path, 2) // of the holder, and of the child
		go lock()
		awaitTickets(t, path, 3)
		before := turns(t, path)
		unlock()
		unlock = <-got
		if n := turns(t, path) - before; n != 1 {
			t.Fatalf("round %d: the busy process had %d turns, want 1", round, n)
		}
	}
	unlock()
}

// Those who wait are served in their order, each by another Mutex as those of
// processes are.
func TestWaitersQueue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock := mustLock(t, open(path))
	var r roll
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for i, name := range names {
		r.serve(t, open(path), name)
		awaitTickets(t, path, i+1)
	}
	unlock()
	r.want(t, names...)
}

// Goroutines of one Mutex, however many they are, let another Mutex in.
func TestCrowdBesideOneWaiter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	crowd := open(path)
	unlock := mustLock(t, crowd)
	var r roll
	r.serve(t, open(path), "lone")
	awaitTickets(t, path, 1)
	for range 3 {
		r.serve(t, crowd, "crowd")
	}
	unlock()
	r.want(t, "lone", "crowd", "crowd", "crowd")
}

// Who gives up and comes back has kept its place.
func TestWaiterComesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first := open(path)
	unlock := mustLock(t, open(path))
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan error)
	go func() {
		_, err := first.Lock(ctx)
		gone <- err
	}()
	awaitTickets(t, path, 1)
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Fatalf("Lock: %v, want the context's error", err)
	}
	var r roll
	r.serve(t, open(path), "second")
	awaitTickets(t, path, 2)
	lockfile.AwaitResumed(first, func() { r.serve(t, first, "first") })
	unlock()
	r.want(t, "first", "second")
}

// The tickets of a waiter that dies are gone, and the others close up.
func TestWaiterDies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock := mustLock(t, open(path))
	died, _, _ := startChild(t, path)
	awaitTickets(t, path, 1)
	var r roll
	r.serve(t, open(path), "next")
	awaitTickets(t, path, 2)
	died.Process.Kill()
	awaitTickets(t, path, 1)
	unlock()
	r.want(t, "next")
}

// A lock that was waited for on a file that is no more excludes nobody.
func TestRemovedWhileWaiting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock := mustLock(t, open(path))
	var r roll
	m := open(path)
	r.serve(t, m, "waiter")
	awaitTickets(t, path, 1)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other := mustLock(t, open(path))
	unlock()
	awaitTickets(t, path, 1) // the waiter has come to the new file
	other()
	r.want(t, "waiter")
}

// An earlier release locks all of the file: the two exclude one another.
func TestBesideEarlierRelease(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	old, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	unlock := mustLock(t, open(path))
	if err := lockfile.LockAsBefore(old); err == nil {
		t.Fatal("an earlier release got the lock, too")
	}
	unlock()
	if err := lockfile.LockAsBefore(old); err != nil {
		t.Fatal(err)
	}
	if _, err := open(path).Lock(within(short)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Lock beside an earlier release that has it: %v, want the context's error", err)
	}
	lockfile.Unlock(old)
	mustLock(t, open(path))()
}
