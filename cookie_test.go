package session2_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
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
	tests := []struct {
		name            string
		cfg             session2.Config
		created, revoke string
	}{
		{"default", session2.Config{},
			"__Host-session=TOKEN; Path=/; HttpOnly; Secure; SameSite=Lax",
			"__Host-session=; Path=/; Expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=0; HttpOnly; Secure; SameSite=Lax"},
		{"persistent", session2.Config{Lifetime: time.Hour, Cookie: cookie{Persistent: true}},
			"__Host-session=TOKEN; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax",
			"__Host-session=; Path=/; Expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=0; HttpOnly; Secure; SameSite=Lax"},
		{"longer than browsers keep it", session2.Config{Lifetime: 1000 * 24 * time.Hour, Cookie: cookie{Persistent: true}},
			"__Host-session=TOKEN; Path=/; Max-Age=34560000; HttpOnly; Secure; SameSite=Lax",
			"__Host-session=; Path=/; Expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=0; HttpOnly; Secure; SameSite=Lax"},
		{"strict, partitioned", session2.Config{Cookie: cookie{SameSite: http.SameSiteStrictMode, Partitioned: true}},
			"__Host-session=TOKEN; Path=/; HttpOnly; Secure; SameSite=Strict; Partitioned",
			"__Host-session=; Path=/; Expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=0; HttpOnly; Secure; SameSite=Strict; Partitioned"},
		{"none, domain, path", session2.Config{Cookie: cookie{SameSite: http.SameSiteNoneMode, Domain: "example.com", Path: "/app"}},
			"session=TOKEN; Path=/app; Domain=example.com; HttpOnly; Secure; SameSite=None",
			"session=; Path=/app; Domain=example.com; Expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=0; HttpOnly; Secure; SameSite=None"},
		{"insecure", session2.Config{Cookie: cookie{Insecure: true}},
			"session=TOKEN; Path=/; HttpOnly; SameSite=Lax",
			"session=; Path=/; Expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=0; HttpOnly; SameSite=Lax"},
	}
	for _, c := range tests {
		synctest.Test(t, func(t *testing.T) {
			st := newSite(t, session2.NewMemoryStore(), c.cfg)
			b := &browser{}
			if got := setCookieLine(t, st.do(b, func(s *session2.Session) { s.SetUser("alice") })); got != c.created {
				t.Errorf("%s: created\n got %s\nwant %s", c.name, got, c.created)
			}
			if got := setCookieLine(t, st.do(b, (*session2.Session).Destroy)); got != c.revoke {
				t.Errorf("%s: revoked\n got %s\nwant %s", c.name, got, c.revoke)
			}
		})
	}
}

// Max-Age is what is left of the lifetime, and no rotation extends it.
func TestMaxAgeShrinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.NewMemoryStore(), session2.Config{Lifetime: time.Hour, IdleTimeout: -1})
		b := &browser{}
		st.begin(b)
		time.Sleep(20 * time.Minute)
		line := setCookieLine(t, st.do(b, func(s *session2.Session) { s.SetPersistent(true) }))
		if !strings.Contains(line, "; Max-Age=2400;") {
			t.Errorf("SetPersistent after 20 of 60 minutes: %s", line)
		}
		time.Sleep(20 * time.Minute)
		if line := setCookieLine(t, st.do(b, (*session2.Session).Renew)); !strings.Contains(line, "; Max-Age=1200;") {
			t.Errorf("Renew after 40 of 60 minutes: %s", line)
		}
		if line := setCookieLine(t, st.do(b, func(s *session2.Session) { s.SetPersistent(false) })); strings.Contains(line, "Max-Age") {
			t.Errorf("SetPersistent(false): %s", line)
		}
	})
}

// request serves one request with the given Cookie header lines.
func (st *site) request(cookies []string, f func(*session2.Session)) *http.Response {
	r := httptest.NewRequest("GET", "/", nil)
	for _, c := range cookies {
		r.Header.Add("Cookie", c)
	}
	w := httptest.NewRecorder()
	st.handler(func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { f(s) }).ServeHTTP(w, r)
	return w.Result()
}

// A cookie is used only as it was written, is checked against every other one of
// its name, and what is none of ours never becomes an ID or a path.
func TestPresentedCookies(t *testing.T) {
	store := newBrittle()
	st := newSite(t, store, session2.Config{})
	alice, bob := &browser{}, &browser{}
	st.begin(alice)
	st.do(bob, func(s *session2.Session) { s.SetUser("bob") })
	a, b := alice.token(), bob.token()
	id, secret, _ := strings.Cut(a, ".")
	name := "__Host-session="
	madeUp := func(n int) (list []string) {
		for i := range n {
			list = append(list, name+session2.EncodeToken(session2.ID{2, byte(i)}, [32]byte{}))
		}
		return list
	}
	unknown := session2.EncodeToken(session2.ID{1}, [32]byte{1})
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
		{"with garbage before it", []string{name + "garbage; " + name + a}, "alice", 1, []session2.EventKind{session2.EventMalformed}},
		{"with garbage after it", []string{name + a, name + "garbage"}, "alice", 1, []session2.EventKind{session2.EventMalformed}},
		{"with an unknown one", []string{name + unknown + "; " + name + a}, "alice", 2, []session2.EventKind{session2.EventUnknown}},
		{"two valid ones", []string{name + a + "; " + name + b}, "", 2, []session2.EventKind{session2.EventMalformed}},
		{"behind four made-up ones", append(madeUp(4), name+a), "alice", 5, slices.Repeat([]session2.EventKind{session2.EventUnknown}, 4)},
		{"in front of many", append([]string{name + a}, madeUp(11)...), "alice", 8,
			append([]session2.EventKind{session2.EventMalformed}, slices.Repeat([]session2.EventKind{session2.EventUnknown}, 7)...)},
		{"behind many", append(madeUp(11), name+a), "alice", 8,
			append([]session2.EventKind{session2.EventMalformed}, slices.Repeat([]session2.EventKind{session2.EventUnknown}, 7)...)},
		{"amid many", slices.Insert(madeUp(11), 5, name+a), "", 8,
			append([]session2.EventKind{session2.EventMalformed}, slices.Repeat([]session2.EventKind{session2.EventUnknown}, 8)...)},
		{"unknown", []string{name + unknown}, "", 1, []session2.EventKind{session2.EventUnknown}},
		{"the right ID with another secret", []string{name + id + "." + strings.Repeat("A", 43)}, "", 1, []session2.EventKind{session2.EventUnknown}},
		{"ID in upper case", []string{name + strings.ToUpper(id) + "A." + secret}, "", 0, []session2.EventKind{session2.EventMalformed}},
		{"secret in lower case", []string{name + id + "." + strings.ToLower(secret) + "-"}, "", 0, []session2.EventKind{session2.EventMalformed}},
		{"space inside", []string{name + id + ". " + secret[1:]}, "", 0, []session2.EventKind{session2.EventMalformed}},
		{"too long", []string{name + a + "A"}, "", 0, []session2.EventKind{session2.EventMalformed}},
		{"very long", []string{name + strings.Repeat(a, 1000)}, "", 0, []session2.EventKind{session2.EventMalformed}},
		{"too short", []string{name + a[:len(a)-1]}, "", 0, []session2.EventKind{session2.EventMalformed}},
		{"ID alone", []string{name + id}, "", 0, []session2.EventKind{session2.EventMalformed}},
		{"empty", []string{name}, "", 0, []session2.EventKind{session2.EventMalformed}},
		{"path", []string{name + strings.Repeat("../", 25) + "x"}, "", 0, []session2.EventKind{session2.EventMalformed}},
		{"another cookie's name", []string{"__host-session=" + a + "; session=" + a}, "", 0, nil},
	}
	for _, c := range tests {
		loads, events := store.loads.Load(), len(st.events.list)
		res := st.request(c.cookies, func(s *session2.Session) {
			if got := s.User(); got != c.user {
				t.Errorf("%s: User() = %q, want %q", c.name, got, c.user)
			}
		})
		if n := store.loads.Load() - loads; n != c.loads {
			t.Errorf("%s: %d loads, want %d", c.name, n, c.loads)
		}
		var kinds []session2.EventKind
		for _, e := range st.events.list[events:] {
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
		log := &logBook{}
		outer := newSite(t, session2.NewMemoryStore(), session2.Config{})
		inner := newSite(t, session2.NewMemoryStore(), session2.Config{Cookie: c.inner, Logger: log.logger()})
		h := outer.m.Wrap(inner.m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			outer.m.Session(r).SetUser("alice")
			inner.m.Session(r).SetUser("admin")
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
		book := &logBook{}
		st := newSite(t, session2.NewMemoryStore(), session2.Config{Cookie: c.cookie, Logger: book.logger()})
		known := secrets{}
		h := st.handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
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
		b := &browser{}
		serve := func(path string) {
			r := httptest.NewRequest("GET", c.url, nil)
			r.URL.Path = path
			if name, value, ok := strings.Cut(c.header, ": "); ok {
				r.Header.Set(name, value)
			}
			b.send(r)
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			b.receive(rec.Result())
		}
		serve("/read")
		if text := book.String(); text != "" {
			t.Errorf("%s %s: without a cookie the log says %s", c.url, c.header, text)
		}
		serve("/login")
		known.token(b.token())
		serve("/logout")
		want := map[bool]int{true: 1}[c.warned]
		if n := strings.Count(book.String(), "level=WARN"); n != want || strings.Count(book.String(), "plain HTTP") != want {
			t.Errorf("%s %s: %d warnings, want %d: %s", c.url, c.header, n, want, book)
		}
		known.check(t, "the log", book.String())
	}
}

// An ID that a client made up must not be adopted.
func TestUnknownIsNotAdopted(t *testing.T) {
	store := newBrittle()
	st := newSite(t, store, session2.Config{})
	planted := session2.EncodeToken(session2.ID{1, 2, 3}, [32]byte{4, 5, 6})
	b := &browser{cookie: &http.Cookie{Name: "__Host-session", Value: planted}}
	st.do(b, func(s *session2.Session) { s.Set("color", "green") })
	list := recordsOf(t, store)
	if len(list) != 1 || list[0].ID == (session2.ID{1, 2, 3}) || b.token() == planted {
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
