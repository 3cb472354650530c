package session2_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

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
					t.Errorf("user %q, counter %d, with %d acknowledged and %d failed", s.User(), n, acknowledged, failed)
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
			st := testsite.NewSite(t, store, session2.Config{RenewEvery: 30 * time.Second, RenewGrace: 5 * time.Second, CommitTimeout: time.Minute})
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
	var ended session2.ID
	res := st.Do(b, func(s *session2.Session) {
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
	if res.StatusCode == 200 && ended != (session2.ID{}) {
		w.mu.Lock()
		w.ended[ended] = true
		w.mu.Unlock()
	}
}
