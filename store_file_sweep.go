package session2

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/record"
	"github.com/session2/session2/internal/tally"
)

// DeleteOld implements [DeleteOldStore]. Sweeps of one directory, in
// whichever process, take turns. Writers wait for it as for one another, and readers not
// at all. A record that cannot be swept does not keep it from the others.
func (s *FileStore) DeleteOld(ctx context.Context, age time.Duration) (n int, err error) {
	if err := checkAge(age); err != nil {
		return 0, err
	}
	w := &fileSweep{FileStore: s, trees: dueTrees(time.Now(), age)}
	if err := s.healed(ctx, func() error { return w.run(ctx) }); err != nil {
		return w.deleted, fmt.Errorf("session2: delete old: %w", err)
	}
	return w.deleted, nil
}

// fileSweep is one DeleteOld under way.
type fileSweep struct {
	*FileStore
	trees   []dueTree
	deleted int
	failed  error // the first failure that did not end the sweep; the entries stay
}

func (w *fileSweep) run(ctx context.Context) error {
	if err := w.begin(ctx); err != nil {
		return err
	}
	unlock, err := w.sweep.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	w.failed = nil // by an earlier try
	if err := w.goOn(ctx, w.rebuild(ctx, fileIndexes)); err != nil {
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
// the store is closed: then no step would succeed.
func (w *fileSweep) goOn(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if end := w.begin(ctx); end != nil {
		return end
	}
	w.failed = cmp.Or(w.failed, err)
	return nil
}

// old reports whether a record with these times is to be removed.
func (w *fileSweep) old(a record.Access) bool {
	return slices.ContainsFunc(w.trees, func(t dueTree) bool { return t.time(a) <= t.limit })
}

// sweepTree goes through the buckets that have come due, the oldest first.
func (w *fileSweep) sweepTree(ctx context.Context, t dueTree) error {
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
func (w *fileSweep) buckets(ctx context.Context, t dueTree) (names []string, err error) {
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
func (w *fileSweep) sweepBucket(ctx context.Context, t dueTree, name string) error {
	path := w.path("due", t.name, name)
	entries, err := w.readEntries(path)
	if err != nil {
		return err
	}
	due, keep := partition(entries, func(e dueEntry) bool { return t.time(e.Access) <= t.limit })
	if len(due) == 0 && len(keep) > 0 {
		return nil
	}
	again, err := w.visit(ctx, due)
	if err != nil {
		return err
	}
	here, elsewhere := partition(again, func(e dueEntry) bool { return t.bucket(t.time(e.Access)) == name })
	if err := w.fileEntries(ctx, t, elsewhere); err != nil {
		return err
	}
	return w.rewrite(path, append(keep, here...))
}

// rewrite leaves these entries in a bucket.
func (w *fileSweep) rewrite(name string, entries []dueEntry) error {
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
func (w *fileSweep) visit(ctx context.Context, entries []dueEntry) (again []dueEntry, err error) {
	for group := range fileGroups(earliest(entries), func(e dueEntry) ID { return e.id }) {
		before := w.deleted
		var live []dueEntry
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

// earliest sorts entries by their IDs and leaves one of each, with the earliest
// times of all.
func earliest(entries []dueEntry) (list []dueEntry) {
	slices.SortFunc(entries, func(a, b dueEntry) int { return bytes.Compare(a.id[:], b.id[:]) })
	for _, e := range entries {
		if n := len(list); n == 0 || list[n-1].id != e.id {
			list = append(list, e)
		} else {
			list[n-1].Access = list[n-1].Earlier(e.Access)
		}
	}
	return list
}

// visitGroup does so for records under one lock, which the caller holds.
func (w *fileSweep) visitGroup(group []dueEntry) (again []dueEntry, err error) {
	var gone []record.Record
	for _, e := range group {
		r, found, aside, err := w.lookupIntact(e.id) // the second look: it may have been saved or touched
		live := found && !w.old(r.Access)
		switch {
		case err == nil && live:
			w.fs.Remove(fsys.Temp(w.file(e.id))) // of a writer that was killed
			again = append(again, dueEntry{e.id, r.Access})
			continue
		case err == nil:
			err = w.remove(e.id)
		}
		if err != nil {
			w.failed = cmp.Or(w.failed, fmt.Errorf("%v: %w", e.id, err))
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
	if err := w.syncFolder(group[0].id); err != nil {
		return nil, err
	}
	for _, r := range gone {
		w.dropUser(r.User, r.ID)
	}
	return again, nil
}

// partition splits entries by what fn says of them.
func partition(entries []dueEntry, fn func(dueEntry) bool) (yes, no []dueEntry) {
	for _, e := range entries {
		if fn(e) {
			yes = append(yes, e)
		} else {
			no = append(no, e)
		}
	}
	return yes, no
}
