package command

import (
	"context"
	"fmt"
	"slices"

	"github.com/session2/session2"
)

// indexedStore is a store whose indexes can lose entries that its records keep.
type indexedStore interface {
	CheckIndexes(ctx context.Context) (users, due []session2.ID, err error)
	RebuildIndexes(ctx context.Context) error
	TrimIndexes(ctx context.Context) error
}

var _ indexedStore = (*session2.FileStore)(nil)

// checkIndexes names the records that an index lacks, and counts them.
func (j *job) checkIndexes(ctx context.Context) error {
	s, ok := j.store.(indexedStore)
	if !ok {
		return nil
	}
	users, due, err := s.CheckIndexes(ctx)
	if err != nil {
		return err
	}
	for _, missing := range []struct {
		ids   []session2.ID
		index string
	}{{users, "user"}, {due, "time"}} {
		for _, id := range missing.ids {
			j.bar.note(fmt.Sprintf("session2: %v: missing from the index by %s", id, missing.index))
		}
	}
	j.found.missing = union(users, due)
	return nil
}

// mendIndexes rebuilds the indexes of a store if a record is missing from one of
// them, and returns how many are. It drops the entries that lead to no record anyway.
func mendIndexes(ctx context.Context, store session2.Store) (int, error) {
	s, ok := store.(indexedStore)
	if !ok {
		return 0, nil
	}
	users, due, err := s.CheckIndexes(ctx)
	missing := len(union(users, due))
	if err != nil {
		return 0, err
	}
	if missing == 0 {
		return 0, s.TrimIndexes(ctx)
	}
	return missing, s.RebuildIndexes(ctx)
}

// union returns what is in either list, once each.
func union(a, b []session2.ID) []session2.ID {
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(x, y session2.ID) int { return slices.Compare(x[:], y[:]) })
	return slices.Compact(all)
}
