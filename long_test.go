package session2_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// long has a session used by a request that goes on and on, or by Manager.Open.
func long(t *testing.T, by string, f func(s *session2.Session, commit func())) {
	t.Helper()
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	st.Begin(b)
	if by == "Open" {
		s, err := st.M.Open(t.Context(), b.Token())
		testsite.Must(t, err)
		f(s, func() { testsite.Must(t, s.Commit(t.Context())) })
		return
	}
	st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.User()
		http.NewResponseController(w).Flush()
		f(s, func() { testsite.Must(t, s.Commit(r.Context())) })
	})
}

// A stream that commits again and again keeps nothing of the commits before.
func TestALongRequestKeepsNothing(t *testing.T) {
	n := session2.NewKey[int]("n")
	for name, change := range map[string]func(s *session2.Session, i int){
		"Set":         func(s *session2.Session, i int) { s.Set("last", i) },
		"Get and Set": func(s *session2.Session, i int) { n.Get(s); n.Set(s, i) },
		"Update":      func(s *session2.Session, _ int) { n.Update(s, func(n int) int { return n + 1 }) },
		"Flash":       func(s *session2.Session, i int) { s.Flashes(); s.Flash(i) },
		"form tokens": func(s *session2.Session, _ int) { s.FormToken() },
		"new keys": func(s *session2.Session, i int) {
			if key := fmt.Sprint("message ", i); !s.Has(key) {
				s.Set(key, true)
				s.Delete(fmt.Sprint("message ", i-1))
			}
		},
	} {
		for _, by := range []string{"request", "Open"} {
			long(t, by, func(s *session2.Session, commit func()) {
				run := func(from, to int) {
					for i := from; i < to; i++ {
						change(s, i)
						commit()
					}
				}
				run(0, 1500)
				before := heap()
				run(1500, 3000)
				if more := heap() - before; more > 200_000 {
					t.Errorf("%s, by %s: 1500 commits keep %d bytes", name, by, more)
				}
			})
		}
	}
}

// Who has looked at very many keys one by one counts as having looked at all; a key that
// another request has changed since is guarded as ever.
func TestManyLooksAreGuarded(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	st.Begin(b)
	for _, other := range []bool{false, true} {
		res := st.Do(b, func(s *session2.Session) {
			s.Get("color")
			for i := range 5000 {
				s.Get(fmt.Sprint(i))
				if i%1000 == 0 {
					s.Set("own", i)
					testsite.Must(t, s.Commit(t.Context()))
				}
			}
			if other {
				st.Do(b.Clone(), func(s *session2.Session) { s.Set("color", "red"); s.Set("7", 7) })
			}
			s.Set("color", fmt.Sprint("new: ", other))
		})
		want := http.StatusOK
		if other {
			want = http.StatusConflict
		}
		if res.StatusCode != want {
			t.Errorf("another request has changed it: %v; status %d, want %d", other, res.StatusCode, want)
		}
	}
}

// When no request is left, the manager keeps nothing of them, not even room.
func TestAManagerAtRestKeepsNothing(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	st.Begin(b)
	st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.Token()
		r.Context().Done()
		if !session2.Busy(st.M) {
			t.Error("nothing is kept of a request under way")
		}
	})
	r := httptest.NewRequest("GET", "/", nil)
	b.Send(r)
	st.M.Exclusive(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(httptest.NewRecorder(), r)
	session2.Crowd(st.M, 10_000)
	if session2.Busy(st.M) {
		t.Error("something is kept of requests that are gone")
	}
}
