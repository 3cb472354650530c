package sqlstore

import (
	"context"
	"database/sql"
	"math"
)

// DeleteOld removes the records whose access is at or before accessed and
// those whose expiry is at or before expires, and returns their number.
func (s *Store) DeleteOld(ctx context.Context, accessed, expires int64) (int, error) {
	n, err := s.sweep(ctx, s.q.Accessed, accessed)
	if err != nil {
		return n, err
	}
	m, err := s.sweep(ctx, s.q.Expires, expires)
	return n + m, err
}

// hit is a row that a sweep found by its index.
type hit struct {
	id          [16]byte
	filed, time int64
}

// sweep walks the index, a batch at a time, each statement a transaction of its
// own. It goes on behind the last row it saw, so that rows which others hold
// are left to the next sweep.
func (s *Store) sweep(ctx context.Context, q Sweep, to int64) (int, error) {
	total := 0
	for last := (hit{filed: math.MinInt64}); ; {
		hits, err := s.find(ctx, q, last, to)
		if err != nil || len(hits) == 0 {
			return total, err
		}
		n, err := s.settle(ctx, q, hits, to)
		total += n
		if err != nil || len(hits) < BatchIDs {
			return total, err
		}
		last = hits[len(hits)-1]
	}
}

func (s *Store) find(ctx context.Context, q Sweep, last hit, to int64) ([]hit, error) {
	return query(ctx, s, q.Find, args(last.filed, to, last.filed, last.id[:]), func(rows *sql.Rows, h *hit) error {
		return rows.Scan(idOf(&h.id), &h.filed, &h.time)
	})
}

// settle deletes what is old among the hits and files anew what is not.
func (s *Store) settle(ctx context.Context, q Sweep, hits []hit, to int64) (deleted int, err error) {
	var old, early [][16]byte
	for _, h := range hits {
		if h.time <= to {
			old = append(old, h.id)
		} else {
			early = append(early, h.id)
		}
	}
	if len(old) > 0 {
		n, err := s.exec(ctx, q.Delete, append(batch(old), to))
		if err != nil {
			return 0, err
		}
		deleted = int(n)
	}
	if len(early) > 0 {
		_, err = s.exec(ctx, q.Refile, batch(early))
	}
	return deleted, err
}
