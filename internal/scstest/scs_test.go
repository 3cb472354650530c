package scstest

import (
	"context"
	"crypto/sha256"
	"database/sql"
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
	return m.Wrap(old.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, err := m.Session(r), error(nil)
		switch id := old.GetInt(r.Context(), "userID"); {
		case id == 0:
		case s.User() == "": // the first request, or one beside it
			s.SetUser(strconv.Itoa(id))
			err = s.Commit(r.Context())
		default: // the browser has the new cookie
			err = old.Destroy(r.Context())
		}
		if err != nil {
			http.Error(w, "Please try again.", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})))
}

// logout ends both.
func logout(m *session2.Manager, old *scs.SessionManager) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, err := m.RevokeUser(r.Context(), m.Session(r).User()) // also what a request beside it has taken over
		if err == nil {
			err = old.Destroy(r.Context())
		}
		if err != nil {
			http.Error(w, "Please try again.", http.StatusServiceUnavailable)
		}
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
