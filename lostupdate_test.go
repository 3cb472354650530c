package session2_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// naive is the handler of everybody's first day.
func naive(s *session2.Session) {
	n, _ := s.Get("n").(int)
	s.Set("n", n+1)
}

// A request is refused if it has looked at a key, has then set or deleted it, and
// somebody else has changed it in between; and for no other reason.
func TestLostUpdates(t *testing.T) {
	n := session2.NewKey[int]("n")
	get := func(s *session2.Session) { s.Get("n") }
	set := func(v any) func(*session2.Session) { return func(s *session2.Session) { s.Set("n", v) } }
	del := func(s *session2.Session) { s.Delete("n") }
	nothing := func(*session2.Session) {}
	commit := func(s *session2.Session) { s.Commit(context.Background()) }
	all := func(list ...func(*session2.Session)) func(*session2.Session) {
		return func(s *session2.Session) {
			for _, f := range list {
				f(s)
			}
		}
	}
	tests := []struct {
		name             string
		before           func(*session2.Session)
		meanwhile, after func(*session2.Session)
		refused          bool
		left             any // of n, which was 1
	}{
		{"get, set", get, set(5), set(2), true, 5},
		{"has, set", func(s *session2.Session) { s.Has("n") }, set(5), set(2), true, 5},
		{"keys, set", func(s *session2.Session) { s.Keys() }, set(5), set(2), true, 5},
		{"dump, set", func(s *session2.Session) { s.Dump(new(strings.Builder)) }, set(5), set(2), true, 5},
		{"typed get, set", func(s *session2.Session) { n.Get(s) }, set(5), func(s *session2.Session) { n.Set(s, 2) }, true, 5},
		{"typed has, set", func(s *session2.Session) { n.Has(s) }, set(5), set(2), true, 5},
		{"get, delete", get, set(5), del, true, 5},
		{"pop", func(s *session2.Session) { s.Pop("n") }, set(5), nothing, true, 5},
		{"typed pop", func(s *session2.Session) { n.Pop(s) }, set(5), nothing, true, 5},
		{"get, clear", get, set(5), (*session2.Session).Clear, true, 5},
		{"get, set beside a delete", get, del, set(2), true, nil},
		{"keys, clear, beside a new key", func(s *session2.Session) { s.Keys() },
			func(s *session2.Session) { s.Set("other", 1) }, (*session2.Session).Clear, true, 1},
		{"get, set, get, set", all(get, set(3), get), set(5), set(4), true, 5},
		{"update, get, set", func(s *session2.Session) { n.Update(s, inc); s.Get("n") }, set(5), set(9), true, 5},
		{"get, set of what is there by now", get, set(5), set(5), true, 5},
		{"get, delete of what is gone by now", get, del, del, true, nil},
		{"keys, clear, beside a delete", func(s *session2.Session) { s.Keys() }, del, (*session2.Session).Clear, true, nil},
		{"get, set, renew", get, set(5), all(set(2), (*session2.Session).Renew), true, 5},
		{"get, commit, set", all(get, func(s *session2.Session) { s.Set("other", 1) }, commit), set(5), set(2), true, 5},
		{"get, set, commit, set", all(get, set(2), commit), set(5), set(3), true, 5},
		{"get, update, commit, set", all(get, func(s *session2.Session) { n.Update(s, inc) }, commit), set(5), set(3), true, 5},

		{"set", nothing, set(5), set(2), false, 2},
		{"delete", nothing, set(5), del, false, nil},
		{"set, get", set(2), set(5), get, false, 2},
		{"set, get, set", all(set(2), get), set(5), set(3), false, 3},
		{"set, keys, set", all(set(2), func(s *session2.Session) { s.Keys() }), set(5), set(3), false, 3},
		{"clear, get, set", all((*session2.Session).Clear, get), set(5), set(3), false, 3},
		{"get of another key", func(s *session2.Session) { s.Get("m") }, set(5), set(2), false, 2},
		{"get, set of another key", get, set(5), func(s *session2.Session) { s.Set("m", 2) }, false, 5},
		{"get, set beside another key", get, func(s *session2.Session) { s.Set("m", 5) }, set(2), false, 2},
		{"get, update", get, set(5), func(s *session2.Session) { n.Update(s, inc) }, false, 6},
		{"update", nothing, set(5), func(s *session2.Session) { n.Update(s, inc) }, false, 6},
		{"update, get", nothing, set(5), func(s *session2.Session) { n.Update(s, inc); n.Get(s) }, false, 6},
		{"a change back is none", get, all(set(5), commit, set(1)), set(2), false, 2},
		{"a set of what is there is no change", get, set(1), set(2), false, 2},
		{"get, set, commit, set alone", all(get, set(2), commit), nothing, set(3), false, 3},
		{"get, update, commit, set alone", all(get, func(s *session2.Session) { n.Update(s, inc) }, commit), nothing, set(3), false, 3},
		{"keys, set, commit, set alone", all(set(2), func(s *session2.Session) { s.Keys() }, commit), nothing, set(3), false, 3},
		{"get, discarded set", all(get, set(2), (*session2.Session).Discard), set(5), func(s *session2.Session) { s.Set("m", 1) }, false, 5},
	}
	for _, c := range tests {
		for _, allowed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, allowed %t", c.name, allowed), func(t *testing.T) {
				st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{AllowLostUpdates: allowed})
				b := st.Login("alice")
				st.Do(b, set(1))
				other := b.Clone()
				res, err := st.During(b, c.before, func() { st.Do(other, c.meanwhile); b.Cookie = other.Cookie }, c.after)
				if allowed {
					if res.StatusCode != 200 || err != nil {
						t.Errorf("status %d, Err() = %v", res.StatusCode, err)
					}
					return
				}
				if refused := res.StatusCode == http.StatusConflict; refused != c.refused ||
					refused != errors.Is(err, session2.ErrLostUpdate) || len(res.Cookies()) > 0 && refused {
					t.Errorf("status %d, Err() = %v, cookies %v; want it refused: %t", res.StatusCode, err, res.Cookies(), c.refused)
				}
				if got := st.Stored(b, "n"); got != c.left {
					t.Errorf("n = %v, want %v", got, c.left)
				}
				if !c.refused {
					return
				}
				var told string
				for _, e := range st.Events.List {
					if errors.Is(e.Err, session2.ErrLostUpdate) {
						told = e.Err.Error()
					}
				}
				if !strings.Contains(told, "Update") || !strings.Contains(told, `"n"`) && !strings.Contains(told, `"other"`) {
					t.Errorf("the event says %q, want the key and Update", told)
				}
			})
		}
	}
}

func inc(n int) int { return n + 1 }

// After a refusal nothing of the request is stored, and Discard lets the handler
// begin again with what is stored now.
func TestALostUpdateCanBeDoneAgain(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	other := b.Clone()
	res := st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		naive(s)
		s.Set("blind", true)
		st.Do(other, naive)
		for try := 0; ; try++ {
			err := s.Commit(r.Context())
			if err == nil {
				break
			}
			if !errors.Is(err, session2.ErrLostUpdate) || try > 0 {
				t.Fatalf("Commit = %v at try %d", err, try)
			}
			if got := st.Stored(other, "blind"); got != nil {
				t.Error("something of a refused commit is stored")
			}
			s.Discard()
			naive(s)
		}
	})
	if got := st.Stored(b, "n"); res.StatusCode != 200 || got != 2 {
		t.Errorf("status %d, n = %v; want 200 and 2", res.StatusCode, got)
	}
}

// Where a login starts a session of its own, nobody's update is lost.
func TestNoLostUpdateInASessionOfItsOwn(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, naive)
	other := b.Clone()
	res, err := st.During(other, naive, func() { st.Do(b, func(s *session2.Session) { s.SetUser("alice"); s.Set("n", 7) }) },
		func(s *session2.Session) { s.SetUser("bob"); s.Commit(context.Background()); naive(s) })
	if res.StatusCode != 200 || err != nil {
		t.Fatalf("status %d, Err() = %v", res.StatusCode, err)
	}
	if got := st.Stored(other, "n"); got != 3 {
		t.Errorf("n = %v, want 3", got)
	}
}
