package session2_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// cacheable says what a shared cache may do with a response, "" for nothing.
func cacheable(h http.Header) string {
	cc := strings.ToLower(strings.Join(h["Cache-Control"], ","))
	if !strings.Contains(cc, "private") && !strings.Contains(cc, "no-store") {
		return fmt.Sprintf("Cache-Control %q", cc)
	}
	for name := range h {
		if name != "Cache-Control" && strings.HasSuffix(name, "Control") || name == "X-Accel-Expires" {
			return fmt.Sprintf("%s %q", name, h[name])
		}
	}
	return ""
}

// A token never goes out with a public Cache-Control: it would be one visitor's
// session for all. What the handler keeps private already stays as it is.
func TestCookieIsKeptFromSharedCaches(t *testing.T) {
	kept := [][]string{
		{"private"}, {"no-store"}, {"Private, max-age=60"}, {"max-age=60", "NO-STORE"}, {"public, private"},
		{`ext="a, b" , private`}, {`ext="say \"private\"",	no-store`}, {",,private"}, {`private="x-a", private`},
	}
	replaced := [][]string{
		{"public, max-age=3600"}, {"max-age=60"}, {"s-maxage=60"}, {"no-cache"}, {""}, {"public", "max-age=1"},
		{`private="set-cookie"`}, {`private=x`}, {`no-cache="private"`}, {`ext="a, private"`}, {`ext="a, no-store, b"`},
		{`ext="\", private"`}, {`ext="open, private`}, {`ext="open`, "private"}, {"privately"}, {"x-private"}, {`ext="\`},
	}
	changes := map[string]func(*session2.Session){
		"set":    func(s *session2.Session) { s.SetUser("alice") },
		"renew":  func(s *session2.Session) { s.SetUser("alice"); s.Renew() },
		"revoke": (*session2.Session).Destroy,
	}
	for change, f := range changes {
		for i, lines := range append(kept, replaced...) {
			st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
			b := &testsite.Browser{}
			st.Begin(b)
			res := st.Visit(b, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
				w.Header()["Cache-Control"] = lines
				w.Header().Set("Expires", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
				f(s)
				io.WriteString(w, "page")
			})
			want := lines
			if i >= len(kept) {
				want = []string{"no-store"}
			}
			if got := res.Header["Cache-Control"]; !slices.Equal(got, want) || len(res.Cookies()) != 1 {
				t.Errorf("%s, Cache-Control %q became %q, want %q; %d cookies", change, lines, got, want, len(res.Cookies()))
			}
			if got := res.Header.Get("Expires"); (got != "") != (i < len(kept)) {
				t.Errorf("%s, Cache-Control %q: Expires %q", change, lines, got)
			}
		}
	}
}

// Header fields that some caches put above Cache-Control do not go out with a
// token either, and stay where there is none.
func TestCookieIsKeptFromCachesOfOneVendor(t *testing.T) {
	names := []string{"CDN-Cache-Control", "Cloudflare-CDN-Cache-Control", "vercel-cdn-cache-control",
		"Surrogate-Control", "Edge-Control", "X-Accel-Expires"}
	for _, login := range []bool{true, false} {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		res := st.Visit(&testsite.Browser{}, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			for _, name := range names {
				w.Header()[name] = []string{"max-age=60"}
			}
			w.Header().Set("Access-Control-Allow-Origin", "*")
			w.Header().Set("Cache-Control", "private")
			if login {
				s.SetUser("alice")
			}
		})
		want := 2
		if !login {
			want += len(names)
		}
		if len(res.Header) != want+map[bool]int{true: 2, false: 0}[login] { // Vary and Set-Cookie
			t.Errorf("login %v: header %v", login, res.Header)
		}
	}
}

// lateWriter keeps the header back until the first byte of the body, as gin's does.
type lateWriter struct {
	http.ResponseWriter
	status int
}

func (w *lateWriter) WriteHeader(status int) { w.status = status }

func (w *lateWriter) Write(p []byte) (int, error) {
	if w.status != 0 {
		w.ResponseWriter.WriteHeader(w.status)
		w.status = 0
	}
	return w.ResponseWriter.Write(p)
}

// What is set after the session's cookie was decided makes no response public.
func TestLateHeadersDoNotMakeACookiePublic(t *testing.T) {
	public := func(w http.ResponseWriter) {
		w.Header().Set("Cache-Control", "public, max-age=60")
		w.Header().Set("CDN-Cache-Control", "max-age=60")
	}
	handlers := map[string]sessionHandler{
		"after Commit": func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			if err := s.Commit(r.Context()); err != nil {
				t.Error(err)
			}
			public(w)
		},
		"after WriteHeader": func(_ *session2.Session, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(200)
			public(w)
			io.WriteString(w, "page")
		},
		"after WriteHeader, by ReadFrom": func(_ *session2.Session, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(200)
			public(w)
			io.Copy(w, io.MultiReader(strings.NewReader("page")))
		},
		"after Write": func(_ *session2.Session, w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "page")
			public(w)
		},
		"before Redirect": func(_ *session2.Session, w http.ResponseWriter, r *http.Request) {
			public(w)
			http.Redirect(w, r, "/next", http.StatusSeeOther)
		},
		"before ServeContent": func(_ *session2.Session, w http.ResponseWriter, r *http.Request) {
			public(w)
			http.ServeContent(w, r, "a.txt", time.Time{}, strings.NewReader("content"))
		},
		"in the error handler": func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
			if err := s.Commit(r.Context()); err != nil {
				t.Error(err)
			}
			s.Set("big", make([]byte, 2000))
		},
	}
	outside := map[string]func(http.Handler) http.Handler{
		"alone":          func(h http.Handler) http.Handler { return h },
		"TimeoutHandler": func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Hour, "late") },
		"a late writer": func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(&lateWriter{w, 0}, r) })
		},
	}
	for name, f := range handlers {
		for where, wrap := range outside {
			st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{MaxBytes: 1000,
				ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
					w.WriteHeader(http.StatusServiceUnavailable)
					public(w)
					io.WriteString(w, "error page")
				}})
			rec := httptest.NewRecorder()
			wrap(st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
				s.SetUser("alice")
				f(s, w, r)
			})).ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
			res := rec.Result()
			if problem := cacheable(res.Header); problem != "" || len(res.Cookies()) != 1 {
				t.Errorf("%s, %s: %d cookies with %s", where, name, len(res.Cookies()), problem)
			}
		}
	}
}
