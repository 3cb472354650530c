package session2_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
	"github.com/session2/session2/sessiontest"
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
		Data: slices.Concat([]byte{1, 1, 40}, sum[:], since, []byte{3, 8, 0, 0, 0, 0, 0, 0, 0, 5},
			[]byte("\x06\x091.2.3.4:5"))}
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

// liveSessions returns the IDs of a user's sessions.
func liveSessions(t testing.TB, m *session2.Manager, user string) (ids []session2.ID) {
	t.Helper()
	for info, err := range m.Sessions(context.Background(), user) {
		testsite.Must(t, err)
		ids = append(ids, info.ID)
	}
	return ids
}

// loginPage signs alice in, each time by another way of answering.
func loginPage(n int) func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
	return func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.SetUser("alice")
		s.Set("login", n)
		switch n % 4 {
		case 0:
			http.Redirect(w, r, "/", http.StatusSeeOther)
		case 1:
			io.WriteString(w, "Welcome.")
		case 2: // twice
			if s.Commit(r.Context()) == nil {
				s.Flash("Welcome.")
			}
		case 3: // a stream
			io.WriteString(w, "Wel")
			http.NewResponseController(w).Flush()
			io.WriteString(w, "come.")
		}
	}
}

// loginsAtOnce has so many browsers sign alice in at once, every other one out of a
// session that it has already, and returns how many were let in.
func loginsAtOnce(t *testing.T, sites []*testsite.Site, logins int) (in []*testsite.Browser) {
	browsers := make([]*testsite.Browser, logins)
	for i := range browsers {
		browsers[i] = &testsite.Browser{}
		if i%2 == 1 {
			sites[0].Do(browsers[i], func(s *session2.Session) { s.Set("cart", i) })
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i, b := range browsers {
		wg.Go(func() {
			res := sites[i%len(sites)].Visit(b, loginPage(i))
			mu.Lock()
			defer mu.Unlock()
			switch res.StatusCode {
			case http.StatusOK, http.StatusSeeOther:
				in = append(in, b)
			case http.StatusConflict:
			default:
				t.Errorf("login %d: status %d", i, res.StatusCode)
			}
		})
	}
	wg.Wait()
	return in
}

// TestMaxPerUser counts on every store that needs no server; sqltest does so on the
// others.
func TestMaxPerUser(t *testing.T) {
	for _, reject := range []bool{false, true} {
		for _, logins := range []int{4, 6} {
			t.Run(fmt.Sprintf("%d logins, reject %t", logins, reject), func(t *testing.T) {
				inEachStore(t, func(t *testing.T, store houseStore) {
					wantExactly(t, []session2.Store{store}, 3, logins, reject)
				})
			})
		}
	}
}

// Two handles on one directory are as good as two processes.
func TestMaxPerUserThroughSeveralProcesses(t *testing.T) {
	for name, open := range map[string]func(path string) (houseStore, error){
		"file": func(path string) (houseStore, error) { return session2.OpenFileStore(path, nil) },
		"gob":  func(path string) (houseStore, error) { return session2.OpenGobStore(path, nil) },
	} {
		for _, reject := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, reject %t", name, reject), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "s")
				var stores []session2.Store
				for range 2 {
					store, err := open(path)
					testsite.Must(t, err)
					defer store.Close()
					stores = append(stores, store)
				}
				wantExactly(t, stores, 3, 6, reject)
			})
		}
	}
}

// wantExactly has logins at once leave exactly n sessions.
func wantExactly(t *testing.T, stores []session2.Store, n, logins int, reject bool) {
	t.Helper()
	var sites []*testsite.Site
	for _, store := range stores {
		sites = append(sites, testsite.NewSite(t, store,
			session2.Config{MaxPerUser: n, RejectLogin: reject, CommitTimeout: time.Minute}))
	}
	st := sites[0]
	bob := st.Login("bob")
	in := loginsAtOnce(t, sites, logins)
	if got := len(liveSessions(t, st.M, "alice")); got != n {
		t.Errorf("%d logins at once leave %d sessions, want %d", logins, got, n)
	}
	revoked, accepted := 0, logins
	for _, st := range sites {
		revoked += st.Events.Count(session2.EventRevoked)
	}
	if reject {
		accepted = n
	}
	if len(in) != accepted || revoked != accepted-n {
		t.Errorf("%d logins accepted and %d sessions ended, want %d and %d", len(in), revoked, accepted, accepted-n)
	}
	signedIn := 0
	for _, b := range in {
		if st.UserOf(b) == "alice" {
			signedIn++
		}
	}
	if signedIn != n {
		t.Errorf("%d browsers are signed in, want %d", signedIn, n)
	}
	if st.UserOf(bob) != "bob" {
		t.Error("another user's session was ended")
	}
	for rec := range stores[0].(session2.IterStore).Iter(t.Context()) {
		if !session2.HoldsInfo(rec) {
			t.Error("a turn was left behind")
		}
	}
}

func TestTheOldestSessionEndsForALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{MaxPerUser: 2})
		first := st.Login("alice")
		time.Sleep(time.Minute)
		second := st.Login("alice")
		time.Sleep(time.Minute)
		st.Do(first, func(s *session2.Session) { s.SetUser("alice") }) // the latest login counts
		time.Sleep(time.Minute)
		var id session2.ID
		st.Do(second, func(s *session2.Session) { id = s.ID() })
		third := st.Login("alice")
		if st.UserOf(first) != "alice" || st.UserOf(second) != "" || st.UserOf(third) != "alice" {
			t.Errorf("signed in: %q, %q, %q", st.UserOf(first), st.UserOf(second), st.UserOf(third))
		}
		want := session2.Event{Kind: session2.EventRevoked, ID: id, User: "alice"}
		if n := st.Events.Count(session2.EventRevoked); n != 1 || !slices.Contains(st.Events.List, want) {
			t.Errorf("%d sessions revoked, want the oldest one: %v", n, st.Events.List)
		}
	})
}

// A user signs in again in the oldest session after another login has counted: that
// session is the oldest no more, and the next one ends.
func TestTheOldestSessionIsSignedInAgainMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{MaxPerUser: 2})
		first := st.Login("alice")
		time.Sleep(time.Minute)
		second := st.Login("alice")
		time.Sleep(time.Minute)
		store.set(func() {
			store.onSave = func(rec session2.Record, _ session2.Version, save func() error) error {
				if rec.User != "" {
					store.set(func() { store.onSave = nil })
					st.Visit(first, loginPage(0))
				}
				return save()
			}
		})
		third := st.Login("alice")
		if st.UserOf(first) != "alice" || st.UserOf(second) != "" || st.UserOf(third) != "alice" {
			t.Errorf("signed in: %q, %q, %q", st.UserOf(first), st.UserOf(second), st.UserOf(third))
		}
		if n := st.Events.Count(session2.EventRevoked); n != 1 {
			t.Errorf("%d sessions revoked, want 1: %v", n, st.Events.List)
		}
	})
}

func TestExpiredSessionsTakeNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{MaxPerUser: 1, RejectLogin: true})
		st.Login("alice")
		time.Sleep(31 * time.Minute) // nothing is swept
		if b := st.Login("alice"); st.UserOf(b) != "alice" {
			t.Error("an expired session takes the place of a live one")
		}
	})
}

func TestSigningInAgainTakesNoPlace(t *testing.T) {
	for _, reject := range []bool{false, true} {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{MaxPerUser: 1, RejectLogin: reject})
		b := st.Login("alice")
		saves := store.count("save")
		for range 3 {
			res := st.Visit(b, loginPage(0))
			if res.StatusCode != http.StatusSeeOther || st.UserOf(b) != "alice" {
				t.Errorf("reject %t: status %d, user %q", reject, res.StatusCode, st.UserOf(b))
			}
		}
		if n := store.count("save") - saves; n != 3 {
			t.Errorf("%d saves for 3 logins that take no place", n)
		}
		st.Do(b, func(s *session2.Session) { s.SetUser("") })
		if res := st.Visit(b, loginPage(0)); res.StatusCode != http.StatusSeeOther {
			t.Errorf("reject %t: a login after the logout has status %d", reject, res.StatusCode)
		}
		other := &testsite.Browser{}
		if res := st.Visit(other, loginPage(1)); (res.StatusCode == 409) != reject || (st.UserOf(b) == "alice") != reject {
			t.Errorf("reject %t: another login has status %d, and the first is %q", reject, res.StatusCode, st.UserOf(b))
		}
	}
}

func TestALoginThatEndsItsOwnSessionsTakesTheirPlace(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{MaxPerUser: 2, RejectLogin: true})
	one, two := st.Login("alice"), st.Login("alice")
	res := st.Cookies([]string{one.Token(), two.Token()}, func(s *session2.Session) { s.SetUser("alice") })
	if n := len(liveSessions(t, st.M, "alice")); res.StatusCode != 200 || n != 1 {
		t.Errorf("status %d, %d sessions", res.StatusCode, n)
	}
	b := st.Login("alice")
	res = st.Do(b, func(s *session2.Session) { s.Destroy(); s.SetUser("alice") })
	if n := len(liveSessions(t, st.M, "alice")); res.StatusCode != 200 || n != 2 || st.UserOf(b) != "alice" {
		t.Errorf("status %d, %d sessions", res.StatusCode, n)
	}
}

func TestALoginClickedTwiceTakesOnePlace(t *testing.T) {
	for _, reject := range []bool{false, true} {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{MaxPerUser: 1, RejectLogin: reject})
		b := &testsite.Browser{}
		st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
		one, two, late := b.Clone(), b.Clone(), b.Clone()
		res, err := st.During(one, func(s *session2.Session) { s.SetUser("alice") }, func() {
			st.Do(two, func(s *session2.Session) { s.SetUser("alice") })
		}, func(*session2.Session) {})
		last := st.Do(late, func(s *session2.Session) { s.SetUser("alice") })
		if res.StatusCode != 200 || last.StatusCode != 200 || err != nil ||
			one.Token() != two.Token() || late.Token() != two.Token() {
			t.Errorf("reject %t: status %d and %d, %v", reject, res.StatusCode, last.StatusCode, err)
		}
		if n := len(liveSessions(t, st.M, "alice")); n != 1 || st.Events.Count(session2.EventRevoked) != 0 {
			t.Errorf("reject %t: %d sessions, %d revoked", reject, n, st.Events.Count(session2.EventRevoked))
		}
	}
}

// A refused login leaves no trace, and its handler may say so on a page of its own.
func TestARefusedLoginLeavesNoTrace(t *testing.T) {
	store := newHookStore()
	log := &testsite.Log{}
	st := testsite.NewSite(t, store, session2.Config{MaxPerUser: 1, RejectLogin: true, Logger: log.Logger()})
	st.Login("alice")
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
	before := testsite.RecordsOf(t, store)
	token := b.Token()
	for n := range 4 {
		if res := st.Visit(b, loginPage(n)); res.StatusCode != 409 || len(res.Cookies()) != 0 {
			t.Errorf("page %d: status %d, %d cookies", n, res.StatusCode, len(res.Cookies()))
		}
	}
	st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.SetUser("alice")
		err := s.Commit(r.Context())
		if !errors.Is(err, session2.ErrTooManySessions) || errors.Is(err, session2.ErrUncertain) {
			t.Errorf("Commit = %v", err)
		}
		s.Discard()
		if s.User() != "" || s.Err() != nil {
			t.Errorf("after Discard: user %q, %v", s.User(), s.Err())
		}
		s.Flash("You have too many sessions.")
		http.Redirect(w, r, "/devices", http.StatusSeeOther)
	})
	st.Do(b, func(s *session2.Session) {
		if f := s.Flashes(); len(f) != 1 || s.Get("cart") != "book" || s.User() != "" {
			t.Errorf("flashes %v, cart %v, user %q", f, s.Get("cart"), s.User())
		}
	})
	if b.Token() != token || len(testsite.RecordsOf(t, store)) != len(before) {
		t.Error("a refused login left a trace")
	}
	dropped := 0
	for _, e := range st.Events.List {
		if e.Kind == session2.EventDropped && errors.Is(e.Err, session2.ErrTooManySessions) {
			dropped++
		}
	}
	if dropped != 6 || st.M.Count(session2.EventDropped) != 6 {
		t.Errorf("%d events for 6 refused commits", dropped)
	}
}

// The Delete of a turn that is carried out long after its login has given up on it may end
// another login's turn. That one counts once more.
func TestATurnThatALateDeleteEnds(t *testing.T) {
	for _, reject := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			store := newHookStore()
			cfg := session2.Config{MaxPerUser: 2, RejectLogin: reject}
			st, other := testsite.NewSite(t, store, cfg), testsite.NewSite(t, store, cfg)
			var turn session2.ID
			store.set(func() {
				store.onDel = func(id session2.ID) error { turn = id; return errors.New("connection reset") }
			})
			st.Login("alice")
			store.set(func() { store.onDel = nil })
			time.Sleep(11 * time.Second) // the turn has run out
			store.set(func() {
				store.onSave = func(rec session2.Record, _ session2.Version, save func() error) error {
					if rec.User != "alice" {
						return save()
					}
					store.set(func() { store.onSave = nil })
					testsite.Must(t, store.MemoryStore.Delete(t.Context(), turn))
					other.Login("alice")
					return save()
				}
			})
			var b testsite.Browser
			st.Do(&b, func(s *session2.Session) { s.SetUser("alice") })
			if n := len(liveSessions(t, st.M, "alice")); n != 2 {
				t.Errorf("reject %t: %d sessions, want 2", reject, n)
			}
			if in := st.UserOf(&b) == "alice"; in == reject {
				t.Errorf("reject %t: the login that has lost its turn is good: %t", reject, in)
			}
		})
	}
}

// A login that meets a change of its session is done again, with its turn.
func TestACountedLoginThatIsDoneAgain(t *testing.T) {
	for _, reject := range []bool{false, true} {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{MaxPerUser: 1, RejectLogin: reject})
		b := &testsite.Browser{}
		st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
		other := b.Clone()
		_, err := st.During(b, func(s *session2.Session) { s.SetUser("alice") }, func() {
			st.Do(other, func(s *session2.Session) { s.Set("cart", "pen") })
		}, func(*session2.Session) {})
		if err != nil || st.UserOf(b) != "alice" || st.Stored(b, "cart") != "pen" ||
			len(liveSessions(t, st.M, "alice")) != 1 || st.Events.Count(session2.EventRevoked) != 0 {
			t.Errorf("reject %t: %v, user %q", reject, err, st.UserOf(b))
		}
		// One whose session ends meanwhile begins one of its own, which takes a place.
		anon := &testsite.Browser{}
		st.Do(anon, func(s *session2.Session) { s.Set("cart", "book") })
		twin := anon.Clone()
		res, _ := st.During(anon, func(s *session2.Session) { s.SetUser("alice") }, func() {
			st.Do(twin, func(s *session2.Session) { s.Destroy() })
		}, func(*session2.Session) {})
		if n := len(liveSessions(t, st.M, "alice")); n != 1 || (res.StatusCode == 409) != reject {
			t.Errorf("reject %t: %d sessions, status %d", reject, n, res.StatusCode)
		}
	}
}

// isTurn tells a turn's record, which holds nothing, from a session's.
func isTurn(rec session2.Record) bool { return rec.User == "" && !session2.HoldsInfo(rec) }

func TestALostAnswerTakesNoPlace(t *testing.T) {
	for name, lose := range map[string]func(rec session2.Record) bool{
		"of the turn":  isTurn,
		"of the login": func(rec session2.Record) bool { return rec.User == "alice" },
		"of all":       func(session2.Record) bool { return true },
	} {
		for _, landed := range []bool{true, false} {
			for _, cart := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, landed %t, cart %t", name, landed, cart), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						store := newHookStore()
						st := testsite.NewSite(t, store, session2.Config{MaxPerUser: 2})
						st.Login("alice")
						time.Sleep(time.Second)
						old := st.Login("alice")
						time.Sleep(time.Second)
						b := &testsite.Browser{}
						if cart {
							st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
						}
						lost := map[session2.ID]bool{}
						store.set(func() {
							store.onSave = func(rec session2.Record, _ session2.Version, save func() error) error {
								if lose(rec) && !lost[rec.ID] && len(lost) < 3 {
									lost[rec.ID] = true
									if landed {
										testsite.Must(t, save())
									}
									return errors.New("connection reset")
								}
								return save()
							}
						})
						res := st.Visit(b, loginPage(1))
						if res.StatusCode != 200 || st.UserOf(b) != "alice" || st.UserOf(old) != "alice" {
							t.Errorf("status %d, user %q, before %q", res.StatusCode, st.UserOf(b), st.UserOf(old))
						}
						if n := len(liveSessions(t, st.M, "alice")); n != 2 {
							t.Errorf("%d sessions", n)
						}
					})
				})
			}
		}
	}
}

// A store that fails in the midst ends no session for a login that then fails.
func TestALoginThatFailsEndsNoSession(t *testing.T) {
	fails := map[string]func(store *hookStore){
		"the turn": func(store *hookStore) {
			store.onSave = func(rec session2.Record, _ session2.Version, save func() error) error {
				if isTurn(rec) {
					return testsite.ErrDown
				}
				return save()
			}
		},
		"the login": func(store *hookStore) {
			store.onSave = func(rec session2.Record, prev session2.Version, save func() error) error {
				if rec.User == "alice" {
					return testsite.ErrDown
				}
				return save()
			}
		},
	}
	for name, fail := range fails {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newHookStore()
				st := testsite.NewSite(t, store, session2.Config{MaxPerUser: 1})
				old, b := st.Login("alice"), &testsite.Browser{}
				store.set(func() { fail(store) })
				res := st.Visit(b, loginPage(0))
				store.set(func() { store.onSave = nil })
				if res.StatusCode != 503 || st.UserOf(old) != "alice" {
					t.Errorf("status %d; the session from before is %q's", res.StatusCode, st.UserOf(old))
				}
				time.Sleep(11 * time.Second) // a turn that may have landed ends by itself
				if b = st.Login("alice"); st.UserOf(b) != "alice" || st.UserOf(old) != "" {
					t.Error("no login works after the failure")
				}
			})
		})
	}
}

// The turn of a process that died, and whose clock was fast by an hour, keeps nobody out
// for an hour.
func TestATurnOfAFastClockIsNobodys(t *testing.T) {
	var left session2.Record
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Hour)
		store := newHookStore()
		store.onSave = func(rec session2.Record, _ session2.Version, save func() error) error {
			if isTurn(rec) {
				left = rec
			}
			return save()
		}
		testsite.NewSite(t, store, session2.Config{MaxPerUser: 2}).Login("alice")
	})
	synctest.Test(t, func(t *testing.T) {
		store := session2.NewMemoryStore()
		st := testsite.NewSite(t, store, session2.Config{MaxPerUser: 2})
		testsite.Must(t, store.Save(t.Context(), left, 0))
		start := time.Now()
		res := st.Visit(&testsite.Browser{}, loginPage(1))
		if took := time.Since(start); res.StatusCode != http.StatusOK || took > time.Second {
			t.Errorf("a login has status %d after %v", res.StatusCode, took)
		}
	})
}

// One that cannot end the oldest session is taken back.
func TestALoginThatCannotMakeRoomIsTakenBack(t *testing.T) {
	for _, cart := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			store := newHookStore()
			st := testsite.NewSite(t, store, session2.Config{MaxPerUser: 1})
			old, b := st.Login("alice"), &testsite.Browser{}
			if cart {
				st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
			}
			oldID := liveSessions(t, st.M, "alice")[0]
			store.set(func() {
				store.onSave = func(rec session2.Record, _ session2.Version, save func() error) error {
					if rec.ID == oldID {
						return testsite.ErrDown
					}
					return save()
				}
			})
			res := st.Visit(b, loginPage(0))
			if res.StatusCode != 503 || len(liveSessions(t, st.M, "alice")) != 1 || st.UserOf(old) != "alice" {
				t.Errorf("status %d, sessions %v", res.StatusCode, liveSessions(t, st.M, "alice"))
			}
		})
	}
}

// The turn of a login whose process was killed is taken over.
func TestAKilledLoginsTurnIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{MaxPerUser: 1, RejectLogin: true})
		store.set(func() {
			store.onSave = func(rec session2.Record, _ session2.Version, save func() error) error {
				if rec.User == "alice" {
					panic("killed")
				}
				return save()
			}
		})
		testsite.RecordPanics(st.M.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			st.M.Session(r).SetUser("alice")
		})), &testsite.Browser{})
		store.set(func() { store.onSave = nil })
		if recs := testsite.RecordsOf(t, store); len(recs) != 1 || !isTurn(recs[0]) {
			t.Fatalf("%d records, want the turn", len(recs))
		}
		began := time.Now()
		if res := st.Visit(&testsite.Browser{}, loginPage(0)); res.StatusCode != 503 {
			t.Errorf("status %d beside a turn that is held", res.StatusCode)
		}
		time.Sleep(time.Second)
		b := &testsite.Browser{}
		if res := st.Visit(b, loginPage(1)); res.StatusCode != 200 || st.UserOf(b) != "alice" {
			t.Errorf("status %d", res.StatusCode)
		}
		if took := time.Since(began); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("the turn was taken over after %v, want 10 s", took)
		}
	})
}

// The turn of a login that stands still for too long is taken over as well. When it
// goes on, there is still no session too many.
func TestALoginThatOutlivesItsTurn(t *testing.T) {
	for _, reject := range []bool{false, true} {
		for _, cart := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				store := newHookStore()
				st := testsite.NewSite(t, store, session2.Config{MaxPerUser: 1, RejectLogin: reject})
				b, other := &testsite.Browser{}, &testsite.Browser{}
				if cart {
					st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
				}
				asleep := make(chan struct{})
				store.set(func() {
					store.onSave = func(rec session2.Record, prev session2.Version, save func() error) error {
						if rec.User == "alice" {
							store.set(func() { store.onSave = nil })
							close(asleep)
							time.Sleep(12 * time.Second)
							return store.MemoryStore.Save(t.Context(), rec, prev) // whatever its own context says
						}
						return save()
					}
				})
				var late *http.Response
				done := make(chan struct{})
				go func() {
					defer close(done)
					late = st.Visit(b, loginPage(1))
				}()
				<-asleep
				time.Sleep(10 * time.Second)
				if res := st.Visit(other, loginPage(1)); res.StatusCode != 200 {
					t.Errorf("reject %t: the other login has status %d", reject, res.StatusCode)
				}
				<-done
				if n := len(liveSessions(t, st.M, "alice")); n != 1 {
					t.Errorf("reject %t: %d sessions, want 1", reject, n)
				}
				want := 200
				if reject {
					want = 409
				}
				if late.StatusCode != want || (st.UserOf(b) == "alice") == reject || (st.UserOf(other) == "alice") != reject {
					t.Errorf("reject %t: status %d, users %q and %q", reject, late.StatusCode, st.UserOf(b), st.UserOf(other))
				}
			})
		}
	}
}

// A login of which nobody knows whether it was stored keeps its turn: should it be
// stored late, the next one counts it.
func TestALoginThatMayLandLateKeepsItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{MaxPerUser: 1, RejectLogin: true})
		b, began := &testsite.Browser{}, time.Now()
		st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
		landed := make(chan error, 1)
		store.set(func() {
			store.onSave = func(rec session2.Record, prev session2.Version, save func() error) error {
				if rec.User != "alice" || time.Since(began) >= 5*time.Second {
					return save()
				}
				if len(landed) == 0 && cap(landed) == 1 {
					landed = make(chan error, 2)
					go func() {
						time.Sleep(7 * time.Second)
						landed <- store.MemoryStore.Save(context.Background(), rec, prev)
					}()
				}
				return errors.New("connection reset")
			}
		})
		if res := st.Visit(b, loginPage(1)); res.StatusCode != 503 {
			t.Errorf("status %d, while the store does not answer", res.StatusCode)
		}
		time.Sleep(time.Second)
		if res := st.Visit(&testsite.Browser{}, loginPage(1)); res.StatusCode != 409 {
			t.Errorf("the next login has status %d", res.StatusCode)
		}
		testsite.Must(t, <-landed)
		if n := len(liveSessions(t, st.M, "alice")); n != 1 {
			t.Errorf("%d sessions", n)
		}
	})
}

// However the store fails: once it works again, the next login leaves no session too
// many, and those that were let in under RejectLogin were never more.
func TestMaxPerUserOnAnUnreliableStore(t *testing.T) {
	r := testsite.Seeded(t)
	for round := range 10 {
		reject := round%2 == 1
		synctest.Test(t, func(t *testing.T) {
			store := newHookStore()
			st := testsite.NewSite(t, store,
				session2.Config{MaxPerUser: 3, RejectLogin: reject, CommitTimeout: time.Minute})
			store.unreliable(r.Uint64())
			var mu sync.Mutex
			var wg sync.WaitGroup
			in := 0
			for i := range 12 {
				wg.Go(func() {
					b := &testsite.Browser{}
					st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
					if res := st.Visit(b, loginPage(i)); res.StatusCode < 400 {
						mu.Lock()
						defer mu.Unlock()
						in++
					}
				})
			}
			wg.Wait()
			store.set(func() { store.onSave = nil })
			if n := len(liveSessions(t, st.M, "alice")); n > 3 || reject && in > 3 {
				t.Errorf("reject %t: %d sessions, %d let in", reject, n, in)
			}
			time.Sleep(2 * time.Minute)
			if !reject {
				st.Login("alice")
				if n := len(liveSessions(t, st.M, "alice")); n != 3 {
					t.Errorf("%d sessions after one more login", n)
				}
			}
		})
	}
}

// heldTurn returns the ID of alice's turn, as a killed login leaves it.
func heldTurn(t *testing.T, st *testsite.Site, store *hookStore) session2.ID {
	t.Helper()
	var id session2.ID
	store.set(func() {
		store.onSave = func(rec session2.Record, _ session2.Version, save func() error) error {
			if !isTurn(rec) {
				panic("killed")
			}
			id = rec.ID
			return save()
		}
	})
	testsite.RecordPanics(st.Handler(func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
		s.SetUser("alice")
	}), &testsite.Browser{})
	store.set(func() { store.onSave = nil })
	return id
}

func TestATurnIsNoSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{MaxPerUser: 5, Realm: "shop"})
		b := st.Login("alice")
		id := heldTurn(t, st, store)
		there := func(when string) {
			t.Helper()
			if ok, err := store.Has(ctx, id); !ok || err != nil {
				t.Errorf("%s ends the turn: %v", when, err)
			}
		}
		rec, err := store.Load(ctx, id)
		testsite.Must(t, err)
		c, err := session2.Inspect(rec)
		if err != nil || c.Realm != "shop" || c.User != "" {
			t.Errorf("Inspect = %+v, %v", c, err)
		}
		for _, secret := range [][32]byte{{}, [32]byte(slices.Repeat([]byte{255}, 32))} {
			token := session2.EncodeToken(id, secret)
			if _, err := st.M.Open(ctx, token); !errors.Is(err, session2.ErrNotFound) {
				t.Errorf("Open = %v", err)
			}
			st.Cookies([]string{token}, func(s *session2.Session) { s.Destroy() })
			there("a logout")
		}
		testsite.Must(t, st.M.Revoke(ctx, id))
		there("Revoke")
		if got := liveSessions(t, st.M, "alice"); len(got) != 1 || slices.Contains(got, id) {
			t.Errorf("Sessions = %v", got)
		}
		st.Do(b, func(s *session2.Session) {
			if n, err := st.M.RevokeOthers(ctx, s); n != 0 || err != nil {
				t.Errorf("RevokeOthers = %d, %v", n, err)
			}
		})
		if n, err := st.M.RevokeUser(ctx, "alice"); n != 1 || err != nil {
			t.Errorf("RevokeUser = %d, %v", n, err)
		}
		there("RevokeUser")
		if n, err := st.M.RevokeAll(ctx); n != 0 || err != nil {
			t.Errorf("RevokeAll = %d, %v", n, err)
		}
		there("RevokeAll")
		time.Sleep(11 * time.Second)
		if n, err := store.DeleteOld(ctx, time.Hour); n != 1 || err != nil {
			t.Errorf("DeleteOld = %d, %v: a turn is swept when its time is over", n, err)
		}
	})
}

func TestTurnsAreOfOneRealm(t *testing.T) {
	store := newHookStore()
	ids := map[session2.ID]string{}
	for _, realm := range []string{"", "shop"} {
		st := testsite.NewSite(t, store, session2.Config{MaxPerUser: 1, Realm: realm})
		id := heldTurn(t, st, store)
		if ids[id] != "" {
			t.Error("two realms have one turn")
		}
		ids[id] = "realm " + realm
	}
}

func TestADamagedTurnIsReplaced(t *testing.T) {
	store := newHookStore()
	st := testsite.NewSite(t, store, session2.Config{MaxPerUser: 1})
	id := heldTurn(t, st, store)
	store.set(func() {
		store.onSave = func(rec session2.Record, _ session2.Version, save func() error) error {
			if rec.ID == id {
				store.set(func() { store.onSave = nil })
				return session2.ErrCorrupt
			}
			return save()
		}
		store.onLoad = func(want session2.ID) error {
			if want != id {
				return nil
			}
			store.set(func() { store.onLoad = nil })
			return session2.ErrCorrupt
		}
	})
	if b := st.Login("alice"); st.UserOf(b) != "alice" {
		t.Error("a damaged turn keeps a user out")
	}
}

func TestMaxPerUserNeedsAStoreThatLists(t *testing.T) {
	memory := session2.NewMemoryStore()
	bare, listing := plainStore{memory}, listStore{memory, memory}
	cache := func(s session2.Store) session2.Store { return session2.NewCache(s, nil) }
	wraps := map[string]func(session2.Store) session2.Store{
		"itself": func(s session2.Store) session2.Store { return s }, "a cache": cache,
		"a wrapper":  func(s session2.Store) session2.Store { return sessiontest.NewStore(s) },
		"moved from": func(s session2.Store) session2.Store { return session2.NewMigrating(s, memory) },
		"moved to":   func(s session2.Store) session2.Store { return session2.NewMigrating(memory, s) },
		"cached and moved to": func(s session2.Store) session2.Store {
			return cache(session2.NewMigrating(memory, s))
		},
		"cached twice": func(s session2.Store) session2.Store { return cache(cache(sessiontest.NewStore(s))) },
	}
	for wrapped, wrap := range wraps {
		for name, c := range map[string]struct {
			store session2.Store
			lists bool
		}{
			"bare": {bare, false}, "lists all": {listing, true}, "lists by user": {memory, true},
			"scs": {session2.FromSCS(newSCSMap()), false}, "scs with All": {session2.FromSCS(scsMapAll{newSCSMap()}), true},
		} {
			_, err := session2.NewManager(wrap(c.store), session2.Config{MaxPerUser: 1})
			if c.lists != (err == nil) || err != nil && !strings.Contains(err.Error(), "Config.MaxPerUser") {
				t.Errorf("%s, %s: got %v; it lists: %v", name, wrapped, err, c.lists)
			}
		}
	}
	st := testsite.NewSite(t, listStore{memory, memory}, session2.Config{MaxPerUser: 1})
	first, second := st.Login("alice"), st.Login("alice")
	if st.UserOf(first) != "" || st.UserOf(second) != "alice" {
		t.Error("a store that lists all records is not counted on")
	}
}

// A session that only the configuration keeps shut, by NotBefore, a shorter Lifetime or
// Sealed, ends by a logout for good: it does not come back when that is taken back.
func TestALogoutEndsWhatTheConfigurationHasShut(t *testing.T) {
	for name, shut := range map[string]func(cfg *session2.Config){
		"NotBefore": func(cfg *session2.Config) { cfg.NotBefore = time.Now() },
		"Lifetime":  func(cfg *session2.Config) { cfg.Lifetime = time.Second; cfg.IdleTimeout = time.Second },
		"Sealed":    func(cfg *session2.Config) { cfg.Sealed = !cfg.Sealed },
	} {
		for _, sealed := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				store, cfg := session2.NewMemoryStore(), session2.Config{Sealed: sealed}
				manager := func(cfg session2.Config) *testsite.Site {
					cfg.OnEvent, cfg.Logger = nil, slog.New(slog.DiscardHandler)
					m, err := session2.NewManager(store, cfg)
					testsite.Must(t, err)
					return &testsite.Site{T: t, M: m, Store: store}
				}
				before := manager(cfg)
				b := before.Login("eve")
				time.Sleep(time.Minute)
				other := cfg
				shut(&other)
				during, copied := manager(other), b.Clone()
				if got := during.UserOf(copied.Clone()); got != "" {
					t.Fatalf("%s, sealed %t: the session is open: %q", name, sealed, got)
				}
				res := during.Do(b, (*session2.Session).Destroy)
				if res.StatusCode != 200 || b.Token() != "" {
					t.Errorf("%s, sealed %t: logout: status %d, cookie %t", name, sealed, res.StatusCode, b.Token() != "")
				}
				if got := before.UserOf(copied); got != "" {
					t.Errorf("%s, sealed %t: after the logout and a rollback, the session is %q's", name, sealed, got)
				}
				if n := len(testsite.RecordsOf(t, store)); n != 0 {
					t.Errorf("%s, sealed %t: %d records are left", name, sealed, n)
				}
			})
		}
	}
}

// Sessions that Config.Sealed keeps shut take no place of MaxPerUser, and are in no list;
// RevokeAll ends them for good.
func TestWhatSealedKeepsShutTakesNoPlace(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		store := session2.NewMemoryStore()
		manager := func(cfg session2.Config) *testsite.Site {
			cfg.Logger = slog.New(slog.DiscardHandler)
			m, err := session2.NewManager(store, cfg)
			testsite.Must(t, err)
			return &testsite.Site{T: t, M: m, Store: store}
		}
		before := manager(session2.Config{Sealed: sealed})
		old := []*testsite.Browser{before.Login("alice"), before.Login("alice")}
		after := manager(session2.Config{Sealed: !sealed, MaxPerUser: 2, RejectLogin: true})
		for n := range 2 {
			after.Login("alice")
			listed := 0
			for _, err := range after.M.Sessions(t.Context(), "alice") {
				testsite.Must(t, err)
				listed++
			}
			if listed != n+1 {
				t.Errorf("sealed %t: %d sessions are listed after %d logins", sealed, listed, n+1)
			}
		}
		n, err := after.M.RevokeAll(t.Context())
		if n != 4 || err != nil || before.UserOf(old[0]) != "" {
			t.Errorf("sealed %t: RevokeAll = %d, %v", sealed, n, err)
		}
	}
}
