package pgxtest

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/faultproxy"
	"github.com/session2/session2/internal/sqlstore"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/storetest"
)

func TestMain(m *testing.M) { testdb.Main(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open returns a store over a connection pool of pgx, set up.
func open(t testing.TB, dsn string, opts session2.SQLOptions, change func(*pgx.ConnConfig)) *session2.PostgresStore {
	t.Helper()
	return setUp(t, pool(t, dsn, change), opts)
}

func pool(t testing.TB, dsn string, change func(*pgx.ConnConfig)) *sql.DB {
	t.Helper()
	cfg, err := pgx.ParseConfig(dsn)
	must(t, err)
	if change != nil {
		change(cfg)
	}
	db := stdlib.OpenDB(*cfg)
	db.SetMaxIdleConns(32) // a connection made anew for each call would be most of the work
	t.Cleanup(func() { db.Close() })
	return db
}

func setUp(t testing.TB, db *sql.DB, opts session2.SQLOptions) *session2.PostgresStore {
	t.Helper()
	store, err := session2.NewPostgresStore(db, &opts)
	must(t, err)
	must(t, store.Setup(t.Context()))
	return store
}

func table(name string) string { return fmt.Sprintf("t_%x", sha256.Sum256([]byte(name)))[:30] }

func record() session2.Record {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return session2.Record{
		ID: session2.ID{1}, Version: 1 << 63, User: "alice",
		Created: now, Accessed: now, Expires: now.Add(time.Hour), Data: []byte("data"),
	}
}

// execMode sends each statement whole, in one round trip.
func execMode(cfg *pgx.ConnConfig) { cfg.DefaultQueryExecMode = pgx.QueryExecModeExec }

func TestConformance(t *testing.T) {
	t.Parallel()
	dsn := testdb.Postgres(t)
	storetest.Run(t, func(t testing.TB, dir string) session2.Store {
		return open(t, dsn, session2.SQLOptions{Table: table(dir)}, nil)
	}, nil)
}

func TestConformanceBehindPooler(t *testing.T) {
	t.Parallel()
	dsn := testdb.Inherited(t, "PGX_PGBOUNCER", func() string {
		return testdb.NewPgBouncer(t, testdb.NewPostgres(t)).DSN()
	})
	storetest.Run(t, func(t testing.TB, dir string) session2.Store {
		return open(t, dsn, session2.SQLOptions{Table: table(dir), NoPrepare: true}, execMode)
	}, nil)
}

// TestRoundTrips counts how often the client sends something and waits.
// TestSetupMakesIndexes finds that what Setup asks the catalogue is answered to pgx as well.
func TestSetupMakesIndexes(t *testing.T) {
	db, name := pool(t, testdb.Postgres(t), nil), table(t.TempDir())
	store := setUp(t, db, session2.SQLOptions{Table: name})
	_, err := db.ExecContext(t.Context(), "DROP INDEX "+name+"_expires_idx")
	must(t, err)
	must(t, store.Setup(t.Context()))
	_, err = db.ExecContext(t.Context(), "DROP INDEX "+name+"_expires_idx") // it is there again
	must(t, err)
	_, err = db.ExecContext(t.Context(), "ALTER TABLE "+name+" DROP CONSTRAINT "+name+"_pkey")
	must(t, err)
	if err := store.Setup(t.Context()); err == nil || !strings.Contains(err.Error(), "no primary key on id") {
		t.Errorf("got %v, want it to say that there is no primary key", err)
	}
}

func TestRoundTrips(t *testing.T) {
	for name, noPrepare := range map[string]bool{"prepared": false, "exec mode": true} {
		t.Run(name, func(t *testing.T) {
			var trips testdb.Trips
			opts := session2.SQLOptions{Table: table(t.Name()), NoPrepare: noPrepare}
			store := open(t, testdb.Postgres(t), opts, func(cfg *pgx.ConnConfig) {
				if noPrepare {
					execMode(cfg)
				}
				cfg.DialFunc = dialling(trips.Conn)
			})
			wantOneTripEach(t, store, &trips)
		})
	}
}

// TestCallersGoroutine finds that a call stays on its caller's goroutine where pgx ends it
// with its context, whatever the server does, and nowhere else.
func TestCallersGoroutine(t *testing.T) {
	for _, test := range []struct {
		what   string
		change func(*pgx.ConnConfig)
		want   bool
	}{
		{"as it is", func(*pgx.ConnConfig) {}, true},
		{"a socket of its own", func(cfg *pgx.ConnConfig) { cfg.DialFunc = dialling(patient) }, false},
		{"a watcher of its own", func(cfg *pgx.ConnConfig) {
			cfg.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
				return &pgconn.CancelRequestContextWatcherHandler{Conn: c, DeadlineDelay: time.Hour}
			}
		}, false},
		{"one that comes late", func(cfg *pgx.ConnConfig) {
			cfg.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
				return &pgconn.DeadlineContextWatcherHandler{Conn: c.Conn(), DeadlineDelay: time.Hour}
			}
		}, false},
	} {
		db := pool(t, testdb.Postgres(t), test.change)
		back, err := sqlstore.NewPostgres(db, sqlstore.Options{Table: table(t.Name())})
		must(t, err)
		must(t, back.Setup(t.Context()))
		if _, err := back.Has(t.Context(), [16]byte{1}); err != nil || back.Prompt() != test.want {
			t.Errorf("%s: got %v, on the caller's goroutine: %v, want %v", test.what, err, back.Prompt(), test.want)
		}
	}
}

// patient is a connection that knows no deadlines, as one through a tunnel of package ssh.
func patient(c net.Conn) net.Conn { return withoutDeadlines{c} }

type withoutDeadlines struct{ net.Conn }

func (withoutDeadlines) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (withoutDeadlines) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (withoutDeadlines) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

// TestSilenceWithoutDeadlines finds that a call keeps its timeout over such a connection.
func TestSilenceWithoutDeadlines(t *testing.T) {
	dsn := testdb.Postgres(t)
	u, err := url.Parse(dsn)
	must(t, err)
	p := faultproxy.New(t, u.Host)
	t.Cleanup(func() { p.Cut() })
	u.Host = p.Addr()
	opts := session2.SQLOptions{Table: table(t.Name()), Timeout: 300 * time.Millisecond}
	store := open(t, u.String(), opts, func(cfg *pgx.ConnConfig) { cfg.DialFunc = dialling(patient) })
	ctx, rec := t.Context(), record()
	must(t, store.Save(ctx, rec, 0))
	_, err = store.Load(ctx, rec.ID)
	must(t, err)
	p.Hang(true)
	if _, err := store.Load(ctx, rec.ID); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Load from a silent server: got %v, want that it took too long", err)
	}
}

func wantOneTripEach(t *testing.T, store *session2.PostgresStore, trips *testdb.Trips) {
	ctx, rec := t.Context(), record()
	next := rec
	next.Version++
	calls := []struct {
		name string
		make func() error
	}{
		{"create", func() error { return store.Save(ctx, rec, 0) }},
		{"load", func() error { _, err := store.Load(ctx, rec.ID); return err }},
		{"has", func() error { _, err := store.Has(ctx, rec.ID); return err }},
		{"touch", func() error { return store.Touch(ctx, rec.ID, rec.Accessed.Add(time.Second), rec.Expires) }},
		{"replace", func() error { return store.Save(ctx, next, rec.Version) }},
		{"delete", func() error { return store.Delete(ctx, rec.ID) }},
	}
	for _, c := range calls {
		must(t, c.make())
	}
	for _, c := range calls {
		before := trips.Count()
		must(t, c.make())
		if got := trips.Count() - before; got != 1 {
			t.Errorf("%s: got %d round trips, want 1", c.name, got)
		}
	}
}

func dialling(wrap func(net.Conn) net.Conn) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return wrap(c), nil
	}
}

// TestRestart kills the server and starts it again: what was acknowledged is
// there, and the store goes on with its prepared statements.
func TestRestart(t *testing.T) {
	server := testdb.NewPostgres(t)
	store := open(t, server.DSN(), session2.SQLOptions{}, nil)
	ctx, rec := t.Context(), record()
	must(t, store.Save(ctx, rec, 0))
	for range 3 {
		server.Kill()
		start := time.Now()
		if _, err := store.Load(ctx, rec.ID); err == nil || errors.Is(err, session2.ErrNotFound) {
			t.Errorf("Load from a dead server: got %v, want an error of the connection", err)
		}
		if d := time.Since(start); d > time.Minute { // what it takes beyond its timeout depends on the machine
			t.Errorf("Load from a dead server took %v", d)
		}
		server.Start()
		next := rec
		next.Version++
		must(t, store.Save(ctx, next, rec.Version))
		rec = next
		got, err := store.Load(ctx, rec.ID)
		if err != nil || got.Version != rec.Version {
			t.Errorf("got %v, %v, want version %v", got.Version, err, rec.Version)
		}
	}
}

// TestHungServer finds that a call ends in time where the server does not
// answer.
func TestHungServer(t *testing.T) {
	server := testdb.NewPostgres(t)
	rec := record()
	must(t, open(t, server.DSN(), session2.SQLOptions{}, nil).Save(t.Context(), rec, 0))
	db, err := sql.Open("pgx", server.DSN())
	must(t, err)
	defer db.Close()
	store, err := session2.NewPostgresStore(db, &session2.SQLOptions{Timeout: 300 * time.Millisecond})
	must(t, err)
	recovers(t, store, rec) // it has its connection
	server.Pause()
	start := time.Now()
	_, err = store.Load(t.Context(), rec.ID)
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > time.Minute {
		t.Errorf("got %v after %v, want %v after 300ms", err, time.Since(start), context.DeadlineExceeded)
	}
	server.Resume()
	recovers(t, store, rec)
}

// recovers wants a store to answer again, in the end: a busy machine may need longer
// than the store's timeout for a connection.
func recovers(t *testing.T, store session2.Store, rec session2.Record) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if _, err = store.Load(t.Context(), rec.ID); err == nil {
			return
		}
	}
	t.Fatalf("the store does not recover: %v", err)
}
