package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// grace is how long a call may outlive its context: a driver that stops by itself says
// more of what happened, and leaves nothing behind.
const grace = 100 * time.Millisecond

// errSilent says that a driver goes on waiting although its context is done.
var errSilent = errors.New("no answer from the database")

// call calls f until the file is not locked by others, within the context and the store's
// timeout. It gives up on f soon after that: SQLite's own wait for a lock (busy_timeout)
// looks at no context. What f comes to then is lost, so f must write to nothing that
// the caller reads, and read nothing that the caller may change.
func call[T any](ctx context.Context, s *Store, f func(context.Context) (T, error)) (v T, err error) {
	if err := s.check(ctx); err != nil {
		return v, notDone(err)
	}
	if s.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.timeout)
		defer cancel()
	}
	type outcome struct {
		v   T
		err error
	}
	done := make(chan outcome, 1) // buffered: nobody may be waiting any more
	go func() {
		v, err := retry(ctx, s, f)
		done <- outcome{v, err}
	}()
	select {
	case o := <-done:
		return o.v, o.err
	case <-ctx.Done():
	}
	select {
	case o := <-done:
		return o.v, o.err
	case <-time.After(grace):
		return v, fmt.Errorf("%w: %w", ctx.Err(), errSilent)
	}
}

// retry calls f until it finds the file not locked. A statement that found it locked has
// changed nothing.
func retry[T any](ctx context.Context, s *Store, f func(context.Context) (T, error)) (T, error) {
	for i := 0; ; i++ {
		start := time.Now()
		v, err := f(ctx)
		if !locked(err) {
			return v, s.explain(ctx, err)
		}
		wait := time.Millisecond << min(i, 5)
		if tooLate(ctx, wait+time.Since(start)) {
			wait = time.Hour
		}
		if ended := pause(ctx, wait); ended != nil {
			return v, notDone(fmt.Errorf("%w: %v", ended, err))
		}
	}
}

// tooLate reports whether the context may end while the next try, if it takes as long as
// the last one, waits for the lock. Some drivers then do not tell whether it came to more
// than waiting: so it is not begun.
func tooLate(ctx context.Context, took time.Duration) bool {
	end, ok := ctx.Deadline()
	return ok && time.Until(end) < min(2*took, time.Second)
}

// pause waits for about d: callers that collided must not do so again.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// exec runs a statement that writes, when it is this call's turn, and returns how many
// rows it changed. Writers that waited for the file's lock instead would find it by
// chance.
func (s *Store) exec(ctx context.Context, query string, args ...any) (int, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return 0, notDone(ctx.Err())
	}
	if err := ctx.Err(); err != nil {
		return 0, notDone(err)
	}
	res, err := s.db.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	return int(n), err
}

// change runs a statement that may be run again, within a call of its own.
func (s *Store) change(ctx context.Context, query string, args ...any) (int, error) {
	return call(ctx, s, func(ctx context.Context) (int, error) { return s.exec(ctx, query, args...) })
}
