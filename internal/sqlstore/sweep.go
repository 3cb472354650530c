package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"math"
	"math/rand/v2"
	"time"

	"github.com/session2/session2/internal/tally"
)

// DeleteOld removes the records whose access is at or before accessed and
// those whose expiry is at or before expires, and returns their number.
func (s *Store) DeleteOld(ctx context.Context, accessed, expires int64) (int, error) {
	n, sure, err := s.sweep(ctx, s.q.Accessed, accessed)
	if err != nil {
		return n, uncounted(sure, err)
	}
	m, also, err := s.sweep(ctx, s.q.Expires, expires)
	return n + m, uncounted(sure && also, err)
}

// rest is how long a sweep pauses after a batch, as a multiple of the time that
// the batch took: whatever the server has to give, three quarters of it stay for
// the readers.
const rest = 3

// sweep walks along one index, a batch at a time. It returns how many it
// deleted, and whether that is sure.
func (s *Store) sweep(ctx context.Context, q Sweep, to int64) (deleted int, sure bool, err error) {
	w := walk{store: s, q: q, to: to, from: place{filed: math.MinInt64}}
	for {
		start := time.Now()
		more, err := w.batch(ctx)
		if err != nil || !more {
			return w.deleted, !w.unsure, err
		}
		if err := wait(ctx, rest*time.Since(start)+1); err != nil {
			return w.deleted, !w.unsure, err
		}
	}
}

// A walk goes along an index from its beginning, each statement a transaction
// of its own. It goes on behind the last row it saw, so that it never looks
// again at what it deleted, and rows which others hold stay behind for them.
//
// Where most of a batch is gone or held by others, another sweep is at work. So
// as not to do its work once more, the walk leaps ahead, and from the end comes
// back to where it first leapt. Each time that is further on.
type walk struct {
	store   *Store
	q       Sweep
	to      int64
	deleted int
	unsure  bool // an answer was lost: it may be more
	from    place
	leapt   *place // where it first leapt
	leaps   int    // in a row
}

// place is one in the order of an index: behind the row that is filed there.
type place struct {
	filed int64
	id    [16]byte
}

// hit is a row that a walk found.
type hit struct {
	place
	time int64
}

// batch handles the next rows, and reports whether there may be more.
func (w *walk) batch(ctx context.Context) (more bool, err error) {
	hits, err := w.find(ctx)
	if err != nil {
		return false, err
	}
	settled, err := w.settle(ctx, hits)
	if err != nil {
		return false, err
	}
	if len(hits) < BatchIDs {
		return w.back(), nil
	}
	w.from = hits[len(hits)-1].place
	if 2*settled < len(hits) {
		w.leap(hits[0].filed)
	} else {
		w.leaps = 0
	}
	return true, nil
}

// leap goes ahead by a random time, of the order of what many batches like the
// last one span, and of more each time in a row. Where all is filed at one time
// there is nowhere to leap to: two sweeps then both look at all of it.
func (w *walk) leap(first int64) {
	span, reach := uint64(w.from.filed)-uint64(first), uint64(w.to)-uint64(w.from.filed)
	w.leaps++
	if shift := min(3+w.leaps, 20); span < reach>>shift {
		reach = span << shift
	}
	if reach == 0 {
		return
	}
	if w.leapt == nil {
		from := w.from
		w.leapt = &from
	}
	w.from.filed += int64(rand.Uint64N(reach))
}

// back goes back to where the walk first leapt, if it did.
func (w *walk) back() bool {
	if w.leapt == nil {
		return false
	}
	w.from, w.leapt, w.leaps = *w.leapt, nil, 0
	return true
}

func (w *walk) find(ctx context.Context) ([]hit, error) {
	list := w.store.args(w.from.filed, w.from.id[:], w.from.filed, w.to)
	return query(ctx, w.store, w.q.Find, list, func(rows *sql.Rows, h *hit) error {
		return rows.Scan(idOf(&h.id), &h.filed, &h.time)
	})
}

// settle deletes what is old among the hits and files anew what is not. It
// returns how many hits that were.
func (w *walk) settle(ctx context.Context, hits []hit) (settled int, err error) {
	var old, early [][16]byte
	for _, h := range hits {
		if h.time <= w.to {
			old = append(old, h.id)
		} else {
			early = append(early, h.id)
		}
	}
	if len(old) > 0 {
		var out written
		out, err = w.store.execSkip(ctx, w.q.Delete, w.store.named(append(batch(old, BatchIDs), w.to)...))
		settled = out.rows
		w.deleted += settled
		w.unsure = w.unsure || !out.exact(len(old), err)
		tally.Add(ctx, settled)
	}
	if len(early) > 0 && err == nil {
		var out written
		out, err = w.store.execSkip(ctx, w.q.Refile, w.store.named(batch(early, BatchIDs)...))
		settled += out.rows
	}
	return settled, err
}

// execSkip runs the form of a statement that the server knows.
func (s *Store) execSkip(ctx context.Context, q Skipping, args []driver.NamedValue) (written, error) {
	lost := false
	if !s.waits.Load() {
		w, err := s.exec(ctx, q.Skip, args)
		if fault := s.fault(err); fault != Unknown && fault != Vague {
			return w, err
		}
		lost = w.lost
	}
	w, err := s.exec(ctx, q.Wait, args)
	if err == nil {
		s.waits.Store(true)
	}
	w.lost = w.lost || lost
	return w, err
}
