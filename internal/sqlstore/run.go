package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"time"

	"github.com/go-sql-driver/mysql"
)

const (
	attempts = 10                   // while connections break
	contests = 50                   // with others for the same row: under serializable isolation they may win often
	pause    = 4 * time.Millisecond // before the second attempt; then twice that, up to 16 times
)

// errMoved says that a record changed between two statements.
var errMoved = errors.New("record changed between two looks")

// call calls f until its outcome is none that passes, within the store's
// timeout.
func call[T any](ctx context.Context, s *Store, f func(ctx context.Context) (T, error)) (T, error) {
	if err := s.check(ctx); err != nil {
		var none T
		return none, err
	}
	return tries(ctx, s, f)
}

// tries is call for one that has begun, whatever has become of the store since.
func tries[T any](ctx context.Context, s *Store, f func(ctx context.Context) (T, error)) (T, error) {
	return timed(ctx, s, func(ctx context.Context) (T, error) { return retry(ctx, s, f) })
}

// timed is bounded by the store's timeout.
func timed[T any](ctx context.Context, s *Store, f func(ctx context.Context) (T, error)) (T, error) {
	v, err := bounded(ctx, s.opts.Timeout, f)
	return v, s.outOfTime(ctx, err)
}

// outOfTime says whose time ran out, where it was not the caller's: a server says only that
// its statement was cancelled, as somebody else may do.
func (s *Store) outOfTime(ctx context.Context, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("not within the store's timeout of %v: %w", s.opts.Timeout, err)
}

// retry calls f until its outcome is none that passes, a bounded number of
// times.
func retry[T any](ctx context.Context, s *Store, f func(ctx context.Context) (T, error)) (T, error) {
	var out wayOut
	var cause error // of the latest attempt's failure that the context had no part in
	for i := 1; ; i++ {
		v, err := f(ctx)
		if err == nil {
			return v, nil
		}
		if ended := ctx.Err(); ended != nil {
			return v, s.overtime(ended, err, cause)
		}
		cause = err
		fault := s.fault(err)
		switch {
		case fault == ReadOnly && out.next(ctx, s.db):
			continue
		case fault != Aborted && fault != Broken && err != errMoved:
			return v, s.explain(err)
		case i >= contests || i >= attempts && fault == Broken:
			return v, fmt.Errorf("%w: %w", ErrTooMany, err)
		}
		if ended := wait(ctx, pause<<min(i-1, 4)); ended != nil {
			return v, endedBy(ended, err)
		}
	}
}

// overtime is the error of a call whose context ended, and whose last attempt failed.
func (s *Store) overtime(ended, err, cause error) error {
	if err == ended || cutOff(err) {
		err = s.reason(ended, cause)
	}
	return endedBy(ended, err)
}

// cutOff reports whether an error says no more than that a connection ended, as it does
// with the context of its call.
func cutOff(err error) bool {
	var several interface{ Unwrap() []error }
	if errors.As(err, &several) {
		return false
	}
	return errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, mysql.ErrInvalidConn)
}

// reason says why a call took too long, if more is known than that: what an
// earlier attempt was told, or that the pool is used up.
func (s *Store) reason(late, cause error) error {
	pool := s.db.Stats()
	switch {
	case late != context.DeadlineExceeded:
		return late
	case cause != nil:
		return fmt.Errorf("%w: %v", late, cause)
	case pool.MaxOpenConnections > 0 && pool.InUse >= pool.MaxOpenConnections:
		return fmt.Errorf("%w: %v, and all %d connections of the pool are in use", late, errSilent, pool.InUse)
	}
	return late
}

// endedBy is the error of a call that its context ended, and of no other kind.
func endedBy(ended, err error) error {
	if errors.Is(err, ended) {
		return err
	}
	return fmt.Errorf("%w: %v", ended, err)
}

// A wayOut leads a call away from a server that became read-only, which
// connections from before still go to. database/sql tells nobody which
// connection a prepared statement ran on, so the idle ones are all closed, that
// one among them. Others may be in use; each attempt gets rid of one at least.
type wayOut struct {
	begun, fresh bool
	left         int
}

// next reports whether another attempt may come to another server.
func (o *wayOut) next(ctx context.Context, db *sql.DB) bool {
	if !o.begun {
		o.begun, o.left = true, db.Stats().OpenConnections+1
	}
	if o.fresh || o.left == 0 {
		return false // a new connection leads to no better server
	}
	o.left--
	for range db.Stats().Idle {
		c, err := db.Conn(ctx)
		if err != nil {
			break
		}
		c.Raw(func(any) error { return driver.ErrBadConn }) // has it closed
	}
	o.fresh = db.Stats().OpenConnections == 0
	return true
}

// wait waits for about d: concurrent callers that collided must not do so
// again.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
