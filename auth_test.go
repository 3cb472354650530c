package session2_test

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

func TestAuthentication(t *testing.T) {
	eachReal(t, func(t *testing.T, respond func(http.ResponseWriter, *http.Request)) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		b := &testsite.Browser{}
		visit := func(f func(s *session2.Session)) {
			t.Helper()
			time.Sleep(time.Minute)
			st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
				f(s)
				respond(w, r)
			})
		}
		want := func(when string, level int, at time.Time) {
			t.Helper()
			visit(func(s *session2.Session) {
				ago := time.Since(at)
				if s.Level() != level || !s.AuthenticatedAt().Equal(at) {
					t.Errorf("%s: level %d at %v, want %d at %v", when, s.Level(), s.AuthenticatedAt(), level, at)
				}
				if s.AuthenticatedWithin(ago) || s.AuthenticatedWithin(ago+time.Second) != (level > 0) {
					t.Errorf("%s: AuthenticatedWithin is wrong about %v", when, ago)
				}
			})
		}
		var at time.Time
		now := func() { at = time.Now().UTC().Truncate(time.Microsecond) }
		visit(func(s *session2.Session) { s.Set("cart", "book") })
		want("nobody", 0, time.Time{})
		visit(func(s *session2.Session) { s.SetUser("alice"); now() })
		want("a login", 1, at)
		token := b.Token()
		visit(func(s *session2.Session) { s.SetLevel(2); now() })
		want("a second factor", 2, at)
		if b.Token() == token {
			t.Error("SetLevel leaves the token")
		}
		visit(func(s *session2.Session) { s.Renew() })
		want("a renewal proves nothing", 2, at)
		visit(func(s *session2.Session) { s.SetLevel(2); now() })
		want("the second factor again", 2, at)
		visit(func(s *session2.Session) { s.SetLevel(1) })
		want("giving up privileges proves nothing", 1, at)
		visit(func(s *session2.Session) { s.SetLevel(3); now() })
		want("a third factor", 3, at)
		visit(func(s *session2.Session) { s.SetUser("alice"); now() })
		want("a password again", 1, at)
		visit(func(s *session2.Session) { s.SetUser("alice"); s.SetLevel(2); now() })
		want("both at once", 2, at)
		visit(func(s *session2.Session) { s.SetUser("bob"); now() })
		want("another user", 1, at)
		visit(func(s *session2.Session) { s.SetLevel(2) })
		visit(func(s *session2.Session) { s.SetUser("") })
		want("signed out", 0, time.Time{})
		visit(func(s *session2.Session) { s.SetUser("alice"); now() })
		want("signed in after that", 1, at)
	})
}

func TestSetLevelOfNobodyIsAMistake(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	for _, f := range []func(s *session2.Session){
		func(s *session2.Session) { s.SetLevel(0) },
		func(s *session2.Session) { s.SetLevel(-1) },
		func(s *session2.Session) { s.SetLevel(256) },
		func(s *session2.Session) { s.SetUser(""); s.SetLevel(2) },
		func(s *session2.Session) { s.Destroy(); s.SetLevel(2) },
	} {
		res := st.Do(b, func(s *session2.Session) {
			f(s)
			if s.Err() == nil {
				t.Error("no error")
			}
		})
		if res.StatusCode != 500 || st.UserOf(b) != "alice" {
			t.Errorf("status %d, user %q", res.StatusCode, st.UserOf(b))
		}
	}
}

// SetLevel does not begin Lifetime anew: one factor does not extend a session of two.
func TestSetLevelExtendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Lifetime: time.Hour, IdleTimeout: -1})
		b := st.Login("alice")
		time.Sleep(59 * time.Minute)
		st.Do(b, func(s *session2.Session) { s.SetLevel(2) })
		time.Sleep(time.Minute)
		if user := st.UserOf(b); user != "" {
			t.Errorf("after the Lifetime: user %q", user)
		}
	})
}

// A request that was under way when the level changed is refused: it was served as
// another one.
func TestARequestBesideSetLevelIsStale(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	other := b.Clone()
	res, _ := st.During(other, func(s *session2.Session) { s.Set("k", 1) }, func() {
		st.Do(b, func(s *session2.Session) { s.SetLevel(2) })
	}, func(*session2.Session) {})
	if res.StatusCode != 409 || st.UserOf(other) != "" || st.UserOf(b) != "alice" {
		t.Errorf("status %d, the old token is %q's", res.StatusCode, st.UserOf(other))
	}
}

// Whoever knows the password and the token from before a login gets nothing that the
// login has proved more: neither by a second factor in the login's own request nor by
// one since; and a login that proves more shares nothing with one that proved less.
func TestALoginsTwinInheritsNoLevel(t *testing.T) {
	password := func(s *session2.Session) { s.SetUser("alice") }
	both := func(s *session2.Session) { s.SetUser("alice"); s.SetLevel(2) }
	for _, test := range []struct {
		name          string
		first, second func(*session2.Session)
		since         func(*session2.Session)
		level         int
		joins         bool
	}{
		{"password, then both", password, both, nil, 2, false},
		{"both, then the password", both, password, nil, 1, false},
		{"both, twice", both, both, nil, 2, true},
		{"a second factor since", password, password, func(s *session2.Session) { s.SetLevel(2) }, 1, false},
	} {
		for _, late := range []bool{true, false} {
			t.Run(test.name, func(t *testing.T) {
				st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
				b := &testsite.Browser{}
				st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
				other := b.Clone()
				first := func() {
					st.Do(b, test.first)
					if test.since != nil {
						st.Do(b, test.since)
					}
				}
				if late { // it comes after the first, or was under way
					first()
					st.Do(other, test.second)
				} else {
					st.During(other, func(s *session2.Session) { s.User() }, first, test.second)
				}
				if joins := other.Token() == b.Token(); joins != test.joins {
					t.Errorf("late %t: joins %t", late, joins)
				}
				st.Do(other, func(s *session2.Session) {
					if s.User() != "alice" || s.Level() != test.level {
						t.Errorf("late %t: user %q, level %d", late, s.User(), s.Level())
					}
				})
			})
		}
	}
}

// A record of a release before there were levels, signed in, says level 1 since its
// creation. One without a second factor is still written as it was then.
func TestGoldenAuthentication(t *testing.T) {
	ctx := t.Context()
	secret, created := [32]byte{1, 2, 3}, time.Now().Add(-time.Minute).UTC().Truncate(time.Microsecond)
	sum := sha256.Sum256(secret[:])
	since := binary.BigEndian.AppendUint64(nil, uint64(created.UnixMicro()))
	former := session2.Record{ID: session2.ID{7}, Version: 5, User: "alice", Created: created, Accessed: created,
		Expires: time.Now().Add(time.Hour),
		Data:    slices.Concat([]byte{1, 1, 40}, sum[:], since, []byte{3, 8, 0, 0, 0, 0, 0, 0, 0, 5}, []byte("\x06\x091.2.3.4:5"))}
	formerly := session2.NewMemoryStore()
	testsite.Must(t, formerly.Save(ctx, former, 0))
	token := session2.EncodeToken(former.ID, secret)
	testsite.NewSite(t, formerly, session2.Config{}).Cookies([]string{token}, func(s *session2.Session) {
		if s.User() != "alice" || s.Level() != 1 || !s.AuthenticatedAt().Equal(created) {
			t.Errorf("user %q, level %d at %v, want 1 at %v", s.User(), s.Level(), s.AuthenticatedAt(), created)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		store := session2.NewMemoryStore()
		st := testsite.NewSite(t, store, session2.Config{})
		b := st.Login("alice")
		rec := testsite.RecordsOf(t, store)[0]
		plain := slices.Clone(rec.Data)
		const tagAuth = 16
		if slices.Contains(sections(t, plain), tagAuth) {
			t.Fatal("a login without a second factor stores a section of its own")
		}
		created := rec.Created
		time.Sleep(10 * time.Minute)
		st.Do(b, func(s *session2.Session) {
			if s.Level() != 1 || !s.AuthenticatedAt().Equal(created) {
				t.Errorf("level %d at %v, want 1 at the creation, %v", s.Level(), s.AuthenticatedAt(), created)
			}
			s.SetLevel(2)
		})
		rec, err := store.Load(ctx, rec.ID)
		testsite.Must(t, err)
		if !slices.Contains(sections(t, rec.Data), tagAuth) {
			t.Error("a second factor is not stored")
		}
		state, err := session2.DecodeState(rec.Data)
		testsite.Must(t, err)
		if string(session2.EncodeState(state)) != string(rec.Data) {
			t.Error("the record is not what it was")
		}
	})
	for _, bad := range []string{"", "\x01",
		"\x00\x00\x00\x00\x00\x00\x00\x00\x01", "\x02\x00\x00\x00\x00\x00\x00\x00\x00",
		"\x02\x00\x00\x00\x00\x00\x00\x00\x01\x01"} {
		identity := "\x01\x28" + strings.Repeat("x", 40)
		data := "\x01" + identity + "\x10" + string(rune(len(bad))) + bad
		if _, err := session2.DecodeState([]byte(data)); err == nil {
			t.Errorf("the section %q is taken", bad)
		}
		if _, err := session2.DecodeState([]byte("\x01" + identity + "\x0f\x01x")); err == nil {
			t.Error("a section of another release is taken")
		}
	}
}

// sections returns the tags of a record's Data.
func sections(t *testing.T, data []byte) (tags []byte) {
	t.Helper()
	for at := 1; at < len(data); {
		tags = append(tags, data[at])
		n, width := int(data[at+1]), 1
		if n >= 128 {
			n, width = n&127|int(data[at+2])<<7, 2
		}
		at += 1 + width + n
	}
	return tags
}

func TestPresets(t *testing.T) {
	for name, test := range map[string]struct {
		cfg                session2.Config
		overall, idle, off time.Duration
	}{
		"AAL1": {session2.AAL1(), 30 * 24 * time.Hour, 0, 0},
		"AAL2": {session2.AAL2(), 24 * time.Hour, time.Hour, 0},
		"AAL3": {session2.AAL3(), 12 * time.Hour, 15 * time.Minute, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := testsite.NewSite(t, session2.NewMemoryStore(), test.cfg)
				b := st.Login("alice")
				step := 10 * time.Minute
				if test.idle == 0 {
					step = 24 * time.Hour
				}
				for began := time.Now(); time.Since(began) < test.overall; time.Sleep(step) {
					if st.UserOf(b) != "alice" {
						t.Fatalf("a session in use ends after %v", time.Since(began))
					}
				}
				if st.UserOf(b) != "" {
					t.Error("no overall limit")
				}
				b = st.Login("alice")
				time.Sleep(test.idle)
				if (st.UserOf(b) == "") != (test.idle > 0) {
					t.Error("the idle limit is wrong")
				}
			})
		})
	}
}

func TestClearSiteData(t *testing.T) {
	const all, keeps = `"cache", "cookies", "storage"`, `"cache", "storage"`
	logout := func(s *session2.Session) { s.Destroy() }
	eachReal(t, func(t *testing.T, respond func(http.ResponseWriter, *http.Request)) {
		for name, test := range map[string]struct {
			f    func(s *session2.Session)
			want string
		}{
			"logout":             {logout, all},
			"logout, committed":  {func(s *session2.Session) { s.Destroy(); s.Commit(t.Context()) }, all},
			"logout and flash":   {func(s *session2.Session) { s.Destroy(); s.Flash("bye") }, keeps},
			"logout, discarded":  {func(s *session2.Session) { s.Destroy(); s.Discard() }, ""},
			"committed, dropped": {func(s *session2.Session) { s.Destroy(); s.Commit(t.Context()); s.Discard() }, all},
			"came to be empty":   {func(s *session2.Session) { s.SetUser("") }, ""},
			"read":               {func(s *session2.Session) { s.User() }, ""},
		} {
			for _, on := range []bool{true, false} {
				st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{ClearSiteData: on})
				b := st.Login("alice")
				res := st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					test.f(s)
					respond(w, r)
				})
				want := test.want
				if !on {
					want = ""
				}
				if got := res.Header.Get("Clear-Site-Data"); got != want {
					t.Errorf("%s, on %t: %q, want %q", name, on, got, want)
				}
			}
		}
	})
	store := testsite.NewBrittle()
	st := testsite.NewSite(t, store, session2.Config{ClearSiteData: true, CommitTimeout: testsite.TinyTimeout})
	b := st.Login("alice")
	store.FailDelete.Store(true)
	if res := st.Do(b, logout); res.StatusCode != 503 || res.Header.Get("Clear-Site-Data") != "" {
		t.Errorf("a logout that failed: status %d, %v", res.StatusCode, res.Header)
	}
	store.FailDelete.Store(false)
	res := st.Visit(b, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
		s.Destroy()
		w.WriteHeader(500)
	})
	if res.Header.Get("Clear-Site-Data") != "" {
		t.Error("a logout that was answered with 500 clears the browser")
	}
	res = st.Visit(b, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
		s.Destroy()
		w.Header().Set("Clear-Site-Data", `"*"`)
	})
	if got := res.Header.Values("Clear-Site-Data"); !slices.Equal(got, []string{`"*"`}) {
		t.Errorf("the handler's own: %q", got)
	}
}

func TestRevokeAll(t *testing.T) {
	ctx := t.Context()
	inEachStore(t, func(t *testing.T, store houseStore) {
		st := testsite.NewSite(t, store, session2.Config{})
		shop := testsite.NewSite(t, store, session2.Config{Realm: "shop"})
		alice, bob, carol, anon := st.Login("alice"), st.Login("bob"), shop.Login("carol"), &testsite.Browser{}
		st.Do(anon, func(s *session2.Session) { s.Set("cart", "book") })
		var late error
		st.During(alice, func(s *session2.Session) { s.Set("k", 1) }, func() {
			if n, err := st.M.RevokeAll(ctx); n != 3 || err != nil {
				t.Errorf("RevokeAll = %d, %v", n, err)
			}
		}, func(s *session2.Session) { late = s.Commit(ctx) })
		if !errors.Is(late, session2.ErrNotFound) {
			t.Errorf("a request under way: %v", late)
		}
		if st.UserOf(alice)+st.UserOf(bob) != "" || st.Stored(anon, "cart") != nil {
			t.Error("a session has survived")
		}
		if shop.UserOf(carol) != "carol" {
			t.Error("another realm's session was ended")
		}
		if n := st.M.Count(session2.EventRevoked); n != 3 || st.Events.Count(session2.EventRevoked) != 3 {
			t.Errorf("%d events", n)
		}
	})
	st := testsite.NewSite(t, struct{ session2.Store }{session2.NewMemoryStore()}, session2.Config{})
	if _, err := st.M.RevokeAll(ctx); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("RevokeAll of a store that lists nothing: %v", err)
	}
}

func TestNotBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session2.NewMemoryStore()
		before := testsite.NewSite(t, store, session2.Config{})
		old, again := before.Login("alice"), before.Login("alice")
		time.Sleep(time.Minute)
		restart := time.Now()
		before.Do(again, func(s *session2.Session) { s.SetUser("alice") })
		time.Sleep(time.Minute)
		st := testsite.NewSite(t, store, session2.Config{NotBefore: restart})
		if st.UserOf(old) != "" || st.UserOf(again) != "alice" || st.UserOf(st.Login("bob")) != "bob" {
			t.Error("not those sessions have ended that began before")
		}
		if n := len(liveSessions(t, st.M, "alice")); n != 1 || st.Events.Count(session2.EventExpired) != 1 {
			t.Errorf("%d sessions are listed, %d events", n, st.Events.Count(session2.EventExpired))
		}
		if _, err := session2.NewManager(store, session2.Config{NotBefore: time.Now().Add(time.Hour)}); err == nil {
			t.Error("a time in the future is not refused")
		}
	})
}

func TestAnomalies(t *testing.T) {
	from := func(addr, agent string) func(*http.Request) {
		return func(r *http.Request) {
			r.RemoteAddr = addr
			r.Header.Set("User-Agent", agent)
		}
	}
	for _, on := range []bool{true, false} {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Anomalies: on})
		visit := func(b *testsite.Browser, as func(*http.Request), f func(s *session2.Session)) {
			r := httptest.NewRequest("GET", "https://example.com/", nil)
			as(r)
			b.Send(r)
			w := httptest.NewRecorder()
			st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) { f(s) }).ServeHTTP(w, r)
			b.Receive(w.Result())
		}
		look := func(s *session2.Session) { s.User(); s.Get("k"); s.Set("k", 1); s.Commit(t.Context()) }
		long := strings.Repeat("Firefox ", 40)
		anon, b := &testsite.Browser{}, &testsite.Browser{}
		visit(anon, from("192.0.2.1:1000", long), func(s *session2.Session) { s.Set("k", 1) })
		visit(anon, from("192.0.2.2:1000", "curl"), look) // nobody's
		visit(b, from("192.0.2.1:1000", long), func(s *session2.Session) { s.SetUser("alice") })
		visit(b, from("192.0.2.1:2000", long), look) // another connection
		if n := st.Events.Count(session2.EventAnomaly); n != 0 {
			t.Fatalf("%d false alarms", n)
		}
		visit(b, from("192.0.2.2:1000", long), look)
		visit(b, from("192.0.2.1:1000", "curl"), look)
		visit(b, from("[2001:db8::1]:1000", "curl"), look)
		var got []session2.Event
		for _, e := range st.Events.List {
			if e.Kind == session2.EventAnomaly {
				got = append(got, e)
			}
		}
		if !on {
			if len(got) != 0 {
				t.Errorf("%d events that nobody asked for", len(got))
			}
			continue
		}
		if len(got) != 3 {
			t.Fatalf("%d events, want one for each of 3 requests", len(got))
		}
		for i, want := range [][2]bool{{true, false}, {false, true}, {true, true}} {
			e := got[i]
			addr, agent := errors.Is(e.Err, session2.ErrOtherAddress), errors.Is(e.Err, session2.ErrOtherAgent)
			if addr != want[0] || agent != want[1] || e.User != "alice" || e.ID == (session2.ID{}) {
				t.Errorf("event %d: %+v", i, e)
			}
			for _, value := range []string{"192", "2001", "curl", "Firefox"} {
				if strings.Contains(e.Err.Error(), value) {
					t.Errorf("event %d shows values: %v", i, e.Err)
				}
			}
		}
	}
}

func TestCount(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	for range 3 {
		st.Cookies([]string{session2.EncodeToken(session2.ID{1}, [32]byte{})}, func(s *session2.Session) { s.User() })
	}
	for kind := session2.EventKind(-1); kind < 20; kind++ {
		want := uint64(0)
		if kind == session2.EventUnknown {
			want = 3
		}
		if got := st.M.Count(kind); got != want {
			t.Errorf("Count(%v) = %d, want %d", kind, got, want)
		}
	}
}
