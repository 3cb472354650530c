package redisstore

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/session2/session2"
)

// oldBy is one of the times by which a record is old.
type oldBy struct {
	index int // which one has it
	at    int // where a value has it, as Lua counts
	limit time.Time
}

// DeleteOld removes the records that were not accessed for age or have expired, by this
// machine's clock, and returns their number. One round trip finds out which buckets have any;
// then it removes a hundred at a time, and rests for as long as they took. Several may run at
// once: each counts what it removed itself.
func (s *Store) DeleteOld(ctx context.Context, age time.Duration) (total int, err error) {
	if age < 0 {
		return 0, fmt.Errorf("session2: delete old: negative age %v", age)
	}
	now := time.Now()
	sure := true
	for _, by := range []oldBy{{byAccessed, 2, now.Add(-age)}, {byExpires, 10, now}} {
		found, err := s.old(ctx, by)
		for b := 0; err == nil && b < buckets; b++ {
			if len(found[b]) == 0 {
				continue
			}
			var n int
			var exact bool
			n, exact, err = s.sweep(ctx, b, by, found[b])
			total += n
			sure = sure && exact
		}
		if err != nil {
			return total, failed("delete old", uncounted(sure, err))
		}
	}
	return total, failed("delete old", uncounted(sure, nil))
}

// old returns the first entries of each bucket's index that are old.
func (s *Store) old(ctx context.Context, by oldBy) ([buckets][]string, error) {
	return s.ask(ctx, func(ctx context.Context, pipe redis.Pipeliner, bucket int) *redis.StringSliceCmd {
		return pipe.ZRangeByScore(ctx, s.index(bucket, by.index), by.entries(0))
	})
}

// entries is the range of a batch of old entries, from the one behind skip others.
func (by oldBy) entries(skip int) *redis.ZRangeBy {
	return &redis.ZRangeBy{
		Min: "-inf", Max: strconv.FormatInt(score(by.limit), 10), Offset: int64(skip), Count: batch,
	}
}

// sweep removes what is old in a bucket, of which the first entries have been found, and
// reports whether the number is exact.
func (s *Store) sweep(ctx context.Context, bucket int, by oldBy, found []string) (total int, exact bool, err error) {
	exact = true
	for stayed := 0; len(found) > 0; {
		begun := time.Now()
		o := s.sweepBatch(ctx, by, idsOf(found))
		if o.err != nil {
			return total, exact && !o.lost, o.err
		}
		total += int(o.list[0])
		stayed += int(o.list[1])
		exact = exact && o.exact(int(o.list[0]), len(found))
		if len(found) < batch {
			break
		}
		if err := pause(ctx, time.Since(begun)); err != nil {
			return total, exact, err
		}
		found, err = call(ctx, s, func(ctx context.Context) ([]string, error) {
			return s.client.ZRangeByScore(ctx, s.index(bucket, by.index), by.entries(stayed)).Result()
		})
		if err != nil {
			return total, exact, explain(err)
		}
	}
	return total, exact, nil
}

// sweepBatch runs sweepSource for records of one bucket.
func (s *Store) sweepBatch(ctx context.Context, by oldBy, ids []session2.ID) outcome {
	args := []any{"", ""} // so that each ID has the place of its key
	for _, id := range ids {
		args = append(args, string(id[:]))
	}
	args = append(args, by.index+1, by.at, instant(by.limit), score(by.limit))
	o := s.run(ctx, sweepScript, s.keys(ids...), args...)
	if o.err == nil && len(o.list) != 2 {
		o.err = fmt.Errorf("the sweep's script answered %d numbers", len(o.list))
	}
	return o
}
