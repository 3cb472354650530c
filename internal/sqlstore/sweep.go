package sqlstore

import (
	"context"
	"database/sql"
	"math"
	"math/rand/v2"
	"time"
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

// place is one in the order of an index.
type place struct {
	filed int64
	id    [16]byte
}

// hit is a row that a sweep found by its index.
type hit struct {
	place
	time int64
}

// sweep walks the index until nothing is left that it did not come by. Each
// walk begins further on than the one before it.
func (s *Store) sweep(ctx context.Context, q Sweep, to int64) (deleted int, err error) {
	for from := (&place{filed: math.MinInt64}); from != nil && err == nil; {
		var n int
		n, from, err = s.walk(ctx, q, *from, to)
		deleted += n
	}
	return deleted, err
}

// walk goes along the index, a batch at a time, each statement a transaction of
// its own. It goes on behind the last row it saw, so that rows which others
// hold are left to them or to the next sweep. Where most of a batch is gone or
// held, another sweep is at work: this one leaves that its rows, and leaps
// ahead. It returns the first place from which it leapt.
func (s *Store) walk(ctx context.Context, q Sweep, from place, to int64) (deleted int, leapt *place, err error) {
	for {
		start := time.Now()
		hits, err := s.find(ctx, q, from, to)
		if err != nil || len(hits) == 0 {
			return deleted, leapt, err
		}
		n, filed, err := s.settle(ctx, q, hits, to)
		deleted += n
		if err != nil || len(hits) < BatchIDs {
			return deleted, leapt, err
		}
		from = hits[len(hits)-1].place
		if 2*(n+filed) < len(hits) {
			if leapt == nil {
				leapt = &place{from.filed, from.id}
			}
			from = from.ahead(to)
		}
		// As long as the batch took: whatever the server can do, half of it is
		// for others.
		if err := wait(ctx, time.Since(start)+1); err != nil {
			return deleted, leapt, err
		}
	}
}

// ahead returns a random place between p and the end.
func (p place) ahead(to int64) place {
	if span := uint64(to) - uint64(p.filed); span > 0 {
		p.filed += int64(rand.Uint64N(span))
	}
	return p
}

func (s *Store) find(ctx context.Context, q Sweep, from place, to int64) (hits []hit, err error) {
	list := args(from.filed, from.id[:], from.filed, to)
	err = s.query(ctx, q.Find, list, func() { hits = nil }, func(rows *sql.Rows) error {
		var h hit
		err := rows.Scan(idOf(&h.id), &h.filed, &h.time)
		hits = append(hits, h)
		return err
	})
	return hits, err
}

// settle deletes what is old among the hits and files anew what is not, and
// returns the numbers of both.
func (s *Store) settle(ctx context.Context, q Sweep, hits []hit, to int64) (deleted, filed int, err error) {
	var old, early [][16]byte
	for _, h := range hits {
		if h.time <= to {
			old = append(old, h.id)
		} else {
			early = append(early, h.id)
		}
	}
	if len(old) > 0 {
		deleted, err = s.execSkip(ctx, q.Delete, append(batch(old), to))
	}
	if len(early) > 0 && err == nil {
		filed, err = s.execSkip(ctx, q.Refile, batch(early))
	}
	return deleted, filed, err
}

// execSkip runs the form of a statement that the server knows.
func (s *Store) execSkip(ctx context.Context, q Skipping, args []any) (int, error) {
	if !s.waits.Load() {
		n, err := s.exec(ctx, q.Skip, args)
		if s.fault(err) != Unknown {
			return int(n), err
		}
		s.waits.Store(true)
	}
	n, err := s.exec(ctx, q.Wait, args)
	return int(n), err
}
