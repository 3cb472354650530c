package redisstore

import (
	"context"
	"errors"
	"iter"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/session2/session2"
)

// batch is how many records a script looks at: nobody else is served meanwhile.
const batch = 100

// IterUser lists the user's records. One round trip asks the indexes of all buckets, and each
// page of records takes another. What an index has of a record that is gone, or another
// user's, is removed. For the empty user there are none.
func (s *Store) IterUser(ctx context.Context, user string) iter.Seq2[session2.Record, error] {
	return func(yield func(session2.Record, error) bool) {
		ids, err := s.idsOfUser(ctx, user)
		if err != nil {
			yield(session2.Record{}, failed("iter user", err))
			return
		}
		var stale []session2.ID
		s.eachOf(ctx, ids, func(rec session2.Record, err error) bool {
			if errors.Is(err, session2.ErrNotFound) || err == nil && rec.User != user {
				stale = append(stale, rec.ID)
				return true
			}
			return pass(ctx, "iter user", rec, err, yield)
		})
		s.ownedBy(ctx, user, stale, "") // if it fails, the next one does it
	}
}

// DeleteUser removes the user's records but those to keep, a hundred at a time, and
// returns their number. For the empty user there are none.
func (s *Store) DeleteUser(ctx context.Context, user string, keep ...session2.ID) (int, error) {
	ids, err := s.idsOfUser(ctx, user)
	if err != nil {
		return 0, failed("delete user", err)
	}
	ids = slices.DeleteFunc(ids, func(id session2.ID) bool { return slices.Contains(keep, id) })
	n, err := s.ownedBy(ctx, user, ids, "all")
	return n, failed("delete user", err)
}

// idsOfUser returns what the indexes have of a user, in the order of the buckets.
func (s *Store) idsOfUser(ctx context.Context, user string) ([]session2.ID, error) {
	if user == "" || len(user) > maxUser {
		return nil, s.check(ctx)
	}
	// All members that begin with the user: no longer name does, for its length comes first.
	from := "[" + string(owner(user))
	to := from + string(slices.Repeat([]byte{0xff}, len(session2.ID{})))
	members, err := s.ask(ctx, func(ctx context.Context, pipe redis.Pipeliner, bucket int) *redis.StringSliceCmd {
		return pipe.ZRangeByLex(ctx, s.index(bucket, byUser), &redis.ZRangeBy{Min: from, Max: to})
	})
	var ids []session2.ID
	for _, list := range members {
		ids = append(ids, idsOf(list)...)
	}
	return ids, err
}

// ask asks an index of every bucket, in one round trip.
func (s *Store) ask(ctx context.Context,
	what func(context.Context, redis.Pipeliner, int) *redis.StringSliceCmd) ([buckets][]string, error) {
	members, err := call(ctx, s, func(ctx context.Context) (list [buckets][]string, err error) {
		pipe := s.client.Pipeline()
		var cmds [buckets]*redis.StringSliceCmd
		for b := range cmds {
			cmds[b] = what(ctx, pipe, b)
		}
		_, err = pipe.Exec(ctx)
		for b, cmd := range cmds {
			list[b] = cmd.Val()
		}
		return list, err
	})
	return members, explain(err)
}

// ownedBy runs userSource for the records, of which those of one bucket are beside each other.
// It returns how many it has deleted.
func (s *Store) ownedBy(ctx context.Context, user string, ids []session2.ID, which string) (total int, err error) {
	sure := true
	for len(ids) > 0 {
		group := ids[:sameBucket(ids)]
		ids = ids[len(group):]
		args := []any{owner(user), which}
		for _, id := range group {
			args = append(args, string(id[:]))
		}
		o := s.run(ctx, userScript, s.keys(group...), args...)
		total += int(o.n)
		sure = sure && o.exact(int(o.n), len(group))
		if o.err != nil {
			return total, uncounted(sure, o.err)
		}
	}
	return total, uncounted(sure, nil)
}

// sameBucket returns how many IDs at the beginning are of one bucket, a batch at most.
func sameBucket(ids []session2.ID) int {
	n := 1
	for n < min(batch, len(ids)) && bucketOf(ids[n]) == bucketOf(ids[0]) {
		n++
	}
	return n
}

// exact reports whether the number of deleted records is: where an answer was lost, only if
// none was left for the attempt before.
func (o outcome) exact(deleted, of int) bool { return !o.lost || o.err == nil && deleted == of }

// errLost says that an answer was lost, and that what the script did cannot be found out.
var errLost = errors.New("an answer was lost")

// uncounted is the error that goes with a number of deleted records, which may be too small if
// it is not sure.
func uncounted(sure bool, err error) error {
	switch {
	case sure:
		return err
	case err == nil:
		err = errLost
	case definite(err):
		err = errors.New(err.Error())
	}
	return uncertain(err)
}
