//go:build cluster

package sqltest

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
	"github.com/session2/session2/storetest"
)

// synced makes a node's connections wait, before each SELECT, UPDATE and DELETE,
// for all that was committed on another node before. See docs/SCALING.md.
const synced = "set.wsrep_sync_wait=3"

// galera is a cluster, of which child processes of the test know the addresses.
type galera struct {
	*testdb.Galera // nil in a child
	dsns           []string
}

func newGalera(t *testing.T) galera {
	t.Helper()
	const env = "SESSION2_TEST_GALERA"
	if list := os.Getenv(env); list != "" {
		return galera{dsns: strings.Fields(list)}
	}
	g := galera{Galera: testdb.NewGalera(t)}
	for _, node := range g.Nodes {
		g.dsns = append(g.dsns, node.DSN())
	}
	t.Setenv(env, strings.Join(g.dsns, " "))
	return g
}

// stores returns a store on each node, over one table.
func (g galera) stores(t testing.TB, options string) []session2.Store {
	t.Helper()
	table := sqlTable(t.TempDir())
	var stores []session2.Store
	for _, dsn := range g.dsns {
		cfg, err := mysql.ParseDSN(dsn)
		testsite.Must(t, err)
		u := url.URL{Scheme: "mysql", Host: cfg.Addr, Path: "/" + cfg.DBName}
		u.User = url.UserPassword(cfg.User, cfg.Passwd)
		u.RawQuery = "table=" + table + "&" + options
		store, err := session2.Open(t.Context(), u.String())
		testsite.Must(t, err)
		t.Cleanup(func() { store.(sqlStore).Close() })
		testsite.Must(t, store.(sqlStore).Setup(t.Context()))
		stores = append(stores, store)
	}
	return stores
}

// TestClusterGalera has its tests share a cluster.
func TestClusterGalera(t *testing.T) {
	g := newGalera(t)
	t.Run("one node keeps the contract", func(t *testing.T) { galeraConformance(t, g) })
	t.Run("nothing is lost among three nodes", func(t *testing.T) { galeraCounter(t, g) })
	t.Run("no change of a session is lost among three nodes", func(t *testing.T) { galeraManagers(t, g) })
	t.Run("a logout holds on every node at once", func(t *testing.T) { galeraLogout(t, g) })
	t.Run("a logout holds of a session that began on another node", func(t *testing.T) { galeraLogoutOfNew(t, g) })
	t.Run("without wsrep_sync_wait it does not", func(t *testing.T) { galeraStale(t, g) })
	t.Run("a stale node overwrites nothing", func(t *testing.T) { galeraStaleSave(t, g) })
	t.Run("a node that is behind takes a change of what it does not know yet", func(t *testing.T) {
		galeraSaveAhead(t, g)
	})
	t.Run("a change that is too large for the cluster is refused", func(t *testing.T) { galeraTooLarge(t, g) })
	t.Run("nothing is lost when a node hangs and returns", func(t *testing.T) { galeraHang(t, g) })
	t.Run("nothing is lost when a node dies and returns", func(t *testing.T) { galeraKill(t, g) })
	t.Run("nothing is lost when all nodes die and return", func(t *testing.T) { galeraKillAll(t, g) })
}

func galeraConformance(t *testing.T, g galera) {
	storetest.Run(t, func(t testing.TB, dir string) session2.Store {
		return openMySQL(t, g.dsns[0], session2.SQLOptions{Table: sqlTable(dir)})
	}, nil)
}

func galeraCounter(t *testing.T, g galera) {
	stores := g.stores(t, synced)
	l := newLedger(t, 1, stores...)
	before := g.conflicts(t)
	stop := l.run(t, 2)
	l.await(t, 300)
	testsite.Must(t, until(func() (bool, error) { return g.conflicts(t) > before, nil })) // else this shows nothing
	stop()
	l.check(t, stores...)
}

// conflicts returns how many statements lost against one of another node:
// before they were sent to the others, or after.
func (g galera) conflicts(t testing.TB) (total int) {
	t.Helper()
	for _, dsn := range g.dsns {
		var failures, aborts int
		row := openSQL(t, "mysql", dsn).QueryRow(`SELECT
(SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'wsrep_local_cert_failures'),
(SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'wsrep_local_bf_aborts')`)
		testsite.Must(t, row.Scan(&failures, &aborts))
		total += failures + aborts
	}
	return total
}

// galeraManagers has requests on all nodes change one session.
func galeraManagers(t *testing.T, g galera) {
	const each, rounds = 3, 10
	stores := g.stores(t, synced)
	var managers []*session2.Manager
	for _, store := range stores {
		m, err := session2.NewManager(store, session2.Config{})
		testsite.Must(t, err)
		managers = append(managers, m)
	}
	key := session2.NewKey[int]("n")
	s, err := managers[0].Open(t.Context(), "")
	testsite.Must(t, err)
	key.Set(s, 0)
	testsite.Must(t, s.Commit(t.Context()))
	token := s.Token()
	var wg sync.WaitGroup
	for i := range each * len(managers) {
		wg.Go(func() {
			for range rounds {
				if err := addOne(t.Context(), managers[i%len(managers)], token, key); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i, m := range managers {
		s, err := m.Open(t.Context(), token)
		testsite.Must(t, err)
		if n, _ := key.Get(s); n != each*rounds*len(managers) {
			t.Errorf("node %d: got %d, want %d", i, n, each*rounds*len(managers))
		}
	}
}

// addOne is a request. One that came too late each time has changed nothing.
func addOne(ctx context.Context, m *session2.Manager, token string, key session2.Key[int]) error {
	for {
		s, err := m.Open(ctx, token)
		if err != nil {
			return err
		}
		key.Update(s, func(n int) int { return n + 1 })
		if err := s.Commit(ctx); !errors.Is(err, session2.ErrConflict) {
			return err
		}
	}
}

// stall keeps node 1 from applying what the others commit, until the function
// that it returns is called: the next change there is to a table that a
// connection of node 1 has locked. The store's own table stays free.
func (g galera) stall(t *testing.T) (resume func()) {
	t.Helper()
	table := sqlTable(t.TempDir())
	far, near := openSQL(t, "mysql", g.dsns[0]), openSQL(t, "mysql", g.dsns[1]+"?wsrep_sync_wait=3")
	exec := func(db interface {
		ExecContext(context.Context, string, ...any) (sql.Result, error)
	}, query string) {
		t.Helper()
		_, err := db.ExecContext(t.Context(), query)
		testsite.Must(t, err)
	}
	exec(far, "CREATE TABLE "+table+" (n int PRIMARY KEY)")
	conn, err := near.Conn(t.Context())
	testsite.Must(t, err)
	var n int
	testsite.Must(t, conn.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n)) // the table is there
	exec(conn, "LOCK TABLES "+table+" READ")
	exec(far, "INSERT INTO "+table+" VALUES (1)")
	return sync.OnceFunc(func() {
		exec(conn, "UNLOCK TABLES")
		testsite.Must(t, conn.Close())
	})
}

// galeraPair returns a store on node 0, and one on node 1 over the same table, which
// does not apply what node 0 commits until resume is called.
func galeraPair(
	t *testing.T, g galera, params string, recs ...session2.Record,
) (far, near session2.Store, resume func()) {
	t.Helper()
	stores := g.stores(t, params)
	for _, rec := range recs {
		testsite.Must(t, stores[0].Save(t.Context(), rec, 0))
		for { // without wsrep_sync_wait it may not be there yet
			if found, err := stores[1].Has(t.Context(), rec.ID); err != nil || found {
				testsite.Must(t, err)
				break
			}
		}
	}
	return stores[0], stores[1], g.stall(t)
}

// later runs f while node 1 is stalled, and then lets it go on. It returns
// whether f had ended before.
func later(resume func(), f func()) (before bool) {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
		before = true
	case <-time.After(300 * time.Millisecond):
	}
	resume()
	<-done
	return before
}

// galeraLogout deletes on one node, and looks on another.
func galeraLogout(t *testing.T, g galera) {
	rec := sqlRecord(1)
	far, near, resume := galeraPair(t, g, synced, rec)
	testsite.Must(t, far.Delete(t.Context(), rec.ID))
	var found bool
	var err error
	if later(resume, func() { found, err = near.Has(t.Context(), rec.ID) }) {
		t.Error("the node answered before it had applied the logout")
	}
	if found || err != nil {
		t.Errorf("logged out on node 0: got %v, %v on node 1, want false", found, err)
	}
}

// galeraLogoutOfNew deletes on one node what was just created on another.
func galeraLogoutOfNew(t *testing.T, g galera) {
	rec := sqlRecord(1)
	far, near, resume := galeraPair(t, g, synced)
	testsite.Must(t, far.Save(t.Context(), rec, 0))
	var err error
	if later(resume, func() { err = near.Delete(t.Context(), rec.ID) }) {
		t.Error("the node answered before it had applied the login")
	}
	testsite.Must(t, err)
	if found, err := far.Has(t.Context(), rec.ID); found || err != nil {
		t.Errorf("logged out on node 1: got %v, %v on node 0, want false", found, err)
	}
}

// galeraStale shows what wsrep_sync_wait is for.
func galeraStale(t *testing.T, g galera) {
	old, fresh := sqlRecord(1), sqlRecord(2)
	far, near, resume := galeraPair(t, g, "", old)
	testsite.Must(t, far.Delete(t.Context(), old.ID))
	testsite.Must(t, far.Save(t.Context(), fresh, 0))
	if found, err := near.Has(t.Context(), old.ID); !found || err != nil {
		t.Errorf("logged out on node 0: got %v, %v on node 1, want true", found, err)
	}
	testsite.Must(t, near.Delete(t.Context(), fresh.ID))
	resume()
	if found, err := far.Has(t.Context(), fresh.ID); !found || err != nil {
		t.Errorf("logged out on node 1, which did not know the session: got %v, %v on node 0, want true", found, err)
	}
}

// galeraStaleSave saves on a node that is behind. The cluster compares what
// transactions wrote, and lets the first one through: no version is replaced
// but the one that was meant.
func galeraStaleSave(t *testing.T, g galera) {
	for _, params := range []string{"", synced} {
		changed, gone, fresh := sqlRecord(1), sqlRecord(2), sqlRecord(3)
		far, near, resume := galeraPair(t, g, params, changed, gone)
		theirs, mine, after := changed, changed, changed
		theirs.Version, mine.Version, after.Version = 11, 12, 13
		testsite.Must(t, far.Save(t.Context(), theirs, changed.Version))
		testsite.Must(t, far.Delete(t.Context(), gone.ID))
		testsite.Must(t, far.Save(t.Context(), fresh, 0))
		late, second := gone, fresh
		late.Version, second.Version = 14, 15
		var err, errGone, errFresh error
		later(resume, func() {
			err = near.Save(t.Context(), mine, changed.Version)
			errGone = near.Save(t.Context(), late, gone.Version)
			errFresh = near.Save(t.Context(), second, 0)
		})
		for i, got := range []error{err, errGone, errFresh} {
			want := []error{session2.ErrConflict, session2.ErrNotFound, session2.ErrConflict}[i]
			if got == nil || params == synced && !errors.Is(got, want) { // without, it may give up first
				t.Errorf("save %d with %q: got %v, want %v", i, params, got, want)
			}
		}
		testsite.Must(t, near.Save(t.Context(), after, theirs.Version))
		if found, err := near.Has(t.Context(), gone.ID); found || err != nil {
			t.Errorf("with %q: got %v, %v, want false", params, found, err)
		}
	}
}

// galeraSaveAhead replaces, on a node that is behind, what it does not know
// yet.
func galeraSaveAhead(t *testing.T, g galera) {
	rec, next := sqlRecord(1), sqlRecord(1)
	next.Version++
	far, near, resume := galeraPair(t, g, synced)
	testsite.Must(t, far.Save(t.Context(), rec, 0))
	var err error
	later(resume, func() { err = near.Save(t.Context(), next, rec.Version) })
	testsite.Must(t, err)
}

// galeraTooLarge saves more than nodes send to one another.
func galeraTooLarge(t *testing.T, g galera) {
	store, db := g.stores(t, synced)[0], openSQL(t, "mysql", g.dsns[0])
	_, err := db.Exec("SET GLOBAL wsrep_max_ws_size = 20000")
	testsite.Must(t, err)
	defer db.Exec("SET GLOBAL wsrep_max_ws_size = 2147483647")
	rec := sqlRecord(1)
	rec.Data = make([]byte, 100000)
	if err := store.Save(t.Context(), rec, 0); !errors.Is(err, session2.ErrTooLarge) {
		t.Errorf("got %v, want %v", err, session2.ErrTooLarge)
	}
}

// galeraKill kills a node in the middle of load.
func galeraKill(t *testing.T, g galera) {
	stores := g.stores(t, synced)
	l := newLedger(t, 8, stores...)
	stop := l.run(t, 2)
	l.await(t, 100)
	g.Nodes[1].Kill()
	away(t, stores[1])
	l.await(t, 100)
	g.Nodes[1].Start()
	l.await(t, 100)
	stop()
	l.check(t, stores...)
}

// galeraKillAll kills all nodes in the middle of load, as a power failure would.
func galeraKillAll(t *testing.T, g galera) {
	stores := g.stores(t, synced)
	l := newLedger(t, 8, stores...)
	stop := l.run(t, 2)
	l.await(t, 200)
	g.Kill()
	away(t, stores[1])
	g.Start()
	l.await(t, 100)
	stop()
	l.check(t, stores...)
}

// away finds that a store's node does not answer.
func away(t *testing.T, store session2.Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := store.Has(ctx, session2.ID{}); err == nil {
		t.Error("a node that is away answers")
	}
}

// galeraHang stops a node for so long that the others go on without it.
func galeraHang(t *testing.T, g galera) {
	stores := g.stores(t, synced)
	l := newLedger(t, 8, stores...)
	stop := l.run(t, 2)
	l.await(t, 100)
	g.Nodes[1].Pause()
	away(t, stores[1])
	l.await(t, 100)
	g.Nodes[1].Resume()
	for {
		l.await(t, 50)
		if g.Nodes[1].Ended() { // a node that cannot catch up ends itself
			g.Nodes[1].Start()
		}
		if _, err := stores[1].Load(t.Context(), l.ids[0]); err == nil {
			break
		}
	}
	l.await(t, 100)
	stop()
	l.check(t, stores...)
}
