package session2_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

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
