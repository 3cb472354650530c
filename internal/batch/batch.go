// Package batch lets concurrent callers share one commit, such as one fsync.
//
// The first caller leads: it commits what is queued, its own item first, and
// wakes the others with their results. What queued meanwhile is the next
// commit, and one of those who wait for it leads it. So there is no goroutine
// and no timer in here: a lone caller commits at once, and the larger the
// crowd, the larger the batches. Where commits take long, those of the last one
// have a moment to come again before the next one begins: see [Batcher.gather].
package batch

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"
)

// ErrAborted is the error of the items of a commit that panicked. It says
// nothing about whether they took effect. The panic itself goes on in the
// goroutine that led the commit.
var ErrAborted = errors.New("commit aborted by a panic")

// Batcher gathers items for a commit function. Goroutines share it.
type Batcher[T any] struct {
	limit  int
	enter  func(context.Context) (leave func(), err error)
	commit func([]T) []error

	mu    sync.Mutex
	led   bool // somebody leads or has been told to
	queue []*call[T]

	calls sync.Pool // of what Do has done with

	yield func() // lets other goroutines run

	// What follows belongs to whoever leads.
	crowd int           // how many shared the last commit or waited for it to end
	spent time.Duration // on the last commit

	// And this is empty in between.
	batch, live []*call[T] // whose commit it is, and those of them who still want it
	items       []T        // of live
}

// call is an item and its caller, who waits.
type call[T any] struct {
	ctx   context.Context
	item  T
	leads bool      // told to lead; guarded by the batcher's mutex
	wake  chan bool // gets true: lead now; or false: err is the answer, unless the caller leads
	err   error     // written before false is sent
}

// New returns a Batcher that calls commit for at most limit items at a time, in
// the order of their arrival and never twice at once. commit returns one error
// for each item, in the same order. It runs in the goroutine of one of the
// callers and must not call Do.
func New[T any](limit int, commit func(items []T) []error) *Batcher[T] {
	return NewWithin(limit, func(context.Context) (func(), error) { return func() {}, nil }, commit)
}

// NewWithin is New for commits that need something first, such as a lock. Before
// a commit, who leads it calls enter with its context, and leave after it. As
// long as enter waits, items can join the batch and be withdrawn from it. An
// error of enter is the answer to the one item of who called it; the next in the
// queue then leads.
func NewWithin[T any](
	limit int, enter func(context.Context) (leave func(), err error), commit func(items []T) []error,
) *Batcher[T] {
	b := &Batcher[T]{limit: max(limit, 1), enter: enter, commit: commit, yield: runtime.Gosched}
	b.calls.New = func() any { return &call[T]{wake: make(chan bool, 1)} }
	return b
}

// Do has item committed, together with those of other callers, and returns its
// error.
//
// A context that is done before the item's commit begins withdraws the item: Do
// returns the context's error, and nothing has happened. From then on Do waits
// for the outcome, whatever becomes of the context, so that what it returns is
// never a guess and the item is not in use after Do has returned. A caller whose
// turn it is to lead hands that on, or does it for the others, if its own item is
// withdrawn.
func (b *Batcher[T]) Do(ctx context.Context, item T) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := b.calls.Get().(*call[T])
	c.ctx, c.item = ctx, item
	if b.join(c) || b.wait(c) {
		b.lead(c)
	}
	err := c.err
	*c = call[T]{wake: c.wake}
	b.calls.Put(c) // nobody else has it, and its channel is empty; a panic never comes here
	return err
}

// join queues c and reports whether its caller is to lead.
func (b *Batcher[T]) join(c *call[T]) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.queue = append(b.queue, c)
	if b.led {
		return false
	}
	b.led = true
	return true
}

// wait returns when c has its answer (false) or is to lead (true).
func (b *Batcher[T]) wait(c *call[T]) bool {
	select {
	case lead := <-c.wake:
		return lead
	case <-c.ctx.Done():
	}
	if b.withdraw(c) {
		c.err = c.ctx.Err()
		return false
	}
	return <-c.wake
}

// withdraw takes c off the queue, unless its commit has begun or others count
// on it to lead.
func (b *Batcher[T]) withdraw(c *call[T]) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.queue, c)
	if i < 0 || c.leads {
		return false
	}
	b.queue = slices.Delete(b.queue, i, i+1)
	return true
}

// lead commits one batch, c's own item among it, and hands on.
func (b *Batcher[T]) lead(c *call[T]) {
	b.gather()
	leave, err := b.enter(c.ctx)
	if err != nil {
		c.err = err
		b.take(1)
		b.settle(c)
		return
	}
	b.take(b.limit)
	start := time.Now()
	defer b.settle(c) // after a panic, too: nobody is left waiting
	defer func() { b.spent = time.Since(start) }()
	defer leave()
	for _, c := range b.batch {
		if c.err = c.ctx.Err(); c.err == nil {
			c.err = ErrAborted // until commit returns
			b.live, b.items = append(b.live, c), append(b.items, c.item)
		}
	}
	if len(b.live) == 0 {
		return
	}
	errs := b.commit(b.items)
	for i, c := range b.live {
		c.err = errs[i]
	}
}

const (
	maxYields = 10_000 // where nobody else can run, these take a millisecond or two
	gathering = 4      // the part of a commit's time that goes by for larger batches, at most
)

// gather lets other goroutines run until as many callers are here as shared the last
// commit or waited for it. Most of them were woken a moment ago, and come again as soon
// as they have run. Without that, batches would be small and large by turns.
func (b *Batcher[T]) gather() {
	if b.crowd <= 1 {
		return
	}
	start := time.Now()
	for range maxYields {
		b.yield()
		b.mu.Lock()
		here := len(b.queue)
		b.mu.Unlock()
		if here >= min(b.crowd, b.limit) || time.Since(start) > b.spent/gathering {
			return
		}
	}
}

// take takes the head off the queue, in which the leader is first.
func (b *Batcher[T]) take(limit int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(len(b.queue), limit)
	b.batch = append(b.batch, b.queue[:n]...)
	b.queue = slices.Delete(b.queue, 0, n)
}

// settle wakes the callers of the batch but the leader, and lets the next in the
// queue lead. A channel has room for its one message: who leads has taken out the one
// that said so.
func (b *Batcher[T]) settle(leader *call[T]) {
	for _, c := range b.batch {
		if c != leader {
			c.wake <- false
		}
	}
	b.crowd = len(b.batch)
	clear(b.batch)
	clear(b.live)
	clear(b.items)
	b.batch, b.live, b.items = b.batch[:0], b.live[:0], b.items[:0]
	b.mu.Lock()
	defer b.mu.Unlock()
	b.crowd += len(b.queue)
	b.led = len(b.queue) > 0
	if b.led {
		b.queue[0].leads = true
		b.queue[0].wake <- true
	}
}
