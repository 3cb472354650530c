package gobstore

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/record"
	"github.com/session2/session2/internal/tally"
)

// DeleteOld removes what is due, in batches between which others have their turn.
func (s *Store) DeleteOld(ctx context.Context, accessed, expires int64) (int, error) {
	return s.deleteAll(ctx, true,
		func(l *log) [][16]byte { return l.index.Due(expires, accessed, batchSize) },
		func(e entry) bool { return e.Expires <= expires || e.Accessed <= accessed })
}

// DeleteUser removes the user's records but those to keep, likewise.
func (s *Store) DeleteUser(ctx context.Context, user string, keep ...[16]byte) (int, error) {
	return s.deleteAll(ctx, false,
		func(l *log) [][16]byte {
			ids := slices.DeleteFunc(l.index.AppendUser(nil, user),
				func(id [16]byte) bool { return slices.Contains(keep, id) })
			return ids[:min(len(ids), batchSize)]
		},
		func(e entry) bool { return e.User == user })
}

// deleteAll deletes the records that some names, a batch at a time, until there are
// no more of them, and returns their number. Of a record that an earlier job of the
// same commit changes, meant has the last word.
func (s *Store) deleteAll(ctx context.Context, sweeps bool,
	some func(*log) [][16]byte, meant func(entry) bool,
) (total int, err error) {
	if err := s.whole(ctx); err != nil {
		return 0, err
	}
	for {
		more := false
		j := &job{durable: true, sweeps: sweeps, run: func(p *plan) error {
			p.log.fillAll() // what is left if another file has taken the place just now
			ids := some(p.log)
			more = len(ids) == batchSize
			for _, id := range ids {
				if e, found := p.get(id); found && meant(e) {
					p.add(&op{del, record.Record{ID: id}})
				}
			}
			return nil
		}}
		err := s.do(ctx, j)
		total += j.made
		tally.Add(ctx, j.made)
		switch {
		case err != nil && j.unsure:
			return total, record.Uncertain(err)
		case err != nil && total > 0:
			return total, fsys.Partly(err)
		case err != nil || !more:
			return total, err
		}
	}
}

// Iter takes down the IDs, 16 bytes each, and reads the records one by one, in
// their order.
func (s *Store) Iter(ctx context.Context) iter.Seq2[record.Record, error] {
	return s.each(ctx,
		func(l *log) [][16]byte {
			return collect(s, l, func(id [16]byte, _ *entry) [16]byte { return id })
		},
		func(record.Record) bool { return true })
}

// IterUser lists the user's records likewise.
func (s *Store) IterUser(ctx context.Context, user string) iter.Seq2[record.Record, error] {
	return s.each(ctx,
		func(l *log) [][16]byte {
			s.mu.RLock()
			defer s.mu.RUnlock()
			return l.index.AppendUser(nil, user)
		},
		func(r record.Record) bool { return r.User == user })
}

// each yields the records that ids names, for as long as they are there and are
// meant. It holds no lock while the loop's body runs.
func (s *Store) each(ctx context.Context,
	ids func(*log) [][16]byte, meant func(record.Record) bool,
) iter.Seq2[record.Record, error] {
	return func(yield func(record.Record, error) bool) {
		l, err := s.listed(ctx)
		if err != nil {
			yield(record.Record{}, err)
			return
		}
		all := ids(l)
		slices.SortFunc(all, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
		for _, id := range all {
			r, err := s.Load(ctx, id)
			switch {
			case errors.Is(err, record.ErrNotFound), err == nil && !meant(r):
				continue
			case err != nil:
				r.ID = id
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

// listed returns the present log, all of whose records are in its index.
func (s *Store) listed(ctx context.Context) (*log, error) {
	err := s.refresh(ctx)
	for err == nil {
		if err = s.whole(ctx); err != nil {
			break
		}
		s.mu.RLock()
		l, whole := s.log, s.log.base == nil
		s.mu.RUnlock()
		if whole { // else another file has taken its place just now
			return l, nil
		}
	}
	return nil, err
}
