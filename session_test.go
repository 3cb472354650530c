package session2_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/session2/session2"
)

// site is a manager over a store, and what its handlers do.
type site struct {
	t      testing.TB
	m      *session2.Manager
	store  session2.Store
	events *eventLog
}

func newSite(t testing.TB, store session2.Store, cfg session2.Config) *site {
	t.Helper()
	log := &eventLog{}
	cfg.OnEvent = log.add
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := session2.NewManager(store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &site{t, m, store, log}
}

type eventLog struct {
	mu   sync.Mutex
	list []session2.Event
}

func (l *eventLog) add(_ context.Context, e session2.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, e)
}

func (l *eventLog) count(k session2.EventKind) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.list {
		if e.Kind == k {
			n++
		}
	}
	return n
}

// visit serves one request with the browser's cookies and lets it take the
// answer's.
func (st *site) visit(b *browser, f func(s *session2.Session, w http.ResponseWriter, r *http.Request)) *http.Response {
	st.t.Helper()
	r := httptest.NewRequest("GET", "https://example.com/", nil)
	b.send(r)
	w := httptest.NewRecorder()
	st.m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f(st.m.Session(r), w, r)
	})).ServeHTTP(w, r)
	res := w.Result()
	b.receive(res)
	return res
}

func (st *site) do(b *browser, f func(s *session2.Session)) *http.Response {
	st.t.Helper()
	return st.visit(b, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { f(s) })
}

// browser keeps one cookie, as a browser would.
type browser struct {
	mu     sync.Mutex
	cookie *http.Cookie
}

func (b *browser) send(r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cookie != nil {
		r.AddCookie(&http.Cookie{Name: b.cookie.Name, Value: b.cookie.Value})
	}
}

func (b *browser) receive(res *http.Response) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range res.Cookies() {
		if c.MaxAge < 0 {
			b.cookie = nil
		} else {
			b.cookie = c
		}
	}
}

func (b *browser) token() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cookie == nil {
		return ""
	}
	return b.cookie.Value
}

func (b *browser) clone() *browser {
	b.mu.Lock()
	defer b.mu.Unlock()
	return &browser{cookie: b.cookie}
}

var counter = session2.NewKey[int]("counter")

func TestSessionPersists(t *testing.T) {
	st := newSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &browser{}
	st.do(b, func(s *session2.Session) {
		if !s.IsNew() {
			t.Error("a first request's session is not new")
		}
		s.SetUser("alice")
		s.Set("color", "green")
	})
	if b.cookie == nil {
		t.Fatal("no cookie after a login")
	}
	st.do(b, func(s *session2.Session) {
		if got := s.User(); got != "alice" {
			t.Errorf("User() = %q, want alice", got)
		}
		if got := s.Get("color"); got != "green" {
			t.Errorf("Get(color) = %v, want green", got)
		}
		s.Destroy()
	})
	if b.cookie != nil {
		t.Error("the cookie is there after Destroy")
	}
}

func Test64Increments(t *testing.T) {
	st := newSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &browser{}
	st.do(b, func(s *session2.Session) { s.SetUser("alice") })
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			res := st.do(b.clone(), func(s *session2.Session) {
				counter.Update(s, func(n int) int { return n + 1 })
			})
			if res.StatusCode != 200 {
				t.Errorf("status %d", res.StatusCode)
			}
		})
	}
	wg.Wait()
	st.do(b, func(s *session2.Session) {
		if n, _ := counter.Get(s); n != 64 {
			t.Errorf("64 increments at once came to %d", n)
		}
	})
}
