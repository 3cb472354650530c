package redisstore

import (
	"context"
	"time"

	"github.com/session2/session2"
)

// Encode, Decode and Explain are encode, decode and explain.
var (
	Encode  = encode
	Decode  = decode
	Explain = explain
)

// DeleteAccessed sweeps what was accessed at limit or before.
func (s *Store) DeleteAccessed(ctx context.Context, limit time.Time) (total int, err error) {
	by := oldBy{byAccessed, 2, limit}
	found, err := s.old(ctx, by)
	for b := 0; err == nil && b < buckets; b++ {
		var n int
		n, _, err = s.sweep(ctx, b, by, found[b])
		total += n
	}
	return total, err
}

// Batch is how many records a script looks at.
const Batch = batch

// OneBucket gives an ID that is in the first bucket.
func OneBucket(id session2.ID) session2.ID {
	id[0] = 0
	return id
}
