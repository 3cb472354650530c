package session2

import (
	"bytes"
	"context"

	"github.com/session2/session2/internal/memstore"
)

// MemoryStore keeps records in the memory of the process: they end with it, and no
// other process sees them. Goroutines may share it. It is the fastest store and the one
// for tests. It promises ThreadSafe and nothing else, and has nothing to set up. Close
// frees the records.
//
// The records are spread over many shards with a lock each, so that requests for
// different sessions seldom meet. Of a deleted record all but its slot in a table is
// freed, and the slot is used again; a shard's table is freed when its last record
// goes. DeleteOld holds a lock for a few records at a time.
type MemoryStore struct{ adapter }

// NewMemoryStore returns an empty store.
func NewMemoryStore() *MemoryStore {
	return &MemoryStore{adapter{new(memstore.Store), Capabilities{ThreadSafe: true}}}
}

// Load returns the record, or an error matching [ErrNotFound]. The caller owns its Data.
func (s *MemoryStore) Load(ctx context.Context, id ID) (Record, error) {
	rec, err := s.adapter.Load(ctx, id)
	rec.Data = bytes.Clone(rec.Data)
	return rec, err
}

// lent returns the store as the manager has it, which changes no Data and so needs no
// copy of them.
func lent(store Store) Store {
	if s, ok := store.(*MemoryStore); ok {
		return &s.adapter
	}
	return store
}
