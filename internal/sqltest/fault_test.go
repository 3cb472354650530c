package sqltest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/lib/pq"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/sqlstore"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
)

// sqlSystem is one of the databases, as the tests that hold for both need it.
type sqlSystem struct {
	name, driver string
	server       func(testing.TB) string // the shared one
	private      func(testing.TB, ...string) *testdb.Server
	open         func(db *sql.DB, opts *session2.SQLOptions) (sqlStore, error)
	back         func(db *sql.DB, opts sqlstore.Options) (*sqlstore.Store, error)
	deadlock     error
}

// sqlStore is what both stores are.
type sqlStore interface {
	session2.Store
	session2.SetupStore
	session2.DeleteOldStore
	session2.TouchStore
	session2.IterStore
	session2.UserStore
	Schema() []string
	Close() error
}

var sqlSystems = []sqlSystem{
	{"postgres", "postgres", testdb.Postgres, testdb.NewPostgres,
		func(db *sql.DB, o *session2.SQLOptions) (sqlStore, error) { return session2.NewPostgresStore(db, o) },
		sqlstore.NewPostgres,
		&pq.Error{Code: "40P01"}},
	{"mysql", "mysql", testdb.MySQL, testdb.NewMySQL,
		func(db *sql.DB, o *session2.SQLOptions) (sqlStore, error) { return session2.NewMySQLStore(db, o) },
		sqlstore.NewMySQL,
		&mysql.MySQLError{Number: 1213}},
}

// eachSQL runs a test on both databases.
func eachSQL(t *testing.T, test func(t *testing.T, sys sqlSystem, dsn string)) {
	for _, sys := range sqlSystems {
		t.Run(sys.name, func(t *testing.T) { test(t, sys, sys.server(t)) })
	}
}

// store returns a store over a fresh table, without Setup. On a busy machine the
// default timeout may be too short.
func (sys sqlSystem) store(t testing.TB, db *sql.DB, opts session2.SQLOptions) sqlStore {
	t.Helper()
	if opts.Table == "" {
		opts.Table = sqlTable(t.TempDir())
	}
	if opts.Timeout == 0 {
		opts.Timeout = time.Minute
	}
	store, err := sys.open(db, &opts)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// tapped returns a store that is set up, and its tap.
func (sys sqlSystem) tapped(t testing.TB, dsn string) (sqlStore, *tappedDriver) {
	t.Helper()
	db, tap := tap(t, sys.driver, dsn)
	db.SetMaxOpenConns(1) // each statement is prepared once
	store := sys.store(t, db, session2.SQLOptions{})
	testsite.Must(t, store.Setup(t.Context()))
	return store, tap
}

// tappedBesideAnother returns two stores on one table that is set up; the first one is tapped.
func (sys sqlSystem) tappedBesideAnother(t testing.TB, dsn string) (store, other sqlStore, _ *tappedDriver) {
	opts := session2.SQLOptions{Table: sqlTable(t.TempDir())}
	db, tap := tap(t, sys.driver, dsn)
	store, other = sys.store(t, db, opts), sys.store(t, openSQL(t, sys.driver, dsn), opts)
	testsite.Must(t, store.Setup(t.Context()))
	return store, other, tap
}

func sqlRecord(b byte) session2.Record {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return session2.Record{
		ID: session2.ID{b}, Version: session2.Version(b) << 56, User: "alice",
		Created: now, Accessed: now, Expires: now.Add(time.Hour), Data: []byte("data"),
	}
}

func TestSQLRoundTrips(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		store, tap := sys.tapped(t, dsn)
		ctx, rec := t.Context(), sqlRecord(200)
		next := rec
		next.Version++
		calls := []struct {
			name, want string
			call       func() error
		}{
			{"create", "map[exec:1]", func() error { return store.Save(ctx, rec, 0) }},
			{"load", "map[query:1]", func() error { _, err := store.Load(ctx, rec.ID); return err }},
			{"has", "map[query:1]", func() error { _, err := store.Has(ctx, rec.ID); return err }},
			{"touch", "map[exec:1]", func() error {
				return store.Touch(ctx, rec.ID, rec.Accessed.Add(1e9), rec.Expires)
			}},
			{"replace", "map[exec:1]", func() error { return store.Save(ctx, next, rec.Version) }},
			{"delete", "map[exec:1]", func() error { return store.Delete(ctx, rec.ID) }},
		}
		for _, c := range calls {
			testsite.Must(t, c.call()) // prepares the statement
		}
		tap.taken()
		for _, c := range calls {
			testsite.Must(t, c.call())
			if got := tap.taken(); got != c.want {
				t.Errorf("%s: got %s, want %s", c.name, got, c.want)
			}
		}
	})
}

// once answers err the first time that a statement beginning with word is run.
func once(word string, err error) func(string) error {
	return func(query string) error {
		if err == nil || !strings.HasPrefix(query, word) {
			return nil
		}
		e := err
		err = nil
		return e
	}
}

// lostAnswers are the errors that drivers answer after a statement went out.
var lostAnswers = map[string]error{
	"ErrBadConn": driver.ErrBadConn,
	"EOF":        io.ErrUnexpectedEOF,
	"network":    &net.OpError{Op: "read", Err: io.EOF},
}

func TestSQLLostAnswer(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		for name, lost := range lostAnswers {
			t.Run(name, func(t *testing.T) {
				store, tap := sys.tapped(t, dsn)
				ctx, rec := t.Context(), sqlRecord(1)
				tap.tamper(nil, once("INSERT", lost))
				testsite.Must(t, store.Save(ctx, rec, 0))

				next := rec
				next.Version++
				tap.tamper(nil, once("UPDATE", lost))
				testsite.Must(t, store.Save(ctx, next, rec.Version))
				got, err := store.Load(ctx, rec.ID)
				if err != nil || got.Version != next.Version {
					t.Errorf("got version %v, %v, want %v", got.Version, err, next.Version)
				}
			})
		}
	})
}

func TestSQLLostAnswerAndOthersWrote(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		for name, lost := range lostAnswers {
			t.Run(name, func(t *testing.T) {
				store, other, tap := sys.tappedBesideAnother(t, dsn)
				ctx, rec := t.Context(), sqlRecord(1)
				testsite.Must(t, store.Save(ctx, rec, 0))

				mine, theirs := rec, rec
				mine.Version, theirs.Version = 5, 6
				drop := once("UPDATE", lost)
				tap.tamper(nil, func(query string) error {
					err := drop(query)
					if err != nil {
						testsite.Must(t, other.Save(ctx, theirs, mine.Version))
					}
					return err
				})
				if err := store.Save(ctx, mine, rec.Version); !errors.Is(err, session2.ErrUncertain) {
					t.Errorf("got %v, want %v", err, session2.ErrUncertain)
				}
				tap.tamper(nil, nil)
				mine.Version = 7
				if err := store.Save(ctx, mine, rec.Version); !errors.Is(err, session2.ErrConflict) {
					t.Errorf("no answer lost: got %v, want %v", err, session2.ErrConflict)
				}
			})
		}
	})
}

// TestSQLCreateAmidOthers finds that a create goes on that finds its key taken time and again,
// by a record that is gone when it looks: nothing but the key keeps it from being written.
func TestSQLCreateAmidOthers(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		store, other, tap := sys.tappedBesideAnother(t, dsn)
		ctx, rec := t.Context(), sqlRecord(1)
		theirs := rec
		theirs.Version = 6
		times := 0
		tap.tamper(func(query string) error {
			if times++; strings.HasPrefix(query, "INSERT") && times <= 8 {
				testsite.Must(t, other.Save(ctx, theirs, 0))
			}
			return nil
		}, nil)
		tap.tamperQueries(func(string) error { return other.Delete(ctx, rec.ID) })
		testsite.Must(t, store.Save(ctx, rec, 0))
		tap.tamperQueries(nil)
		got, err := store.Load(ctx, rec.ID)
		if err != nil || got.Version != rec.Version || times != 9 {
			t.Errorf("after %d times got %v, %v, want %v", times, got, err, rec)
		}
	})
}

func TestSQLDeadlockIsRetried(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		store, tap := sys.tapped(t, dsn)
		rec := sqlRecord(1)
		for _, word := range []string{"INSERT", "DELETE"} {
			tap.tamper(once(word, sys.deadlock), nil)
			if word == "INSERT" {
				testsite.Must(t, store.Save(t.Context(), rec, 0))
			} else {
				testsite.Must(t, store.Delete(t.Context(), rec.ID))
			}
		}
		tap.tamper(func(string) error { return sys.deadlock }, nil)
		if err := store.Save(t.Context(), rec, 0); !errors.Is(err, sys.deadlock) {
			t.Errorf("deadlocks without end: got %v, want %v", err, sys.deadlock)
		}
	})
}

// TestSQLAnswerTooLate finds that a success that comes when the call's context
// has ended is none: PostgreSQL answers so if a commit's wait for a standby is
// cancelled.
func TestSQLAnswerTooLate(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		store, tap := sys.tapped(t, dsn)
		rec := sqlRecord(1)
		testsite.Must(t, store.Save(t.Context(), rec, 0))
		next := rec
		next.Version++
		calls := map[string]func(context.Context) error{
			"UPDATE": func(ctx context.Context) error { return store.Save(ctx, next, rec.Version) },
			"DELETE": func(ctx context.Context) error { return store.Delete(ctx, rec.ID) },
		}
		for word, call := range calls {
			ctx, cancel := context.WithCancel(t.Context())
			tap.tamper(nil, func(query string) error {
				if strings.HasPrefix(query, word) {
					cancel()
				}
				return nil
			})
			if err := call(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: got %v, want %v", word, err, context.Canceled)
			}
		}
	})
}

// TestPostgresConfirms finds that a Save which is done already commits once
// more, and changes nothing.
func TestPostgresConfirms(t *testing.T) {
	store, tap := sqlSystems[0].tapped(t, testdb.Postgres(t))
	rec := sqlRecord(1)
	testsite.Must(t, store.Save(t.Context(), rec, 0))
	var writes []string
	tap.tamper(func(query string) error {
		writes = append(writes, strings.Fields(query)[0])
		return nil
	}, nil)
	testsite.Must(t, store.Save(t.Context(), rec, 0))
	if got := strings.Join(writes, " "); got != "INSERT UPDATE" {
		t.Errorf("got the statements %q, want %q", got, "INSERT UPDATE")
	}
	got, err := store.Load(t.Context(), rec.ID)
	if err != nil || !reflect.DeepEqual(got, rec) {
		t.Errorf("got %v, %v, want %v", got, err, rec)
	}
}

// TestMySQLConflictNumbers has a commit fail in the ways of clusters: with a
// number that says it was rolled back, or with one that does not.
func TestMySQLConflictNumbers(t *testing.T) {
	store, tap := sqlSystems[1].tapped(t, testdb.MySQL(t))
	ctx, rec := t.Context(), sqlRecord(1)
	testsite.Must(t, store.Save(ctx, rec, 0))
	for _, number := range []uint16{1205, 3101, 8005, 8022, 9007} {
		next := rec
		next.Version++
		tap.tamper(once("UPDATE", &mysql.MySQLError{Number: number}), nil)
		if err := store.Save(ctx, next, rec.Version); err != nil {
			t.Errorf("rolled back with %d: got %v, want another attempt", number, err)
		}
		rec = next
	}
	for _, number := range []uint16{1047, 1180} {
		next := rec
		next.Version++
		tap.tamper(nil, once("UPDATE", &mysql.MySQLError{Number: number}))
		if err := store.Save(ctx, next, rec.Version); err != nil {
			t.Errorf("committed, and answered with %d: got %v, want it to be found", number, err)
		}
		rec = next
	}
}

func TestSQLTimeout(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		db := openSQL(t, sys.driver, dsn)
		db.SetMaxOpenConns(1)
		store := sys.store(t, db, session2.SQLOptions{Timeout: time.Millisecond})
		conn, err := db.Conn(t.Context()) // the pool has no other
		testsite.Must(t, err)
		defer conn.Close()
		_, err = store.Load(t.Context(), session2.ID{})
		if !errors.Is(err, context.DeadlineExceeded) ||
			!strings.Contains(err.Error(), "all 1 connections of the pool are in use") {
			t.Errorf("got %v, want %v and why", err, context.DeadlineExceeded)
		}
		for _, err := range []error{err, store.Setup(t.Context())} {
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the store's timeout of 1ms") {
				t.Errorf("got %v, want %v and whose time ran out", err, context.DeadlineExceeded)
			}
		}
	})
}

// TestSQLNoPrepareConflict is about a pool that needs several attempts of
// database/sql's for a statement that is not to be prepared: nothing was lost,
// so a conflict is one.
func TestSQLNoPrepareConflict(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		store := sys.store(t, openSQL(t, sys.driver, dsn), session2.SQLOptions{NoPrepare: true})
		testsite.Must(t, store.Setup(t.Context()))
		rec := sqlRecord(1)
		testsite.Must(t, store.Save(t.Context(), rec, 0))
		next := rec
		next.Version++
		for prev, want := range map[session2.Version]error{0: session2.ErrConflict, 99: session2.ErrConflict} {
			if err := store.Save(t.Context(), next, prev); !errors.Is(err, want) {
				t.Errorf("Save over version %d: got %v, want %v", prev, err, want)
			}
		}
	})
}

// TestSQLVersionZero finds that a record whose version somebody made zero is
// there, for those who would create one.
func TestSQLVersionZero(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		table, db := sqlTable(t.TempDir()), openSQL(t, sys.driver, dsn)
		store := sys.store(t, db, session2.SQLOptions{Table: table})
		testsite.Must(t, store.Setup(t.Context()))
		rec := sqlRecord(1)
		testsite.Must(t, store.Save(t.Context(), rec, 0))
		_, err := db.Exec("UPDATE " + table + " SET version = 0")
		testsite.Must(t, err)
		if err := store.Save(t.Context(), rec, 0); !errors.Is(err, session2.ErrConflict) {
			t.Errorf("got %v, want %v", err, session2.ErrConflict)
		}
	})
}
