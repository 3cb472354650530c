package session2_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// exclusive serves one request of b by a handler in Exclusive.
func exclusive(st *testsite.Site, b *testsite.Browser, f sessionHandler) *http.Response {
	return exclusiveIn(context.Background(), st, b, f)
}

func exclusiveIn(ctx context.Context, st *testsite.Site, b *testsite.Browser, f sessionHandler) *http.Response {
	return serveIn(ctx, b, st.M.Exclusive(bare(st, f)))
}

func bare(st *testsite.Site, f sessionHandler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(st.M.Session(r), w, r) })
}

func serveIn(ctx context.Context, b *testsite.Browser, h http.Handler) *http.Response {
	r := httptest.NewRequestWithContext(ctx, "GET", "https://example.com/", nil)
	b.Send(r)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	b.Receive(w.Result())
	return w.Result()
}

// increment is a naive handler with a page.
func increment(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
	naive(s)
	fmt.Fprint(w, "done")
}

// sitesOver returns a site for each of the stores, as processes have them.
func sitesOver(t *testing.T, cfg session2.Config, stores ...session2.Store) (list []*testsite.Site) {
	for _, s := range stores {
		list = append(list, testsite.NewSite(t, s, cfg))
	}
	return list
}

// notCalled is a handler that must not be.
func notCalled(t *testing.T) sessionHandler {
	return func(*session2.Session, http.ResponseWriter, *http.Request) { t.Error("the handler is called") }
}

// free fails the test if somebody has, or waits for, a session.
func free(t *testing.T, store session2.IterStore, managers ...*session2.Manager) {
	t.Helper()
	for _, m := range managers {
		if n := session2.Lines(m); n != 0 {
			t.Errorf("%d lines are left in a manager", n)
		}
	}
	for _, rec := range testsite.RecordsOf(t, store) {
		if n := session2.Turns(rec); n != 0 {
			t.Errorf("%d turns are left in a record", n)
		}
	}
}

// eachHouseStore runs a test over every store that needs no server.
func eachHouseStore(t *testing.T, test func(t *testing.T, s session2.Store)) {
	for _, url := range []string{"memory:", "file:", "bolt:", "gob:"} {
		t.Run(strings.TrimSuffix(url, ":"), func(t *testing.T) {
			if url != "memory:" {
				url += filepath.Join(t.TempDir(), "s")
			}
			store, err := session2.Open(t.Context(), url)
			testsite.Must(t, err)
			t.Cleanup(func() { session2.Close(store) })
			testsite.Must(t, session2.Setup(t.Context(), store))
			test(t, store)
		})
	}
}

// Of 32 naive increments at once, through two managers as two processes have them,
// all count.
func TestExclusiveIncrements(t *testing.T) {
	test := func(t *testing.T, store session2.Store) {
		cfg := session2.Config{CommitTimeout: time.Minute}
		sites := sitesOver(t, cfg, store, store)
		b := sites[0].Login("alice")
		var wg sync.WaitGroup
		for i := range 32 {
			wg.Go(func() {
				if res := exclusive(sites[i%2], b.Clone(), increment); res.StatusCode != 200 {
					t.Errorf("status %d", res.StatusCode)
				}
			})
		}
		wg.Wait()
		if n := sites[0].Stored(b, "n"); n != 32 {
			t.Errorf("n = %v, want 32", n)
		}
		free(t, store.(session2.IterStore), sites[0].M, sites[1].M)
	}
	eachHouseStore(t, test)
	t.Run("a store that is not thread-safe", func(t *testing.T) {
		memory := session2.NewMemoryStore()
		test(t, struct {
			session2.Store
			session2.IterStore
		}{memory, memory})
	})
}

// An uncontended request costs a Load and two Saves, whatever it does; one without a
// session costs nothing.
func TestExclusiveStoreCalls(t *testing.T) {
	store := testsite.NewBrittle()
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	read := func(s *session2.Session, w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, s.Get("n")) }
	tests := []struct {
		name                 string
		b                    *testsite.Browser
		f                    sessionHandler
		loads, saves, delete int64
	}{
		{"nothing", b, func(*session2.Session, http.ResponseWriter, *http.Request) {}, 1, 2, 0},
		{"a read", b, read, 1, 2, 0},
		{"a change", b, increment, 1, 2, 0},
		{"a change and Commit", b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			naive(s)
			testsite.Must(t, s.Commit(r.Context()))
			fmt.Fprint(w, "done")
		}, 1, 3, 0},
		{"a renewal", b, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) { s.Renew() }, 1, 2, 0},
		{"a stream", b, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "begun")
			naive(s)
		}, 1, 3, 0},
		{"a poll", b, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) { s.Passive() }, 2, 2, 0},
		{"no session", &testsite.Browser{}, read, 0, 0, 0},
		{"a new session", &testsite.Browser{}, increment, 0, 1, 0},
		{"Destroy", b, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) { s.Destroy() }, 1, 1, 1},
	}
	for _, c := range tests {
		store.Loads.Store(0)
		store.Saves.Store(0)
		store.Deletes.Store(0)
		if res := exclusive(st, c.b, c.f); res.StatusCode != 200 {
			t.Errorf("%s: status %d", c.name, res.StatusCode)
		}
		got := [...]int64{store.Loads.Load(), store.Saves.Load(), store.Deletes.Load()}
		if want := [...]int64{c.loads, c.saves, c.delete}; got != want {
			t.Errorf("%s: %d loads, saves, deletes; want %d", c.name, got, want)
		}
		free(t, store, st.M)
	}
	if n := store.Touches.Load(); n != 0 {
		t.Errorf("%d touches", n)
	}
}

// However a handler ends, the next request need not wait, and finds what it has stored.
func TestExclusiveGivesTheTurnBack(t *testing.T) {
	tests := []struct {
		name   string
		f      sessionHandler
		status int
		n      any // what is left of n, which was 1
	}{
		{"a body", increment, 200, 2},
		{"a redirect", func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			naive(s)
			http.Redirect(w, r, "/", http.StatusSeeOther)
		}, 303, 2},
		{"no answer", func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { naive(s) }, 200, 2},
		{"Commit twice", func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			naive(s)
			testsite.Must(t, s.Commit(r.Context()))
			naive(s)
			testsite.Must(t, s.Commit(r.Context()))
			fmt.Fprint(w, "done")
		}, 200, 3},
		{"a form token used", func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			token := s.FormToken()
			testsite.Must(t, s.Commit(r.Context()))
			naive(s)
			if ok, err := s.UseFormToken(r.Context(), token); !ok || err != nil {
				t.Errorf("UseFormToken = %t, %v", ok, err)
			}
		}, 200, 2},
		{"500", func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			naive(s)
			w.WriteHeader(500)
		}, 500, 1},
		{"Discard", func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			naive(s)
			s.Discard()
			fmt.Fprint(w, "done")
		}, 200, 1},
		{"a panic", func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
			naive(s)
			panic("oops")
		}, 200, 1},
		{"a value that cannot be encoded", func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
			s.Set("n", func() {})
		}, 500, 1},
		{"too much", func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
			s.Set("n", make([]byte, 2<<20))
		}, 500, 1},
		{"a login", func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			naive(s)
			s.SetUser("alice")
			fmt.Fprint(w, "done")
		}, 200, 2},
		{"another user's login", func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			s.SetUser("bob")
			s.Set("n", 7)
			fmt.Fprint(w, "done")
		}, 200, 7},
		{"a logout", func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			s.Destroy()
			fmt.Fprint(w, "done")
		}, 200, nil},
		{"a logout by Commit", func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			s.Destroy()
			testsite.Must(t, s.Commit(r.Context()))
			fmt.Fprint(w, "done")
		}, 200, nil},
		{"a session that comes to hold nothing", func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			s.SetUser("")
			s.Clear()
			fmt.Fprint(w, "done")
		}, 200, nil},
		{"the session revoked", func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			testsite.Must(t, session2.FromContext(r.Context()).Err())
			s.Get("n")
		}, 200, 1},
		{"a context that has ended", func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			naive(s)
			<-r.Context().Done()
			fmt.Fprint(w, "done")
		}, 503, 1},
		{"Exclusive in Exclusive", nil, 200, 2},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := testsite.NewBrittle()
				st := testsite.NewSite(t, store, session2.Config{})
				b := st.Login("alice")
				st.Do(b, func(s *session2.Session) { s.Set("n", 1) })
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				h := st.M.Exclusive(bare(st, c.f))
				if c.f == nil {
					h = st.M.Exclusive(st.M.Exclusive(bare(st, increment)))
				}
				old, answered := b.Clone(), false
				func() {
					defer func() { recover() }()
					res := serveIn(ctx, b, h)
					answered = true
					if res.StatusCode != c.status {
						t.Errorf("status %d, want %d", res.StatusCode, c.status)
					}
				}()
				if !answered {
					b = old
				}
				free(t, store, st.M)
				start := time.Now()
				exclusive(st, b, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
					if n := s.Get("n"); n != c.n {
						t.Errorf("n = %v, want %v", n, c.n)
					}
				})
				if d := time.Since(start); d != 0 {
					t.Errorf("the next request has waited for %v", d)
				}
			})
		})
	}
}

// While a handler runs, no lock is held: others that are not in Exclusive go through
// at once, and are merged.
func TestExclusiveKeepsNobodyElseOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := testsite.NewBrittle()
		st := testsite.NewSite(t, store, session2.Config{})
		b := st.Login("alice")
		start := time.Now()
		res := exclusive(st, b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			naive(s)
			st.Do(b.Clone(), func(s *session2.Session) { s.Set("color", "green") })
			counter.Update(s, inc)
			st.Do(b.Clone(), func(s *session2.Session) { counter.Update(s, inc) })
			fmt.Fprint(w, "done")
		})
		if d := time.Since(start); res.StatusCode != 200 || d != 0 {
			t.Errorf("status %d after %v", res.StatusCode, d)
		}
		if n, c := st.Stored(b, "n"), st.Stored(b, "counter"); n != 1 || c != 2 {
			t.Errorf("n = %v, counter = %v; want 1 and 2", n, c)
		}
		if c := st.Stored(b, "color"); c != "green" {
			t.Errorf("color = %v", c)
		}
		free(t, store, st.M)
	})
}

// A handler may run for much longer than a lease: it is renewed, and nothing of that
// is left when the handler has returned.
func TestExclusiveForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := testsite.NewBrittle()
		sites := sitesOver(t, session2.Config{}, store, store)
		st, elsewhere := sites[0], sites[1]
		b := st.Login("alice")
		var wg sync.WaitGroup
		var running atomic.Bool
		for _, site := range []*testsite.Site{st, elsewhere, st, elsewhere} {
			wg.Go(func() {
				res := exclusive(site, b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					if !running.CompareAndSwap(false, true) {
						t.Error("two at once")
					}
					naive(s)
					time.Sleep(time.Minute)
					testsite.Must(t, s.Commit(r.Context()))
					time.Sleep(time.Minute)
					running.Store(false)
					fmt.Fprint(w, "done")
				})
				if res.StatusCode != 200 {
					t.Errorf("status %d", res.StatusCode)
				}
			})
		}
		wg.Wait()
		calls := store.Calls()
		time.Sleep(time.Minute)
		if n := st.Stored(b, "n"); n != 4 {
			t.Errorf("n = %v, want 4", n)
		}
		if n := store.Calls() - calls; n > 2 {
			t.Errorf("%d store calls when all was over", n)
		}
		free(t, store, st.M, elsewhere.M)
	})
}

// dying is a store that a process loses for a while.
type dying struct {
	*session2.MemoryStore
	dead atomic.Bool
}

func (d *dying) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	if d.dead.Load() {
		<-ctx.Done()
		return session2.Record{}, ctx.Err()
	}
	return d.MemoryStore.Load(ctx, id)
}

func (d *dying) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	if d.dead.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	return d.MemoryStore.Save(ctx, rec, prev)
}

// A holder that stands still delays others by its lease, and by no more than a look
// beyond. When it comes back, nothing of it is merged.
func TestExclusiveLostLease(t *testing.T) {
	for _, commit := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			memory := session2.NewMemoryStore()
			broken := &dying{MemoryStore: memory}
			sites := sitesOver(t, session2.Config{}, broken, memory)
			st, elsewhere := sites[0], sites[1]
			b := st.Login("alice")
			var served time.Duration
			res := exclusive(st, b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
				s.Set("blind", true)
				counter.Update(s, inc)
				broken.dead.Store(true)
				start := time.Now()
				exclusive(elsewhere, b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					served = time.Since(start)
					counter.Update(s, inc)
					fmt.Fprint(w, "done")
				})
				broken.dead.Store(false)
				if commit {
					err := s.Commit(r.Context())
					if !errors.Is(err, session2.ErrConflict) || errors.Is(err, session2.ErrUncertain) {
						t.Errorf("Commit = %v, want ErrConflict", err)
					}
				}
				fmt.Fprint(w, "done")
			})
			if served < 9*time.Second || served > 10*time.Second+100*time.Millisecond {
				t.Errorf("the next one was served after %v", served)
			}
			if body, _ := io.ReadAll(res.Body); res.StatusCode != 503 || strings.Contains(string(body), "done") {
				t.Errorf("status %d, %q", res.StatusCode, body)
			}
			if n, blind := st.Stored(b, "counter"), st.Stored(b, "blind"); n != 1 || blind != nil {
				t.Errorf("counter = %v, blind = %v; want 1 and nothing", n, blind)
			}
			if n := st.Events.Count(session2.EventDropped); n != 1 {
				t.Errorf("%d events of dropped changes, want 1: %v", n, st.Events.List)
			}
			free(t, memory, st.M, elsewhere.M)
		})
	}
}

// A holder that reads only is told as well: it may have done more than to read.
func TestExclusiveLostLeaseOfAReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := session2.NewMemoryStore()
		broken := &dying{MemoryStore: memory}
		sites := sitesOver(t, session2.Config{}, broken, memory)
		st, elsewhere := sites[0], sites[1]
		b := st.Login("alice")
		res := exclusive(st, b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			s.Get("n")
			broken.dead.Store(true)
			exclusive(elsewhere, b.Clone(), increment)
			broken.dead.Store(false)
			fmt.Fprint(w, "done")
		})
		if n := st.Events.Count(session2.EventDropped); res.StatusCode != 503 || n != 1 {
			t.Errorf("status %d, %d events; want 503 and 1", res.StatusCode, n)
		}
	})
}

// Waiters are served in the order of their coming, and two processes in turn.
func TestExclusiveIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session2.NewMemoryStore()
		sites := sitesOver(t, session2.Config{}, store, store)
		b := sites[0].Login("alice")
		var wg sync.WaitGroup
		var served []int // 2*i is the i-th of the one site, 2*i+1 of the other
		hold := make(chan struct{})
		wg.Go(func() {
			exclusive(sites[0], b.Clone(), func(*session2.Session, http.ResponseWriter, *http.Request) { <-hold })
		})
		synctest.Wait()
		for i := range 40 {
			wg.Go(func() {
				exclusive(sites[i%2], b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					served = append(served, i) // by one at a time
					increment(s, w, r)
				})
			})
			synctest.Wait()
		}
		close(hold)
		wg.Wait()
		var last, count [2]int
		for _, i := range served {
			site := i % 2
			if i < last[site] {
				t.Errorf("%d was served after %d", i, last[site])
			}
			last[site] = i
			count[site]++
			if d := count[0] - count[1]; d < -1 || d > 1 {
				t.Errorf("one site was served %d times more", d)
			}
		}
		if len(served) != 40 {
			t.Errorf("%d were served", len(served))
		}
		free(t, store, sites[0].M, sites[1].M)
	})
}

// Whoever does not wait any longer leaves no trace, and their handler is not called.
func TestExclusiveWaiterLeaves(t *testing.T) {
	for _, same := range []bool{true, false} {
		for _, cause := range []string{"deadline", "cancel"} {
			t.Run(fmt.Sprintf("%s, same manager %t", cause, same), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := testsite.NewBrittle()
					sites := sitesOver(t, session2.Config{}, store, store)
					st, waiting := sites[0], sites[1]
					if same {
						waiting = st
					}
					b := st.Login("alice")
					exclusive(st, b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
						ctx, cancel := context.WithCancel(t.Context())
						if cause == "deadline" {
							ctx, cancel = context.WithTimeout(t.Context(), 15*time.Second)
						}
						defer cancel()
						time.AfterFunc(20*time.Second, cancel)
						var last *http.Response
						done := make(chan struct{})
						go func() {
							defer close(done)
							last = exclusiveIn(ctx, waiting, b.Clone(), notCalled(t))
						}()
						<-done
						if last.StatusCode != 503 || len(last.Cookies()) != 0 {
							t.Errorf("status %d, cookies %v", last.StatusCode, last.Cookies())
						}
						if n := session2.Turns(testsite.RecordsOf(t, store)[0]); n != 1 {
							t.Errorf("%d turns, want the holder's", n)
						}
						increment(s, w, r)
					})
					if n := st.Stored(b, "n"); n != 1 {
						t.Errorf("n = %v", n)
					}
					free(t, store, st.M, waiting.M)
				})
			})
		}
	}
}

// meanwhile is what others do to a session while one request has it and one waits.
type meanwhile struct {
	name   string
	cfg    session2.Config
	others func(st *testsite.Site, b *testsite.Browser)
	want   then
}

// then is what comes of it.
type then struct {
	holder int // its status
	user   string
	n      any // as the waiter sees it
}

func TestExclusiveMeanwhile(t *testing.T) {
	tests := []meanwhile{
		{"nothing", session2.Config{}, func(*testsite.Site, *testsite.Browser) {}, then{200, "alice", 1}},
		{"a logout", session2.Config{}, func(st *testsite.Site, b *testsite.Browser) {
			st.Do(b, (*session2.Session).Destroy)
		}, then{200, "", nil}},
		{"Revoke", session2.Config{}, func(st *testsite.Site, b *testsite.Browser) {
			id, _ := session2.ParseID(b.Token()[:32])
			testsite.Must(t, st.M.Revoke(context.Background(), id))
		}, then{200, "", nil}},
		{"a login", session2.Config{}, func(st *testsite.Site, b *testsite.Browser) {
			st.Do(b, func(s *session2.Session) { s.SetUser("bob") })
		}, then{409, "", nil}},
		{"a login of the same user", session2.Config{}, func(st *testsite.Site, b *testsite.Browser) {
			st.Do(b, func(s *session2.Session) { s.SetUser("alice") })
		}, then{409, "", nil}},
		{"a rotation", session2.Config{RenewEvery: time.Second}, func(st *testsite.Site, b *testsite.Browser) {
			time.Sleep(2 * time.Second)
			if res := st.Do(b, func(s *session2.Session) { s.Get("n") }); len(res.Cookies()) != 1 {
				t.Error("no rotation")
			}
		}, then{200, "alice", 1}},
		{"the end of its time", session2.Config{IdleTimeout: time.Minute}, func(*testsite.Site, *testsite.Browser) {
			time.Sleep(2 * time.Minute)
		}, then{200, "", nil}},
	}
	for _, c := range tests {
		for _, same := range []bool{true, false} {
			for _, looked := range []bool{false, true} {
				name := fmt.Sprintf("%s, same manager %t, looked at before %t", c.name, same, looked)
				t.Run(name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { c.test(t, same, looked) })
				})
			}
		}
	}
}

// test has one request wait, and possibly look at its session before, while another one
// has the session and others do what they do.
func (c meanwhile) test(t *testing.T, same, looked bool) {
	memory := session2.NewMemoryStore()
	sites := sitesOver(t, c.cfg, memory, memory)
	st, waiting := sites[0], sites[1]
	if same {
		waiting = st
	}
	b := st.Login("alice")
	var wg sync.WaitGroup
	var got then
	called, status := false, 0
	inner := waiting.M.Exclusive(bare(waiting, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
		called, got.user, got.n = true, s.User(), s.Get("n")
		fmt.Fprint(w, "done")
	}))
	h := waiting.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		if looked {
			s.User()
		}
		inner.ServeHTTP(w, r)
	})
	got.holder = exclusive(st, b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		wg.Go(func() { status = serveIn(t.Context(), b.Clone(), h).StatusCode })
		synctest.Wait()
		c.others(st, b.Clone())
		increment(s, w, r)
	}).StatusCode
	wg.Wait()
	if looked && c.want.user == "" {
		if called || status != 409 {
			t.Errorf("the waiter's handler is called: %t, status %d; want no call and 409", called, status)
		}
	} else if status != 200 || got != c.want {
		t.Errorf("the waiter's status %d; got %+v, want %+v", status, got, c.want)
	}
	if c.cfg.IdleTimeout == 0 { // else nobody opens the record any more
		free(t, memory, st.M, waiting.M)
	}
}

// Inside Wrap, what the request has done before Exclusive is applied to the session as
// it is when its turn comes; what it has read is old.
func TestExclusiveInsideWrap(t *testing.T) {
	tests := []struct {
		name   string
		before func(s *session2.Session)
		status int
		n      any // of the counter, which the holder increments
	}{
		{"nothing", func(*session2.Session) {}, 200, 2},
		{"a read of another key", func(s *session2.Session) { s.Get("other") }, 200, 2},
		{"a change of another key", func(s *session2.Session) { s.Set("other", 1) }, 200, 2},
		{"a change and Commit", func(s *session2.Session) {
			s.Set("other", 1)
			s.Commit(context.Background())
		}, 200, 2},
		{"an Update of the key", func(s *session2.Session) { counter.Update(s, inc) }, 200, 3},
		{"a read of the key, and a new one", func(s *session2.Session) { counter.Get(s) }, 200, 2},
		{"a change by what was read", func(s *session2.Session) {
			n, _ := counter.Get(s)
			counter.Set(s, n+1)
		}, 409, 1},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := session2.NewMemoryStore()
				st := testsite.NewSite(t, store, session2.Config{})
				b := st.Login("alice")
				naive := func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
					n, _ := counter.Get(s)
					counter.Set(s, n+1)
					fmt.Fprint(w, "done")
				}
				inner := st.M.Exclusive(bare(st, naive))
				h := st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					c.before(s)
					inner.ServeHTTP(w, r)
				})
				var wg sync.WaitGroup
				status := 0
				exclusive(st, b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					wg.Go(func() { status = serveIn(t.Context(), b.Clone(), h).StatusCode })
					synctest.Wait()
					naive(s, w, r)
				})
				wg.Wait()
				if n := st.Stored(b, "counter"); status != c.status || n != c.n {
					t.Errorf("status %d, counter = %v; want %d and %v", status, n, c.status, c.n)
				}
				free(t, store, st.M)
			})
		})
	}
}

// The lease goes with the first byte, also of a stream that goes on, or of a hijacked
// connection.
func TestExclusiveEndsWithTheFirstByte(t *testing.T) {
	store := testsite.NewBrittle()
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	streaming, goOn := make(chan struct{}), make(chan struct{})
	mux := http.NewServeMux()
	mux.Handle("/stream", bare(st, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
		naive(s)
		fmt.Fprint(w, "begun")
		w.(http.Flusher).Flush()
		close(streaming)
		<-goOn
		s.Set("late", true)
	}))
	mux.Handle("/hijack", bare(st, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
		naive(s)
		conn, _, err := w.(http.Hijacker).Hijack()
		testsite.Must(t, err)
		defer conn.Close()
		st.Do(b.Clone(), func(*session2.Session) {})
		free(t, store)
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	}))
	mux.Handle("/", bare(st, increment))
	srv := testsite.Serve(t, st.M.Exclusive(mux), false)
	done := make(chan struct{})
	go func() {
		defer close(done)
		testsite.Get(t, srv, b.Clone(), "/stream")
	}()
	<-streaming
	if res, _ := testsite.Get(t, srv, b.Clone(), "/"); res.StatusCode != 200 {
		t.Errorf("status %d", res.StatusCode)
	}
	close(goOn)
	<-done
	if res, _ := testsite.Get(t, srv, b.Clone(), "/hijack"); res.StatusCode != 200 {
		t.Errorf("status %d", res.StatusCode)
	}
	if n, late := st.Stored(b, "n"), st.Stored(b, "late"); n != 3 || late != true {
		t.Errorf("n = %v, late = %v", n, late)
	}
	free(t, store, st.M)
}

// Where the response had begun before, a request that does not get its turn is cut off.
func TestExclusiveAfterTheFirstByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := testsite.NewBrittle()
		st := testsite.NewSite(t, store, session2.Config{CommitTimeout: time.Second})
		b := st.Login("alice")
		inner := st.M.Exclusive(bare(st, increment))
		h := st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			s.Get("n")
			fmt.Fprint(w, "begun")
			inner.ServeHTTP(w, r)
		})
		if res := serveIn(t.Context(), b, h); res.StatusCode != 200 || st.Stored(b, "n") != 1 {
			t.Errorf("status %d, n = %v", res.StatusCode, st.Stored(b, "n"))
		}
		free(t, store, st.M)
		aborted := func() (aborted bool) {
			defer func() { aborted = recover() == http.ErrAbortHandler }()
			h := st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
				s.Get("n")
				fmt.Fprint(w, "begun")
				store.FailSave.Store(true)
				inner.ServeHTTP(w, r)
			})
			serveIn(t.Context(), b, h)
			return false
		}()
		if !aborted {
			t.Error("the response is not cut off")
		}
	})
}

// A store that fails is a 503 in bounded time, and the handler is not called.
func TestExclusiveWithAFailingStore(t *testing.T) {
	for _, fails := range []string{"load", "save", "while it waits"} {
		t.Run(fails, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := testsite.NewBrittle()
				sites := sitesOver(t, session2.Config{}, store.MemoryStore, store)
				st, waiting := sites[0], sites[1]
				b := st.Login("alice")
				none := notCalled(t)
				switch fails {
				case "load":
					store.FailLoad.Store(true)
				case "save":
					store.FailSave.Store(true)
				}
				var res *http.Response
				start := time.Now()
				if fails != "while it waits" {
					res = exclusive(waiting, b.Clone(), none)
				} else {
					exclusive(st, b.Clone(), func(*session2.Session, http.ResponseWriter, *http.Request) {
						var wg sync.WaitGroup
						wg.Go(func() { res = exclusive(waiting, b.Clone(), none) })
						time.Sleep(time.Second)
						store.FailLoad.Store(true)
						wg.Wait()
					})
				}
				if d := time.Since(start); res.StatusCode != 503 || d > 7*time.Second {
					t.Errorf("status %d after %v", res.StatusCode, d)
				}
				if n := waiting.Events.Count(session2.EventStoreError); n != 1 {
					t.Errorf("%d events, want 1", n)
				}
				store.FailLoad.Store(false)
				store.FailSave.Store(false)
				start = time.Now()
				exclusive(waiting, b, increment)
				if d := time.Since(start); d > 10*time.Second+100*time.Millisecond {
					t.Errorf("the next one has waited for %v", d)
				}
				free(t, store, st.M, waiting.M)
			})
		})
	}
}

// lossy is a store whose Saves fail at random, before or after they have taken effect.
type lossy struct {
	*session2.MemoryStore
	mu   sync.Mutex
	draw func(n int) int
}

func (l *lossy) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	l.mu.Lock()
	luck := l.draw(6)
	l.mu.Unlock()
	switch luck {
	case 0:
		return testsite.ErrDown
	case 1:
		l.MemoryStore.Save(ctx, rec, prev)
		return testsite.ErrDown
	case 2:
		time.Sleep(time.Millisecond)
	}
	return l.MemoryStore.Save(ctx, rec, prev)
}

// Answers may be lost at every Save: each increment counts once, beside other requests
// of the session and beside logouts of none.
func TestExclusiveOnAnUnreliableStore(t *testing.T) {
	rnd := testsite.Seeded(t)
	for range 6 {
		synctest.Test(t, func(t *testing.T) {
			store := &lossy{MemoryStore: session2.NewMemoryStore(), draw: rnd.IntN}
			cfg := session2.Config{CommitTimeout: time.Minute}
			sites := sitesOver(t, cfg, store, store, store)
			b := sites[0].Login("alice")
			var wg sync.WaitGroup
			var running, ok atomic.Int64
			for i := range 12 {
				wg.Go(func() {
					res := exclusive(sites[i%3], b.Clone(), func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
						if running.Add(1) > 1 {
							t.Error("two at once")
						}
						naive(s)
						time.Sleep(time.Duration(i) * time.Second)
						running.Add(-1)
						fmt.Fprint(w, "done")
					})
					if res.StatusCode == 200 {
						ok.Add(1)
					} else {
						t.Errorf("status %d", res.StatusCode)
					}
				})
				if i%3 == 0 { // fewer than the versions that a record remembers
					wg.Go(func() {
						sites[i%3].Do(b.Clone(), func(s *session2.Session) { s.Set(fmt.Sprint("other", i), i) })
					})
				}
			}
			wg.Wait()
			var n any
			for _, rec := range testsite.RecordsOf(t, store) {
				if session2.Turns(rec) != 0 {
					t.Errorf("%d turns are left", session2.Turns(rec))
				}
			}
			if n = sites[0].Stored(b, "n"); n != 12 || ok.Load() != 12 {
				t.Errorf("n = %v, and %d acknowledged; want 12", n, ok.Load())
			}
		})
	}
}

// A session of which the holder takes the last thing goes on if another process waits
// for it, and ends with the last of them.
func TestExclusiveEmptying(t *testing.T) {
	for _, refill := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			store := session2.NewMemoryStore()
			sites := sitesOver(t, session2.Config{}, store, store)
			st, elsewhere := sites[0], sites[1]
			b := &testsite.Browser{}
			st.Do(b, func(s *session2.Session) { s.Set("cart", "apple") })
			id := testsite.RecordsOf(t, store)[0].ID
			other := b.Clone()
			var wg sync.WaitGroup
			exclusive(st, b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
				wg.Go(func() {
					exclusive(elsewhere, other, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
						if s.IsNew() || s.Has("cart") {
							t.Error("the waiter's session is new, or has what was taken")
						}
						if refill {
							s.Set("cart", "pear")
						}
						fmt.Fprint(w, "done")
					})
				})
				time.Sleep(time.Second)
				s.Pop("cart")
				fmt.Fprint(w, "done")
			})
			wg.Wait()
			left := testsite.RecordsOf(t, store)
			if refill && (len(left) != 1 || left[0].ID != id || b.Cookie == nil || st.Stored(b, "cart") != "pear") {
				t.Errorf("%d sessions are left, cookie %v", len(left), b.Cookie)
			}
			if !refill && (len(left) != 0 || other.Cookie != nil) {
				t.Errorf("%d sessions are left, cookie %v", len(left), other.Cookie)
			}
		})
	}
}

// Waiting and having the session is no use of it: a passive request leaves its time alone.
func TestExclusiveIsPassiveIfTheRequestIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session2.NewMemoryStore()
		st := testsite.NewSite(t, store, session2.Config{})
		b := st.Login("alice")
		before := testsite.RecordsOf(t, store)[0]
		time.Sleep(5 * time.Minute)
		exclusive(st, b, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			s.Passive()
			fmt.Fprint(w, s.Get("n"))
		})
		rec := testsite.RecordsOf(t, store)[0]
		if !rec.Accessed.Equal(before.Accessed) || !rec.Expires.Equal(before.Expires) {
			t.Errorf("accessed %v, and before %v", rec.Accessed, before.Accessed)
		}
		exclusive(st, b, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) { s.Get("n") })
		if rec := testsite.RecordsOf(t, store)[0]; !rec.Accessed.After(before.Accessed) {
			t.Errorf("accessed %v, and before %v", rec.Accessed, before.Accessed)
		}
	})
}

// The rule of the turns.
func TestTurns(t *testing.T) {
	now := time.Now()
	good, old, wrong, soon := now.Add(9*time.Second), now, now.Add(time.Hour), now.Add(time.Second)
	many := make([]uint64, 16)
	times := make([]time.Time, 16)
	for i := range many {
		many[i], times[i] = uint64(i+10), good
	}
	tests := []struct {
		name    string
		numbers []uint64
		until   []time.Time
		want    []uint64
		save    bool
	}{
		{"nobody", nil, nil, []uint64{1}, true},
		{"behind another", []uint64{2}, []time.Time{good}, []uint64{2, 1}, true},
		{"there already", []uint64{2, 1}, []time.Time{good, good}, []uint64{2, 1}, false},
		{"first already", []uint64{1, 2}, []time.Time{good, good}, []uint64{1, 2}, false},
		{"to be renewed", []uint64{2, 1}, []time.Time{good, soon}, []uint64{2, 1}, true},
		{"its own is over, and its place is left",
			[]uint64{2, 1, 3}, []time.Time{good, old, good}, []uint64{2, 1, 3}, true},
		{"the first is over", []uint64{2, 1}, []time.Time{old, good}, []uint64{1}, true},
		{"the second of three is over", []uint64{2, 3, 1}, []time.Time{good, old, good}, []uint64{2, 1}, false},
		{"by a wrong clock", []uint64{2, 1}, []time.Time{wrong, good}, []uint64{1}, true},
		{"no room", many, times, many, false},
	}
	for _, c := range tests {
		next, save := session2.TurnsOf(now, 1, c.numbers, c.until)
		if !slices.Equal(next, c.want) || save != c.save {
			t.Errorf("%s: %v, %t; want %v, %t", c.name, next, save, c.want, c.save)
		}
	}
}

// A request whose time runs out in http.TimeoutHandler inside of Wrap may get its turn
// when it is over: nobody is kept out by it.
func TestExclusiveInTimeoutHandler(t *testing.T) {
	for _, runs := range []bool{true, false} { // out in the handler, or while it waits
		synctest.Test(t, func(t *testing.T) {
			store := testsite.NewBrittle()
			st := testsite.NewSite(t, store, session2.Config{})
			b := st.Login("alice")
			hold := make(chan struct{})
			inner := st.M.Exclusive(bare(st, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
				naive(s)
				<-hold
				fmt.Fprint(w, "done")
			}))
			h := st.M.Wrap(http.TimeoutHandler(inner, time.Second, "too late"))
			status := 0
			if runs {
				status = serveIn(t.Context(), b.Clone(), h).StatusCode
			} else {
				exclusive(st, b.Clone(), func(*session2.Session, http.ResponseWriter, *http.Request) {
					status = serveIn(t.Context(), b.Clone(), h).StatusCode
				})
			}
			if status != 503 {
				t.Errorf("status %d", status)
			}
			start := time.Now()
			if res := exclusive(st, b.Clone(), increment); res.StatusCode != 200 || time.Since(start) != 0 {
				t.Errorf("the next request: status %d after %v", res.StatusCode, time.Since(start))
			}
			close(hold)
			synctest.Wait()
			if n := st.Stored(b, "n"); n != 1 {
				t.Errorf("n = %v, want 1", n)
			}
			free(t, store, st.M)
		})
	}
}

// A handler that is given its turn when the request is over does not run.
func TestExclusiveWhenTheRequestIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := testsite.NewBrittle()
		st := testsite.NewSite(t, store, session2.Config{})
		b := st.Login("alice")
		inner := st.M.Exclusive(bare(st, notCalled(t)))
		exclusive(st, b.Clone(), func(*session2.Session, http.ResponseWriter, *http.Request) {
			serveIn(t.Context(), b.Clone(), st.M.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				go func() {
					defer func() { recover() }()
					inner.ServeHTTP(w, r)
				}()
				synctest.Wait()
			})))
		})
		synctest.Wait()
		free(t, store, st.M)
	})
}

// panicking is a store that panics when told to.
type panicking struct {
	*session2.MemoryStore
	now atomic.Bool
}

func (p *panicking) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	if p.now.Load() {
		panic("the store")
	}
	return p.MemoryStore.Load(ctx, id)
}

// A store that panics blocks nobody, and ends no process by a renewal.
func TestExclusiveWithAStoreThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &panicking{MemoryStore: session2.NewMemoryStore()}
		sites := sitesOver(t, session2.Config{}, store, store.MemoryStore)
		st, elsewhere := sites[0], sites[1]
		b := st.Login("alice")
		exclusive(elsewhere, b.Clone(), func(*session2.Session, http.ResponseWriter, *http.Request) {
			go func() {
				defer func() { recover() }()
				exclusive(st, b.Clone(), increment)
			}()
			time.Sleep(time.Second)
			store.now.Store(true)
			time.Sleep(time.Second)
			store.now.Store(false)
		})
		if n := session2.Lines(st.M); n != 0 {
			t.Errorf("%d lines are left", n)
		}
		time.Sleep(time.Minute)
		res := exclusive(st, b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			store.now.Store(true)
			time.Sleep(5 * time.Second)
			store.now.Store(false)
			increment(s, w, r)
		})
		if n := st.Stored(b, "n"); res.StatusCode != 200 || n != 1 {
			t.Errorf("status %d, n = %v", res.StatusCode, n)
		}
	})
}

// A record with turns is read, and one with what are none is refused.
func TestTurnsInARecord(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{})
	st.Login("alice")
	rec := testsite.RecordsOf(t, store)[0]
	for n, good := range map[int]bool{0: true, 1: false, 15: false, 16: true, 24: false, 112: true} {
		data := slices.Concat(rec.Data, []byte{15, byte(n)}, make([]byte, n))
		if _, err := session2.DecodeState(data); (err == nil) != good {
			t.Errorf("%d bytes: %v", n, err)
		}
		if _, err := session2.DecodeState(slices.Concat(data, []byte{15, 0})); err == nil {
			t.Errorf("%d bytes: a second section is taken", n)
		}
	}
	many := slices.Concat(rec.Data, []byte{15, 0x90, 0x02}, make([]byte, 17*16))
	if _, err := session2.DecodeState(many); err == nil {
		t.Error("17 turns are taken")
	}
}
