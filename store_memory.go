package session2

import (
	"bytes"
	"context"
	"io/fs"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/session2/session2/internal/index"
	"github.com/session2/session2/internal/record"
	"github.com/session2/session2/internal/tally"
)

const (
	memoryShards = 128
	memoryBatch  = 128 // records that DeleteOld removes under one lock
)

// MemoryStore keeps records in the memory of the process: they end with it,
// and no other process sees them. Goroutines may share it. It is the fastest
// store and the one for tests. It promises thread safety and nothing else, and has
// nothing to set up. Close frees the records.
//
// The records are spread over many shards with a lock each, so that requests
// for different sessions seldom meet. Of a deleted record all but its slot in a
// table is freed, and the slot is used again; a shard's table is freed when its
// last record goes. DeleteOld holds a lock for a few records at a time.
type MemoryStore struct{ adapter }

// NewMemoryStore returns an empty store.
func NewMemoryStore() *MemoryStore {
	return &MemoryStore{adapter{new(memory), Capabilities{ThreadSafe: true}}}
}

// memory is the back end of a MemoryStore.
type memory struct {
	closed atomic.Bool // set before the shards are emptied
	shards [memoryShards]memoryShard
}

type memoryShard struct {
	mu    sync.RWMutex
	index memoryIndex
}

type memoryIndex = index.Index[memoryValue]

// memoryFinder appends to ids some of an index's.
type memoryFinder func(x *memoryIndex, ids [][16]byte) [][16]byte

// memoryEntry is a record without its ID. Its data are never changed, only
// replaced, so that they may be read without the lock.
type memoryEntry = index.Entry[memoryValue]

type memoryValue struct {
	version uint64
	created int64
	data    []byte
}

// Setup has nothing to do.
func (m *memory) Setup(ctx context.Context) error { return m.ready(ctx) }

// Close frees the records.
func (m *memory) Close() error {
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
func (m *memory) ready(ctx context.Context) error {
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
func (m *memory) shard(id [16]byte) *memoryShard {
	return &m.shards[(id[0]^id[len(id)-1])%memoryShards]
}

// get returns the entry of id, whose data belong to the store.
func (m *memory) get(ctx context.Context, id [16]byte) (memoryEntry, bool, error) {
	s := m.shard(id)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := m.ready(ctx); err != nil {
		return memoryEntry{}, false, err
	}
	e, found := s.index.Get(id)
	return e, found, nil
}

// Load returns a copy of the record.
func (m *memory) Load(ctx context.Context, id [16]byte) (record.Record, error) {
	e, found, err := m.get(ctx, id)
	if err == nil && !found {
		err = record.ErrNotFound
	}
	if err != nil {
		return record.Record{}, err
	}
	return memoryRecord(id, e), nil
}

func memoryRecord(id [16]byte, e memoryEntry) record.Record {
	return record.Record{
		ID:      id,
		Version: e.Value.version,
		User:    e.User,
		Created: e.Value.created,
		Data:    bytes.Clone(e.Value.data),
		Access:  record.Access{Accessed: e.Accessed, Expires: e.Expires},
	}
}

// Has reports whether there is a record.
func (m *memory) Has(ctx context.Context, id [16]byte) (bool, error) {
	_, found, err := m.get(ctx, id)
	return found, err
}

// Save keeps a copy of the Data.
func (m *memory) Save(ctx context.Context, r record.Record, prev uint64) error {
	data := bytes.Clone(r.Data)
	s := m.shard(r.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := m.ready(ctx); err != nil {
		return err
	}
	stored, found := s.index.Get(r.ID)
	write, err := record.Admit(found, stored.Value.version, r.Version, prev)
	if write {
		s.index.Put(r.ID, memoryEntry{
			User: r.User, Accessed: r.Accessed, Expires: r.Expires,
			Value: memoryValue{r.Version, r.Created, data},
		})
	}
	return err
}

// Delete removes the record.
func (m *memory) Delete(ctx context.Context, id [16]byte) error {
	return m.update(ctx, id, func(x *memoryIndex) { x.Delete(id) })
}

// Touch moves the record's access forward.
func (m *memory) Touch(ctx context.Context, id [16]byte, to record.Access) error {
	return m.update(ctx, id, func(x *memoryIndex) { x.Touch(id, to.Accessed, to.Expires) })
}

// update lets f change the index that id belongs to.
func (m *memory) update(ctx context.Context, id [16]byte, f func(*memoryIndex)) error {
	s := m.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := m.ready(ctx); err != nil {
		return err
	}
	f(&s.index)
	return nil
}

// DeleteOld removes what is due, and holds a lock for a few records at a time.
func (m *memory) DeleteOld(ctx context.Context, accessed, expires int64) (int, error) {
	return m.deleteAll(ctx, func(x *memoryIndex, _ [][16]byte) [][16]byte { return x.Due(expires, accessed, memoryBatch) })
}

// DeleteUser removes the user's records but those to keep.
func (m *memory) DeleteUser(ctx context.Context, user string, keep ...[16]byte) (int, error) {
	return m.deleteAll(ctx, func(x *memoryIndex, ids [][16]byte) [][16]byte {
		return slices.DeleteFunc(x.AppendUser(ids, user), func(id [16]byte) bool { return slices.Contains(keep, id) })
	})
}

// deleteAll removes what find names, shard by shard, until it names no more.
func (m *memory) deleteAll(ctx context.Context, find memoryFinder) (int, error) {
	total := 0
	for i := range m.shards {
		for {
			n, err := m.deleteSome(ctx, &m.shards[i], find)
			total += n
			tally.Add(ctx, n)
			if err != nil {
				return total, err
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
func (m *memory) deleteSome(ctx context.Context, s *memoryShard, find memoryFinder) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := m.ready(ctx); err != nil {
		return 0, err
	}
	ids := find(&s.index, nil)
	for _, id := range ids {
		s.index.Delete(id)
	}
	return len(ids), nil
}

// Iter lists all records, a shard at a time.
func (m *memory) Iter(ctx context.Context) iter.Seq2[record.Record, error] {
	return func(yield func(record.Record, error) bool) {
		m.each(ctx, yield, (*memoryIndex).AppendIDs, func(memoryEntry) bool { return true })
	}
}

// IterUser lists the user's records.
func (m *memory) IterUser(ctx context.Context, user string) iter.Seq2[record.Record, error] {
	return func(yield func(record.Record, error) bool) {
		m.each(ctx, yield,
			func(x *memoryIndex, ids [][16]byte) [][16]byte { return x.AppendUser(ids, user) },
			func(e memoryEntry) bool { return e.User == user })
	}
}

// each yields the records that find names and that still are there, and still
// are meant, when their turn comes.
func (m *memory) each(ctx context.Context, yield func(record.Record, error) bool,
	find memoryFinder, meant func(memoryEntry) bool,
) {
	var ids [][16]byte
	for i := range m.shards {
		var err error
		ids, err = m.find(ctx, &m.shards[i], find, ids[:0])
		if err != nil {
			yield(record.Record{}, err)
			return
		}
		for _, id := range ids {
			e, found, err := m.get(ctx, id)
			if err != nil {
				yield(record.Record{}, err)
				return
			}
			if found && meant(e) && !yield(memoryRecord(id, e), nil) {
				return
			}
		}
	}
}

func (m *memory) find(ctx context.Context, s *memoryShard, find memoryFinder, ids [][16]byte) ([][16]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := m.ready(ctx); err != nil {
		return nil, err
	}
	return find(&s.index, ids), nil
}
