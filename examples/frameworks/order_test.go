package frameworks

import (
	"compress/gzip"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/sessiontest"
)

func ordered(m *session2.Manager, h http.Handler) http.Handler {
	return inOrder(m, h, slog.New(slog.DiscardHandler))
}

// A page that is compressed comes with its cookie.
func TestACompressedPageHasItsCookie(t *testing.T) {
	m := manager(t, session2.Config{})
	b := open(t, ordered(m, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.Session(r).SetUser("alice")
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "hello")
	})))
	res, _ := b.send("GET", "/", "Accept-Encoding", "gzip")
	if res.Header.Get("Content-Encoding") != "gzip" || len(res.Cookies()) != 1 {
		t.Errorf("%v, want a cookie and gzip", res.Header)
	}
	if res, _ := b.send("GET", "/"); res.StatusCode != 200 {
		t.Error(res.Status)
	}
}

// deferredGzip writes its trailer in a defer, also while a panic goes by.
func deferredGzip(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		zw := gzip.NewWriter(w)
		defer zw.Close()
		next.ServeHTTP(w, r)
	})
}

// The place of the recoverer is inside whatever writes in a defer.
func TestAPanicBesideGzip(t *testing.T) {
	for name, c := range map[string]struct {
		app   func(m *session2.Manager, h http.Handler) http.Handler
		trace bool
	}{
		"in order": {ordered, false},
		"recoverer inside gzip": {func(m *session2.Manager, h http.Handler) http.Handler {
			return m.Wrap(deferredGzip(recoverer(h)))
		}, false},
		"recoverer outside Wrap": {func(m *session2.Manager, h http.Handler) http.Handler {
			return recoverer(m.Wrap(h))
		}, false},
		"gzip inside Wrap, the recoverer outside": {func(m *session2.Manager, h http.Handler) http.Handler {
			return recoverer(m.Wrap(deferredGzip(h)))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := manager(t, session2.Config{})
			res, _ := open(t, c.app(m, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				m.Session(r).SetUser("alice")
				panic("oops")
			}))).send("GET", "/", "Accept-Encoding", "gzip")
			if trace := len(res.Cookies()) > 0; trace != c.trace || (res.StatusCode == 500) == c.trace {
				t.Errorf("%d, a trace is left: %v", res.StatusCode, trace)
			}
		})
	}
}

// What CORS says is on the error page, so that the page's script is told the status.
func TestCORSIsOnTheErrorPage(t *testing.T) {
	store := sessiontest.NewStore(session2.NewMemoryStore())
	m := managerOf(t, store, session2.Config{CommitTimeout: time.Millisecond})
	store.Fail(errors.New("the database is gone"))
	for outside, h := range map[bool]http.Handler{
		true: ordered(m, http.HandlerFunc(login)), false: m.Wrap(cors(http.HandlerFunc(login))),
	} {
		res, _ := open(t, h).send("POST", "/", "Origin", "https://www.example.com")
		if got := res.Header.Get("Access-Control-Allow-Origin") != ""; res.StatusCode != 503 || got != outside {
			t.Errorf("CORS outside %v: %d, allowed %v", outside, res.StatusCode, got)
		}
	}
}

// A request that http.TimeoutHandler has answered stores nothing, on whichever side it is.
func TestATimeoutStoresNothing(t *testing.T) {
	timeout := func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Millisecond, "too late") }
	for _, outside := range []bool{true, false} {
		store, over := session2.NewMemoryStore(), make(chan struct{})
		m := managerOf(t, store, session2.Config{})
		h := http.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			m.Session(r).SetUser("alice")
		}))
		if outside {
			h = timeout(closing(over, m.Wrap(h)))
		} else {
			h = m.Wrap(timeout(closing(over, h)))
		}
		b := open(t, h)
		b.want(503, "too late", "GET", "/")
		<-over
		b.Close() // Wrap is done, too
		for range store.Iter(t.Context()) {
			t.Errorf("TimeoutHandler outside %v: a session is stored", outside)
		}
	}
}

// closing closes over when h has returned.
func closing(over chan<- struct{}, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(over)
		h.ServeHTTP(w, r)
	})
}

// http.TimeoutHandler gives its handler a copy of the request, and a writer that can
// neither flush nor be hijacked: it goes around single routes, and never around a stream.
func TestWhatTimeoutHandlerHides(t *testing.T) {
	m := manager(t, session2.Config{})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /page", func(w http.ResponseWriter, r *http.Request) {
		if http.NewResponseController(w).Flush() == nil {
			io.WriteString(w, "flushed")
		}
	})
	for _, whole := range []bool{false, true} {
		var pattern string
		h := m.Wrap(mux)
		if whole {
			h = http.TimeoutHandler(h, time.Hour, "")
		}
		b := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r)
			pattern = r.Pattern
		}))
		want, body := "GET /page", "flushed"
		if whole {
			want, body = "", ""
		}
		b.want(200, body, "GET", "/page")
		b.Close()
		if pattern != want {
			t.Errorf("TimeoutHandler around all %v: the pattern is %q", whole, pattern)
		}
	}
}
