package filestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/lockfile"
	"github.com/session2/session2/internal/record"
	"github.com/session2/session2/internal/tally"
)

// DeleteOld removes the records that are due. Sweeps of one directory, in
// whichever process, take turns. Writers wait for it as for one another, and readers not
// at all. A record that cannot be swept does not keep it from the others.
func (s *Store) DeleteOld(ctx context.Context, accessed, expires int64) (int, error) {
	w := &sweep{Store: s, trees: trees(accessed, expires)}
	err := s.withLock(ctx, s.sweeps, func() error { return w.run(ctx) })
	return w.deleted, err
}

// sweep is one DeleteOld under way.
type sweep struct {
	*Store
	trees   []tree
	deleted int
	failed  error // the first failure that did not end the sweep; the entries stay
}

func (w *sweep) run(ctx context.Context) error {
	w.failed = nil // by an earlier try
	if err := w.goOn(ctx, w.rebuild(ctx, allIndexes)); err != nil {
		return err
	}
	if err := w.goOn(ctx, w.takeOver(ctx)); err != nil {
		return err
	}
	for _, t := range w.trees {
		if err := w.goOn(ctx, w.sweepTree(ctx, t)); err != nil {
			return err
		}
	}
	for _, t := range w.trees { // by now all that goes is gone
		if err := w.goOn(ctx, w.thin(ctx, t)); err != nil {
			return err
		}
	}
	return w.failed
}

// goOn notes a failure of one step, which does not keep the sweep from the others:
// where the disk is full, most steps that write fail, and those that remove make
// room. It returns an error if the sweep is to end, because the context has ended or
// the store is closed, when no step would succeed, or because another process stands
// still with a lock, for which each step would wait anew.
func (w *sweep) goOn(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if end := w.ready(ctx); end != nil {
		return end
	}
	if errors.Is(err, lockfile.ErrHeld) {
		return err
	}
	w.failed = cmp.Or(w.failed, err)
	return nil
}

// old reports whether a record with these times is to be removed.
func (w *sweep) old(a record.Access) bool {
	return slices.ContainsFunc(w.trees, func(t tree) bool { return t.time(a) <= t.limit })
}

// sweepTree goes through the buckets that have come due, the oldest first.
func (w *sweep) sweepTree(ctx context.Context, t tree) error {
	names, err := w.buckets(ctx, t)
	if err != nil {
		return err
	}
	last := t.bucket(t.limit)
	slices.Sort(names)
	for _, name := range names {
		if name > last {
			break
		}
		if err := w.goOn(ctx, w.sweepBucket(ctx, t, name)); err != nil {
			return err
		}
	}
	return nil
}

// buckets returns the names of a tree's buckets.
func (w *sweep) buckets(ctx context.Context, t tree) (names []string, err error) {
	dir, size := w.path("due", t.name), len(t.bucket(0))
	err = w.eachName(ctx, dir, func(name string) {
		if fsys.IsTemp(name) {
			w.fs.Remove(filepath.Join(dir, name)) // of a sweep that was killed
		} else if len(name) == size {
			names = append(names, name)
		}
	})
	return names, err
}

// sweepBucket visits the records whose entries in the bucket have come due,
// and leaves in it the others' entries alone. If it fails, all entries stay.
func (w *sweep) sweepBucket(ctx context.Context, t tree, name string) error {
	path := w.path("due", t.name, name)
	entries, err := w.readEntries(path)
	if err != nil {
		return err
	}
	due, keep := partition(entries, func(e entry) bool { return t.time(e.Access) <= t.limit })
	if len(due) == 0 && len(keep) > 0 {
		return nil
	}
	again, err := w.visit(ctx, due)
	if err != nil {
		return err
	}
	here, elsewhere := partition(again, func(e entry) bool { return t.bucket(t.time(e.Access)) == name })
	if err := w.fileEntries(ctx, t, elsewhere); err != nil {
		return err
	}
	return w.rewrite(path, append(keep, here...))
}

// rewrite leaves these entries in a bucket.
func (w *sweep) rewrite(name string, entries []entry) error {
	if len(entries) == 0 {
		return w.fs.Remove(name)
	}
	return fsys.WriteFile(w.fs, name, w.sync, func(f io.Writer) error {
		_, err := f.Write(encodeEntries(entries))
		return err
	})
}

// visit removes the old ones of the records that entries lead to, and returns
// the present entries of the others, and those of the records that it failed at. It
// holds no lock for long.
func (w *sweep) visit(ctx context.Context, entries []entry) (again []entry, err error) {
	for group := range groups(earliest(entries), func(e entry) byte { return e.id[0] }) {
		before := w.deleted
		var live []entry
		err := w.locked(ctx, group[0].id, func() (err error) {
			live, err = w.visitGroup(group)
			return err
		})
		tally.Add(ctx, w.deleted-before)
		if err != nil {
			live = group
		}
		if err := w.goOn(ctx, err); err != nil {
			return nil, err
		}
		again = append(again, live...)
	}
	return again, nil
}

// visitGroup does so for records under one lock, which the caller holds.
func (w *sweep) visitGroup(group []entry) (again []entry, err error) {
	var gone []record.Record
	for _, e := range group {
		r, found, aside, err := w.lookupIntact(e.id) // the second look: it may have been saved or touched
		live := found && !w.old(r.Access)
		switch {
		case err == nil && live:
			w.fs.Remove(fsys.Temp(w.file(e.id))) // of a writer that was killed
			again = append(again, entry{e.id, r.Access})
			continue
		case err == nil:
			err = w.remove(e.id)
		}
		if err != nil {
			w.failed = cmp.Or(w.failed, fmt.Errorf("%s: %w", hexID(e.id), err))
			again = append(again, e)
			continue
		}
		if found || aside {
			w.deleted++
		}
		gone = append(gone, record.Record{ID: e.id, User: r.User})
	}
	if len(gone) == 0 {
		return again, nil
	}
	// Also for those that were gone before: their end may not be durable yet.
	if err := w.syncRecords(group[0].id); err != nil {
		return nil, err
	}
	for _, r := range gone {
		w.dropUser(r.User, r.ID)
	}
	return again, nil
}
