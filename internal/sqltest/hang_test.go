package sqltest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/faultproxy"
	"github.com/session2/session2/internal/testsite"
)

// viaProxy returns a proxy to the server, and the name of the server's data as
// one that is there.
func viaProxy(t testing.TB, dsn string) (*faultproxy.Proxy, string) {
	t.Helper()
	host := dsnHost(t, dsn)
	p := faultproxy.New(t, host)
	return p, strings.Replace(dsn, host, p.Addr(), 1)
}

// dsnHost returns the host and the port that a URL or a data source name of the
// MySQL driver names.
func dsnHost(t testing.TB, dsn string) string {
	t.Helper()
	if _, after, ok := strings.Cut(dsn, "@tcp("); ok {
		host, _, _ := strings.Cut(after, ")")
		return host
	}
	u, err := url.Parse(dsn)
	testsite.Must(t, err)
	return u.Host
}

// bounded checks that a call answers an error, and does so although the server
// never will. What it takes beyond its timeout depends on the machine.
func bounded(t *testing.T, what string, want error, call func() error) {
	t.Helper()
	start := time.Now()
	if err := call(); !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
	if d := time.Since(start); d > time.Minute {
		t.Errorf("%s: got an answer after %v, want it in %v", what, d, hangTimeout)
	}
}

const hangTimeout = 300 * time.Millisecond

// TestSQLHungServer finds that every call of a store keeps its timeout when the
// server is silent, over a pool of the caller's and over that of Open, and that the
// store goes on when the server is back.
func TestSQLHungServer(t *testing.T) {
	t.Parallel()
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		for _, own := range []bool{false, true} {
			t.Run(fmt.Sprintf("Open=%v", own), func(t *testing.T) { testHungServer(t, sys, dsn, own) })
		}
	})
}

func testHungServer(t *testing.T, sys sqlSystem, dsn string, own bool) {
	p, dsn := viaProxy(t, dsn)
	defer p.Cut() // lib/pq would wait for good when the pool is closed
	table, db := sqlTable(t.TempDir()), openSQL(t, sys.driver, dsn)
	patient := sys.patient(t, db, table)
	ctx, rec := t.Context(), sqlRecord(1)
	testsite.Must(t, patient.Setup(ctx))
	testsite.Must(t, patient.Save(ctx, rec, 0))
	var store sqlStore
	if own {
		store = sys.opened(t, dsn, "&timeout=300ms&table="+table)
	} else {
		store = sys.store(t, db, session2.SQLOptions{Table: table, Timeout: hangTimeout})
	}
	load := func(ctx context.Context) error { _, err := store.Load(ctx, rec.ID); return err }
	for what, call := range map[string]func(context.Context) error{
		"load":        load,
		"save":        func(ctx context.Context) error { return store.Save(ctx, rec, rec.Version-1) },
		"create":      func(ctx context.Context) error { return store.Save(ctx, sqlRecord(2), 0) },
		"delete":      func(ctx context.Context) error { return store.Delete(ctx, sqlRecord(3).ID) },
		"delete old":  func(ctx context.Context) error { _, err := store.DeleteOld(ctx, time.Hour); return err },
		"delete user": func(ctx context.Context) error { _, err := store.DeleteUser(ctx, "alice"); return err },
		"set up":      func(ctx context.Context) error { return store.Setup(ctx) },
		"iter": func(ctx context.Context) error {
			for _, err := range store.Iter(ctx) {
				return err
			}
			return nil
		},
	} {
		recovers(t, store, rec) // it has prepared a statement, and heard of the server just now
		p.Hang(true)
		bounded(t, what, context.DeadlineExceeded, func() error {
			err := call(ctx)
			if err == nil || !strings.Contains(err.Error(), "no answer from the database") {
				t.Errorf("%s: got %v, want it to say who did not answer", what, err)
			}
			return err
		})
		p.Hang(false)
	}
	recovers(t, store, rec)
	p.Hang(true)
	gone, cancel := context.WithCancel(ctx)
	time.AfterFunc(10*time.Millisecond, cancel)
	bounded(t, "load, cancelled", context.Canceled, func() error { return load(gone) })
	p.Hang(false)
	recovers(t, store, rec)
	p.Hang(true)
	store.Close() // may fail, as it could tell nobody, but ends
}

// recovers waits until a store loads a record: the pool may have kept broken
// connections, and a busy machine take its time.
func recovers(t *testing.T, store session2.Store, rec session2.Record) {
	t.Helper()
	var last error
	err := until(func() (bool, error) {
		_, last = store.Load(t.Context(), rec.ID)
		return last == nil, nil
	})
	if err != nil {
		t.Errorf("after the server came back: %v: %v", err, last)
	}
}

// TestOpenSQLHungServer finds that a store of Open gets connections that hang
// out of its pool by itself, so that a small one is not used up.
func TestOpenSQLHungServer(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		p, proxied := viaProxy(t, dsn)
		table, rec := sqlTable(t.TempDir()), sqlRecord(1)
		patient := sys.patient(t, openSQL(t, sys.driver, dsn), table)
		testsite.Must(t, patient.Setup(t.Context()))
		testsite.Must(t, patient.Save(t.Context(), rec, 0))
		store := sys.opened(t, proxied, "&conns=1&timeout=300ms&table="+table)
		recovers(t, store, rec) // it has its connection
		p.Hang(true)
		bounded(t, "load", context.DeadlineExceeded, func() error {
			_, err := store.Load(t.Context(), rec.ID)
			return err
		})
		var all sync.WaitGroup
		for i := range 8 { // the pool makes connections for those who wait for one, in nobody's time
			all.Go(func() {
				time.Sleep(time.Duration(i) * hangTimeout / 8)
				for range 3 {
					store.Load(t.Context(), rec.ID)
				}
			})
		}
		all.Wait()
		if err := store.Setup(t.Context()); err == nil {
			t.Error("set up: got no error, and the server hangs")
		}
		p.Hang(false)
		recovers(t, store, rec)
	})
}

// TestSQLHeldRow finds that a statement that others hold up is waited for up to
// the timeout and no longer, and that the pool's one connection is there again.
func TestSQLHeldRow(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		table, db := sqlTable(t.TempDir()), openSQL(t, sys.driver, dsn)
		patient := sys.patient(t, db, table)
		rec := sqlRecord(1)
		testsite.Must(t, patient.Setup(t.Context()))
		testsite.Must(t, patient.Save(t.Context(), rec, 0))
		hasty := sys.opened(t, dsn, "&conns=1&timeout=300ms&table="+table)
		next := rec
		next.Version++

		tx := begin(t, db)
		testsite.Must(t, lockRow(tx, sys, table, rec.ID))
		save := func(s sqlStore) error { return s.Save(t.Context(), next, rec.Version) }
		bounded(t, "save", context.DeadlineExceeded, func() error {
			err := save(hasty)
			text := err.Error()
			if !strings.Contains(text, "no answer from the database") && !strings.Contains(text, "statement") {
				t.Errorf("got %v, want it to say who did not answer, or what the server said", err)
			}
			return err
		})
		saved := make(chan error, 1)
		go func() { saved <- save(patient) }()
		waitForLocks(t, sys, db, table, 1)
		testsite.Must(t, tx.Rollback())
		if err := <-saved; err != nil {
			t.Errorf("after a wait that was short enough: %v", err)
		}
		recovers(t, hasty, rec)
	})
}

// opened returns a store of Open, without Setup.
func (sys sqlSystem) opened(t *testing.T, dsn, options string) sqlStore {
	t.Helper()
	u := sqlURL(t, sys.name, dsn)
	u.RawQuery += options
	store, err := session2.Open(t.Context(), u.String())
	testsite.Must(t, err)
	t.Cleanup(func() { store.(sqlStore).Close() })
	return store.(sqlStore)
}

// BenchmarkSQLBounded shows what it costs to give up in time: a Load, and the
// bare query that it runs.
func BenchmarkSQLBounded(b *testing.B) {
	for _, sys := range sqlSystems {
		dsn := sys.server(b)
		db := openSQL(b, sys.driver, dsn)
		table := sqlTable(b.TempDir())
		store := sys.store(b, db, session2.SQLOptions{Table: table})
		rec := sqlRecord(1)
		testsite.Must(b, store.Setup(b.Context()))
		testsite.Must(b, store.Save(b.Context(), rec, 0))
		b.Run(sys.name, func(b *testing.B) {
			bare := bareLoad(b, db, sys, table)
			var in, out time.Duration
			for b.Loop() {
				t0 := time.Now()
				bare(rec.ID)
				t1 := time.Now()
				if _, err := store.Load(b.Context(), rec.ID); err != nil {
					b.Fatal(err)
				}
				in, out = in+t1.Sub(t0), out+time.Since(t1)
			}
			b.ReportMetric(float64(out)/float64(in), "x-bare")
		})
	}
}

// bareLoad returns a function that runs the query of Load and nothing else.
func bareLoad(b *testing.B, db *sql.DB, sys sqlSystem, table string) func(session2.ID) {
	b.Helper()
	arg := map[string]string{"postgres": "$1", "mysql": "?"}[sys.name]
	stmt, err := db.Prepare("SELECT version, username, created, accessed, expires, data" +
		" FROM " + table + " WHERE id = " + arg)
	testsite.Must(b, err)
	b.Cleanup(func() { stmt.Close() })
	return func(id session2.ID) {
		var version, created, accessed, expires int64
		var user, data []byte
		ctx, cancel := context.WithTimeout(b.Context(), 5*time.Second)
		defer cancel()
		row := stmt.QueryRowContext(ctx, id[:])
		if err := row.Scan(&version, &user, &created, &accessed, &expires, &data); err != nil {
			b.Fatal(err)
		}
	}
}
