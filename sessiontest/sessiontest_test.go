package sessiontest_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/sessiontest"
	"github.com/session2/session2/storetest"
)

func manager(t *testing.T, store session2.Store, cfg session2.Config) *session2.Manager {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	m, err := session2.NewManager(store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// do serves r by f, with a session of m.
func do(m *session2.Manager, r *http.Request, f func(s *session2.Session)) *http.Response {
	w := httptest.NewRecorder()
	m.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { f(m.Session(r)) })).ServeHTTP(w, r)
	return w.Result()
}

func alice(s *session2.Session) { s.SetUser("alice") }

func get() *http.Request { return httptest.NewRequest("GET", "/", nil) }

func TestRequest(t *testing.T) {
	for name, cfg := range map[string]session2.Config{
		"default":  {},
		"sealed":   {Sealed: true},
		"insecure": {Cookie: session2.CookieConfig{Insecure: true, Name: "mine"}},
		"former":   {Cookie: session2.CookieConfig{Former: []session2.CookieConfig{{Name: "theirs"}}}},
		"realm":    {Realm: "admin", RenewEvery: time.Minute, MaxPerUser: 1},
	} {
		t.Run(name, func(t *testing.T) {
			store := session2.NewMemoryStore()
			m := manager(t, store, cfg)
			body := strings.NewReader("a form")
			r := httptest.NewRequest("POST", "/account?id=1", body)
			r.AddCookie(&http.Cookie{Name: "color", Value: "green"})
			got := sessiontest.Request(t, m, r, func(s *session2.Session) {
				s.SetUser("alice")
				s.Set("k", 1)
			})
			if len(r.Cookies()) != 1 || body.Len() != 6 {
				t.Error("Request has changed r, or read its body")
			}
			if text, err := io.ReadAll(got.Body); string(text) != "a form" || err != nil || got.Method != "POST" ||
				got.URL.String() != r.URL.String() {
				t.Errorf("it is not a clone: %q, %v, %v", text, err, got.URL)
			}
			if c, err := got.Cookie("color"); err != nil || c.Value != "green" || len(got.Cookies()) != 2 {
				t.Errorf("cookies %d, %v", len(got.Cookies()), err)
			}
			do(m, got, func(s *session2.Session) {
				if s.User() != "alice" || s.Get("k") != 1 {
					t.Errorf("user %q, k = %v", s.User(), s.Get("k"))
				}
			})
			again := sessiontest.Request(t, m, got, func(s *session2.Session) { s.Set("k", s.Get("k").(int)+1) })
			do(m, again, func(s *session2.Session) {
				if s.User() != "alice" || s.Get("k") != 2 {
					t.Errorf("user %q, k = %v in a session that was prepared twice", s.User(), s.Get("k"))
				}
			})
			records := 0
			for range store.Iter(t.Context()) {
				records++
			}
			if records != 1 && cfg.MaxPerUser == 0 {
				t.Errorf("%d records", records)
			}
		})
	}
}

// Within a handler of the same manager, and with a context that has ended, Request works
// as well.
func TestRequestWithinARequest(t *testing.T) {
	m := manager(t, session2.NewMemoryStore(), session2.Config{})
	m.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		cancel()
		got := sessiontest.Request(t, m, r.WithContext(ctx), alice)
		if m.Session(r).User() != "" || got.Context() != ctx {
			t.Error("the session of the request around it was changed")
		}
		do(m, got.WithContext(t.Context()), func(s *session2.Session) {
			if s.User() != "alice" {
				t.Errorf("user %q", s.User())
			}
		})
	})).ServeHTTP(httptest.NewRecorder(), get())
}

// Each way that a request can go: over TLS and plain HTTP, and by a header.
func TestEachWay(t *testing.T) {
	overTLS := func(r *http.Request) bool { return r.TLS != nil }
	secure := session2.Config{Cookie: session2.CookieConfig{SecureFunc: overTLS}}
	bearer := session2.Config{Transport: session2.Transport{Header: "Authorization"}}
	own := session2.Config{Transport: session2.Transport{Header: "x-session"}}
	only := session2.Config{Transport: session2.Transport{Header: "Authorization", HeaderOnly: true}}
	for name, c := range map[string]struct {
		cfg       session2.Config
		url, line string
		by        string // the header that has the token
	}{
		"plain HTTP":       {session2.Config{}, "http://example.com/", "", "Cookie"},
		"SecureFunc, TLS":  {secure, "https://example.com/", "", "Cookie"},
		"SecureFunc":       {secure, "http://example.com/", "", "Cookie"},
		"no header":        {bearer, "https://example.com/", "", "Cookie"},
		"bearer":           {bearer, "https://example.com/", "Authorization: Bearer", "Authorization"},
		"own header":       {own, "https://example.com/", "X-Session: ", "X-Session"},
		"header only":      {only, "https://example.com/", "", "Authorization"},
		"somebody's basic": {bearer, "https://example.com/", "Authorization: Basic eA==", "Cookie"},
	} {
		t.Run(name, func(t *testing.T) {
			var log strings.Builder
			c.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			m, err := session2.NewManager(session2.NewMemoryStore(), c.cfg)
			if err != nil {
				t.Fatal(err)
			}
			request := func() *http.Request {
				r := httptest.NewRequest("GET", c.url, nil)
				if key, value, ok := strings.Cut(c.line, ": "); ok {
					r.Header.Set(key, value)
				}
				return r
			}
			r := sessiontest.Request(t, m, request(), alice)
			for _, header := range []string{"Cookie", "Authorization", "X-Session"} {
				if has := len(r.Header.Get(header)) > 40; has != (header == c.by) {
					t.Errorf("a token is in %s: %v", header, has)
				}
			}
			is := func(r *http.Request, want string) (user string) {
				t.Helper()
				do(m, r, func(s *session2.Session) { user = s.User() })
				if user != want {
					t.Errorf("user %q, want %q", user, want)
				}
				return user
			}
			is(r, "alice")
			r = sessiontest.Request(t, m, r, func(s *session2.Session) { s.Set("k", s.User()) })
			is(r, "alice")

			resp := do(m, r, func(s *session2.Session) { s.Renew() })
			if s := sessiontest.After(t, m, r, resp); s.User() != "alice" || s.Get("k") != "alice" {
				t.Errorf("After has %q, k = %v", s.User(), s.Get("k"))
			}
			r = sessiontest.Next(r, resp, request())
			is(r, "alice")
			r = sessiontest.Next(r, do(m, r, alice), request())
			is(r, "alice")
			is(sessiontest.Next(r, do(m, r, func(*session2.Session) {}), request()), "alice")

			resp = do(m, r, (*session2.Session).Destroy)
			if s := sessiontest.After(t, m, r, resp); s.User() != "" || !s.IsNew() {
				t.Errorf("After a logout: %q", s.User())
			}
			r = sessiontest.Next(r, resp, request())
			is(r, "")
			resp = do(m, r, func(s *session2.Session) { s.SetUser("bob") })
			is(sessiontest.Next(r, resp, request()), "bob")
			if strings.Contains(log.String(), "plain HTTP") && name != "plain HTTP" {
				t.Errorf("it is warned: %s", log.String())
			}
		})
	}
}

// Request warns of nothing that is the test's own, as that its request has come over plain HTTP.
func TestRequestWarnsOfNothing(t *testing.T) {
	var log strings.Builder
	m, err := session2.NewManager(session2.NewMemoryStore(),
		session2.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	r := sessiontest.Request(t, m, get(), alice)
	if r.TLS != nil || len(r.Header) != 1 || strings.Contains(log.String(), "WARN") {
		t.Errorf("TLS %v, header %q, log %s", r.TLS != nil, r.Header, log.String())
	}
}

// fatal is a testing.TB whose end can be looked at.
type fatal struct {
	testing.TB
	said string
}

func (f *fatal) Helper() {}

func (f *fatal) Fatal(args ...any) { f.Fatalf("%v", args...) }

func (f *fatal) Fatalf(format string, args ...any) {
	f.said = format
	for _, a := range args {
		if err, ok := a.(error); ok {
			f.said += err.Error()
		}
		if text, ok := a.(string); ok {
			f.said += text
		}
	}
	panic(f)
}

// saidBy returns by what text do ends its test.
func saidBy(t *testing.T, do func(t testing.TB)) string {
	f := &fatal{TB: t}
	func() {
		defer func() {
			if p := recover(); p != nil && p != any(f) {
				panic(p)
			}
		}()
		do(f)
	}()
	return f.said
}

func TestWhatEndsTheTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // where the store is asked within the millisecond, however busy the machine is
		store := sessiontest.NewStore(session2.NewMemoryStore())
		m := manager(t, store, session2.Config{CommitTimeout: time.Millisecond})
		down := errors.New("the store is down")
		r := sessiontest.Request(t, m, get(), alice)
		resp := &http.Response{}
		for want, prepare := range map[string]func(*session2.Session){
			"holds nothing":     func(*session2.Session) {},
			"cannot be encoded": func(s *session2.Session) { s.Set("f", func() {}) },
		} {
			said := saidBy(t, func(t testing.TB) { sessiontest.Request(t, m, get(), prepare) })
			if !strings.Contains(said, want) {
				t.Errorf("it says %q, want %q", said, want)
			}
		}
		store.Fail(down, "Save")
		said := saidBy(t, func(t testing.TB) { sessiontest.Request(t, m, get(), alice) })
		if !strings.Contains(said, down.Error()) {
			t.Errorf("of a store that is down it says %q", said)
		}
		store.Fail(down, "Load")
		said = saidBy(t, func(t testing.TB) { sessiontest.After(t, m, r, resp) })
		if !strings.Contains(said, down.Error()) {
			t.Errorf("of a store that is down After says %q", said)
		}
		store.Fail(nil)
		if got := sessiontest.After(t, m, r, resp).User(); got != "alice" {
			t.Errorf("user %q once the store is back", got)
		}
	})
}

func TestAfter(t *testing.T) {
	m := manager(t, session2.NewMemoryStore(), session2.Config{})
	in := sessiontest.Request(t, m, get(), alice)
	for name, c := range map[string]struct {
		r    *http.Request
		f    func(s *session2.Session)
		user string
		k    any
	}{
		"nothing":       {get(), func(*session2.Session) {}, "", nil},
		"a new session": {get(), func(s *session2.Session) { s.Set("k", 1) }, "", 1},
		"no new cookie": {in, func(s *session2.Session) { s.Set("k", 2) }, "alice", 2},
		"a logout": {sessiontest.Request(t, m, get(), func(s *session2.Session) { s.SetUser("bob") }),
			(*session2.Session).Destroy, "", nil},
	} {
		s := sessiontest.After(t, m, c.r, do(m, c.r, c.f))
		if s.User() != c.user || s.Get("k") != c.k || s.IsNew() != (c.user == "" && c.k == nil) {
			t.Errorf("%s: user %q, k = %v, new: %t", name, s.User(), s.Get("k"), s.IsNew())
		}
	}
	resp := do(m, in, (*session2.Session).Renew)
	if s := sessiontest.After(t, m, in, resp); s.User() != "alice" {
		t.Errorf("after Renew the browser is %q", s.User())
	}
	if s := sessiontest.After(t, m, in, &http.Response{}); s.User() != "" || !s.IsNew() {
		t.Errorf("a browser that has lost the response of Renew is %q", s.User())
	}
}

// To look at a session changes nothing, not even what is due.
func TestAfterChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session2.NewMemoryStore()
		m := manager(t, store, session2.Config{RenewEvery: 5 * time.Minute})
		r := sessiontest.Request(t, m, get(), alice)
		id := sessiontest.After(t, m, r, &http.Response{}).ID()
		before, err := store.Load(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if s := sessiontest.After(t, m, r, &http.Response{}); s.User() != "alice" {
			t.Errorf("user %q", s.User())
		}
		after, err := store.Load(t.Context(), id)
		if err != nil || after.Version != before.Version || !after.Accessed.Equal(before.Accessed) {
			t.Errorf("the record was written: %v", err)
		}
		time.Sleep(31 * time.Minute)
		if s := sessiontest.After(t, m, r, &http.Response{}); s.User() != "" || !s.IsNew() {
			t.Errorf("user %q after the idle limit", s.User())
		}
	})
}

func TestNext(t *testing.T) {
	r := get()
	r.Header.Set("Cookie", "a=1; b=2; c=3; d=4")
	resp := &http.Response{Header: http.Header{"Set-Cookie": {
		"a=; Max-Age=0", "b=5; Path=/", "c=; Expires=Thu, 01 Jan 1970 00:00:01 GMT", `e="6 7"; Max-Age=9`,
	}}}
	next := httptest.NewRequest("POST", "/next", strings.NewReader("x"))
	next.Header.Set("Cookie", "f=8")
	got := sessiontest.Next(r, resp, next)
	if line := got.Header.Get("Cookie"); line != `d=4; b=5; e="6 7"` || got.Method != "POST" || got.URL.Path != "/next" {
		t.Errorf("%s %s with %q", got.Method, got.URL, line)
	}
	if r.Header.Get("Cookie") != "a=1; b=2; c=3; d=4" || next.Header.Get("Cookie") != "f=8" {
		t.Error("Next has changed what it was given")
	}
	if got := sessiontest.Next(get(), &http.Response{}, get()); len(got.Header["Cookie"]) > 0 {
		t.Errorf("a Cookie header of nothing: %q", got.Header["Cookie"])
	}
}

func TestStoreKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(testing.TB, string) session2.Store {
		return sessiontest.NewStore(session2.NewMemoryStore())
	}, nil)
}

// plain is a store that can do nothing but what it must.
type plain struct{ session2.Store }

func TestStoreOfFewMethods(t *testing.T) {
	s := sessiontest.NewStore(plain{session2.NewMemoryStore()})
	m := manager(t, s, session2.Config{})
	sessiontest.Request(t, m, get(), alice)
	if s.Capabilities() != (session2.Capabilities{}) || s.Close() != nil || s.Setup(t.Context()) != nil {
		t.Error("a store without them has capabilities, or a Setup or Close that fails")
	}
	if _, err := s.DeleteUser(t.Context(), "alice"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("DeleteUser = %v", err)
	}
	if _, err := s.DeleteOld(t.Context(), 0); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("DeleteOld = %v", err)
	}
	if err := s.Touch(t.Context(), session2.ID{}, time.Now(), time.Now()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Touch = %v", err)
	}
	for _, err := range s.IterUser(t.Context(), "alice") {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("IterUser yields %v", err)
		}
	}
	for _, err := range s.Iter(t.Context()) {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Iter yields %v", err)
		}
	}
}

func TestStoreFailsByMethod(t *testing.T) {
	ctx := t.Context()
	s := sessiontest.NewStore(session2.NewMemoryStore())
	calls := map[string]func() error{
		"Load":       func() error { _, err := s.Load(ctx, session2.ID{}); return err },
		"Save":       func() error { return s.Save(ctx, session2.Record{Version: 1}, 0) },
		"Delete":     func() error { return s.Delete(ctx, session2.ID{}) },
		"Has":        func() error { _, err := s.Has(ctx, session2.ID{}); return err },
		"Setup":      func() error { return s.Setup(ctx) },
		"DeleteOld":  func() error { _, err := s.DeleteOld(ctx, time.Hour); return err },
		"DeleteUser": func() error { _, err := s.DeleteUser(ctx, "alice"); return err },
		"Touch":      func() error { return s.Touch(ctx, session2.ID{}, time.Now(), time.Now()) },
		"Iter": func() (err error) {
			for _, err = range s.Iter(ctx) {
			}
			return err
		},
		"IterUser": func() (err error) {
			for _, err = range s.IterUser(ctx, "alice") {
			}
			return err
		},
	}
	down := errors.New("down")
	for name := range calls {
		s.Fail(down, name)
		for other, call := range calls {
			if err := call(); (err == down) != (other == name) {
				t.Errorf("%s = %v where %s fails", other, err, name)
			}
		}
		s.Fail(nil)
	}
	s.Fail(down)
	for name, call := range calls {
		if err := call(); err != down {
			t.Errorf("%s = %v where all fail", name, err)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("Fail takes any name")
		}
	}()
	s.Fail(down, "save")
}

// A store that is down costs a 503, and a bubble no time; one that refuses is not asked again.
func TestFailingSaveInABubble(t *testing.T) {
	for _, c := range []struct {
		err       error
		takes     time.Duration
		uncertain bool
	}{
		{errors.New("down"), 5 * time.Second, true},
		{fs.ErrPermission, 0, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			var told error
			store := sessiontest.NewStore(session2.NewMemoryStore())
			m := manager(t, store, session2.Config{ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) {
				told = err
			}})
			r := sessiontest.Request(t, m, get(), alice)
			store.Fail(c.err, "Save")
			begun := time.Now()
			resp := do(m, r, func(s *session2.Session) { s.Set("k", 1) })
			took := time.Since(begun).Round(time.Second)
			if resp.StatusCode != http.StatusServiceUnavailable || took != c.takes ||
				errors.Is(told, session2.ErrUncertain) != c.uncertain || !errors.Is(told, c.err) {
				t.Errorf("%v: status %d after %v, %v", c.err, resp.StatusCode, took, told)
			}
			store.Fail(nil)
			if s := sessiontest.After(t, m, r, resp); s.Has("k") || s.User() != "alice" {
				t.Error("a failed request has left a trace")
			}
		})
	}
}
