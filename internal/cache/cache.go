// Package cache keeps values for a short time beside where they were loaded from, in
// bounded memory. It is what session2.NewCache is made of.
//
// What makes it safe is in one rule: while a value is being changed, the cache neither
// has it nor takes it in. So it knows of each change that begins and ends here, and a
// load that began before such a change is not kept.
package cache

import (
	"container/list"
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	shardCount = 16

	// Overhead is what the cache takes for each value, in bytes, beside what size tells of
	// it: places in a map and in a queue, and a struct as large as a session2.Record.
	Overhead = 352
)

// ID names a value.
type ID = [16]byte

// Cache keeps values by ID. Goroutines may share it.
type Cache[V any] struct {
	start    time.Time
	used     atomic.Int64 // until when, counted from start: nanoseconds
	maxAge   time.Duration
	maxBytes int // of a shard
	size     func(V) int
	changing atomic.Int64 // changes under way that concern any value
	shards   [shardCount]shard[V]
}

// New returns an empty cache, which keeps a value until maxAge after its load began. What
// it keeps takes maxBytes at most, by size and Overhead; a value that takes more than a
// sixteenth of it is not kept. A value is given to many, and must not be changed by any.
func New[V any](maxAge time.Duration, maxBytes int, size func(V) int) *Cache[V] {
	c := &Cache[V]{start: time.Now(), maxAge: maxAge, maxBytes: maxBytes / shardCount, size: size}
	c.usedUntil(math.MaxInt64)
	return c
}

// usedUntil has the cache used until then, counted from its start, and no longer: then
// each load goes past it.
func (c *Cache[V]) usedUntil(d time.Duration) { c.used.Store(int64(d)) }

// Get returns the value, by load if the cache does not have it. With old, it is what a
// load has returned that began before this call, at most maxAge before. Of several calls
// at once, one loads and the others wait for it: if it fails because its own context has
// ended, the next one loads; if it fails for another reason, each one loads.
func (c *Cache[V]) Get(ctx context.Context, id ID, load func(context.Context) (V, error)) (v V, old bool, err error) {
	for {
		v, l, own := c.look(id, time.Now(), false)
		switch {
		case l == nil && own:
			v, err = load(ctx)
			return v, false, err
		case l == nil:
			return v, true, nil
		case own:
			v, err = c.lead(ctx, id, l, load)
			return v, false, err
		}
		select {
		case <-l.done:
		case <-ctx.Done():
			return v, false, fmt.Errorf("wait for another load: %w", ctx.Err())
		}
		switch {
		case l.left:
		case l.err == nil:
			return l.v, true, nil
		default:
			v, err = load(ctx)
			return v, false, err
		}
	}
}

// Fresh returns the value by a load of its own, in place of what the cache has: who has
// met something old must not meet it again.
func (c *Cache[V]) Fresh(ctx context.Context, id ID, load func(context.Context) (V, error)) (v V, err error) {
	if _, l, _ := c.look(id, time.Now(), true); l != nil {
		return c.lead(ctx, id, l, load)
	}
	return load(ctx)
}

// look returns the value, or a load of it that is under way, or one that the caller is to
// make, as it is with fresh in any case. With no load, own says that the caller must do
// without the cache.
func (c *Cache[V]) look(id ID, now time.Time, fresh bool) (v V, l *loading[V], own bool) {
	s := c.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.changing.Load() > 0 || s.changing[id] > 0 || c.maxAge <= 0 || int64(now.Sub(c.start)) >= c.used.Load() {
		return v, nil, true
	}
	if place := s.kept[id]; place != nil {
		e := place.Value.(*entry[V])
		if !fresh && now.Sub(e.sent) < c.maxAge {
			return e.v, nil, false
		}
		s.remove(place)
	}
	if l = s.loads[id]; !fresh && l != nil && now.Sub(l.sent) < c.maxAge {
		return v, l, false
	}
	l = &loading[V]{sent: now, done: make(chan struct{})}
	if s.loads == nil {
		s.loads = make(map[ID]*loading[V])
	}
	s.loads[id] = l
	return v, l, true
}

// lead makes a load that others may wait for.
func (c *Cache[V]) lead(ctx context.Context, id ID, l *loading[V], load func(context.Context) (V, error)) (v V, err error) {
	l.left = true // if load panics
	defer c.land(id, l)
	v, err = load(ctx)
	l.v, l.err, l.left = v, err, err != nil && ctx.Err() != nil
	return v, err
}

// land ends a load, and keeps the value unless it was changed meanwhile.
func (c *Cache[V]) land(id ID, l *loading[V]) {
	defer close(l.done)
	s := c.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loads[id] != l {
		return
	}
	s.drop(id)
	if l.left || l.err != nil {
		return
	}
	e := &entry[V]{id: id, v: l.v, sent: l.sent, bytes: c.size(l.v) + Overhead}
	if e.bytes > c.maxBytes {
		return
	}
	for front := s.queue.Front(); front != nil; front = s.queue.Front() {
		if s.bytes+e.bytes <= c.maxBytes && time.Since(front.Value.(*entry[V]).sent) < c.maxAge {
			break
		}
		s.remove(front)
	}
	s.add(e)
}

// Begin notes that a value is about to be changed. End must follow.
func (c *Cache[V]) Begin(id ID) {
	s := c.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changing == nil {
		s.changing = make(map[ID]int)
	}
	s.changing[id]++
	s.drop(id)
	if place := s.kept[id]; place != nil {
		s.remove(place)
	}
}

// End notes that the change is over, whatever has become of it.
func (c *Cache[V]) End(id ID) {
	s := c.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changing[id]--; s.changing[id] == 0 {
		delete(s.changing, id)
	}
	s.shrink()
}

// BeginAll notes that any value may be about to be changed. EndAll must follow.
func (c *Cache[V]) BeginAll() {
	c.changing.Add(1)
	for i := range c.shards {
		c.shards[i].clear()
	}
}

// EndAll notes that the change is over, whatever has become of it.
func (c *Cache[V]) EndAll() { c.changing.Add(-1) }

// Drop has the cache take a value, or a load of it that is under way, for changed elsewhere.
func (c *Cache[V]) Drop(id ID) {
	c.Begin(id)
	c.End(id)
}

// DropAll does so with all.
func (c *Cache[V]) DropAll() {
	c.BeginAll()
	c.EndAll()
}

// shard returns the shard of id. IDs are random; those that count up, at either end, are
// spread as well.
func (c *Cache[V]) shard(id ID) *shard[V] { return &c.shards[(id[0]^id[len(id)-1])%shardCount] }

// shard is a part of a cache with a lock of its own.
type shard[V any] struct {
	mu       sync.Mutex
	kept     map[ID]*list.Element
	queue    list.List // of *entry, the oldest in front: it is the next one to be of no use
	bytes    int
	loads    map[ID]*loading[V] // under way, of those whose values may be kept
	changing map[ID]int         // changes under way
	most     int                // of the longer one of these
}

// entry is a value that is kept.
type entry[V any] struct {
	id    ID
	v     V
	sent  time.Time // when its load began
	bytes int
}

// loading is a load that others may wait for. What it came to may be read when done is
// closed.
type loading[V any] struct {
	sent time.Time
	done chan struct{}
	v    V
	err  error
	left bool // the caller's context has ended, or it panicked: that says nothing to others
}

// add keeps an entry. It is called with s.mu held, as remove is.
func (s *shard[V]) add(e *entry[V]) {
	if s.kept == nil {
		s.kept = make(map[ID]*list.Element)
	}
	s.kept[e.id] = s.queue.PushBack(e)
	s.bytes += e.bytes
}

func (s *shard[V]) remove(place *list.Element) {
	e := s.queue.Remove(place).(*entry[V])
	s.bytes -= e.bytes
	if delete(s.kept, e.id); len(s.kept) == 0 {
		s.kept = nil // a map does not shrink
	}
}

// drop forgets a load, which may be under way.
func (s *shard[V]) drop(id ID) {
	delete(s.loads, id)
	s.shrink()
}

// shrink gives the maps of what is under way up where there was much: a map does not
// shrink.
func (s *shard[V]) shrink() {
	s.most = max(s.most, 1+len(s.loads), 1+len(s.changing))
	if s.most > many && len(s.loads)+len(s.changing) == 0 {
		s.loads, s.changing, s.most = nil, nil, 0
	}
}

// many is from how many on it does.
const many = 100

// clear empties the shard. Loads that are under way are not kept.
func (s *shard[V]) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept, s.loads, s.bytes = nil, nil, 0
	s.queue.Init()
}
