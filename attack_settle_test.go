package session2_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
)

// Nested managers: the outer one's commit fails after the inner one's has been done.
func TestNestedManagersLoseTheInnerCookie(t *testing.T) {
	outerStore := newBrittle()
	quiet := slog.New(slog.DiscardHandler)
	outer, err := session2.NewManager(outerStore, session2.Config{Logger: quiet, CommitTimeout: tinyTimeout, Cookie: session2.CookieConfig{Name: "__Host-outer"}})
	must(t, err)
	inner, err := session2.NewManager(session2.NewMemoryStore(), session2.Config{Logger: quiet})
	must(t, err)
	var do func(in, out *session2.Session)
	h := outer.Wrap(inner.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		do(inner.Session(r), outer.Session(r))
		io.WriteString(w, "done")
	})))
	b := &browser{} // of the inner cookie
	ask := func(f func(in, out *session2.Session)) *http.Response {
		do = f
		r := httptest.NewRequest("GET", "/", nil)
		b.send(r)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		res := w.Result()
		for _, c := range res.Cookies() {
			if c.Name == "__Host-session" {
				b.cookie = c
			}
		}
		return res
	}
	ask(func(in, _ *session2.Session) { in.SetUser("alice") })
	outerStore.failSave.Store(true)
	res := ask(func(in, out *session2.Session) { in.Renew(); in.Set("order", 1); out.Set("k", 1) })
	outerStore.failSave.Store(false)
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
	st := newSite(t, store, session2.Config{})
	b := st.login("alice")
	res := st.visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
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
	st := newSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.login("alice")
	st.visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		counter.Update(s, inc)
		counter.Get(s) // to show it
		st.do(b.clone(), func(s *session2.Session) { counter.Update(s, inc) })
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
	must(t, err)
	st := &site{t: t, m: m, store: store, events: &eventLog{}}
	b := st.login("alice")
	st.visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.Set("k", 1)
		store.on = "saved"
		func() { defer func() { recover() }(); s.Commit(r.Context()) }()
		store.on = ""
	})
	if got != nil && !errors.Is(got, session2.ErrUncertain) && st.stored(b, "k") != nil {
		t.Errorf("%v: not uncertain, and stored", got)
	}
}

// RevokeUser on a store without an index ends the session of whoever has signed in meanwhile.
func TestRevokeUserEndsAnothersSession(t *testing.T) {
	mem := session2.NewMemoryStore()
	store := &plainIter{MemoryStore: mem}
	st := newSite(t, store, session2.Config{})
	b := st.login("alice")
	store.before = func() { store.before = nil; st.do(b, func(s *session2.Session) { s.SetUser("bob") }) }
	n, err := st.m.RevokeUser(t.Context(), "alice")
	if u := st.userOf(b); u != "bob" {
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
		st := newSite(t, session2.NewMemoryStore(), session2.Config{})
		b := st.login("alice")
		var form string
		st.do(b, func(s *session2.Session) { form = s.FormToken() })
		done := make(chan struct{})
		var ok bool
		var err error
		r := httptest.NewRequest("GET", "/", nil)
		b.send(r)
		w := httptest.NewRecorder()
		st.m.Wrap(http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
	st := newSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.login("alice")
	done := make(chan struct{})
	calls := 0
	go func() {
		defer close(done)
		defer func() { recover() }()
		st.do(b, func(s *session2.Session) {
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
	st := newSite(t, store, session2.Config{})
	b := st.login("alice")
	res := st.visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.Renew()
		if err := s.Commit(r.Context()); err != nil {
			t.Error(err)
		}
		store.on = "load"
		func() { defer func() { recover() }(); w.WriteHeader(200) }()
		store.on = ""
		w.WriteHeader(500)
	})
	if u := st.userOf(b); u != "alice" {
		t.Errorf("status %d without the cookie: locked out", res.StatusCode)
	}
}

// A page that has begun before its handler looks at the session can no longer be a
// 503: it is cut off, and not passed off as a page for nobody.
func TestALateLookAtAFailingStoreCutsTheResponseOff(t *testing.T) {
	store := newBrittle()
	log := &logBook{}
	st := newSite(t, store, session2.Config{Logger: log.logger()})
	b := &browser{}
	st.begin(b)
	srv := serve(t, st.handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "you are ")
		io.WriteString(w, s.User())
	}), false)
	for _, fails := range []bool{false, true} {
		store.failLoad.Store(fails)
		r, err := http.NewRequest("GET", srv.URL, nil)
		must(t, err)
		b.send(r)
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
		st := newSite(t, store, session2.Config{})
		b := &browser{}
		st.do(b, c.before)
		old := b.clone()
		for _, change := range c.changes {
			st.do(b, change)
		}
		st.do(old.clone(), func(s *session2.Session) { s.Destroy(); s.Discard() })
		if st.userOf(b) != "alice" {
			t.Errorf("%s: a logout that was discarded ended the session", name)
		}
		res := st.do(old, func(s *session2.Session) {
			s.Destroy()
			if err := s.Commit(context.Background()); err != nil == c.ends {
				t.Errorf("%s: Commit = %v", name, err)
			}
		})
		if res.StatusCode != 200 || old.token() != "" || (st.userOf(b) == "") != c.ends {
			t.Errorf("%s: status %d, cookie %t, user %q; ended %t wanted", name, res.StatusCode, old.token() != "", st.userOf(b), c.ends)
		}
	}
}

// A copy of a session, which vet forbids, shows no token either.
func TestNoTokenInACopyOfASession(t *testing.T) {
	st := newSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.login("alice")
	s, err := st.m.Open(t.Context(), b.token())
	must(t, err)
	_, secret, _ := strings.Cut(b.token(), ".")
	if text := fmt.Sprintf("%+v %#v", reflect.ValueOf(s).Elem(), reflect.ValueOf(s).Elem()); strings.Contains(text, secret) {
		t.Errorf("printed: %s", text)
	}
}

func TestRevokeOthersOfAnotherManagersSession(t *testing.T) {
	store := session2.NewMemoryStore()
	site := newSite(t, store, session2.Config{})
	admin := newSite(t, store, session2.Config{Realm: "admin"})
	boss := admin.login("alice")
	site.do(site.login("alice"), func(s *session2.Session) {
		if n, err := admin.m.RevokeOthers(t.Context(), s); n != 0 || err == nil {
			t.Errorf("RevokeOthers = %d, %v; want an error", n, err)
		}
	})
	if admin.userOf(boss) != "alice" {
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
				st := newSite(t, store, session2.Config{})
				b := &browser{}
				st.do(b, func(s *session2.Session) { coupon.Set(s, "free") })
				other := b.clone()
				h := st.handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					s.User()
					st.do(other, c.meanwhile)
					if n := records(t, store); n > 1 {
						t.Errorf("%d records", n)
					}
					c.second(s)
					if explicit {
						s.Commit(r.Context())
					}
					io.WriteString(w, "done")
				})
				res := recordPanics(h, b).Result()
				b.receive(res)
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
				st.do(b, func(s *session2.Session) {
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
	st := newSite(t, store, session2.Config{})
	b := &browser{}
	st.do(b, func(s *session2.Session) { s.Set("coupon", "free") })
	var ready, wg sync.WaitGroup
	ready.Add(16)
	var paid atomic.Int64
	for range 16 {
		wg.Go(func() {
			res := st.visit(b.clone(), func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
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

// A steppedRequest has looked at its session, and is under way for as long as a test
// wants.
type steppedRequest struct {
	steps chan func(*session2.Session)
	took  chan bool
	res   chan *http.Response
}

func (st *site) step(b *browser) *steppedRequest {
	q := &steppedRequest{make(chan func(*session2.Session)), make(chan bool), make(chan *http.Response)}
	from := b.clone()
	go func() {
		q.res <- st.visit(from, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			for f := range q.steps {
				f(s)
				q.took <- true
			}
			io.WriteString(w, "done")
		})
	}()
	q.do(func(s *session2.Session) { s.User() })
	return q
}

func (q *steppedRequest) do(f func(*session2.Session)) {
	q.steps <- f
	<-q.took
}

// end returns the response, which the test may lose.
func (q *steppedRequest) end() *http.Response {
	close(q.steps)
	return <-q.res
}

// What requests under way put into a session that another one has emptied is found
// again by the browser, in whichever order the answers come.
func TestWhatComesAfterAnEmptyingIsFound(t *testing.T) {
	set := func(key string) func(*session2.Session) {
		return func(s *session2.Session) { s.Set(key, 1) }
	}
	empty := func(s *session2.Session) { s.Delete("only") }
	commit := func(s *session2.Session) { s.Commit(context.Background()) }
	for name, c := range map[string]struct {
		run  func(t *testing.T, st *site, store *hookStore, b *browser)
		keys string
		user string
	}{
		"in the midst of it": {func(t *testing.T, st *site, store *hookStore, b *browser) {
			a, q := st.step(b), st.step(b)
			store.once(func(_ session2.Record, _ session2.Version, save func() error) error {
				err := save()
				q.do(set("b"))
				b.receive(q.end())
				return err
			})
			a.do(empty)
			b.receive(a.end())
		}, "b", ""},
		"its answer lost": {func(t *testing.T, st *site, store *hookStore, b *browser) {
			a, q := st.step(b), st.step(b)
			store.once(func(_ session2.Record, _ session2.Version, save func() error) error {
				save()
				q.do(set("b"))
				b.receive(q.end())
				return errDown
			})
			a.do(empty)
			b.receive(a.end())
		}, "b", ""},
		"after a sweep": {func(t *testing.T, st *site, store *hookStore, b *browser) {
			a, q := st.step(b), st.step(b)
			a.do(empty)
			b.receive(a.end())
			_, err := store.DeleteOld(t.Context(), time.Hour)
			must(t, err)
			q.do(set("b"))
			b.receive(q.end())
		}, "b", ""},
		"a login before its answer": {func(t *testing.T, st *site, store *hookStore, b *browser) {
			a, q := st.step(b), st.step(b)
			a.do(empty)
			a.do(commit)
			q.do(func(s *session2.Session) { s.SetUser("bob") })
			b.receive(q.end())
			b.receive(a.end())
		}, "", "bob"},
		"a login that began before its answer": {func(t *testing.T, st *site, store *hookStore, b *browser) {
			a := st.step(b)
			a.do(empty)
			a.do(commit)
			st.do(b, func(s *session2.Session) { s.SetUser("bob") })
			b.receive(a.end())
		}, "", "bob"},
		"the first answer lost": {func(t *testing.T, st *site, store *hookStore, b *browser) {
			a, q, r := st.step(b), st.step(b), st.step(b)
			a.do(empty)
			b.receive(a.end())
			q.do(set("b"))
			q.end()
			r.do(set("c"))
			b.receive(r.end())
		}, "b c", ""},
		"a straggler after a login": {func(t *testing.T, st *site, store *hookStore, b *browser) {
			q := st.step(b)
			st.do(b, empty)
			st.do(b, func(s *session2.Session) { s.SetUser("alice") })
			q.do(set("late"))
			b.receive(q.end())
		}, "", "alice"},
		"by the request itself": {func(t *testing.T, st *site, store *hookStore, b *browser) {
			a, q := st.step(b), st.step(b)
			a.do(empty)
			a.do(commit)
			q.do(set("b"))
			b.receive(q.end())
			a.do(set("a"))
			b.receive(a.end())
		}, "a b", ""},
		"by the request itself, alone": {func(t *testing.T, st *site, store *hookStore, b *browser) {
			a := st.step(b)
			a.do(empty)
			a.do(commit)
			a.do(set("a"))
			b.receive(a.end())
		}, "a", ""},
		"a request that arrives in the midst of it": {func(t *testing.T, st *site, store *hookStore, b *browser) {
			late := b.clone()
			store.once(func(_ session2.Record, _ session2.Version, save func() error) error {
				st.do(late, set("b"))
				return save()
			})
			st.do(b, empty)
			b.cookie = late.cookie // whose answer comes last
		}, "b", ""},
		"nothing": {func(t *testing.T, st *site, store *hookStore, b *browser) {
			q := st.step(b)
			st.do(b, empty)
			b.receive(q.end())
			if n := records(t, store); n != 0 || b.cookie != nil {
				t.Errorf("%d records and cookies %v are left", n, b.cookie)
			}
		}, "", ""},
		"nothing, in a stream": {func(t *testing.T, st *site, store *hookStore, b *browser) {
			st.visit(b, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
				s.User()
				w.(http.Flusher).Flush()
				empty(s)
			})
			if n := records(t, store); n != 0 {
				t.Errorf("%d records are left", n)
			}
		}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			store := newHookStore()
			st := newSite(t, store, session2.Config{})
			b := &browser{}
			st.do(b, set("only"))
			c.run(t, st, store, b)
			st.do(b, func(s *session2.Session) {
				if keys := strings.Join(s.Keys(), " "); keys != c.keys || s.User() != c.user {
					t.Errorf("the browser finds keys %q, user %q; want %q, %q", keys, s.User(), c.keys, c.user)
				}
			})
		})
	}
}

// While a session that came to hold nothing is being ended, a logout ends it all the
// same, should that fail.
func TestALogoutBesideAnEmptying(t *testing.T) {
	store := newHookStore()
	st := newSite(t, store, session2.Config{})
	b := &browser{}
	st.do(b, func(s *session2.Session) { s.Set("only", 1) })
	other := b.clone()
	store.once(func(session2.Record, session2.Version, func() error) error {
		st.do(other, (*session2.Session).Destroy)
		return fs.ErrPermission
	})
	st.do(b, func(s *session2.Session) { s.Delete("only") })
	if n := records(t, store); n != 0 {
		t.Errorf("%d records are left after a logout", n)
	}
}

// A Delete takes away what another request has set, although it is all that its own
// request does, and although its request sees nothing there.
func TestADeleteByItselfIsNoLessADelete(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*session2.Session)
		left   string
	}{
		"Delete":         {func(s *session2.Session) { s.Delete("k") }, "other"},
		"Set and Delete": {func(s *session2.Session) { s.Set("k", 2); s.Delete("k") }, "other"},
		"looked before":  {func(s *session2.Session) { s.Has("k"); s.Delete("k") }, "k other"},
		"Pop":            {func(s *session2.Session) { s.Pop("k") }, "k other"}, // it was nil when it was taken
	} {
		t.Run(name, func(t *testing.T) {
			st := newSite(t, session2.NewMemoryStore(), session2.Config{})
			b := &browser{}
			st.do(b, func(s *session2.Session) { s.Set("other", 1) })
			q := st.step(b)
			st.do(b, func(s *session2.Session) { s.Set("k", 1) })
			q.do(c.change)
			if res := q.end(); res.StatusCode != 200 {
				t.Errorf("status %d", res.StatusCode)
			}
			st.do(b, func(s *session2.Session) {
				if keys := strings.Join(s.Keys(), " "); keys != c.left {
					t.Errorf("keys %q are left, want %q", keys, c.left)
				}
			})
		})
	}
}
