package session2_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

func TestLoginClickedTwice(t *testing.T) {
	for _, firstAnswerLast := range []bool{false, true} {
		t.Run(fmt.Sprint("first answer last: ", firstAnswerLast), func(t *testing.T) {
			store := session2.NewMemoryStore()
			st := testsite.NewSite(t, store, session2.Config{})
			b := &testsite.Browser{}
			st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
			one, two := b.Clone(), b.Clone()
			st.During(one, func(s *session2.Session) { s.SetUser("alice"); s.Set("one", 1) }, func() {
				st.Do(two, func(s *session2.Session) { s.SetUser("alice"); s.Set("two", 2) })
			}, func(*session2.Session) {})
			if one.Token() == b.Token() || one.Token() != two.Token() {
				t.Fatal("the two logins were not given the same new token")
			}
			if firstAnswerLast {
				two = one
			}
			st.Do(two, func(s *session2.Session) {
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
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
	late := b.Clone()
	st.Do(b, func(s *session2.Session) { s.SetUser("alice") })
	st.Do(late, func(s *session2.Session) {
		if s.User() != "" || s.Has("cart") {
			t.Error("a replaced token opens the session")
		}
		s.SetUser("alice")
	})
	if late.Token() != b.Token() {
		t.Error("the second login has another token than the first")
	}
}

func TestLoginOfAnotherUserStartsASessionOfItsOwn(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
	other := b.Clone()
	st.During(other, func(s *session2.Session) { s.Set("mine", 1); s.SetUser("bob") }, func() {
		st.Do(b, func(s *session2.Session) { s.SetUser("alice") })
	}, func(*session2.Session) {})
	st.Do(other, func(s *session2.Session) {
		if s.User() != "bob" || s.Has("cart") || s.Get("mine") != 1 {
			t.Errorf("user %q, keys %v; want bob with his own changes and nothing else", s.User(), s.Keys())
		}
	})
	if st.UserOf(b) != "alice" || records(t, store) != 2 {
		t.Error("the other user's login harmed the first")
	}
}

func TestLoginIntoASessionThatEndedMeanwhile(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	other := b.Clone()
	var id session2.ID
	st.During(other, func(s *session2.Session) { id = s.ID(); s.Set("k", 1) }, func() {
		st.Do(b, func(s *session2.Session) { s.Destroy() })
	}, func(s *session2.Session) { s.SetUser("alice") })
	st.Do(other, func(s *session2.Session) {
		if s.User() != "alice" || s.ID() == id || s.Get("k") != 1 {
			t.Errorf("user %q, same ID %t", s.User(), s.ID() == id)
		}
	})
}

func TestSetUserFromOneToAnotherClears(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	for _, next := range []string{"bob", ""} {
		b := st.Login("alice")
		st.Do(b, func(s *session2.Session) { s.Set("secret", 1); s.Flash("hi"); s.CSRFToken() })
		st.Do(b, func(s *session2.Session) { s.SetUser(next); s.Set("k", 1) })
		st.Do(b, func(s *session2.Session) {
			if s.User() != next || s.Has("secret") || len(s.Flashes()) != 0 || s.Get("k") != 1 {
				t.Errorf("user %q, keys %v after alice's session became %q's", s.User(), s.Keys(), next)
			}
		})
	}
}

func TestLoginReplacesTheToken(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.Set("k", 1) })
	planted := b.Clone()
	var id session2.ID
	st.Do(b, func(s *session2.Session) { s.SetUser("alice"); id = s.ID() })
	if planted.Token() == b.Token() {
		t.Fatal("the token survived a login")
	}
	if user := st.UserOf(planted); user != "" {
		t.Errorf("the token from before the login is %q", user)
	}
	st.Do(b, func(s *session2.Session) {
		if s.ID() != id || s.User() != "alice" || s.Get("k") != 1 {
			t.Error("the login changed more than the token")
		}
	})
}

func TestRevoke(t *testing.T) {
	ctx := t.Context()
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	a1, a2, a3, bob := st.Login("alice"), st.Login("alice"), st.Login("alice"), st.Login("bob")
	st.Do(a1, func(s *session2.Session) {
		if n, err := st.M.RevokeOthers(ctx, s); n != 2 || err != nil {
			t.Errorf("RevokeOthers = %d, %v", n, err)
		}
	})
	if st.UserOf(a1) != "alice" || st.UserOf(a2) != "" || st.UserOf(a3) != "" {
		t.Error("RevokeOthers ended the wrong ones")
	}
	if n, err := st.M.RevokeUser(ctx, ""); n != 0 || err != nil {
		t.Errorf("RevokeUser of nobody = %d, %v", n, err)
	}
	if n, err := st.M.RevokeUser(ctx, "alice"); n != 1 || err != nil || st.UserOf(a1) != "" {
		t.Errorf("RevokeUser = %d, %v", n, err)
	}
	st.Do(bob, func(s *session2.Session) {
		if err := st.M.Revoke(ctx, s.ID()); err != nil {
			t.Error(err)
		}
	})
	if st.UserOf(bob) != "" || st.Events.Count(session2.EventRevoked) != 4 {
		t.Errorf("bob is %q after %d revocations", st.UserOf(bob), st.Events.Count(session2.EventRevoked))
	}
}

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

// What was set before SetUser, in another user's session, lands in the new user's session.
func TestOwnSessionHoldsAnotherUsersValues(t *testing.T) {
	for name, meanwhile := range map[string]func(s *session2.Session){
		"logout":        func(s *session2.Session) { s.Destroy() },
		"another login": func(s *session2.Session) { s.SetUser("carol") },
		"renew":         func(s *session2.Session) { s.Renew() },
		"twin":          func(s *session2.Session) { s.SetUser("bob") },
	} {
		t.Run(name, func(t *testing.T) {
			st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
			b := st.Login("alice")
			other := b.Clone()
			st.During(b, func(s *session2.Session) {
				s.Set("last", s.User()+"'s secret")
				s.Flash("Good bye, " + s.User())
			}, func() { st.Do(other, meanwhile) }, func(s *session2.Session) {
				s.SetUser("bob")
				if s.Has("last") {
					t.Error("in the request")
				}
			})
			st.Do(b, func(s *session2.Session) {
				if v := s.Get("last"); s.User() == "bob" && v != nil {
					t.Errorf("bob reads %v", v)
				}
				if f := s.Flashes(); s.User() == "bob" && len(f) > 0 {
					t.Errorf("bob reads %v", f)
				}
			})
		})
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

// Whoever has the token that Renew or a login of the same user replaced a moment ago
// is the session's user, and may end it; whoever has the one from before the login may
// not.
func TestALogoutBesideARenewal(t *testing.T) {
	signIn := func(s *session2.Session) { s.SetUser("alice") }
	set := func(s *session2.Session) { s.Set("k", 1) }
	for name, c := range map[string]struct {
		before  func(*session2.Session)
		changes []func(*session2.Session)
		ends    bool
	}{
		"Renew":              {signIn, []func(*session2.Session){(*session2.Session).Renew}, true},
		"another login":      {signIn, []func(*session2.Session){signIn}, true},
		"both":               {signIn, []func(*session2.Session){(*session2.Session).Renew, signIn}, true},
		"the login":          {set, []func(*session2.Session){signIn}, false},
		"the login and more": {set, []func(*session2.Session){signIn, signIn, (*session2.Session).Renew}, false},
		"somebody else": {func(s *session2.Session) { s.SetUser("bob") },
			[]func(*session2.Session){signIn}, false},
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
			t.Errorf("%s: status %d, cookie %t, user %q; ended %t wanted",
				name, res.StatusCode, old.Token() != "", st.UserOf(b), c.ends)
		}
	}
}

// forwarder is a wrapper that forwards an index of users which is not there.
type forwarder struct{ *session2.MemoryStore }

func (forwarder) IterUser(context.Context, string) iter.Seq2[session2.Record, error] {
	return func(yield func(session2.Record, error) bool) {
		yield(session2.Record{}, fmt.Errorf("iter user: %w", errors.ErrUnsupported))
	}
}

func TestRevokeUserWithoutAnIndexOfUsers(t *testing.T) {
	st := testsite.NewSite(t, forwarder{session2.NewMemoryStore()}, session2.Config{})
	a, bob := st.Login("alice"), st.Login("bob")
	if n, err := st.M.RevokeUser(t.Context(), "alice"); n != 1 || err != nil {
		t.Errorf("RevokeUser = %d, %v; want 1, nil: the store can Iter", n, err)
	}
	if st.UserOf(a) != "" || st.UserOf(bob) != "bob" {
		t.Error("RevokeUser ended the wrong sessions")
	}
}

// unsureStore deletes a user's sessions, and has lost count of them.
type unsureStore struct{ *session2.MemoryStore }

func (u unsureStore) DeleteUser(ctx context.Context, user string, keep ...session2.ID) (int, error) {
	_, err := u.MemoryStore.DeleteUser(ctx, user, keep...)
	return 0, errors.Join(session2.ErrUncertain, err)
}

// brokenOffStore is cancelled when it has deleted one session of a user, and does
// not know of it.
type brokenOffStore struct{ *session2.MemoryStore }

func (b brokenOffStore) DeleteUser(ctx context.Context, user string, _ ...session2.ID) (int, error) {
	for rec, err := range b.MemoryStore.IterUser(ctx, user) {
		return 0, errors.Join(session2.ErrUncertain, context.Canceled, err, b.Delete(ctx, rec.ID))
	}
	return 0, nil
}

// Of a deletion that was called off, the sessions that have ended are events, and
// those that live are not.
func TestRevokeUserCalledOff(t *testing.T) {
	st := testsite.NewSite(t, brokenOffStore{session2.NewMemoryStore()}, session2.Config{})
	first, second := st.Login("alice"), st.Login("alice")
	if _, err := st.M.RevokeUser(t.Context(), "alice"); !errors.Is(err, session2.ErrUncertain) {
		t.Errorf("RevokeUser = %v, want ErrUncertain", err)
	}
	if n := st.Events.Count(session2.EventRevoked); n != 1 || (st.UserOf(first) == "") == (st.UserOf(second) == "") {
		t.Errorf("%d revoked events, users %q and %q; want 1 and one of them", n, st.UserOf(first), st.UserOf(second))
	}
}

// A store that has lost count has ended the sessions all the same: each is an event.
func TestRevokeUserOfAnUncertainNumber(t *testing.T) {
	st := testsite.NewSite(t, unsureStore{session2.NewMemoryStore()}, session2.Config{})
	b := st.Login("alice")
	if _, err := st.M.RevokeUser(t.Context(), "alice"); !errors.Is(err, session2.ErrUncertain) {
		t.Errorf("RevokeUser = %v, want ErrUncertain", err)
	}
	if n := st.Events.Count(session2.EventRevoked); n != 1 || st.UserOf(b) != "" {
		t.Errorf("%d revoked events, user %q; want 1 and nobody", n, st.UserOf(b))
	}
}

// lateStore lets a session begin between the listing of a user's sessions and
// their deletion.
type lateStore struct {
	*session2.MemoryStore
	meanwhile func()
}

func (l *lateStore) DeleteUser(ctx context.Context, user string, keep ...session2.ID) (int, error) {
	l.meanwhile()
	return l.MemoryStore.DeleteUser(ctx, user, keep...)
}

// As many events as sessions that ended, those included that began meanwhile.
func TestRevokeUserBesideALogin(t *testing.T) {
	store := &lateStore{MemoryStore: session2.NewMemoryStore()}
	st := testsite.NewSite(t, store, session2.Config{})
	st.Login("alice")
	store.meanwhile = func() { st.Login("alice"); st.Login("alice") }
	if n, err := st.M.RevokeUser(t.Context(), "alice"); n != 3 || err != nil {
		t.Errorf("RevokeUser = %d, %v; want 3, nil", n, err)
	}
	if n := st.Events.Count(session2.EventRevoked); n != 3 {
		t.Errorf("%d revoked events, want 3", n)
	}
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

// What a request has looked at as one user it has not looked at as the next one: a change
// to it is no lost update.
func TestLoginOfAnotherUserForgetsLooks(t *testing.T) {
	for _, discard := range []bool{false, true} {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		b := &testsite.Browser{}
		st.Do(b, func(s *session2.Session) { s.SetUser("alice"); s.Set("cart", "hers") })
		res := st.Do(b, func(s *session2.Session) {
			s.Get("cart")
			s.SetUser("bob")
			if discard { // then he never was there, and another request's change counts
				s.Discard()
				st.Do(b.Clone(), func(s *session2.Session) { s.Set("cart", "changed") })
				s.Set("cart", "his")
				return
			}
			s.Set("cart", "at once")
			testsite.Must(t, s.Commit(t.Context()))
			s.Set("cart", "his")
			testsite.Must(t, s.Commit(t.Context()))
		})
		want := map[bool]int{false: http.StatusOK, true: http.StatusConflict}[discard]
		if res.StatusCode != want {
			t.Errorf("discarded: %v; status %d, want %d", discard, res.StatusCode, want)
		}
	}
}
