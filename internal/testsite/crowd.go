package testsite

import (
	"context"
	"sync"
	"sync/atomic"
)

// Crowd is a number of goroutines that save at once, to a store of which one caller
// does the work of those who wait for it.
type Crowd struct {
	size    int
	waiting atomic.Int64
	all     chan struct{} // closed when all but one are waiting
}

// NewCrowd returns a crowd of n.
func NewCrowd(n int) *Crowd { return &Crowd{size: n, all: make(chan struct{})} }

// Run has each goroutine save once, with which one it is, and returns when all have.
func (c *Crowd) Run(save func(ctx context.Context, one int)) {
	var wg sync.WaitGroup
	for one := range c.size {
		wg.Go(func() { save(&waiter{Context: context.Background(), crowd: c}, one) })
	}
	wg.Wait()
}

// Await, called by the one who does the work, returns when all others are waiting:
// as if the disk were slow enough for them to come.
func (c *Crowd) Await() { <-c.all }

// waiter is a context by which a crowd sees that its owner has begun to wait.
type waiter struct {
	context.Context
	crowd *Crowd
	once  sync.Once
}

func (w *waiter) Done() <-chan struct{} {
	w.once.Do(func() {
		if w.crowd.waiting.Add(1) == int64(w.crowd.size-1) {
			close(w.crowd.all)
		}
	})
	return w.Context.Done()
}
