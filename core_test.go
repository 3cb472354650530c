package session2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

func TestLoginsByATokenAndItsPeriodicPredecessor(t *testing.T) {
	for _, predecessorFirst := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			store := session2.NewMemoryStore()
			st := testsite.NewSite(t, store, session2.Config{RenewEvery: 10 * time.Minute})
			b := &testsite.Browser{}
			st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
			old := b.Clone()
			time.Sleep(11 * time.Minute)
			st.UserOf(b) // rotates
			st.UserOf(b) // seen
			first, second := b, old
			if predecessorFirst {
				first, second = old, b
			}
			for _, who := range []*testsite.Browser{first, second} {
				st.Do(who, func(s *session2.Session) { s.SetUser("alice") })
			}
			if b.Token() != old.Token() {
				t.Error("the two logins were not given the same token")
			}
			if st.UserOf(b) != "alice" || records(t, store) != 1 {
				t.Errorf("user %q, %d records", st.UserOf(b), records(t, store))
			}
		})
	}
}

func TestThreeLoginsAtOnce(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
	clicks := []*testsite.Browser{b.Clone(), b.Clone(), b.Clone()}
	login := func(s *session2.Session) { s.SetUser("alice") }
	look := func(s *session2.Session) { s.User() }
	st.During(clicks[0], look, func() {
		st.During(clicks[1], look, func() { st.Do(clicks[2], login) }, login)
	}, login)
	for i, c := range clicks {
		if c.Token() != clicks[0].Token() || st.UserOf(c) != "alice" {
			t.Errorf("click %d: user %q", i, st.UserOf(c))
		}
	}
	if n := records(t, store); n != 1 {
		t.Errorf("%d records, want 1", n)
	}
}

func TestATwinsTokensSurviveTheSecondLogin(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
	late := b.Clone()
	var form, csrf string
	st.Do(b, func(s *session2.Session) {
		s.SetUser("alice")
		form, csrf = s.FormToken(), s.CSRFToken()
	})
	st.Do(late, func(s *session2.Session) { s.SetUser("alice") })
	st.Do(b, func(s *session2.Session) {
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set("X-CSRF-Token", csrf)
		if !s.HasFormToken(form) || !s.ValidCSRFToken(r) {
			t.Error("the second click took the tokens of the page that the first one got")
		}
	})
}

func TestRevokeOthersWithoutASession(t *testing.T) {
	store := newHookStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	broken := errors.New("disk on fire")
	store.onLoad = func(session2.ID) error { return broken }
	st.Do(b, func(s *session2.Session) {
		if n, err := st.M.RevokeOthers(t.Context(), s); n != 0 || !errors.Is(err, broken) {
			t.Errorf("RevokeOthers = %d, %v; want the load's error", n, err)
		}
	})
}

func TestLoginAfterTheGraceStartsASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session2.NewMemoryStore()
		st := testsite.NewSite(t, store, session2.Config{})
		b := &testsite.Browser{}
		st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
		old := b.Clone()
		st.Do(b, func(s *session2.Session) { s.SetUser("alice") })
		time.Sleep(31 * time.Second)
		st.Do(old, func(s *session2.Session) { s.SetUser("alice") })
		if old.Token() == b.Token() || records(t, store) != 2 {
			t.Error("a token that is long dead joined the session")
		}
	})
}

func TestEmptyingWhoseAnswerIsLost(t *testing.T) {
	for _, landed := range []bool{true, false} {
		t.Run(fmt.Sprint("landed ", landed), func(t *testing.T) {
			store := newHookStore()
			st := testsite.NewSite(t, store, session2.Config{})
			b := &testsite.Browser{}
			st.Do(b, func(s *session2.Session) { s.Set("k", 1) })
			store.onSave = func(rec session2.Record, prev session2.Version, save func() error) error {
				store.set(func() { store.onSave = nil })
				if landed {
					if err := save(); err != nil {
						t.Error(err)
					}
				}
				return fmt.Errorf("save: %w", session2.ErrUncertain)
			}
			res := st.Do(b, func(s *session2.Session) { s.Delete("k") })
			if res.StatusCode != 200 || b.Token() != "" {
				t.Errorf("status %d, cookie %t", res.StatusCode, b.Token() != "")
			}
			for rec := range store.Iter(t.Context()) {
				if rec.Expires.After(time.Now()) {
					t.Error("the emptied session lives")
				}
			}
		})
	}
}

func TestConcurrentTouchDoesNotReviveWhatWasEmptied(t *testing.T) {
	store := newHookStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.Set("k", 1) })
	store.onDel = func(id session2.ID) error { // between the Save and the Delete, which then fails
		store.MemoryStore.Touch(t.Context(), id, time.Now(), time.Now().Add(time.Hour))
		return errors.New("disk on fire")
	}
	old := b.Clone()
	st.Do(b, func(s *session2.Session) { s.Delete("k") })
	store.onDel = nil
	st.Do(old, func(s *session2.Session) {
		if s.HasInfo() || s.User() != "" {
			t.Errorf("the emptied session holds %v", s.Keys())
		}
	})
}

func TestIDThatIsTaken(t *testing.T) {
	store := newHookStore()
	st := testsite.NewSite(t, store, session2.Config{})
	store.onSave = func(rec session2.Record, prev session2.Version, save func() error) error {
		store.set(func() { store.onSave = nil })
		foreign := rec
		foreign.Version, foreign.User = 1, "mallory"
		if err := store.MemoryStore.Save(t.Context(), foreign, 0); err != nil {
			t.Error(err)
		}
		return save()
	}
	b := st.Login("alice")
	if st.UserOf(b) != "alice" || records(t, store) != 2 {
		t.Errorf("user %q, %d records", st.UserOf(b), records(t, store))
	}
}

func TestLoserOfARaceLeavesTheCookieAlone(t *testing.T) {
	end := map[string]func(*session2.Session){
		"destroyed": func(s *session2.Session) { s.Destroy() },
		"renewed":   func(s *session2.Session) { s.Renew() },
	}
	late := map[string]func(*session2.Session){
		"sets":                  func(s *session2.Session) { s.Set("k", 1) },
		"renews":                func(s *session2.Session) { s.Renew() },
		"empties":               func(s *session2.Session) { s.SetUser("") },
		"makes it persistent":   func(s *session2.Session) { s.SetPersistent(true) },
		"commits, then renews":  func(s *session2.Session) { s.Set("k", 1); s.Commit(context.Background()); s.Renew() },
		"updates":               func(s *session2.Session) { counter.Update(s, func(n int) int { return n + 1 }) },
		"commits in vain twice": func(s *session2.Session) { s.Set("k", 1); s.Commit(context.Background()); s.Set("k", 2) },
	}
	for how, end := range end {
		for what, change := range late {
			t.Run(how+" meanwhile, "+what, func(t *testing.T) {
				store := session2.NewMemoryStore()
				st := testsite.NewSite(t, store, session2.Config{})
				b := st.Login("alice")
				loser := b.Clone()
				res, err := st.During(loser, func(s *session2.Session) { s.User() }, func() { st.Do(b, end) }, change)
				if len(res.Cookies()) != 0 {
					t.Errorf("the loser was sent %d cookies", len(res.Cookies()))
				}
				if err == nil {
					t.Error("Err() = nil, though the changes were dropped")
				}
				if how == "destroyed" && records(t, store) != 0 {
					t.Error("the session came back")
				}
				if how == "renewed" && st.UserOf(b) != "alice" {
					t.Error("the winner lost its session")
				}
			})
		}
	}
}

func TestCommitThenLoseTheRace(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	before := b.Clone()
	res, _ := st.During(b, func(s *session2.Session) {
		s.Renew()
		if err := s.Commit(t.Context()); err != nil { // the new token is in the response to come
			t.Error(err)
		}
	}, func() {
		for rec := range store.Iter(t.Context()) {
			st.M.Revoke(t.Context(), rec.ID)
		}
	}, func(s *session2.Session) { s.Set("k", 1) })
	if len(res.Cookies()) != 0 || records(t, store) != 0 {
		t.Errorf("%d cookies, %d records after a revocation", len(res.Cookies()), records(t, store))
	}
	if st.UserOf(before) != "" {
		t.Error("the old token opens something")
	}
}

func TestDestroyThenMore(t *testing.T) {
	store := newHookStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	var old session2.ID
	st.Do(b, func(s *session2.Session) {
		old = s.ID()
		s.Set("k", 1)
		s.Destroy()
		if s.User() != "" || s.Has("k") || !s.IsNew() {
			t.Error("after Destroy the session holds what it held")
		}
		s.Flash("Goodbye.")
	})
	st.Do(b, func(s *session2.Session) {
		if got := s.Flashes(); len(got) != 1 || s.ID() == old || s.User() != "" {
			t.Errorf("flashes %v, same ID %t, user %q", got, s.ID() == old, s.User())
		}
	})
	if n := records(t, store); n != 0 || b.Token() != "" {
		t.Errorf("%d records, cookie %t", n, b.Token() != "")
	}
	b = st.Login("alice")
	st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.Destroy()
		s.Set("k", 1)
		s.Discard()
		if s.User() != "alice" || s.Has("k") || s.Dirty() {
			t.Error("Discard does not undo Destroy")
		}
	})
	if st.UserOf(b) != "alice" {
		t.Error("a discarded logout left a trace")
	}
}

// A goroutine of the request may end or discard the session while a commit runs.
func TestDestroyAndDiscardBesideACommit(t *testing.T) {
	for _, stored := range []bool{true, false} {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{})
		b := &testsite.Browser{}
		if stored {
			b = st.Login("alice")
		}
		var during func()
		store.onSave = func(_ session2.Record, _ session2.Version, save func() error) error {
			store.set(func() { store.onSave = nil })
			during()
			return save()
		}
		st.Do(b, func(s *session2.Session) {
			during = s.Destroy
			s.Set("k", 1)
			if err := s.Commit(t.Context()); err != nil {
				t.Error(err)
			}
		})
		if n := records(t, store); n != 0 || b.Token() != "" {
			t.Errorf("stored %t: Destroy beside a commit: %d records, cookie %t", stored, n, b.Token() != "")
		}
	}
	store := newHookStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	store.onSave = func(_ session2.Record, _ session2.Version, save func() error) error {
		store.set(func() { store.onSave = nil })
		return save()
	}
	st.Do(b, func(s *session2.Session) {
		onSave := store.onSave
		store.set(func() {
			store.onSave = func(rec session2.Record, prev session2.Version, save func() error) error {
				s.Discard()
				s.Set("after", 1)
				return onSave(rec, prev, save)
			}
		})
		s.Set("before", 1)
		if err := s.Commit(t.Context()); err != nil {
			t.Error(err)
		}
	})
	st.Do(b, func(s *session2.Session) {
		if got := fmt.Sprint(s.Keys()); got != "[after before]" {
			t.Errorf("keys %v, want both: the one was committed, the other came after", got)
		}
	})
}

func TestDestroyBesideALostAnswer(t *testing.T) {
	for _, revoked := range []bool{false, true} {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{})
		b := st.Login("alice")
		store.onSave = func(rec session2.Record, _ session2.Version, save func() error) error {
			store.set(func() { store.onSave = nil })
			if err := save(); err != nil {
				t.Error(err)
			}
			if revoked { // the session that begins is ended from outside meanwhile
				store.MemoryStore.Delete(t.Context(), rec.ID)
			}
			return fmt.Errorf("save: %w", session2.ErrUncertain)
		}
		res := st.Do(b, func(s *session2.Session) { s.Destroy(); s.Flash("bye") })
		if res.StatusCode != 200 {
			t.Errorf("status %d", res.StatusCode)
		}
		for rec := range store.Iter(t.Context()) {
			if rec.User == "alice" {
				t.Error("the logout deleted nothing")
			}
		}
		if n := st.Events.Count(session2.EventDestroyed); n != 1 {
			t.Errorf("%d events of an end, want 1", n)
		}
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
			if s.RemoteAddr() != r.RemoteAddr || len(s.UserAgent()) != 256 {
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
			if res := st.Do(b, func(s *session2.Session) { change(s); s.Discard(); s.Set("other", 1) }); res.StatusCode != 200 {
				t.Errorf("after Discard: status %d", res.StatusCode)
			}
		})
	}
}

func TestHangingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{CommitTimeout: time.Second})
		b := st.Login("alice")
		store.onSave = func(_ session2.Record, _ session2.Version, _ func() error) error {
			time.Sleep(2 * time.Second)
			return context.DeadlineExceeded
		}
		start := time.Now()
		if res := st.Do(b, func(s *session2.Session) { s.Set("k", 1) }); res.StatusCode != 503 {
			t.Errorf("status %d", res.StatusCode)
		}
		if d := time.Since(start); d > 3*time.Second {
			t.Errorf("the request took %v", d)
		}
	})
}

// A client that is told of a failure can be told, too, whether to repeat what it
// asked.
func TestFailureSaysWhetherItIsCertain(t *testing.T) {
	for _, c := range []struct {
		name      string
		uncertain bool
		fail      func(b *testsite.Brittle) *atomic.Bool
		ask       func(s *session2.Session)
	}{
		{"load", false, func(b *testsite.Brittle) *atomic.Bool { return &b.FailLoad }, func(s *session2.Session) { s.Set("k", 1) }},
		{"save", true, func(b *testsite.Brittle) *atomic.Bool { return &b.FailSave }, func(s *session2.Session) { s.Set("k", 1) }},
		{"logout", true, func(b *testsite.Brittle) *atomic.Bool { return &b.FailDelete }, func(s *session2.Session) { s.Destroy() }},
	} {
		store := testsite.NewBrittle()
		var failed error
		st := testsite.NewSite(t, store, session2.Config{CommitTimeout: testsite.TinyTimeout, ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			failed = err
			w.WriteHeader(http.StatusServiceUnavailable)
		}})
		b := st.Login("alice")
		c.fail(store).Store(true)
		res := st.Do(b, c.ask)
		if got := errors.Is(failed, session2.ErrUncertain); res.StatusCode != 503 || !errors.Is(failed, testsite.ErrDown) || got != c.uncertain {
			t.Errorf("%s: status %d, %v; want 503, %v, and ErrUncertain %t", c.name, res.StatusCode, failed, testsite.ErrDown, c.uncertain)
		}
	}
}

func TestHousekeepingThatFailsDoesNotFailTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{RenewEvery: 10 * time.Minute})
		b := st.Login("alice")
		time.Sleep(11 * time.Minute)
		store.onSave = func(_ session2.Record, _ session2.Version, _ func() error) error { return errors.New("disk on fire") }
		res := st.Do(b, func(s *session2.Session) { s.User() })
		if res.StatusCode != 200 || len(res.Cookies()) != 0 || st.Events.Count(session2.EventStoreError) == 0 {
			t.Errorf("status %d, %d cookies", res.StatusCode, len(res.Cookies()))
		}
		store.onSave = nil
		if st.UserOf(b) != "alice" {
			t.Error("a rotation that failed cost the session")
		}
	})
}

// plainStore has the four methods and nothing else.
type plainStore struct{ session2.Store }

// listStore can list as well, and its iterator must not run beside other calls.
type listStore struct {
	session2.Store
	list session2.IterStore
}

func (l listStore) Iter(ctx context.Context) iter.Seq2[session2.Record, error] {
	return l.list.Iter(ctx)
}

func TestPlainStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := session2.NewMemoryStore()
		st := testsite.NewSite(t, plainStore{memory}, session2.Config{})
		b := st.Login("alice")
		for range 40 { // accesses are saved where they cannot be touched
			time.Sleep(time.Minute)
			if st.UserOf(b) != "alice" {
				t.Fatal("the session ended while in use")
			}
		}
		if _, err := st.M.RevokeUser(t.Context(), "alice"); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("RevokeUser = %v", err)
		}
		if err := st.M.Cleanup(t.Context(), time.Minute); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Cleanup = %v", err)
		}
		st = testsite.NewSite(t, listStore{memory, memory}, session2.Config{})
		st.Login("bob")
		if n, err := st.M.RevokeUser(t.Context(), "alice"); n != 1 || err != nil {
			t.Errorf("RevokeUser by listing = %d, %v", n, err)
		}
		if n := records(t, memory); n != 1 {
			t.Errorf("%d records left, want bob's", n)
		}
	})
}

func TestBlindSetsOfOneKey(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			st.Do(b.Clone(), func(s *session2.Session) { s.Set("k", strings.Repeat(fmt.Sprint(i%10), 100)) })
		})
	}
	wg.Wait()
	st.Do(b, func(s *session2.Session) {
		got, _ := s.Get("k").(string)
		if len(got) != 100 || got != strings.Repeat(got[:1], 100) {
			t.Errorf("the value is a mixture: %q", got)
		}
	})
}

func TestFormTokensAreBounded(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	var tokens []string
	for range 20 {
		st.Do(b, func(s *session2.Session) { tokens = append(tokens, s.FormToken()) })
	}
	st.Do(b, func(s *session2.Session) {
		for i, token := range tokens {
			if got, want := s.HasFormToken(token), i >= 4; got != want {
				t.Errorf("token %d of 20: %t, want %t", i, got, want)
			}
		}
		if s.HasFormToken("") || s.HasFormToken("x") {
			t.Error("what is no token is there")
		}
	})
}

func TestUpdateOfAValueThatCannotBeRead(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.Set("counter", "not a number") })
	res := st.Do(b, func(s *session2.Session) {
		if n, ok := counter.Get(s); n != 0 || ok {
			t.Errorf("Get = %d, %v, want none", n, ok)
		}
		counter.Update(s, func(n int) int { return n + 1 })
	})
	if res.StatusCode != 200 || st.Events.Count(session2.EventCorrupt) == 0 {
		t.Errorf("status %d, %d corrupt events; want 200 and one at least", res.StatusCode, st.Events.Count(session2.EventCorrupt))
	}
	if got := st.Stored(b, "counter"); got != 1 {
		t.Errorf("counter = %v, want 1: Update starts from zero", got)
	}
}

func TestLoginThatLandedLateAndWasOvertaken(t *testing.T) {
	store := newHookStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
	twin := b.Clone()
	store.onSave = func(_ session2.Record, _ session2.Version, save func() error) error {
		store.set(func() { store.onSave = nil })
		if err := save(); err != nil {
			t.Error(err)
		}
		st.Do(twin, func(s *session2.Session) { s.SetUser("alice") }) // is given the token of the first
		st.Do(twin, func(s *session2.Session) { s.Renew() })          // and a newer one
		return errors.New("connection reset")
	}
	res := st.Do(b, func(s *session2.Session) { s.SetUser("alice") })
	if res.StatusCode != 200 || len(res.Cookies()) != 0 {
		t.Errorf("status %d, %d cookies: the browser holds a newer one", res.StatusCode, len(res.Cookies()))
	}
	if st.UserOf(twin) != "alice" {
		t.Error("the newer token is dead")
	}
}

func TestSessionThatHeldAFormTokenOnly(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := &testsite.Browser{}
	var token string
	st.Do(b, func(s *session2.Session) { token = s.FormToken() })
	st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		if ok, err := s.UseFormToken(r.Context(), token); !ok || err != nil {
			t.Errorf("UseFormToken = %t, %v", ok, err)
		}
	})
	if n := records(t, store); n != 0 || b.Token() != "" {
		t.Errorf("%d records, cookie %t, though the session holds nothing", n, b.Token() != "")
	}
	st.Do(b, func(s *session2.Session) { token = s.FormToken() })
	st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		id := s.ID()
		s.UseFormToken(r.Context(), token)
		s.Set("k", 1)
		if s.ID() != id {
			t.Error("a session that goes on has another ID")
		}
	})
	st.Do(b, func(s *session2.Session) {
		if s.Get("k") != 1 {
			t.Error("what was set beside the token is lost")
		}
	})
}

func TestFormTokenWhoseAnswerIsLost(t *testing.T) {
	store := newHookStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	var token string
	st.Do(b, func(s *session2.Session) { token = s.FormToken() })
	store.onSave = func(_ session2.Record, _ session2.Version, save func() error) error {
		store.set(func() { store.onSave = nil })
		if err := save(); err != nil {
			t.Error(err)
		}
		st.Do(b.Clone(), func(s *session2.Session) { s.Set("other", 1) })
		return errors.New("connection reset")
	}
	for i, want := range []bool{true, false} {
		st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			if ok, err := s.UseFormToken(r.Context(), token); ok != want || err != nil {
				t.Errorf("use %d: %t, %v; want %t", i, ok, err, want)
			}
		})
	}
	ended := b.Clone()
	st.Do(b, func(s *session2.Session) { token = s.FormToken() })
	st.Visit(ended, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.User()
		st.Do(b, func(s *session2.Session) { s.Destroy() })
		if ok, err := s.UseFormToken(r.Context(), token); ok || err != nil {
			t.Errorf("in a session that has ended: %t, %v", ok, err)
		}
	})
}

func TestErrorHandlerHasTheSession(t *testing.T) {
	store := newHookStore()
	var told error
	cfg := session2.Config{CommitTimeout: time.Millisecond}
	cfg.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
		told = session2.FromContext(r.Context()).Err()
		w.WriteHeader(http.StatusTeapot)
	}
	st := testsite.NewSite(t, store, cfg)
	broken := errors.New("disk on fire")
	store.onSave = func(_ session2.Record, _ session2.Version, _ func() error) error { return broken }
	if res := st.Do(&testsite.Browser{}, func(s *session2.Session) { s.Set("k", 1) }); res.StatusCode != http.StatusTeapot || !errors.Is(told, broken) {
		t.Errorf("status %d, Err() = %v", res.StatusCode, told)
	}
}
