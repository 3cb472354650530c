package main

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/session2/session2"
)

// view is what the page shows.
type view struct {
	HasSession                 bool
	ID, User                   string
	Created, Accessed, Expires string
	Counter                    int
	Kept, Submitted, CSRF      string
	Stolen                     bool // a thief has a copy of the cookie
	Events                     []happened
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
		v.Stolen = d.thief.token(s.ID()) != ""
		v.Submitted, _ = submitted.Get(s)
		v.Messages = s.Flashes()
	}
	v.Events = d.events.since(0, session2.ID{})
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

//go:embed *.html style.css
var files embed.FS

var pages = template.Must(template.ParseFS(files, "*.html"))

func styleSheet(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, files, "style.css") }

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

// renderMore writes what comes later of a page that has begun.
func renderMore(w http.ResponseWriter, name string, data any) {
	if err := pages.ExecuteTemplate(w, name, data); err != nil {
		slog.Info("demo", "template", name, "error", err.Error())
	}
}
