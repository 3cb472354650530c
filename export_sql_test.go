package session2

import (
	"context"
	"time"
)

// DeleteOldAt is DeleteOld at another time than now.
func (s *sqlStore) DeleteOldAt(ctx context.Context, now time.Time, age time.Duration) (int, error) {
	return s.run.DeleteOld(ctx, microTime(now.Add(-age)), microTime(now))
}
