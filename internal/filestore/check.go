package filestore

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"path/filepath"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/record"
)

// CheckIndexes returns the IDs of the records that are missing from the index by
// user, and of those that are missing from the index by time. It reads every record,
// changes nothing, and holds up DeleteOld, but no other call.
func (s *Store) CheckIndexes(ctx context.Context) (users, due [][16]byte, err error) {
	err = s.withLock(ctx, s.sweeps, func() error { // now new entries come to due/new alone
		c := checking{Store: s, filed: make(times)}
		if err := c.readFiled(ctx); err != nil {
			return err
		}
		for i := range s.locks {
			if err := s.eachGroup(ctx, byte(i), c.checkGroup); err != nil {
				return err
			}
		}
		users, due = c.noUser, c.noTime
		return nil
	})
	return users, due, err
}

// checking is one CheckIndexes under way.
type checking struct {
	*Store
	filed          times // by the buckets
	noUser, noTime [][16]byte
}

// times are the earliest times at which entries lead to records; a record
// without an entry is one to which they never do. After a power cut that took back
// a Touch, they may be later than the record's, which is no loss.
type times map[[16]byte]record.Access

const never = math.MaxInt64

func (d times) of(id [16]byte) record.Access {
	if a, ok := d[id]; ok {
		return a
	}
	return record.Access{Accessed: never, Expires: never}
}

func (d times) add(id [16]byte, a record.Access) {
	d[id] = d.of(id).Earlier(a)
}

// readFiled reads the buckets, and what a sweep has taken over and not filed.
func (c *checking) readFiled(ctx context.Context) error {
	for _, dir := range allIndexes[1:] {
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
func (c *checking) readDue(to times, name string) error {
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

// checkGroup checks records that share a lock, which the caller holds.
func (c *checking) checkGroup(group [][16]byte) error {
	announced := make(times)
	if err := c.readDue(announced, c.path("due", "new", hexByte(group[0][0]))); err != nil {
		return err
	}
	for _, id := range group {
		r, found, err := c.read(id)
		if errors.Is(err, record.ErrCorrupt) || err == nil && !found { // whoever meets it sets it aside
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
