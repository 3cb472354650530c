package filestore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/record"
)

// Iter goes through the 256 directories one after the other, and keeps the IDs of
// one of them in memory: 16 bytes each.
func (s *Store) Iter(ctx context.Context) iter.Seq2[record.Record, error] {
	return func(yield func(record.Record, error) bool) {
		for i := range s.locks {
			ids, err := s.ids(ctx, byte(i))
			if err != nil {
				yield(record.Record{}, err)
				return
			}
			for _, id := range ids {
				r, err := s.Load(ctx, id)
				if errors.Is(err, record.ErrNotFound) {
					continue
				}
				r.ID = id // also of one that cannot be read
				if !yield(r, err) {
					return
				}
			}
		}
	}
}

// IterUser lists the user's records, and drops entries that lead to none.
func (s *Store) IterUser(ctx context.Context, user string) iter.Seq2[record.Record, error] {
	return func(yield func(record.Record, error) bool) {
		ids, err := s.userIDs(ctx, user)
		if err != nil {
			yield(record.Record{}, err)
			return
		}
		for _, id := range ids {
			r, err := s.Load(ctx, id)
			if errors.Is(err, record.ErrNotFound) || err == nil && r.User != user {
				if err = s.checkUser(ctx, user, id); err == nil {
					continue
				}
			}
			r.ID = id
			if !yield(r, err) {
				return
			}
		}
	}
}

// userIDs returns the IDs that the index has for a user. Temporaries, which there
// are in a shared directory alone, it removes: a writer who is not dead tries again.
func (s *Store) userIDs(ctx context.Context, user string) ([][16]byte, error) {
	if err := s.ready(ctx); err != nil || user == "" {
		return nil, err
	}
	if err := s.complete(ctx, userIndex); err != nil {
		return nil, err
	}
	dir, left := s.userDir(user), false
	ids, err := s.listIDs(ctx, dir, func(name string) {
		if fsys.IsTemp(name) {
			s.fs.Remove(filepath.Join(dir, name))
			left = true
		}
	})
	if left {
		s.fs.Remove(dir) // fails unless it is empty
	}
	return ids, err
}

// checkUser drops the user's entry for a record that is gone or another's.
func (s *Store) checkUser(ctx context.Context, user string, id [16]byte) error {
	return s.locked(ctx, id, func() error { return s.checkEntry(user, id) })
}

// checkEntry does so for a caller who holds the record's lock.
func (s *Store) checkEntry(user string, id [16]byte) error {
	r, found, _, err := s.lookupIntact(id)
	if err != nil || found && r.User == user {
		return err
	}
	return s.endUser(user, id)
}

// ids returns the IDs in one directory of records. It holds the directory's
// lock, for a file system may show a name that is renamed over during the
// listing twice, or not at all. The temporaries that it sees are therefore
// nobody's, and it removes them.
func (s *Store) ids(ctx context.Context, first byte) (ids [][16]byte, err error) {
	dir := s.dirOf([16]byte{first})
	if _, err := s.fs.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, s.ready(ctx)
	}
	err = s.locked(ctx, [16]byte{first}, func() error {
		ids, err = s.listIDs(ctx, dir, func(name string) {
			if fsys.IsTemp(name) {
				s.fs.Remove(filepath.Join(dir, name))
			}
		})
		return err
	})
	return ids, err
}

// eachGroup calls do for all records in one directory, a group at a time, with
// their lock held.
func (s *Store) eachGroup(ctx context.Context, first byte, do func(group [][16]byte) error) error {
	ids, err := s.ids(ctx, first)
	if err != nil {
		return err
	}
	for group := range groups(ids, firstByte) {
		if err := s.locked(ctx, group[0], func() error { return do(group) }); err != nil {
			return err
		}
	}
	return nil
}

// listIDs returns the IDs that are names in a directory, each once, and calls
// other for the other names.
func (s *Store) listIDs(ctx context.Context, dir string, other func(name string)) ([][16]byte, error) {
	var ids [][16]byte
	err := s.eachName(ctx, dir, func(name string) {
		if id, ok := parseID(name); ok {
			ids = append(ids, id)
		} else {
			other(name)
		}
	})
	slices.SortFunc(ids, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(ids), err
}

// eachName calls fn for the names in a directory, a bounded number at a time; an
// absent directory has none.
func (s *Store) eachName(ctx context.Context, dir string, fn func(name string)) error {
	d, err := s.fs.OpenFile(dir, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		entries, err := d.ReadDir(512)
		for _, e := range entries {
			fn(e.Name())
		}
		if err == io.EOF || errors.Is(err, fs.ErrNotExist) { // it was removed meanwhile, empty as it was
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// eachEntry is eachName with an fn that may fail, after which it is called no more.
func (s *Store) eachEntry(ctx context.Context, dir string, fn func(name string) error) (failed error) {
	err := s.eachName(ctx, dir, func(name string) {
		if failed == nil {
			failed = fn(name)
		}
	})
	return cmp.Or(failed, err)
}

// isEmpty reports whether a directory is there and holds nothing.
func (s *Store) isEmpty(dir string) bool {
	d, err := s.fs.OpenFile(dir, os.O_RDONLY, 0)
	if err != nil {
		return false
	}
	defer d.Close()
	_, err = d.ReadDir(1)
	return err == io.EOF
}
