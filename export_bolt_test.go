package session2

import (
	"cmp"

	bolt "go.etcd.io/bbolt"
)

// Commits counts the transactions that b commits from now on.
func (b *BoltStore) Commits() (count func() int) {
	n, update := 0, b.update
	b.update = func(f func(*bolt.Tx) error) error {
		err := update(f)
		if err == nil {
			n++
		}
		return err
	}
	return func() int { return n }
}

// LoseAnswers has b's commits take effect and then fail with err, as after a
// failed fsync, until err is nil.
func (b *BoltStore) LoseAnswers(err *error) {
	update := b.update
	b.update = func(f func(*bolt.Tx) error) error {
		if err := update(f); err != nil {
			return err
		}
		return *err
	}
}

// FailCommits has b's commits fail with err and change nothing, from now on.
func (b *BoltStore) FailCommits(err error) {
	b.update = func(f func(*bolt.Tx) error) error {
		return b.db.Update(func(tx *bolt.Tx) error { return cmp.Or(f(tx), err) })
	}
}

// BreakCommits has bbolt panic in the midst of b's commits, and keep its lock.
func (b *BoltStore) BreakCommits() {
	b.update = func(func(*bolt.Tx) error) error {
		if _, err := b.db.Begin(true); err != nil {
			return err
		}
		panic("damaged page")
	}
}

// BoltPage and BoltSweep are the bounds of one transaction.
const (
	BoltPage  = boltPage
	BoltSweep = boltSweep
)

// BoltUserKey returns the key under which the index by user has a record.
func BoltUserKey(user string, id ID) []byte { return append(boltUser(user), id[:]...) }

// BoltTimeKey returns the key under which an index by time has a record.
func BoltTimeKey(µs int64, id ID) []byte { return boltTimeKey(µs, id) }
