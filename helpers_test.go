package session2_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/session2/session2"
)

// tinyTimeout is a CommitTimeout for stores that fail for ever.
const tinyTimeout = 30 * time.Millisecond

var errDown = errors.New("the store is down")

// brittleStore is a MemoryStore that counts its calls and fails when told to.
type brittleStore struct {
	*session2.MemoryStore
	loads, saves, deletes, touches atomic.Int64
	failLoad, failSave, failDelete atomic.Bool
}

func newBrittle() *brittleStore { return &brittleStore{MemoryStore: session2.NewMemoryStore()} }

func (b *brittleStore) calls() int64 {
	return b.loads.Load() + b.saves.Load() + b.deletes.Load() + b.touches.Load()
}

func (b *brittleStore) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	b.loads.Add(1)
	if b.failLoad.Load() {
		return session2.Record{}, errDown
	}
	return b.MemoryStore.Load(ctx, id)
}

func (b *brittleStore) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	b.saves.Add(1)
	if b.failSave.Load() {
		return errDown
	}
	return b.MemoryStore.Save(ctx, rec, prev)
}

func (b *brittleStore) Delete(ctx context.Context, id session2.ID) error {
	b.deletes.Add(1)
	if b.failDelete.Load() {
		return errDown
	}
	return b.MemoryStore.Delete(ctx, id)
}

func (b *brittleStore) Touch(ctx context.Context, id session2.ID, accessed, expires time.Time) error {
	b.touches.Add(1)
	return b.MemoryStore.Touch(ctx, id, accessed, expires)
}

// recordsOf returns all that a store holds.
func recordsOf(t testing.TB, store session2.IterStore) []session2.Record {
	t.Helper()
	var list []session2.Record
	for rec, err := range store.Iter(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, rec)
	}
	return list
}

// logBook is a log kept in memory.
type logBook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logBook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// handler serves f with the session of the site's manager.
func (st *site) handler(f func(s *session2.Session, w http.ResponseWriter, r *http.Request)) http.Handler {
	return st.m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(st.m.Session(r), w, r) }))
}

// serve runs a real server, HTTP/2 or HTTP/1.1, both with TLS.
func serve(t testing.TB, h http.Handler, http2 bool) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = http2
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

// get asks a server as b, and returns the answer and its body.
func get(t testing.TB, srv *httptest.Server, b *browser, path string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest("GET", srv.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.send(r)
	res, err := srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	b.receive(res)
	return res, string(body)
}

// begin gives b a session of alice's with color=green.
func (st *site) begin(b *browser) {
	st.t.Helper()
	st.do(b, func(s *session2.Session) {
		s.SetUser("alice")
		s.Set("color", "green")
	})
	if b.token() == "" {
		st.t.Fatal("no cookie after a login")
	}
}

// stored returns what the next request of b reads under key.
func (st *site) stored(b *browser, key string) (v any) {
	st.t.Helper()
	st.do(b, func(s *session2.Session) { v = s.Get(key) })
	return v
}

// recordPanics serves one request of b, and outlives a panic of the handler.
func recordPanics(h http.Handler, b *browser) (w *httptest.ResponseRecorder) {
	r := httptest.NewRequest("GET", "/", nil)
	w = httptest.NewRecorder()
	b.send(r)
	defer func() { recover() }()
	h.ServeHTTP(w, r)
	return w
}
