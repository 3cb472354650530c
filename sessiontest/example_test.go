package sessiontest_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/sessiontest"
)

// t is the test's; it is here because these are examples.
var t testing.TB = &exampleTB{}

type exampleTB struct{ testing.TB }

func (*exampleTB) Helper() {}

// app is an application: pages behind a manager.
func app(store session2.Store) (*session2.Manager, http.Handler) {
	m, err := session2.NewManager(store, session2.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /account", func(w http.ResponseWriter, r *http.Request) {
		if m.Session(r).User() == "" {
			http.Error(w, "please log in", http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, "hello %s", m.Session(r).User())
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) { m.Session(r).Destroy() })
	return m, m.Wrap(mux)
}

// A page that needs somebody signed in.
func ExampleRequest() {
	m, handler := app(session2.NewMemoryStore())

	r := sessiontest.Request(t, m, httptest.NewRequest("GET", "/account", nil), func(s *session2.Session) {
		s.SetUser("alice")
	})
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)
	// Output: 200 hello alice
}

// What a response has left of the session.
func ExampleAfter() {
	m, handler := app(session2.NewMemoryStore())

	r := sessiontest.Request(t, m, httptest.NewRequest("POST", "/logout", nil), func(s *session2.Session) {
		s.SetUser("alice")
	})
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	s := sessiontest.After(t, m, r, w.Result())
	fmt.Printf("%d, user %q\n", w.Code, s.User())
	// Output: 200, user ""
}

// One request after the other, as a browser sends them.
func ExampleNext() {
	m, handler := app(session2.NewMemoryStore())

	r := sessiontest.Request(t, m, httptest.NewRequest("POST", "/logout", nil), func(s *session2.Session) {
		s.SetUser("alice")
	})
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)

	next := sessiontest.Next(r, w.Result(), httptest.NewRequest("GET", "/account", nil))
	w = httptest.NewRecorder()
	handler.ServeHTTP(w, next)
	fmt.Print(w.Code, " ", w.Body)
	// Output: 401 please log in
}

// What the application does when its store is down.
func ExampleNewStore() {
	store := sessiontest.NewStore(session2.NewMemoryStore())
	m, handler := app(store)

	r := sessiontest.Request(t, m, httptest.NewRequest("GET", "/account", nil), func(s *session2.Session) {
		s.SetUser("alice")
	})
	store.Fail(errors.New("the database is gone"), "Load")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	fmt.Println(w.Code)

	store.Fail(nil)
	w = httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	fmt.Println(w.Code)
	// Output:
	// 503
	// 200
}
