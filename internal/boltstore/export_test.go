package boltstore

import "github.com/session2/session2/internal/fsys"

// OpenWith is Open with a function that commits in place of bbolt's Update.
var OpenWith = open

// CheckFile is what opening a file begins with.
func CheckFile(path string) (listed bool, err error) { return checkFile(fsys.OS, path, Options{}) }

// Page and Sweep are the bounds of one transaction.
const (
	Page  = pageMax
	Sweep = sweepMax
)

// UserKey returns the key under which the index by user has a record.
func UserKey(user string, id [16]byte) []byte { return append(userPrefix(user), id[:]...) }

// TimeKey returns the key under which an index by time has a record.
func TimeKey(µs int64, id [16]byte) []byte { return timeKey(µs, id) }
