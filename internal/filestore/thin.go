package filestore

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/record"
)

const (
	// thinSample is how many entries of a bucket tell whether it is worth thinning
	// out, and thinSound, after how many buckets that are not a sweep stops looking.
	thinSample = 16
	thinSound  = 8
)

// thin drops entries whose record is gone from buckets that have not come due,
// as some never do: a session that ends by a logout leaves an entry in both
// trees, and one that expires under the manager's Cleanup, which goes by no age,
// leaves one by access.
//
// It looks into the buckets in random order, at a few entries of each, and
// rewrites those in which half of them lead to nothing, until it has seen a few
// that are sound. So what it costs is in proportion to what it drops, each bucket
// has its turn, and when no record is left, no entry is.
func (w *sweep) thin(ctx context.Context, t tree) error {
	names, err := w.buckets(ctx, t)
	if err != nil {
		return err
	}
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for sound := 0; len(names) > 0 && sound < thinSound; {
		b := thinning{sweep: w}
		for ; len(names) > 0 && sound < thinSound && b.entries < batchSize; names = names[1:] {
			if err := ctx.Err(); err != nil {
				return err
			}
			path := w.path("due", t.name, names[0])
			dead, err := w.isMostlyDead(path)
			if err == nil && dead {
				err = b.add(ctx, path)
			} else {
				sound++
			}
			if err := w.goOn(ctx, err); err != nil {
				return err
			}
		}
		if err := b.finish(ctx); err != nil {
			return err
		}
	}
	return nil
}

// isMostlyDead looks at some of the entries in a bucket. One without entries is.
func (w *sweep) isMostlyDead(path string) (bool, error) {
	f, err := w.fs.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	n := int(info.Size() / int64(entrySize))
	dead, all := 0, min(n, thinSample)
	buf := make([]byte, entrySize)
	for i := range all {
		if n > thinSample {
			i = rand.IntN(n)
		}
		if _, err := f.ReadAt(buf, int64(i*entrySize)); err != nil {
			return false, err
		}
		if _, err := record.DecodeAccess(buf[idSize:]); err != nil || w.isGone([16]byte(buf)) {
			dead++
		}
	}
	return 2*dead >= all, nil
}

// isGone reports whether there is no record. It needs no lock for an entry in a
// bucket: that was taken over when nobody was between the entry and the record,
// and whoever creates a record anew announces it anew.
func (w *sweep) isGone(id [16]byte) bool {
	_, err := w.fs.Lstat(w.file(id))
	return errors.Is(err, fs.ErrNotExist)
}

// thinning is a batch of buckets to be rewritten.
type thinning struct {
	*sweep
	paths   []string
	live    [][]entry // by path
	entries int       // in all of them
	gone    [256]bool // the directories that records are gone from
}

// add reads a bucket.
func (b *thinning) add(ctx context.Context, path string) error {
	entries, err := b.readEntries(path)
	if err != nil {
		return err
	}
	dead, live := partition(entries, func(e entry) bool { return b.isGone(e.id) })
	for _, e := range dead {
		b.gone[e.id[0]] = true
		if err := b.dropTemp(ctx, e.id); err != nil {
			return err
		}
	}
	b.paths, b.live, b.entries = append(b.paths, path), append(b.live, live), b.entries+len(entries)
	return nil
}

// finish drops the dead entries, once it is durable that their records are gone:
// else a power cut might bring a record back that nothing leads to. A bucket that
// cannot be rewritten stays as it is.
func (b *thinning) finish(ctx context.Context) error {
	for i, gone := range b.gone {
		if !gone {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := b.syncRecords([16]byte{byte(i)}); err != nil {
			return b.goOn(ctx, err) // another batch may have none from there
		}
	}
	for i, path := range b.paths {
		if err := b.goOn(ctx, b.rewrite(path, b.live[i])); err != nil {
			return err
		}
	}
	return nil
}

// dropTemp removes what a writer left who was killed before there was a record.
func (w *sweep) dropTemp(ctx context.Context, id [16]byte) error {
	temp := fsys.Temp(w.file(id))
	if _, err := w.fs.Lstat(temp); err != nil {
		return nil
	}
	return w.locked(ctx, id, func() error {
		w.fs.Remove(temp)
		return nil
	})
}
