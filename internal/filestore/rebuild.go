package filestore

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/record"
)

// indexMark is the mark's name. A sweep takes it for no entries of its own.
const indexMark = "complete"

const userIndex = "users"

// allIndexes are the directories that have a mark. An entry that is lost from
// any of those by time is announced anew under the first.
var allIndexes = []string{userIndex, "due/new", "due/accessed", "due/expires"}

func (s *Store) mark(index string) string { return s.path(filepath.FromSlash(index), indexMark) }

// unmarked returns those of the indexes whose mark is missing.
func (s *Store) unmarked(indexes []string) (list []string, err error) {
	for _, index := range indexes {
		_, err := s.fs.Lstat(s.mark(index))
		if errors.Is(err, fs.ErrNotExist) {
			list = append(list, index)
		} else if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// unmark has indexes rebuilt by the next call that needs them.
func (s *Store) unmark(indexes []string) error {
	var errs []error
	for _, index := range indexes {
		err := s.fs.Remove(s.mark(index))
		if err == nil {
			err = s.syncDir(filepath.Dir(s.mark(index)))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// RebuildIndexes makes the indexes by user and by time anew from the records, and
// then drops what TrimIndexes does.
func (s *Store) RebuildIndexes(ctx context.Context) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	if err := s.unmark(allIndexes); err != nil {
		return err
	}
	if err := s.complete(ctx, allIndexes...); err != nil {
		return err
	}
	return s.TrimIndexes(ctx)
}

// complete rebuilds those of the indexes whose mark is missing. The caller holds
// no lock.
func (s *Store) complete(ctx context.Context, indexes ...string) error {
	lost, err := s.unmarked(indexes)
	if err != nil || len(lost) == 0 {
		return err
	}
	return s.withLock(ctx, s.sweeps, func() error { return s.rebuild(ctx, indexes) })
}

// rebuild does so for a caller who holds the sweep's lock.
func (s *Store) rebuild(ctx context.Context, indexes []string) error {
	lost, err := s.unmarked(indexes) // somebody else may have been faster
	if err != nil || len(lost) == 0 {
		return err
	}
	b := rebuilding{Store: s, parents: make(map[string]bool)}
	for _, index := range lost {
		b.users = b.users || index == userIndex
		b.due = b.due || index != userIndex
		unfinished, err := b.start(index)
		if err != nil {
			return err
		}
		b.again = b.again || unfinished
	}
	for i := range s.locks {
		if err := b.enterDir(ctx, byte(i)); err != nil {
			return err
		}
	}
	if err := b.syncAll(b.parents); err != nil {
		return err
	}
	for _, index := range lost {
		if err := b.finish(index); err != nil {
			return err
		}
	}
	return nil
}

// rebuilding is one rebuilding under way.
type rebuilding struct {
	*Store
	users, due bool            // which indexes
	again      bool            // an earlier one did not finish: not all entries that are there are durable
	parents    map[string]bool // directories users/xx to be synced in the end
}

// start makes the mark's temporary, and reports whether there was one.
func (b *rebuilding) start(index string) (unfinished bool, err error) {
	temp := fsys.Temp(b.mark(index))
	_, err = b.fs.Lstat(temp)
	unfinished = err == nil
	f, err := b.fs.OpenFile(temp, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return unfinished, err
	}
	return unfinished, f.Close()
}

// finish gives the mark its name.
func (b *rebuilding) finish(index string) error {
	if err := b.fs.Rename(fsys.Temp(b.mark(index)), b.mark(index)); err != nil {
		return err
	}
	return b.syncDir(filepath.Dir(b.mark(index)))
}

// enterDir enters the records of one directory. Those that come after it has
// listed them are entered by whoever saves them.
func (b *rebuilding) enterDir(ctx context.Context, first byte) error {
	made := make(map[string]bool) // users' directories, to be synced together: that costs less
	err := b.eachGroup(ctx, first, func(group [][16]byte) error { return b.enter(group, made) })
	if err != nil {
		return err
	}
	return b.syncAll(made)
}

// enter enters records that share a lock, which the caller holds.
func (b *rebuilding) enter(group [][16]byte, made map[string]bool) error {
	var due []entry
	for _, id := range group {
		r, found, err := b.read(id)
		switch {
		case errors.Is(err, record.ErrCorrupt): // a sweep will come to it
			found, r.Access = true, b.access(id)
		case err != nil:
			return err
		}
		if found {
			due = append(due, entry{id, r.Access})
		}
		if r.User == "" || !b.users || !b.again && !b.lacksUser(r.User, id) {
			continue
		}
		dir, err := b.makeUser(r.User, id)
		if err != nil {
			return err
		}
		made[dir], b.parents[filepath.Dir(dir)] = true, true
	}
	if !b.due || len(due) == 0 {
		return nil
	}
	return b.appendEntries(b.path("due", "new"), hexByte(group[0][0]), due)
}

// access returns the times of a record that may be unreadable otherwise; if they
// are unreadable, too, they have passed long ago.
func (s *Store) access(id [16]byte) record.Access {
	f, err := s.fs.OpenFile(s.file(id), os.O_RDONLY, 0)
	if err != nil {
		return record.Access{}
	}
	defer f.Close()
	head := make([]byte, record.HeadSize)
	f.ReadAt(head, 0) // the checksums tell whether it succeeded
	a, _ := record.DecodeHead(head)
	return a
}

// syncAll makes the names in directories durable. One that has been removed since
// held no entry that a record needs.
func (b *rebuilding) syncAll(dirs map[string]bool) error {
	for dir := range dirs {
		if err := b.syncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
