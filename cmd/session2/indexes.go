package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/session2/session2"
)

// indexedStore is a store whose indexes can lose entries that its records keep.
type indexedStore interface {
	CheckIndexes(ctx context.Context) (users, due []session2.ID, err error)
}

// checkIndexes names the records that an index lacks.
func (j *job) checkIndexes(ctx context.Context) error {
	s, ok := j.store.(indexedStore)
	if !ok {
		return nil
	}
	users, due, err := s.CheckIndexes(ctx)
	if err != nil {
		return err
	}
	j.found.addMissing(users, "user")
	j.found.addMissing(due, "time")
	return nil
}

// addMissing notes the records that an index lacks.
func (f *findings) addMissing(ids []session2.ID, index string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		f.bar.note(fmt.Sprintf("session2: %v: missing from the index by %s", id, index))
		if !f.unindexed[id] {
			f.unindexed[id] = true
			f.missing = append(f.missing, id.String())
		}
	}
}

// mend has the indexes of a store rebuilt if a record is missing from one of them,
// and returns how many are.
func (l location) mend(ctx context.Context, store session2.Store) (int, error) {
	s, ok := store.(indexedStore)
	if !ok {
		return 0, nil
	}
	users, due, err := s.CheckIndexes(ctx)
	if err != nil || len(users)+len(due) == 0 {
		return 0, err
	}
	// A store rebuilds an index without this mark.
	for _, index := range []string{"users", "due/new"} {
		err := os.Remove(filepath.Join(l.path(), filepath.FromSlash(index), "complete"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
	}
	missing := make(map[session2.ID]bool)
	for _, id := range append(users, due...) {
		missing[id] = true
	}
	return len(missing), prepare(ctx, store)
}
