package sqlstore

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"reflect"
	"time"
)

// A call that may be held up by more than its context is made on a goroutine of its own,
// which its caller can give up: see bounded. To hand it over, and to wait for that, costs as
// much as a server takes to find a row. So what every request does stays on its caller's
// goroutine while nothing is likely to hold it up: its connection is one of a driver that
// ends a call with its context, over a socket that lets it; the pool has an idle one; and the
// server has answered just now. The last is for what database/sql does for its callers
// itself, and does not end with a context: to close a statement, or a connection that is too
// old, waits for the server, with pgx for up to 5 s, with lib/pq for as long as a read may
// take, and whoever closes a statement has the pool wait. While a server is silent, only calls
// from before can meet that.

// lately is how long ago the server may have answered, and how long that may have taken. To
// one that is further away a call is handed over at no cost to speak of, and a request to
// cancel, for which lib/pq waits, takes long.
const lately = 20 * time.Millisecond

// errElsewhere is what an attempt on the caller's goroutine returns that needs another: it
// has changed nothing, and is made again.
var errElsewhere = errors.New("not on the caller's goroutine")

// quick is [call] for what every request does. If it can, it makes the first attempt on the
// caller's goroutine, as f is told. Before others it calls leave, if that is not nil: what f
// shares with the caller must be its own then.
func quick[T any](ctx context.Context, s *Store, f func(ctx context.Context, here bool) (T, error), leave func(),
) (T, error) {
	if leave == nil {
		leave = func() {}
	}
	start := time.Since(began)
	v, err := here(ctx, s, start, f, leave)
	if err == errElsewhere {
		leave()
		v, err = call(ctx, s, func(ctx context.Context) (T, error) { return f(ctx, false) })
	} else {
		err = s.outOfTime(ctx, err)
	}
	if now := time.Since(began); err == nil && now-start < lately {
		s.heard.Store(now.Nanoseconds())
	}
	return v, err
}

// began is what Store.heard counts from: time.Since heeds no change of the clock.
var began = time.Now()

func (s *Store) heardLately(now time.Duration) bool {
	heard := s.heard.Load()
	return heard != 0 && now-time.Duration(heard) < lately
}

// here makes the first attempt on the caller's goroutine, and those after it elsewhere.
func here[T any](ctx context.Context, s *Store, now time.Duration, f func(ctx context.Context, here bool) (T, error),
	leave func(),
) (v T, err error) {
	if !s.prompt.Load() || !s.heardLately(now) {
		return v, errElsewhere
	}
	if err := s.check(ctx); err != nil {
		return v, err
	}
	own := s.watches.begin(ctx, s.opts.Timeout)
	defer own.over()
	if v, err = f(own, true); err == nil {
		return v, nil
	}
	switch ended := own.Err(); {
	case ended != nil:
		if err == errElsewhere {
			err = ended
		}
		return v, late(s.overtime(ended, err, nil))
	case err == errElsewhere:
		return v, err
	}
	leave()
	return again(own, s, f, v, err)
}

// again goes on elsewhere after a first attempt. What came of that is known whatever has
// become of the store and of the context since.
func again[T any](ctx context.Context, s *Store, f func(ctx context.Context, here bool) (T, error),
	v T, err error,
) (T, error) {
	first := true
	return tries(ctx, s, func(ctx context.Context) (T, error) {
		if first {
			first = false
			return v, err
		}
		return f(ctx, false)
	})
}

// connects reports whether the pool may make a connection for the next call. Where it has
// as many as it may, the call waits for one, and not longer than its context lasts. An idle
// one may turn out to be dead, and be made anew all the same: by these drivers, that ends
// with the context as well.
func (s *Store) connects() bool {
	pool := s.db.Stats()
	return pool.Idle == 0 && (pool.MaxOpenConnections == 0 || pool.OpenConnections < pool.MaxOpenConnections)
}

// Prompt reports whether the store makes calls on their callers' goroutines, by the
// connection that it has used last.
func (s *Store) Prompt() bool { return s.prompt.Load() }

// isPrompt reports whether a connection ends each call when its context ends, whatever the
// server does. These drivers do where their sockets are the system's: pgx sets a deadline,
// MySQL's closes the socket, and so does our dialer for lib/pq. Other sockets may know no
// deadline (package ssh's) or wait for their peer before they close. Of a connection that is
// wrapped, or that has become another since, nothing is known.
func isPrompt(dc any) bool {
	switch c := dc.(type) {
	case *postgresConn:
		return c.dialer.timeout > 0
	case *mysqlConn:
		return true
	}
	v := reflect.Indirect(reflect.ValueOf(dc))
	if v.Kind() != reflect.Struct {
		return false
	}
	switch t := v.Type(); t.PkgPath() + "." + t.Name() {
	case "github.com/go-sql-driver/mysql.mysqlConn":
		return isSocket(inside(v, "netConn"))
	case "github.com/jackc/pgx/v5/stdlib.Conn":
		v = inside(v, "conn", "pgConn")
		watch := inside(v, "contextWatcher", "handler")
		delay := inside(watch, "DeadlineDelay")
		return isSocket(inside(v, "conn")) && delay.IsValid() && delay.IsZero() &&
			watch.Type().Name() == "DeadlineContextWatcherHandler"
	}
	return false
}

// isSocket reports whether a connection's struct is a socket of the system's, or TLS over one.
func isSocket(v reflect.Value) bool {
	if !v.IsValid() {
		return false
	}
	switch v.Type() {
	case reflect.TypeFor[net.TCPConn](), reflect.TypeFor[net.UnixConn]():
		return true
	case reflect.TypeFor[tls.Conn]():
		return isSocket(inside(v, "conn"))
	}
	return false
}

// inside follows a path of fields, which may be pointers or interfaces. It returns the zero
// Value if there is no such path.
func inside(v reflect.Value, path ...string) reflect.Value {
	for _, name := range path {
		if v.Kind() != reflect.Struct {
			return reflect.Value{}
		}
		for v = v.FieldByName(name); v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface; {
			v = v.Elem()
		}
	}
	return v
}
