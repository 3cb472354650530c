package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"
)

const (
	attempts = 10                   // while connections break
	contests = 50                   // with others for the same row: under serializable isolation the others may win often
	pause    = 4 * time.Millisecond // before the second attempt; then twice that, up to 16 times
)

// errMoved says that a record changed between two statements.
var errMoved = errors.New("record changed between two looks")

// exec runs a statement that may be run twice.
func (s *Store) exec(ctx context.Context, query string, args []any) (int64, error) {
	return call(ctx, s, func(ctx context.Context) (int64, error) {
		return s.execOnce(ctx, query, args)
	})
}

// query runs a query that may be run twice, and scans each of its rows.
func query[T any](ctx context.Context, s *Store, query string, args []any, scan func(*sql.Rows, *T) error) ([]T, error) {
	return call(ctx, s, func(ctx context.Context) ([]T, error) {
		return queryOnce(ctx, s, query, args, scan)
	})
}

// call calls f until its outcome is none that passes, within the store's
// timeout.
func call[T any](ctx context.Context, s *Store, f func(ctx context.Context) (T, error)) (T, error) {
	if err := s.check(ctx); err != nil {
		var none T
		return none, err
	}
	return bounded(ctx, s.opts.Timeout, func(ctx context.Context) (T, error) {
		return retry(ctx, s, f)
	})
}

// retry calls f until its outcome is none that passes, a bounded number of
// times.
func retry[T any](ctx context.Context, s *Store, f func(ctx context.Context) (T, error)) (T, error) {
	for i := 1; ; i++ {
		v, err := f(ctx)
		ended := ctx.Err() // once: it may end any moment
		switch {
		case err == nil:
			return v, nil
		case ended != nil && !errors.Is(err, ended):
			return v, fmt.Errorf("%w: %w", ended, err)
		case !s.passes(err):
			return v, s.explain(err)
		case i == contests || i >= attempts && s.fault(err) == Broken:
			return v, fmt.Errorf("%w: %w", ErrTooMany, err)
		}
		if err := wait(ctx, pause<<min(i-1, 4)); err != nil {
			return v, err
		}
	}
}

// explain says in words what an error means that everybody meets once.
func (s *Store) explain(err error) error {
	switch fault := s.fault(err); {
	case s.closed.Load():
		return fs.ErrClosed
	case fault == Missing:
		return fmt.Errorf("%w: %w", ErrNoTable, err)
	case fault == Foreign:
		return fmt.Errorf("%w: %w", ErrForeign, err)
	case fault == TooLarge:
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	return err
}

// passes reports whether another attempt may fare better.
func (s *Store) passes(err error) bool {
	fault := s.fault(err)
	return err == errMoved || fault == Aborted || fault == Broken
}

func (s *Store) fault(err error) Fault {
	if err == nil {
		return Failed
	}
	return s.opts.Fault(err)
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

func (s *Store) execOnce(ctx context.Context, query string, args []any) (int64, error) {
	stmt, err := s.prepared(ctx, query)
	if err != nil {
		return 0, err
	}
	var res sql.Result
	if stmt == nil {
		res, err = s.unprepared(ctx, query, args)
	} else {
		res, err = stmt.ExecContext(ctx, args...)
	}
	if err != nil {
		return 0, err
	}
	// PostgreSQL answers a success, with a warning, where a commit's wait for a
	// synchronous standby is cancelled: a failover may still lose that commit.
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// unprepared runs a statement as it is, on a connection of its own:
// [sql.DB.ExecContext] would run it on another where the first broke, and tell
// nobody that it may have run twice.
func (s *Store) unprepared(ctx context.Context, query string, args []any) (sql.Result, error) {
	c, err := s.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.ExecContext(ctx, query, args...)
}

func queryOnce[T any](ctx context.Context, s *Store, query string, args []any, scan func(*sql.Rows, *T) error) ([]T, error) {
	stmt, err := s.prepared(ctx, query)
	if err != nil {
		return nil, err
	}
	var rows *sql.Rows
	if stmt == nil {
		rows, err = s.db.QueryContext(ctx, query, args...)
	} else {
		rows, err = stmt.QueryContext(ctx, args...)
	}
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []T
	for rows.Next() {
		var v T
		if err := scan(rows, &v); err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, rows.Err()
}

// prepared returns the query's statement, prepared at its first use and kept.
// database/sql prepares it again on each connection that has not got it, so it
// survives those. It is nil if statements are not to be prepared.
func (s *Store) prepared(ctx context.Context, query string) (*sql.Stmt, error) {
	if s.opts.NoPrepare {
		return nil, nil
	}
	s.mu.Lock()
	stmt := s.stmts[query]
	s.mu.Unlock()
	if stmt != nil {
		return stmt, nil
	}
	stmt, err := s.db.PrepareContext(ctx, query) // not under the lock: it may take long
	if err != nil {
		return nil, err
	}
	return s.keep(query, stmt)
}

// keep keeps a statement unless another goroutine was faster.
func (s *Store) keep(query string, stmt *sql.Stmt) (*sql.Stmt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(context.Background()); err != nil {
		stmt.Close()
		return nil, err
	}
	if kept := s.stmts[query]; kept != nil {
		stmt.Close()
		return kept, nil
	}
	s.stmts[query] = stmt
	return stmt, nil
}

// idOf and bytesOf scan a column of bytes.
func idOf(id *[16]byte) sql.Scanner { return (*idColumn)(id) }

func bytesOf(s *string) sql.Scanner { return (*bytesColumn)(s) }

type idColumn [16]byte

// Scan implements [sql.Scanner].
func (c *idColumn) Scan(v any) error {
	b, ok := v.([]byte)
	if !ok || len(b) != len(c) {
		return errors.New("an ID in the table has not 16 bytes")
	}
	copy(c[:], b)
	return nil
}

type bytesColumn string

// Scan implements [sql.Scanner].
func (c *bytesColumn) Scan(v any) error {
	b, ok := v.([]byte)
	if !ok {
		return errors.New("a user in the table is not bytes")
	}
	*c = bytesColumn(b)
	return nil
}
