package sqltest

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// TestGolden goes on with every session of every store: all that it holds is
// there, it can be changed, its token replaced, and it can be ended.
func TestGolden(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden) {
		managers := map[string]*session2.Manager{
			"gob":  g.manager(t, nil),
			"json": g.manager(t, func(c *session2.Config) { c.Codec = session2.JSON{} }),
		}
		for _, e := range g.list {
			t.Run(e.Name, func(t *testing.T) {
				m := managers[e.Codec]
				if e.Name == "expired" {
					goldenDead(t, m, e.Token)
					return
				}
				e.former(t, m)
				e.holds(t, m)
				e.change(t, m)
				e.remembers(t, g.store)
				e.end(t, m, e.renew(t, m))
			})
		}
	})
}

// goldenDead finds that a token opens nothing.
func goldenDead(t *testing.T, m *session2.Manager, token string) {
	t.Helper()
	goldenVisit(t, m, token, func(s *session2.Session, _ *http.Request) {
		if !s.IsNew() || s.HasInfo() || s.User() != "" {
			t.Errorf("the token opens a session: %v", s)
		}
	})
}

// former presents the token that the present one has replaced.
func (e *goldenSession) former(t *testing.T, m *session2.Manager) {
	t.Helper()
	var c *http.Cookie
	switch e.Name {
	case "rotated", "seen":
		c = goldenVisit(t, m, e.Former, func(s *session2.Session, _ *http.Request) {
			if s.Get("name") == nil || s.ID().String() != e.ID {
				t.Errorf("the token before opens %v, want %s", s, e.ID)
			}
		})
		if c == nil && e.Name == "rotated" { // nobody has presented the successor: the client may have lost it
			t.Error("got no cookie with the successor again")
		}
	case "renewed":
		goldenDead(t, m, e.Former)
	case "login": // one that is clicked twice
		c = goldenVisit(t, m, e.Former, func(s *session2.Session, _ *http.Request) { s.SetUser("alice") })
		if c == nil {
			t.Error("a login clicked twice is not answered with the other's cookie")
		}
	}
	if c != nil && c.Value != e.Token {
		t.Errorf("the successor is another than the earlier release's")
	}
}

// holds presents the token for the first time.
func (e *goldenSession) holds(t *testing.T, m *session2.Manager) {
	t.Helper()
	goldenVisit(t, m, e.Token, func(s *session2.Session, r *http.Request) {
		if s.IsNew() || s.ID().String() != e.ID || s.User() != e.User || !s.Created().Equal(e.Created) ||
			s.RemoteAddr() != e.RemoteAddr || s.UserAgent() != e.UserAgent {
			t.Errorf("got %v of %q, %v, %q, %q, want %+v", s, s.User(), s.Created(), s.RemoteAddr(), s.UserAgent(), e)
		}
		lifetime := e.Lifetime
		if lifetime == 0 {
			lifetime = 2 * goldenCentury
		}
		if want := e.Created.Add(lifetime); !s.Expires().Equal(want) {
			t.Errorf("Expires: got %v, want %v", s.Expires(), want)
		}
		if got := goldenValues(s); !maps.Equal(got, e.Values) {
			t.Errorf("got the values %q, want %q", got, e.Values)
		}
		e.tokens(t, s, r)
		var flashes []string
		for _, v := range s.Flashes() {
			flashes = append(flashes, goldenSpell(v))
		}
		if !slices.Equal(flashes, e.Flashes) {
			t.Errorf("got the flashes %q, want %q", flashes, e.Flashes)
		}
		testsite.Must(t, s.Err())
	})
}

// goldenValues returns all values of a session, as text.
func goldenValues(s *session2.Session) map[string]string {
	values := make(map[string]string)
	for _, key := range s.Keys() {
		var v any
		switch key {
		case "key.cart":
			v, _ = goldenCartKey.Get(s)
		case "key.map":
			v, _ = goldenMapKey.Get(s)
		default:
			v = s.Get(key)
		}
		values[key] = goldenSpell(v)
	}
	return values
}

// tokens uses up a form token, and presents each CSRF token as the pages of the
// earlier release did.
func (e *goldenSession) tokens(t *testing.T, s *session2.Session, r *http.Request) {
	t.Helper()
	for i, want := range []bool{true, false} {
		if len(e.FormTokens) == 0 {
			break
		}
		got, err := s.UseFormToken(r.Context(), e.FormTokens[0])
		if got != want || err != nil {
			t.Errorf("use %d of a form token: got %v, %v, want %v", i+1, got, err, want)
		}
		if !s.HasFormToken(e.FormTokens[1]) {
			t.Error("the other form token is gone")
		}
	}
	for _, token := range e.CSRFTokens {
		header := r.Clone(r.Context())
		header.Header.Set("X-CSRF-Token", token)
		form := httptest.NewRequest("POST", "/", strings.NewReader(url.Values{"csrf_token": {token}}.Encode()))
		form.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if !s.ValidCSRFToken(header) || !s.ValidCSRFToken(form) {
			t.Error("a CSRF token of the earlier release is refused")
		}
		header.Header.Set("X-CSRF-Token", token[1:]+"A")
		if s.ValidCSRFToken(header) {
			t.Error("a wrong CSRF token is accepted")
		}
	}
}

// change changes the session, and looks at it again.
func (e *goldenSession) change(t *testing.T, m *session2.Manager) {
	t.Helper()
	goldenVisit(t, m, e.Token, func(s *session2.Session, r *http.Request) {
		if flashes := s.Flashes(); len(flashes) > 0 {
			t.Errorf("got %d flashes for the second time", len(flashes))
		}
		for _, token := range e.FormTokens[:min(1, len(e.FormTokens))] {
			if ok, err := s.UseFormToken(r.Context(), token); ok || err != nil {
				t.Errorf("got %v, %v for a used form token, want false", ok, err)
			}
		}
		s.Set("name", "changed")
		s.Set("new", goldenCart{Count: 9})
		testsite.Must(t, s.Err())
	})
	want := maps.Clone(e.Values)
	want["name"], want["new"] = "string changed", "session2_test.goldenCart {[] 9}"
	if e.Codec == "json" {
		want["new"] = "map[string]interface {} map[Count:9 Items:<nil>]"
	}
	goldenVisit(t, m, e.Token, func(s *session2.Session, _ *http.Request) {
		if got := goldenValues(s); !maps.Equal(got, want) || s.User() != e.User {
			t.Errorf("got the values %q of %q, want %q of %q", got, s.User(), want, e.User)
		}
	})
}

// remembers looks at the versions that the record, now written by this release,
// remembers.
func (e *goldenSession) remembers(t *testing.T, store session2.Store) {
	t.Helper()
	id, err := session2.ParseID(e.ID)
	testsite.Must(t, err)
	rec, err := store.Load(t.Context(), id)
	testsite.Must(t, err)
	c, err := session2.Inspect(rec)
	testsite.Must(t, err)
	if n := len(c.Versions); n < e.Versions || n > 16 || c.Versions[n-1] != rec.Version || c.Lifetime != e.Lifetime {
		t.Errorf("got the versions %v of %v, lifetime %v, want at least %d that end in it, %v",
			c.Versions, rec.Version, c.Lifetime, e.Versions, e.Lifetime)
	}
}

// renew replaces the token, and returns the new one.
func (e *goldenSession) renew(t *testing.T, m *session2.Manager) string {
	t.Helper()
	c := goldenVisit(t, m, e.Token, func(s *session2.Session, _ *http.Request) { s.Renew() })
	if c == nil || c.Value == e.Token {
		t.Fatalf("Renew: got no new cookie")
	}
	if persistent := e.Name == "lifetime"; persistent != (c.MaxAge > 0) {
		t.Errorf("got Max-Age %d, want one: %v", c.MaxAge, persistent)
	}
	goldenDead(t, m, e.Token)
	return c.Value
}

// end logs out.
func (e *goldenSession) end(t *testing.T, m *session2.Manager, token string) {
	t.Helper()
	c := goldenVisit(t, m, token, func(s *session2.Session, _ *http.Request) {
		if s.ID().String() != e.ID || s.User() != e.User {
			t.Errorf("got %v of %q, want %s of %q", s, s.User(), e.ID, e.User)
		}
		s.Destroy()
	})
	if c == nil || c.MaxAge >= 0 {
		t.Errorf("got %v, want the cookie revoked", c)
	}
	goldenDead(t, m, token)
}

// TestGoldenReuse presents a token of the earlier release whose time is over.
func TestGoldenReuse(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden) {
		var events []session2.Event
		m := g.manager(t, func(c *session2.Config) {
			c.RenewGrace = time.Nanosecond
			c.OnEvent = func(_ context.Context, e session2.Event) { events = append(events, e) }
		})
		e := g.named("seen")
		goldenDead(t, m, e.Former)
		if len(events) == 0 || events[0].Kind != session2.EventReuse || events[0].ID.String() != e.ID {
			t.Errorf("got %v, want %v", events, session2.EventReuse)
		}
		goldenDead(t, m, e.Token)
	})
}

// TestGoldenRotation presents a token of the earlier release that is long due to
// be replaced.
func TestGoldenRotation(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden) {
		m := g.manager(t, func(c *session2.Config) { c.RenewEvery, c.RenewGrace = goldenCentury/10, time.Minute })
		e := g.named("user")
		look := func(s *session2.Session, _ *http.Request) {
			if s.User() != e.User || s.ID().String() != e.ID {
				t.Errorf("got %v of %q, want %s of %q", s, s.User(), e.ID, e.User)
			}
		}
		c := goldenVisit(t, m, e.Token, look)
		if c == nil || c.Value == e.Token {
			t.Fatalf("got no new cookie")
		}
		if again := goldenVisit(t, m, c.Value, look); again != nil {
			t.Errorf("the new token is replaced at once")
		}
	})
}

// TestGoldenSweep lists and deletes what the earlier release wrote, by the
// indexes that it wrote.
func TestGoldenSweep(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden) {
		ctx, user, old := t.Context(), g.store.(session2.UserStore), g.store.(session2.DeleteOldStore)
		var want, alice []string
		for _, e := range g.list {
			want = append(want, e.ID)
			if e.User == "alice" {
				alice = append(alice, e.ID)
			}
		}
		ids := func(list []session2.Record) (ids []string) {
			for _, rec := range list {
				ids = append(ids, rec.ID.String())
			}
			return ids
		}
		slices.Sort(want)
		got := ids(testsite.RecordsOf(t, g.store.(session2.IterStore)))
		if !slices.Equal(slices.Sorted(slices.Values(got)), want) {
			t.Errorf("Iter: got %q, want %q", got, want)
		}
		keep, err := session2.ParseID(alice[0])
		testsite.Must(t, err)
		for _, step := range []struct {
			what string
			do   func() (int, error)
			want int
		}{
			{"DeleteOld, the expired one", func() (int, error) { return old.DeleteOld(ctx, 2*goldenCentury) }, 1},
			{"DeleteUser but one", func() (int, error) { return user.DeleteUser(ctx, "alice", keep) }, len(alice) - 1},
			{"DeleteUser", func() (int, error) { return user.DeleteUser(ctx, "alice") }, 1},
			{"DeleteOld, all", func() (int, error) { return old.DeleteOld(ctx, time.Hour) },
				len(want) - 1 - len(alice)},
		} {
			if n, err := step.do(); n != step.want || err != nil {
				t.Errorf("%s: got %d, %v, want %d", step.what, n, err, step.want)
			}
		}
		if left := testsite.RecordsOf(t, g.store.(session2.IterStore)); len(left) > 0 {
			t.Errorf("got %q left, want none", ids(left))
		}
	})
}

// TestUnknownData presents the tokens of records that a later release may have
// written: they are no sessions to this one, and stay as they are.
func TestUnknownData(t *testing.T) {
	later := map[string]func(data []byte) []byte{
		"format":  func(data []byte) []byte { data[0] = 255; return data },
		"section": func(data []byte) []byte { return append(data, 200, 1, 7) },
		"tag 0":   func(data []byte) []byte { return append(data, 0, 0) },
		"twice":   func(data []byte) []byte { return append(data, data[1:]...) },
		"none":    func([]byte) []byte { return nil },
	}
	eachGolden(t, func(t *testing.T, g golden) {
		e := g.list[0]
		id, err := session2.ParseID(e.ID)
		testsite.Must(t, err)
		prev, err := g.store.Load(t.Context(), id)
		testsite.Must(t, err)
		known := slices.Clone(prev.Data)
		for name, change := range later {
			rec := prev
			rec.Version, rec.Data = prev.Version+1, change(slices.Clone(known))
			testsite.Must(t, g.store.Save(t.Context(), rec, prev.Version))
			var events []session2.Event
			m := g.manager(t, func(c *session2.Config) {
				c.OnEvent = func(_ context.Context, e session2.Event) { events = append(events, e) }
			})
			c := goldenVisit(t, m, e.Token, func(s *session2.Session, _ *http.Request) {
				if !s.IsNew() || s.HasInfo() {
					t.Errorf("%s: the token opens a session", name)
				}
				s.Set("name", "fresh")
			})
			if len(events) == 0 || events[0].Kind != session2.EventCorrupt || events[0].ID != id {
				t.Errorf("%s: got %v, want %v", name, events, session2.EventCorrupt)
			}
			if c == nil || strings.HasPrefix(c.Value, e.ID) {
				t.Errorf("%s: got %v, want a session of its own", name, c)
			}
			prev, err = g.store.Load(t.Context(), id)
			if err != nil || prev.Version != rec.Version || !slices.Equal(prev.Data, rec.Data) {
				t.Errorf("%s: got %+v, %v, want the record as it was", name, prev, err)
			}
		}
	})
}
