package main

import (
	"net/http"
	"time"

	"github.com/session2/session2"
)

const (
	cookieName = "session"

	maxBody = 1 << 16 // bytes of a form
	maxText = 200     // bytes of a name or a kept value
	maxRows = 100     // sessions on the page, and records that it looks at
)

// What the demo keeps in a session.
var (
	counter   = session2.NewKey[int]("counter")
	kept      = session2.NewKey[string]("kept")
	submitted = session2.NewKey[string]("submitted") // the form token used last, to try again
)

// demo is the page and what its buttons do.
type demo struct {
	m       *session2.Manager
	store   session2.Store
	handler http.Handler

	events      events      // what happened to sessions
	experiments experiments // that are under way
	plain       plain       // sessions as load, modify, save
	thief       thief       // the copies of cookies
	closing     chan struct{}
}

func newDemo(store session2.Store) (*demo, error) {
	d := &demo{store: store, closing: make(chan struct{})}
	m, err := session2.NewManager(store, session2.Config{
		// The page shows when the session was last used. Elsewhere the default
		// of a minute saves writes.
		AccessResolution: time.Second,
		// The demo runs over plain HTTP on loopback, where a browser need not
		// send a Secure cookie back. Behind TLS leave this out.
		Cookie: session2.CookieConfig{Name: cookieName, Insecure: true},
		// 64 requests at once wait for one another, maybe on a slow disk.
		CommitTimeout: time.Minute,
		OnEvent:       d.events.add,
	})
	if err != nil {
		return nil, err
	}
	d.m = m
	// Requests from other sites' pages are refused before anything else. That
	// protects the visitor who has no session as well, and so needs no token;
	// see post for those who have one.
	d.handler = secure(http.NewCrossOriginProtection().Handler(m.Wrap(d.routes())))
	return d, nil
}

// close ends the streams, which would hold up the server's end.
func (d *demo) close() { close(d.closing) }

func (d *demo) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.handler.ServeHTTP(w, r) }

func (d *demo) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", d.page)
	mux.HandleFunc("GET /style.css", styleSheet)
	mux.HandleFunc("GET /details", d.details)
	mux.HandleFunc("GET /form", d.form)
	mux.HandleFunc("GET /live", d.live)
	mux.HandleFunc("GET /whoami", d.whoami)
	mux.HandleFunc("GET /count", d.count)
	mux.HandleFunc("GET /slow", d.slow)
	for path, do := range map[string]action{
		"/login":             login,
		"/logout":            logout,
		"/logout-fail":       logoutFail,
		"/logout-everywhere": d.logoutEverywhere,
		"/keep":              keep,
		"/increment":         increment,
		"/increment-fail":    incrementFail,
		"/flash":             flash,
		"/form":              submit,
		"/end":               d.end,
		"/delete-old":        d.deleteOld,
		"/steal":             d.steal,
		"/renew":             renew,
	} {
		mux.HandleFunc("POST "+path, d.post(do))
	}
	for path, run := range map[string]experiment{
		"/at-once":     d.atOnce,
		"/slow-logout": d.slowLogout,
		"/use-stolen":  d.useStolen,
	} {
		mux.HandleFunc("POST "+path, d.try(run))
	}
	return mux
}

// secure sets the headers of a page that runs no scripts and shows what is its
// visitor's own.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; "+
			"form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// action is what a button does. Its error is the answer instead of the page.
type action func(s *session2.Session, r *http.Request) error

// problem is an error that the visitor may read.
type problem struct {
	status int
	text   string
}

func (p *problem) Error() string { return p.text }

// post returns the handler for a button: check, act, and send the browser to
// the page by a GET, so that a reload repeats nothing.
func (d *demo) post(do action) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := d.m.Session(r)
		err := d.check(w, r)
		if err == nil {
			err = do(s, r)
		}
		if err != nil {
			d.fail(w, r, err)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	}
}

// check refuses a form that is not from a page of this session.
//
// Drawing a CSRF token stores a session, and a visitor who has done nothing yet
// must not have one. So tokens are asked only of those who have a session: a
// visitor without has nothing that a forged request could abuse, but for being
// logged in as somebody else, and against that stands CrossOriginProtection.
func (d *demo) check(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if s := d.m.Session(r); !s.IsNew() && !s.ValidCSRFToken(r) {
		return &problem{http.StatusForbidden, "That page was older than your session, or not ours: " +
			"its CSRF token is not valid. Nothing was changed."}
	}
	return nil
}
