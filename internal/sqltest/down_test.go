package sqltest

import (
	"database/sql"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/faultproxy"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
)

// downTimeout is the store's and the commit's in these tests. A request may need
// each once.
const downTimeout = 400 * time.Millisecond

// outage is an application over a server that fails in several ways.
type outage struct {
	*testsite.Site
	name string
	b    *testsite.Browser
	log  *testsite.Log
	p    *faultproxy.Proxy
	hits int // how often the handler's counter was acknowledged

	password string // the server's
}

// TestSQLOutage takes applications through the outages of their server: what
// needs the session gets a clean 503 in time, what does not is served, and
// afterwards all goes on with the store, the pool and the prepared statements as
// they are.
func TestSQLOutage(t *testing.T) {
	t.Parallel()
	for _, sys := range sqlSystems {
		t.Run(sys.name, func(t *testing.T) {
			t.Parallel()
			srv := sys.private(t)
			outages{
				newOutage(t, sys, srv, "a store of Open", openedSQLStore),
				newOutage(t, sys, srv, "a pool of the caller's", plainSQLStore),
				newOutage(t, sys, srv, "a pool that keeps many", keptSQLStore),
			}.run(t, srv)
		})
	}
}

func openedSQLStore(t *testing.T, sys sqlSystem, dsn, table string) sqlStore {
	return sys.opened(t, dsn, "&timeout="+downTimeout.String()+"&table="+table)
}

func plainSQLStore(t *testing.T, sys sqlSystem, dsn, table string) sqlStore {
	return sys.store(t, openSQL(t, sys.driver, dsn), session2.SQLOptions{Table: table, Timeout: downTimeout})
}

// keptSQLStore has a pool of which no connection is closed for being idle, so that
// all of them are broken after an outage.
func keptSQLStore(t *testing.T, sys sqlSystem, dsn, table string) sqlStore {
	const conns = 20
	db := openSQL(t, sys.driver, dsn)
	db.SetMaxIdleConns(conns)
	store := sys.store(t, db, session2.SQLOptions{Table: table, Timeout: downTimeout})
	for range conns {
		defer connect(t, db).Close()
	}
	return store
}

func connect(t *testing.T, db *sql.DB) *sql.Conn {
	t.Helper()
	c, err := db.Conn(t.Context())
	testsite.Must(t, err)
	return c
}

type sqlOpener func(t *testing.T, sys sqlSystem, dsn, table string) sqlStore

// newOutage makes an application with a session, which another manager made: that
// one has time.
func newOutage(t *testing.T, sys sqlSystem, srv *testdb.Server, name string, open sqlOpener) *outage {
	p := faultproxy.New(t, srv.Addr())
	table := sqlTable(t.TempDir())
	patient := sys.patient(t, openSQL(t, sys.driver, srv.DSN()), table)
	testsite.Must(t, patient.Setup(t.Context()))
	b := testsite.NewSite(t, patient, session2.Config{CommitTimeout: time.Hour}).Login("alice")
	store := open(t, sys, strings.Replace(srv.DSN(), srv.Addr(), p.Addr(), 1), table)
	t.Cleanup(func() { p.Cut() }) // lib/pq would wait for good when the pool is closed
	log := &testsite.Log{}
	st := testsite.NewSite(t, store, session2.Config{CommitTimeout: downTimeout, Logger: log.Logger()})
	password, _ := sqlURL(t, sys.name, srv.DSN()).User.Password()
	return &outage{Site: st, name: name, b: b, log: log, p: p, password: password}
}

// outages are applications that go through the same.
type outages []*outage

func (list outages) run(t *testing.T, srv *testdb.Server) {
	list.each((*outage).burst)
	list.work("at first")
	srv.Kill()
	list.fail("killed")
	srv.Start()
	list.work("after the crash")

	srv.Stop()
	list.fail("stopped")
	srv.Start()
	list.work("after the restart")

	srv.Pause()
	list.fail("paused")
	srv.Resume()
	list.work("after the pause")

	list.each((*outage).burst)
	list.each(func(o *outage) { o.p.Hang(true) })
	list.fail("out of reach")
	list.each(func(o *outage) { o.p.Hang(false) })
	list.work("within reach again")
	list.each((*outage).discreet)
}

func (list outages) each(f func(o *outage)) {
	var wg sync.WaitGroup
	for _, o := range list {
		wg.Go(func() { f(o) })
	}
	wg.Wait()
}

func (list outages) work(when string) { list.each(func(o *outage) { o.works(o.name + ", " + when) }) }

func (list outages) fail(when string) { list.each(func(o *outage) { o.fails(o.name + ", " + when) }) }

// discreet checks that nothing of all that put a secret into the log.
func (o *outage) discreet() {
	log := o.log.String()
	if !strings.Contains(log, "status=503") {
		o.T.Errorf("%s: the log says nothing", o.name)
	}
	for what, secret := range map[string]string{"verifier": o.b.Token()[33:], "page": thePage, "password": o.password} {
		if strings.Contains(log, secret) {
			o.T.Errorf("%s: the log has the %s", o.name, what)
		}
	}
}

// burst fills the pool.
func (o *outage) burst() {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 3 {
				o.Store.Load(o.T.Context(), session2.ID{})
			}
		})
	}
	wg.Wait()
}

const thePage = "what the handler wrote"

// serve serves one request, by a handler that writes its page before it is
// known whether the session can be stored.
func (o *outage) serve(path string) *http.Response {
	r := httptest.NewRequest("GET", path, nil)
	o.b.Send(r)
	w := httptest.NewRecorder()
	o.M.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Page", thePage)
		http.SetCookie(w, &http.Cookie{Name: "theirs", Value: "1"})
		if r.URL.Path == "/session" {
			increment(o.M.Session(r))
		}
		w.Write([]byte(thePage))
	})).ServeHTTP(w, r)
	return w.Result()
}

// works waits until requests are served, and checks that none that was answered is
// lost. Connections that were kept are found out one by one, and a busy machine
// exceeds the timeout on its own.
func (o *outage) works(when string) {
	o.T.Helper()
	status := 0
	if err := until(func() (bool, error) {
		status = o.serve("/session").StatusCode
		return status == http.StatusOK, nil
	}); err != nil {
		o.T.Errorf("%s: status %d: %v", when, status, err)
		return
	}
	o.hits++
	n, _ := counted(o.Site, o.b)
	if n < o.hits {
		o.T.Errorf("%s: counted %d, and %d were acknowledged", when, n, o.hits)
	}
	o.hits = n // more, where one had landed whose answer was lost
}

// fails checks that requests that need the session are refused in time, and
// those that do not are served.
func (o *outage) fails(when string) {
	o.T.Helper()
	for range 3 {
		start := time.Now()
		res := o.serve("/session")
		if d := time.Since(start); d > time.Minute { // what it takes beyond its timeouts depends on the machine
			o.T.Errorf("%s: answered after %v", when, d)
		}
		if res.StatusCode != http.StatusServiceUnavailable || body(res) != "Service Unavailable\n" ||
			res.Header["Set-Cookie"] != nil || res.Header["X-Page"] != nil {
			o.T.Errorf("%s: status %d, header %v; want a clean 503", when, res.StatusCode, res.Header)
		}
	}
	if res := o.serve("/public"); res.StatusCode != http.StatusOK || body(res) != thePage {
		o.T.Errorf("%s: a request without a session: status %d", when, res.StatusCode)
	}
}

func body(res *http.Response) string {
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
