package session2_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
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

func newHookStore() *hookStore { return hooked(session2.NewMemoryStore()) }

func hooked(store *session2.MemoryStore) *hookStore {
	return &hookStore{MemoryStore: store, calls: map[string]int{}}
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

func TestConcurrentChangesToDifferentKeysMerge(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	other := b.Clone()
	_, err := st.During(b, func(s *session2.Session) { s.Set("a", 1) }, func() {
		st.Do(other, func(s *session2.Session) { s.Set("b", 2) })
	}, func(*session2.Session) {})
	if err != nil {
		t.Errorf("Err() = %v", err)
	}
	st.Do(b, func(s *session2.Session) {
		if s.Get("a") != 1 || s.Get("b") != 2 {
			t.Errorf("a, b = %v, %v; want 1, 2", s.Get("a"), s.Get("b"))
		}
	})
	if n := st.Events.Count(session2.EventConflict); n != 1 {
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
			st := testsite.NewSite(t, store, session2.Config{AccessResolution: time.Nanosecond})
			b := st.Login("alice")
			other := b.Clone()
			var dirty bool
			res, err := st.During(b, func(s *session2.Session) { s.Get("x") }, func() {
				st.Do(other, func(s *session2.Session) { s.Destroy() })
			}, func(s *session2.Session) { change(s); dirty = s.Dirty() })
			if n := records(t, store); n != 0 {
				t.Errorf("%d records after the logout, want none", n)
			}
			if res.StatusCode != 200 || len(res.Cookies()) != 0 {
				t.Errorf("status %d, cookies %v; want 200 and none: the browser may hold a newer one",
					res.StatusCode, res.Cookies())
			}
			if dirty != errors.Is(err, session2.ErrNotFound) {
				t.Errorf("Err() = %v for a request that changed something: %v", err, dirty)
			}
		})
	}
}

func TestLogoutWinsOverAConcurrentChange(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	other := b.Clone()
	st.During(b, func(s *session2.Session) { s.Destroy() }, func() {
		st.Do(other, func(s *session2.Session) { s.Set("x", 1) })
	}, func(*session2.Session) {})
	if n := records(t, store); n != 0 || b.Token() != "" {
		t.Errorf("%d records and cookie %t after the logout", n, b.Token() != "")
	}
}

func TestLogoutWinsOverAConcurrentRotation(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	other := b.Clone()
	st.During(b, func(s *session2.Session) { s.Destroy() }, func() {
		st.Do(other, func(s *session2.Session) { s.Renew() })
	}, func(*session2.Session) {})
	if n := records(t, store); n != 0 {
		t.Errorf("%d records after the logout, want none", n)
	}
	if user := st.UserOf(other); user != "" {
		t.Errorf("the rotated token is still %s", user)
	}
}

func TestEmptiedSessionIsDeletedUnlessChangedMeanwhile(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.Set("a", 1) })
	other := b.Clone()
	st.During(b, func(s *session2.Session) { s.Delete("a") }, func() {
		st.Do(other, func(s *session2.Session) { s.Set("b", 2) })
	}, func(*session2.Session) {})
	st.Do(b, func(s *session2.Session) {
		if s.Has("a") || s.Get("b") != 2 {
			t.Errorf("keys %v, want b alone", s.Keys())
		}
		s.Clear()
	})
	if n := records(t, store); n != 0 || b.Token() != "" {
		t.Errorf("%d records and cookie %t of an emptied session", n, b.Token() != "")
	}
}

func TestStaleRequestIsRefused(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	old := b.Clone()
	res, err := st.During(old, func(s *session2.Session) { s.Set("x", 1) }, func() {
		st.Do(b, func(s *session2.Session) { s.Renew() })
	}, func(*session2.Session) {})
	if res.StatusCode != http.StatusConflict || !errors.Is(err, session2.ErrStale) || len(res.Cookies()) != 0 {
		t.Errorf("status %d, Err() = %v, cookies %v; want 409, ErrStale and none", res.StatusCode, err, res.Cookies())
	}
	st.Do(b, func(s *session2.Session) {
		if s.User() != "alice" || s.Has("x") {
			t.Errorf("user %q, x %v; want alice and nothing merged", s.User(), s.Get("x"))
		}
	})
}

func TestReplacedTokenReadsAsAnonymousWithinTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session2.NewMemoryStore()
		st := testsite.NewSite(t, store, session2.Config{})
		b := &testsite.Browser{}
		st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
		old := b.Clone()
		st.Do(b, func(s *session2.Session) { s.SetUser("alice") })
		res, err := st.During(old, func(s *session2.Session) {
			if s.User() != "" {
				t.Errorf("a replaced token is %q", s.User())
			}
			if !errors.Is(s.Err(), session2.ErrStale) {
				t.Errorf("Err() = %v, want ErrStale", s.Err())
			}
		}, func() {}, func(s *session2.Session) { s.Set("x", 1) })
		if res.StatusCode != 200 || len(res.Cookies()) != 0 ||
			!errors.Is(err, session2.ErrStale) || records(t, store) != 1 {
			t.Errorf("status %d, cookies %v, Err %v, %d records", res.StatusCode, res.Cookies(), err, records(t, store))
		}
		// A logout takes the cookie from the browser that asks for it, and no more.
		bye := old.Clone()
		st.Do(bye, func(s *session2.Session) { s.Set("x", 1); s.Destroy(); s.Set("y", 1); err = s.Commit(t.Context()) })
		if bye.Token() != "" || !errors.Is(err, session2.ErrStale) || records(t, store) != 1 {
			t.Errorf("Destroy: cookie %t, Commit %v, %d records", bye.Token() != "", err, records(t, store))
		}
		if n := st.Events.Count(session2.EventDestroyed); n != 0 {
			t.Errorf("%d sessions ended, want none", n)
		}
		time.Sleep(31 * time.Second)
		unknown := st.Events.Count(session2.EventUnknown)
		st.Do(old, func(s *session2.Session) { s.Set("x", 1) })
		if records(t, store) != 2 || st.Events.Count(session2.EventUnknown) != unknown+1 {
			t.Error("after the grace a replaced token is not one that was never issued")
		}
		if user := st.UserOf(b); user != "alice" {
			t.Errorf("the new token is %q, want alice", user)
		}
	})
}

func TestPeriodicRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{RenewEvery: 10 * time.Minute})
		b := st.Login("alice")
		first := b.Clone()
		time.Sleep(11 * time.Minute)
		// Two at once, and one whose answer is lost: the same successor for all.
		one, two, lost := first.Clone(), first.Clone(), first.Clone()
		st.During(one, func(s *session2.Session) { s.User() }, func() { st.UserOf(two) },
			func(s *session2.Session) { s.Set("k", 1) })
		st.UserOf(lost)
		if one.Token() == first.Token() || one.Token() != two.Token() || one.Token() != lost.Token() {
			t.Fatal("the requests were not given the same successor")
		}
		time.Sleep(time.Minute) // longer than the grace: the successor has not been seen
		if late := first.Clone(); st.UserOf(late) != "alice" || late.Token() != one.Token() {
			t.Error("the old token died before its successor was seen")
		}
		if res := st.Do(one, func(s *session2.Session) { s.User() }); len(res.Cookies()) != 0 {
			t.Error("a cookie for the current token")
		}
		time.Sleep(29 * time.Second)
		late := first.Clone()
		if res := st.Do(late, func(s *session2.Session) {
			if s.User() != "alice" {
				t.Error("the old token died within the grace")
			}
		}); len(res.Cookies()) != 0 {
			t.Error("the successor was seen, and is sent again: the browser may hold a newer one")
		}
		time.Sleep(2 * time.Second)
		if user := st.UserOf(first.Clone()); user != "" || st.Events.Count(session2.EventReuse) != 1 {
			t.Errorf("after the grace the old token is %q, with %d reuse events",
				user, st.Events.Count(session2.EventReuse))
		}
		if user := st.UserOf(one); user != "" {
			t.Errorf("the session goes on as %q though somebody else holds its cookie", user)
		}
	})
}

func TestRotationsFollowOneAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{RenewEvery: 10 * time.Minute})
		b := st.Login("alice")
		for range 60 {
			old := b.Token()
			time.Sleep(11 * time.Minute)
			if user := st.UserOf(b); user != "alice" || b.Token() == old {
				t.Fatalf("user %q, new token %t", user, b.Token() != old)
			}
			if user := st.UserOf(b); user != "alice" { // the successor's first sight: from it the next one counts
				t.Fatalf("user %q by the successor", user)
			}
		}
		if n := st.Events.Count(session2.EventRenewed); n != 60 {
			t.Errorf("%d renewals, want 60", n)
		}
	})
}

func TestSlowRequestIsNoThief(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{RenewEvery: 10 * time.Minute})
		b := st.Login("alice")
		upload := b.Clone()
		time.Sleep(11 * time.Minute)
		st.Visit(upload, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			st.UserOf(b) // rotates
			st.UserOf(b) // seen
			time.Sleep(5 * time.Minute)
			if s.User() != "alice" {
				t.Error("a request that arrived in time was taken for a thief")
			}
			s.Set("uploaded", true)
		})
		st.Do(b, func(s *session2.Session) {
			if s.Get("uploaded") != true {
				t.Errorf("the upload is lost; user %q", s.User())
			}
		})
		if st.Events.Count(session2.EventReuse) != 0 {
			t.Error("a reuse event")
		}
	})
}

func TestKeepOnReuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := session2.Config{RenewEvery: 10 * time.Minute, KeepOnReuse: true}
		st := testsite.NewSite(t, session2.NewMemoryStore(), cfg)
		b := st.Login("alice")
		old := b.Clone()
		time.Sleep(11 * time.Minute)
		st.UserOf(b)
		st.UserOf(b)
		time.Sleep(time.Minute)
		if user := st.UserOf(old); user != "" || st.Events.Count(session2.EventReuse) != 1 {
			t.Errorf("user %q, %d events", user, st.Events.Count(session2.EventReuse))
		}
		if user := st.UserOf(b); user != "alice" {
			t.Errorf("the session ended all the same: %q", user)
		}
	})
}

func TestAPlantedTokenEndsNobodysSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{RenewEvery: 10 * time.Minute})
		b := &testsite.Browser{}
		st.Do(b, func(s *session2.Session) { s.Set("k", 1) })
		planted := []*testsite.Browser{b.Clone()}
		time.Sleep(11 * time.Minute)
		st.UserOf(b)
		planted = append(planted, b.Clone())
		st.Do(b, func(s *session2.Session) { s.SetUser("alice") })
		time.Sleep(5 * time.Minute)
		for _, p := range planted {
			st.Do(p, func(s *session2.Session) {
				if s.User() != "" || s.Has("k") {
					t.Error("a token from before the login opens the session")
				}
				s.Destroy()
			})
		}
		if user := st.UserOf(b); user != "alice" {
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
				st := testsite.NewSite(t, store, session2.Config{CommitTimeout: time.Minute})
				b := st.Login("alice")
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
							st.Do(b.Clone(), increment)
						}
						return errLost
					}
				})
				res := st.Do(b, increment)
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
				st.Do(b, func(s *session2.Session) {
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
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	store.set(func() {
		store.onSave = func(rec session2.Record, prev session2.Version, save func() error) error {
			store.set(func() { store.onSave = nil })
			if err := save(); err != nil {
				t.Error(err)
			}
			st.Do(b.Clone(), func(s *session2.Session) { s.Set("other", 1) })
			return fmt.Errorf("save: %w", session2.ErrUncertain)
		}
	})
	increment := func(s *session2.Session) { counter.Update(s, func(n int) int { return n + 1 }) }
	if res := st.Do(b, increment); res.StatusCode != 200 {
		t.Errorf("status %d", res.StatusCode)
	}
	st.Do(b, func(s *session2.Session) {
		if n, _ := counter.Get(s); n != 1 || !s.Has("other") {
			t.Errorf("counter %d, keys %v", n, s.Keys())
		}
	})
}

func TestLostAnswerOfACreate(t *testing.T) {
	store := newHookStore()
	st := testsite.NewSite(t, store, session2.Config{})
	store.onSave = func(rec session2.Record, prev session2.Version, save func() error) error {
		store.set(func() { store.onSave = nil })
		save()
		return errors.New("connection reset")
	}
	b := st.Login("alice")
	if n := records(t, store); n != 1 || st.UserOf(b) != "alice" {
		t.Errorf("%d records, user %q", n, st.UserOf(b))
	}
}

func TestFailingStoreFailsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{})
		b := st.Login("alice")
		broken := errors.New("disk on fire")
		store.onLoad = func(session2.ID) error { return broken }
		res := st.Visit(b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
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
		if res := st.Do(b.Clone(), func(s *session2.Session) { s.Set("k", 1) }); res.StatusCode != 503 {
			t.Errorf("status %d", res.StatusCode)
		}
		if d := time.Since(start); d > 6*time.Second {
			t.Errorf("the failure took %v, with a CommitTimeout of 5 s", d)
		}
		store.onSave = nil
		store.onDel = func(session2.ID) error { return broken }
		res = st.Do(b, func(s *session2.Session) { s.Destroy(); s.Flash("bye") })
		if res.StatusCode != 503 || len(res.Cookies()) != 0 {
			t.Errorf("a logout that failed: status %d, cookies %v", res.StatusCode, res.Cookies())
		}
		store.onDel = nil
		if st.UserOf(b) != "alice" {
			t.Error("a logout that failed left a trace")
		}
	})
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session2.NewMemoryStore()
		st := testsite.NewSite(t, store, session2.Config{RenewEvery: time.Hour})
		b := st.Login("alice")
		time.Sleep(29 * time.Minute)
		if st.UserOf(b) != "alice" {
			t.Error("ended before the idle timeout")
		}
		time.Sleep(30*time.Minute + time.Second)
		if st.UserOf(b) != "" || st.Events.Count(session2.EventExpired) != 1 {
			t.Error("not ended by the idle timeout, though nobody swept")
		}
		b = st.Login("alice")
		for range 71 {
			time.Sleep(20 * time.Minute)
			if st.UserOf(b) != "alice" {
				t.Fatal("ended while in use")
			}
		}
		time.Sleep(20 * time.Minute)
		if st.UserOf(b) != "" {
			t.Error("not ended by the absolute limit")
		}
	})
}

func TestAccessIsWrittenOncePerResolution(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{})
		b := st.Login("alice")
		saves := store.count("save")
		for range 120 {
			time.Sleep(time.Second)
			st.UserOf(b)
		}
		if n := store.count("touch"); n != 2 {
			t.Errorf("%d touches in two minutes, want 2", n)
		}
		if n := store.count("save") - saves; n != 0 {
			t.Errorf("%d saves by reading", n)
		}
	})
}

func TestManagerOpen(t *testing.T) {
	ctx := t.Context()
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{})
	s, err := st.M.Open(ctx, "")
	if err != nil || s.Token() != "" {
		t.Fatal("an empty session has a token, or", err)
	}
	s.SetUser("alice")
	form := s.FormToken()
	if err := s.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	old := s.Token()
	s, err = st.M.Open(ctx, old)
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
	if _, err := st.M.Open(ctx, old); !errors.Is(err, session2.ErrNotFound) {
		t.Error("a dead token:", err)
	}
	for _, bad := range []string{"x", "../../etc/passwd", old + "0", old[:len(old)-1]} {
		if _, err := st.M.Open(ctx, bad); !errors.Is(err, session2.ErrNotFound) {
			t.Error("a malformed token:", err)
		}
	}
	late, err := st.M.Open(ctx, s.Token())
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

func TestCleanup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session2.NewMemoryStore()
		st := testsite.NewSite(t, store, session2.Config{})
		st.Login("alice")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- st.M.Cleanup(ctx, time.Minute) }()
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
		log := &testsite.Log{}
		st := testsite.NewSite(t, c.store, session2.Config{Logger: log.Logger()})
		err := st.M.Cleanup(t.Context(), c.every)
		if err == nil || !strings.Contains(log.String(), "nothing is swept") {
			t.Errorf("%s: Cleanup = %v, the log says %q", name, err, log)
		}
	}
}

func TestCleanupOutlivesAFailingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &failingSweep{session2.NewMemoryStore(), 3}
		st := testsite.NewSite(t, store, session2.Config{IdleTimeout: time.Minute})
		st.Login("alice")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- st.M.Cleanup(ctx, time.Minute) }()
		time.Sleep(10 * time.Minute)
		cancel()
		<-done
		if n := st.Events.Count(session2.EventStoreError); n != 3 || records(t, store) != 0 {
			t.Errorf("%d failures told, %d records left; want 3 and none", n, records(t, store))
		}
	})
}

// Setup and Close are for any store, whatever it can do.
func TestSetupAndCloseOfAnyStore(t *testing.T) {
	plain := struct{ session2.Store }{session2.NewMemoryStore()}
	testsite.Must(t, session2.Setup(t.Context(), plain))
	testsite.Must(t, session2.Close(plain))
	testsite.Must(t, session2.Setup(t.Context(), unsupportedSetup{plain}))
	file, err := session2.OpenFileStore(t.TempDir(), nil)
	testsite.Must(t, err)
	testsite.Must(t, session2.Setup(t.Context(), file))
	testsite.Must(t, session2.Close(file))
	if err := session2.Setup(t.Context(), file); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Setup after Close = %v, want ErrClosed", err)
	}
}

// unsupportedSetup wraps a store that has nothing to set up.
type unsupportedSetup struct{ session2.Store }

func (unsupportedSetup) Setup(context.Context) error { return errors.ErrUnsupported }

// Sessions lists what is the user's in the manager's realm, and nothing else.
func TestSessionsOfAUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, store := range map[string]session2.Store{
			"by index": session2.NewMemoryStore(),
			"by Iter": struct {
				session2.Store
				session2.IterStore
			}{session2.NewMemoryStore(), nil},
		} {
			if s, ok := store.(struct {
				session2.Store
				session2.IterStore
			}); ok {
				s.IterStore = s.Store.(session2.IterStore)
				store = s
			}
			st := testsite.NewSite(t, store, session2.Config{IdleTimeout: time.Hour})
			admin := testsite.NewSite(t, store, session2.Config{Realm: "admin"})
			old := st.Login("alice")
			time.Sleep(59 * time.Minute)
			b := st.Login("alice")
			st.Login("bob")
			admin.Login("alice")
			list := func() (ids []session2.ID) {
				for info, err := range st.M.Sessions(t.Context(), "alice") {
					testsite.Must(t, err)
					ids = append(ids, info.ID)
					if info.Created.IsZero() || !info.Expires.After(info.Accessed) || info.RemoteAddr == "" {
						t.Errorf("%s: %+v", name, info)
					}
				}
				return ids
			}
			if ids := list(); len(ids) != 2 {
				t.Errorf("%s: %d sessions, want 2", name, len(ids))
			}
			time.Sleep(2 * time.Minute) // the older one has expired
			ids := list()
			if len(ids) != 1 {
				t.Fatalf("%s: sessions %v, want one", name, ids)
			}
			testsite.Must(t, st.M.Revoke(t.Context(), ids[0]))
			if ids := list(); len(ids) != 0 || st.UserOf(b) != "" || st.UserOf(old) != "" {
				t.Errorf("%s: sessions %v are left", name, ids)
			}
			for range st.M.Sessions(t.Context(), "") {
				t.Errorf("%s: nobody has a session", name)
			}
		}
		none := testsite.NewSite(t, struct{ session2.Store }{session2.NewMemoryStore()}, session2.Config{})
		for _, err := range none.M.Sessions(t.Context(), "alice") {
			if !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("without an index: %v", err)
			}
		}
	})
}

func TestUpdateReturnsWhatItSet(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	n := session2.NewKey[int]("n")
	st.Do(&testsite.Browser{}, func(s *session2.Session) {
		for want := 1; want < 4; want++ {
			if got := n.Update(s, func(n int) int { return n + 1 }); got != want {
				t.Errorf("Update = %d, want %d", got, want)
			}
		}
	})
}

// leaving is a store whose Delete is done, and whose client goes away meanwhile.
type leaving struct {
	session2.Store
	gone func()
}

func (l *leaving) Delete(ctx context.Context, id session2.ID) error {
	err := l.Store.Delete(ctx, id)
	if l.gone != nil {
		l.gone()
	}
	return cmp.Or(err, ctx.Err())
}

// The alarm of a reused token is given though its client goes away, and once; so is the end
// of its session.
func TestReuseIsToldThoughTheClientGoes(t *testing.T) {
	for _, cookies := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			store := &leaving{Store: session2.NewMemoryStore()}
			st := testsite.NewSite(t, store, session2.Config{RenewEvery: time.Minute, RenewGrace: time.Second})
			b, other := &testsite.Browser{}, &testsite.Browser{}
			st.Do(b, func(s *session2.Session) { s.SetUser("alice") })
			st.Do(other, func(s *session2.Session) { s.Set("k", 1) })
			old := b.Clone()
			time.Sleep(2 * time.Minute)
			st.UserOf(b)
			st.UserOf(b)
			time.Sleep(time.Minute)
			r := httptest.NewRequest("GET", "/", nil)
			for _, b := range []*testsite.Browser{old, other}[:cookies] {
				r.AddCookie(&http.Cookie{Name: "__Host-session", Value: b.Token()})
			}
			ctx, cancel := context.WithCancel(t.Context())
			store.gone = cancel
			st.Handler(func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { s.User() }).
				ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx))
			if st.Events.Count(session2.EventReuse) != 1 || st.Events.Count(session2.EventDestroyed) != 1 {
				t.Errorf("%d cookies: %v", cookies, st.Events.List)
			}
		})
	}
}

// A logout ends all that the request presents, and what a token of it has opened until another
// request replaced it a moment ago, in whichever order and beside whatever the cookies come.
func TestALogoutEndsWhatReplacedTokensHaveOpened(t *testing.T) {
	replace := map[string]func(*session2.Session){
		"Renew":                   (*session2.Session).Renew,
		"SetLevel":                func(s *session2.Session) { s.SetLevel(2) },
		"a login of the same one": func(s *session2.Session) { s.SetUser("alice") },
	}
	const junk = "0123456789abcdef0123456789abcdef.dGhlIHZlcmlmaWVyIGlzIG9mIG5vIG1hdHRlciBoZXI"
	for name, do := range replace {
		for _, order := range []string{"a", "aa", "ab", "ba", "ax", "xa", "abc", "bac", "cba", "ac", "ca"} {
			st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
			tokens := map[rune]string{'x': junk}
			for _, who := range "abc" {
				b := st.Login("alice")
				tokens[who] = b.Token()
				if who != 'b' { // whose token is good
					st.Do(b, do)
				}
			}
			var cookies []string
			for _, who := range order {
				cookies = append(cookies, "__Host-session="+tokens[who])
			}
			r := httptest.NewRequest("POST", "https://example.com/logout", nil)
			r.Header.Set("Cookie", strings.Join(cookies, "; "))
			var err error
			st.M.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := st.M.Session(r)
				s.Destroy()
				err = cmp.Or(s.Commit(r.Context()), s.Err())
			})).ServeHTTP(httptest.NewRecorder(), r)
			for info, e := range st.M.Sessions(t.Context(), "alice") {
				testsite.Must(t, e)
				for _, who := range order {
					if strings.HasPrefix(tokens[who], info.ID.String()) {
						t.Errorf("%s, cookies %s: %c lives on; %v", name, order, who, err)
					}
				}
			}
			if err != nil {
				t.Errorf("%s, cookies %s: %v", name, order, err)
			}
		}
	}
}

// A request owes the cookie of a rotation that it has committed. Its last commit lands, the
// answer is lost, and another request renews the session before that is found out: the cookie
// is dead by then, and the browser may hold the newer one.
func TestAnOwedCookieIsNotSentWhereALateLandingFindsItReplaced(t *testing.T) {
	for name, replace := range map[string]func(*session2.Session){
		"Renew":   (*session2.Session).Renew,
		"a login": func(s *session2.Session) { s.SetUser("alice") },
	} {
		for _, sealed := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				store := newHookStore()
				st := testsite.NewSite(t, store, session2.Config{RenewEvery: 10 * time.Minute, Sealed: sealed})
				b := st.Login("alice")
				time.Sleep(11 * time.Minute)
				late := b.Clone()
				res := st.Visit(late, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
					s.Set("k", 1)
					testsite.Must(t, s.Commit(r.Context()))
					s.Set("k", 2)
					store.once(func(_ session2.Record, _ session2.Version, save func() error) error {
						testsite.Must(t, save())
						st.Do(b, replace)
						return errors.New("connection lost")
					})
				})
				if res.StatusCode != 200 || st.UserOf(b) != "alice" || st.Stored(b, "k") != 2 {
					t.Errorf("%s: status %d, k = %v", name, res.StatusCode, st.Stored(b, "k"))
				}
				for _, c := range res.Cookies() {
					if c.Value != b.Token() {
						t.Errorf("%s, sealed %t: the later response sends a cookie that is not the session's", name, sealed)
					}
				}
			})
		}
	}
}
