package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/tally"
)

// Delete removes the record, also one that cannot be read.
func (s *Store) Delete(ctx context.Context, id [16]byte) error {
	return s.locked(ctx, id, func() error {
		old, _, _ := s.read(id) // for the user, if it can be read
		if err := s.remove(id); err != nil {
			return err
		}
		if err := s.endUser(old.User, id); err != nil {
			return err
		}
		return s.forgetNew(id)
	})
}

// remove removes the record and what a killed writer left beside it. The
// caller holds the lock, and syncs the directory before it removes the entry in
// the index by user: else a power cut might bring the record back without it.
func (s *Store) remove(id [16]byte) error {
	err := s.fs.Remove(s.file(id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.fs.Remove(fsys.Temp(s.file(id)))
	return nil
}

// endUser makes the change or end of records durable, for it may be somebody
// else's who got no further, and then drops the entries. The records are in one
// directory.
func (s *Store) endUser(user string, ids ...[16]byte) error {
	if len(ids) == 0 {
		return nil
	}
	if err := s.syncRecords(ids[0]); err != nil {
		return err
	}
	for _, id := range ids {
		s.dropUser(user, id)
	}
	return nil
}

// forgetNew removes the entries that were announced for records of which none is
// left, once there are some, so that without sweeps, too, the index does not grow
// for ever. The caller holds the lock of all that share their ID's first byte, and
// has made durable that they are gone.
func (s *Store) forgetNew(id [16]byte) error {
	name := s.path("due", "new", hexByte(id[0]))
	info, err := s.fs.Lstat(name)
	if err != nil || info.Size() < int64(forgetFrom*entrySize) || !s.isEmpty(s.dirOf(id)) {
		return nil
	}
	err = s.fs.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fsys.Late(err)
}

// DeleteUser removes the user's records but those to keep. A record that cannot be
// deleted does not save the others.
func (s *Store) DeleteUser(ctx context.Context, user string, keep ...[16]byte) (n int, err error) {
	ids, err := s.userIDs(ctx, user)
	errs := []error{err}
	ids = slices.DeleteFunc(ids, func(id [16]byte) bool { return slices.Contains(keep, id) })
	for group := range groups(ids, firstByte) {
		if err := ctx.Err(); err != nil {
			errs = append(errs, err)
			break
		}
		deleted, err := s.deleteOfUser(ctx, user, group)
		n += deleted
		tally.Add(ctx, deleted)
		errs = append(errs, err)
	}
	return n, errors.Join(errs...)
}

// deleteOfUser removes those of a group of records that are the user's, and the
// entries anyway, with one sync for all of them. It returns the number of records.
func (s *Store) deleteOfUser(ctx context.Context, user string, group [][16]byte) (n int, err error) {
	err = s.locked(ctx, group[0], func() error {
		var errs []error
		var ended [][16]byte
		for _, id := range group {
			r, found, aside, err := s.lookupIntact(id)
			remove := err == nil && found && r.User == user
			if remove {
				err = s.remove(id)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", hexID(id), err))
				continue
			}
			if remove || aside {
				n++
			}
			ended = append(ended, id)
		}
		if err := s.endUser(user, ended...); err != nil {
			return errors.Join(append(errs, err)...)
		}
		return errors.Join(append(errs, s.forgetNew(group[0]))...)
	})
	return n, err
}

// groups cuts what is sorted by ID into groups of records that share a lock
// and a directory. They are small, so that nobody waits for long.
func groups[E any](list []E, first func(E) byte) iter.Seq[[]E] {
	return func(yield func([]E) bool) {
		for len(list) > 0 {
			n := 1
			for n < len(list) && n < groupSize && first(list[n]) == first(list[0]) {
				n++
			}
			if !yield(list[:n]) {
				return
			}
			list = list[n:]
		}
	}
}

func firstByte(id [16]byte) byte { return id[0] }
