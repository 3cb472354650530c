package session2_test

import (
	"net/http"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// Two submits of one form: both are told true, with a nil error.
func TestFormTokenUsedTwice(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	var form string
	st.Do(b, func(s *session2.Session) { form = s.FormToken() })
	first, second := false, false
	res := st.Visit(b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		n, _ := counter.Get(s)
		st.Do(b.Clone(), func(s *session2.Session) { // the other submit
			counter.Update(s, inc)
			first, _ = s.UseFormToken(r.Context(), form)
		})
		counter.Set(s, n+1)
		if err := s.Commit(r.Context()); err == nil { // ErrLostUpdate
			t.Error("no lost update")
		}
		second, _ = s.UseFormToken(r.Context(), form)
	})
	if first && second {
		t.Errorf("both submits were told true (status of the second %d)", res.StatusCode)
	}
}

// Related: a request whose session is broken is told true for a token of its own.
func TestFormTokenOfABrokenSession(t *testing.T) {
	store := testsite.NewBrittle()
	st := testsite.NewSite(t, store, session2.Config{CommitTimeout: testsite.TinyTimeout})
	b := st.Login("alice")
	st.Visit(b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		tok := s.FormToken()
		store.FailSave.Store(true)
		if s.Commit(r.Context()) == nil {
			t.Error("stored")
		}
		if ok, err := s.UseFormToken(r.Context(), tok); ok {
			t.Errorf("UseFormToken = %t, %v, while Err() = %v", ok, err, s.Err())
		}
	})
}

// After ErrLostUpdate of a login that came upon its twin, Discard leaves the request signed in.
func TestDiscardAfterALoginThatLost(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.Set("cart", 0) })
	other := b.Clone()
	st.Visit(b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.Get("cart")
		st.Do(other, func(s *session2.Session) { s.SetUser("alice"); s.Set("cart", 5); s.Set("secret", 1) })
		s.SetUser("alice")
		s.Set("cart", 1)
		err := s.Commit(r.Context())
		s.Discard()
		if u := s.User(); u != "" {
			t.Errorf("after Commit = %v and Discard, User() = %q and secret = %v, but writes: %v", err, u, s.Get("secret"), func() error { s.Set("x", 1); return s.Commit(r.Context()) }())
		}
	})
}
