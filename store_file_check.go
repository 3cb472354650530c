package session2

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/record"
)

// CheckIndexes returns the IDs of the records that are missing from the index by
// user, and of those that are missing from the index by time: RevokeUser misses
// the former, and DeleteOld the latter. It reads every record, changes nothing, and
// holds up DeleteOld, but no other call.
//
// An index that has vanished is rebuilt by Setup, and by the next call that needs
// it. One that lacks entries here and there, because somebody removed those, is
// rebuilt by [FileStore.RebuildIndexes], as the command session2 setup does. Save
// and Touch enter a session in the index by user again.
func (s *FileStore) CheckIndexes(ctx context.Context) (users, due []ID, err error) {
	err = s.healed(ctx, func() error {
		users, due, err = s.checkIndexes(ctx)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("session2: check indexes: %w", err)
	}
	return users, due, nil
}

func (s *FileStore) checkIndexes(ctx context.Context) (users, due []ID, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, nil, err
	}
	unlock, err := s.sweep.Lock(ctx) // now new entries come to due/new alone
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	c := fileCheck{FileStore: s, filed: make(dueTimes)}
	if err := c.readFiled(ctx); err != nil {
		return nil, nil, err
	}
	for i := range s.locks {
		ids, err := s.folderIDs(ctx, byte(i))
		if err != nil {
			return nil, nil, err
		}
		for group := range fileGroups(ids, func(id ID) ID { return id }) {
			if err := s.locked(ctx, group[0], func() error { return c.check(group) }); err != nil {
				return nil, nil, err
			}
		}
	}
	return c.noUser, c.noTime, nil
}

// fileCheck is one CheckIndexes under way.
type fileCheck struct {
	*FileStore
	filed          dueTimes // by the buckets
	noUser, noTime []ID
}

// dueTimes are the earliest times at which entries lead to records; a record
// without an entry is one to which they never do. After a power cut that took back
// a Touch, they may be later than the record's, which is no loss.
type dueTimes map[ID]record.Access

const never = math.MaxInt64

func (d dueTimes) of(id ID) record.Access {
	if a, ok := d[id]; ok {
		return a
	}
	return record.Access{Accessed: never, Expires: never}
}

func (d dueTimes) add(id ID, a record.Access) {
	d[id] = d.of(id).Earlier(a)
}

// readFiled reads the buckets, and what a sweep has taken over and not filed.
func (c *fileCheck) readFiled(ctx context.Context) error {
	for _, dir := range fileIndexes[1:] {
		dir = c.path(filepath.FromSlash(dir))
		var names []string
		err := c.eachName(ctx, dir, func(name string) {
			if len(name) != len("xx") && name != indexMark && !fsys.IsTemp(name) { // xx come under the records' locks
				names = append(names, name)
			}
		})
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := c.readDue(c.filed, filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// readDue reads one file of entries. Those in a bucket say one of the times.
func (c *fileCheck) readDue(to dueTimes, name string) error {
	entries, err := c.readEntries(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		switch filepath.Base(filepath.Dir(name)) {
		case "accessed":
			e.Expires = never
		case "expires":
			e.Accessed = never
		}
		to.add(e.id, e.Access)
	}
	return err
}

// check checks records that share a lock, which the caller holds.
func (c *fileCheck) check(group []ID) error {
	announced := make(dueTimes)
	if err := c.readDue(announced, c.path("due", "new", hexByte(group[0][0]))); err != nil {
		return err
	}
	for _, id := range group {
		r, found, err := c.read(id)
		if errors.Is(err, ErrCorrupt) || err == nil && !found { // whoever meets it sets it aside
			continue
		}
		if err != nil {
			return err
		}
		if c.lacksUser(r.User, id) {
			c.noUser = append(c.noUser, id)
		}
		a, b := c.filed.of(id), announced.of(id)
		if min(a.Accessed, b.Accessed) == never || min(a.Expires, b.Expires) == never {
			c.noTime = append(c.noTime, id)
		}
	}
	return nil
}
