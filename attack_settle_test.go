package session2_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// Nested managers: the outer one's commit fails after the inner one's has been done.
func TestNestedManagersLoseTheInnerCookie(t *testing.T) {
	outerStore := testsite.NewBrittle()
	quiet := slog.New(slog.DiscardHandler)
	outer, err := session2.NewManager(outerStore, session2.Config{Logger: quiet, CommitTimeout: testsite.TinyTimeout, Cookie: session2.CookieConfig{Name: "__Host-outer"}})
	testsite.Must(t, err)
	inner, err := session2.NewManager(session2.NewMemoryStore(), session2.Config{Logger: quiet})
	testsite.Must(t, err)
	var do func(in, out *session2.Session)
	h := outer.Wrap(inner.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		do(inner.Session(r), outer.Session(r))
		io.WriteString(w, "done")
	})))
	b := &testsite.Browser{} // of the inner cookie
	ask := func(f func(in, out *session2.Session)) *http.Response {
		do = f
		r := httptest.NewRequest("GET", "/", nil)
		b.Send(r)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		res := w.Result()
		for _, c := range res.Cookies() {
			if c.Name == "__Host-session" {
				b.Cookie = c
			}
		}
		return res
	}
	ask(func(in, _ *session2.Session) { in.SetUser("alice") })
	outerStore.FailSave.Store(true)
	res := ask(func(in, out *session2.Session) { in.Renew(); in.Set("order", 1); out.Set("k", 1) })
	outerStore.FailSave.Store(false)
	var user string
	ask(func(in, _ *session2.Session) { user = in.User() })
	if user != "alice" {
		t.Errorf("status %d: the inner session's token was replaced, and its cookie is lost: user %q", res.StatusCode, user)
	}
}

// A logout whose token has just been replaced: 200, no event of a drop, session alive.
// A Discard beside a commit that lands: a refusal though nobody else changed the key.
func TestFalseLostUpdateAfterDiscard(t *testing.T) {
	store := newHookStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	res := st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.Get("k")
		s.Set("k", 1)
		store.once(func(_ session2.Record, _ session2.Version, save func() error) error {
			err := save()
			s.Discard() // another goroutine of the request
			return err
		})
		if err := s.Commit(r.Context()); err != nil {
			t.Error(err)
		}
		n, _ := s.Get("k").(int)
		s.Set("k", n+1)
		if err := s.Commit(r.Context()); err != nil {
			t.Errorf("nobody else has changed the key: %v", err)
		}
	})
	_ = res
}

// After a Commit that merged, a fresh read and a Set are refused.
func TestFalseLostUpdateAfterAMerge(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		counter.Update(s, inc)
		counter.Get(s) // to show it
		st.Do(b.Clone(), func(s *session2.Session) { counter.Update(s, inc) })
		if err := s.Commit(r.Context()); err != nil { // merged: 2
			t.Error(err)
		}
		n, _ := counter.Get(s)
		if n != 2 {
			t.Error(n)
		}
		counter.Set(s, n+1)
		if err := s.Commit(r.Context()); err != nil {
			t.Errorf("nobody has changed the key since it was read: %v", err)
		}
	})
}

// A store that panics after it has stored: certain error, stored all the same.
func TestPanicIsNotUncertain(t *testing.T) {
	store := &panicSave{hookStore: newHookStore()}
	var got error
	m, err := session2.NewManager(store, session2.Config{Logger: slog.New(slog.DiscardHandler),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) { got = err; w.WriteHeader(503) }})
	testsite.Must(t, err)
	st := &testsite.Site{T: t, M: m, Store: store, Events: &testsite.EventLog{}}
	b := st.Login("alice")
	st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.Set("k", 1)
		store.on = "saved"
		func() { defer func() { recover() }(); s.Commit(r.Context()) }()
		store.on = ""
	})
	if got != nil && !errors.Is(got, session2.ErrUncertain) && st.Stored(b, "k") != nil {
		t.Errorf("%v: not uncertain, and stored", got)
	}
}

// RevokeUser on a store without an index ends the session of whoever has signed in meanwhile.
func TestRevokeUserEndsAnothersSession(t *testing.T) {
	mem := session2.NewMemoryStore()
	store := &plainIter{MemoryStore: mem}
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	store.before = func() { store.before = nil; st.Do(b, func(s *session2.Session) { s.SetUser("bob") }) }
	n, err := st.M.RevokeUser(t.Context(), "alice")
	if u := st.UserOf(b); u != "bob" {
		t.Errorf("RevokeUser(alice) = %d, %v ended bob's session: %q", n, err, u)
	}
}

type plainIter struct {
	*session2.MemoryStore
	before func()
}

func (p *plainIter) DeleteUser(context.Context, string, ...session2.ID) (int, error) {
	return 0, errors.ErrUnsupported
}
func (p *plainIter) Delete(ctx context.Context, id session2.ID) error {
	if f := p.before; f != nil {
		f()
	}
	return p.MemoryStore.Delete(ctx, id)
}

// UseFormToken after the inner http.TimeoutHandler has answered with 503.
func TestFormTokenAfterTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		b := st.Login("alice")
		var form string
		st.Do(b, func(s *session2.Session) { form = s.FormToken() })
		done := make(chan struct{})
		var ok bool
		var err error
		r := httptest.NewRequest("GET", "/", nil)
		b.Send(r)
		w := httptest.NewRecorder()
		st.M.Wrap(http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer close(done)
			s := session2.FromContext(r.Context())
			s.User()
			time.Sleep(2 * time.Second)
			ok, err = s.UseFormToken(r.Context(), form)
		}), time.Second, "timeout")).ServeHTTP(w, r)
		<-done
		t.Log(w.Code, ok, err)
		if w.Code == 503 && ok {
			t.Error("the request was answered with 503, its context is over, and the token was used up by it")
		}
	})
}

// Update that uses the session's same key inside: must end.
func TestNestedUpdateEnds(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	done := make(chan struct{})
	calls := 0
	go func() {
		defer close(done)
		defer func() { recover() }()
		st.Do(b, func(s *session2.Session) {
			counter.Update(s, func(n int) int {
				if calls++; calls > 100000 {
					panic("endless")
				}
				counter.Update(s, inc)
				return n + 1
			})
		})
	}()
	select {
	case <-done:
		if calls > 1000 {
			t.Errorf("an Update that updates its own key is called %d times and never ends", calls)
		}
	case <-time.After(20 * time.Second):
		t.Error("hangs")
	}
}

// A store panics where the cookie of an earlier Commit is confirmed: no cookie, status 200.
func TestConfirmPanics(t *testing.T) {
	store := &panicSave{hookStore: newHookStore()}
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	res := st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.Renew()
		if err := s.Commit(r.Context()); err != nil {
			t.Error(err)
		}
		store.on = "load"
		func() { defer func() { recover() }(); w.WriteHeader(200) }()
		store.on = ""
		w.WriteHeader(500)
	})
	if u := st.UserOf(b); u != "alice" {
		t.Errorf("status %d without the cookie: locked out", res.StatusCode)
	}
}

// A page that has begun before its handler looks at the session can no longer be a
// 503: it is cut off, and not passed off as a page for nobody.
func TestALateLookAtAFailingStoreCutsTheResponseOff(t *testing.T) {
	store := testsite.NewBrittle()
	log := &testsite.Log{}
	st := testsite.NewSite(t, store, session2.Config{Logger: log.Logger()})
	b := &testsite.Browser{}
	st.Begin(b)
	srv := testsite.Serve(t, st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "you are ")
		io.WriteString(w, s.User())
	}), false)
	for _, fails := range []bool{false, true} {
		store.FailLoad.Store(fails)
		r, err := http.NewRequest("GET", srv.URL, nil)
		testsite.Must(t, err)
		b.Send(r)
		var body []byte
		res, err := srv.Client().Do(r)
		if err == nil {
			body, err = io.ReadAll(res.Body)
			res.Body.Close()
		}
		if fails != (err != nil) || !fails && string(body) != "you are alice" {
			t.Errorf("store failing %t: %q, %v", fails, body, err)
		}
	}
	if n := strings.Count(log.String(), "Vary"); n != 1 {
		t.Errorf("%d warnings of a late look, want 1 for the manager's life:\n%s", n, log)
	}
}

// Whoever has the token that Renew or a login of the same user replaced a moment ago
// is the session's user, and may end it; whoever has the one from before the login may
// not.
func TestALogoutBesideARenewal(t *testing.T) {
	signIn := func(s *session2.Session) { s.SetUser("alice") }
	for name, c := range map[string]struct {
		before  func(*session2.Session)
		changes []func(*session2.Session)
		ends    bool
	}{
		"Renew":              {signIn, []func(*session2.Session){(*session2.Session).Renew}, true},
		"another login":      {signIn, []func(*session2.Session){signIn}, true},
		"both":               {signIn, []func(*session2.Session){(*session2.Session).Renew, signIn}, true},
		"the login":          {func(s *session2.Session) { s.Set("k", 1) }, []func(*session2.Session){signIn}, false},
		"the login and more": {func(s *session2.Session) { s.Set("k", 1) }, []func(*session2.Session){signIn, signIn, (*session2.Session).Renew}, false},
		"somebody else":      {func(s *session2.Session) { s.SetUser("bob") }, []func(*session2.Session){signIn}, false},
	} {
		store := session2.NewMemoryStore()
		st := testsite.NewSite(t, store, session2.Config{})
		b := &testsite.Browser{}
		st.Do(b, c.before)
		old := b.Clone()
		for _, change := range c.changes {
			st.Do(b, change)
		}
		st.Do(old.Clone(), func(s *session2.Session) { s.Destroy(); s.Discard() })
		if st.UserOf(b) != "alice" {
			t.Errorf("%s: a logout that was discarded ended the session", name)
		}
		res := st.Do(old, func(s *session2.Session) {
			s.Destroy()
			if err := s.Commit(context.Background()); err != nil == c.ends {
				t.Errorf("%s: Commit = %v", name, err)
			}
		})
		if res.StatusCode != 200 || old.Token() != "" || (st.UserOf(b) == "") != c.ends {
			t.Errorf("%s: status %d, cookie %t, user %q; ended %t wanted", name, res.StatusCode, old.Token() != "", st.UserOf(b), c.ends)
		}
	}
}

// A copy of a session, which vet forbids, shows no token either.
func TestNoTokenInACopyOfASession(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	s, err := st.M.Open(t.Context(), b.Token())
	testsite.Must(t, err)
	_, secret, _ := strings.Cut(b.Token(), ".")
	if text := fmt.Sprintf("%+v %#v", reflect.ValueOf(s).Elem(), reflect.ValueOf(s).Elem()); strings.Contains(text, secret) {
		t.Errorf("printed: %s", text)
	}
}

func TestRevokeOthersOfAnotherManagersSession(t *testing.T) {
	store := session2.NewMemoryStore()
	site := testsite.NewSite(t, store, session2.Config{})
	admin := testsite.NewSite(t, store, session2.Config{Realm: "admin"})
	boss := admin.Login("alice")
	site.Do(site.Login("alice"), func(s *session2.Session) {
		if n, err := admin.M.RevokeOthers(t.Context(), s); n != 0 || err == nil {
			t.Errorf("RevokeOthers = %d, %v; want an error", n, err)
		}
	})
	if admin.UserOf(boss) != "alice" {
		t.Error("a user of the site has signed the administrator of the same name out")
	}
}

// A session that merely came to hold nothing takes nothing with it that a request
// under way adds: to nobody has it ended. What somebody has taken from it is taken
// once.
func TestEmptyingASessionLosesNothing(t *testing.T) {
	coupon := session2.NewKey[string]("coupon")
	taken := func(s *session2.Session) { coupon.Pop(s) }
	for name, c := range map[string]struct {
		meanwhile, second func(*session2.Session)
		status            int
		cart, user        any
	}{
		"a set":       {taken, func(s *session2.Session) { s.Set("cart", "book") }, 200, "book", ""},
		"an update":   {taken, func(s *session2.Session) { counter.Update(s, inc); s.Set("cart", 1) }, 200, 1, ""},
		"a login":     {taken, func(s *session2.Session) { s.SetUser("alice"); s.Set("cart", 1) }, 200, 1, "alice"},
		"a Pop":       {taken, taken, 409, nil, ""},
		"a delete":    {taken, func(s *session2.Session) { s.Delete("other") }, 200, nil, ""},
		"nothing":     {taken, func(*session2.Session) {}, 200, nil, ""},
		"a logout":    {taken, (*session2.Session).Destroy, 200, nil, ""},
		"ended":       {(*session2.Session).Destroy, func(s *session2.Session) { s.Set("cart", "book") }, 200, nil, ""},
		"emptied now": {taken, func(s *session2.Session) { s.Set("cart", 1); s.Commit(context.Background()); s.Delete("cart") }, 200, nil, ""},
	} {
		for _, explicit := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, explicit %t", name, explicit), func(t *testing.T) {
				store := session2.NewMemoryStore()
				st := testsite.NewSite(t, store, session2.Config{})
				b := &testsite.Browser{}
				st.Do(b, func(s *session2.Session) { coupon.Set(s, "free") })
				other := b.Clone()
				h := st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					s.User()
					st.Do(other, c.meanwhile)
					if n := records(t, store); n > 1 {
						t.Errorf("%d records", n)
					}
					c.second(s)
					if explicit {
						s.Commit(r.Context())
					}
					io.WriteString(w, "done")
				})
				res := testsite.RecordPanics(h, b).Result()
				b.Receive(res)
				if res.StatusCode != c.status {
					t.Errorf("status %d, want %d", res.StatusCode, c.status)
				}
				want := 0
				if c.cart != nil {
					want = 1
				}
				if n := records(t, store); n != want {
					t.Errorf("%d records are left, want %d", n, want)
				}
				st.Do(b, func(s *session2.Session) {
					if s.Get("cart") != c.cart || s.User() != c.user || s.Has("coupon") && c.status == 200 && c.cart != nil {
						t.Errorf("cart %v, user %q; want %v, %q", s.Get("cart"), s.User(), c.cart, c.user)
					}
				})
			})
		}
	}
}

// Of requests that take a session's only value at once, one has it.
func TestTheOnlyValueIsTakenOnce(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.Set("coupon", "free") })
	var ready, wg sync.WaitGroup
	ready.Add(16)
	var paid atomic.Int64
	for range 16 {
		wg.Go(func() {
			res := st.Visit(b.Clone(), func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
				v := s.Pop("coupon")
				ready.Done()
				ready.Wait()
				fmt.Fprint(w, v)
			})
			if res.StatusCode == 200 {
				paid.Add(1)
			}
		})
	}
	wg.Wait()
	if paid.Load() != 1 || records(t, store) != 0 {
		t.Errorf("%d have taken it, %d records are left; want 1 and none", paid.Load(), records(t, store))
	}
}
