package boltstore

// OpenWith is Open with a function that commits in place of bbolt's Update.
var OpenWith = open

// Page and Sweep are the bounds of one transaction.
const (
	Page  = pageMax
	Sweep = sweepMax
)

// UserKey returns the key under which the index by user has a record.
func UserKey(user string, id [16]byte) []byte { return append(userPrefix(user), id[:]...) }

// TimeKey returns the key under which an index by time has a record.
func TimeKey(µs int64, id [16]byte) []byte { return timeKey(µs, id) }
