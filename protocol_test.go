package session2_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
)

// hookStore lets a test stand between the manager and its store.
type hookStore struct {
	*session2.MemoryStore
	mu     sync.Mutex
	calls  map[string]int
	onLoad func(id session2.ID) error
	onSave func(rec session2.Record, prev session2.Version, save func() error) error
	onDel  func(id session2.ID) error

	onTouch func() error
}

func newHookStore() *hookStore {
	return &hookStore{MemoryStore: session2.NewMemoryStore(), calls: map[string]int{}}
}

func (h *hookStore) called(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls[name]++
}

func (h *hookStore) count(names ...string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range names {
		n += h.calls[name]
	}
	return n
}

// set changes the hooks while no request is under way.
func (h *hookStore) set(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

func (h *hookStore) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	h.called("load")
	h.mu.Lock()
	hook := h.onLoad
	h.mu.Unlock()
	if hook != nil {
		if err := hook(id); err != nil {
			return session2.Record{}, err
		}
	}
	return h.MemoryStore.Load(ctx, id)
}

func (h *hookStore) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	h.called("save")
	h.mu.Lock()
	hook := h.onSave
	h.mu.Unlock()
	save := func() error { return h.MemoryStore.Save(ctx, rec, prev) }
	if hook != nil {
		return hook(rec, prev, save)
	}
	return save()
}

func (h *hookStore) Delete(ctx context.Context, id session2.ID) error {
	h.called("delete")
	h.mu.Lock()
	hook := h.onDel
	h.mu.Unlock()
	if hook != nil {
		if err := hook(id); err != nil {
			return err
		}
	}
	return h.MemoryStore.Delete(ctx, id)
}

func (h *hookStore) Touch(ctx context.Context, id session2.ID, accessed, expires time.Time) error {
	h.called("touch")
	h.mu.Lock()
	hook := h.onTouch
	h.mu.Unlock()
	if hook != nil {
		if err := hook(); err != nil {
			return err
		}
	}
	return h.MemoryStore.Touch(ctx, id, accessed, expires)
}

func (h *hookStore) Has(ctx context.Context, id session2.ID) (bool, error) {
	h.called("has")
	return h.MemoryStore.Has(ctx, id)
}

// records counts what is stored.
func records(t testing.TB, store session2.IterStore) (n int) {
	t.Helper()
	for _, err := range store.Iter(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// login signs a user in by a browser of their own.
func (st *site) login(user string) *browser {
	st.t.Helper()
	b := &browser{}
	st.do(b, func(s *session2.Session) { s.SetUser(user) })
	if b.token() == "" {
		st.t.Fatal("no cookie after a login")
	}
	return b
}

// userOf returns who the browser's cookie is.
func (st *site) userOf(b *browser) (user string) {
	st.t.Helper()
	st.do(b, func(s *session2.Session) { user = s.User() })
	return user
}

// during serves a request of b that does first, and lets the test do something
// else before it does second and commits.
func (st *site) during(b *browser, first func(s *session2.Session), meanwhile func(), second func(s *session2.Session)) (*http.Response, error) {
	st.t.Helper()
	var err error
	res := st.visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		first(s)
		meanwhile()
		second(s)
		w.WriteHeader(200)
		err = s.Err()
	})
	return res, err
}

func TestConcurrentChangesToDifferentKeysMerge(t *testing.T) {
	st := newSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.login("alice")
	other := b.clone()
	_, err := st.during(b, func(s *session2.Session) { s.Set("a", 1) }, func() {
		st.do(other, func(s *session2.Session) { s.Set("b", 2) })
	}, func(*session2.Session) {})
	if err != nil {
		t.Errorf("Err() = %v", err)
	}
	st.do(b, func(s *session2.Session) {
		if s.Get("a") != 1 || s.Get("b") != 2 {
			t.Errorf("a, b = %v, %v; want 1, 2", s.Get("a"), s.Get("b"))
		}
	})
	if n := st.events.count(session2.EventConflict); n != 1 {
		t.Errorf("%d conflict events, want 1", n)
	}
}

func TestLogoutIsNotUndoneByARunningRequest(t *testing.T) {
	for name, change := range map[string]func(*session2.Session){
		"that only reads": func(s *session2.Session) { s.Get("x") },
		"that writes":     func(s *session2.Session) { s.Set("x", 1) },
		"that renews":     func(s *session2.Session) { s.Renew() },
	} {
		t.Run(name, func(t *testing.T) {
			store := session2.NewMemoryStore()
			st := newSite(t, store, session2.Config{AccessResolution: time.Nanosecond})
			b := st.login("alice")
			other := b.clone()
			var dirty bool
			res, err := st.during(b, func(s *session2.Session) { s.Get("x") }, func() {
				st.do(other, func(s *session2.Session) { s.Destroy() })
			}, func(s *session2.Session) { change(s); dirty = s.Dirty() })
			if n := records(t, store); n != 0 {
				t.Errorf("%d records after the logout, want none", n)
			}
			if res.StatusCode != 200 || len(res.Cookies()) != 0 {
				t.Errorf("status %d, cookies %v; want 200 and none: the browser may hold a newer one", res.StatusCode, res.Cookies())
			}
			if dirty != errors.Is(err, session2.ErrNotFound) {
				t.Errorf("Err() = %v for a request that changed something: %v", err, dirty)
			}
		})
	}
}

func TestLogoutWinsOverAConcurrentChange(t *testing.T) {
	store := session2.NewMemoryStore()
	st := newSite(t, store, session2.Config{})
	b := st.login("alice")
	other := b.clone()
	st.during(b, func(s *session2.Session) { s.Destroy() }, func() {
		st.do(other, func(s *session2.Session) { s.Set("x", 1) })
	}, func(*session2.Session) {})
	if n := records(t, store); n != 0 || b.token() != "" {
		t.Errorf("%d records and cookie %t after the logout", n, b.token() != "")
	}
}

func TestLogoutWinsOverAConcurrentRotation(t *testing.T) {
	store := session2.NewMemoryStore()
	st := newSite(t, store, session2.Config{})
	b := st.login("alice")
	other := b.clone()
	st.during(b, func(s *session2.Session) { s.Destroy() }, func() {
		st.do(other, func(s *session2.Session) { s.Renew() })
	}, func(*session2.Session) {})
	if n := records(t, store); n != 0 {
		t.Errorf("%d records after the logout, want none", n)
	}
	if user := st.userOf(other); user != "" {
		t.Errorf("the rotated token is still %s", user)
	}
}

func TestEmptiedSessionIsDeletedUnlessChangedMeanwhile(t *testing.T) {
	store := session2.NewMemoryStore()
	st := newSite(t, store, session2.Config{})
	b := &browser{}
	st.do(b, func(s *session2.Session) { s.Set("a", 1) })
	other := b.clone()
	st.during(b, func(s *session2.Session) { s.Delete("a") }, func() {
		st.do(other, func(s *session2.Session) { s.Set("b", 2) })
	}, func(*session2.Session) {})
	st.do(b, func(s *session2.Session) {
		if s.Has("a") || s.Get("b") != 2 {
			t.Errorf("keys %v, want b alone", s.Keys())
		}
		s.Clear()
	})
	if n := records(t, store); n != 0 || b.token() != "" {
		t.Errorf("%d records and cookie %t of an emptied session", n, b.token() != "")
	}
}

func TestStaleRequestIsRefused(t *testing.T) {
	st := newSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.login("alice")
	old := b.clone()
	res, err := st.during(old, func(s *session2.Session) { s.Set("x", 1) }, func() {
		st.do(b, func(s *session2.Session) { s.Renew() })
	}, func(*session2.Session) {})
	if res.StatusCode != http.StatusConflict || !errors.Is(err, session2.ErrStale) || len(res.Cookies()) != 0 {
		t.Errorf("status %d, Err() = %v, cookies %v; want 409, ErrStale and none", res.StatusCode, err, res.Cookies())
	}
	st.do(b, func(s *session2.Session) {
		if s.User() != "alice" || s.Has("x") {
			t.Errorf("user %q, x %v; want alice and nothing merged", s.User(), s.Get("x"))
		}
	})
}

func TestReplacedTokenReadsAsAnonymousWithinTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session2.NewMemoryStore()
		st := newSite(t, store, session2.Config{})
		b := &browser{}
		st.do(b, func(s *session2.Session) { s.Set("cart", "book") })
		old := b.clone()
		st.do(b, func(s *session2.Session) { s.SetUser("alice") })
		res, err := st.during(old, func(s *session2.Session) {
			if s.User() != "" {
				t.Errorf("a replaced token is %q", s.User())
			}
			if !errors.Is(s.Err(), session2.ErrStale) {
				t.Errorf("Err() = %v, want ErrStale", s.Err())
			}
		}, func() {}, func(s *session2.Session) { s.Set("x", 1) })
		if res.StatusCode != 200 || len(res.Cookies()) != 0 || !errors.Is(err, session2.ErrStale) || records(t, store) != 1 {
			t.Errorf("status %d, cookies %v, Err %v, %d records", res.StatusCode, res.Cookies(), err, records(t, store))
		}
		// A logout takes the cookie from the browser that asks for it, and no more.
		bye := old.clone()
		st.do(bye, func(s *session2.Session) { s.Set("x", 1); s.Destroy(); s.Set("y", 1); err = s.Commit(t.Context()) })
		if bye.token() != "" || !errors.Is(err, session2.ErrStale) || records(t, store) != 1 {
			t.Errorf("Destroy: cookie %t, Commit %v, %d records", bye.token() != "", err, records(t, store))
		}
		if n := st.events.count(session2.EventDestroyed); n != 0 {
			t.Errorf("%d sessions ended, want none", n)
		}
		time.Sleep(31 * time.Second)
		unknown := st.events.count(session2.EventUnknown)
		st.do(old, func(s *session2.Session) { s.Set("x", 1) })
		if records(t, store) != 2 || st.events.count(session2.EventUnknown) != unknown+1 {
			t.Error("after the grace a replaced token is not one that was never issued")
		}
		if user := st.userOf(b); user != "alice" {
			t.Errorf("the new token is %q, want alice", user)
		}
	})
}

func TestLoginClickedTwice(t *testing.T) {
	for _, firstAnswerLast := range []bool{false, true} {
		t.Run(fmt.Sprint("first answer last: ", firstAnswerLast), func(t *testing.T) {
			store := session2.NewMemoryStore()
			st := newSite(t, store, session2.Config{})
			b := &browser{}
			st.do(b, func(s *session2.Session) { s.Set("cart", "book") })
			one, two := b.clone(), b.clone()
			st.during(one, func(s *session2.Session) { s.SetUser("alice"); s.Set("one", 1) }, func() {
				st.do(two, func(s *session2.Session) { s.SetUser("alice"); s.Set("two", 2) })
			}, func(*session2.Session) {})
			if one.token() == b.token() || one.token() != two.token() {
				t.Fatal("the two logins were not given the same new token")
			}
			if firstAnswerLast {
				two = one
			}
			st.do(two, func(s *session2.Session) {
				if s.User() != "alice" || s.Get("cart") != "book" || s.Get("one") != 1 || s.Get("two") != 2 {
					t.Errorf("user %q, keys %v", s.User(), s.Keys())
				}
			})
			if n := records(t, store); n != 1 {
				t.Errorf("%d records, want 1", n)
			}
		})
	}
}

func TestSecondLoginAfterTheFirst(t *testing.T) {
	st := newSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &browser{}
	st.do(b, func(s *session2.Session) { s.Set("cart", "book") })
	late := b.clone()
	st.do(b, func(s *session2.Session) { s.SetUser("alice") })
	st.do(late, func(s *session2.Session) {
		if s.User() != "" || s.Has("cart") {
			t.Error("a replaced token opens the session")
		}
		s.SetUser("alice")
	})
	if late.token() != b.token() {
		t.Error("the second login has another token than the first")
	}
}

func TestLoginOfAnotherUserStartsASessionOfItsOwn(t *testing.T) {
	store := session2.NewMemoryStore()
	st := newSite(t, store, session2.Config{})
	b := &browser{}
	st.do(b, func(s *session2.Session) { s.Set("cart", "book") })
	other := b.clone()
	st.during(other, func(s *session2.Session) { s.Set("mine", 1); s.SetUser("bob") }, func() {
		st.do(b, func(s *session2.Session) { s.SetUser("alice") })
	}, func(*session2.Session) {})
	st.do(other, func(s *session2.Session) {
		if s.User() != "bob" || s.Has("cart") || s.Get("mine") != 1 {
			t.Errorf("user %q, keys %v; want bob with his own changes and nothing else", s.User(), s.Keys())
		}
	})
	if st.userOf(b) != "alice" || records(t, store) != 2 {
		t.Error("the other user's login harmed the first")
	}
}

func TestLoginIntoASessionThatEndedMeanwhile(t *testing.T) {
	store := session2.NewMemoryStore()
	st := newSite(t, store, session2.Config{})
	b := st.login("alice")
	other := b.clone()
	var id session2.ID
	st.during(other, func(s *session2.Session) { id = s.ID(); s.Set("k", 1) }, func() {
		st.do(b, func(s *session2.Session) { s.Destroy() })
	}, func(s *session2.Session) { s.SetUser("alice") })
	st.do(other, func(s *session2.Session) {
		if s.User() != "alice" || s.ID() == id || s.Get("k") != 1 {
			t.Errorf("user %q, same ID %t", s.User(), s.ID() == id)
		}
	})
}

func TestSetUserFromOneToAnotherClears(t *testing.T) {
	st := newSite(t, session2.NewMemoryStore(), session2.Config{})
	for _, next := range []string{"bob", ""} {
		b := st.login("alice")
		st.do(b, func(s *session2.Session) { s.Set("secret", 1); s.Flash("hi"); s.CSRFToken() })
		st.do(b, func(s *session2.Session) { s.SetUser(next); s.Set("k", 1) })
		st.do(b, func(s *session2.Session) {
			if s.User() != next || s.Has("secret") || len(s.Flashes()) != 0 || s.Get("k") != 1 {
				t.Errorf("user %q, keys %v after alice's session became %q's", s.User(), s.Keys(), next)
			}
		})
	}
}

func TestLoginReplacesTheToken(t *testing.T) {
	st := newSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &browser{}
	st.do(b, func(s *session2.Session) { s.Set("k", 1) })
	planted := b.clone()
	var id session2.ID
	st.do(b, func(s *session2.Session) { s.SetUser("alice"); id = s.ID() })
	if planted.token() == b.token() {
		t.Fatal("the token survived a login")
	}
	if user := st.userOf(planted); user != "" {
		t.Errorf("the token from before the login is %q", user)
	}
	st.do(b, func(s *session2.Session) {
		if s.ID() != id || s.User() != "alice" || s.Get("k") != 1 {
			t.Error("the login changed more than the token")
		}
	})
}

func TestPeriodicRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.NewMemoryStore(), session2.Config{RenewEvery: 10 * time.Minute})
		b := st.login("alice")
		first := b.clone()
		time.Sleep(11 * time.Minute)
		// Two at once, and one whose answer is lost: the same successor for all.
		one, two, lost := first.clone(), first.clone(), first.clone()
		st.during(one, func(s *session2.Session) { s.User() }, func() { st.userOf(two) }, func(s *session2.Session) { s.Set("k", 1) })
		st.userOf(lost)
		if one.token() == first.token() || one.token() != two.token() || one.token() != lost.token() {
			t.Fatal("the requests were not given the same successor")
		}
		time.Sleep(time.Minute) // longer than the grace: the successor has not been seen
		if late := first.clone(); st.userOf(late) != "alice" || late.token() != one.token() {
			t.Error("the old token died before its successor was seen")
		}
		if res := st.do(one, func(s *session2.Session) { s.User() }); len(res.Cookies()) != 0 {
			t.Error("a cookie for the current token")
		}
		time.Sleep(29 * time.Second)
		late := first.clone()
		if res := st.do(late, func(s *session2.Session) {
			if s.User() != "alice" {
				t.Error("the old token died within the grace")
			}
		}); len(res.Cookies()) != 0 {
			t.Error("the successor was seen, and is sent again: the browser may hold a newer one")
		}
		time.Sleep(2 * time.Second)
		if user := st.userOf(first.clone()); user != "" || st.events.count(session2.EventReuse) != 1 {
			t.Errorf("after the grace the old token is %q, with %d reuse events", user, st.events.count(session2.EventReuse))
		}
		if user := st.userOf(one); user != "" {
			t.Errorf("the session goes on as %q though somebody else holds its cookie", user)
		}
	})
}

func TestRotationsFollowOneAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.NewMemoryStore(), session2.Config{RenewEvery: 10 * time.Minute})
		b := st.login("alice")
		for range 60 {
			old := b.token()
			time.Sleep(11 * time.Minute)
			if user := st.userOf(b); user != "alice" || b.token() == old {
				t.Fatalf("user %q, new token %t", user, b.token() != old)
			}
			if user := st.userOf(b); user != "alice" { // the successor's first sight: from it the next one counts
				t.Fatalf("user %q by the successor", user)
			}
		}
		if n := st.events.count(session2.EventRenewed); n != 60 {
			t.Errorf("%d renewals, want 60", n)
		}
	})
}

func TestSlowRequestIsNoThief(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.NewMemoryStore(), session2.Config{RenewEvery: 10 * time.Minute})
		b := st.login("alice")
		upload := b.clone()
		time.Sleep(11 * time.Minute)
		st.visit(upload, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			st.userOf(b) // rotates
			st.userOf(b) // seen
			time.Sleep(5 * time.Minute)
			if s.User() != "alice" {
				t.Error("a request that arrived in time was taken for a thief")
			}
			s.Set("uploaded", true)
		})
		st.do(b, func(s *session2.Session) {
			if s.Get("uploaded") != true {
				t.Errorf("the upload is lost; user %q", s.User())
			}
		})
		if st.events.count(session2.EventReuse) != 0 {
			t.Error("a reuse event")
		}
	})
}

func TestKeepOnReuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.NewMemoryStore(), session2.Config{RenewEvery: 10 * time.Minute, KeepOnReuse: true})
		b := st.login("alice")
		old := b.clone()
		time.Sleep(11 * time.Minute)
		st.userOf(b)
		st.userOf(b)
		time.Sleep(time.Minute)
		if user := st.userOf(old); user != "" || st.events.count(session2.EventReuse) != 1 {
			t.Errorf("user %q, %d events", user, st.events.count(session2.EventReuse))
		}
		if user := st.userOf(b); user != "alice" {
			t.Errorf("the session ended all the same: %q", user)
		}
	})
}

func TestAPlantedTokenEndsNobodysSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t, session2.NewMemoryStore(), session2.Config{RenewEvery: 10 * time.Minute})
		b := &browser{}
		st.do(b, func(s *session2.Session) { s.Set("k", 1) })
		planted := []*browser{b.clone()}
		time.Sleep(11 * time.Minute)
		st.userOf(b)
		planted = append(planted, b.clone())
		st.do(b, func(s *session2.Session) { s.SetUser("alice") })
		time.Sleep(5 * time.Minute)
		for _, p := range planted {
			st.do(p, func(s *session2.Session) {
				if s.User() != "" || s.Has("k") {
					t.Error("a token from before the login opens the session")
				}
				s.Destroy()
			})
		}
		if user := st.userOf(b); user != "alice" {
			t.Errorf("a token from before the login logged the user out: %q", user)
		}
	})
}

func TestLostAnswerOfASave(t *testing.T) {
	errLost := errors.New("connection reset")
	for _, landed := range []bool{true, false} {
		for _, others := range []int{0, 1, 10, 40} {
			t.Run(fmt.Sprintf("landed %t, %d others since", landed, others), func(t *testing.T) {
				store := newHookStore()
				st := newSite(t, store, session2.Config{CommitTimeout: time.Minute})
				b := st.login("alice")
				increment := func(s *session2.Session) { counter.Update(s, func(n int) int { return n + 1 }) }
				store.set(func() {
					store.onSave = func(rec session2.Record, prev session2.Version, save func() error) error {
						store.set(func() { store.onSave = nil })
						if landed {
							if err := save(); err != nil {
								t.Error(err)
							}
						}
						for range others {
							st.do(b.clone(), increment)
						}
						return errLost
					}
				})
				res := st.do(b, increment)
				want, status := others+1, 200
				if others > 16 && landed {
					status = 503 // it was applied, and nobody can tell
				}
				if others > 16 && !landed {
					want, status = others, 503
				}
				if res.StatusCode != status {
					t.Errorf("status %d, want %d", res.StatusCode, status)
				}
				st.do(b, func(s *session2.Session) {
					if n, _ := counter.Get(s); n != want {
						t.Errorf("%d increments, want %d", n, want)
					}
				})
			})
		}
	}
}

func TestStoreThatIsUncertain(t *testing.T) {
	store := newHookStore()
	st := newSite(t, store, session2.Config{})
	b := st.login("alice")
	store.set(func() {
		store.onSave = func(rec session2.Record, prev session2.Version, save func() error) error {
			store.set(func() { store.onSave = nil })
			if err := save(); err != nil {
				t.Error(err)
			}
			st.do(b.clone(), func(s *session2.Session) { s.Set("other", 1) })
			return fmt.Errorf("save: %w", session2.ErrUncertain)
		}
	})
	increment := func(s *session2.Session) { counter.Update(s, func(n int) int { return n + 1 }) }
	if res := st.do(b, increment); res.StatusCode != 200 {
		t.Errorf("status %d", res.StatusCode)
	}
	st.do(b, func(s *session2.Session) {
		if n, _ := counter.Get(s); n != 1 || !s.Has("other") {
			t.Errorf("counter %d, keys %v", n, s.Keys())
		}
	})
}

func TestLostAnswerOfACreate(t *testing.T) {
	store := newHookStore()
	st := newSite(t, store, session2.Config{})
	store.onSave = func(rec session2.Record, prev session2.Version, save func() error) error {
		store.set(func() { store.onSave = nil })
		save()
		return errors.New("connection reset")
	}
	b := st.login("alice")
	if n := records(t, store); n != 1 || st.userOf(b) != "alice" {
		t.Errorf("%d records, user %q", n, st.userOf(b))
	}
}

func TestFailingStoreFailsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := newSite(t, store, session2.Config{})
		b := st.login("alice")
		broken := errors.New("disk on fire")
		store.onLoad = func(session2.ID) error { return broken }
		res := st.visit(b.clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			if s.User() != "" || !errors.Is(s.Err(), broken) {
				t.Errorf("user %q, Err %v", s.User(), s.Err())
			}
			http.Error(w, "please log in", http.StatusUnauthorized)
		})
		if res.StatusCode != 503 || len(res.Cookies()) != 0 {
			t.Errorf("status %d, cookies %v", res.StatusCode, res.Cookies())
		}
		store.onLoad = nil
		store.onSave = func(session2.Record, session2.Version, func() error) error { return broken }
		start := time.Now()
		if res := st.do(b.clone(), func(s *session2.Session) { s.Set("k", 1) }); res.StatusCode != 503 {
			t.Errorf("status %d", res.StatusCode)
		}
		if d := time.Since(start); d > 6*time.Second {
			t.Errorf("the failure took %v, with a CommitTimeout of 5 s", d)
		}
		store.onSave = nil
		store.onDel = func(session2.ID) error { return broken }
		if res := st.do(b, func(s *session2.Session) { s.Destroy(); s.Flash("bye") }); res.StatusCode != 503 || len(res.Cookies()) != 0 {
			t.Errorf("a logout that failed: status %d, cookies %v", res.StatusCode, res.Cookies())
		}
		store.onDel = nil
		if st.userOf(b) != "alice" {
			t.Error("a logout that failed left a trace")
		}
	})
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session2.NewMemoryStore()
		st := newSite(t, store, session2.Config{RenewEvery: time.Hour})
		b := st.login("alice")
		time.Sleep(29 * time.Minute)
		if st.userOf(b) != "alice" {
			t.Error("ended before the idle timeout")
		}
		time.Sleep(30*time.Minute + time.Second)
		if st.userOf(b) != "" || st.events.count(session2.EventExpired) != 1 {
			t.Error("not ended by the idle timeout, though nobody swept")
		}
		b = st.login("alice")
		for range 71 {
			time.Sleep(20 * time.Minute)
			if st.userOf(b) != "alice" {
				t.Fatal("ended while in use")
			}
		}
		time.Sleep(20 * time.Minute)
		if st.userOf(b) != "" {
			t.Error("not ended by the absolute limit")
		}
	})
}

func TestAccessIsWrittenOncePerResolution(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := newSite(t, store, session2.Config{})
		b := st.login("alice")
		saves := store.count("save")
		for range 120 {
			time.Sleep(time.Second)
			st.userOf(b)
		}
		if n := store.count("touch"); n != 2 {
			t.Errorf("%d touches in two minutes, want 2", n)
		}
		if n := store.count("save") - saves; n != 0 {
			t.Errorf("%d saves by reading", n)
		}
	})
}

// TestFormTokenOfALostAnswer is about a token whose Save landed without anybody
// hearing of it, in a session that then ended: it is used up, so that to say no
// and nothing else would lose the submit.
func TestFormTokenOfALostAnswer(t *testing.T) {
	store := newHookStore()
	m, err := session2.NewManager(store, session2.Config{Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	first, err := m.Open(t.Context(), "")
	must(t, err)
	form := first.FormToken()
	must(t, first.Commit(t.Context()))

	second, err := m.Open(t.Context(), first.Token())
	must(t, err)
	lost := false
	store.set(func() {
		store.onSave = func(rec session2.Record, prev session2.Version, save func() error) error {
			if lost {
				return save()
			}
			lost = true
			must(t, save())
			must(t, store.MemoryStore.Delete(t.Context(), rec.ID))
			return errDown
		}
	})
	if ok, err := second.UseFormToken(t.Context(), form); ok || !errors.Is(err, session2.ErrUncertain) {
		t.Errorf("got %v, %v, want %v", ok, err, session2.ErrUncertain)
	}
}

func TestFormTokenIsUsedOnce(t *testing.T) {
	st := newSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &browser{}
	var token string
	st.do(b, func(s *session2.Session) { token = s.FormToken() })
	var mu sync.Mutex
	accepted := 0
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			st.visit(b.clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
				s.Set("pending", 1)
				ok, err := s.UseFormToken(r.Context(), token)
				if err != nil {
					t.Error(err)
				}
				if ok {
					mu.Lock()
					accepted++
					mu.Unlock()
				}
				w.WriteHeader(500) // the token stays used, the rest leaves no trace
			})
		})
	}
	wg.Wait()
	if accepted != 1 {
		t.Errorf("of 16 submits at once %d were accepted", accepted)
	}
	st.do(b, func(s *session2.Session) {
		if s.HasFormToken(token) || s.Has("pending") {
			t.Error("the token is there again, or a failed request left a trace")
		}
	})
}

func TestCSRFTokensDrawnAtOnceAreBothValid(t *testing.T) {
	st := newSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.login("alice")
	var tokens []string
	st.during(b, func(s *session2.Session) { tokens = append(tokens, s.CSRFToken()) }, func() {
		st.do(b.clone(), func(s *session2.Session) { tokens = append(tokens, s.CSRFToken()) })
	}, func(*session2.Session) {})
	valid := func(token string) (ok bool) {
		st.do(b, func(s *session2.Session) {
			r := httptest.NewRequest("POST", "/", nil)
			r.Header.Set("X-CSRF-Token", token)
			ok = s.ValidCSRFToken(r)
		})
		return ok
	}
	for i, token := range tokens {
		if !valid(token) {
			t.Errorf("token %d is not valid", i)
		}
	}
	st.do(b, func(s *session2.Session) { s.Renew() })
	if valid(tokens[0]) || valid("") {
		t.Error("a token from before the renewal is valid")
	}
}

func TestManagerOpen(t *testing.T) {
	ctx := t.Context()
	store := session2.NewMemoryStore()
	st := newSite(t, store, session2.Config{})
	s, err := st.m.Open(ctx, "")
	if err != nil || s.Token() != "" {
		t.Fatal("an empty session has a token, or", err)
	}
	s.SetUser("alice")
	form := s.FormToken()
	if err := s.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	old := s.Token()
	s, err = st.m.Open(ctx, old)
	if err != nil || s.User() != "alice" {
		t.Fatal("user", s.User(), err)
	}
	if ok, err := s.UseFormToken(ctx, form); !ok || err != nil {
		t.Error("form token:", ok, err)
	}
	s.Renew()
	if err := s.Commit(ctx); err != nil || s.Token() == old {
		t.Error("Renew kept the token, or", err)
	}
	if _, err := st.m.Open(ctx, old); !errors.Is(err, session2.ErrNotFound) {
		t.Error("a dead token:", err)
	}
	for _, bad := range []string{"x", "../../etc/passwd", old + "0", old[:len(old)-1]} {
		if _, err := st.m.Open(ctx, bad); !errors.Is(err, session2.ErrNotFound) {
			t.Error("a malformed token:", err)
		}
	}
	late, err := st.m.Open(ctx, s.Token())
	if err != nil {
		t.Fatal(err)
	}
	s.Destroy()
	if err := s.Commit(ctx); err != nil || s.Token() != "" || records(t, store) != 0 {
		t.Error("Destroy:", err, records(t, store))
	}
	late.Set("k", 1)
	if err := late.Commit(ctx); !errors.Is(err, session2.ErrNotFound) || records(t, store) != 0 {
		t.Error("a commit after the end:", err)
	}
	late.Set("k", 2)
	if err := late.Commit(ctx); err == nil || records(t, store) != 0 {
		t.Error("a second commit after the end:", err)
	}
}

func TestRevoke(t *testing.T) {
	ctx := t.Context()
	st := newSite(t, session2.NewMemoryStore(), session2.Config{})
	a1, a2, a3, bob := st.login("alice"), st.login("alice"), st.login("alice"), st.login("bob")
	st.do(a1, func(s *session2.Session) {
		if n, err := st.m.RevokeOthers(ctx, s); n != 2 || err != nil {
			t.Errorf("RevokeOthers = %d, %v", n, err)
		}
	})
	if st.userOf(a1) != "alice" || st.userOf(a2) != "" || st.userOf(a3) != "" {
		t.Error("RevokeOthers ended the wrong ones")
	}
	if n, err := st.m.RevokeUser(ctx, ""); n != 0 || err != nil {
		t.Errorf("RevokeUser of nobody = %d, %v", n, err)
	}
	if n, err := st.m.RevokeUser(ctx, "alice"); n != 1 || err != nil || st.userOf(a1) != "" {
		t.Errorf("RevokeUser = %d, %v", n, err)
	}
	st.do(bob, func(s *session2.Session) {
		if err := st.m.Revoke(ctx, s.ID()); err != nil {
			t.Error(err)
		}
	})
	if st.userOf(bob) != "" || st.events.count(session2.EventRevoked) != 4 {
		t.Errorf("bob is %q after %d revocations", st.userOf(bob), st.events.count(session2.EventRevoked))
	}
}

func TestCleanup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session2.NewMemoryStore()
		st := newSite(t, store, session2.Config{})
		st.login("alice")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- st.m.Cleanup(ctx, time.Minute) }()
		time.Sleep(29*time.Minute + time.Second)
		if n := records(t, store); n != 1 {
			t.Errorf("%d records before the time", n)
		}
		time.Sleep(2 * time.Minute)
		if n := records(t, store); n != 0 {
			t.Errorf("%d records after the time", n)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Cleanup = %v", err)
		}
	})
}

// failingSweep is a store whose sweep fails at first.
type failingSweep struct {
	*session2.MemoryStore
	left int
}

func (f *failingSweep) DeleteOld(ctx context.Context, age time.Duration) (int, error) {
	if f.left > 0 {
		f.left--
		return 0, errors.New("disk on fire")
	}
	return f.MemoryStore.DeleteOld(ctx, age)
}

// A Cleanup that cannot run says so in the log, too: who started it in a goroutine
// does not look at what it returns.
func TestCleanupThatCannotRun(t *testing.T) {
	for name, c := range map[string]struct {
		store session2.Store
		every time.Duration
	}{
		"no interval":  {session2.NewMemoryStore(), 0},
		"no DeleteOld": {struct{ session2.Store }{session2.NewMemoryStore()}, time.Minute},
	} {
		log := &logBook{}
		st := newSite(t, c.store, session2.Config{Logger: log.logger()})
		if err := st.m.Cleanup(t.Context(), c.every); err == nil || !strings.Contains(log.String(), "nothing is swept") {
			t.Errorf("%s: Cleanup = %v, the log says %q", name, err, log)
		}
	}
}

func TestCleanupOutlivesAFailingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &failingSweep{session2.NewMemoryStore(), 3}
		st := newSite(t, store, session2.Config{IdleTimeout: time.Minute})
		st.login("alice")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- st.m.Cleanup(ctx, time.Minute) }()
		time.Sleep(10 * time.Minute)
		cancel()
		<-done
		if n := st.events.count(session2.EventStoreError); n != 3 || records(t, store) != 0 {
			t.Errorf("%d failures told, %d records left; want 3 and none", n, records(t, store))
		}
	})
}
