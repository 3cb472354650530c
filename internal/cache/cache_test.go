package cache

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const (
	maxAge = time.Second
	plenty = 1 << 20
)

func newCache(maxBytes int) *Cache[[]byte] {
	return New(maxAge, maxBytes, func(v []byte) int { return cap(v) })
}

// source is where values are loaded from.
type source struct {
	loads atomic.Int64
	value atomic.Value  // a string, which the load finds as it begins
	begun chan struct{} // a load has begun; nil: nobody asks
	end   chan error    // what it returns, if not nil; nil: it returns at once
}

func newSource(value string) *source {
	s := &source{}
	s.value.Store(value)
	return s
}

// held returns a source whose loads begin and end by its channels.
func held(value string) *source {
	s := newSource(value)
	s.begun, s.end = make(chan struct{}), make(chan error)
	return s
}

func (s *source) load(ctx context.Context) ([]byte, error) {
	s.loads.Add(1)
	value := s.value.Load().(string)
	if s.begun != nil {
		s.begun <- struct{}{}
		select {
		case err := <-s.end:
			if err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return []byte(value), nil
}

func (s *source) counts(t *testing.T, want int64) {
	t.Helper()
	if n := s.loads.Load(); n != want {
		t.Errorf("%d loads, want %d", n, want)
	}
}

func gets(t *testing.T, c *Cache[[]byte], s *source, want string, wantOld bool) {
	t.Helper()
	v, old, err := c.Get(t.Context(), ID{}, s.load)
	if string(v) != want || old != wantOld || err != nil {
		t.Errorf("got %q, old %v, %v; want %q, %v", v, old, err, want, wantOld)
	}
}

// got is what a Get in a goroutine of its own returned.
type got struct {
	v   string
	old bool
	err error
}

// get begins a Get, and returns where its result will be.
func get(ctx context.Context, c *Cache[[]byte], load func(context.Context) ([]byte, error)) <-chan got {
	result := make(chan got, 1)
	go func() {
		defer func() {
			if recover() != nil {
				result <- got{err: errPanicked}
			}
		}()
		v, old, err := c.Get(ctx, ID{}, load)
		result <- got{string(v), old, err}
	}()
	return result
}

var (
	errPanicked = errors.New("panicked")
	errStore    = errors.New("of the store")
)

func TestAgeCountsFromWhenTheLoadBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCache(plenty), newSource("a")
		v, old, err := c.Get(t.Context(), ID{}, func(ctx context.Context) ([]byte, error) {
			defer time.Sleep(maxAge * 6 / 10) // the answer takes its time
			return s.load(ctx)
		})
		if string(v) != "a" || old || err != nil {
			t.Fatalf("got %q, old %v, %v", v, old, err)
		}
		s.value.Store("b")
		time.Sleep(maxAge*4/10 - 1)
		gets(t, c, s, "a", true)
		time.Sleep(time.Nanosecond)
		gets(t, c, s, "b", false)
		gets(t, c, s, "b", true)
		s.counts(t, 2)
	})
}

func TestExpiredValueIsLoadedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCache(plenty), newSource("a")
		gets(t, c, s, "a", false)
		time.Sleep(maxAge)
		s = held("b")
		var results []<-chan got
		for range 100 {
			results = append(results, get(t.Context(), c, s.load))
		}
		<-s.begun
		synctest.Wait()
		s.counts(t, 1)
		s.end <- nil
		loaders := 0
		for _, r := range results {
			g := <-r
			if g.v != "b" || g.err != nil {
				t.Errorf("got %+v", g)
			}
			if !g.old {
				loaders++
			}
		}
		if loaders != 1 {
			t.Errorf("%d say that they have loaded it, want 1", loaders)
		}
		s.counts(t, 1)
	})
}

// A load that takes longer than maxAge is shared by those who come while what it returns
// is new enough for them.
func TestSlowLoadIsSharedWhileItIsYoung(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCache(plenty), held("a")
		first := get(t.Context(), c, s.load)
		<-s.begun
		time.Sleep(maxAge - 1)
		second := get(t.Context(), c, s.load)
		synctest.Wait()
		time.Sleep(time.Nanosecond)
		s.value.Store("b")
		third := get(t.Context(), c, s.load)
		<-s.begun // its own
		fourth := get(t.Context(), c, s.load)
		synctest.Wait()
		close(s.end)
		for i, want := range []got{{"a", false, nil}, {"a", true, nil}, {"b", false, nil}, {"b", true, nil}} {
			if g := <-[]<-chan got{first, second, third, fourth}[i]; g != want {
				t.Errorf("call %d: got %+v, want %+v", i, g, want)
			}
		}
		s.counts(t, 2)
		s.begun = nil
		gets(t, c, s, "b", true)
	})
}

// A load that began before a change is not kept, whenever it ends; nor is one that runs
// beside a change.
func TestChangePassesALoad(t *testing.T) {
	one := func(c *Cache[[]byte]) (func(), func()) {
		return func() { c.Begin(ID{}) }, func() { c.End(ID{}) }
	}
	all := func(c *Cache[[]byte]) (func(), func()) { return c.BeginAll, c.EndAll }
	for name, change := range map[string]func(*Cache[[]byte]) (begin, end func()){"one": one, "all": all} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, slow := newCache(plenty), held("before")
				begin, end := change(c)
				first := get(t.Context(), c, slow.load)
				<-slow.begun
				second := get(t.Context(), c, slow.load) // shares it
				synctest.Wait()
				begin()
				begin() // another one
				s := newSource("between")
				gets(t, c, s, "between", false)
				gets(t, c, s, "between", false)
				end()
				gets(t, c, s, "between", false)
				end()
				s.counts(t, 3)
				s.value.Store("after")
				gets(t, c, s, "after", false)
				close(slow.end)
				if g, h := <-first, <-second; g.v != "before" || h.v != "before" || !h.old {
					t.Errorf("the slow load: %+v, %+v", g, h)
				}
				gets(t, c, s, "after", true)
				begin()
				end()
				gets(t, c, s, "after", false) // a change drops what is there
			})
		})
	}
}

// A slow load that ends when a change is over is not kept though nothing else is there.
func TestSlowLoadEndsAfterAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, slow := newCache(plenty), held("before")
		first := get(t.Context(), c, slow.load)
		<-slow.begun
		c.Begin(ID{})
		c.End(ID{})
		close(slow.end)
		<-first
		gets(t, c, newSource("after"), "after", false)
	})
}

// A fresh load takes the place of what is there, and of a load that began before it.
func TestFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCache(plenty), newSource("a")
		fresh := func(want string) {
			t.Helper()
			if v, err := c.Fresh(t.Context(), ID{}, s.load); string(v) != want || err != nil {
				t.Errorf("got %q, %v, want %q", v, err, want)
			}
		}
		gets(t, c, s, "a", false)
		s.value.Store("b")
		fresh("b")
		gets(t, c, s, "b", true)
		c.Begin(ID{})
		fresh("b")
		c.End(ID{})

		slow := held("b")
		first := get(t.Context(), c, slow.load)
		<-slow.begun
		s.value.Store("c")
		fresh("c")
		slow.end <- nil
		if g := <-first; g.v != "b" {
			t.Errorf("got %+v", g)
		}
		gets(t, c, s, "c", true)
	})
}

// Changes of other values leave a value alone.
func TestOtherValuesStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCache(plenty), newSource("a")
		gets(t, c, s, "a", false)
		other := ID{0: 1, 15: 1} // in the same shard
		c.Begin(other)
		gets(t, c, s, "a", true)
		c.End(other)
		gets(t, c, s, "a", true)
	})
}

// Whoever loads may leave: one of those who wait goes on.
func TestLoaderLeaves(t *testing.T) {
	for name, leave := range map[string]func(s *source, cancel func()){
		"its context ends": func(_ *source, cancel func()) { cancel() },
		"its store panics": func(s *source, _ func()) { s.end <- errPanicked },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := newCache(plenty), held("a")
				load := func(ctx context.Context) ([]byte, error) {
					v, err := s.load(ctx)
					if err == errPanicked {
						panic(err)
					}
					return v, err
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				first := get(ctx, c, load)
				<-s.begun
				var others []<-chan got
				for range 10 {
					others = append(others, get(t.Context(), c, load))
				}
				synctest.Wait()
				leave(s, cancel)
				if g := <-first; g.err == nil {
					t.Errorf("who left got %+v", g)
				}
				<-s.begun
				synctest.Wait()
				s.counts(t, 2)
				s.end <- nil
				for _, r := range others {
					if g := <-r; g.v != "a" || g.err != nil {
						t.Errorf("got %+v", g)
					}
				}
				s.counts(t, 2)
			})
		})
	}
}

// Whoever waits may leave, and the load goes on.
func TestWaiterLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCache(plenty), held("a")
		first := get(t.Context(), c, s.load)
		<-s.begun
		ctx, cancel := context.WithCancel(t.Context())
		second := get(ctx, c, s.load)
		synctest.Wait()
		cancel()
		if g := <-second; !errors.Is(g.err, context.Canceled) {
			t.Errorf("got %+v, want the end of its context", g)
		}
		s.end <- nil
		if g := <-first; g.v != "a" || g.err != nil {
			t.Errorf("got %+v", g)
		}
		s.counts(t, 1)
	})
}

// A failure is nobody else's, and is not kept.
func TestFailureIsNotShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCache(plenty), held("a")
		first := get(t.Context(), c, s.load)
		<-s.begun
		second := get(t.Context(), c, s.load)
		synctest.Wait()
		s.end <- errStore
		if g := <-first; !errors.Is(g.err, errStore) {
			t.Errorf("got %+v", g)
		}
		<-s.begun
		s.end <- nil
		if g := <-second; g.v != "a" || g.old || g.err != nil {
			t.Errorf("got %+v", g)
		}
		s.begun = nil
		gets(t, c, s, "a", false)
	})
}

func TestNothingIsKeptIfToldSo(t *testing.T) {
	size := func([]byte) int { return 0 }
	for _, c := range []*Cache[[]byte]{New(-1, plenty, size), New(maxAge, -1, size)} {
		s := newSource("a")
		gets(t, c, s, "a", false)
		gets(t, c, s, "a", false)
	}
}

// large is a value of the size of a session2.Record.
type large struct {
	data []byte
	_    [112]byte
}

// Whatever is loaded and changed, the cache takes no more memory than it may; and the
// oldest goes first.
func TestBytes(t *testing.T) {
	const most = 4 << 20
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	before := heap()
	c := New(time.Hour, most, func(v large) int { return cap(v.data) })
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(g)))
			for range 10_000 {
				id := ID{0: byte(rng.Uint32()), 5: byte(rng.Uint32()), 15: byte(rng.Uint32())}
				switch rng.IntN(10) {
				case 0:
					c.Begin(id)
					c.End(id)
				default:
					size := rng.IntN(200)
					if rng.IntN(1000) == 0 {
						size = most/shardCount - rng.IntN(2*Overhead)
					}
					c.Get(t.Context(), id, func(context.Context) (large, error) {
						return large{data: make([]byte, size)}, nil
					})
				}
				if rng.IntN(2000) == 0 {
					c.counted(t, most)
				}
			}
		})
	}
	wg.Wait()
	full := c.counted(t, most)
	if full < most/2 {
		t.Errorf("%d bytes are kept of %d", full, most)
	}
	taken := heap() - before
	if taken > most*11/10 {
		t.Errorf("%d bytes are counted, and %d taken; want %d at most", full, taken, most)
	}
	c.BeginAll()
	c.EndAll()
	if left := c.counted(t, most); left != 0 {
		t.Errorf("%d bytes are left when all is dropped", left)
	}
	t.Logf("%d bytes were kept, and counted as %d", taken, full)
}

// counted returns the bytes that are kept, and compares them with what is said of them.
func (c *Cache[V]) counted(t *testing.T, most int) (sum int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		n := 0
		for place := s.queue.Front(); place != nil; place = place.Next() {
			e := place.Value.(*entry[V])
			n += c.size(e.v) + Overhead
			if s.kept[e.id] != place {
				t.Errorf("an entry in the queue is not in the map")
			}
		}
		if n != s.bytes || n > most/shardCount || s.queue.Len() != len(s.kept) {
			t.Errorf("shard %d: %d bytes, %d counted, in %d entries of %d", i, n, s.bytes, s.queue.Len(), len(s.kept))
		}
		s.mu.Unlock()
		sum += n
	}
	return sum
}

func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func TestTheOldestGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(shardCount * 3 * (Overhead + 8))
		load := func(context.Context) ([]byte, error) { return make([]byte, 8), nil }
		id := func(n byte) ID { return ID{5: n} }
		for n := range byte(4) {
			c.Get(t.Context(), id(n), load)
			time.Sleep(time.Nanosecond)
		}
		for n, want := range []bool{false, true, true, true} {
			if _, _, ok := c.look(id(byte(n)), time.Now(), false); ok == want {
				t.Errorf("value %d: kept %v, want %v", n, !ok, want)
			}
		}
		time.Sleep(maxAge) // what is of no use goes, too
		c.Get(t.Context(), id(9), load)
		if n := c.shards[0].queue.Len(); n != 1 {
			t.Errorf("%d values are kept, want the new one", n)
		}
	})
}

// What has left nothing leaves no map.
func TestNothingStays(t *testing.T) {
	c, s := newCache(plenty), newSource("a")
	gets(t, c, s, "a", false)
	c.Begin(ID{})
	c.End(ID{})
	sh := c.shard(ID{})
	if sh.kept != nil || len(sh.loads) != 0 || len(sh.changing) != 0 || sh.bytes != 0 || sh.queue.Len() != 0 {
		t.Errorf("left: %+v", sh)
	}
}
