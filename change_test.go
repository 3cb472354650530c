package session2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// A change is done again on what others have stored meanwhile, whether or not
// this request saw a difference.
func TestAChangeThatLooksLikeNothingIsReplayed(t *testing.T) {
	changes := map[string]func(*session2.Session){
		"Delete": func(s *session2.Session) { s.Delete("next") },
		"Clear":  (*session2.Session).Clear,
		"Set":    func(s *session2.Session) { s.Delete("next"); s.Set("k", 1) },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
			b := st.Login("alice")
			st.Do(b, func(s *session2.Session) { s.Set("k", 1) })
			other := b.Clone()
			st.During(b, func(s *session2.Session) { s.User() }, func() {
				st.Do(other, func(s *session2.Session) { s.Set("next", "/admin") })
			}, func(s *session2.Session) { change(s); s.SetUser("alice") })
			if next := st.Stored(b, "next"); next != nil {
				t.Errorf("next = %v after it was deleted at a login", next)
			}
		})
	}
}

func TestACommitThatChangesNothingWritesNothing(t *testing.T) {
	changes := map[string]func(*session2.Session){
		"delete of nothing": func(s *session2.Session) { s.Delete("none") },
		"pop of nothing":    func(s *session2.Session) { s.Pop("none") },
		"the same value":    func(s *session2.Session) { s.Set("k", "v") },
		"there and back":    func(s *session2.Session) { s.Set("k", "x"); s.Set("k", "v") },
		"come and gone":     func(s *session2.Session) { s.Set("x", 1); s.Delete("x") },
		"update to the same": func(s *session2.Session) {
			session2.NewKey[string]("k").Update(s, func(v string) string { return v })
		},
		"no flashes": func(s *session2.Session) { s.Flashes() },
	}
	for name, change := range changes {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{})
		b := st.Login("alice")
		st.Do(b, func(s *session2.Session) { s.Set("k", "v") })
		before := store.count("save", "touch")
		res := st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			change(s)
			if err := s.Commit(r.Context()); err != nil {
				t.Errorf("%s: Commit = %v", name, err)
			}
			change(s)
			io.WriteString(w, "done")
		})
		if n := store.count("save", "touch") - before; n != 0 || len(res.Cookies()) != 0 {
			t.Errorf("%s: %d writes, cookies %v", name, n, res.Cookies())
		}
		if got := st.Stored(b, "k"); got != "v" {
			t.Errorf("%s: k = %v", name, got)
		}
	}
}

// OnEvent may use the session of its request, and even commit it.
func TestOnEventMayUseTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kinds := map[session2.EventKind]int{}
		cfg := session2.Config{RenewEvery: time.Minute, Logger: (&testsite.Log{}).Logger()}
		var current *session2.Session
		cfg.OnEvent = func(ctx context.Context, e session2.Event) {
			kinds[e.Kind]++
			if s := current; s != nil {
				current = nil // not for the events of what it does itself
				if session2.FromContext(ctx) != s {
					t.Errorf("%v: its context has another session than the handler's", e.Kind)
				}
				s.User()
				s.Set("event", e.Kind.String())
				if err := s.Commit(ctx); err != nil {
					t.Errorf("%v: Commit = %v", e.Kind, err)
				}
			}
		}
		m, err := session2.NewManager(session2.NewMemoryStore(), cfg)
		testsite.Must(t, err)
		st := &testsite.Site{T: t, M: m, Events: &testsite.EventLog{}}
		visit := func(b *testsite.Browser, f func(s *session2.Session)) {
			st.Do(b, func(s *session2.Session) { current = s; f(s) })
			current = nil
		}
		b := &testsite.Browser{}
		visit(b, func(s *session2.Session) { s.SetUser("alice") })
		time.Sleep(2 * time.Minute)
		old := b.Clone()
		visit(b, func(s *session2.Session) { s.Set("k", 1) })
		visit(b, func(s *session2.Session) { s.Set("k", 2) })
		time.Sleep(2 * time.Minute)
		visit(old, func(s *session2.Session) { s.User() })
		garbage := &http.Cookie{Name: "__Host-session", Value: "garbage"}
		visit(&testsite.Browser{Cookie: garbage}, func(s *session2.Session) { s.User() })
		for _, k := range []session2.EventKind{session2.EventCreated, session2.EventRenewed, session2.EventReuse,
			session2.EventDestroyed, session2.EventMalformed} {
			if kinds[k] == 0 {
				t.Errorf("no event of kind %v: it was not tested", k)
			}
		}
	})
}

// To set what is there already is no change if that is all, and a change like any other
// beside one.
func TestSetOfWhatIsThere(t *testing.T) {
	for _, c := range []struct {
		beside bool
		want   string
	}{{false, "theirs"}, {true, "ours"}} {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		b := st.Login("alice")
		st.Do(b, func(s *session2.Session) { s.Set("k", "ours") })
		st.Do(b, func(s *session2.Session) {
			s.Set("k", "ours")
			if c.beside {
				s.Set("another", 1)
			}
			st.Do(b.Clone(), func(s *session2.Session) { s.Set("k", "theirs") })
		})
		if got := st.Stored(b, "k"); got != c.want {
			t.Errorf("beside another change %t: k = %v, want %v", c.beside, got, c.want)
		}
	}
}

// The events of UseFormToken, which saves by itself, come with the handler's context, too.
func TestOnEventOfAFormTokenFindsTheSession(t *testing.T) {
	var current *session2.Session
	kinds := map[session2.EventKind]int{}
	m, err := session2.NewManager(session2.NewMemoryStore(), session2.Config{
		OnEvent: func(ctx context.Context, e session2.Event) {
			if kinds[e.Kind]++; current != nil && session2.FromContext(ctx) != current {
				t.Errorf("%v: its context has another session than the handler's", e.Kind)
			}
		},
	})
	testsite.Must(t, err)
	st := &testsite.Site{T: t, M: m, Events: &testsite.EventLog{}}
	b := st.Login("alice")
	var form string
	st.Do(b, func(s *session2.Session) { form = s.FormToken() })
	st.Visit(b, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		s.User()
		st.Do(b.Clone(), func(s *session2.Session) { s.Set("k", 1) })
		current = s
		if ok, err := s.UseFormToken(r.Context(), form); !ok || err != nil {
			t.Errorf("UseFormToken = %t, %v", ok, err)
		}
		current = nil
	})
	if kinds[session2.EventConflict] == 0 {
		t.Error("no conflict: it was not tested")
	}
}

func TestTheLastCommitOfAStreamFailsAloud(t *testing.T) {
	for name, c := range map[string]struct {
		change func(st *testsite.Site, store *hookStore, s *session2.Session)
		event  session2.EventKind
	}{
		"too large": {func(_ *testsite.Site, _ *hookStore, s *session2.Session) {
			s.Set("k", make([]byte, 2000))
		}, session2.EventDropped},
		"not encodable": {func(_ *testsite.Site, _ *hookStore, s *session2.Session) {
			s.Set("k", make(chan int))
		}, session2.EventDropped},
		"ended": {func(st *testsite.Site, _ *hookStore, s *session2.Session) {
			s.Set("k", 1)
			st.M.Revoke(context.Background(), s.ID())
		}, session2.EventDropped},
		"new cookie": {func(_ *testsite.Site, _ *hookStore, s *session2.Session) { s.Renew() }, session2.EventDropped},
		"lost update": {func(st *testsite.Site, store *hookStore, s *session2.Session) {
			naive(s)
			o, _ := st.M.Open(context.Background(), s.Token())
			naive(o)
			o.Commit(context.Background())
		}, session2.EventConflict},
		"store down": {func(_ *testsite.Site, store *hookStore, s *session2.Session) {
			s.Set("k", 1)
			store.set(func() {
				store.onSave = func(session2.Record, session2.Version, func() error) error { return testsite.ErrDown }
			})
		}, session2.EventStoreError},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, book := newHookStore(), &testsite.Log{}
				st := testsite.NewSite(t, store, session2.Config{MaxBytes: 1000, Logger: book.Logger()})
				b := st.Login("alice")
				var s *session2.Session
				st.Visit(b, func(of *session2.Session, w http.ResponseWriter, _ *http.Request) {
					s = of
					s.User()
					w.(http.Flusher).Flush()
					c.change(st, store, s)
				})
				if s.Err() == nil || st.Events.Count(c.event) == 0 || !strings.Contains(book.String(), "error=") {
					t.Errorf("Err() = %v, %d events of kind %v, log:\n%s",
						s.Err(), st.Events.Count(c.event), c.event, book)
				}
			})
		})
	}
}

func TestASessionUsedAfterItsHandler(t *testing.T) {
	book := &testsite.Log{}
	store := newHookStore()
	st := testsite.NewSite(t, store, session2.Config{Logger: book.Logger()})
	b := st.Login("alice")
	var late *session2.Session
	st.Do(b, func(s *session2.Session) { late = s; s.User() })
	if late.Err() != nil {
		t.Fatalf("Err() = %v", late.Err())
	}
	late.Set("k", 1)
	late.Set("k", 2)
	if err := late.Err(); err == nil || !strings.Contains(err.Error(), "after its handler") {
		t.Errorf("Err() = %v", err)
	}
	if n := strings.Count(book.String(), "after its handler"); n != 1 {
		t.Errorf("%d log lines, want 1:\n%s", n, book)
	}
}

// What a goroutine reads after its handler is no change, and none that it makes is kept from
// Err and the log.
func TestWhatIsAChangeAfterItsHandler(t *testing.T) {
	type use struct {
		name string
		do   func(*session2.Session)
	}
	key := session2.NewKey[int]("n")
	reads := []use{
		{"nothing", func(*session2.Session) {}},
		{"ID", func(s *session2.Session) { s.ID() }},
		{"Token", func(s *session2.Session) { s.Token() }},
		{"IsNew", func(s *session2.Session) { s.IsNew() }},
		{"User", func(s *session2.Session) { s.User() }},
		{"Level", func(s *session2.Session) { s.Level() }},
		{"Get", func(s *session2.Session) { s.Get("k") }},
		{"Key.Get", func(s *session2.Session) { key.Get(s) }},
		{"Has", func(s *session2.Session) { s.Has("k") }},
		{"Keys", func(s *session2.Session) { s.Keys() }},
		{"HasInfo", func(s *session2.Session) { s.HasInfo() }},
		{"Dirty", func(s *session2.Session) { s.Dirty() }},
		{"Created", func(s *session2.Session) { s.Created() }},
		{"Accessed", func(s *session2.Session) { s.Accessed() }},
		{"Expires", func(s *session2.Session) { s.Expires() }},
		{"RemoteAddr", func(s *session2.Session) { s.RemoteAddr() }},
		{"UserAgent", func(s *session2.Session) { s.UserAgent() }},
		{"Flashes of none", func(s *session2.Session) { s.Flashes() }},
		{"HasFormToken", func(s *session2.Session) { s.HasFormToken("x") }},
		{"ValidCSRFToken", func(s *session2.Session) { s.ValidCSRFToken(httptest.NewRequest("POST", "/", nil)) }},
		{"Check", func(s *session2.Session) { s.Check(context.Background()) }},
		{"Dump", func(s *session2.Session) { s.Dump(io.Discard) }},
	}
	changes := []use{
		{"SetUser", func(s *session2.Session) { s.SetUser("bob") }},
		{"SetUser, too long", func(s *session2.Session) { s.SetUser(strings.Repeat("u", 2000)) }},
		{"Renew", func(s *session2.Session) { s.Renew() }},
		{"Set", func(s *session2.Session) { s.Set("k", 1) }},
		{"Set, at length", func(s *session2.Session) { s.Set("k", strings.Repeat("v", 2000)) }},
		{"Set, of what cannot be set", func(s *session2.Session) { s.Set("k", make(chan int)) }},
		{"Key.Set", func(s *session2.Session) { key.Set(s, 1) }},
		{"Key.Update", func(s *session2.Session) { key.Update(s, func(n int) int { return n + 1 }) }},
		{"Key.Commit", func(s *session2.Session) {
			key.Commit(context.Background(), s, func(n int) (int, error) { return n + 1, nil })
		}},
		{"Delete", func(s *session2.Session) { s.Delete("k") }},
		{"Pop", func(s *session2.Session) { s.Pop("k") }},
		{"Clear", func(s *session2.Session) { s.Clear() }},
		{"Flash", func(s *session2.Session) { s.Flash("hello") }},
		{"FormToken", func(s *session2.Session) { s.FormToken() }},
		{"UseFormToken", func(s *session2.Session) { s.UseFormToken(context.Background(), s.FormToken()) }},
		{"the first CSRFToken", func(s *session2.Session) { s.CSRFToken() }},
		{"SetPersistent", func(s *session2.Session) { s.SetPersistent(true) }},
		{"Destroy", func(s *session2.Session) { s.Destroy() }},
		{"Commit", func(s *session2.Session) { s.Commit(context.Background()) }},
	}
	for want, uses := range [][]use{reads, changes} {
		for _, u := range uses {
			for _, looked := range []bool{true, false} {
				st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
				b := st.Login("alice")
				var late *session2.Session
				st.Do(b, func(s *session2.Session) {
					if late = s; looked {
						s.User()
					}
				})
				u.do(late)
				if n := st.Events.Count(session2.EventDropped); n != want || (late.Err() != nil) != (want == 1) {
					t.Errorf("%s, looked at before %t: %d events, want %d; Err() = %v", u.name, looked, n, want, late.Err())
				}
			}
		}
	}
}

func TestErrAfterALoginThatJoinedItsTwin(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
	late := b.Clone()
	st.Do(b, func(s *session2.Session) { s.SetUser("alice") })
	var err error
	st.Visit(late, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.SetUser("alice")
		if c := s.Commit(r.Context()); c != nil {
			t.Errorf("Commit = %v", c)
		}
		err = s.Err()
	})
	if err != nil || late.Token() != b.Token() {
		t.Errorf("Err() = %v, the same token %t", err, late.Token() == b.Token())
	}
}

// A session that is full can still rotate, sign in and out, and shrink.
func TestTheLibrarysOwnBytesDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := session2.Config{MaxBytes: 1000, RenewEvery: time.Minute}
		store := session2.NewMemoryStore()
		st := testsite.NewSite(t, store, cfg)
		b := &testsite.Browser{}
		size := 0
		for n := 1000; size == 0; n-- { // as large as may be
			if st.Do(b, func(s *session2.Session) { s.Set("k", make([]byte, n)) }).StatusCode == 200 {
				size = n
			}
		}
		if size < 980 {
			t.Errorf("the largest value has %d of 1000 bytes", size)
		}
		ok := func(what string, f func(s *session2.Session)) {
			t.Helper()
			if res := st.Do(b, f); res.StatusCode != 200 {
				t.Errorf("%s of a full session: status %d", what, res.StatusCode)
			}
		}
		ok("a login", func(s *session2.Session) { s.SetUser(strings.Repeat("u", 1024)) })
		for range 40 {
			time.Sleep(61 * time.Second)
			ok("a rotation", func(s *session2.Session) { s.User() })
			ok("a sight", func(s *session2.Session) { s.User() })
		}
		for range 40 {
			ok("Renew", (*session2.Session).Renew)
			ok("a form token", func(s *session2.Session) { s.FormToken(); s.CSRFToken() })
		}
		st2 := testsite.NewSite(t, store, session2.Config{MaxBytes: 100}) // a later configuration
		if res := st2.Do(b, func(s *session2.Session) { s.Renew() }); res.StatusCode != 200 {
			t.Errorf("Renew under a smaller MaxBytes: %d", res.StatusCode)
		}
		if res := st2.Do(b, func(s *session2.Session) { s.Set("more", 1) }); res.StatusCode != 500 {
			t.Errorf("growing under a smaller MaxBytes: %d", res.StatusCode)
		}
		if res := st2.Do(b, func(s *session2.Session) { s.Delete("k") }); res.StatusCode != 200 {
			t.Errorf("shrinking: %d", res.StatusCode)
		}
	})
}

// What n changes cost grows as n does: counted in bytes allocated, which no
// busy machine changes. Slices and maps grow in steps, hence the room; a copy of
// the session for each change would make it a hundred times as many.
func TestTheCostOfManyChanges(t *testing.T) {
	var list = session2.NewKey[int]("list")
	for name, change := range map[string]func(s *session2.Session, i int){
		"Set":       func(s *session2.Session, i int) { s.Set(fmt.Sprintf("key %d", i*7919%10007), i) },
		"Set again": func(s *session2.Session, i int) { s.Set("key", i) },
		"Delete":    func(s *session2.Session, i int) { s.Delete(fmt.Sprintf("key %d", i)) },
		"Get":       func(s *session2.Session, i int) { s.Get(fmt.Sprintf("key %d", i)) },
		"Flash":     func(s *session2.Session, i int) { s.Flash(i) },
		"Update":    func(s *session2.Session, i int) { list.Update(s, inc) },
		"FormToken": func(s *session2.Session, i int) { s.FormToken() },
	} {
		cost := func(n int) uint64 {
			st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
			b := st.Login("alice")
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			res := st.Do(b, func(s *session2.Session) {
				for i := range n {
					change(s, i)
				}
			})
			runtime.ReadMemStats(&after)
			if res.StatusCode != 200 {
				t.Errorf("%s: status %d", name, res.StatusCode)
			}
			return after.TotalAlloc - before.TotalAlloc
		}
		if few, many := cost(1000), cost(10000); many > 20*few {
			t.Errorf("%s: 10,000 cost %d bytes, 1,000 cost %d: %d times as many", name, many, few, many/few)
		}
	}
}

// A replay of many changes ends with the commit's time.
func TestALongReplayEndsWithTheCommitsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{CommitTimeout: time.Second})
		b := st.Login("alice")
		other := b.Clone()
		replays := 0
		st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			first := true
			for range 100 {
				counter.Update(s, func(n int) int {
					if !first {
						replays++
						time.Sleep(100 * time.Millisecond)
					}
					return n + 1
				})
			}
			first = false
			st.Do(other, func(s *session2.Session) { s.Set("k", 1) })
			if err := s.Commit(r.Context()); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Commit = %v", err)
			}
		})
		if replays > 11 {
			t.Errorf("%d replays of 100 ms within a second", replays)
		}
	})
}

// Whoever has answered for a request whose time was over has told its client that
// nothing was done.
func TestARequestWhoseTimeIsOverStoresNothing(t *testing.T) {
	change := map[string]func(s *session2.Session){
		"set":     func(s *session2.Session) { s.Set("k", 1) },
		"login":   func(s *session2.Session) { s.SetUser("bob") },
		"logout":  (*session2.Session).Destroy,
		"nothing": func(s *session2.Session) { s.User() },
	}
	for name, change := range change {
		eachReal(t, func(t *testing.T, respond func(http.ResponseWriter, *http.Request)) {
			store := newHookStore()
			st := testsite.NewSite(t, store, session2.Config{RenewEvery: time.Second})
			b := st.Login("alice")
			time.Sleep(2 * time.Second)
			before := store.count("save", "delete", "touch")
			ended := make(chan struct{})
			h := http.TimeoutHandler(st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
				defer close(ended)
				change(s)
				<-r.Context().Done()
				if err := s.Commit(r.Context()); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: Commit = %v", name, err)
				}
				respond(w, r)
			}), time.Second, "too late")
			r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
			b.Send(r)
			h.ServeHTTP(w, r)
			<-ended
			synctest.Wait()
			if n := store.count("save", "delete", "touch") - before; w.Code != 503 || n != 0 {
				t.Errorf("%s: status %d, %d writes; want 503 and none", name, w.Code, n)
			}
			if user := st.UserOf(b); user != "alice" || st.Stored(b, "k") != nil {
				t.Errorf("%s: user %q", name, user)
			}
		})
	}
}

// Without anybody else to answer, the client is not told of a success either.
func TestARequestPastItsDeadlineIsNoSuccess(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	serve := func(f func(s *session2.Session)) *httptest.ResponseRecorder {
		ctx, cancel := context.WithTimeout(t.Context(), 0)
		defer cancel()
		r, w := httptest.NewRequest("GET", "/", nil).WithContext(context.WithoutCancel(ctx)), httptest.NewRecorder()
		b.Send(r)
		deadline := &lateContext{Context: r.Context()}
		st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			s.User()
			deadline.late = true
			f(s)
			io.WriteString(w, "done")
		}).ServeHTTP(w, r.WithContext(deadline))
		return w
	}
	w := serve(func(s *session2.Session) { s.Set("k", 1) })
	if w.Code != 503 || strings.Contains(w.Body.String(), "done") {
		t.Errorf("a change: %d %q", w.Code, w.Body)
	}
	if w := serve(func(*session2.Session) {}); w.Code != 200 {
		t.Errorf("a read: %d", w.Code)
	}
	if st.Stored(b, "k") != nil {
		t.Error("the change is stored")
	}
}

// lateContext ends when it is told to.
type lateContext struct {
	context.Context
	late bool
}

func (c *lateContext) Err() error {
	if c.late {
		return context.DeadlineExceeded
	}
	return nil
}

func TestStatuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(st *testsite.Site, b *testsite.Browser, s *session2.Session)
		status int
		level  string
	}{
		"a value that cannot be encoded": {func(_ *testsite.Site, _ *testsite.Browser, s *session2.Session) {
			s.Set("k", make(chan int))
		}, 500, "ERROR"},
		"a user too long": {func(_ *testsite.Site, _ *testsite.Browser, s *session2.Session) {
			s.SetUser(strings.Repeat("u", 2000))
		}, 500, "ERROR"},
		"too large": {func(_ *testsite.Site, _ *testsite.Browser, s *session2.Session) {
			s.Set("k", make([]byte, 2<<20))
		}, 500, "ERROR"},
		"a login elsewhere": {func(st *testsite.Site, b *testsite.Browser, s *session2.Session) {
			s.Set("k", 1)
			st.Do(b.Clone(), func(s *session2.Session) { s.SetUser("bob") })
		}, 409, "INFO"},
		"a lost update": {func(st *testsite.Site, b *testsite.Browser, s *session2.Session) {
			naive(s)
			st.Do(b.Clone(), naive)
		}, 409, "INFO"},
	} {
		t.Run(name, func(t *testing.T) {
			book := &testsite.Log{}
			st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Logger: book.Logger()})
			b := st.Login("alice")
			res := st.Do(b, func(s *session2.Session) { c.change(st, b, s) })
			if res.StatusCode != c.status {
				t.Errorf("status %d, want %d", res.StatusCode, c.status)
			}
			worst := "DEBUG"
			for _, level := range []string{"INFO", "WARN", "ERROR"} {
				if strings.Contains(book.String(), "level="+level) {
					worst = level
				}
			}
			if worst != c.level {
				t.Errorf("logged at %s, want %s:\n%s", worst, c.level, book)
			}
		})
	}
}

// Outside Wrap there is no session, and its methods say what is missing.
func TestANilSessionSaysWhatIsMissing(t *testing.T) {
	s := session2.FromContext(t.Context())
	for name, use := range map[string]func(){
		"Get": func() { s.Get("k") }, "Set": func() { s.Set("k", 1) }, "User": func() { s.User() },
		"SetUser": func() { s.SetUser("alice") }, "Err": func() { s.Err() }, "Dirty": func() { s.Dirty() },
		"Flash": func() { s.Flash(1) }, "Discard": func() { s.Discard() }, "Passive": func() { s.Passive() },
		"Commit": func() { s.Commit(t.Context()) }, "Check": func() { s.Check(t.Context()) },
		"Destroy": func() { s.Destroy() }, "CSRFToken": func() { s.CSRFToken() },
		"Key.Get": func() { counter.Get(s) }, "Key.Set": func() { counter.Set(s, 1) },
		"Key.Update":   func() { counter.Update(s, inc) },
		"UseFormToken": func() { s.UseFormToken(t.Context(), strings.Repeat("A", 22)) },
		"SetLifetime":  func() { s.SetLifetime(-1) }, "Remember": func() { s.Remember(0) },
		"ValidCSRFToken": func() { s.ValidCSRFToken(nil) }, "HasFormToken": func() { s.HasFormToken("") },
	} {
		func() {
			defer func() {
				if text := fmt.Sprint(recover()); !strings.Contains(text, "Wrap") {
					t.Errorf("%s panics with %q", name, text)
				}
			}()
			use()
		}()
	}
	if text := fmt.Sprint(s); text != "<nil>" {
		t.Errorf("it prints as %q", text)
	}
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
		"a set":     {taken, func(s *session2.Session) { s.Set("cart", "book") }, 200, "book", ""},
		"an update": {taken, func(s *session2.Session) { counter.Update(s, inc); s.Set("cart", 1) }, 200, 1, ""},
		"a login":   {taken, func(s *session2.Session) { s.SetUser("alice"); s.Set("cart", 1) }, 200, 1, "alice"},
		"a Pop":     {taken, taken, 409, nil, ""},
		"a delete":  {taken, func(s *session2.Session) { s.Delete("other") }, 200, nil, ""},
		"nothing":   {taken, func(*session2.Session) {}, 200, nil, ""},
		"a logout":  {taken, (*session2.Session).Destroy, 200, nil, ""},
		"ended":     {(*session2.Session).Destroy, func(s *session2.Session) { s.Set("cart", "book") }, 200, nil, ""},
		"emptied now": {taken, func(s *session2.Session) {
			s.Set("cart", 1)
			s.Commit(context.Background())
			s.Delete("cart")
		}, 200, nil, ""},
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
					if s.Get("cart") != c.cart || s.User() != c.user ||
						s.Has("coupon") && c.status == 200 && c.cart != nil {
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

func TestClearKeepsTheUser(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	st.Do(b, func(s *session2.Session) { s.Set("k", 1); s.Flash("x"); s.FormToken() })
	st.Do(b, func(s *session2.Session) { s.Clear() })
	st.Do(b, func(s *session2.Session) {
		if s.User() != "alice" || len(s.Keys()) != 0 || len(s.Flashes()) != 0 {
			t.Errorf("user %q, keys %v", s.User(), s.Keys())
		}
		if s.Dirty() {
			t.Error("reading made the session dirty")
		}
	})
}

func TestFlashesMerge(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	st.Do(b, func(s *session2.Session) { s.Flash("one") })
	st.During(b, func(s *session2.Session) { s.Flashes() }, func() {
		st.Do(b.Clone(), func(s *session2.Session) { s.Flash("two") })
	}, func(*session2.Session) {})
	st.Do(b, func(s *session2.Session) {
		if got := fmt.Sprint(s.Flashes()); got != "[two]" {
			t.Errorf("flashes %v, want the one that came meanwhile", got)
		}
	})
}

func TestAttributes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{IdleTimeout: -1})
		start := time.Now()
		b := &testsite.Browser{}
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("User-Agent", strings.Repeat("x", 300))
		r.RemoteAddr = strings.Repeat("1", 300) // as a middleware may have taken it from a header
		w := httptest.NewRecorder()
		st.Handler(func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
			s.SetUser("alice")
			s.SetLifetime(48 * time.Hour)
			s.SetPersistent(true)
		}).ServeHTTP(w, r)
		b.Receive(w.Result())
		if b.Cookie.MaxAge != 48*3600 {
			t.Errorf("Max-Age %d, want two days", b.Cookie.MaxAge)
		}
		time.Sleep(47 * time.Hour)
		st.Do(b, func(s *session2.Session) {
			if !s.Created().Equal(start) || !s.Accessed().Equal(start) || !s.Expires().Equal(start.Add(48*time.Hour)) {
				t.Errorf("created %v, accessed %v, expires %v", s.Created(), s.Accessed(), s.Expires())
			}
			if s.RemoteAddr() != r.RemoteAddr[:256] || len(s.UserAgent()) != 256 {
				t.Errorf("remote %q, agent of %d bytes", s.RemoteAddr(), len(s.UserAgent()))
			}
			var out bytes.Buffer
			s.Set("k", "secret")
			s.Dump(&out)
			if !strings.Contains(out.String(), `"k" 7 bytes`) || strings.Contains(out.String(), "secret") {
				t.Errorf("Dump:\n%s", out.String())
			}
		})
		time.Sleep(2 * time.Hour)
		if st.UserOf(b) != "" {
			t.Error("the session outlived SetLifetime")
		}
	})
}

func TestRefusedChangesFailTheRequest(t *testing.T) {
	for name, change := range map[string]func(*session2.Session){
		"a user that is too long": func(s *session2.Session) { s.SetUser(strings.Repeat("x", 1025)) },
		"a negative lifetime":     func(s *session2.Session) { s.SetLifetime(-1) },
		"too much data":           func(s *session2.Session) { s.Set("k", strings.Repeat("x", 2<<20)) },
	} {
		t.Run(name, func(t *testing.T) {
			store := session2.NewMemoryStore()
			st := testsite.NewSite(t, store, session2.Config{})
			b := &testsite.Browser{}
			if res := st.Do(b, func(s *session2.Session) { s.Set("other", 1); change(s) }); res.StatusCode < 500 {
				t.Errorf("status %d", res.StatusCode)
			}
			if n := records(t, store); n != 0 || b.Token() != "" {
				t.Errorf("%d records, cookie %t", n, b.Token() != "")
			}
			res := st.Do(b, func(s *session2.Session) { change(s); s.Discard(); s.Set("other", 1) })
			if res.StatusCode != 200 {
				t.Errorf("after Discard: status %d", res.StatusCode)
			}
		})
	}
}

// So does a nil Manager, of whose error nobody took notice; a nil handler, and a
// store that is a nil pointer for the same reason, are refused when they are given.
func TestANilManagerSaysWhatIsMissing(t *testing.T) {
	var m *session2.Manager
	good := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{}).M
	for want, use := range map[string]func(){
		"session2: the Manager is nil": func() { m.Wrap(http.NotFoundHandler()) },
		"the Manager is nil":           func() { m.Open(t.Context(), "") },
		"the handler is nil":           func() { good.Wrap(nil) },
		"the session is nil":           func() { good.RevokeOthers(t.Context(), nil) },
	} {
		func() {
			defer func() {
				if text := fmt.Sprint(recover()); !strings.Contains(text, want) {
					t.Errorf("the panic says %q, want %q", text, want)
				}
			}()
			use()
		}()
	}
	var store *session2.FileStore
	if _, err := session2.NewManager(store, session2.Config{}); err == nil || !strings.Contains(err.Error(), "nil") {
		t.Errorf("NewManager with a nil *FileStore = %v", err)
	}
}

// A steppedRequest has looked at its session, and is under way for as long as a test
// wants.
type steppedRequest struct {
	steps chan func(*session2.Session)
	took  chan bool
	res   chan *http.Response
}

func step(st *testsite.Site, b *testsite.Browser) *steppedRequest {
	q := &steppedRequest{make(chan func(*session2.Session)), make(chan bool), make(chan *http.Response)}
	from := b.Clone()
	go func() {
		q.res <- st.Visit(from, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
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
		run  func(t *testing.T, st *testsite.Site, store *hookStore, b *testsite.Browser)
		keys string
		user string
	}{
		"in the midst of it": {func(t *testing.T, st *testsite.Site, store *hookStore, b *testsite.Browser) {
			a, q := step(st, b), step(st, b)
			store.once(func(_ session2.Record, _ session2.Version, save func() error) error {
				err := save()
				q.do(set("b"))
				b.Receive(q.end())
				return err
			})
			a.do(empty)
			b.Receive(a.end())
		}, "b", ""},
		"its answer lost": {func(t *testing.T, st *testsite.Site, store *hookStore, b *testsite.Browser) {
			a, q := step(st, b), step(st, b)
			store.once(func(_ session2.Record, _ session2.Version, save func() error) error {
				save()
				q.do(set("b"))
				b.Receive(q.end())
				return testsite.ErrDown
			})
			a.do(empty)
			b.Receive(a.end())
		}, "b", ""},
		"after a sweep": {func(t *testing.T, st *testsite.Site, store *hookStore, b *testsite.Browser) {
			a, q := step(st, b), step(st, b)
			a.do(empty)
			b.Receive(a.end())
			_, err := store.DeleteOld(t.Context(), time.Hour)
			testsite.Must(t, err)
			q.do(set("b"))
			b.Receive(q.end())
		}, "b", ""},
		"a login before its answer": {func(t *testing.T, st *testsite.Site, store *hookStore, b *testsite.Browser) {
			a, q := step(st, b), step(st, b)
			a.do(empty)
			a.do(commit)
			q.do(func(s *session2.Session) { s.SetUser("bob") })
			b.Receive(q.end())
			b.Receive(a.end())
		}, "", "bob"},
		"a login that began before its answer": {
			func(t *testing.T, st *testsite.Site, store *hookStore, b *testsite.Browser) {
				a := step(st, b)
				a.do(empty)
				a.do(commit)
				st.Do(b, func(s *session2.Session) { s.SetUser("bob") })
				b.Receive(a.end())
			}, "", "bob"},
		"the first answer lost": {func(t *testing.T, st *testsite.Site, store *hookStore, b *testsite.Browser) {
			a, q, r := step(st, b), step(st, b), step(st, b)
			a.do(empty)
			b.Receive(a.end())
			q.do(set("b"))
			q.end()
			r.do(set("c"))
			b.Receive(r.end())
		}, "b c", ""},
		"a straggler after a login": {func(t *testing.T, st *testsite.Site, store *hookStore, b *testsite.Browser) {
			q := step(st, b)
			st.Do(b, empty)
			st.Do(b, func(s *session2.Session) { s.SetUser("alice") })
			q.do(set("late"))
			b.Receive(q.end())
		}, "", "alice"},
		"by the request itself": {func(t *testing.T, st *testsite.Site, store *hookStore, b *testsite.Browser) {
			a, q := step(st, b), step(st, b)
			a.do(empty)
			a.do(commit)
			q.do(set("b"))
			b.Receive(q.end())
			a.do(set("a"))
			b.Receive(a.end())
		}, "a b", ""},
		"by the request itself, alone": {func(t *testing.T, st *testsite.Site, store *hookStore, b *testsite.Browser) {
			a := step(st, b)
			a.do(empty)
			a.do(commit)
			a.do(set("a"))
			b.Receive(a.end())
		}, "a", ""},
		"a request that arrives in the midst of it": {
			func(t *testing.T, st *testsite.Site, store *hookStore, b *testsite.Browser) {
				late := b.Clone()
				store.once(func(_ session2.Record, _ session2.Version, save func() error) error {
					st.Do(late, set("b"))
					return save()
				})
				st.Do(b, empty)
				b.Cookie = late.Cookie // whose answer comes last
			}, "b", ""},
		"nothing": {func(t *testing.T, st *testsite.Site, store *hookStore, b *testsite.Browser) {
			q := step(st, b)
			st.Do(b, empty)
			b.Receive(q.end())
			if n := records(t, store); n != 0 || b.Cookie != nil {
				t.Errorf("%d records and cookies %v are left", n, b.Cookie)
			}
		}, "", ""},
		"nothing, in a stream": {func(t *testing.T, st *testsite.Site, store *hookStore, b *testsite.Browser) {
			st.Visit(b, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
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
			st := testsite.NewSite(t, store, session2.Config{})
			b := &testsite.Browser{}
			st.Do(b, set("only"))
			c.run(t, st, store, b)
			st.Do(b, func(s *session2.Session) {
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
	st := testsite.NewSite(t, store, session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.Set("only", 1) })
	other := b.Clone()
	store.once(func(session2.Record, session2.Version, func() error) error {
		st.Do(other, (*session2.Session).Destroy)
		return fs.ErrPermission
	})
	st.Do(b, func(s *session2.Session) { s.Delete("only") })
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
			st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
			b := &testsite.Browser{}
			st.Do(b, func(s *session2.Session) { s.Set("other", 1) })
			q := step(st, b)
			st.Do(b, func(s *session2.Session) { s.Set("k", 1) })
			q.do(c.change)
			if res := q.end(); res.StatusCode != 200 {
				t.Errorf("status %d", res.StatusCode)
			}
			st.Do(b, func(s *session2.Session) {
				if keys := strings.Join(s.Keys(), " "); keys != c.left {
					t.Errorf("keys %q are left, want %q", keys, c.left)
				}
			})
		})
	}
}

// A form token that the request has removed itself is not there any more, whatever is stored.
func TestARemovedFormTokenIsNotSpent(t *testing.T) {
	for name, remove := range map[string]func(*session2.Session){
		"Clear":   (*session2.Session).Clear,
		"Renew":   (*session2.Session).Renew,
		"SetUser": func(s *session2.Session) { s.SetUser("bob") },
		"Destroy": (*session2.Session).Destroy,
	} {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		b := &testsite.Browser{}
		var token string
		st.Do(b, func(s *session2.Session) { s.SetUser("alice"); token = s.FormToken() })
		st.Visit(b, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
			remove(s)
			if ok, err := s.UseFormToken(r.Context(), token); ok || err != nil || s.HasFormToken(token) {
				t.Errorf("after %s: UseFormToken %v, %v", name, ok, err)
			}
		})
	}
}

// A session that its own request has made, and emptied again by Commit, is not left behind,
// however the request ends.
func TestARequestLeavesNoEmptySessionOfItsOwn(t *testing.T) {
	for name, end := range map[string]func(http.ResponseWriter){
		"well":     func(http.ResponseWriter) {},
		"a 502":    func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) },
		"a panic":  func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"streamed": func(w http.ResponseWriter) { io.WriteString(w, "x") },
	} {
		for _, cookie := range []string{"none", "of a session that has ended", "of one that it ends"} {
			for _, refilled := range []bool{false, true} {
				store := session2.NewMemoryStore()
				st := testsite.NewSite(t, store, session2.Config{})
				b := &testsite.Browser{}
				if cookie != "none" {
					b = st.Login("alice")
				}
				if cookie == "of a session that has ended" {
					st.Do(b.Clone(), (*session2.Session).Destroy)
				}
				testsite.RecordPanics(st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					if cookie == "of one that it ends" {
						s.Destroy()
						testsite.Must(t, s.Commit(r.Context()))
					}
					s.Set("step", 1)
					testsite.Must(t, s.Commit(r.Context()))
					s.Delete("step")
					testsite.Must(t, s.Commit(r.Context()))
					if refilled {
						s.Set("step", 2)
						testsite.Must(t, s.Commit(r.Context()))
					}
					end(w)
				}), b)
				want := 0
				if refilled {
					want = 1
				}
				if n := records(t, store); n != want {
					t.Errorf("it ends in %s, cookie %s, filled again %t: %d records, want %d", name, cookie, refilled, n, want)
				}
			}
		}
	}
}

// An OnEvent that panics over a late change is the goroutine's to recover, and locks nobody out.
func TestOnEventThatPanicsOverALateChange(t *testing.T) {
	for name, change := range map[string]func(*session2.Session){
		"Set":       func(s *session2.Session) { s.Set("k", 1) },
		"Flashes":   func(s *session2.Session) { s.Flashes() },
		"CSRFToken": func(s *session2.Session) { s.CSRFToken() },
		"Destroy":   (*session2.Session).Destroy,
	} {
		armed := false
		m, err := session2.NewManager(session2.NewMemoryStore(), session2.Config{OnEvent: func(context.Context, session2.Event) {
			if armed {
				panic("the application's")
			}
		}})
		testsite.Must(t, err)
		st := &testsite.Site{T: t, M: m, Events: &testsite.EventLog{}}
		b := st.Login("alice")
		st.Do(b, func(s *session2.Session) { s.Flash("hello") })
		var late *session2.Session
		st.Do(b, func(s *session2.Session) { late = s })
		func() {
			defer func() {
				if p := recover(); p != "the application's" {
					t.Errorf("%s: recovered %v", name, p)
				}
			}()
			armed = true
			change(late)
		}()
		if armed = false; late.User() != "alice" {
			t.Errorf("%s: user %q", name, late.User())
		}
	}
}
