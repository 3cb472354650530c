package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
)

// written is what became of a statement that writes.
type written struct {
	rows int
	lost bool // it may have been carried out once more, or at all, and nobody heard of it
}

// exact reports whether a statement that was to change n rows at most, and ended
// with err, has changed just those that it says.
func (w written) exact(n int, err error) bool { return !w.lost || err == nil && w.rows == n }

// exec runs a statement that may be run twice.
func (s *Store) exec(ctx context.Context, query string, args []driver.NamedValue) (written, error) {
	var lost bool
	w, err := quick(ctx, s, func(ctx context.Context, here bool) (written, error) {
		w, err := s.execOnce(ctx, query, args, false, here)
		lost = lost || w.lost
		w.lost = lost
		return w, err
	}, nil)
	if errors.Is(err, errSilent) { // w is none of an attempt's
		w.lost = true
	}
	if w.lost && err != nil {
		err = unheard(err)
	}
	return w, err
}

// query runs a query that may be run twice, and scans each of its rows.
func query[T any](ctx context.Context, s *Store, query string, args []any,
	scan func(*sql.Rows, *T) error,
) ([]T, error) {
	return call(ctx, s, func(ctx context.Context) ([]T, error) {
		return queryOnce(ctx, s, query, args, scan)
	})
}

// execOnce makes one attempt; single says that it is to be sent once, whatever
// becomes of its connection, and here is as [Store.on] says.
func (s *Store) execOnce(ctx context.Context, query string, args []driver.NamedValue, single, here bool,
) (w written, err error) {
	err = errIndirect
	if len(args) < BatchIDs { // else it is of no request, but of a sweep
		w, err = s.execOn(ctx, query, args, here)
	}
	switch {
	case err == errIndirect || s.inlines(err):
		if here {
			return written{}, errElsewhere
		}
		return s.execIndirect(ctx, query, args, single)
	case here:
		return w, err
	case w.lost && !single && errors.Is(err, driver.ErrBadConn): // others may be as broken
		w, err = s.execIndirect(ctx, query, args, single)
		w.lost = true
	}
	return w, err
}

// execOn makes the attempt on one connection.
func (s *Store) execOn(ctx context.Context, query string, args []driver.NamedValue, here bool,
) (w written, err error) {
	var res driver.Result
	sent := false
	err = s.on(ctx, query, here, func(ctx context.Context, stmt driver.Stmt) (err error) {
		e, ok := stmt.(driver.StmtExecContext)
		if !ok {
			return errIndirect
		}
		sent = true
		res, err = e.ExecContext(ctx, args)
		return err
	})
	if err != nil {
		w.lost = sent && s.open(err)
		return w, err
	}
	return w.result(ctx, res)
}

// result adds what a success says.
func (w written) result(ctx context.Context, res driver.Result) (written, error) {
	n, err := res.RowsAffected()
	w.rows, w.lost = int(n), w.lost || err != nil
	// PostgreSQL answers a success, with a warning, where a commit's wait for a
	// synchronous standby is cancelled: a failover may still lose that commit.
	if ended := ctx.Err(); ended != nil {
		w.lost, err = true, ended
	}
	return w, err
}

// execIndirect makes the attempt by database/sql, which makes more by itself, on other
// connections, where the driver answered ErrBadConn, which lib/pq does even after
// the server may have carried out the statement; single does not let it.
func (s *Store) execIndirect(ctx context.Context, query string, args []driver.NamedValue, single bool,
) (w written, err error) {
	sent := &counted{v: args[0].Value, single: single && !s.opts.NoPrepare}
	list := []any{sent}
	for _, arg := range args[1:] {
		list = append(list, arg.Value)
	}
	res, err := s.send(ctx, query, list)
	if errors.Is(err, errRepeated) {
		err = driver.ErrBadConn
	}
	w.lost = sent.calls > 0 && s.open(err) || sent.calls > 1 && !s.opts.NoPrepare
	if err != nil {
		return w, err
	}
	return w.result(ctx, res)
}

// open reports whether an error leaves it open if the statement was carried out.
// That of a context does: the server may have been faster than its cancellation.
func (s *Store) open(err error) bool {
	if err == nil {
		return false
	}
	switch s.fault(err) {
	case Failed, Vague, Broken:
		return true
	}
	return false
}

// counted is an argument that counts how often it is handed to a driver. For a
// prepared statement that is once, unless database/sql tried again by itself.
type counted struct {
	v      any
	single bool
	calls  int
}

// errRepeated keeps database/sql from running a statement twice.
var errRepeated = errors.New("not to be sent twice")

// Value implements [driver.Valuer].
func (c *counted) Value() (driver.Value, error) {
	if c.single && c.calls == 1 {
		return nil, errRepeated
	}
	c.calls++
	return c.v, nil
}

// send sends a statement. Its first argument is counted.
func (s *Store) send(ctx context.Context, query string, args []any) (sql.Result, error) {
	stmt, err := s.prepared(ctx, query)
	if err == nil && stmt == nil {
		return s.unprepared(ctx, query, args)
	}
	var res sql.Result
	if err == nil {
		res, err = stmt.ExecContext(ctx, args...)
	}
	if s.inlines(err) {
		args[0].(*counted).calls = 0 // it was refused
		if query, err = s.inline(query, args); err == nil {
			return s.unprepared(ctx, query, nil)
		}
	}
	return res, err
}

// inlines reports whether a statement has to go without being prepared, its
// arguments in its text.
func (s *Store) inlines(err error) bool {
	return s.inline != nil && s.fault(err) == Unprepared
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

// errEnough is what a scan returns that wants no more rows than this one.
var errEnough = errors.New("enough rows")

func queryOnce[T any](ctx context.Context, s *Store, query string, args []any,
	scan func(*sql.Rows, *T) error,
) ([]T, error) {
	rows, err := s.ask(ctx, query, args)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []T
	for rows.Next() {
		var v T
		err := scan(rows, &v)
		if err != nil && err != errEnough {
			return nil, err
		}
		list = append(list, v)
		if err != nil {
			return list, nil
		}
	}
	return list, rows.Err()
}

func (s *Store) ask(ctx context.Context, query string, args []any) (*sql.Rows, error) {
	stmt, err := s.prepared(ctx, query)
	if err == nil && stmt == nil {
		return s.db.QueryContext(ctx, query, args...)
	}
	var rows *sql.Rows
	if err == nil {
		rows, err = stmt.QueryContext(ctx, args...)
	}
	if s.inlines(err) {
		if query, err = s.inline(query, args); err == nil {
			return s.db.QueryContext(ctx, query)
		}
	}
	return rows, err
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

// versionOf scans a version, which the table has as a signed number.
func versionOf(v *uint64) sql.Scanner { return (*versionColumn)(v) }

// idOf and bytesOf scan a column of bytes.
func idOf(id *[16]byte) sql.Scanner { return (*idColumn)(id) }

func bytesOf(s *string) sql.Scanner { return (*bytesColumn)(s) }

type versionColumn uint64

// Scan implements [sql.Scanner].
func (c *versionColumn) Scan(v any) error {
	n, ok := v.(int64)
	if !ok {
		var other sql.NullInt64
		if err := other.Scan(v); err != nil {
			return err
		}
		if !other.Valid {
			return errors.New("converting NULL to int64 is unsupported")
		}
		n = other.Int64
	}
	*c = versionColumn(n)
	return nil
}

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
