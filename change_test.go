package session2_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
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
			st := newSite(t, session2.NewMemoryStore(), session2.Config{})
			b := st.login("alice")
			st.do(b, func(s *session2.Session) { s.Set("k", 1) })
			other := b.clone()
			st.during(b, func(s *session2.Session) { s.User() }, func() {
				st.do(other, func(s *session2.Session) { s.Set("next", "/admin") })
			}, func(s *session2.Session) { change(s); s.SetUser("alice") })
			if next := st.stored(b, "next"); next != nil {
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
		st := newSite(t, store, session2.Config{})
		b := st.login("alice")
		st.do(b, func(s *session2.Session) { s.Set("k", "v") })
		before := store.count("save", "touch")
		res := st.visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
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
		if got := st.stored(b, "k"); got != "v" {
			t.Errorf("%s: k = %v", name, got)
		}
	}
}

// A function of the application that panics, uses the session or commits it leaves
// no lock behind: its request ends, and the next one goes on.
func TestTheApplicationsFunctionsMayDoWhatTheyLike(t *testing.T) {
	replayed := func(second func(s *session2.Session)) func(st *site, b *browser) *httptest.ResponseRecorder {
		return func(st *site, b *browser) *httptest.ResponseRecorder {
			return recordPanics(st.handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
				first := true
				counter.Update(s, func(n int) int {
					if !first {
						second(s)
					}
					first = false
					return n + 1
				})
				st.do(b.clone(), func(s *session2.Session) { counter.Update(s, inc) })
				io.WriteString(w, "done")
			}), b)
		}
	}
	for name, c := range map[string]struct {
		run   func(st *site, b *browser) *httptest.ResponseRecorder
		count int // what the counter is left at
	}{
		"panics at the replay":  {replayed(func(*session2.Session) { panic("oh") }), 1},
		"reads at the replay":   {replayed(func(s *session2.Session) { s.Get("k"); s.Err(); s.Dirty() }), 2},
		"changes at the replay": {replayed(func(s *session2.Session) { s.Set("k", 1) }), 2},
		"discards":              {replayed((*session2.Session).Discard), 2},
	} {
		t.Run(name, func(t *testing.T) {
			st := newSite(t, session2.NewMemoryStore(), session2.Config{})
			b := st.login("alice")
			c.run(st, b)
			if n := st.stored(b, "counter"); n != c.count {
				t.Errorf("counter = %v, want %d", n, c.count)
			}
		})
	}
	t.Run("commits at the replay", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			st := newSite(t, session2.NewMemoryStore(), session2.Config{})
			b := st.login("alice")
			var err error
			w := replayed(func(s *session2.Session) { err = s.Commit(context.Background()) })(st, b)
			if err == nil || w.Code == 0 {
				t.Errorf("Commit within a commit = %v", err)
			}
		})
	})
}

// What a panic leaves of a session stores nothing a second time.
func TestACommitThatPanickedIsNotDoneAgain(t *testing.T) {
	st := newSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.login("alice")
	res := st.visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		calls := 0
		counter.Update(s, func(n int) int {
			if calls++; calls > 1 {
				panic("oh")
			}
			return n + 1
		})
		st.do(b.clone(), func(s *session2.Session) { s.Set("k", 1) })
		func() {
			defer func() { recover() }()
			s.Commit(r.Context())
		}()
		if err := s.Commit(r.Context()); err == nil {
			t.Error("a commit after one that panicked is acknowledged")
		}
	})
	if res.StatusCode != 500 || st.stored(b, "counter") != nil {
		t.Errorf("status %d, counter %v", res.StatusCode, st.stored(b, "counter"))
	}
}

type panickyStore struct {
	*hookStore
	panics bool
}

func (p *panickyStore) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	if p.panics {
		panic("oh")
	}
	return p.hookStore.Load(ctx, id)
}

func TestALoadThatPanickedIsNoSession(t *testing.T) {
	store := &panickyStore{hookStore: newHookStore()}
	st := newSite(t, store, session2.Config{})
	b := st.login("alice")
	store.panics = true
	res := st.visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		func() {
			defer func() { recover() }()
			s.User()
		}()
		if s.User() != "" || s.Err() == nil {
			t.Errorf("User() = %q, Err() = %v after a load that panicked", s.User(), s.Err())
		}
		s.Set("k", 1)
		io.WriteString(w, "hello, stranger")
	})
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode < 500 || strings.Contains(string(body), "stranger") {
		t.Errorf("status %d, body %q", res.StatusCode, body)
	}
	store.panics = false
	if user := st.userOf(b); user != "alice" {
		t.Errorf("user %q afterwards", user)
	}
}

// OnEvent may use the session of its request, and even commit it.
func TestOnEventMayUseTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kinds := map[session2.EventKind]int{}
		cfg := session2.Config{RenewEvery: time.Minute, Logger: (&logBook{}).logger()}
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
		must(t, err)
		st := &site{t: t, m: m, events: &eventLog{}}
		visit := func(b *browser, f func(s *session2.Session)) {
			st.do(b, func(s *session2.Session) { current = s; f(s) })
			current = nil
		}
		b := &browser{}
		visit(b, func(s *session2.Session) { s.SetUser("alice") })
		time.Sleep(2 * time.Minute)
		old := b.clone()
		visit(b, func(s *session2.Session) { s.Set("k", 1) })
		visit(b, func(s *session2.Session) { s.Set("k", 2) })
		time.Sleep(2 * time.Minute)
		visit(old, func(s *session2.Session) { s.User() })
		visit(&browser{cookie: &http.Cookie{Name: "__Host-session", Value: "garbage"}}, func(s *session2.Session) { s.User() })
		for _, k := range []session2.EventKind{session2.EventCreated, session2.EventRenewed, session2.EventReuse,
			session2.EventDestroyed, session2.EventMalformed} {
			if kinds[k] == 0 {
				t.Errorf("no event of kind %v: it was not tested", k)
			}
		}
	})
}

func TestTheLastCommitOfAStreamFailsAloud(t *testing.T) {
	for name, c := range map[string]struct {
		change func(st *site, store *hookStore, s *session2.Session)
		event  session2.EventKind
	}{
		"too large":     {func(_ *site, _ *hookStore, s *session2.Session) { s.Set("k", make([]byte, 2000)) }, session2.EventDropped},
		"not encodable": {func(_ *site, _ *hookStore, s *session2.Session) { s.Set("k", make(chan int)) }, session2.EventDropped},
		"ended": {func(st *site, _ *hookStore, s *session2.Session) {
			s.Set("k", 1)
			st.m.Revoke(context.Background(), s.ID())
		}, session2.EventDropped},
		"new cookie": {func(_ *site, _ *hookStore, s *session2.Session) { s.Renew() }, session2.EventDropped},
		"lost update": {func(st *site, store *hookStore, s *session2.Session) {
			naive(s)
			o, _ := st.m.Open(context.Background(), s.Token())
			naive(o)
			o.Commit(context.Background())
		}, session2.EventConflict},
		"store down": {func(_ *site, store *hookStore, s *session2.Session) {
			s.Set("k", 1)
			store.set(func() {
				store.onSave = func(session2.Record, session2.Version, func() error) error { return errDown }
			})
		}, session2.EventStoreError},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, book := newHookStore(), &logBook{}
				st := newSite(t, store, session2.Config{MaxBytes: 1000, Logger: book.logger()})
				b := st.login("alice")
				var s *session2.Session
				st.visit(b, func(of *session2.Session, w http.ResponseWriter, _ *http.Request) {
					s = of
					s.User()
					w.(http.Flusher).Flush()
					c.change(st, store, s)
				})
				if s.Err() == nil || st.events.count(c.event) == 0 || !strings.Contains(book.String(), "error=") {
					t.Errorf("Err() = %v, %d events of kind %v, log:\n%s", s.Err(), st.events.count(c.event), c.event, book)
				}
			})
		})
	}
}

func TestASessionUsedAfterItsHandler(t *testing.T) {
	book := &logBook{}
	store := newHookStore()
	st := newSite(t, store, session2.Config{Logger: book.logger()})
	b := st.login("alice")
	var late *session2.Session
	st.do(b, func(s *session2.Session) { late = s; s.User() })
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
	st.do(b, func(s *session2.Session) { late = s }) // and is never looked at
	if late.Get("k") != nil || late.Err() == nil {
		t.Errorf("k = %v, Err() = %v", late.Get("k"), late.Err())
	}
}

func TestErrAfterALoginThatJoinedItsTwin(t *testing.T) {
	st := newSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &browser{}
	st.do(b, func(s *session2.Session) { s.Set("cart", "book") })
	late := b.clone()
	st.do(b, func(s *session2.Session) { s.SetUser("alice") })
	var err error
	st.visit(late, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.SetUser("alice")
		if c := s.Commit(r.Context()); c != nil {
			t.Errorf("Commit = %v", c)
		}
		err = s.Err()
	})
	if err != nil || late.token() != b.token() {
		t.Errorf("Err() = %v, the same token %t", err, late.token() == b.token())
	}
}

// A session that is full can still rotate, sign in and out, and shrink.
func TestTheLibrarysOwnBytesDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := session2.Config{MaxBytes: 1000, RenewEvery: time.Minute}
		store := session2.NewMemoryStore()
		st := newSite(t, store, cfg)
		b := &browser{}
		size := 0
		for n := 1000; size == 0; n-- { // as large as may be
			if st.do(b, func(s *session2.Session) { s.Set("k", make([]byte, n)) }).StatusCode == 200 {
				size = n
			}
		}
		if size < 980 {
			t.Errorf("the largest value has %d of 1000 bytes", size)
		}
		ok := func(what string, f func(s *session2.Session)) {
			t.Helper()
			if res := st.do(b, f); res.StatusCode != 200 {
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
		st2 := newSite(t, store, session2.Config{MaxBytes: 100}) // a later configuration
		if res := st2.do(b, func(s *session2.Session) { s.Renew() }); res.StatusCode != 200 {
			t.Errorf("Renew under a smaller MaxBytes: %d", res.StatusCode)
		}
		if res := st2.do(b, func(s *session2.Session) { s.Set("more", 1) }); res.StatusCode != 500 {
			t.Errorf("growing under a smaller MaxBytes: %d", res.StatusCode)
		}
		if res := st2.do(b, func(s *session2.Session) { s.Delete("k") }); res.StatusCode != 200 {
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
			st := newSite(t, session2.NewMemoryStore(), session2.Config{})
			b := st.login("alice")
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			res := st.do(b, func(s *session2.Session) {
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
		st := newSite(t, session2.NewMemoryStore(), session2.Config{CommitTimeout: time.Second})
		b := st.login("alice")
		other := b.clone()
		replays := 0
		st.visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
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
			st.do(other, func(s *session2.Session) { s.Set("k", 1) })
			if err := s.Commit(r.Context()); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Commit = %v", err)
			}
		})
		if replays > 11 {
			t.Errorf("%d replays of 100 ms within a second", replays)
		}
	})
}

func TestCSRFTokensOfManyFirstRequests(t *testing.T) {
	st := newSite(t, session2.NewMemoryStore(), session2.Config{CommitTimeout: time.Minute})
	b := st.login("alice")
	var mu sync.Mutex
	var csrf, forms []string
	var wg, drawn sync.WaitGroup
	drawn.Add(12)
	for range 12 {
		wg.Go(func() {
			st.do(b.clone(), func(s *session2.Session) {
				c, f := s.CSRFToken(), s.FormToken()
				if again := s.CSRFToken(); again == c {
					t.Error("one spelling twice: compression would give it away")
				}
				mu.Lock()
				csrf, forms = append(csrf, c), append(forms, f)
				mu.Unlock()
				drawn.Done()
				drawn.Wait() // until all have drawn and none has committed
			})
		})
	}
	wg.Wait()
	for i := range csrf {
		st.visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			r.Header.Set("X-CSRF-Token", csrf[i])
			if !s.ValidCSRFToken(r) {
				t.Errorf("CSRF token %d is dead on arrival", i)
			}
			if ok, err := s.UseFormToken(r.Context(), forms[i]); !ok || err != nil {
				t.Errorf("form token %d: %v, %v", i, ok, err)
			}
		})
	}
	stranger := st.login("bob")
	st.visit(stranger, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.CSRFToken()
		r.Header.Set("X-CSRF-Token", csrf[0])
		if s.ValidCSRFToken(r) {
			t.Error("a token of another session is valid")
		}
	})
	st.do(b, (*session2.Session).Renew)
	st.visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.CSRFToken()
		r.Header.Set("X-CSRF-Token", csrf[0])
		if s.ValidCSRFToken(r) {
			t.Error("a token from before Renew is valid")
		}
	})
}

type countingReader struct{ n int }

func (c *countingReader) Read(p []byte) (int, error) {
	c.n += len(p)
	return len(p), nil
}

func TestNoBodyIsParsedForASessionWithoutACSRFToken(t *testing.T) {
	st := newSite(t, session2.NewMemoryStore(), session2.Config{})
	body := &countingReader{}
	r := httptest.NewRequest("POST", "/", io.NopCloser(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	st.handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		if s.ValidCSRFToken(r) {
			t.Error("no token is valid")
		}
	}).ServeHTTP(httptest.NewRecorder(), r)
	if body.n != 0 {
		t.Errorf("%d bytes of a stranger's body were read", body.n)
	}
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
			st := newSite(t, store, session2.Config{RenewEvery: time.Second})
			b := st.login("alice")
			time.Sleep(2 * time.Second)
			before := store.count("save", "delete", "touch")
			ended := make(chan struct{})
			h := http.TimeoutHandler(st.handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
				defer close(ended)
				change(s)
				<-r.Context().Done()
				if err := s.Commit(r.Context()); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: Commit = %v", name, err)
				}
				respond(w, r)
			}), time.Second, "too late")
			r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
			b.send(r)
			h.ServeHTTP(w, r)
			<-ended
			synctest.Wait()
			if n := store.count("save", "delete", "touch") - before; w.Code != 503 || n != 0 {
				t.Errorf("%s: status %d, %d writes; want 503 and none", name, w.Code, n)
			}
			if user := st.userOf(b); user != "alice" || st.stored(b, "k") != nil {
				t.Errorf("%s: user %q", name, user)
			}
		})
	}
}

// Without anybody else to answer, the client is not told of a success either.
func TestARequestPastItsDeadlineIsNoSuccess(t *testing.T) {
	st := newSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.login("alice")
	serve := func(f func(s *session2.Session)) *httptest.ResponseRecorder {
		ctx, cancel := context.WithTimeout(t.Context(), 0)
		defer cancel()
		r, w := httptest.NewRequest("GET", "/", nil).WithContext(context.WithoutCancel(ctx)), httptest.NewRecorder()
		b.send(r)
		deadline := &lateContext{Context: r.Context()}
		st.handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			s.User()
			deadline.late = true
			f(s)
			io.WriteString(w, "done")
		}).ServeHTTP(w, r.WithContext(deadline))
		return w
	}
	if w := serve(func(s *session2.Session) { s.Set("k", 1) }); w.Code != 503 || strings.Contains(w.Body.String(), "done") {
		t.Errorf("a change: %d %q", w.Code, w.Body)
	}
	if w := serve(func(*session2.Session) {}); w.Code != 200 {
		t.Errorf("a read: %d", w.Code)
	}
	if st.stored(b, "k") != nil {
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
		change func(st *site, b *browser, s *session2.Session)
		status int
		level  string
	}{
		"a value that cannot be encoded": {func(_ *site, _ *browser, s *session2.Session) { s.Set("k", make(chan int)) }, 500, "ERROR"},
		"a user too long":                {func(_ *site, _ *browser, s *session2.Session) { s.SetUser(strings.Repeat("u", 2000)) }, 500, "ERROR"},
		"too large":                      {func(_ *site, _ *browser, s *session2.Session) { s.Set("k", make([]byte, 2<<20)) }, 500, "ERROR"},
		"a login elsewhere": {func(st *site, b *browser, s *session2.Session) {
			s.Set("k", 1)
			st.do(b.clone(), func(s *session2.Session) { s.SetUser("bob") })
		}, 409, "INFO"},
		"a lost update": {func(st *site, b *browser, s *session2.Session) { naive(s); st.do(b.clone(), naive) }, 409, "INFO"},
	} {
		t.Run(name, func(t *testing.T) {
			book := &logBook{}
			st := newSite(t, session2.NewMemoryStore(), session2.Config{Logger: book.logger()})
			b := st.login("alice")
			res := st.do(b, func(s *session2.Session) { c.change(st, b, s) })
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
		"Commit": func() { s.Commit(t.Context()) }, "Check": func() { s.Check(t.Context()) }, "Destroy": func() { s.Destroy() },
		"Key.Get": func() { counter.Get(s) }, "Key.Set": func() { counter.Set(s, 1) }, "Key.Update": func() { counter.Update(s, inc) },
		"UseFormToken": func() { s.UseFormToken(t.Context(), strings.Repeat("A", 22)) }, "CSRFToken": func() { s.CSRFToken() },
		"SetLifetime": func() { s.SetLifetime(-1) }, "Remember": func() { s.Remember(0) },
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

// So does a nil Manager, of whose error nobody took notice; a nil handler, and a
// store that is a nil pointer for the same reason, are refused when they are given.
func TestANilManagerSaysWhatIsMissing(t *testing.T) {
	var m *session2.Manager
	good := newSite(t, session2.NewMemoryStore(), session2.Config{}).m
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
