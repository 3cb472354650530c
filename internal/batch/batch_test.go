package batch

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var errOdd = errors.New("odd")

// recorder is a commit function that notes its batches and refuses odd items.
type recorder struct {
	batches [][]int
	hold    chan struct{} // each commit waits for it, unless nil
}

func (r *recorder) commit(items []int) []error {
	r.batches = append(r.batches, slices.Clone(items))
	if r.hold != nil {
		<-r.hold
	}
	errs := make([]error, len(items))
	for i, n := range items {
		if n%2 != 0 {
			errs[i] = errOdd
		}
	}
	return errs
}

// crowd calls Do for items, in this order, and returns where the answers go.
func crowd(ctx context.Context, b *Batcher[int], items ...int) []error {
	errs := make([]error, len(items))
	for i, n := range items {
		go func() { errs[i] = b.Do(ctx, n) }()
		synctest.Wait()
	}
	return errs
}

func TestLoneCallerCommitsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		b := New(8, r.commit)
		start := time.Now()
		if err := b.Do(t.Context(), 2); err != nil {
			t.Errorf("Do(2) = %v, want nil", err)
		}
		if err := b.Do(t.Context(), 3); err != errOdd {
			t.Errorf("Do(3) = %v, want %v", err, errOdd)
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("two calls waited %v", d)
		}
		wantBatches(t, r.batches, []int{2}, []int{3})
	})
}

func TestCrowdSharesCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := recorder{hold: make(chan struct{})}
		b := New(3, r.commit)
		errs := crowd(t.Context(), b, 0, 1, 2, 3, 4, 5)
		close(r.hold)
		synctest.Wait()
		wantBatches(t, r.batches, []int{0}, []int{1, 2, 3}, []int{4, 5})
		want := []error{nil, errOdd, nil, errOdd, nil, errOdd}
		if !slices.Equal(errs, want) {
			t.Errorf("answers %v, want %v", errs, want)
		}
	})
}

func TestDoneContextDoesNotQueue(t *testing.T) {
	var r recorder
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := New(8, r.commit).Do(ctx, 2); err != context.Canceled {
		t.Errorf("Do = %v, want %v", err, context.Canceled)
	}
	wantBatches(t, r.batches)
}

func TestQueuedItemIsWithdrawnAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := recorder{hold: make(chan struct{})}
		b := New(8, r.commit)
		ctx, cancel := context.WithCancel(t.Context())
		first := crowd(t.Context(), b, 0)
		gone := crowd(ctx, b, 2, 4)
		last := crowd(t.Context(), b, 6)
		cancel()
		synctest.Wait()
		if want := []error{context.Canceled, context.Canceled}; !slices.Equal(gone, want) {
			t.Errorf("withdrawn, before the first commit ends: %v, want %v", gone, want)
		}
		close(r.hold)
		synctest.Wait()
		wantBatches(t, r.batches, []int{0}, []int{6})
		if first[0] != nil || last[0] != nil {
			t.Errorf("others answered %v, %v", first, last)
		}
	})
}

func TestCommittingItemWaitsForItsOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := recorder{hold: make(chan struct{})}
		b := New(8, r.commit)
		ctx, cancel := context.WithCancel(t.Context())
		crowd(ctx, b, 0)
		errs := crowd(ctx, b, 1, 2)
		r.hold <- struct{}{} // the second commit begins
		synctest.Wait()
		cancel()
		synctest.Wait()
		r.hold <- struct{}{}
		synctest.Wait()
		if want := []error{errOdd, nil}; !slices.Equal(errs, want) {
			t.Errorf("answers %v, want %v", errs, want)
		}
	})
}

// A context may be done between a caller's being told to lead and its doing so.
func TestLeaderWithDoneContextLeadsForTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		b := New(8, r.commit)
		b.led = true // by the test
		ctx, cancel := context.WithCancel(t.Context())
		gone := crowd(ctx, b, 2)
		last := crowd(t.Context(), b, 4)
		cancel()
		b.settle(nil)
		synctest.Wait()
		wantBatches(t, r.batches, []int{4})
		if gone[0] != context.Canceled || last[0] != nil {
			t.Errorf("answers %v and %v, want %v and nil", gone[0], last[0], context.Canceled)
		}
		if b.led {
			t.Error("somebody still leads")
		}
	})
}

func TestPanicStrandsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		b := New(2, func(items []int) []error {
			<-hold
			if slices.Contains(items, 13) {
				panic("unlucky")
			}
			return make([]error, len(items))
		})
		first := crowd(t.Context(), b, 0)
		var caught any
		go func() {
			defer func() { caught = recover() }()
			b.Do(t.Context(), 13)
		}()
		synctest.Wait()
		rest := crowd(t.Context(), b, 2, 4)
		close(hold)
		synctest.Wait()
		if caught != "unlucky" {
			t.Errorf("the leader recovered %v", caught)
		}
		if want := []error{ErrAborted, nil}; first[0] != nil || !slices.Equal(rest, want) {
			t.Errorf("answers %v and %v, want nil and %v", first, rest, want)
		}
		if err := b.Do(t.Context(), 6); err != nil {
			t.Errorf("Do after the panic = %v", err)
		}
	})
}

// Callers that come and go at random: each item whose answer is nil was
// committed once, and each that was withdrawn never.
func TestStress(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	const callers, rounds, limit = 16, 200, 5
	counts := make([]int, callers*rounds) // commits do not overlap, so no lock
	var running atomic.Int32
	b := New(limit, func(items []int) []error {
		if n := running.Add(1); n != 1 || len(items) > limit {
			t.Errorf("%d commits at once, of %d items", n, len(items))
		}
		defer running.Add(-1)
		for _, n := range items {
			counts[n]++
		}
		runtime.Gosched()
		return make([]error, len(items))
	})
	withdrawn := make([]bool, len(counts))
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(caller)))
			for round := range rounds {
				n := caller*rounds + round
				ctx, cancel := context.WithCancel(t.Context())
				if rnd.IntN(3) == 0 {
					go cancel()
				}
				withdrawn[n] = b.Do(ctx, n) != nil
				cancel()
			}
		})
	}
	wg.Wait()
	for n, count := range counts {
		if want := map[bool]int{false: 1, true: 0}[withdrawn[n]]; count != want {
			t.Errorf("item %d, withdrawn %t, was committed %d times", n, withdrawn[n], count)
		}
	}
	if b.led || len(b.queue) != 0 {
		t.Errorf("left behind: led %t, queue of %d", b.led, len(b.queue))
	}
}

func wantBatches(t *testing.T, got [][]int, want ...[]int) {
	t.Helper()
	if !slices.EqualFunc(got, want, slices.Equal[[]int]) {
		t.Errorf("batches %v, want %v", got, want)
	}
}

// gate is an enter function that lets in who gets a token.
func gate(tokens <-chan error, left *int) func(context.Context) (func(), error) {
	return func(ctx context.Context) (func(), error) {
		select {
		case err := <-tokens:
			return func() { *left++ }, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Whoever's context ends before the gate opens returns that context's error at
// once, the leader among them, and the next one leads.
func TestContextsEndBeforeTheCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		left := 0
		tokens := make(chan error)
		b := NewWithin(8, gate(tokens, &left), r.commit)
		late, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		gone, cancel := context.WithCancel(t.Context())
		leader := crowd(late, b, 0)
		canceled := crowd(gone, b, 2)
		follower := crowd(late, b, 4)
		last := crowd(t.Context(), b, 6, 7)
		cancel()
		synctest.Wait()
		if canceled[0] != context.Canceled {
			t.Errorf("a canceled item: %v, want %v", canceled[0], context.Canceled)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if leader[0] != context.DeadlineExceeded || follower[0] != context.DeadlineExceeded {
			t.Errorf("past their deadline: %v and %v, want %v", leader[0], follower[0], context.DeadlineExceeded)
		}
		tokens <- nil
		synctest.Wait()
		wantBatches(t, r.batches, []int{6, 7})
		if want := []error{nil, errOdd}; !slices.Equal(last, want) || left != 1 || b.led {
			t.Errorf("answers %v, want %v; left %d times, want 1; led %t", last, want, left, b.led)
		}
	})
}

// An error of enter is the leader's own.
func TestEnterFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		left := 0
		tokens := make(chan error, 2)
		b := NewWithin(8, gate(tokens, &left), r.commit)
		first := crowd(t.Context(), b, 2)
		rest := crowd(t.Context(), b, 4, 6)
		tokens <- errOdd
		tokens <- nil
		synctest.Wait()
		wantBatches(t, r.batches, []int{4, 6})
		if first[0] != errOdd || rest[0] != nil || rest[1] != nil || left != 1 {
			t.Errorf("answers %v and %v, left %d times; want %v, none, and once", first, rest, left, errOdd)
		}
	})
}

// Before a commit, who was at the last one gets a moment to come again, and no more.
func TestLastCrowdComesAgain(t *testing.T) {
	for _, comes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			r := recorder{hold: make(chan struct{})}
			b := New(8, r.commit)
			crowd(t.Context(), b, 0, 2, 4)
			time.Sleep(time.Second) // what the first commit takes
			yields := 0
			b.yield = func() {
				if yields++; yields == 10 && comes {
					c := &call[int]{ctx: t.Context(), item: 6, wake: make(chan bool, 1)}
					b.join(c)
				}
			}
			close(r.hold)
			synctest.Wait()
			if comes {
				wantBatches(t, r.batches, []int{0}, []int{2, 4, 6})
			} else {
				wantBatches(t, r.batches, []int{0}, []int{2, 4})
			}
			if want := map[bool]int{true: 10, false: maxYields}[comes]; yields != want {
				t.Errorf("%d yields, want %d", yields, want)
			}
		})
	}
}
