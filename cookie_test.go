package session2_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/bounded"
	"github.com/session2/session2/internal/testsite"
)

// setCookieLine returns the one Set-Cookie line of an answer, its token replaced.
func setCookieLine(t *testing.T, res *http.Response) string {
	t.Helper()
	lines := res.Header["Set-Cookie"]
	if len(lines) != 1 {
		t.Fatalf("Set-Cookie lines %q, want 1", lines)
	}
	name, rest, _ := strings.Cut(lines[0], "=")
	token, attributes, _ := strings.Cut(rest, ";")
	if token != "" {
		if _, ok := session2.ParseToken(token); !ok || len(name)+len(token) > 4096 {
			t.Errorf("cookie of %d bytes", len(name)+len(token))
		}
		token = "TOKEN"
	}
	return name + "=" + token + ";" + attributes
}

func TestSetCookieLines(t *testing.T) {
	type cookie = session2.CookieConfig
	const gone = "Expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=0"
	tests := []struct {
		name            string
		cfg             session2.Config
		created, revoke string
	}{
		{"default", session2.Config{},
			"__Host-session=TOKEN; Path=/; HttpOnly; Secure; SameSite=Lax",
			"__Host-session=; Path=/; " + gone + "; HttpOnly; Secure; SameSite=Lax"},
		{"persistent", session2.Config{Lifetime: time.Hour, Cookie: cookie{Persistent: true}},
			"__Host-session=TOKEN; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax",
			"__Host-session=; Path=/; " + gone + "; HttpOnly; Secure; SameSite=Lax"},
		{"longer than browsers keep it",
			session2.Config{Lifetime: 1000 * 24 * time.Hour, Cookie: cookie{Persistent: true}},
			"__Host-session=TOKEN; Path=/; Max-Age=34560000; HttpOnly; Secure; SameSite=Lax",
			"__Host-session=; Path=/; " + gone + "; HttpOnly; Secure; SameSite=Lax"},
		{"strict, partitioned", session2.Config{Cookie: cookie{SameSite: http.SameSiteStrictMode, Partitioned: true}},
			"__Host-session=TOKEN; Path=/; HttpOnly; Secure; SameSite=Strict; Partitioned",
			"__Host-session=; Path=/; " + gone + "; HttpOnly; Secure; SameSite=Strict; Partitioned"},
		{"none, domain, path",
			session2.Config{Cookie: cookie{SameSite: http.SameSiteNoneMode, Domain: "example.com", Path: "/app"}},
			"session=TOKEN; Path=/app; Domain=example.com; HttpOnly; Secure; SameSite=None",
			"session=; Path=/app; Domain=example.com; " + gone + "; HttpOnly; Secure; SameSite=None"},
		{"insecure", session2.Config{Cookie: cookie{Insecure: true}},
			"session=TOKEN; Path=/; HttpOnly; SameSite=Lax",
			"session=; Path=/; " + gone + "; HttpOnly; SameSite=Lax"},
	}
	for _, c := range tests {
		synctest.Test(t, func(t *testing.T) {
			st := testsite.NewSite(t, session2.NewMemoryStore(), c.cfg)
			b := &testsite.Browser{}
			if got := setCookieLine(t, st.Do(b, func(s *session2.Session) { s.SetUser("alice") })); got != c.created {
				t.Errorf("%s: created\n got %s\nwant %s", c.name, got, c.created)
			}
			if got := setCookieLine(t, st.Do(b, (*session2.Session).Destroy)); got != c.revoke {
				t.Errorf("%s: revoked\n got %s\nwant %s", c.name, got, c.revoke)
			}
		})
	}
}

// Max-Age is what is left of the lifetime, and no rotation extends it.
func TestMaxAgeShrinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Lifetime: time.Hour, IdleTimeout: -1})
		b := &testsite.Browser{}
		st.Begin(b)
		time.Sleep(20 * time.Minute)
		line := setCookieLine(t, st.Do(b, func(s *session2.Session) { s.SetPersistent(true) }))
		if !strings.Contains(line, "; Max-Age=2400;") {
			t.Errorf("SetPersistent after 20 of 60 minutes: %s", line)
		}
		time.Sleep(20 * time.Minute)
		if line := setCookieLine(t, st.Do(b, (*session2.Session).Renew)); !strings.Contains(line, "; Max-Age=1200;") {
			t.Errorf("Renew after 40 of 60 minutes: %s", line)
		}
		line = setCookieLine(t, st.Do(b, func(s *session2.Session) { s.SetPersistent(false) }))
		if strings.Contains(line, "Max-Age") {
			t.Errorf("SetPersistent(false): %s", line)
		}
	})
}

// A cookie is used only as it was written, is checked against every other one of
// its name, and what is none of ours never becomes an ID or a path.
func TestPresentedCookies(t *testing.T) {
	store := testsite.NewBrittle()
	st := testsite.NewSite(t, store, session2.Config{})
	alice, bob := &testsite.Browser{}, &testsite.Browser{}
	st.Begin(alice)
	st.Do(bob, func(s *session2.Session) { s.SetUser("bob") })
	a, b := alice.Token(), bob.Token()
	id, secret, _ := strings.Cut(a, ".")
	name := "__Host-session="
	madeUp := func(n int) (list []string) {
		for i := range n {
			list = append(list, name+session2.EncodeToken(session2.ID{2, byte(i)}, [32]byte{}))
		}
		return list
	}
	unknown := session2.EncodeToken(session2.ID{1}, [32]byte{1})
	oneMalformed := []session2.EventKind{session2.EventMalformed}
	oneUnknown := []session2.EventKind{session2.EventUnknown}
	tests := []struct {
		name    string
		cookies []string
		user    string
		loads   int64
		events  []session2.EventKind
	}{
		{"one", []string{name + a}, "alice", 1, nil},
		{"the same twice", []string{name + a + "; " + name + a}, "alice", 1, nil},
		{"the same five times", slices.Repeat([]string{name + a}, 5), "alice", 1, nil},
		{"with garbage before it", []string{name + "garbage; " + name + a}, "alice", 1, oneMalformed},
		{"with garbage after it", []string{name + a, name + "garbage"}, "alice", 1, oneMalformed},
		{"with an unknown one", []string{name + unknown + "; " + name + a}, "alice", 2, oneUnknown},
		{"two valid ones", []string{name + a + "; " + name + b}, "", 2, oneMalformed},
		{"behind four made-up ones", append(madeUp(4), name+a), "alice", 5, slices.Repeat(oneUnknown, 4)},
		{"in front of many", append([]string{name + a}, madeUp(11)...), "alice", 8,
			slices.Concat(oneMalformed, slices.Repeat(oneUnknown, 7))},
		{"behind many", append(madeUp(11), name+a), "alice", 8,
			slices.Concat(oneMalformed, slices.Repeat(oneUnknown, 7))},
		{"amid many", slices.Insert(madeUp(11), 5, name+a), "", 8,
			slices.Concat(oneMalformed, slices.Repeat(oneUnknown, 8))},
		{"unknown", []string{name + unknown}, "", 1, oneUnknown},
		{"the right ID with another secret", []string{name + id + "." + strings.Repeat("A", 43)}, "", 1, oneUnknown},
		{"ID in upper case", []string{name + strings.ToUpper(id) + "A." + secret}, "", 0, oneMalformed},
		{"secret in lower case", []string{name + id + "." + strings.ToLower(secret) + "-"}, "", 0, oneMalformed},
		{"space inside", []string{name + id + ". " + secret[1:]}, "", 0, oneMalformed},
		{"too long", []string{name + a + "A"}, "", 0, oneMalformed},
		{"very long", []string{name + strings.Repeat(a, 1000)}, "", 0, oneMalformed},
		{"too short", []string{name + a[:len(a)-1]}, "", 0, oneMalformed},
		{"ID alone", []string{name + id}, "", 0, oneMalformed},
		{"empty", []string{name}, "", 0, oneMalformed},
		{"path", []string{name + strings.Repeat("../", 25) + "x"}, "", 0, oneMalformed},
		{"another cookie's name", []string{"__host-session=" + a + "; session=" + a}, "", 0, nil},
	}
	for _, c := range tests {
		loads, events := store.Loads.Load(), len(st.Events.List)
		res := st.Request(c.cookies, func(s *session2.Session) {
			if got := s.User(); got != c.user {
				t.Errorf("%s: User() = %q, want %q", c.name, got, c.user)
			}
		})
		if n := store.Loads.Load() - loads; n != c.loads {
			t.Errorf("%s: %d loads, want %d", c.name, n, c.loads)
		}
		var kinds []session2.EventKind
		for _, e := range st.Events.List[events:] {
			kinds = append(kinds, e.Kind)
		}
		if !slices.Equal(kinds, c.events) {
			t.Errorf("%s: events %v, want %v", c.name, kinds, c.events)
		}
		if len(res.Cookies()) != 0 {
			t.Errorf("%s: a request that only reads set cookies", c.name)
		}
	}
}

// Two managers of one cookie name, one inside the other, sign each other's users
// out, which is said once.
func TestManagersOfOneCookieName(t *testing.T) {
	for name, c := range map[string]struct {
		inner  session2.CookieConfig
		warned bool
	}{
		"one name":  {session2.CookieConfig{}, true},
		"two names": {session2.CookieConfig{Name: "__Host-other"}, false},
	} {
		log := &testsite.Log{}
		outer := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		inner := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Cookie: c.inner, Logger: log.Logger()})
		h := outer.M.Wrap(inner.M.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			outer.M.Session(r).SetUser("alice")
			inner.M.Session(r).SetUser("admin")
		})))
		for range 2 {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		}
		if n := strings.Count(log.String(), "each replaces the other's"); n > 1 || n == 1 != c.warned {
			t.Errorf("%s: warned %d times: %s", name, n, log)
		}
	}
}

// Browsers drop a Secure cookie that comes over plain HTTP, and say nothing: the
// log does, once.
func TestSecureCookieOverPlainHTTP(t *testing.T) {
	type cookie = session2.CookieConfig
	tests := []struct {
		url    string
		header string // name: value
		cookie session2.CookieConfig
		warned bool
	}{
		{"http://example.com/", "", cookie{}, true},
		{"http://example.com:8080/", "", cookie{}, true},
		{"http://192.168.1.7/", "", cookie{}, true},
		{"http://[2001:db8::1]:80/", "", cookie{}, true},
		{"http://localhost.example.com/", "", cookie{}, true},
		{"http://example.com/", "X-Forwarded-Proto: http", cookie{}, true},
		{"http://example.com/", "Forwarded: for=192.0.2.60;proto=http;host=https.example", cookie{}, true},
		{"http://example.com/", "X-Forwarded-Ssl: off", cookie{}, true},
		{"http://example.com/", "X-Forwarded-For: 192.0.2.60", cookie{}, true},
		{"http://example.com/", "", cookie{Insecure: true}, false},
		{"https://example.com/", "", cookie{}, false},
		{"http://localhost/", "", cookie{}, false},
		{"http://LOCALHOST.:8080/", "", cookie{}, false},
		{"http://app.localhost:8080/", "", cookie{}, false},
		{"http://127.0.0.1:8080/", "", cookie{}, false},
		{"http://127.1.2.3/", "", cookie{}, false},
		{"http://[::1]:8080/", "", cookie{}, false},
		{"http://[::1]/", "", cookie{}, false},
		{"http://example.com/", "X-Forwarded-Proto: https", cookie{}, false},
		{"http://example.com/", "X-Forwarded-Proto: HTTPS, http", cookie{}, false},
		{"http://example.com/", "Forwarded: for=192.0.2.60;proto=https;by=203.0.113.43", cookie{}, false},
		{"http://example.com/", `Forwarded: for=192.0.2.60; Proto="https"`, cookie{}, false},
		{"http://example.com/", "X-Forwarded-Ssl: on", cookie{}, false},
		{"http://example.com/", "Front-End-Https: on", cookie{}, false},
		{"http://example.com/", `CF-Visitor: {"scheme":"https"}`, cookie{}, false},
		{"http://example.com/", "X-ARR-SSL: 2048|256|CN=ca|CN=example.com", cookie{}, false},
		{"http://example.com/", "Sec-Fetch-Site: none", cookie{}, false},
	}
	for _, c := range tests {
		book := &testsite.Log{}
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Cookie: c.cookie, Logger: book.Logger()})
		var known testsite.Secrets
		h := st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/read":
				s.User()
			case "/logout":
				s.Destroy()
			default:
				s.SetUser("alice")
			}
			io.WriteString(w, "page")
		})
		b := &testsite.Browser{}
		serve := func(path string) {
			r := httptest.NewRequest("GET", c.url, nil)
			r.URL.Path = path
			if name, value, ok := strings.Cut(c.header, ": "); ok {
				r.Header.Set(name, value)
			}
			b.Send(r)
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			b.Receive(rec.Result())
		}
		serve("/read")
		if text := book.String(); text != "" {
			t.Errorf("%s %s: without a cookie the log says %s", c.url, c.header, text)
		}
		serve("/login")
		known.Token(b.Token())
		serve("/logout")
		want := map[bool]int{true: 1}[c.warned]
		text := book.String()
		n, plain := strings.Count(text, "level=WARN"), strings.Count(text, "plain HTTP")
		if n != want || plain != want {
			t.Errorf("%s %s: %d warnings, want %d: %s", c.url, c.header, n, want, book)
		}
		if found := known.Find([]byte(text)); found != nil {
			t.Errorf("the log shows %q", found)
		}
	}
}

// An ID that a client made up must not be adopted.
func TestUnknownIsNotAdopted(t *testing.T) {
	store := testsite.NewBrittle()
	st := testsite.NewSite(t, store, session2.Config{})
	planted := session2.EncodeToken(session2.ID{1, 2, 3}, [32]byte{4, 5, 6})
	b := &testsite.Browser{Cookie: &http.Cookie{Name: "__Host-session", Value: planted}}
	st.Do(b, func(s *session2.Session) { s.Set("color", "green") })
	list := testsite.RecordsOf(t, store)
	if len(list) != 1 || list[0].ID == (session2.ID{1, 2, 3}) || b.Token() == planted {
		t.Errorf("%d records; the planted token was adopted", len(list))
	}
}

// FuzzParseToken: a token has one spelling, and nothing else is a token.
func FuzzParseToken(f *testing.F) {
	f.Add("", []byte{})
	f.Add(session2.EncodeToken(session2.ID{1}, [32]byte{2}), []byte("0123456789abcdef0123456789abcdef0123456789abcdef"))
	f.Add(strings.Repeat("0", 32)+"."+strings.Repeat("_", 43), []byte{255})
	f.Add(strings.Repeat("../", 25)+"x", []byte{0})
	f.Fuzz(func(t *testing.T, text string, random []byte) {
		if again, ok := session2.ParseToken(text); ok && again != text {
			t.Errorf("%q parses, and is spelled %q", text, again)
		}
		var id session2.ID
		var secret [32]byte
		copy(secret[:], random[copy(id[:], random):])
		made := session2.EncodeToken(id, secret)
		if again, ok := session2.ParseToken(made); !ok || again != made {
			t.Errorf("%q does not parse back", made)
		}
	})
}

func TestCacheHeaders(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	tests := []struct {
		name             string
		do               sessionHandler
		vary, cache, own string
	}{
		{"no look", func(*session2.Session, http.ResponseWriter, *http.Request) {}, "", "", ""},
		{"created", func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
			s.Set("a", 1)
		}, "Cookie", "no-store", ""},
		{"read", func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.Get("a") }, "Cookie", "", ""},
		{"varied already", func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Vary", "Accept, cookie")
			s.Get("a")
		}, "Accept, cookie", "", ""},
		{"varied by all", func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Vary", "*")
			s.Get("a")
		}, "*", "", ""},
		{"own cache rule and cookie", func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "private, max-age=1")
			http.SetCookie(w, &http.Cookie{Name: "own", Value: "kept"})
			s.Renew()
		}, "Cookie", "private, max-age=1", "own=kept"},
		{"failed", func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			s.Renew()
			w.WriteHeader(500)
		}, "Cookie", "", ""},
	}
	for _, c := range tests {
		res := st.Visit(b, c.do)
		vary, cache := strings.Join(res.Header["Vary"], ", "), res.Header.Get("Cache-Control")
		if vary != c.vary || cache != c.cache {
			t.Errorf("%s: Vary %q, Cache-Control %q; want %q, %q", c.name, vary, cache, c.vary, c.cache)
		}
		if lines := strings.Join(res.Header["Set-Cookie"], "\n"); !strings.Contains(lines, c.own) {
			t.Errorf("%s: Set-Cookie %q without %q", c.name, lines, c.own)
		}
	}
}

// However often a request commits, the browser gets one line.
func TestOneSetCookieLine(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	res := st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		for i := range 3 {
			s.Set("a", i)
			s.Renew()
			if err := s.Commit(r.Context()); err != nil {
				t.Error(err)
			}
		}
		s.SetUser("alice")
		w.WriteHeader(200)
	})
	if lines := res.Header["Set-Cookie"]; len(lines) != 1 {
		t.Errorf("Set-Cookie lines %d, want 1", len(lines))
	}
	if st.Stored(b, "a") != 2 {
		t.Error("the one cookie is not the last one")
	}
}

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
		{`ext="\", private"`}, {`ext="open, private`}, {`ext="open`, "private"}, {`ext="\`},
		{"privately"}, {"x-private"},
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
				t.Errorf("%s, Cache-Control %q became %q, want %q; %d cookies",
					change, lines, got, want, len(res.Cookies()))
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

// A token in a response that says public.
func TestPublicCacheControl(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	res := st.Visit(&testsite.Browser{}, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=3600")
		s.SetUser("alice")
	})
	if c := res.Header.Get("Cache-Control"); len(res.Cookies()) > 0 && c == "public, max-age=3600" {
		t.Errorf("Set-Cookie with Cache-Control %q", c)
	}
}

// Forgotten retired tokens.

func TestLoserOfARaceLeavesTheCookieAlone(t *testing.T) {
	end := map[string]func(*session2.Session){
		"destroyed": func(s *session2.Session) { s.Destroy() },
		"renewed":   func(s *session2.Session) { s.Renew() },
	}
	late := map[string]func(*session2.Session){
		"sets":                 func(s *session2.Session) { s.Set("k", 1) },
		"renews":               func(s *session2.Session) { s.Renew() },
		"empties":              func(s *session2.Session) { s.SetUser("") },
		"makes it persistent":  func(s *session2.Session) { s.SetPersistent(true) },
		"commits, then renews": func(s *session2.Session) { s.Set("k", 1); s.Commit(context.Background()); s.Renew() },
		"updates":              func(s *session2.Session) { counter.Update(s, func(n int) int { return n + 1 }) },
		"commits in vain twice": func(s *session2.Session) {
			s.Set("k", 1)
			s.Commit(context.Background())
			s.Set("k", 2)
		},
	}
	for how, end := range end {
		for what, change := range late {
			t.Run(how+" meanwhile, "+what, func(t *testing.T) {
				store := session2.NewMemoryStore()
				st := testsite.NewSite(t, store, session2.Config{})
				b := st.Login("alice")
				loser := b.Clone()
				res, err := st.During(loser, func(s *session2.Session) { s.User() }, func() { st.Do(b, end) }, change)
				if len(res.Cookies()) != 0 {
					t.Errorf("the loser was sent %d cookies", len(res.Cookies()))
				}
				if err == nil {
					t.Error("Err() = nil, though the changes were dropped")
				}
				if how == "destroyed" && records(t, store) != 0 {
					t.Error("the session came back")
				}
				if how == "renewed" && st.UserOf(b) != "alice" {
					t.Error("the winner lost its session")
				}
			})
		}
	}
}

// FuzzCookieHeader: whatever the header holds, the session opens by its token alone,
// nothing malformed reaches the store, and no more than eight cookies count. {T}
// stands for the token.
func FuzzCookieHeader(f *testing.F) {
	for _, seed := range []string{
		"", "__Host-session={T}", "__Host-session=x; __Host-session={T}", `__Host-session="{T}"`, "__Host-session={T}x",
		"session={T}", "a=b; __Host-session={T}; c=d", strings.Repeat("__Host-session=;", 9) + "__Host-session={T}",
		"__Host-session=" + session2.EncodeToken(session2.ID{1}, [32]byte{2}) + "; __Host-session={T}",
		"__Host-session={T};__Host-session={T}", "__Host-session = {T}", "\x00=\xff;;;==",
	} {
		f.Add(seed)
	}
	store := testsite.NewBrittle()
	st := testsite.NewSite(f, store, session2.Config{})
	token := st.Login("alice").Token()
	f.Fuzz(func(t *testing.T, header string) {
		st.Events.List = nil
		header = strings.ReplaceAll(header, "{T}", token)
		r := httptest.NewRequest("GET", "https://example.com/", nil)
		r.Header.Set("Cookie", header)
		presented := map[string]bool{} // by well-formed tokens, whether it is the session's
		for _, c := range r.CookiesNamed("__Host-session") {
			if _, ok := session2.ParseToken(c.Value); ok {
				presented[c.Value] = c.Value == token
			}
		}
		cookies := len(r.CookiesNamed("__Host-session"))
		before, w, user := store.Calls(), httptest.NewRecorder(), ""
		serve := st.Handler(func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			user = s.User()
			fmt.Fprint(w, "hello")
		})
		bounded.Decode(t, len(header), func() { serve.ServeHTTP(w, r) })
		calls := store.Calls() - before
		switch {
		case w.Code != http.StatusOK || w.Header().Get("Set-Cookie") != "":
			t.Errorf("%q is answered with %d and %q", header, w.Code, w.Header())
		case user != "" && !presented[token]:
			t.Errorf("%q opens the session of %s", header, user)
		case user == "" && presented[token] && cookies <= 8:
			t.Errorf("%q does not open the session", header)
		case calls > 8 || len(presented) == 0 && calls > 0:
			t.Errorf("%q: %d tokens, %d calls of the store", header, len(presented), calls)
		}
	})
}

// What is left of a second counts as one: a cookie is not gone before its session.
func TestMaxAgeIsRoundedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{
			Lifetime: time.Hour, Cookie: session2.CookieConfig{Persistent: true},
		})
		line := setCookieLine(t, st.Do(&testsite.Browser{}, func(s *session2.Session) {
			s.Set("k", 1)
			time.Sleep(time.Millisecond)
		}))
		if !strings.Contains(line, "; Max-Age=3600;") {
			t.Error(line)
		}
	})
}

// A cookie without Secure that goes by HTTPS is said once.
func TestInsecureOverHTTPS(t *testing.T) {
	for _, by := range []string{"tls", "proxy", "plain", "loopback"} {
		log := &testsite.Log{}
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{
			Logger: log.Logger(), Cookie: session2.CookieConfig{Insecure: true},
		})
		for range 2 {
			r := httptest.NewRequest("GET", "http://example.com/", nil)
			switch by {
			case "tls":
				r = httptest.NewRequest("GET", "https://example.com/", nil)
			case "proxy":
				r.Header.Set("X-Forwarded-Proto", "https")
			case "loopback": // a browser's
				r.Host = "localhost:8080"
				r.Header.Set("Sec-Fetch-Site", "none")
			}
			st.M.Wrap(st.Handler(func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.Set("k", 1) })).
				ServeHTTP(httptest.NewRecorder(), r)
		}
		want := 1
		if by == "plain" || by == "loopback" {
			want = 0
		}
		if got := strings.Count(log.String(), "leave out Config.Cookie.Insecure"); got != want {
			t.Errorf("%s: said %d times, want %d", by, got, want)
		}
	}
}

// A limit that the cookie does not tell is stored without sending it again: it might overtake
// the cookie of a login. What it does tell is sent each time: the answer before may be lost.
func TestCookieIsSentAgainOnlyWhereItSaysSomethingElse(t *testing.T) {
	for _, c := range []struct {
		name         string
		before, then func(*session2.Session)
		sent, lasts  bool
	}{
		{"a lifetime", nil, func(s *session2.Session) { s.SetLifetime(3 * time.Hour) }, false, false},
		{"an idle timeout", nil, func(s *session2.Session) { s.SetIdleTimeout(time.Hour) }, false, false},
		{"not persistent, as before", nil, func(s *session2.Session) { s.SetPersistent(false) }, true, false},
		{"persistent", nil, func(s *session2.Session) { s.SetPersistent(true) }, true, true},
		{"remembered", nil, func(s *session2.Session) { s.Remember(3 * time.Hour) }, true, true},
		{"persistent, as before", func(s *session2.Session) { s.SetPersistent(true) },
			func(s *session2.Session) { s.SetPersistent(true) }, true, true},
		{"persistent, and a lifetime", func(s *session2.Session) { s.SetPersistent(true) },
			func(s *session2.Session) { s.SetLifetime(3 * time.Hour) }, true, true},
		{"persistent, and an idle timeout", func(s *session2.Session) { s.SetPersistent(true) },
			func(s *session2.Session) { s.SetIdleTimeout(time.Hour) }, false, true},
		{"persistent no more", func(s *session2.Session) { s.SetPersistent(true) },
			func(s *session2.Session) { s.SetPersistent(false) }, true, false},
	} {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Lifetime: 10 * time.Hour})
		b := st.Login("alice")
		if c.before != nil {
			st.Do(b, c.before)
		}
		var before, after time.Time
		res := st.Do(b, func(s *session2.Session) {
			before = s.Expires()
			c.then(s)
			after = s.Expires()
		})
		if sent := len(res.Cookies()) > 0; sent != c.sent || res.StatusCode != 200 {
			t.Errorf("%s: status %d, the cookie is sent %t, want %t", c.name, res.StatusCode, sent, c.sent)
		}
		st.Do(b, func(s *session2.Session) {
			if got := s.Expires(); got.Sub(after).Abs() > time.Minute {
				t.Errorf("%s: expires %v, was %v, want %v", c.name, got, before, after)
			}
		})
		st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			s.User()
			w.WriteHeader(200) // a stream, which can send no cookie any more
			s.SetLifetime(2 * time.Hour)
			s.SetIdleTimeout(time.Minute)
			if err := s.Commit(r.Context()); (err != nil) != c.lasts {
				t.Errorf("%s, in a stream: Commit = %v", c.name, err)
			}
		})
	}
}
