package session2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path/filepath"
	"slices"

	"github.com/session2/session2/internal/fsys"
)

// Iter implements [IterStore]. It goes through the 256 directories one after
// the other, and keeps the IDs of one of them in memory: 16 bytes each.
func (s *FileStore) Iter(ctx context.Context) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for i := range len(s.locks) {
			ids, err := s.folderIDs(ctx, byte(i))
			if err != nil {
				yield(Record{}, fmt.Errorf("session2: iter: %w", err))
				return
			}
			for _, id := range ids {
				rec, err := s.load(ctx, id)
				if !errors.Is(err, ErrNotFound) && !yieldLoaded(yield, "iter", id, rec, err) {
					return
				}
			}
		}
	}
}

// yieldLoaded yields what load returned and reports whether to go on: past a
// corrupt record, but not past a failure of the store.
func yieldLoaded(yield func(Record, error) bool, op string, id ID, rec Record, err error) bool {
	if err == nil {
		return yield(rec, nil)
	}
	return yield(Record{ID: id}, opError(op, id, err)) && errors.Is(err, ErrCorrupt)
}

// folderIDs returns the IDs in one directory of records. It holds the directory's
// lock, for a file system may show a name that is renamed over during the
// listing twice, or not at all. The temporaries that it sees are therefore
// nobody's, and it removes them.
func (s *FileStore) folderIDs(ctx context.Context, first byte) (ids []ID, err error) {
	dir := s.folder(ID{first})
	if _, err := s.fs.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, s.begin(ctx)
	}
	err = s.locked(ctx, ID{first}, func() error {
		ids, err = s.listIDs(ctx, dir, func(name string) {
			if fsys.IsTemp(name) {
				s.fs.Remove(filepath.Join(dir, name))
			}
		})
		return err
	})
	return ids, err
}

// listIDs returns the IDs that are names in a directory, each once, and calls
// other for the other names.
func (s *FileStore) listIDs(ctx context.Context, dir string, other func(name string)) ([]ID, error) {
	var ids []ID
	err := s.eachName(ctx, dir, func(name string) {
		if id, err := ParseID(name); err == nil {
			ids = append(ids, id)
		} else {
			other(name)
		}
	})
	slices.SortFunc(ids, func(a, b ID) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(ids), err
}
