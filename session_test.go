package session2_test

import (
	"sync"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

var counter = session2.NewKey[int]("counter")

func TestSessionPersists(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) {
		if !s.IsNew() {
			t.Error("a first request's session is not new")
		}
		s.SetUser("alice")
		s.Set("color", "green")
	})
	if b.Cookie == nil {
		t.Fatal("no cookie after a login")
	}
	st.Do(b, func(s *session2.Session) {
		if got := s.User(); got != "alice" {
			t.Errorf("User() = %q, want alice", got)
		}
		if got := s.Get("color"); got != "green" {
			t.Errorf("Get(color) = %v, want green", got)
		}
		s.Destroy()
	})
	if b.Cookie != nil {
		t.Error("the cookie is there after Destroy")
	}
}

func Test64Increments(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.SetUser("alice") })
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			res := st.Do(b.Clone(), func(s *session2.Session) {
				counter.Update(s, func(n int) int { return n + 1 })
			})
			if res.StatusCode != 200 {
				t.Errorf("status %d", res.StatusCode)
			}
		})
	}
	wg.Wait()
	st.Do(b, func(s *session2.Session) {
		if n, _ := counter.Get(s); n != 64 {
			t.Errorf("64 increments at once came to %d", n)
		}
	})
}
