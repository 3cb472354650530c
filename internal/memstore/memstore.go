// Package memstore is the back end of a MemoryStore: records in memory, on many
// shards that have a lock each.
package memstore

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
	shardCount = 128
	batchMax   = 128 // records that DeleteOld removes under one lock
)

// Store is a [record.Store] in memory. Its zero value is empty and ready to use.
// Goroutines may share it.
type Store struct {
	closed atomic.Bool // set before the shards are emptied
	shards [shardCount]shard
}

type shard struct {
	mu    sync.RWMutex
	index table
}

type table = index.Index[value]

// finder appends to ids some of an index's.
type finder func(x *table, ids [][16]byte) [][16]byte

type value struct {
	version uint64
	created int64
	data    []byte // never changed, only replaced, so that they may be read without the lock
}

// Setup has nothing to do.
func (m *Store) Setup(ctx context.Context) error { return m.ready(ctx) }

// Close frees the records.
func (m *Store) Close() error {
	m.closed.Store(true)
	for i := range m.shards {
		m.shards[i].clear()
	}
	return nil
}

func (s *shard) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index = table{}
}

// ready says why a call may not go ahead, if so. Asked under a shard's lock,
// nil means that Close has not emptied the shard yet.
func (m *Store) ready(ctx context.Context) error {
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
func (m *Store) shard(id [16]byte) *shard {
	return &m.shards[(id[0]^id[len(id)-1])%shardCount]
}

// get reads the record of id into r, whose Data then belong to the store. Returned,
// a record would be copied at each step, which costs a Load a sixth of its time.
func (m *Store) get(ctx context.Context, id [16]byte, r *record.Record) (found bool, err error) {
	s := m.shard(id)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := m.ready(ctx); err != nil {
		return false, err
	}
	e := s.index.Find(id)
	if e == nil {
		return false, nil
	}
	r.ID, r.User, r.Accessed, r.Expires = id, e.User, e.Accessed, e.Expires
	r.Version, r.Created, r.Data = e.Value.version, e.Value.created, e.Value.data
	return true, nil
}

// Load returns the record. Its Data are the store's own, and not to be changed.
func (m *Store) Load(ctx context.Context, id [16]byte) (r record.Record, err error) {
	found, err := m.get(ctx, id, &r)
	if err == nil && !found {
		err = record.ErrNotFound
	}
	return r, err
}

// Has reports whether there is a record.
func (m *Store) Has(ctx context.Context, id [16]byte) (bool, error) {
	return m.get(ctx, id, new(record.Record))
}

// Save keeps a copy of the Data.
func (m *Store) Save(ctx context.Context, r record.Record, prev uint64) error {
	data := bytes.Clone(r.Data)
	s := m.shard(r.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := m.ready(ctx); err != nil {
		return err
	}
	var version uint64
	stored := s.index.Find(r.ID)
	if stored != nil {
		version = stored.Value.version
	}
	write, err := record.Admit(stored != nil, version, r.Version, prev)
	if write {
		s.index.Put(r.ID, index.Entry[value]{
			User: r.User, Accessed: r.Accessed, Expires: r.Expires,
			Value: value{r.Version, r.Created, data},
		})
	}
	return err
}

// Delete removes the record.
func (m *Store) Delete(ctx context.Context, id [16]byte) error {
	return m.update(ctx, id, func(x *table) { x.Delete(id) })
}

// Touch moves the record's access forward.
func (m *Store) Touch(ctx context.Context, id [16]byte, to record.Access) error {
	return m.update(ctx, id, func(x *table) { x.Touch(id, to.Accessed, to.Expires) })
}

// update lets f change the index that id belongs to.
func (m *Store) update(ctx context.Context, id [16]byte, f func(*table)) error {
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
func (m *Store) DeleteOld(ctx context.Context, accessed, expires int64) (int, error) {
	return m.deleteAll(ctx, func(x *table, _ [][16]byte) [][16]byte { return x.Due(expires, accessed, batchMax) })
}

// DeleteUser removes the user's records but those to keep.
func (m *Store) DeleteUser(ctx context.Context, user string, keep ...[16]byte) (int, error) {
	return m.deleteAll(ctx, func(x *table, ids [][16]byte) [][16]byte {
		return slices.DeleteFunc(x.AppendUser(ids, user), func(id [16]byte) bool { return slices.Contains(keep, id) })
	})
}

// deleteAll removes what find names, shard by shard, until it names no more.
func (m *Store) deleteAll(ctx context.Context, find finder) (int, error) {
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
func (m *Store) deleteSome(ctx context.Context, s *shard, find finder) (int, error) {
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
func (m *Store) Iter(ctx context.Context) iter.Seq2[record.Record, error] {
	return func(yield func(record.Record, error) bool) {
		m.each(ctx, yield, (*table).AppendIDs, func(record.Record) bool { return true })
	}
}

// IterUser lists the user's records.
func (m *Store) IterUser(ctx context.Context, user string) iter.Seq2[record.Record, error] {
	return func(yield func(record.Record, error) bool) {
		m.each(ctx, yield,
			func(x *table, ids [][16]byte) [][16]byte { return x.AppendUser(ids, user) },
			func(r record.Record) bool { return r.User == user })
	}
}

// each yields the records that find names and that still are there, and still
// are meant, when their turn comes.
func (m *Store) each(ctx context.Context, yield func(record.Record, error) bool,
	find finder, meant func(record.Record) bool,
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
			var r record.Record
			found, err := m.get(ctx, id, &r)
			if err != nil {
				yield(record.Record{}, err)
				return
			}
			if !found || !meant(r) {
				continue
			}
			r.Data = bytes.Clone(r.Data)
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (m *Store) find(ctx context.Context, s *shard, find finder, ids [][16]byte) ([][16]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := m.ready(ctx); err != nil {
		return nil, err
	}
	return find(&s.index, ids), nil
}
