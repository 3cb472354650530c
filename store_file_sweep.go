package session2

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/record"
	"github.com/session2/session2/internal/tally"
)

// DeleteOld implements [DeleteOldStore]. Sweeps of one folder, in whichever
// process, take turns. Writers wait for it as for one another, and readers not
// at all. A record that cannot be swept does not keep it from the others.
func (s *FileStore) DeleteOld(ctx context.Context, age time.Duration) (n int, err error) {
	if err := checkAge(age); err != nil {
		return 0, err
	}
	if err = s.begin(ctx); err == nil {
		n, err = s.deleteOld(ctx, dueTrees(time.Now(), age))
	}
	if err != nil {
		err = fmt.Errorf("session2: delete old: %w", err)
	}
	return n, err
}

func (s *FileStore) deleteOld(ctx context.Context, trees []dueTree) (n int, err error) {
	unlock, err := s.sweep.Lock(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	w := &fileSweep{FileStore: s, trees: trees}
	// Where the disk is full, nothing can be taken over; but what was taken
	// over before can be swept, and that makes room.
	w.failed = s.takeOver(ctx, trees)
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	for _, t := range trees {
		if err := w.sweepTree(ctx, t); err != nil {
			return w.deleted, err
		}
	}
	return w.deleted, w.failed
}

// fileSweep is one DeleteOld under way.
type fileSweep struct {
	*FileStore
	trees   []dueTree
	deleted int
	failed  error // the first failure that did not end the sweep; the entries stay
}

// old reports whether a record with these times is to be removed.
func (w *fileSweep) old(a record.Access) bool {
	return slices.ContainsFunc(w.trees, func(t dueTree) bool { return t.time(a) <= t.limit })
}

// sweepTree goes through the buckets that have come due, the oldest first.
func (w *fileSweep) sweepTree(ctx context.Context, t dueTree) error {
	dir, last := w.path("due", t.name), t.bucket(t.limit)
	var due []string
	err := w.eachName(dir, func(name string) {
		if strings.HasSuffix(name, fsys.Temp("")) {
			w.fs.Remove(filepath.Join(dir, name)) // of a sweep that was killed
		} else if len(name) == len(last) && name <= last {
			due = append(due, name)
		}
	})
	slices.Sort(due)
	for _, name := range due {
		if err == nil {
			err = w.sweepBucket(ctx, t, dir, name)
		}
	}
	return err
}

// sweepBucket visits the records whose entries in the bucket have come due,
// and leaves in it the others' entries alone.
func (w *fileSweep) sweepBucket(ctx context.Context, t dueTree, dir, name string) error {
	entries, err := w.readEntries(filepath.Join(dir, name))
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
	if err := w.fileEntries(t, elsewhere); err != nil {
		return err
	}
	return w.rewrite(filepath.Join(dir, name), append(keep, here...))
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
// the present entries of the others. It holds no lock for long.
func (w *fileSweep) visit(ctx context.Context, entries []dueEntry) (again []dueEntry, err error) {
	slices.SortFunc(entries, func(a, b dueEntry) int { return bytes.Compare(a.id[:], b.id[:]) })
	entries = slices.CompactFunc(entries, func(a, b dueEntry) bool { return a.id == b.id })
	for len(entries) > 0 {
		n := 1
		for n < len(entries) && n < dueGroup && entries[n].id[0] == entries[0].id[0] {
			n++
		}
		before := w.deleted
		err := w.locked(ctx, entries[0].id, func() (err error) {
			again, err = w.visitGroup(again, entries[:n])
			return err
		})
		tally.Add(ctx, w.deleted-before)
		if err != nil {
			return nil, err
		}
		entries = entries[n:]
	}
	return again, nil
}

// visitGroup does so for records under one lock, which the caller holds.
func (w *fileSweep) visitGroup(again, group []dueEntry) ([]dueEntry, error) {
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
