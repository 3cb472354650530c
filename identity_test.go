package session2_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// handlers are as applications have them: what the second commit of a
// request does is hidden by one that writes nothing.
var handlers = map[string]func(w http.ResponseWriter, r *http.Request){
	"writes nothing": func(http.ResponseWriter, *http.Request) {},
	"writes a body":  func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") },
	"redirects": func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/next", http.StatusSeeOther)
	},
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
		st := testsite.NewSite(t, store, session2.Config{RenewEvery: 10 * time.Minute})
		b := st.Login("alice")
		visit := func(b *testsite.Browser) (user string) {
			st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
				user = s.User()
				respond(w, r)
			})
			return user
		}
		time.Sleep(11 * time.Minute)
		saves := store.count("save")
		lost := b.Clone()
		if user := visit(lost); user != "alice" || lost.Token() == b.Token() {
			t.Fatalf("user %q, new token %t; want a rotation", user, lost.Token() != b.Token())
		}
		if n := store.count("save") - saves; n != 1 {
			t.Errorf("a rotation cost %d saves, want 1", n)
		}
		// That answer was lost. The client goes on with what it has, for long.
		for range 3 {
			time.Sleep(5 * time.Minute)
			again := b.Clone()
			if user := visit(again); user != "alice" || again.Token() != lost.Token() {
				t.Fatalf("user %q, same successor %t: the client was locked out", user, again.Token() == lost.Token())
			}
		}
		if n := st.Events.Count(session2.EventReuse) + st.Events.Count(session2.EventUnknown); n != 0 {
			t.Errorf("%d alarms about an honest client", n)
		}
		// Now it arrives. The predecessor's grace begins with its first request.
		if user := visit(lost); user != "alice" {
			t.Fatalf("user %q by the successor", user)
		}
		time.Sleep(31 * time.Second)
		if user := visit(b.Clone()); user != "" || st.Events.Count(session2.EventReuse) != 1 {
			t.Errorf("user %q, %d reuse events; want nobody and 1", user, st.Events.Count(session2.EventReuse))
		}
	})
}

func TestTheNextRotationIsDueFromTheFirstSight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{RenewEvery: 10 * time.Minute})
		b := st.Login("alice")
		time.Sleep(11 * time.Minute)
		st.UserOf(b) // rotates
		for _, step := range []struct {
			after   time.Duration
			rotates bool
		}{{9 * time.Minute, false}, {9 * time.Minute, false}, {2 * time.Minute, true}} {
			time.Sleep(step.after)
			old := b.Token()
			if st.UserOf(b); (b.Token() != old) != step.rotates {
				t.Errorf("%v after: rotated %t, want %t", step.after, b.Token() != old, step.rotates)
			}
		}
	})
}

func TestARetiredTokenBesideTheCurrentOneIsNoTheft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{RenewEvery: 10 * time.Minute})
		b := st.Login("alice")
		old := b.Token()
		time.Sleep(11 * time.Minute)
		st.UserOf(b)
		st.UserOf(b) // the successor is seen
		time.Sleep(5 * time.Minute)
		for _, both := range [][]string{{old, b.Token()}, {b.Token(), old}} {
			st.Cookies(both, func(s *session2.Session) {
				if s.User() != "alice" {
					t.Errorf("User() = %q, want alice", s.User())
				}
			})
		}
		if n := st.Events.Count(session2.EventReuse); n != 0 {
			t.Errorf("%d reuse events", n)
		}
		if st.UserOf(b) != "alice" {
			t.Error("the session was ended")
		}
	})
}

// Two sessions by two cookies are nobody's, until a login or logout ends both.
func TestALoginOrLogoutEndsAllThatWerePresented(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{})
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
			alice, bob := st.Login("alice"), st.Login("bob")
			res := st.Cookies([]string{alice.Token(), bob.Token()}, func(s *session2.Session) {
				if s.User() != "" {
					t.Errorf("two sessions are %q", s.User())
				}
				c.do(s)
			})
			if n := records(t, store); n != c.records {
				t.Errorf("%d records are left, want %d", n, c.records)
			}
			b := &testsite.Browser{}
			b.Receive(res)
			if user := st.UserOf(b); user != c.user {
				t.Errorf("the answer's cookie is %q's, want %q", user, c.user)
			}
			if c.records < 2 && len(res.Cookies()) != 1 {
				t.Errorf("cookies %v, want one", res.Cookies())
			}
			st.Do(b, (*session2.Session).Destroy)
			st.M.RevokeUser(t.Context(), "alice")
			st.M.RevokeUser(t.Context(), "bob")
		})
	}
}

func TestALogoutAlwaysRevokesTheCookie(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{})
	gone := st.Login("alice")
	for rec := range store.Iter(t.Context()) {
		st.M.Revoke(t.Context(), rec.ID)
	}
	for name, token := range map[string]string{
		"of a session that has ended": gone.Token(),
		"that is no token":            "garbage",
	} {
		if res := st.Cookies([]string{token}, func(s *session2.Session) { s.User() }); len(res.Cookies()) != 0 {
			t.Errorf("a read with a cookie %s: cookies %v", name, res.Cookies())
		}
		res := st.Cookies([]string{token}, func(s *session2.Session) { s.Destroy() })
		if c := res.Cookies(); len(c) != 1 || c[0].MaxAge >= 0 {
			t.Errorf("a logout with a cookie %s: cookies %v, want it revoked", name, c)
		}
	}
	if res := st.Do(&testsite.Browser{}, (*session2.Session).Destroy); len(res.Cookies()) != 0 {
		t.Errorf("a logout without a cookie: cookies %v", res.Cookies())
	}
}

func TestFormerCookiesGoWithALoginOrLogout(t *testing.T) {
	cfg := session2.Config{Cookie: session2.CookieConfig{Former: []session2.CookieConfig{
		{Name: "sid", Domain: "example.com"}, {Name: "__Host-session", Partitioned: true}}}}
	st := testsite.NewSite(t, session2.NewMemoryStore(), cfg)
	b := &testsite.Browser{}
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
	want(st.Do(b, func(s *session2.Session) { s.Set("k", 1) }), "a first change", 0)
	res := st.Do(b, func(s *session2.Session) { s.SetUser("alice") })
	want(res, "login", 2)
	if lines := res.Header["Set-Cookie"]; len(lines) != 3 || res.Cookies()[2].MaxAge < 0 {
		t.Errorf("login: %q, want the session's own cookie last", lines)
	}
	b.Cookie = res.Cookies()[2]
	want(st.Do(b, (*session2.Session).Destroy), "logout", 2)
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
					st := testsite.NewSite(t, session2.NewMemoryStore(), cfg)
					b := st.Login("alice")
					slow := b.Clone()
					var err error
					res := st.Visit(slow, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
						s.User()
						time.Sleep(11 * time.Minute)
						if user := st.UserOf(b); user != "" { // others are told that it has expired
							t.Fatalf("user %q after the limit", user)
						}
						change(s)
						respond(w, r)
						err = s.Err()
					})
					if user := st.UserOf(b); user != "" {
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
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{IdleTimeout: 10 * time.Minute})
		b := st.Login("alice")
		st.During(b.Clone(), func(s *session2.Session) { s.User() }, func() {
			for range 3 {
				time.Sleep(6 * time.Minute)
				st.UserOf(b)
			}
		}, func(s *session2.Session) { s.Set("k", 1) })
		if got := st.Stored(b, "k"); got != 1 {
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
			st := testsite.NewSite(t, store, session2.Config{})
			b := st.Login("alice")
			slow := b.Clone()
			run := func(meanwhile func(b *testsite.Browser), loads int) *http.Response {
				var res *http.Response
				h := st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					s.Renew()
					if err := s.Commit(r.Context()); err != nil {
						t.Fatal(err)
					}
					now := &testsite.Browser{Cookie: &http.Cookie{Name: "__Host-session", Value: s.Token()}}
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
				w := testsite.RecordPanics(h, slow)
				res = w.Result()
				return res
			}
			res := run(func(now *testsite.Browser) { st.Do(now, (*session2.Session).Renew); b = now }, 1)
			if len(res.Cookies()) != 0 {
				t.Errorf("a token that another request has replaced went out: %v", res.Cookies())
			}
			if user := st.UserOf(b); user != "alice" {
				t.Errorf("user %q by the newer token", user)
			}
			slow = b.Clone()
			res = run(func(*testsite.Browser) {}, 1)
			if len(res.Cookies()) != 1 {
				t.Errorf("cookies %v, want the one that the commit owes", res.Cookies())
			}
			slow.Receive(res)
			gone := slow.Clone()
			slow = gone.Clone()
			res = run(func(now *testsite.Browser) { st.Do(now, (*session2.Session).Destroy) }, 1)
			if len(res.Cookies()) != 0 {
				t.Errorf("the token of a session that has ended went out: %v", res.Cookies())
			}
		})
	}
}

// The store fails where the cookie of an earlier Commit is checked again. What the browser
// has is good as long as a successor was not seen, so nothing newer is put at risk.
func TestASuccessorThatCannotBeCheckedAgainIsLeftForTheNextResponse(t *testing.T) {
	set := func(s *session2.Session) { s.Set("k", 1) }
	login := func(s *session2.Session) { s.SetUser("alice") }
	for name, c := range map[string]struct {
		change, meanwhile func(s *session2.Session)
		cookies           int
	}{
		"rotation":            {set, nil, 0},
		"rotation, and Renew": {set, (*session2.Session).Renew, 0},
		"Renew":               {(*session2.Session).Renew, nil, 1},
		"login":               {login, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := testsite.NewBrittle()
				st := testsite.NewSite(t, store, session2.Config{RenewEvery: 10 * time.Minute})
				b := st.Login("alice")
				time.Sleep(11 * time.Minute)
				other := b.Clone()
				res := st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					c.change(s)
					testsite.Must(t, s.Commit(r.Context()))
					if c.meanwhile != nil {
						st.Do(other, c.meanwhile)
						b.Cookie = other.Cookie // it has come in the meantime
					}
					store.FailLoad.Store(true)
					io.WriteString(w, "hello")
				})
				store.FailLoad.Store(false)
				if n := len(res.Cookies()); n != c.cookies {
					t.Errorf("%d cookies, want %d", n, c.cookies)
				}
				for range 2 {
					if user := st.UserOf(b); user != "alice" {
						t.Errorf("the browser is served as %q", user)
					}
				}
			})
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
			st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
			b := &testsite.Browser{}
			st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
			late := b.Clone()
			st.Do(b, func(s *session2.Session) { s.SetUser("alice") })
			st.Do(b, func(s *session2.Session) { change(s); s.Set("second factor", true) })
			st.Do(late, func(s *session2.Session) { s.SetUser("alice") })
			if late.Token() == b.Token() {
				t.Fatal("the twin was given the token that somebody else has proved more for")
			}
			if got := st.Stored(late, "second factor"); got != nil {
				t.Errorf("the twin has inherited a second factor: %v", got)
			}
			if st.UserOf(late) != "alice" || st.UserOf(b) != "alice" {
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
		st := testsite.NewSite(t, store, session2.Config{})
		var first session2.ID
		store.onSave = func(rec session2.Record, _ session2.Version, save func() error) error {
			if first != (session2.ID{}) {
				return save()
			}
			first = rec.ID
			if err := save(); err != nil {
				return err
			}
			if n, err := st.M.RevokeUser(t.Context(), "alice"); n != 1 || err != nil {
				t.Errorf("RevokeUser = %d, %v", n, err)
			}
			return testsite.ErrDown
		}
		b := &testsite.Browser{}
		res := st.Do(b, func(s *session2.Session) { s.SetUser("alice") })
		if there, _ := store.Has(t.Context(), first); there {
			t.Error("a session that was ended is back under its ID")
		}
		if user := st.UserOf(b); (res.StatusCode == 200) != (user == "alice") {
			t.Errorf("status %d, user %q", res.StatusCode, user)
		}
	})
}

func TestALoginBeginsTheSessionsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := session2.Config{Lifetime: 24 * time.Hour, IdleTimeout: -1, RenewEvery: time.Hour}
		st := testsite.NewSite(t, session2.NewMemoryStore(), cfg)
		b := &testsite.Browser{}
		st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
		time.Sleep(23*time.Hour + 50*time.Minute)
		twin := b.Clone()
		st.Do(b, func(s *session2.Session) {
			s.SetUser("alice")
			if left := time.Until(s.Expires()); left != 24*time.Hour {
				t.Errorf("%v are left after the login, want 24h", left)
			}
		})
		time.Sleep(20 * time.Second)
		st.Do(twin, func(s *session2.Session) { s.SetUser("alice") }) // joins, and begins nothing
		st.Do(b, func(s *session2.Session) {
			if left := time.Until(s.Expires()); left != 24*time.Hour-20*time.Second {
				t.Errorf("%v are left after the login's twin", left)
			}
		})
		time.Sleep(12 * time.Hour)
		st.Do(b, (*session2.Session).Renew)
		time.Sleep(11*time.Hour + 59*time.Minute)
		if user := st.UserOf(b); user != "alice" {
			t.Errorf("user %q before the login's 24 hours are over", user)
		}
		time.Sleep(2 * time.Minute)
		if user := st.UserOf(b); user != "" {
			t.Errorf("user %q after the login's 24 hours: Renew or a rotation has extended them", user)
		}
	})
}

func TestRemember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		const days = 24 * time.Hour
		b := &testsite.Browser{}
		res := st.Do(b, func(s *session2.Session) { s.SetUser("alice"); s.Remember(30 * days) })
		if c := res.Cookies(); len(c) != 1 || c[0].MaxAge != int(30*days/time.Second) {
			t.Errorf("cookies %v, want a Max-Age of 30 days", c)
		}
		time.Sleep(29 * days)
		if user := st.UserOf(b); user != "alice" {
			t.Errorf("user %q after 29 idle days", user)
		}
		time.Sleep(2 * days)
		if user := st.UserOf(b); user != "" {
			t.Errorf("user %q after 31 days", user)
		}
		res = st.Do(&testsite.Browser{}, func(s *session2.Session) { s.Set("k", 1); s.Remember(0) })
		if res.StatusCode != 500 {
			t.Errorf("Remember(0): status %d, want 500", res.StatusCode)
		}
	})
}

func TestASessionsOwnIdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		for _, c := range []struct {
			own        time.Duration
			lasts, not time.Duration
		}{{5 * time.Second, 4 * time.Second, 5 * time.Second}, {time.Hour, 59 * time.Minute, time.Hour},
			{-1, 23 * time.Hour, 24 * time.Hour}, {0, 29 * time.Minute, 30 * time.Minute}} {
			b := st.Login("alice")
			st.Do(b, func(s *session2.Session) { s.SetIdleTimeout(c.own) })
			if c.own > 0 {
				for range 5 { // used, it goes on
					time.Sleep(c.lasts)
					if st.UserOf(b) != "alice" {
						t.Fatalf("%v: it ended although it was used", c.own)
					}
				}
			}
			time.Sleep(c.lasts)
			if user := st.UserOf(b.Clone()); user != "alice" && c.own >= 0 {
				t.Errorf("%v: user %q after %v", c.own, user, c.lasts)
			}
			time.Sleep(c.not)
			if user := st.UserOf(b); user != "" {
				t.Errorf("%v: user %q after %v more", c.own, user, c.not)
			}
		}
	})
}

// A page that polls does not keep its session alive, whatever the handler does.
func TestPassive(t *testing.T) {
	eachReal(t, func(t *testing.T, respond func(http.ResponseWriter, *http.Request)) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{IdleTimeout: 10 * time.Minute})
		b := st.Login("alice")
		var user string
		for i := range 12 {
			time.Sleep(time.Minute)
			st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
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
	do := func(f func(*session2.Session)) func(*testsite.Site, *testsite.Browser) {
		return func(st *testsite.Site, b *testsite.Browser) { st.Do(b, f) }
	}
	ends := map[string]struct {
		do   func(st *testsite.Site, b *testsite.Browser)
		ends bool
	}{
		"nothing":        {func(*testsite.Site, *testsite.Browser) {}, false},
		"a change":       {do(func(s *session2.Session) { s.Set("k", 1) }), false},
		"Renew":          {do((*session2.Session).Renew), false},
		"a login again":  {do(func(s *session2.Session) { s.SetUser("alice") }), false},
		"many rotations": {func(st *testsite.Site, b *testsite.Browser) { rotations(st, b, 50) }, false},
		"a logout":       {do((*session2.Session).Destroy), true},
		"RevokeUser": {func(st *testsite.Site, _ *testsite.Browser) {
			st.M.RevokeUser(context.Background(), "alice")
		}, true},
		"somebody else":      {do(func(s *session2.Session) { s.SetUser("bob") }), true},
		"the idle limit":     {func(*testsite.Site, *testsite.Browser) { time.Sleep(31 * time.Minute) }, true},
		"the absolute limit": {func(st *testsite.Site, b *testsite.Browser) { rotations(st, b, 30*60/11) }, true},
	}
	for name, c := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{RenewEvery: 10 * time.Minute})
				b := st.Login("alice")
				st.Visit(b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					s.User()
					w.(http.Flusher).Flush()
					c.do(st, b)
					err := s.Check(r.Context())
					if c.ends != errors.Is(err, session2.ErrNotFound) || !c.ends && err != nil {
						t.Errorf("Check = %v, want an end: %t", err, c.ends)
					}
				})
				if n := st.Events.Count(session2.EventReuse); n != 0 {
					t.Errorf("%d reuse events", n)
				}
			})
		})
	}
}

// rotations uses the session every 11 minutes.
func rotations(st *testsite.Site, b *testsite.Browser, n int) {
	for range n {
		time.Sleep(11 * time.Minute)
		st.UserOf(b)
	}
}

func TestCheckIsAUse(t *testing.T) {
	for name, store := range map[string]session2.Store{
		"with Touch": session2.NewMemoryStore(), "without": struct{ session2.Store }{session2.NewMemoryStore()}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := testsite.NewSite(t, store, session2.Config{})
				b := st.Login("alice")
				st.Visit(b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					s.User()
					w.(http.Flusher).Flush()
					for range 10 {
						time.Sleep(20 * time.Minute)
						if err := s.Check(r.Context()); err != nil {
							t.Fatalf("Check = %v", err)
						}
					}
				})
				if user := st.UserOf(b); user != "alice" {
					t.Errorf("user %q after a stream that looked at the session", user)
				}
			})
		})
	}
}

func TestCheckWhereNothingIsStored(t *testing.T) {
	store := newHookStore()
	st := testsite.NewSite(t, store, session2.Config{})
	st.Do(&testsite.Browser{}, func(s *session2.Session) {
		if err := s.Check(t.Context()); err != nil {
			t.Errorf("Check of an anonymous visitor's session = %v", err)
		}
	})
	b := st.Login("alice")
	st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.Destroy()
		if err := s.Check(r.Context()); !errors.Is(err, session2.ErrNotFound) {
			t.Errorf("Check after Destroy = %v", err)
		}
	})
	b = st.Login("alice")
	st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.User()
		store.set(func() { store.onLoad = func(session2.ID) error { return testsite.ErrDown } })
		if err := s.Check(r.Context()); !errors.Is(err, testsite.ErrDown) || errors.Is(err, session2.ErrNotFound) {
			t.Errorf("Check on a store that is down = %v", err)
		}
	})
}

// A handler that polls by Manager.Open and its own token is no thief.
func TestATokenThatThisProcessHandedOutIsNoReuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{RenewEvery: 10 * time.Minute})
		b := st.Login("alice")
		var token string
		st.Visit(b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			token = s.Token()
			for range 5 {
				rotations(st, b, 2)
				if o, err := st.M.Open(r.Context(), token); err != nil || o.User() != "alice" {
					t.Fatalf("Open = %v, %v", o, err)
				}
			}
		})
		if n := st.Events.Count(session2.EventReuse); n != 0 || st.UserOf(b) != "alice" {
			t.Errorf("%d reuse events, user %q", n, st.UserOf(b))
		}
		_, err := st.M.Open(t.Context(), token)
		if !errors.Is(err, session2.ErrNotFound) || st.Events.Count(session2.EventReuse) != 1 {
			t.Errorf("after the handler: %v, %d reuse events; want ErrNotFound and 1",
				err, st.Events.Count(session2.EventReuse))
		}
	})
}

func TestRealms(t *testing.T) {
	store := session2.NewMemoryStore()
	realm := func(name string) *testsite.Site { return testsite.NewSite(t, store, session2.Config{Realm: name}) }
	sites := []*testsite.Site{realm(""), realm("admin"), realm("tenant")}
	var browsers []*testsite.Browser
	for i, st := range sites {
		b := st.Login("alice")
		st.Do(b, func(s *session2.Session) { s.Set("site", i) })
		anonymous := &testsite.Browser{}
		st.Do(anonymous, func(s *session2.Session) { s.Set("site", i) })
		browsers = append(browsers, b, anonymous)
	}
	for i, b := range browsers {
		for j, st := range sites {
			want := any(nil)
			if i/2 == j {
				want = j
			}
			if got := st.Stored(b.Clone(), "site"); got != want {
				t.Errorf("the cookie of site %d at site %d reads %v, want %v", i/2, j, got, want)
			}
		}
	}
	admin := browsers[2]
	var id session2.ID
	sites[1].Do(admin, func(s *session2.Session) { id = s.ID() })
	if err := sites[0].M.Revoke(t.Context(), id); err != nil || sites[1].UserOf(admin) != "alice" {
		t.Errorf("Revoke by another realm: %v, user %q", err, sites[1].UserOf(admin))
	}
	if _, err := sites[2].M.Open(t.Context(), admin.Token()); !errors.Is(err, session2.ErrNotFound) {
		t.Errorf("Open by another realm: %v", err)
	}
	for i, st := range sites {
		if n, err := st.M.RevokeUser(t.Context(), "alice"); n != 1 || err != nil {
			t.Errorf("site %d: RevokeUser = %d, %v, want 1", i, n, err)
		}
		for j := i + 1; j < len(sites); j++ {
			if user := sites[j].UserOf(browsers[2*j]); user != "alice" {
				t.Errorf("RevokeUser at site %d has ended a session of site %d", i, j)
			}
		}
	}
}

// A user's name that looks like another realm's is not one.
func TestAUserCannotNameARealm(t *testing.T) {
	store := session2.NewMemoryStore()
	site := testsite.NewSite(t, store, session2.Config{})
	admin := testsite.NewSite(t, store, session2.Config{Realm: "admin"})
	b := admin.Login("alice")
	for rec := range store.Iter(t.Context()) {
		forged := site.Login(rec.User)
		if user := site.UserOf(forged); user != rec.User {
			t.Errorf("user %q, want %q", user, rec.User)
		}
		if n, err := site.M.RevokeUser(t.Context(), rec.User); n != 1 || err != nil {
			t.Errorf("RevokeUser = %d, %v", n, err)
		}
	}
	if user := admin.UserOf(b); user != "alice" {
		t.Errorf("the admin's session is %q's", user)
	}
	for _, bad := range []string{"a\x1fb", "a\nb", fmt.Sprintf("%065d", 0)} {
		if _, err := session2.NewManager(store, session2.Config{Realm: bad}); err == nil {
			t.Errorf("the realm %q was taken", bad)
		}
	}
}

// A passive request's Save takes back the accesses of others.
func TestPassiveSaveMovesAccessBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{}) // idle 30 min
		b := st.Login("alice")
		st.Visit(b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) { // a stream
			s.Passive()
			s.User()
			time.Sleep(20 * time.Minute)
			if st.UserOf(b) != "alice" { // the user clicks in another tab
				t.Error("expired before")
			}
			s.Set("progress", 1)
			if err := s.Commit(r.Context()); err != nil {
				t.Errorf("Commit = %v", err)
			}
			time.Sleep(11 * time.Minute)
			if user := st.UserOf(b); user != "alice" {
				t.Errorf("11 minutes after its last use the session, of 30 idle minutes, reads as %q", user)
			}
		})
	})
}

// A Save asked again after the session's time is over revives it.
func TestRetryRevivesExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{IdleTimeout: 10 * time.Minute})
		b := st.Login("alice")
		start := time.Now()
		deadline := start.Add(10 * time.Minute)
		var wg sync.WaitGroup
		n := 0
		var late time.Time
		store.set(func() {
			store.onSave = func(_ session2.Record, _ session2.Version, save func() error) error {
				if n++; n < 6 {
					if n == 5 {
						// answer just before the end
						time.Sleep(time.Until(deadline.Add(-time.Millisecond)))
					}
					return errors.New("connection reset")
				}
				late = time.Now()
				return save()
			}
		})
		wg.Go(func() { // is told that it has expired
			time.Sleep(time.Until(deadline))
			r := httptest.NewRequest("GET", "/", nil)
			b.Send(r)
			if u := st.UserOf(b.Clone()); u != "" {
				t.Errorf("not expired: %q", u)
			}
		})
		time.Sleep(time.Until(deadline.Add(-3 * time.Second)))
		res := st.Do(b.Clone(), func(s *session2.Session) { s.Set("k", 1) })
		wg.Wait()
		time.Sleep(time.Second)
		if u := st.UserOf(b.Clone()); u != "" {
			t.Errorf("status %d; a Save that began %v after the end revived the session of %q",
				res.StatusCode, late.Sub(deadline), u)
		}
	})
}

// An Update that runs again for long: its Save begins after the end.
func TestSlowUpdateRevivesExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{IdleTimeout: 10 * time.Minute})
		b := st.Login("alice")
		deadline := time.Now().Add(10 * time.Minute)
		var wg sync.WaitGroup
		wg.Go(func() {
			time.Sleep(time.Until(deadline))
			if u := st.UserOf(b.Clone()); u != "" {
				t.Errorf("not expired: %q", u)
			}
		})
		store.set(func() {
			store.onSave = func(_ session2.Record, _ session2.Version, save func() error) error {
				store.set(func() { store.onSave = nil })
				return session2.ErrConflict
			}
		})
		time.Sleep(time.Until(deadline.Add(-time.Second)))
		calls := 0
		res := st.Do(b.Clone(), func(s *session2.Session) {
			counter.Update(s, func(n int) int {
				if calls++; calls > 1 {
					time.Sleep(2 * time.Second)
				}
				return n + 1
			})
		})
		wg.Wait()
		if u := st.UserOf(b.Clone()); u != "" {
			t.Errorf("status %d: revived: %q", res.StatusCode, u)
		}
	})
}

// The next user inherits "remember me".
func TestRememberIsInherited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		b := &testsite.Browser{}
		st.Do(b, func(s *session2.Session) { s.SetUser("alice"); s.Remember(30 * 24 * time.Hour) })
		st.Do(b, func(s *session2.Session) { s.SetUser("bob") }) // without "remember me"
		if b.Cookie.MaxAge > 0 {
			t.Errorf("bob's cookie stays for %ds", b.Cookie.MaxAge)
		}
		time.Sleep(48 * time.Hour)
		if u := st.UserOf(b); u != "" {
			t.Errorf("%s is signed in after two idle days, for somebody else's Remember", u)
		}
	})
}

// After ErrLostUpdate of a login that came upon its twin, Discard leaves the request signed in.
func TestDiscardAfterALoginThatLost(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.Set("cart", 0) })
	other := b.Clone()
	st.Visit(b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.Get("cart")
		st.Do(other, func(s *session2.Session) { s.SetUser("alice"); s.Set("cart", 5); s.Set("secret", 1) })
		s.SetUser("alice")
		s.Set("cart", 1)
		err := s.Commit(r.Context())
		s.Discard()
		if u := s.User(); u != "" {
			secret := s.Get("secret")
			s.Set("x", 1)
			t.Errorf("after Commit = %v and Discard, User() = %q and secret = %v, but writes: %v",
				err, u, secret, s.Commit(r.Context()))
		}
	})
}
