package scstest

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/alexedwards/scs/mysqlstore"
	"github.com/alexedwards/scs/postgresstore"
	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
	"github.com/session2/session2/storetest"
)

func TestMain(m *testing.M) { testdb.Main(m) }

func TestMemory(t *testing.T) {
	storetest.Run(t, func(testing.TB, string) session2.Store {
		return session2.FromSCS(memstore.NewWithCleanupInterval(0))
	}, nil)
}

// name is that of a schema for what is kept under dir.
func name(dir string) string { return fmt.Sprintf("s_%x", sha256.Sum256([]byte(dir)))[:30] }

// open opens a pool with the table that scs's documentation shows.
func open(t testing.TB, driver, dsn string, setup ...string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	testsite.Must(t, err)
	t.Cleanup(func() { db.Close() })
	for _, text := range setup {
		_, err := db.ExecContext(t.Context(), text)
		testsite.Must(t, err)
	}
	return db
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	dsn := testdb.Postgres(t)
	storetest.Run(t, func(t testing.TB, dir string) session2.Store {
		sep := "?"
		if strings.Contains(dsn, "?") {
			sep = "&"
		}
		db := open(t, "postgres", dsn+sep+"search_path="+name(dir), "CREATE SCHEMA IF NOT EXISTS "+name(dir),
			"CREATE TABLE IF NOT EXISTS sessions (token TEXT PRIMARY KEY, data BYTEA NOT NULL, expiry TIMESTAMPTZ NOT NULL)")
		return session2.FromSCS(postgresstore.NewWithCleanupInterval(db, 0))
	}, nil)
}

func TestMySQL(t *testing.T) {
	t.Parallel()
	dsn := testdb.MySQL(t)
	storetest.Run(t, func(t testing.TB, dir string) session2.Store {
		open(t, "mysql", dsn, "CREATE DATABASE IF NOT EXISTS "+name(dir))
		db := open(t, "mysql", inDatabase(dsn, name(dir)), "CREATE TABLE IF NOT EXISTS sessions "+
			"(token CHAR(43) PRIMARY KEY, data LONGBLOB NOT NULL, expiry TIMESTAMP(6) NOT NULL)")
		return session2.FromSCS(mysqlstore.NewWithCleanupInterval(db, 0))
	}, nil)
}

// inDatabase returns a DSN for another database, with times as scs needs them.
func inDatabase(dsn, database string) string {
	at := strings.LastIndex(dsn, "/")
	_, params, _ := strings.Cut(dsn[at:], "?")
	return dsn[:at+1] + database + "?parseTime=true&" + params
}

// takeOver signs in whom scs has signed in, and ends that session when the browser comes back.
func takeOver(m *session2.Manager, old *scs.SessionManager, next http.Handler) http.Handler {
	return m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := m.Session(r)
		before, id, err := formerly(old, r)
		switch {
		case err != nil || id == 0:
		case s.User() == "": // the first request, or one beside it
			s.SetUser(strconv.Itoa(id))
			if err = s.Commit(r.Context()); err != nil {
				break
			}
			if _, now, lookErr := formerly(old, r); now != id { // there was a logout meanwhile
				s.Destroy()
				err = errors.Join(lookErr, s.Commit(r.Context()))
			}
		default: // the browser has the new cookie
			err = old.Destroy(before)
		}
		if err != nil {
			http.Error(w, "Please try again.", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	}))
}

// formerly returns the context of the old session, if there is one, and whom it signs in.
func formerly(old *scs.SessionManager, r *http.Request) (ctx context.Context, id int, err error) {
	c, err := r.Cookie(old.Cookie.Name)
	if err != nil {
		return nil, 0, nil
	}
	ctx, err = old.Load(r.Context(), c.Value) // and no LoadAndSave, which may save it after a logout
	if err == nil {
		id = old.GetInt(ctx, "userID")
	}
	return ctx, id, err
}

// logout ends both.
func logout(m *session2.Manager, old *scs.SessionManager) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := m.Session(r)
		before, id, err := formerly(old, r)
		if id != 0 {
			err = old.Destroy(before) // first, so that no request takes over any more
		}
		if err == nil {
			_, err = m.RevokeUser(r.Context(), s.User()) // also what one beside it has taken over
		}
		if err != nil {
			http.Error(w, "Please try again.", http.StatusServiceUnavailable)
			return
		}
		s.Destroy()
	}
}

// Who was signed in stays signed in, and a logout is one.
func TestTakeOver(t *testing.T) {
	old := scs.New()
	m, err := session2.NewManager(session2.NewMemoryStore(), session2.Config{Logger: slog.New(slog.DiscardHandler)})
	testsite.Must(t, err)
	before := http.NewServeMux()
	before.HandleFunc("/login", func(_ http.ResponseWriter, r *http.Request) { old.Put(r.Context(), "userID", 7) })
	now := http.NewServeMux()
	now.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "user "+m.Session(r).User()) })
	now.HandleFunc("/logout", logout(m, old))
	inside, finish := make(chan bool), make(chan bool)
	now.HandleFunc("/slow", func(http.ResponseWriter, *http.Request) { inside <- true; <-finish })
	var h http.Handler = old.LoadAndSave(before)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(w, r) }))
	defer srv.Close()
	c := srv.Client()
	c.Jar, _ = cookiejar.New(nil)
	get := func(path string) string {
		res, err := c.Get(srv.URL + path)
		testsite.Must(t, err)
		defer res.Body.Close()
		b := make([]byte, 100)
		n, _ := res.Body.Read(b)
		return string(b[:n])
	}
	get("/login")
	h = takeOver(m, old, now)
	for _, want := range []string{"user 7", "user 7"} {
		if got := get("/"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	get("/logout")
	if got := get("/"); got != "user " {
		t.Errorf("after the logout: got %q", got)
	}

	h = old.LoadAndSave(before)
	get("/login")
	h = takeOver(m, old, now)
	var slow sync.WaitGroup
	slow.Go(func() { get("/slow") }) // its first request, and then it logs out
	<-inside
	get("/logout")
	finish <- true
	slow.Wait()
	if got := get("/"); got != "user " {
		t.Errorf("after a logout beside the first request: got %q", got)
	}
}

// slowSCS and slowStore call before first.
type slowSCS struct {
	*memstore.MemStore
	before func()
}

func (s *slowSCS) Delete(token string) error { s.before(); return s.MemStore.Delete(token) }

type slowStore struct {
	*session2.MemoryStore
	before func()
}

func (s *slowStore) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	s.before()
	return s.MemoryStore.Save(ctx, rec, prev)
}

// A logout is one whatever a request beside it does, which has the old cookie alone: it takes
// over in the middle of the logout, or the logout comes in the middle of its taking over.
func TestTakeOverBesideALogout(t *testing.T) {
	for name, order := range map[string][2]string{
		"takes over meanwhile": {"/logout", "/"}, "logged out meanwhile": {"/", "/logout"},
	} {
		t.Run(name, func(t *testing.T) {
			var beside func()
			once := func() {
				if f := beside; f != nil {
					beside = nil
					f()
				}
			}
			old, store := scs.New(), &slowStore{session2.NewMemoryStore(), func() {}}
			place := &slowSCS{memstore.NewWithCleanupInterval(0), func() {}}
			old.Store = place
			if order[0] == "/logout" {
				place.before = once
			} else {
				store.before = once
			}
			m, err := session2.NewManager(store, session2.Config{Logger: slog.New(slog.DiscardHandler)})
			testsite.Must(t, err)
			now := http.NewServeMux()
			now.HandleFunc("/", func(http.ResponseWriter, *http.Request) {})
			now.HandleFunc("/logout", logout(m, old))
			h := takeOver(m, old, now)
			ctx, err := old.Load(t.Context(), "")
			testsite.Must(t, err)
			old.Put(ctx, "userID", 7)
			token, _, err := old.Commit(ctx)
			testsite.Must(t, err)
			send := func(path string) {
				r := httptest.NewRequest("GET", "https://example.com"+path, nil)
				r.AddCookie(&http.Cookie{Name: "session", Value: token})
				h.ServeHTTP(httptest.NewRecorder(), r)
			}
			beside = func() { send(order[1]) }
			send(order[0])
			if beside != nil {
				t.Fatal("nothing was sent meanwhile")
			}
			for info := range m.Sessions(t.Context(), "7") {
				t.Errorf("after the logout there is the session %v", info.ID)
			}
		})
	}
}

// The store of a database that scs has used.
func fromSCS(db *sql.DB) http.Handler {
	store := session2.FromSCS(postgresstore.New(db))
	m, err := session2.NewManager(store, session2.Config{})
	if err != nil {
		panic(err)
	}
	return m.Wrap(http.NotFoundHandler())
}

var _ = fromSCS

// What docs/MIGRATING.md says of a place of its own: scs cannot decode what FromSCS keeps
// beside its sessions, and its Iterate ends there. Its other calls do not meet them.
func TestIterateOfSCSNeedsAPlaceOfItsOwn(t *testing.T) {
	for _, shared := range []bool{true, false} {
		old := scs.New()
		place := memstore.NewWithCleanupInterval(0)
		old.Store = place
		if !shared {
			place = memstore.NewWithCleanupInterval(0)
		}
		m, err := session2.NewManager(session2.FromSCS(place), session2.Config{Logger: slog.New(slog.DiscardHandler)})
		testsite.Must(t, err)
		s, err := m.Open(t.Context(), "")
		testsite.Must(t, err)
		s.SetUser("alice")
		testsite.Must(t, s.Commit(t.Context()))

		ctx, err := old.Load(t.Context(), "")
		testsite.Must(t, err)
		old.Put(ctx, "userID", 7)
		_, _, err = old.Commit(ctx)
		testsite.Must(t, err)
		found := 0
		err = old.Iterate(t.Context(), func(ctx context.Context) error {
			found += old.GetInt(ctx, "userID")
			return nil
		})
		if shared != (err != nil) || !shared && found != 7 {
			t.Errorf("a shared place: %v; Iterate returns %v and has found %d", shared, err, found)
		}
	}
}
