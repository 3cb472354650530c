package redisstore

import (
	"fmt"

	"github.com/session2/session2"
)

// buckets is the number of buckets, a power of two. It is part of the format. More of them
// would spread better over many masters, and make a look for a user's sessions, which asks
// each bucket, dearer.
const buckets = 64

// bucketOf returns the number of an ID's bucket. IDs are random.
func bucketOf(id session2.ID) int { return int(id[0]) % buckets }

// tagged returns a key of a bucket. Its hash tag is what a Cluster places it by.
func (s *Store) tagged(bucket int, name string) string {
	return fmt.Sprintf("%s{%02x}:%s", s.opts.Prefix, bucket, name)
}

// key returns the key of a record.
func (s *Store) key(id session2.ID) string { return s.tagged(bucketOf(id), id.String()) }

// The indexes of a bucket, as the scripts count their keys.
const (
	byUser = iota
	byAccessed
	byExpires
)

// index returns the key of a bucket's index.
func (s *Store) index(bucket, which int) string {
	return s.tagged(bucket, [...]string{"users", "accessed", "expires"}[which])
}

// keys returns the keys of a bucket's indexes and of records in it, in the order of the scripts.
func (s *Store) keys(ids ...session2.ID) []string {
	b := bucketOf(ids[0])
	keys := make([]string, 0, 3+len(ids))
	keys = append(keys, s.index(b, byUser), s.index(b, byAccessed), s.index(b, byExpires))
	for _, id := range ids {
		keys = append(keys, s.key(id))
	}
	return keys
}

// idsOf returns the IDs that members of an index end with, and passes over what is none.
func idsOf(members []string) []session2.ID {
	var ids []session2.ID
	for _, m := range members {
		if n := len(m) - len(session2.ID{}); n >= 0 {
			ids = append(ids, session2.ID([]byte(m[n:])))
		}
	}
	return ids
}
