package session2

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/session2/session2/internal/index"
	"github.com/session2/session2/internal/tally"
)

const (
	memoryShards = 128
	memoryBatch  = 128 // records that DeleteOld removes under one lock
)

// MemoryStore keeps records in the memory of the process: they end with it,
// and no other process sees them. Goroutines may share it. It is the fastest
// store and the one for tests.
//
// The records are spread over many shards with a lock each, so that requests
// for different sessions seldom meet. Of a deleted record all but its slot in a
// table is freed, and the slot is used again; a shard's table is freed when its
// last record goes.
type MemoryStore struct {
	closed atomic.Bool // set before the shards are emptied
	shards [memoryShards]memoryShard
}

type memoryShard struct {
	mu    sync.RWMutex
	index memoryIndex
}

type memoryIndex = index.Index[memoryValue]

// memoryFinder names some of an index's IDs.
type memoryFinder func(x *memoryIndex) [][16]byte

// memoryEntry is a Record without its ID. Its data are never changed, only
// replaced, so that they may be read without the lock.
type memoryEntry = index.Entry[memoryValue]

type memoryValue struct {
	version Version
	created int64
	data    []byte
}

var (
	_ Store          = (*MemoryStore)(nil)
	_ DeleteOldStore = (*MemoryStore)(nil)
	_ IterStore      = (*MemoryStore)(nil)
	_ TouchStore     = (*MemoryStore)(nil)
	_ UserStore      = (*MemoryStore)(nil)
	_ CapableStore   = (*MemoryStore)(nil)
)

// NewMemoryStore returns an empty store.
func NewMemoryStore() *MemoryStore { return new(MemoryStore) }

// Capabilities promises thread safety and nothing else.
func (m *MemoryStore) Capabilities() Capabilities { return Capabilities{ThreadSafe: true} }

// Close frees the records. Every later call answers an error matching
// [fs.ErrClosed], but for Close itself, which may be called again.
func (m *MemoryStore) Close() error {
	m.closed.Store(true)
	for i := range m.shards {
		m.shards[i].clear()
	}
	return nil
}

func (s *memoryShard) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index = memoryIndex{}
}

// ready says why a call may not go ahead, if so. Asked under a shard's lock,
// nil means that Close has not emptied the shard yet.
func (m *MemoryStore) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.closed.Load() {
		return fs.ErrClosed
	}
	return nil
}

// shard returns the shard of id. IDs are random; those that count up, at
// either end, are spread as well.
func (m *MemoryStore) shard(id ID) *memoryShard {
	return &m.shards[(id[0]^id[len(id)-1])%memoryShards]
}

// get returns the entry of id, whose data belong to the store.
func (m *MemoryStore) get(ctx context.Context, id ID) (memoryEntry, bool, error) {
	s := m.shard(id)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := m.ready(ctx); err != nil {
		return memoryEntry{}, false, err
	}
	e, found := s.index.Get(id)
	return e, found, nil
}

// Load returns the record, or an error matching [ErrNotFound]. The caller owns
// its Data.
func (m *MemoryStore) Load(ctx context.Context, id ID) (Record, error) {
	e, found, err := m.get(ctx, id)
	if err == nil && !found {
		err = ErrNotFound
	}
	if err != nil {
		return Record{}, opError("load", id, err)
	}
	return memoryRecord(id, e), nil
}

func memoryRecord(id ID, e memoryEntry) Record {
	return Record{
		ID:       id,
		Version:  e.Value.version,
		User:     e.User,
		Created:  timeMicro(e.Value.created),
		Accessed: timeMicro(e.Accessed),
		Expires:  timeMicro(e.Expires),
		Data:     bytes.Clone(e.Value.data),
	}
}

// Has reports whether there is a record.
func (m *MemoryStore) Has(ctx context.Context, id ID) (bool, error) {
	_, found, err := m.get(ctx, id)
	return found, opError("has", id, err)
}

// Save replaces the record if its version is still prev, or creates it for a
// zero prev. It answers [ErrConflict] or [ErrNotFound] as [Store] says. The
// store keeps a copy of the Data.
func (m *MemoryStore) Save(ctx context.Context, rec Record, prev Version) error {
	if err := checkSave(rec); err != nil {
		return err
	}
	if err := m.ready(ctx); err != nil {
		return opError("save", rec.ID, err)
	}
	return opError("save", rec.ID, m.save(ctx, rec.ID, prev, memoryEntry{
		User:     rec.User,
		Accessed: microTime(rec.Accessed),
		Expires:  microTime(rec.Expires),
		Value:    memoryValue{rec.Version, microTime(rec.Created), bytes.Clone(rec.Data)},
	}))
}

func (m *MemoryStore) save(ctx context.Context, id ID, prev Version, e memoryEntry) error {
	s := m.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := m.ready(ctx); err != nil {
		return err
	}
	stored, found := s.index.Get(id)
	write, err := admit(found, stored.Value.version, e.Value.version, prev)
	if write {
		s.index.Put(id, e)
	}
	return err
}

// Delete removes the record. An absent one is no error.
func (m *MemoryStore) Delete(ctx context.Context, id ID) error {
	return opError("delete", id, m.update(ctx, id, func(x *memoryIndex) { x.Delete(id) }))
}

// Touch moves Accessed and Expires forward, each by itself and never back. An
// absent record is no error.
func (m *MemoryStore) Touch(ctx context.Context, id ID, accessed, expires time.Time) error {
	return opError("touch", id, m.update(ctx, id, func(x *memoryIndex) {
		x.Touch(id, microTime(accessed), microTime(expires))
	}))
}

// update lets f change the index that id belongs to.
func (m *MemoryStore) update(ctx context.Context, id ID, f func(*memoryIndex)) error {
	s := m.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := m.ready(ctx); err != nil {
		return err
	}
	f(&s.index)
	return nil
}

// DeleteOld removes the records that were not accessed for age or have
// expired, and returns their number. It finds them by index and holds a lock
// for a few of them at a time.
func (m *MemoryStore) DeleteOld(ctx context.Context, age time.Duration) (int, error) {
	if err := checkAge(age); err != nil {
		return 0, err
	}
	now := time.Now()
	return m.deleteAll(ctx, "delete old", func(x *memoryIndex) [][16]byte {
		return x.Due(microTime(now), microTime(now.Add(-age)), memoryBatch)
	})
}

// DeleteUser ends all sessions of the user but those to keep, and returns their
// number. For the
// empty user there are none.
func (m *MemoryStore) DeleteUser(ctx context.Context, user string, keep ...ID) (int, error) {
	return m.deleteAll(ctx, "delete user", func(x *memoryIndex) [][16]byte {
		return slices.DeleteFunc(x.User(user), func(id [16]byte) bool { return slices.Contains(keep, id) })
	})
}

// deleteAll removes what find names, shard by shard, until it names no more.
func (m *MemoryStore) deleteAll(ctx context.Context, op string, find memoryFinder) (int, error) {
	total := 0
	for i := range m.shards {
		for {
			n, err := m.deleteSome(ctx, &m.shards[i], find)
			total += n
			tally.Add(ctx, n)
			if err != nil {
				return total, fmt.Errorf("session2: %s: %w", op, err)
			}
			if n == 0 {
				break
			}
		}
	}
	return total, nil
}

// deleteSome removes what find names now. Both happen under one lock, so that
// a record saved or touched meanwhile is judged by what it is now.
func (m *MemoryStore) deleteSome(ctx context.Context, s *memoryShard, find memoryFinder) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := m.ready(ctx); err != nil {
		return 0, err
	}
	ids := find(&s.index)
	for _, id := range ids {
		s.index.Delete(id)
	}
	return len(ids), nil
}

// Iter lists all records, a shard at a time. No lock is held while the loop's
// body runs.
func (m *MemoryStore) Iter(ctx context.Context) iter.Seq2[Record, error] {
	return m.each(ctx, "iter", (*memoryIndex).IDs, func(memoryEntry) bool { return true })
}

// IterUser lists the user's records. For the empty user there are none.
func (m *MemoryStore) IterUser(ctx context.Context, user string) iter.Seq2[Record, error] {
	return m.each(ctx, "iter user",
		func(x *memoryIndex) [][16]byte { return x.User(user) },
		func(e memoryEntry) bool { return e.User == user })
}

// each lists the records that find names and that still are there, and still
// are meant, when their turn comes.
func (m *MemoryStore) each(ctx context.Context, op string, find memoryFinder, meant func(memoryEntry) bool) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		fail := func(err error) { yield(Record{}, fmt.Errorf("session2: %s: %w", op, err)) }
		for i := range m.shards {
			ids, err := m.find(ctx, &m.shards[i], find)
			if err != nil {
				fail(err)
				return
			}
			for _, id := range ids {
				e, found, err := m.get(ctx, id)
				if err != nil {
					fail(err)
					return
				}
				if found && meant(e) && !yield(memoryRecord(id, e), nil) {
					return
				}
			}
		}
	}
}

func (m *MemoryStore) find(ctx context.Context, s *memoryShard, find memoryFinder) ([][16]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := m.ready(ctx); err != nil {
		return nil, err
	}
	return find(&s.index), nil
}
