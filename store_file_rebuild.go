package session2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/record"
)

// Each directory of the indexes holds an empty file, complete. It says that no
// entry has been lost from there since every record had one, and it is lost with
// them: whoever removes the directory, or the files in it, removes the mark, too.
// A call that goes by an index looks for the mark first. If it is missing, the
// call makes the entries of all records anew, and then the mark. So it does once
// in a store of an earlier release, which made no marks and ignores them.
//
// A rebuilding holds the sweep's lock, and a record's lock while it enters that
// record; writers enter theirs meanwhile as ever. Until all entries are durable,
// the mark is a temporary. To rename it fails if somebody has removed it, and
// perhaps entries with it.

// indexMark is the mark's name. A sweep takes it for no entries of its own.
const indexMark = "complete"

const userIndex = "users"

// fileIndexes are the directories that have a mark. An entry that is lost from
// any of those by time is announced anew under the first.
var fileIndexes = []string{userIndex, "due/new", "due/accessed", "due/expires"}

func (s *FileStore) mark(index string) string { return s.path(filepath.FromSlash(index), indexMark) }

// unmarked returns those of the indexes whose mark is missing.
func (s *FileStore) unmarked(indexes []string) (list []string, err error) {
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
func (s *FileStore) unmark(indexes []string) error {
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
// then drops what [FileStore.TrimIndexes] does. It holds up DeleteOld, and takes the
// longer the more records there are. If it does not come to its end, the next call
// that needs an index goes on with making it.
func (s *FileStore) RebuildIndexes(ctx context.Context) error {
	err := s.begin(ctx)
	if err == nil {
		err = s.unmark(fileIndexes)
	}
	if err == nil {
		err = s.complete(ctx, fileIndexes...)
	}
	if err == nil {
		err = s.trim(ctx)
	}
	if err != nil {
		return fmt.Errorf("session2: rebuild indexes: %w", err)
	}
	return nil
}

// complete rebuilds those of the indexes whose mark is missing. The caller holds
// no lock.
func (s *FileStore) complete(ctx context.Context, indexes ...string) error {
	lost, err := s.unmarked(indexes)
	if err != nil || len(lost) == 0 {
		return err
	}
	return s.healed(ctx, func() error {
		if err := s.begin(ctx); err != nil {
			return err
		}
		unlock, err := s.sweep.Lock(ctx)
		if err != nil {
			return err
		}
		defer unlock()
		return s.rebuild(ctx, indexes)
	})
}

// rebuild does so for a caller who holds the sweep's lock.
func (s *FileStore) rebuild(ctx context.Context, indexes []string) error {
	lost, err := s.unmarked(indexes) // somebody else may have been faster
	if err != nil || len(lost) == 0 {
		return err
	}
	b := rebuilding{FileStore: s, parents: make(map[string]bool)}
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
		if err := b.enterFolder(ctx, byte(i)); err != nil {
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
	*FileStore
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

// enterFolder enters the records of one directory. Those that come after it has
// listed them are entered by whoever saves them.
func (b *rebuilding) enterFolder(ctx context.Context, first byte) error {
	ids, err := b.folderIDs(ctx, first)
	if err != nil {
		return err
	}
	made := make(map[string]bool) // users' directories, to be synced together: that costs less
	for group := range fileGroups(ids, func(id ID) ID { return id }) {
		if err := b.locked(ctx, group[0], func() error { return b.enter(group, made) }); err != nil {
			return err
		}
	}
	return b.syncAll(made)
}

// enter enters records that share a lock, which the caller holds.
func (b *rebuilding) enter(group []ID, made map[string]bool) error {
	var due []dueEntry
	for _, id := range group {
		r, found, err := b.read(id)
		switch {
		case errors.Is(err, ErrCorrupt): // a sweep will come to it
			found, r.Access = true, b.access(id)
		case err != nil:
			return err
		}
		if found {
			due = append(due, dueEntry{id, r.Access})
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
func (s *FileStore) access(id ID) record.Access {
	f, err := s.fs.OpenFile(s.file(id), os.O_RDONLY, 0)
	if err != nil {
		return record.Access{}
	}
	defer f.Close()
	head := make([]byte, record.HeadSize)
	if _, err := f.ReadAt(head, 0); err != nil && err != io.EOF {
		return record.Access{}
	}
	a, err := record.DecodeHead(head)
	if err != nil {
		return record.Access{}
	}
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

// lacksUser reports whether the index by user has no entry for a record.
func (s *FileStore) lacksUser(user string, id ID) bool {
	if user == "" {
		return false
	}
	_, err := s.fs.Lstat(s.userFolder(user) + separator + id.String())
	return errors.Is(err, fs.ErrNotExist)
}
