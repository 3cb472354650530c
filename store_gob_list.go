package session2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/goblog"
	"github.com/session2/session2/internal/record"
	"github.com/session2/session2/internal/tally"
)

// DeleteOld implements [DeleteOldStore], in batches between which others have
// their turn. It looks at each record again at the moment of the deletion.
func (s *GobStore) DeleteOld(ctx context.Context, age time.Duration) (int, error) {
	if err := checkAge(age); err != nil {
		return 0, err
	}
	now := time.Now()
	n, err := s.deleteWhile(ctx, gobDue{microTime(now), microTime(now.Add(-age))}, gobJob{durable: true, sweeps: true})
	if err != nil {
		err = fmt.Errorf("session2: delete old: %w", err)
	}
	return n, err
}

// DeleteUser implements [UserStore].
func (s *GobStore) DeleteUser(ctx context.Context, user string, keep ...ID) (int, error) {
	err := s.refresh(ctx)
	n := 0
	if err == nil && user != "" {
		n, err = s.deleteWhile(ctx, gobOwned{user, keep}, gobJob{durable: true})
	}
	if err != nil {
		err = fmt.Errorf("session2: delete user: %w", err)
	}
	return n, err
}

// gobPick says which records to delete.
type gobPick interface {
	some(*gobShelf) [][16]byte // a batch of candidates
	is(gobEntry) bool          // the last word
}

type gobDue struct{ now, cutoff int64 }

func (d gobDue) some(f *gobShelf) [][16]byte { return f.index.Due(d.now, d.cutoff, gobBatch) }
func (d gobDue) is(e gobEntry) bool          { return e.Expires <= d.now || e.Accessed <= d.cutoff }

type gobOwned struct {
	user string
	keep []ID
}

func (u gobOwned) some(f *gobShelf) [][16]byte {
	ids := slices.DeleteFunc(f.index.AppendUser(nil, u.user), func(id [16]byte) bool { return slices.Contains(u.keep, id) })
	return ids[:min(len(ids), gobBatch)]
}
func (u gobOwned) is(e gobEntry) bool { return e.User == u.user }

// deleteWhile deletes what pick picks, batch by batch, until there is no more
// of it, and returns the number. Each batch is a job like j.
func (s *GobStore) deleteWhile(ctx context.Context, pick gobPick, j gobJob) (total int, err error) {
	for {
		more := false
		batch := j
		batch.run = func(p *gobPlan) error {
			ids := pick.some(p.shelf)
			more = len(ids) == gobBatch
			return p.deleteIf(ids, pick)
		}
		err := s.do(ctx, &batch)
		total += batch.made
		tally.Add(ctx, batch.made)
		switch {
		case err != nil && batch.unsure:
			return total, record.Uncertain(err)
		case err != nil && total > 0:
			return total, fsys.Partly(err)
		case err != nil || !more:
			return total, err
		}
	}
}

// deleteIf adds the deletion of those records that are still to be deleted.
func (p *gobPlan) deleteIf(ids [][16]byte, pick gobPick) error {
	for _, id := range ids {
		if e, found := p.get(id); !found || !pick.is(e) {
			continue
		}
		if err := p.add(&goblog.Op{Kind: goblog.Delete, ID: id}); err != nil {
			return err
		}
	}
	return nil
}

// Iter implements [IterStore]. It takes down the IDs, 16 bytes each, and reads
// the records one by one, in their order.
func (s *GobStore) Iter(ctx context.Context) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		s.each(ctx, "iter", yield, func(f *gobShelf) [][16]byte { return f.index.AppendIDs(nil) },
			func(Record) bool { return true })
	}
}

// IterUser implements [UserStore].
func (s *GobStore) IterUser(ctx context.Context, user string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		s.each(ctx, "iter user", yield, func(f *gobShelf) [][16]byte { return f.index.AppendUser(nil, user) },
			func(rec Record) bool { return rec.User == user })
	}
}

// each yields the records that ids names, for as long as they are there and
// belong. It holds no lock while the loop's body runs.
func (s *GobStore) each(ctx context.Context, op string, yield func(Record, error) bool,
	ids func(*gobShelf) [][16]byte, belongs func(Record) bool,
) {
	if err := s.refresh(ctx); err != nil {
		yield(Record{}, fmt.Errorf("session2: %s: %w", op, err))
		return
	}
	s.mu.RLock()
	all := ids(s.shelf)
	s.mu.RUnlock()
	slices.SortFunc(all, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	for _, id := range all {
		rec, err := Record{}, s.refresh(ctx)
		if err == nil {
			rec, err = s.read(id)
		}
		switch {
		case err == nil && belongs(rec):
			if !yield(rec, nil) {
				return
			}
		case err == nil, errors.Is(err, ErrNotFound):
		default:
			if !yield(Record{ID: id}, opError(op, id, err)) || !errors.Is(err, ErrCorrupt) {
				return
			}
		}
	}
}
