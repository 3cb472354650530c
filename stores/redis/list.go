package redisstore

import (
	"context"
	"errors"
	"iter"

	"github.com/redis/go-redis/v9"

	"github.com/session2/session2"
)

const (
	pageSize  = 32  // records that a list holds in memory at a time
	scanCount = 500 // entries of an index that a scan looks at in one step
)

// Iter lists all records, one bucket after the other, by its index of accesses. It
// holds some records at a time, and the IDs of one bucket: a scan of Redis returns at
// least once what is there throughout, and may return it twice.
func (s *Store) Iter(ctx context.Context) iter.Seq2[session2.Record, error] {
	return func(yield func(session2.Record, error) bool) {
		more := func(rec session2.Record, err error) bool { return pass(ctx, "iter", rec, err, yield) }
		for b := range buckets {
			if !s.eachIn(ctx, b, more) {
				return
			}
		}
	}
}

// eachIn yields the records of a bucket, and reports whether to go on.
func (s *Store) eachIn(ctx context.Context, bucket int, yield func(session2.Record, error) bool) bool {
	seen := make(map[session2.ID]bool)
	for cursor := uint64(0); ; {
		ids, next, err := s.scan(ctx, bucket, cursor)
		if err != nil {
			yield(session2.Record{}, err)
			return false
		}
		var fresh []session2.ID
		for _, id := range ids {
			if !seen[id] {
				seen[id] = true
				fresh = append(fresh, id)
			}
		}
		if !s.eachOf(ctx, fresh, func(rec session2.Record, err error) bool {
			return errors.Is(err, session2.ErrNotFound) || yield(rec, err)
		}) {
			return false
		}
		if cursor = next; cursor == 0 {
			return true
		}
	}
}

// scan returns some of the IDs in a bucket, and where to go on.
func (s *Store) scan(ctx context.Context, bucket int, cursor uint64) ([]session2.ID, uint64, error) {
	type step struct {
		members []string
		next    uint64
	}
	st, err := call(ctx, s, func(ctx context.Context) (st step, err error) {
		st.members, st.next, err = s.client.ZScan(ctx, s.index(bucket, byAccessed), cursor, "", scanCount).Result()
		return st, err
	})
	var ids []session2.ID
	for i := 0; i < len(st.members); i += 2 { // each with its score behind it
		ids = append(ids, idsOf(st.members[i:i+1])...)
	}
	return ids, st.next, explain(err)
}

// eachOf loads records, a page at a time, and yields what became of each, ErrNotFound too. It
// reports whether to go on.
func (s *Store) eachOf(ctx context.Context, ids []session2.ID, yield func(session2.Record, error) bool) bool {
	for len(ids) > 0 {
		page := ids[:min(pageSize, len(ids))]
		ids = ids[len(page):]
		gets, err := call(ctx, s, func(ctx context.Context) ([]*redis.StringCmd, error) { return s.get(ctx, page) })
		if err != nil {
			yield(session2.Record{}, explain(err))
			return false
		}
		for i, get := range gets {
			value, err := get.Bytes()
			rec := session2.Record{ID: page[i]}
			if err = absent(err); err == nil {
				rec, err = decode(page[i], value)
				rec.ID = page[i]
			}
			if !yield(rec, err) {
				return false
			}
		}
	}
	return true
}

// get reads values in one round trip.
func (s *Store) get(ctx context.Context, ids []session2.ID) ([]*redis.StringCmd, error) {
	pipe := s.client.Pipeline()
	gets := make([]*redis.StringCmd, len(ids))
	for i, id := range ids {
		gets[i] = pipe.Get(ctx, s.key(id))
	}
	_, err := pipe.Exec(ctx)
	if answered(err) { // it is one of theirs
		err = nil
	}
	return gets, err
}

// pass yields a record or an error, and reports whether to go on: past a corrupt record, but
// not past any other failure, nor past the context's end.
func pass(ctx context.Context, op string, rec session2.Record, err error,
	yield func(session2.Record, error) bool) bool {
	damaged := errors.Is(err, session2.ErrCorrupt)
	if ended := ctx.Err(); ended != nil && (err == nil || damaged) {
		err, damaged = ended, false
	}
	switch {
	case err == nil:
		return yield(rec, nil)
	case damaged:
		return yield(session2.Record{ID: rec.ID}, opError(op, rec.ID, err))
	}
	yield(session2.Record{}, failed(op, err))
	return false
}
