package session2_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
)

// handlers are as applications have them: what the second commit of a
// request does is hidden by one that writes nothing.
var handlers = map[string]func(w http.ResponseWriter, r *http.Request){
	"writes nothing": func(http.ResponseWriter, *http.Request) {},
	"writes a body":  func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") },
	"redirects":      func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/next", http.StatusSeeOther) },
	"streams": func(w http.ResponseWriter, _ *http.Request) {
		for range 3 {
			io.WriteString(w, "part")
			w.(http.Flusher).Flush()
		}
	},
	"commits twice": func(w http.ResponseWriter, r *http.Request) {
		s := session2.FromContext(r.Context())
		s.Commit(r.Context())
		s.Commit(r.Context())
		io.WriteString(w, "hello")
	},
}

// eachReal runs a test with each kind of handler, on a clock of its own.
func eachReal(t *testing.T, f func(t *testing.T, respond func(w http.ResponseWriter, r *http.Request))) {
	for name, respond := range handlers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, respond) })
		})
	}
}

func TestASuccessorIsSeenWhenAClientComesWithIt(t *testing.T) {
	eachReal(t, func(t *testing.T, respond func(http.ResponseWriter, *http.Request)) {
		store := newHookStore()
		st := newSite(t, store, session2.Config{RenewEvery: 10 * time.Minute})
		b := st.login("alice")
		visit := func(b *browser) (user string) {
			st.visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
				user = s.User()
				respond(w, r)
			})
			return user
		}
		time.Sleep(11 * time.Minute)
		saves := store.count("save")
		lost := b.clone()
		if user := visit(lost); user != "alice" || lost.token() == b.token() {
			t.Fatalf("user %q, new token %t; want a rotation", user, lost.token() != b.token())
		}
		if n := store.count("save") - saves; n != 1 {
			t.Errorf("a rotation cost %d saves, want 1", n)
		}
		// That answer was lost. The client goes on with what it has, for long.
		for range 3 {
			time.Sleep(5 * time.Minute)
			again := b.clone()
			if user := visit(again); user != "alice" || again.token() != lost.token() {
				t.Fatalf("user %q, same successor %t: the client was locked out", user, again.token() == lost.token())
			}
		}
		if n := st.events.count(session2.EventReuse) + st.events.count(session2.EventUnknown); n != 0 {
			t.Errorf("%d alarms about an honest client", n)
		}
		// Now it arrives. The predecessor's grace begins with its first request.
		if user := visit(lost); user != "alice" {
			t.Fatalf("user %q by the successor", user)
		}
		time.Sleep(31 * time.Second)
		if user := visit(b.clone()); user != "" || st.events.count(session2.EventReuse) != 1 {
			t.Errorf("user %q, %d reuse events; want nobody and 1", user, st.events.count(session2.EventReuse))
		}
	})
}

func TestTheNextRotationIsDueFromTheFirstSight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.NewMemoryStore(), session2.Config{RenewEvery: 10 * time.Minute})
		b := st.login("alice")
		time.Sleep(11 * time.Minute)
		st.userOf(b) // rotates
		for _, step := range []struct {
			after   time.Duration
			rotates bool
		}{{9 * time.Minute, false}, {9 * time.Minute, false}, {2 * time.Minute, true}} {
			time.Sleep(step.after)
			old := b.token()
			if st.userOf(b); (b.token() != old) != step.rotates {
				t.Errorf("%v after: rotated %t, want %t", step.after, b.token() != old, step.rotates)
			}
		}
	})
}

// cookies serves one request with these cookie values.
func (st *site) cookies(values []string, f func(s *session2.Session)) *http.Response {
	st.t.Helper()
	lines := slices.Clone(values)
	for i := range lines {
		lines[i] = "__Host-session=" + lines[i]
	}
	return st.request(lines, f)
}

func TestARetiredTokenBesideTheCurrentOneIsNoTheft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.NewMemoryStore(), session2.Config{RenewEvery: 10 * time.Minute})
		b := st.login("alice")
		old := b.token()
		time.Sleep(11 * time.Minute)
		st.userOf(b)
		st.userOf(b) // the successor is seen
		time.Sleep(5 * time.Minute)
		for _, both := range [][]string{{old, b.token()}, {b.token(), old}} {
			st.cookies(both, func(s *session2.Session) {
				if s.User() != "alice" {
					t.Errorf("User() = %q, want alice", s.User())
				}
			})
		}
		if n := st.events.count(session2.EventReuse); n != 0 {
			t.Errorf("%d reuse events", n)
		}
		if st.userOf(b) != "alice" {
			t.Error("the session was ended")
		}
	})
}

// Two sessions by two cookies are nobody's, until a login or logout ends both.
func TestALoginOrLogoutEndsAllThatWerePresented(t *testing.T) {
	store := session2.NewMemoryStore()
	st := newSite(t, store, session2.Config{})
	for name, c := range map[string]struct {
		do      func(s *session2.Session)
		user    string // of the session that is left, if one is
		records int
	}{
		"login":                    {func(s *session2.Session) { s.SetUser("carol") }, "carol", 1},
		"logout":                   {func(s *session2.Session) { s.Destroy() }, "", 0},
		"logout and login":         {func(s *session2.Session) { s.Destroy(); s.SetUser("carol") }, "carol", 1},
		"login that is discarded":  {func(s *session2.Session) { s.SetUser("carol"); s.Discard() }, "", 2},
		"logout that is discarded": {func(s *session2.Session) { s.Destroy(); s.Discard() }, "", 2},
	} {
		t.Run(name, func(t *testing.T) {
			alice, bob := st.login("alice"), st.login("bob")
			res := st.cookies([]string{alice.token(), bob.token()}, func(s *session2.Session) {
				if s.User() != "" {
					t.Errorf("two sessions are %q", s.User())
				}
				c.do(s)
			})
			if n := records(t, store); n != c.records {
				t.Errorf("%d records are left, want %d", n, c.records)
			}
			b := &browser{}
			b.receive(res)
			if user := st.userOf(b); user != c.user {
				t.Errorf("the answer's cookie is %q's, want %q", user, c.user)
			}
			if c.records < 2 && len(res.Cookies()) != 1 {
				t.Errorf("cookies %v, want one", res.Cookies())
			}
			st.do(b, (*session2.Session).Destroy)
			st.m.RevokeUser(t.Context(), "alice")
			st.m.RevokeUser(t.Context(), "bob")
		})
	}
}

func TestALogoutAlwaysRevokesTheCookie(t *testing.T) {
	store := session2.NewMemoryStore()
	st := newSite(t, store, session2.Config{})
	gone := st.login("alice")
	for rec := range store.Iter(t.Context()) {
		st.m.Revoke(t.Context(), rec.ID)
	}
	for name, token := range map[string]string{"of a session that has ended": gone.token(), "that is no token": "garbage"} {
		if res := st.cookies([]string{token}, func(s *session2.Session) { s.User() }); len(res.Cookies()) != 0 {
			t.Errorf("a read with a cookie %s: cookies %v", name, res.Cookies())
		}
		res := st.cookies([]string{token}, func(s *session2.Session) { s.Destroy() })
		if c := res.Cookies(); len(c) != 1 || c[0].MaxAge >= 0 {
			t.Errorf("a logout with a cookie %s: cookies %v, want it revoked", name, c)
		}
	}
	if res := st.do(&browser{}, (*session2.Session).Destroy); len(res.Cookies()) != 0 {
		t.Errorf("a logout without a cookie: cookies %v", res.Cookies())
	}
}

func TestFormerCookiesGoWithALoginOrLogout(t *testing.T) {
	cfg := session2.Config{Cookie: session2.CookieConfig{Former: []session2.CookieConfig{
		{Name: "sid", Domain: "example.com"}, {Name: "__Host-session", Partitioned: true}}}}
	st := newSite(t, session2.NewMemoryStore(), cfg)
	b := &browser{}
	want := func(res *http.Response, what string, n int) {
		t.Helper()
		revoked := 0
		for _, c := range res.Cookies() {
			if c.MaxAge < 0 && (c.Domain == "example.com" || c.Partitioned) {
				revoked++
			}
		}
		if revoked != n {
			t.Errorf("%s: %d former cookies revoked in %q, want %d", what, revoked, res.Header["Set-Cookie"], n)
		}
	}
	want(st.do(b, func(s *session2.Session) { s.Set("k", 1) }), "a first change", 0)
	res := st.do(b, func(s *session2.Session) { s.SetUser("alice") })
	want(res, "login", 2)
	if lines := res.Header["Set-Cookie"]; len(lines) != 3 || res.Cookies()[2].MaxAge < 0 {
		t.Errorf("login: %q, want the session's own cookie last", lines)
	}
	b.cookie = res.Cookies()[2]
	want(st.do(b, (*session2.Session).Destroy), "logout", 2)
}

// Where a session's time runs out while a request is under way, it has ended for
// that request, too.
func TestARunningRequestDoesNotReviveAnExpiredSession(t *testing.T) {
	changes := map[string]func(*session2.Session){
		"reads":      func(s *session2.Session) { s.Get("k") },
		"writes":     func(s *session2.Session) { s.Set("k", 1) },
		"renews":     (*session2.Session).Renew,
		"is a form":  func(s *session2.Session) { s.UseFormToken(context.Background(), s.FormToken()) },
		"looks anew": func(s *session2.Session) { s.Check(context.Background()) },
	}
	for name, change := range changes {
		for limit, cfg := range map[string]session2.Config{
			"idle":     {IdleTimeout: 10 * time.Minute},
			"absolute": {Lifetime: 10 * time.Minute, IdleTimeout: -1, AccessResolution: time.Minute},
		} {
			t.Run(name+", "+limit, func(t *testing.T) {
				eachReal(t, func(t *testing.T, respond func(http.ResponseWriter, *http.Request)) {
					st := newSite(t, session2.NewMemoryStore(), cfg)
					b := st.login("alice")
					slow := b.clone()
					var err error
					res := st.visit(slow, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
						s.User()
						time.Sleep(11 * time.Minute)
						if user := st.userOf(b); user != "" { // others are told that it has expired
							t.Fatalf("user %q after the limit", user)
						}
						change(s)
						respond(w, r)
						err = s.Err()
					})
					if user := st.userOf(b); user != "" {
						t.Errorf("the session of %q is back", user)
					}
					if len(res.Cookies()) != 0 || res.StatusCode >= 400 {
						t.Errorf("status %d, cookies %v", res.StatusCode, res.Cookies())
					}
					if err != nil && !errors.Is(err, session2.ErrNotFound) {
						t.Errorf("Err() = %v", err)
					}
				})
			})
		}
	}
}

// A request that runs for longer than the idle limit goes on in a session that
// others have used meanwhile.
func TestALongRequestInASessionThatOthersUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.NewMemoryStore(), session2.Config{IdleTimeout: 10 * time.Minute})
		b := st.login("alice")
		st.during(b.clone(), func(s *session2.Session) { s.User() }, func() {
			for range 3 {
				time.Sleep(6 * time.Minute)
				st.userOf(b)
			}
		}, func(s *session2.Session) { s.Set("k", 1) })
		if got := st.stored(b, "k"); got != 1 {
			t.Errorf("k = %v, want 1", got)
		}
	})
}

func TestACookieThatAnEarlierCommitOwesIsCheckedAgain(t *testing.T) {
	for name, end := range map[string]func(w http.ResponseWriter){
		"body":        func(w http.ResponseWriter) { io.WriteString(w, "hello") },
		"end":         func(http.ResponseWriter) {},
		"a failure":   func(w http.ResponseWriter) { w.WriteHeader(500) },
		"a panic":     func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"a last save": nil,
	} {
		t.Run(name, func(t *testing.T) {
			store := newHookStore()
			st := newSite(t, store, session2.Config{})
			b := st.login("alice")
			slow := b.clone()
			run := func(meanwhile func(b *browser), loads int) *http.Response {
				var res *http.Response
				h := st.handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					s.Renew()
					if err := s.Commit(r.Context()); err != nil {
						t.Fatal(err)
					}
					now := &browser{cookie: &http.Cookie{Name: "__Host-session", Value: s.Token()}}
					meanwhile(now)
					before := store.count("load")
					defer func() {
						if n := store.count("load") - before; end != nil && n > loads {
							t.Errorf("%d loads at the end, want %d", n, loads)
						}
					}()
					if end == nil {
						s.Set("k", 1)
						return
					}
					end(w)
				})
				w := recordPanics(h, slow)
				res = w.Result()
				return res
			}
			res := run(func(now *browser) { st.do(now, (*session2.Session).Renew); b = now }, 1)
			if len(res.Cookies()) != 0 {
				t.Errorf("a token that another request has replaced went out: %v", res.Cookies())
			}
			if user := st.userOf(b); user != "alice" {
				t.Errorf("user %q by the newer token", user)
			}
			slow = b.clone()
			res = run(func(*browser) {}, 1)
			if len(res.Cookies()) != 1 {
				t.Errorf("cookies %v, want the one that the commit owes", res.Cookies())
			}
			slow.receive(res)
			gone := slow.clone()
			slow = gone.clone()
			if res = run(func(now *browser) { st.do(now, (*session2.Session).Destroy) }, 1); len(res.Cookies()) != 0 {
				t.Errorf("the token of a session that has ended went out: %v", res.Cookies())
			}
		})
	}
}

func TestALoginsTwinInheritsNothingThatWasProvedSince(t *testing.T) {
	changes := map[string]func(*session2.Session){
		"Renew":          (*session2.Session).Renew,
		"another login":  func(s *session2.Session) { s.SetUser("alice") },
		"logout, signed": func(s *session2.Session) { s.SetUser(""); s.SetUser("alice"); s.Set("vault", "open") },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			st := newSite(t, session2.NewMemoryStore(), session2.Config{})
			b := &browser{}
			st.do(b, func(s *session2.Session) { s.Set("cart", "book") })
			late := b.clone()
			st.do(b, func(s *session2.Session) { s.SetUser("alice") })
			st.do(b, func(s *session2.Session) { change(s); s.Set("second factor", true) })
			st.do(late, func(s *session2.Session) { s.SetUser("alice") })
			if late.token() == b.token() {
				t.Fatal("the twin was given the token that somebody else has proved more for")
			}
			if got := st.stored(late, "second factor"); got != nil {
				t.Errorf("the twin has inherited a second factor: %v", got)
			}
			if st.userOf(late) != "alice" || st.userOf(b) != "alice" {
				t.Error("one of the two is not signed in")
			}
		})
	}
}

// The answer to a create is lost, somebody ends the session, and only then is the
// store asked again.
func TestACreateThatWasDeletedDoesNotComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := newSite(t, store, session2.Config{})
		var first session2.ID
		store.onSave = func(rec session2.Record, _ session2.Version, save func() error) error {
			if first != (session2.ID{}) {
				return save()
			}
			first = rec.ID
			if err := save(); err != nil {
				return err
			}
			if n, err := st.m.RevokeUser(t.Context(), "alice"); n != 1 || err != nil {
				t.Errorf("RevokeUser = %d, %v", n, err)
			}
			return errDown
		}
		b := &browser{}
		res := st.do(b, func(s *session2.Session) { s.SetUser("alice") })
		if there, _ := store.Has(t.Context(), first); there {
			t.Error("a session that was ended is back under its ID")
		}
		if user := st.userOf(b); (res.StatusCode == 200) != (user == "alice") {
			t.Errorf("status %d, user %q", res.StatusCode, user)
		}
	})
}

func TestALoginBeginsTheSessionsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.NewMemoryStore(), session2.Config{Lifetime: 24 * time.Hour, IdleTimeout: -1, RenewEvery: time.Hour})
		b := &browser{}
		st.do(b, func(s *session2.Session) { s.Set("cart", "book") })
		time.Sleep(23*time.Hour + 50*time.Minute)
		twin := b.clone()
		st.do(b, func(s *session2.Session) {
			s.SetUser("alice")
			if left := time.Until(s.Expires()); left != 24*time.Hour {
				t.Errorf("%v are left after the login, want 24h", left)
			}
		})
		time.Sleep(20 * time.Second)
		st.do(twin, func(s *session2.Session) { s.SetUser("alice") }) // joins, and begins nothing
		st.do(b, func(s *session2.Session) {
			if left := time.Until(s.Expires()); left != 24*time.Hour-20*time.Second {
				t.Errorf("%v are left after the login's twin", left)
			}
		})
		time.Sleep(12 * time.Hour)
		st.do(b, (*session2.Session).Renew)
		time.Sleep(11*time.Hour + 59*time.Minute)
		if user := st.userOf(b); user != "alice" {
			t.Errorf("user %q before the login's 24 hours are over", user)
		}
		time.Sleep(2 * time.Minute)
		if user := st.userOf(b); user != "" {
			t.Errorf("user %q after the login's 24 hours: Renew or a rotation has extended them", user)
		}
	})
}

func TestRemember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.NewMemoryStore(), session2.Config{})
		const days = 24 * time.Hour
		b := &browser{}
		res := st.do(b, func(s *session2.Session) { s.SetUser("alice"); s.Remember(30 * days) })
		if c := res.Cookies(); len(c) != 1 || c[0].MaxAge != int(30*days/time.Second) {
			t.Errorf("cookies %v, want a Max-Age of 30 days", c)
		}
		time.Sleep(29 * days)
		if user := st.userOf(b); user != "alice" {
			t.Errorf("user %q after 29 idle days", user)
		}
		time.Sleep(2 * days)
		if user := st.userOf(b); user != "" {
			t.Errorf("user %q after 31 days", user)
		}
		if res := st.do(&browser{}, func(s *session2.Session) { s.Set("k", 1); s.Remember(0) }); res.StatusCode != 500 {
			t.Errorf("Remember(0): status %d, want 500", res.StatusCode)
		}
	})
}

func TestASessionsOwnIdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.NewMemoryStore(), session2.Config{})
		for _, c := range []struct {
			own        time.Duration
			lasts, not time.Duration
		}{{5 * time.Second, 4 * time.Second, 5 * time.Second}, {time.Hour, 59 * time.Minute, time.Hour},
			{-1, 23 * time.Hour, 24 * time.Hour}, {0, 29 * time.Minute, 30 * time.Minute}} {
			b := st.login("alice")
			st.do(b, func(s *session2.Session) { s.SetIdleTimeout(c.own) })
			if c.own > 0 {
				for range 5 { // used, it goes on
					time.Sleep(c.lasts)
					if st.userOf(b) != "alice" {
						t.Fatalf("%v: it ended although it was used", c.own)
					}
				}
			}
			time.Sleep(c.lasts)
			if user := st.userOf(b.clone()); user != "alice" && c.own >= 0 {
				t.Errorf("%v: user %q after %v", c.own, user, c.lasts)
			}
			time.Sleep(c.not)
			if user := st.userOf(b); user != "" {
				t.Errorf("%v: user %q after %v more", c.own, user, c.not)
			}
		}
	})
}

// A page that polls does not keep its session alive, whatever the handler does.
func TestPassive(t *testing.T) {
	eachReal(t, func(t *testing.T, respond func(http.ResponseWriter, *http.Request)) {
		st := newSite(t, session2.NewMemoryStore(), session2.Config{IdleTimeout: 10 * time.Minute})
		b := st.login("alice")
		var user string
		for i := range 12 {
			time.Sleep(time.Minute)
			st.visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
				s.Passive()
				user = s.User()
				if i%2 == 1 && user != "" {
					s.Set("polls", i)
				}
				s.Check(r.Context())
				respond(w, r)
			})
			if want := i < 9; (user == "alice") != want {
				t.Fatalf("user %q after %d minutes of polling", user, i+1)
			}
			if i >= 9 {
				return
			}
		}
	})
}

func TestCheck(t *testing.T) {
	ends := map[string]struct {
		do   func(st *site, b *browser)
		ends bool
	}{
		"nothing":            {func(*site, *browser) {}, false},
		"a change":           {func(st *site, b *browser) { st.do(b, func(s *session2.Session) { s.Set("k", 1) }) }, false},
		"Renew":              {func(st *site, b *browser) { st.do(b, (*session2.Session).Renew) }, false},
		"a login again":      {func(st *site, b *browser) { st.do(b, func(s *session2.Session) { s.SetUser("alice") }) }, false},
		"many rotations":     {func(st *site, b *browser) { rotations(st, b, 50) }, false},
		"a logout":           {func(st *site, b *browser) { st.do(b, (*session2.Session).Destroy) }, true},
		"RevokeUser":         {func(st *site, b *browser) { st.m.RevokeUser(context.Background(), "alice") }, true},
		"somebody else":      {func(st *site, b *browser) { st.do(b, func(s *session2.Session) { s.SetUser("bob") }) }, true},
		"the idle limit":     {func(*site, *browser) { time.Sleep(31 * time.Minute) }, true},
		"the absolute limit": {func(st *site, b *browser) { rotations(st, b, 30*60/11) }, true},
	}
	for name, c := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := newSite(t, session2.NewMemoryStore(), session2.Config{RenewEvery: 10 * time.Minute})
				b := st.login("alice")
				st.visit(b.clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					s.User()
					w.(http.Flusher).Flush()
					c.do(st, b)
					err := s.Check(r.Context())
					if c.ends != errors.Is(err, session2.ErrNotFound) || !c.ends && err != nil {
						t.Errorf("Check = %v, want an end: %t", err, c.ends)
					}
				})
				if n := st.events.count(session2.EventReuse); n != 0 {
					t.Errorf("%d reuse events", n)
				}
			})
		})
	}
}

// rotations uses the session every 11 minutes.
func rotations(st *site, b *browser, n int) {
	for range n {
		time.Sleep(11 * time.Minute)
		st.userOf(b)
	}
}

func TestCheckIsAUse(t *testing.T) {
	for name, store := range map[string]session2.Store{
		"with Touch": session2.NewMemoryStore(), "without": struct{ session2.Store }{session2.NewMemoryStore()}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := newSite(t, store, session2.Config{})
				b := st.login("alice")
				st.visit(b.clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					s.User()
					w.(http.Flusher).Flush()
					for range 10 {
						time.Sleep(20 * time.Minute)
						if err := s.Check(r.Context()); err != nil {
							t.Fatalf("Check = %v", err)
						}
					}
				})
				if user := st.userOf(b); user != "alice" {
					t.Errorf("user %q after a stream that looked at the session", user)
				}
			})
		})
	}
}

func TestCheckWhereNothingIsStored(t *testing.T) {
	store := newHookStore()
	st := newSite(t, store, session2.Config{})
	st.do(&browser{}, func(s *session2.Session) {
		if err := s.Check(t.Context()); err != nil {
			t.Errorf("Check of an anonymous visitor's session = %v", err)
		}
	})
	b := st.login("alice")
	st.visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.Destroy()
		if err := s.Check(r.Context()); !errors.Is(err, session2.ErrNotFound) {
			t.Errorf("Check after Destroy = %v", err)
		}
	})
	b = st.login("alice")
	st.visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.User()
		store.set(func() { store.onLoad = func(session2.ID) error { return errDown } })
		if err := s.Check(r.Context()); !errors.Is(err, errDown) || errors.Is(err, session2.ErrNotFound) {
			t.Errorf("Check on a store that is down = %v", err)
		}
	})
}

// A handler that polls by Manager.Open and its own token is no thief.
func TestATokenThatThisProcessHandedOutIsNoReuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.NewMemoryStore(), session2.Config{RenewEvery: 10 * time.Minute})
		b := st.login("alice")
		var token string
		st.visit(b.clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			token = s.Token()
			for range 5 {
				rotations(st, b, 2)
				if o, err := st.m.Open(r.Context(), token); err != nil || o.User() != "alice" {
					t.Fatalf("Open = %v, %v", o, err)
				}
			}
		})
		if n := st.events.count(session2.EventReuse); n != 0 || st.userOf(b) != "alice" {
			t.Errorf("%d reuse events, user %q", n, st.userOf(b))
		}
		if _, err := st.m.Open(t.Context(), token); !errors.Is(err, session2.ErrNotFound) || st.events.count(session2.EventReuse) != 1 {
			t.Errorf("after the handler: %v, %d reuse events; want ErrNotFound and 1", err, st.events.count(session2.EventReuse))
		}
	})
}

func TestRealms(t *testing.T) {
	store := session2.NewMemoryStore()
	realm := func(name string) *site { return newSite(t, store, session2.Config{Realm: name}) }
	sites := []*site{realm(""), realm("admin"), realm("tenant")}
	var browsers []*browser
	for i, st := range sites {
		b := st.login("alice")
		st.do(b, func(s *session2.Session) { s.Set("site", i) })
		anonymous := &browser{}
		st.do(anonymous, func(s *session2.Session) { s.Set("site", i) })
		browsers = append(browsers, b, anonymous)
	}
	for i, b := range browsers {
		for j, st := range sites {
			want := any(nil)
			if i/2 == j {
				want = j
			}
			if got := st.stored(b.clone(), "site"); got != want {
				t.Errorf("the cookie of site %d at site %d reads %v, want %v", i/2, j, got, want)
			}
		}
	}
	admin := browsers[2]
	var id session2.ID
	sites[1].do(admin, func(s *session2.Session) { id = s.ID() })
	if err := sites[0].m.Revoke(t.Context(), id); err != nil || sites[1].userOf(admin) != "alice" {
		t.Errorf("Revoke by another realm: %v, user %q", err, sites[1].userOf(admin))
	}
	if _, err := sites[2].m.Open(t.Context(), admin.token()); !errors.Is(err, session2.ErrNotFound) {
		t.Errorf("Open by another realm: %v", err)
	}
	for i, st := range sites {
		if n, err := st.m.RevokeUser(t.Context(), "alice"); n != 1 || err != nil {
			t.Errorf("site %d: RevokeUser = %d, %v, want 1", i, n, err)
		}
		for j := i + 1; j < len(sites); j++ {
			if user := sites[j].userOf(browsers[2*j]); user != "alice" {
				t.Errorf("RevokeUser at site %d has ended a session of site %d", i, j)
			}
		}
	}
}

// A user's name that looks like another realm's is not one.
func TestAUserCannotNameARealm(t *testing.T) {
	store := session2.NewMemoryStore()
	site, admin := newSite(t, store, session2.Config{}), newSite(t, store, session2.Config{Realm: "admin"})
	b := admin.login("alice")
	for rec := range store.Iter(t.Context()) {
		forged := site.login(rec.User)
		if user := site.userOf(forged); user != rec.User {
			t.Errorf("user %q, want %q", user, rec.User)
		}
		if n, err := site.m.RevokeUser(t.Context(), rec.User); n != 1 || err != nil {
			t.Errorf("RevokeUser = %d, %v", n, err)
		}
	}
	if user := admin.userOf(b); user != "alice" {
		t.Errorf("the admin's session is %q's", user)
	}
	for _, bad := range []string{"a\x1fb", "a\nb", fmt.Sprintf("%065d", 0)} {
		if _, err := session2.NewManager(store, session2.Config{Realm: bad}); err == nil {
			t.Errorf("the realm %q was taken", bad)
		}
	}
}
