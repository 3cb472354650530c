package frameworks

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/sessiontest"
)

// The store of the environment holds the sessions of a strict manager, and the handler is
// tested without a server.
func TestAStrictManagerOverTheStoreOfTheEnvironment(t *testing.T) {
	t.Setenv("SESSION2_STORE", "memory:")
	store, err := fromEnvironment(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m, err := strict(store)
	if err != nil {
		t.Fatal(err)
	}
	h := m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, m.Session(r).User())
		m.Session(r).Flash("Seen.")
	}))

	r := httptest.NewRequest("GET", "https://example.com/account", nil)
	r = sessiontest.Request(t, m, r, func(s *session2.Session) { s.SetUser("alice") })
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	s := sessiontest.After(t, m, r, w.Result())
	if w.Body.String() != "alice" || s.User() != "alice" || fmt.Sprint(s.Flashes()) != "[Seen.]" {
		t.Errorf("%q, then %v", w.Body, s)
	}
	if err := serve("nowhere:-1", "", "", m, h); err == nil {
		t.Error("it serves at no address")
	}
}

// A session that begins behind nginx is listed with its client's address.
func TestTheAddressBehindNginx(t *testing.T) {
	m := manager(t, session2.Config{})
	b := open(t, behindNginx(netHTTP(m)))
	b.send("POST", "/login", "X-Real-IP", "192.0.2.1")
	for info, err := range m.Sessions(t.Context(), "alice") {
		if err != nil || !strings.Contains(info.RemoteAddr, "192.0.2.1") {
			t.Errorf("%q, %v", info.RemoteAddr, err)
		}
	}
}
