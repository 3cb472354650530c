package main

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/session2/session2"
)

const (
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
}

func newDemo(store session2.Store) (*demo, error) {
	m, err := session2.NewManager(store, session2.Config{
		// The page shows when the session was last used. Elsewhere the default
		// of a minute saves writes.
		AccessResolution: time.Second,
		// The demo runs over plain HTTP on loopback, where a browser need not
		// send a Secure cookie back. Behind TLS leave this out.
		Cookie: session2.CookieConfig{Insecure: true},
	})
	if err != nil {
		return nil, err
	}
	d := &demo{m: m, store: store}
	// Requests from other sites' pages are refused before anything else. That
	// protects the visitor who has no session as well, and so needs no token;
	// see post for those who have one.
	d.handler = secure(http.NewCrossOriginProtection().Handler(m.Wrap(d.routes())))
	return d, nil
}

func (d *demo) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.handler.ServeHTTP(w, r) }

func (d *demo) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", d.page)
	mux.HandleFunc("GET /details", d.details)
	mux.HandleFunc("GET /form", d.form)
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
	} {
		mux.HandleFunc("POST "+path, d.post(do))
	}
	return mux
}

// secure sets the headers of a page that runs no scripts and shows what is its
// visitor's own.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; "+
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
//
// Drawing a CSRF token stores a session, and a visitor who has done nothing yet
// must not have one. So tokens are asked only of those who have a session: a
// visitor without has nothing that a forged request could abuse, but for being
// logged in as somebody else, and against that stands CrossOriginProtection.
func (d *demo) post(do action) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		s := d.m.Session(r)
		if !s.IsNew() && !s.ValidCSRFToken(r) {
			d.fail(w, r, &problem{http.StatusForbidden, "That page was older than your session, or not ours: " +
				"its CSRF token is not valid. Nothing was changed."})
			return
		}
		if err := do(s, r); err != nil {
			d.fail(w, r, err)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	}
}

// fail answers with an error. A status of 500 or above drops what the request
// has changed by itself; Discard is for the others.
func (d *demo) fail(w http.ResponseWriter, r *http.Request, err error) {
	d.m.Session(r).Discard()
	p := &problem{http.StatusInternalServerError, "That did not work; the log tells why. Nothing was changed."}
	if !errors.As(err, &p) {
		slog.ErrorContext(r.Context(), "demo", "path", r.URL.Path, "error", err.Error())
	}
	page := map[string]any{"Status": p.status, "Title": http.StatusText(p.status), "Text": p.text}
	render(w, p.status, "problem", page)
}

func login(s *session2.Session, r *http.Request) error {
	user, err := text(r, "user")
	if err != nil {
		return err
	}
	s.SetUser(user) // a real application asks for a password first
	s.Flash("Hello " + user + ". Your session has a new token now; the old one is dead.")
	return nil
}

func logout(s *session2.Session, _ *http.Request) error {
	s.Destroy()
	return nil
}

func logoutFail(s *session2.Session, _ *http.Request) error {
	s.Destroy()
	return &problem{http.StatusInternalServerError,
		"You were logged out, then the request failed. So it left no trace: you are still logged in."}
}

func (d *demo) logoutEverywhere(s *session2.Session, r *http.Request) error {
	if _, err := d.m.RevokeUser(r.Context(), s.User()); err != nil {
		return err
	}
	s.Destroy() // its record is gone already; this takes the cookie back
	return nil
}

func keep(s *session2.Session, r *http.Request) error {
	value, err := text(r, "value")
	if err != nil {
		return err
	}
	kept.Set(s, value)
	return nil
}

// increment uses Update: of any number of clicks at once, none is lost.
func increment(s *session2.Session, _ *http.Request) error {
	counter.Update(s, func(n int) int { return n + 1 })
	return nil
}

func incrementFail(s *session2.Session, r *http.Request) error {
	increment(s, r)
	return &problem{http.StatusInternalServerError,
		"The counter was incremented, then the request failed. So it left no trace: the count is what it was."}
}

func flash(s *session2.Session, _ *http.Request) error {
	s.Flash("This message is shown once. Reload, and it is gone.")
	return nil
}

// submit takes the form if its token has not been used yet.
func submit(s *session2.Session, r *http.Request) error {
	token := r.PostFormValue("form_token")
	fresh, err := s.UseFormToken(r.Context(), token)
	switch {
	case err != nil:
		return err
	case !fresh:
		return &problem{http.StatusConflict, "Refused: this form was submitted before."}
	}
	submitted.Set(s, token)
	s.Flash("The form was accepted. Now submit the same one again.")
	return nil
}

func (d *demo) end(s *session2.Session, r *http.Request) error {
	id, err := session2.ParseID(r.PostFormValue("id"))
	if err != nil {
		return &problem{http.StatusBadRequest, "That is no session's ID."}
	}
	if id == s.ID() {
		s.Destroy()
		return nil
	}
	// Here everybody sees all sessions. Elsewhere, look first whether it is one of the
	// user's own: d.m.Sessions(r.Context(), s.User()).
	if err := d.m.Revoke(r.Context(), id); err != nil {
		return err
	}
	tell(s, "Session "+id.String()+" has ended.")
	return nil
}

// deleteOld may delete the visitor's own session: the message is lost then, for
// no change brings a deleted session back.
func (d *demo) deleteOld(s *session2.Session, r *http.Request) error {
	minutes, err := strconv.ParseUint(r.PostFormValue("minutes"), 10, 20)
	if err != nil {
		return &problem{http.StatusBadRequest, "The age is a number of minutes, 0 or more."}
	}
	sweeper, ok := d.store.(session2.DeleteOldStore)
	if !ok {
		return &problem{http.StatusNotImplemented, "This store cannot delete by age."}
	}
	n, err := sweeper.DeleteOld(r.Context(), time.Duration(minutes)*time.Minute)
	if err != nil {
		return err
	}
	tell(s, fmt.Sprintf("Deleted: %d.", n))
	return nil
}

// tell leaves a message, unless that alone would start a session.
func tell(s *session2.Session, text string) {
	if !s.IsNew() {
		s.Flash(text)
	}
}

// text returns a form's field, which must not be empty.
func text(r *http.Request, field string) (string, error) {
	v := strings.TrimSpace(r.PostFormValue(field))
	if v == "" || len(v) > maxText {
		return "", &problem{http.StatusBadRequest, fmt.Sprintf("The field must have 1 to %d bytes.", maxText)}
	}
	return v, nil
}

// view is what the page shows.
type view struct {
	HasSession                 bool
	ID, User                   string
	Created, Accessed, Expires string
	Counter                    int
	Kept, Submitted, CSRF      string
	Messages                   []any
	Rows                       []row
	More                       bool
}

// page looks at the session and, unless there is a message to take or a CSRF
// token to draw, changes nothing in it.
func (d *demo) page(w http.ResponseWriter, r *http.Request) {
	s, now := d.m.Session(r), time.Now()
	v := view{HasSession: !s.IsNew()}
	if v.HasSession {
		v.ID, v.User, v.CSRF = s.ID().String(), s.User(), s.CSRFToken()
		v.Created, v.Accessed, v.Expires = when(now, s.Created()), when(now, s.Accessed()), when(now, s.Expires())
		v.Counter, _ = counter.Get(s)
		v.Kept, _ = kept.Get(s)
		v.Submitted, _ = submitted.Get(s)
		v.Messages = s.Flashes()
	}
	var err error
	if v.Rows, v.More, err = d.list(r.Context(), now, v.ID); err != nil {
		d.fail(w, r, err)
		return
	}
	render(w, http.StatusOK, "page", v)
}

// row is one session in the list: what names it, and nothing that it holds.
type row struct {
	ID, User                   string
	Created, Accessed, Expires string
	Mine, Broken               bool
	accessed                   time.Time
}

// list returns some of the sessions, the one used last first, and not those of
// another realm: their users are others, and this manager cannot end them. A real
// list like this belongs behind authorisation.
func (d *demo) list(ctx context.Context, now time.Time, mine string) (rows []row, more bool, err error) {
	store, ok := d.store.(session2.IterStore)
	if !ok {
		return nil, false, nil
	}
	looked := 0
	for rec, err := range store.Iter(ctx) {
		if err != nil && !errors.Is(err, session2.ErrCorrupt) {
			return nil, false, err
		}
		if more = looked == maxRows; more {
			break
		}
		looked++
		c, unread := session2.Inspect(rec)
		if c.Realm == "" {
			rows = append(rows, newRow(rec, c.User, cmp.Or(err, unread), now, mine))
		}
	}
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(b.accessed.Compare(a.accessed), strings.Compare(a.ID, b.ID))
	})
	return rows, more, nil
}

func newRow(rec session2.Record, user string, err error, now time.Time, mine string) row {
	id := rec.ID.String()
	if err != nil {
		return row{ID: id, Broken: true}
	}
	return row{ID: id, User: user, Mine: id == mine, accessed: rec.Accessed,
		Created: when(now, rec.Created), Accessed: when(now, rec.Accessed), Expires: when(now, rec.Expires)}
}

// when says how long ago t was, or how far ahead it is.
func when(now, t time.Time) string {
	d := now.Sub(t).Round(time.Second)
	switch {
	case d > 0:
		return d.String() + " ago"
	case d < 0:
		return "in " + (-d).String()
	}
	return "now"
}

// details shows the session's keys and their sizes.
func (d *demo) details(w http.ResponseWriter, r *http.Request) {
	s := d.m.Session(r)
	var dump strings.Builder
	if !s.IsNew() {
		s.Dump(&dump)
	}
	render(w, http.StatusOK, "details", dump.String())
}

// form draws a token for a form that can be submitted once. To open it stores a
// session: the token must be known again.
func (d *demo) form(w http.ResponseWriter, r *http.Request) {
	s := d.m.Session(r)
	render(w, http.StatusOK, "form", map[string]any{"Token": s.FormToken(), "CSRF": s.CSRFToken()})
}

//go:embed page.html
var pageHTML string

var pages = template.Must(template.New("").Parse(pageHTML))

// render writes a page in one piece: a template that fails leaves no half page.
func render(w http.ResponseWriter, status int, name string, data any) {
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, name, data); err != nil {
		slog.Error("demo", "template", name, "error", err.Error())
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(b.Bytes())
}
