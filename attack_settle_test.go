package session2_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
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
