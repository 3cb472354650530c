package redisstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// errSilent says why a call took too long.
var errSilent = errors.New("no answer from Redis")

// call calls f in a goroutine of its own, and gives up on it when the context is done or the
// store's timeout is over: the client waits for an answer as long as its own options say. What
// f comes to then is lost: it must read nothing that its caller may change.
func call[T any](ctx context.Context, s *Store, f func(context.Context) (T, error)) (v T, err error) {
	if err := s.check(ctx); err != nil {
		return v, err
	}
	if s.opts.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.opts.Timeout)
		defer cancel()
	}
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1) // buffered: nobody may be waiting any more
	go func() {
		v, err := f(ctx)
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, late(ctx, r.err)
	case <-ctx.Done():
		return v, &gaveUp{ctx.Err()}
	}
}

// gaveUp is the error of a call that was given up: nobody knows what it will come to.
type gaveUp struct{ ended error }

// Error implements error.
func (g *gaveUp) Error() string { return fmt.Sprintf("%v: %v", g.ended, errSilent) }

// Unwrap is for [errors.Is].
func (g *gaveUp) Unwrap() error { return g.ended }

// late makes the error of a client that was told to stop match the context's: it may have its
// own for that.
func late(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil && err != nil && !answered(err) && !errors.Is(err, ended) {
		return fmt.Errorf("%w: %w", ended, err)
	}
	return err
}

// check returns why no call can be made.
func (s *Store) check(ctx context.Context) error {
	if s.closed.Load() {
		return fs.ErrClosed
	}
	return ctx.Err()
}

// failure returns the error of a change. That a later attempt was refused, or that nobody was
// there for it, does not say that an earlier one changed nothing.
func (o outcome) failure() error {
	switch {
	case o.err == nil || !o.lost:
		return o.err
	case definite(o.err):
		return uncertain(errors.New(o.err.Error()))
	}
	return uncertain(o.err)
}

// pause is how long a sweep lets others go first, after a batch that took so long.
func pause(ctx context.Context, took time.Duration) error {
	t := time.NewTimer(took)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
