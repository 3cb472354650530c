package soak

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/session2/session2"
)

const (
	clients    = 32 // half of them at each manager
	users      = 4  // of each manager: fewer places than clients
	maxPerUser = 3
)

// site is a manager, and what its clients share.
type site struct {
	*session2.Manager
	store  store
	limits limits
	gate   *sync.RWMutex // held for reading by each client that does something
	notes  *notes
	speed  *histogram

	streams sync.WaitGroup
}

// limits are the times after which things happen, in proportion to the run.
type limits struct{ idle, lifetime, renew, grace time.Duration }

func limitsOf(run time.Duration) limits {
	if run < 30*time.Second {
		return limits{time.Second, 8 * time.Second, 300 * time.Millisecond, time.Second}
	}
	return limits{4 * time.Second, 30 * time.Second, 2 * time.Second, 3 * time.Second}
}

// newSite returns a site. The commits may take as long as a slow machine needs.
func newSite(s store, name string, run time.Duration, gate *sync.RWMutex, n *notes, h *histogram) (*site, error) {
	l := limitsOf(run)
	sealed := name == "sealed"
	m, err := session2.NewManager(s, session2.Config{
		Realm: name, Sealed: sealed, Cookie: session2.CookieConfig{Name: "__Host-" + name},
		Lifetime: l.lifetime, IdleTimeout: l.idle, RenewEvery: l.renew, RenewGrace: l.grace,
		MaxPerUser: maxPerUser, RejectLogin: sealed, Anomalies: true,
		CommitTimeout: 30 * time.Second, WatchEvery: time.Second,
		Logger: slog.New(slog.DiscardHandler), OnEvent: n.event, ErrorHandler: n.failed,
	})
	return &site{Manager: m, store: s, limits: l, gate: gate, notes: n, speed: h}, err
}

// client is one person with one browser. What it does at a time is one act.
type client struct {
	*site
	rnd    *rand.Rand
	jar    jar
	dead   bool // the cookie opens nothing any more
	away   *absence
	stream chan struct{} // closed when the client's stream has ended; nil: there is none
	hangUp context.CancelFunc
}

// absence is a session that its client does not use until it has expired.
type absence struct {
	id     session2.ID
	cookie *http.Cookie
	until  time.Time
	shut   bool // the client has seen that it opens nothing
}

func newClient(st *site, seed, n uint64) *client {
	return &client{site: st, rnd: rand.New(rand.NewPCG(seed, n))}
}

// run acts until ctx ends. Measurements come between two acts.
func (c *client) run(ctx context.Context) {
	for ctx.Err() == nil {
		c.gate.RLock()
		c.comeBack()
		if c.dead || c.jar.empty() {
			c.begin()
		} else {
			c.draw()(c)
		}
		c.gate.RUnlock()
	}
}

// user draws one of the site's.
func (c *client) user() string { return string(rune('a' + c.rnd.IntN(users))) }

// handler is what the application does.
type handler func(s *session2.Session, w http.ResponseWriter, r *http.Request)

// visit serves one request, and times it.
func (c *client) visit(h handler) int {
	start := time.Now()
	defer func() { c.speed.add(time.Since(start)) }()
	return c.serve(context.Background(), &c.jar, c.Wrap, h)
}

// exclusively is visit for a handler in Exclusive.
func (c *client) exclusively(h handler) int {
	start := time.Now()
	defer func() { c.speed.add(time.Since(start)) }()
	return c.serve(context.Background(), &c.jar, c.Exclusive, h)
}

// serve serves a request with the cookie in jar, and outlives a panic of the handler.
func (c *site) serve(ctx context.Context, j *jar, wrap func(http.Handler) http.Handler, h handler) int {
	r, err := http.NewRequestWithContext(ctx, "GET", "https://example.com/", nil)
	if err != nil {
		panic(err)
	}
	r.RemoteAddr = "192.0.2.1:1234"
	r.Header.Set("User-Agent", "soak")
	j.send(r)
	w := &reply{jar: j, header: http.Header{}}
	func() {
		defer func() {
			if p := recover(); p != nil && p != errPanic {
				panic(p)
			} else if p != nil {
				w.status = -1
			}
		}()
		wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h(c.Session(r), w, r)
		})).ServeHTTP(w, r)
		w.WriteHeader(http.StatusOK) // if nobody has
	}()
	c.notes.served(w.status)
	return w.status
}

var errPanic = errors.New("a handler that panics")

// reply is a response of which nobody keeps the body. The browser has the cookies as soon
// as the header has left, as those of a stream.
type reply struct {
	jar    *jar
	header http.Header
	status int
}

func (w *reply) Header() http.Header { return w.header }

func (w *reply) WriteHeader(status int) {
	if w.status != 0 || status < 200 {
		return
	}
	w.status = status
	w.jar.receive(w.header)
}

func (w *reply) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return len(b), nil
}

func (w *reply) Flush() { w.WriteHeader(http.StatusOK) }

// jar is where a browser keeps its cookie; several tabs share it.
type jar struct {
	mu     sync.Mutex
	cookie *http.Cookie
}

func (j *jar) empty() bool { return j.get() == nil }

func (j *jar) get() *http.Cookie {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.cookie
}

func (j *jar) set(c *http.Cookie) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.cookie = c
}

// token returns what opens the session, "" if nothing does.
func (j *jar) token() string {
	if c := j.get(); c != nil {
		return c.Value
	}
	return ""
}

// id returns which session that is: what is before the dot is no secret.
func (j *jar) id() session2.ID {
	selector, _, _ := strings.Cut(j.token(), ".")
	id, err := session2.ParseID(selector)
	if err != nil {
		return session2.ID{}
	}
	return id
}

func (j *jar) send(r *http.Request) {
	if c := j.get(); c != nil {
		r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
	}
}

func (j *jar) receive(h http.Header) {
	for _, c := range (&http.Response{Header: h}).Cookies() {
		if c.MaxAge < 0 {
			c = nil
		}
		j.set(c)
	}
}
