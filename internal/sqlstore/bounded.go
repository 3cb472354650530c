package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// grace is how long a call may outlive its context: a driver that stops by
// itself says more of what happened, and leaves nothing behind.
const grace = 100 * time.Millisecond

// errSilent says that a driver goes on waiting although its context is done.
var errSilent = errors.New("no answer from the database")

// bounded calls f with a context that is done after the timeout at the latest;
// 0 is none. It gives up on f soon after the context is done, for there are
// drivers that wait for an answer whatever the context says, as lib/pq does for
// a server that hangs. A call that was given up goes on in its goroutine until
// the driver lets go of it, and so does the connection it has. What it comes to
// is lost: f must write to nothing that its caller reads, and read nothing that
// its caller may change.
func bounded[T any](ctx context.Context, timeout time.Duration, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := within(ctx, timeout)
	defer cancel()
	type outcome struct {
		v   T
		err error
	}
	done := make(chan outcome, 1) // buffered: nobody may be waiting any more
	go func() {
		v, err := f(ctx)
		done <- outcome{v, err}
	}()
	answer := func(o outcome) (T, error) {
		if ended := ctx.Err(); ended != nil && cutOff(o.err) {
			o.err = ended
		}
		return o.v, late(o.err)
	}
	select {
	case o := <-done:
		return answer(o)
	case <-ctx.Done():
	}
	select {
	case o := <-done:
		return answer(o)
	case <-time.After(grace):
		var none T
		return none, fmt.Errorf("%w: %w", ctx.Err(), errSilent)
	}
}

// within returns a context that is done after the timeout at the latest; 0 or less
// is none.
func within(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		return ctx, func() {}
	}
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= timeout {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, timeout)
}

// late says what was waited for, where a driver that stops by itself says only
// that it was too long.
func late(err error) error {
	if err == context.DeadlineExceeded {
		return fmt.Errorf("%w: %v", err, errSilent)
	}
	return err
}
