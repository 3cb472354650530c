package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/session2/session2/internal/fsys"
)

// takenOver marks a file of announced entries that belongs to the sweep. Save
// starts another one.
const takenOver = ".old"

// takeOver visits the records whose announced entries have come due, and files the
// entries of the others in the buckets: first those that an earlier sweep took and
// did not finish. Where the disk is full, nothing can be filed; but the visits make
// room.
func (w *sweep) takeOver(ctx context.Context) error {
	dir := w.path("due", "new")
	var names, left []string
	err := w.eachName(ctx, dir, func(name string) {
		if strings.HasSuffix(name, takenOver) {
			left = append(left, name)
		} else if len(name) == 2 {
			names = append(names, name)
		} else if fsys.IsTemp(name) {
			w.fs.Remove(filepath.Join(dir, name)) // of a writer that was killed; a living one tries again
		}
	})
	if err := w.goOn(ctx, err); err != nil {
		return err
	}
	for _, names := range [][]string{left, names} {
		if err := w.takeFiles(ctx, dir, names); err != nil {
			return err
		}
	}
	return nil
}

// takeFiles takes over the named files, in batches.
func (w *sweep) takeFiles(ctx context.Context, dir string, names []string) error {
	t := taking{sweep: w, dir: dir}
	for i, name := range names {
		if err := w.goOn(ctx, t.add(ctx, name)); err != nil {
			return err
		}
		if len(t.entries) < batchSize && i < len(names)-1 {
			continue
		}
		if err := w.goOn(ctx, t.finish(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// taking is a batch of files of announced entries to be taken over.
type taking struct {
	*sweep
	dir     string
	names   []string // of files that belong to the sweep
	entries []entry
}

// add takes a file over, and visits the records whose entries have come due. If the
// file cannot be taken, it stays as it is.
func (t *taking) add(ctx context.Context, name string) error {
	taken, failed := name, error(nil)
	if !strings.HasSuffix(name, takenOver) {
		taken, failed = t.take(ctx, name)
	}
	if taken == "" {
		return failed
	}
	entries, err := t.readEntries(filepath.Join(t.dir, taken))
	if err != nil {
		return errors.Join(failed, err)
	}
	due, keep := partition(entries, func(e entry) bool { return t.old(e.Access) })
	again, err := t.visit(ctx, due)
	if failed != nil || err != nil {
		return errors.Join(failed, err)
	}
	t.names, t.entries = append(t.names, taken), append(append(t.entries, keep...), again...)
	return nil
}

// take takes a file of announced entries over and returns its new name; or the old
// one and an error; or nothing if there is no such file. Under the lock nobody is
// between the entry and the record.
func (t *taking) take(ctx context.Context, name string) (taken string, err error) {
	first, err := strconv.ParseUint(name, 16, 8)
	if err != nil {
		return "", nil // not ours
	}
	from, to := filepath.Join(t.dir, name), filepath.Join(t.dir, name+takenOver)
	err = t.locked(ctx, [16]byte{byte(first)}, func() error {
		taken = name
		_, err := t.fs.Lstat(to)
		if err == nil { // its entries could not be filed
			return fmt.Errorf("%s: %w", to, fs.ErrExist)
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = t.fs.Rename(from, to)
		}
		if errors.Is(err, fs.ErrNotExist) { // the last of the records was deleted meanwhile
			taken = ""
			return nil
		}
		if err == nil {
			taken = name + takenOver
		}
		return err
	})
	return taken, err
}

// finish files the entries of the batch and removes the files. If that fails, the
// files stay, and the next sweep goes on with them.
func (t *taking) finish(ctx context.Context) error {
	names, entries := t.names, t.entries
	t.names, t.entries = nil, nil
	for _, tree := range t.trees {
		if err := t.fileEntries(ctx, tree, entries); err != nil {
			return err
		}
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, t.fs.Remove(filepath.Join(t.dir, name)))
	}
	return errors.Join(errs...)
}
