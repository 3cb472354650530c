package session2_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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
	keys := func(s *session2.Session) { s.Keys() }
	update := func(s *session2.Session) { n.Update(s, inc) }
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
		{"keys, set", keys, set(5), set(2), true, 5},
		{"dump, set", func(s *session2.Session) { s.Dump(new(strings.Builder)) }, set(5), set(2), true, 5},
		{"typed get, set",
			func(s *session2.Session) { n.Get(s) }, set(5), func(s *session2.Session) { n.Set(s, 2) }, true, 5},
		{"typed has, set", func(s *session2.Session) { n.Has(s) }, set(5), set(2), true, 5},
		{"get, delete", get, set(5), del, true, 5},
		{"pop", func(s *session2.Session) { s.Pop("n") }, set(5), nothing, true, 5},
		{"typed pop", func(s *session2.Session) { n.Pop(s) }, set(5), nothing, true, 5},
		{"get, clear", get, set(5), (*session2.Session).Clear, true, 5},
		{"get, set beside a delete", get, del, set(2), true, nil},
		{"keys, clear, beside a new key", keys,
			func(s *session2.Session) { s.Set("other", 1) }, (*session2.Session).Clear, true, 1},
		{"get, set, get, set", all(get, set(3), get), set(5), set(4), true, 5},
		{"update, get, set", func(s *session2.Session) { n.Update(s, inc); s.Get("n") }, set(5), set(9), true, 5},
		{"get, set of what is there by now", get, set(5), set(5), true, 5},
		{"get, delete of what is gone by now", get, del, del, true, nil},
		{"keys, clear, beside a delete", keys, del, (*session2.Session).Clear, true, nil},
		{"get, set, renew", get, set(5), all(set(2), (*session2.Session).Renew), true, 5},
		{"get, commit, set",
			all(get, func(s *session2.Session) { s.Set("other", 1) }, commit), set(5), set(2), true, 5},
		{"get, set, commit, set", all(get, set(2), commit), set(5), set(3), true, 5},
		{"get, update, commit, set", all(get, update, commit), set(5), set(3), true, 5},

		{"set", nothing, set(5), set(2), false, 2},
		{"delete", nothing, set(5), del, false, nil},
		{"set, get", set(2), set(5), get, false, 2},
		{"set, get, set", all(set(2), get), set(5), set(3), false, 3},
		{"set, keys, set", all(set(2), keys), set(5), set(3), false, 3},
		{"clear, get, set", all((*session2.Session).Clear, get), set(5), set(3), false, 3},
		{"get of another key", func(s *session2.Session) { s.Get("m") }, set(5), set(2), false, 2},
		{"get, set of another key", get, set(5), func(s *session2.Session) { s.Set("m", 2) }, false, 5},
		{"get, set beside another key", get, func(s *session2.Session) { s.Set("m", 5) }, set(2), false, 2},
		{"get, update", get, set(5), update, false, 6},
		{"update", nothing, set(5), update, false, 6},
		{"update, get", nothing, set(5), func(s *session2.Session) { n.Update(s, inc); n.Get(s) }, false, 6},
		{"a change back is none", get, all(set(5), commit, set(1)), set(2), false, 2},
		{"a set of what is there is no change", get, set(1), set(2), false, 2},
		{"get, set, commit, set alone", all(get, set(2), commit), nothing, set(3), false, 3},
		{"get, update, commit, set alone", all(get, update, commit), nothing, set(3), false, 3},
		{"keys, set, commit, set alone", all(set(2), keys, commit), nothing, set(3), false, 3},
		{"get, discarded set", all(get, set(2), (*session2.Session).Discard), set(5),
			func(s *session2.Session) { s.Set("m", 1) }, false, 5},
	}
	for _, c := range tests {
		for _, allowed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, allowed %t", c.name, allowed), func(t *testing.T) {
				st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{AllowLostUpdates: allowed})
				b := st.Login("alice")
				st.Do(b, set(1))
				other := b.Clone()
				meanwhile := func() { st.Do(other, c.meanwhile); b.Cookie = other.Cookie }
				res, err := st.During(b, c.before, meanwhile, c.after)
				if allowed {
					if res.StatusCode != 200 || err != nil {
						t.Errorf("status %d, Err() = %v", res.StatusCode, err)
					}
					return
				}
				if refused := res.StatusCode == http.StatusConflict; refused != c.refused ||
					refused != errors.Is(err, session2.ErrLostUpdate) || len(res.Cookies()) > 0 && refused {
					t.Errorf("status %d, Err() = %v, cookies %v; want it refused: %t",
						res.StatusCode, err, res.Cookies(), c.refused)
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
				key := strings.Contains(told, `"n"`) || strings.Contains(told, `"other"`)
				if !key || !strings.Contains(told, "Update") {
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
	meanwhile := func() { st.Do(b, func(s *session2.Session) { s.SetUser("alice"); s.Set("n", 7) }) }
	res, err := st.During(other, naive, meanwhile, func(s *session2.Session) {
		s.SetUser("bob")
		s.Commit(context.Background())
		naive(s)
	})
	if res.StatusCode != 200 || err != nil {
		t.Fatalf("status %d, Err() = %v", res.StatusCode, err)
	}
	if got := st.Stored(other, "n"); got != 3 {
		t.Errorf("n = %v, want 3", got)
	}
}

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

// unreliable makes the store lose answers and fail, at random.
func (h *hookStore) unreliable(seed uint64) {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 1))
	h.set(func() {
		h.onSave = func(_ session2.Record, _ session2.Version, save func() error) error {
			mu.Lock()
			dice, pause := r.IntN(100), time.Duration(r.IntN(3000))*time.Microsecond
			mu.Unlock()
			time.Sleep(pause)
			switch {
			case dice < 10: // it never arrived
				return errors.New("connection reset")
			case dice < 25: // it landed, and the answer is lost
				save()
				time.Sleep(pause)
				return errors.New("connection reset")
			case dice < 30: // a store that looks for itself whether it landed, and cannot tell
				if err := save(); err == nil || errors.Is(err, session2.ErrConflict) {
					return fmt.Errorf("save: %w", session2.ErrUncertain)
				}
			}
			return save()
		}
	})
}

// Every increment that was answered with 200 is there once, and of those
// answered with an error each at most once, whatever the store loses.
func TestIncrementsOnAnUnreliableStore(t *testing.T) {
	r := testsite.Seeded(t)
	for range 5 {
		synctest.Test(t, func(t *testing.T) {
			store := newHookStore()
			st := testsite.NewSite(t, store, session2.Config{CommitTimeout: time.Minute, RenewEvery: time.Second})
			b := st.Login("alice")
			store.unreliable(r.Uint64())
			var mu sync.Mutex
			acknowledged, failed := 0, 0
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for range 30 {
						mine := b.Clone()
						res := st.Visit(mine, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
							counter.Update(s, func(n int) int { return n + 1 })
						})
						mu.Lock()
						if res.StatusCode == 200 {
							acknowledged++
						} else {
							failed++
						}
						mu.Unlock()
						if mine.Token() != b.Token() {
							b.Receive(res)
						}
					}
				})
			}
			wg.Wait()
			store.set(func() { store.onSave = nil })
			st.Do(b, func(s *session2.Session) {
				n, _ := counter.Get(s)
				if s.User() != "alice" || n < acknowledged || n > acknowledged+failed {
					t.Errorf("user %q, counter %d, with %d acknowledged and %d failed",
						s.User(), n, acknowledged, failed)
				}
			})
			if failed > acknowledged/4 {
				t.Errorf("%d of %d failed", failed, acknowledged+failed)
			}
		})
	}
}

// world is what a random history must never contradict.
type world struct {
	mu    sync.Mutex
	ended map[session2.ID]bool // by a Destroy or Revoke that was answered
}

// Browsers that copy one another's cookies log in and out as several users, at
// once. Nobody ever reads what another user left, and nothing that was ended
// comes back.
func TestRandomHistories(t *testing.T) {
	r := testsite.Seeded(t)
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			store := newHookStore()
			st := testsite.NewSite(t, store, session2.Config{
				RenewEvery: 30 * time.Second, RenewGrace: 5 * time.Second, CommitTimeout: time.Minute,
			})
			store.unreliable(r.Uint64())
			w := &world{ended: map[session2.ID]bool{}}
			browsers := []*testsite.Browser{{}, {}, {}}
			var wg sync.WaitGroup
			for i := range 6 {
				own := rand.New(rand.NewPCG(r.Uint64(), uint64(i)))
				wg.Go(func() {
					for range 40 {
						time.Sleep(time.Duration(own.IntN(4000)) * time.Millisecond)
						w.step(t, st, own, browsers[own.IntN(len(browsers))])
					}
				})
			}
			wg.Wait()
			for id := range w.ended {
				if found, _ := store.MemoryStore.Has(context.Background(), id); found {
					t.Errorf("session %v was ended, and is there", id)
				}
			}
			for rec := range store.Iter(context.Background()) {
				if rec.Expires.After(time.Now()) && !session2.HoldsInfo(rec) {
					t.Errorf("an empty session is stored: %v", rec.ID)
				}
			}
		})
	}
}

// step is one request of a random history.
func (w *world) step(t *testing.T, st *testsite.Site, r *rand.Rand, b *testsite.Browser) {
	user := []string{"alice", "bob", "carol"}[r.IntN(3)]
	pause := time.Duration(r.IntN(1500)) * time.Millisecond
	what := r.IntN(10)
	var own *session2.Session
	var ended session2.ID
	res := st.Do(b, func(s *session2.Session) {
		own = s
		if owner := s.Get("owner"); owner != nil && s.User() != "" && owner != s.User() {
			t.Errorf("%s reads what %v left", s.User(), owner)
		}
		time.Sleep(pause)
		switch {
		case what < 3:
			s.SetUser(user)
			s.Set("owner", user)
		case what == 3:
			if s.User() != "" && s.Err() == nil {
				ended = s.ID()
			}
			s.Destroy()
		case what == 4:
			s.Renew()
		case what == 5 && s.User() != "":
			s.Set("owner", s.User())
		case what == 6:
			counter.Update(s, func(n int) int { return n + 1 })
		case what == 7:
			s.Clear()
		}
	})
	if res.StatusCode == 200 && ended != (session2.ID{}) && !errors.Is(own.Err(), session2.ErrStale) {
		w.mu.Lock()
		w.ended[ended] = true
		w.mu.Unlock()
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
