package sqltest

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/lib/pq"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/sqlstore"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
	"github.com/session2/session2/storetest"
)

// sqlCall is one call of a store.
type sqlCall struct {
	name string
	make func() error
}

// sqlCalls are the calls that are to cost one round trip each, in an order in
// which each meets what it needs.
func sqlCalls(ctx context.Context, store sqlStore) []sqlCall {
	rec := sqlRecord(200)
	next := rec
	next.Version++
	next.Data = make([]byte, 5000)
	return []sqlCall{
		{"create", func() error { return store.Save(ctx, rec, 0) }},
		{"load", func() error { _, err := store.Load(ctx, rec.ID); return err }},
		{"has", func() error { _, err := store.Has(ctx, rec.ID); return err }},
		{"touch", func() error { return store.Touch(ctx, rec.ID, rec.Accessed.Add(time.Second), rec.Expires) }},
		{"replace", func() error { return store.Save(ctx, next, rec.Version) }},
		{"delete", func() error { return store.Delete(ctx, rec.ID) }},
	}
}

// TestSQLNetworkRoundTrips counts on the wire: how often the client sends
// something and waits.
func TestSQLNetworkRoundTrips(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		for _, noPrepare := range []bool{false, true} {
			t.Run(fmt.Sprintf("NoPrepare=%v", noPrepare), func(t *testing.T) {
				db, trips := sys.counted(t, dsn, noPrepare)
				store := sys.store(t, db, session2.SQLOptions{NoPrepare: noPrepare})
				testsite.Must(t, store.Setup(t.Context()))
				wantOneTripEach(t, store, trips)
			})
		}
	})
}

func wantOneTripEach(t *testing.T, store sqlStore, trips *testdb.Trips) {
	t.Helper()
	calls := sqlCalls(t.Context(), store)
	for _, c := range calls {
		testsite.Must(t, c.make()) // prepares the statement
	}
	for _, c := range calls {
		before := trips.Count()
		testsite.Must(t, c.make())
		if got := trips.Count() - before; got != 1 {
			t.Errorf("%s: got %d round trips, want 1", c.name, got)
		}
	}
}

// TestCallersGoroutine finds that a call stays on its caller's goroutine where the driver
// is known to end a call with its context, which is quicker, and nowhere else: lib/pq
// waits for a server that hangs, unless a connection is Open's, and of one that is
// wrapped nothing is known.
// TestSQLHungServer has such servers.
func TestCallersGoroutine(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		tapped, _ := tap(t, sys.driver, dsn)
		for _, test := range []struct {
			what string
			db   *sql.DB
			want bool
		}{
			{"as it is", openSQL(t, sys.driver, dsn), sys.name == "mysql"},
			{"of Open", sys.pool(t, dsn), true},
			{"a wrapped driver", tapped, false},
			{"a wrapped socket", sys.dialled(t, dsn, false, new(testdb.Trips).Conn), false},
		} {
			back, err := sys.back(test.db, sqlstore.Options{Table: sqlTable(t.TempDir())})
			testsite.Must(t, err)
			testsite.Must(t, back.Setup(t.Context()))
			for range 2 {
				if _, err := back.Has(t.Context(), [16]byte{1}); err != nil || back.Prompt() != test.want {
					t.Errorf("%s: got %v, on the caller's goroutine: %v, want %v", test.what, err, back.Prompt(), test.want)
				}
			}
		}
	})
}

// pool opens the database as Open does.
func (sys sqlSystem) pool(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	if sys.name != "postgres" {
		return openSQL(t, sys.driver, dsn)
	}
	cfg, err := pq.NewConfig(dsn)
	testsite.Must(t, err)
	db := sql.OpenDB(sqlstore.PostgresConnector{Config: cfg, Timeout: time.Minute})
	t.Cleanup(func() { db.Close() })
	return db
}

// counted opens the database by one connection that counts round trips.
func (sys sqlSystem) counted(t *testing.T, dsn string, noPrepare bool) (*sql.DB, *testdb.Trips) {
	t.Helper()
	trips := new(testdb.Trips)
	return sys.dialled(t, dsn, noPrepare, trips.Conn), trips
}

// dialled opens the database by one connection, which wrap is given.
func (sys sqlSystem) dialled(t *testing.T, dsn string, noPrepare bool, wrap func(net.Conn) net.Conn) *sql.DB {
	t.Helper()
	var db *sql.DB
	switch sys.name {
	case "postgres":
		if noPrepare {
			dsn = withSettings(dsn, "binary_parameters=yes")
		}
		c, err := pq.NewConnector(dsn)
		testsite.Must(t, err)
		c.Dialer(wrapDialer(wrap))
		db = sql.OpenDB(c)
	case "mysql":
		cfg, err := mysql.ParseDSN(dsn)
		testsite.Must(t, err)
		cfg.InterpolateParams = noPrepare
		cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			return wrapDialer(wrap).Dial(network, addr)
		}
		c, err := mysql.NewConnector(cfg)
		testsite.Must(t, err)
		db = sql.OpenDB(c)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return db
}

// wrapDialer makes connections and wraps them.
type wrapDialer func(net.Conn) net.Conn

func (d wrapDialer) Dial(network, addr string) (net.Conn, error) {
	c, err := net.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	return d(c), nil
}

func (d wrapDialer) DialTimeout(network, addr string, _ time.Duration) (net.Conn, error) {
	return d.Dial(network, addr)
}

// TestPostgresCountsStatements has the server count what it was asked to do.
func TestPostgresCountsStatements(t *testing.T) {
	server := testdb.NewPostgres(t, "shared_preload_libraries = 'pg_stat_statements'")
	db := openSQL(t, "postgres", server.DSN())
	_, err := db.Exec("CREATE EXTENSION pg_stat_statements")
	testsite.Must(t, err)
	store := openPostgres(t, server.DSN(), session2.SQLOptions{})
	for _, c := range sqlCalls(t.Context(), store) {
		testsite.Must(t, c.make())
		_, err := db.Exec("SELECT pg_stat_statements_reset()")
		testsite.Must(t, err)
	}
	for _, c := range sqlCalls(t.Context(), store) {
		testsite.Must(t, c.make())
		var n int
		row := db.QueryRow("SELECT coalesce(sum(calls), 0) FROM pg_stat_statements" +
			" WHERE query NOT LIKE '%pg_stat_statements%'")
		testsite.Must(t, row.Scan(&n))
		if n != 1 {
			t.Errorf("%s: got %d statements, want 1", c.name, n)
		}
		_, err := db.Exec("SELECT pg_stat_statements_reset()")
		testsite.Must(t, err)
	}
}

// TestMySQLCountsStatements has the server count what it was asked to do.
func TestMySQLCountsStatements(t *testing.T) {
	server := testdb.NewMySQL(t)
	store := openMySQL(t, server.DSN(), session2.SQLOptions{})
	db := openSQL(t, "mysql", server.DSN())
	for _, c := range sqlCalls(t.Context(), store) {
		testsite.Must(t, c.make())
	}
	for _, c := range sqlCalls(t.Context(), store) {
		before := mysqlStatus(t, db)
		testsite.Must(t, c.make())
		after := mysqlStatus(t, db)
		for name, want := range map[string]int{
			"Com_stmt_execute": 1, "Com_stmt_prepare": 0, "Com_begin": 0, "Com_commit": 0,
		} {
			if got := after[name] - before[name]; got != want {
				t.Errorf("%s: got %d %s, want %d", c.name, got, name, want)
			}
		}
		if got := after["Questions"] - before["Questions"] - 1; got != 1 { // SHOW STATUS is one
			t.Errorf("%s: got %d statements, want 1", c.name, got)
		}
	}
}

// mysqlStatus returns the server's counters.
func mysqlStatus(t *testing.T, db *sql.DB) map[string]int {
	t.Helper()
	rows, err := db.Query("SHOW GLOBAL STATUS WHERE Variable_name IN" +
		" ('Com_stmt_execute', 'Com_stmt_prepare', 'Com_begin', 'Com_commit', 'Questions')")
	testsite.Must(t, err)
	defer rows.Close()
	status := make(map[string]int)
	for rows.Next() {
		var name string
		var n int
		testsite.Must(t, rows.Scan(&name, &n))
		status[name] = n
	}
	testsite.Must(t, rows.Err())
	return status
}

// TestPgBouncer runs on connections that are handed out by the transaction,
// where a statement prepared on one is not found on the next.
func TestPgBouncer(t *testing.T) {
	t.Parallel()
	dsn := testdb.Inherited(t, "PGBOUNCER", func() string {
		return testdb.NewPgBouncer(t, testdb.NewPostgres(t)).DSN()
	})
	sys := sqlSystems[0]
	t.Run("one round trip", func(t *testing.T) {
		db, trips := sys.counted(t, dsn, true)
		store := sys.store(t, db, session2.SQLOptions{NoPrepare: true})
		testsite.Must(t, store.Setup(t.Context()))
		wantOneTripEach(t, store, trips)
	})
	t.Run("conformance", func(t *testing.T) {
		storetest.Run(t, func(t testing.TB, dir string) session2.Store {
			store, err := session2.Open(t.Context(), withSettings(dsn, "noprepare=true&table="+sqlTable(dir)))
			testsite.Must(t, err)
			testsite.Must(t, store.(session2.SetupStore).Setup(t.Context()))
			return store
		}, nil)
	})
	t.Run("prepared statements fail", func(t *testing.T) { // else this test shows nothing
		store := sys.store(t, openSQL(t, "postgres", dsn), session2.SQLOptions{})
		testsite.Must(t, store.Setup(t.Context()))
		var err error
		testsite.Must(t, until(func() (bool, error) { // until two connections to the server were used
			err = loadsAtOnce(t, store)
			return err != nil, nil
		}))
		if !strings.Contains(err.Error(), "prepared statement") {
			t.Errorf("got %v, want an error that names prepared statements", err)
		}
	})
}

// loadsAtOnce loads by several connections, and returns an error if one failed.
func loadsAtOnce(t *testing.T, store session2.Store) error {
	errs := make(chan error, 20)
	for range cap(errs) {
		go func() {
			var err error
			for i := 0; i < 50 && err == nil; i++ {
				_, err = store.Load(t.Context(), session2.ID{})
				if err != nil && strings.Contains(err.Error(), session2.ErrNotFound.Error()) {
					err = nil
				}
			}
			errs <- err
		}()
	}
	var failed error
	for range cap(errs) {
		if err := <-errs; err != nil {
			failed = err
		}
	}
	return failed
}
