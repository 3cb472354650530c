package sqlite

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/session2/session2"
)

// batch is how many records a statement deletes at most: others wait for so long.
const batch = 100

// rest is how long a sweep pauses after a batch, as a multiple of the time that the
// batch took: three quarters of the time the file is the others'.
const rest = 3

// DeleteOld removes the records that were not accessed for age or have expired, by this
// machine's clock, and returns their number, as [session2.DeleteOldStore] says. It finds
// them by index.
func (s *Store) DeleteOld(ctx context.Context, age time.Duration) (total int, err error) {
	if age < 0 {
		return 0, fmt.Errorf("session2: delete old: negative age %v", age)
	}
	now := time.Now()
	for i, to := range []time.Time{now.Add(-age), now} {
		n, err := s.sweep(ctx, s.q.refile[i], s.q.sweep[i], to.UnixMicro())
		total += n
		if err != nil {
			return total, failed("delete old", err)
		}
	}
	return total, nil
}

// sweep goes by one of the indexes until it has no entry up to to any more. Of the first
// entries it files those anew that stand there too early, and deletes the others.
func (s *Store) sweep(ctx context.Context, refile, remove string, to int64) (total int, err error) {
	for {
		start := time.Now()
		filed, err := s.change(ctx, refile, to)
		if err != nil {
			return total, err // it deletes nothing
		}
		deleted, err := s.change(ctx, remove, to)
		total += deleted
		switch {
		case err != nil:
			return total, uncounted(err)
		case filed+deleted == 0:
			return total, nil
		}
		if err := pause(ctx, rest*time.Since(start)+1); err != nil {
			return total, err
		}
	}
}

// DeleteUser removes the user's records but those to keep, and returns their number, as
// [session2.UserStore] says. For the empty user there are none.
func (s *Store) DeleteUser(ctx context.Context, user string, keep ...session2.ID) (total int, err error) {
	from := []byte{}
	for {
		ids, err := s.idsOf(ctx, user, from)
		if err != nil || len(ids) == 0 {
			return total, failed("delete user", err)
		}
		last := ids[len(ids)-1]
		from = last[:]
		ids = slices.DeleteFunc(ids, func(id session2.ID) bool { return slices.Contains(keep, id) })
		if len(ids) == 0 {
			continue
		}
		n, err := s.deleteIDs(ctx, user, ids)
		total += n
		if err != nil {
			return total, failed("delete user", uncounted(err))
		}
	}
}

// idsOf returns some IDs of the user's records, those behind from.
func (s *Store) idsOf(ctx context.Context, user string, from []byte) ([]session2.ID, error) {
	return call(ctx, s, func(ctx context.Context) (ids []session2.ID, err error) {
		rows, err := s.db.QueryContext(ctx, s.q.userIDs, []byte(user), from)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			var id []byte
			if err := rows.Scan(&id); err != nil {
				return nil, err
			}
			ids = append(ids, session2.ID(id))
		}
		return ids, rows.Err()
	})
}

func (s *Store) deleteIDs(ctx context.Context, user string, ids []session2.ID) (int, error) {
	args := []any{[]byte(user)}
	for _, id := range ids {
		args = append(args, id[:])
	}
	query := strings.Replace(s.q.deleteUser, "{ids}", strings.Repeat(",?", len(ids))[1:], 1)
	return s.change(ctx, query, args...)
}
