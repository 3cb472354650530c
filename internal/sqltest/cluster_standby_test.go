//go:build cluster

package sqltest

import (
	"context"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
)

// waits has a primary acknowledge nothing that its standby has not got.
const waits = "synchronous_standby_names = '*'"

// openPair opens a store that goes to whichever of the servers takes writes.
func openPair(t *testing.T, options string, servers ...*testdb.Server) sqlStore {
	t.Helper()
	u, err := url.Parse(servers[0].DSN())
	testsite.Must(t, err)
	hosts, ports := "", ""
	for _, s := range servers {
		at, err := url.Parse(s.DSN())
		testsite.Must(t, err)
		hosts, ports = hosts+","+at.Hostname(), ports+","+at.Port()
	}
	u.Host = hosts[1:]
	u.RawQuery += "&target_session_attrs=read-write&port=" + ports[1:] + options
	opened, err := session2.Open(t.Context(), u.String())
	testsite.Must(t, err)
	store := opened.(sqlStore)
	t.Cleanup(func() { store.Close() })
	// The store's timeout may be short.
	testsite.Must(t, until(func() (bool, error) { return store.Setup(t.Context()) == nil, nil }))
	return store
}

// TestClusterFailover kills the primary in the middle of load.
func TestClusterFailover(t *testing.T) {
	t.Parallel()
	primary := testdb.NewPostgres(t, waits)
	standby := testdb.NewStandby(t, primary, "synchronous_standby_names = ''")
	stores := []session2.Store{
		openPair(t, "", primary, standby.Server),
		openPair(t, "&noprepare=true", primary, standby.Server),
	}
	l := newLedger(t, 3, stores...)
	stop := l.run(t, 3)
	l.await(t, 300)
	primary.Kill()
	standby.Promote()
	l.await(t, 300)
	stop()
	l.check(t, stores...)
}

// TestClusterPrimaryHangs stops the primary where it is in the middle of load:
// it takes connections, and says nothing.
func TestClusterPrimaryHangs(t *testing.T) {
	t.Parallel()
	primary := testdb.NewPostgres(t, waits)
	standby := testdb.NewStandby(t, primary, "synchronous_standby_names = ''")
	options := "&timeout=2s"
	stores := []session2.Store{
		openPair(t, options, primary, standby.Server),
		openPair(t, options+"&noprepare=true&connect_timeout=1", primary, standby.Server),
	}
	l := newLedger(t, 3, stores...)
	stop := l.run(t, 3)
	l.await(t, 300)
	primary.Pause()
	standby.Promote()
	start := time.Now()
	l.await(t, 300)
	t.Logf("clients had moved on after %v", time.Since(start))
	stop()
	l.check(t, stores...)
}

// TestClusterStandbyAway finds that what no standby has got is not
// acknowledged, also when it is asked for again: the server commits it, and
// shows it, as soon as the client has waited long enough.
func TestClusterStandbyAway(t *testing.T) {
	t.Parallel()
	primary := testdb.NewPostgres(t, waits)
	standby := testdb.NewStandby(t, primary)
	patient := openPair(t, "&timeout=-1s", primary, standby.Server)
	store := openPair(t, "&timeout=500ms", primary, standby.Server)
	ctx, created, changed, gone := t.Context(), sqlRecord(1), sqlRecord(2), sqlRecord(3)
	testsite.Must(t, patient.Save(ctx, changed, 0))
	testsite.Must(t, patient.Save(ctx, gone, 0))
	next := changed
	next.Version++

	standby.Kill()
	for range 2 {
		for what, err := range map[string]error{
			"create":  store.Save(ctx, created, 0),
			"replace": store.Save(ctx, next, changed.Version),
		} {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s without the standby: got %v, want %v", what, err, context.DeadlineExceeded)
			}
		}
	}
	if err := store.Delete(ctx, gone.ID); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("delete without the standby: got %v, want %v", err, context.DeadlineExceeded)
	}

	standby.Start()
	testsite.Must(t, patient.Save(ctx, created, 0))
	testsite.Must(t, patient.Save(ctx, next, changed.Version))
	testsite.Must(t, patient.Delete(ctx, gone.ID))
	primary.Kill()
	standby.Promote()
	alter(t, standby.Server, "ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()")
	for _, rec := range []session2.Record{created, next} {
		if got, err := patient.Load(ctx, rec.ID); err != nil || got.Version != rec.Version {
			t.Errorf("after the failover: got %v, %v, want the version %v", got.Version, err, rec.Version)
		}
	}
	if found, err := patient.Has(ctx, gone.ID); found || err != nil {
		t.Errorf("after the failover: got %v, %v, want no record", found, err)
	}
}

// TestClusterPromotedWaits shows the trap in a copied configuration: a promoted
// standby waits for a standby of its own, until it is told not to.
func TestClusterPromotedWaits(t *testing.T) {
	t.Parallel()
	primary := testdb.NewPostgres(t, waits)
	standby := testdb.NewStandby(t, primary)
	store := openPair(t, "&timeout=500ms", primary, standby.Server)
	rec := sqlRecord(1)
	primary.Kill()
	standby.Promote()
	if err := store.Save(t.Context(), rec, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a standby: got %v, want %v", err, context.DeadlineExceeded)
	}
	alter(t, standby.Server, "ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()")
	for deadline := time.Now().Add(2 * time.Minute); ; { // the server reads its configuration when it comes to it
		err := store.Save(t.Context(), rec, 0)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// TestClusterSetupOnStandby finds that Setup calls a standby no place for sessions, until it is
// promoted.
func TestClusterSetupOnStandby(t *testing.T) {
	t.Parallel()
	primary := testdb.NewPostgres(t)
	table := sqlTable(t.TempDir())
	openPostgres(t, primary.DSN(), session2.SQLOptions{Table: table})
	standby := testdb.NewStandby(t, primary)
	store := sqlSystems[0].store(t, openSQL(t, "postgres", standby.DSN()), session2.SQLOptions{Table: table})
	testsite.Must(t, until(func() (bool, error) { // it has the tables
		_, err := store.Load(t.Context(), session2.ID{1})
		return errors.Is(err, session2.ErrNotFound), nil
	}))
	refusedSetup(t, store, "the database refuses the store every INSERT, UPDATE, DELETE: ", "25006")
	standby.Promote()
	useSQL(t, store)
}

func alter(t testing.TB, s *testdb.Server, queries ...string) {
	t.Helper()
	db := openSQL(t, "postgres", s.DSN())
	for _, query := range queries {
		_, err := db.ExecContext(t.Context(), query)
		testsite.Must(t, err)
	}
}
