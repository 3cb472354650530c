// Package testsite is what tests of managers and stores share: a site with
// browsers, a store that can be told to fail, a log, records.
package testsite

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/session2/session2"
)

// Must ends the test if there is an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Site is a manager over a store, and what its handlers do.
type Site struct {
	T      testing.TB
	M      *session2.Manager
	Store  session2.Store
	Events *EventLog
}

// SealEnv names the environment variable by which the sessions of all sites are sealed.
const SealEnv = "SESSION2_TEST_SEALED"

// HeaderEnv names the environment variable by which the browsers of all sites send their
// token in an Authorization header, as API clients do.
const HeaderEnv = "SESSION2_TEST_HEADER"

func byHeader() bool { return os.Getenv(HeaderEnv) != "" }

// CacheEnv names the environment variable by which each site's store has a cache in front
// of it, which forgets nothing in the time of a test.
const CacheEnv = "SESSION2_TEST_CACHED"

// NewSite returns a site whose events are kept, and whose log is discarded unless
// cfg names one.
func NewSite(t testing.TB, store session2.Store, cfg session2.Config) *Site {
	t.Helper()
	log := &EventLog{}
	cfg.OnEvent = log.Add
	cfg.Sealed = cfg.Sealed || os.Getenv(SealEnv) != ""
	if byHeader() && cfg.Transport.Header == "" {
		cfg.Transport.Header = "Authorization"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if os.Getenv(CacheEnv) != "" {
		store = session2.NewCache(store, &session2.CacheOptions{MaxAge: time.Hour})
	}
	m, err := session2.NewManager(store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &Site{t, m, store, log}
}

// EventLog keeps a manager's events.
type EventLog struct {
	mu   sync.Mutex
	List []session2.Event
}

// Add is an OnEvent.
func (l *EventLog) Add(_ context.Context, e session2.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.List = append(l.List, e)
}

// Count returns how many events are of kind k.
func (l *EventLog) Count(k session2.EventKind) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.List {
		if e.Kind == k {
			n++
		}
	}
	return n
}

// Visit serves one request with the browser's cookies and lets it take the
// answer's.
func (st *Site) Visit(b *Browser, f func(s *session2.Session, w http.ResponseWriter, r *http.Request)) *http.Response {
	st.T.Helper()
	r := httptest.NewRequest("GET", "https://example.com/", nil)
	b.Send(r)
	w := httptest.NewRecorder()
	st.M.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f(st.M.Session(r), w, r)
	})).ServeHTTP(w, r)
	res := w.Result()
	b.Receive(res)
	return res
}

// Do is Visit for a handler that needs the session only.
func (st *Site) Do(b *Browser, f func(s *session2.Session)) *http.Response {
	st.T.Helper()
	return st.Visit(b, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { f(s) })
}

// Browser keeps one cookie, as a browser would.
type Browser struct {
	mu     sync.Mutex
	Cookie *http.Cookie
}

// Send adds the cookie to a request.
func (b *Browser) Send(r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if byHeader() {
		r.Header.Set("Authorization", "Bearer ")
		if b.Cookie != nil {
			r.Header.Set("Authorization", "Bearer "+b.Cookie.Value)
		}
	} else if b.Cookie != nil {
		r.AddCookie(&http.Cookie{Name: b.Cookie.Name, Value: b.Cookie.Value})
	}
}

// Receive takes the cookies of a response.
func (b *Browser) Receive(res *http.Response) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, text := range res.Header["Session-Token"] {
		b.Cookie = nil
		if text != "" {
			b.Cookie = &http.Cookie{Name: "__Host-session", Value: text}
		}
	}
	for _, c := range res.Cookies() {
		if c.MaxAge < 0 {
			b.Cookie = nil
		} else {
			b.Cookie = c
		}
	}
}

// Token returns the cookie's value, or "".
func (b *Browser) Token() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Cookie == nil {
		return ""
	}
	return b.Cookie.Value
}

// Clone returns another browser with the same cookie.
func (b *Browser) Clone() *Browser {
	b.mu.Lock()
	defer b.mu.Unlock()
	return &Browser{Cookie: b.Cookie}
}

// TinyTimeout is a CommitTimeout for stores that fail for ever.
const TinyTimeout = 30 * time.Millisecond

// ErrDown is what a Brittle fails with.
var ErrDown = errors.New("the store is down")

// Brittle is a MemoryStore that counts its calls and fails when told to.
type Brittle struct {
	*session2.MemoryStore
	Loads, Saves, Deletes, Touches atomic.Int64
	FailLoad, FailSave, FailDelete atomic.Bool
}

// NewBrittle returns a Brittle that works.
func NewBrittle() *Brittle { return &Brittle{MemoryStore: session2.NewMemoryStore()} }

// Calls returns how many calls there were.
func (b *Brittle) Calls() int64 {
	return b.Loads.Load() + b.Saves.Load() + b.Deletes.Load() + b.Touches.Load()
}

func (b *Brittle) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	b.Loads.Add(1)
	if b.FailLoad.Load() {
		return session2.Record{}, ErrDown
	}
	return b.MemoryStore.Load(ctx, id)
}

func (b *Brittle) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	b.Saves.Add(1)
	if b.FailSave.Load() {
		return ErrDown
	}
	return b.MemoryStore.Save(ctx, rec, prev)
}

func (b *Brittle) Delete(ctx context.Context, id session2.ID) error {
	b.Deletes.Add(1)
	if b.FailDelete.Load() {
		return ErrDown
	}
	return b.MemoryStore.Delete(ctx, id)
}

func (b *Brittle) Touch(ctx context.Context, id session2.ID, accessed, expires time.Time) error {
	b.Touches.Add(1)
	return b.MemoryStore.Touch(ctx, id, accessed, expires)
}

// RecordsOf returns all that a store holds.
func RecordsOf(t testing.TB, store session2.IterStore) []session2.Record {
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

// Log is a log kept in memory.
type Log struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Logger returns a logger that writes to l, at every level.
func (l *Log) Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Handler serves f with the session of the site's manager.
func (st *Site) Handler(f func(s *session2.Session, w http.ResponseWriter, r *http.Request)) http.Handler {
	return st.M.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(st.M.Session(r), w, r) }))
}

// Serve runs a real server, HTTP/2 or HTTP/1.1, both with TLS.
func Serve(t testing.TB, h http.Handler, http2 bool) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = http2
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

// Get asks a server as b, and returns the answer and its body.
func Get(t testing.TB, srv *httptest.Server, b *Browser, path string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest("GET", srv.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.Send(r)
	res, err := srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	b.Receive(res)
	return res, string(body)
}

// Begin gives b a session of alice's with color=green.
func (st *Site) Begin(b *Browser) {
	st.T.Helper()
	st.Do(b, func(s *session2.Session) {
		s.SetUser("alice")
		s.Set("color", "green")
	})
	if b.Token() == "" {
		st.T.Fatal("no cookie after a login")
	}
}

// Stored returns what the next request of b reads under key.
func (st *Site) Stored(b *Browser, key string) (v any) {
	st.T.Helper()
	st.Do(b, func(s *session2.Session) { v = s.Get(key) })
	return v
}

// RecordPanics serves one request of b, and outlives a panic of the handler.
func RecordPanics(h http.Handler, b *Browser) (w *httptest.ResponseRecorder) {
	r := httptest.NewRequest("GET", "/", nil)
	w = httptest.NewRecorder()
	b.Send(r)
	defer func() { recover() }()
	h.ServeHTTP(w, r)
	return w
}

// Seeded returns a source of randomness whose seed is printed.
func Seeded(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// Request serves one request with the given Cookie header lines.
func (st *Site) Request(cookies []string, f func(*session2.Session)) *http.Response {
	r := httptest.NewRequest("GET", "/", nil)
	for _, c := range cookies {
		r.Header.Add("Cookie", c)
	}
	w := httptest.NewRecorder()
	st.Handler(func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { f(s) }).ServeHTTP(w, r)
	return w.Result()
}

// Cookies serves one request with these cookie values.
func (st *Site) Cookies(values []string, f func(s *session2.Session)) *http.Response {
	st.T.Helper()
	if byHeader() && len(values) == 1 {
		b := &Browser{Cookie: &http.Cookie{Value: values[0]}}
		return st.Do(b, f)
	}
	lines := slices.Clone(values)
	for i := range lines {
		lines[i] = "__Host-session=" + lines[i]
	}
	return st.Request(lines, f)
}

// Login signs a user in by a browser of their own.
func (st *Site) Login(user string) *Browser {
	st.T.Helper()
	b := &Browser{}
	st.Do(b, func(s *session2.Session) { s.SetUser(user) })
	if b.Token() == "" {
		st.T.Fatal("no cookie after a login")
	}
	return b
}

// UserOf returns who the browser's cookie is.
func (st *Site) UserOf(b *Browser) (user string) {
	st.T.Helper()
	st.Do(b, func(s *session2.Session) { user = s.User() })
	return user
}

// During serves a request of b that does first, and lets the test do something
// else before it does second and commits.
func (st *Site) During(
	b *Browser, first func(s *session2.Session), meanwhile func(), second func(s *session2.Session),
) (*http.Response, error) {
	st.T.Helper()
	var err error
	res := st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		first(s)
		meanwhile()
		second(s)
		w.WriteHeader(200)
		err = s.Err()
	})
	return res, err
}
