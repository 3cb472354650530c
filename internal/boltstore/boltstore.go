// Package boltstore is the back end of a BoltStore: records in one bbolt database,
// with indexes by user and by time that the same transactions write.
//
// The database has these buckets. An ID is 16 bytes, and a time 8 bytes that sort:
// microseconds since 1970, big-endian, with the sign flipped.
//
//	meta      "format": "1"
//	sessions  ID: a record's body, as package record has it
//	access    ID: the record's access, and then that of its index entries
//	accessed  time, ID: nothing
//	expires   time, ID: nothing
//	users     the first 16 bytes of the user's SHA-256, ID: nothing
//
// The indexes by time are lazy: a record has one entry in each, at its time or
// earlier. Touch and Save leave an entry where it is if it is early enough, and
// a sweep that meets an early entry moves it to the record's time. So what
// requests write does not grow by index pages, and a sweep looks at a record
// that is in use about once in the age that it sweeps by. Whatever an index
// says, the record has the last word.
package boltstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/session2/session2/internal/batch"
	"github.com/session2/session2/internal/record"
	"github.com/session2/session2/internal/tally"
)

const (
	batchMax = 256     // changes that share a transaction, at most
	sweepMax = 256     // records that one transaction of a sweep looks at, at most
	pageMax  = 64      // records that Iter reads in one transaction, at most,
	pageMem  = 1 << 20 // and bytes of them, give or take one record
)

// Options are session2.BoltOptions, where they are explained.
type Options struct {
	NoSync      bool
	SharedGroup bool
	Timeout     time.Duration
}

// Store is a [record.Store] in a bbolt database. Goroutines may share it.
type Store struct {
	db      *bolt.DB
	file    *os.File // the database's own
	path    string   // of the file, with no symbolic links
	own     fs.FileInfo
	closed  atomic.Bool
	listed  atomic.Bool // the file has the list of free pages
	update  update
	changes *batch.Batcher[change]

	// broken is the panic that bbolt failed with in the midst of a commit. There
	// are no commits after it.
	broken atomic.Pointer[error]

	// stuck is the panic that bbolt failed with before it began a transaction: it
	// may have left its own locks taken, so nothing may be asked of it any more.
	stuck atomic.Pointer[error]

	// doubt says that a commit has failed. What it wrote may be visible and
	// yet not on the disk, so a Save that finds itself there writes once more.
	// It belongs to whoever leads the batch.
	doubt bool
}

// update runs a function in a transaction and commits it: (*bolt.DB).Update, or in
// tests what fails like it.
type update func(*bolt.DB, func(*bolt.Tx) error) error

// change is one change within a batch. It decides first and writes after: one that
// returns an error has written nothing.
type change func(t *tx) error

// Open opens the database file at path, and creates it if it is not there.
func Open(path string, o Options) (*Store, error) { return open(path, o, (*bolt.DB).Update) }

func open(path string, o Options, commit update) (*Store, error) {
	if o.Timeout < 0 {
		return nil, fmt.Errorf("negative BoltOptions.Timeout %v", o.Timeout)
	}
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	db, file, listed, err := openFile(path, o)
	if err != nil {
		return nil, err
	}
	own, err := file.Stat()
	if err != nil {
		letGo(db, file, nil)
		return nil, err
	}
	s := &Store{db: db, file: file, path: db.Path(), own: own, update: commit}
	s.listed.Store(listed)
	s.changes = batch.New(batchMax, s.commit)
	return s, nil
}

// Close closes the file.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	var damage error
	if broken := s.broken.Load(); broken != nil {
		damage = *broken
	}
	return letGo(s.db, s.file, cmp.Or(damage, s.list()))
}

// list leaves the list of free pages in the file, for who opens it next: it spares them
// as much time as checking the file takes. Where it cannot be written, they do without.
func (s *Store) list() (damage error) {
	if s.listed.Load() || s.broken.Load() != nil || s.stuck.Load() != nil {
		return nil
	}
	return guard(func() {
		s.db.Update(func(*bolt.Tx) error {
			s.db.NoFreelistSync = false // nobody else has bbolt's lock
			return nil
		})
	})
}

// Setup checks the file's format, and that it is there.
func (s *Store) Setup(ctx context.Context) error {
	return cmp.Or(s.view(ctx, (*tx).checkFormat), s.there())
}

// Load returns a copy of the record.
func (s *Store) Load(ctx context.Context, id [16]byte) (r record.Record, err error) {
	err = s.view(ctx, func(t *tx) (err error) {
		r, err = t.record(id)
		return err
	})
	return r, err
}

// Has reports whether there is a record, even a corrupt one.
func (s *Store) Has(ctx context.Context, id [16]byte) (found bool, err error) {
	err = s.view(ctx, func(t *tx) error {
		found = t.get(sessions, id[:]) != nil
		return nil
	})
	return found, err
}

// Save encodes the record before its turn comes.
func (s *Store) Save(ctx context.Context, r record.Record, prev uint64) error {
	e, err := newSave(r, prev)
	if err != nil {
		return err
	}
	return s.changes.Do(ctx, func(t *tx) error { return t.save(e, s.doubt) })
}

// Delete removes the record.
func (s *Store) Delete(ctx context.Context, id [16]byte) error {
	return s.changes.Do(ctx, func(t *tx) error {
		t.remove(id)
		return nil
	})
}

// Touch writes a few bytes beside the record, not the record, and shares its
// transaction with other changes.
func (s *Store) Touch(ctx context.Context, id [16]byte, to record.Access) error {
	return s.changes.Do(ctx, func(t *tx) error { return t.touch(id, to) })
}

// DeleteOld removes what is due, a bounded number in each transaction.
func (s *Store) DeleteOld(ctx context.Context, accessed, expires int64) (int, error) {
	return s.inBatches(ctx, newAgeSweep(accessed, expires).step)
}

// DeleteUser removes the user's records but those to keep.
func (s *Store) DeleteUser(ctx context.Context, user string, keep ...[16]byte) (int, error) {
	return s.inBatches(ctx, newUserSweep(user, keep).step)
}

// inBatches repeats step, each time in another transaction, as long as there is
// more to do, and returns the number of records removed.
func (s *Store) inBatches(ctx context.Context, step func(*tx) (removed int, more bool)) (int, error) {
	total := 0
	for more := true; more; {
		var n int
		err := s.changes.Do(ctx, func(t *tx) error {
			n, more = step(t)
			return nil
		})
		if err != nil {
			return total, err
		}
		total += n
		tally.Add(ctx, n)
	}
	return total, nil
}

// Iter lists all records, a bounded number in each transaction.
func (s *Store) Iter(ctx context.Context) iter.Seq2[record.Record, error] {
	return s.each(ctx, keyRange{bucket: sessions}, func(record.Record, error) bool { return true })
}

// IterUser lists the user's records.
func (s *Store) IterUser(ctx context.Context, user string) iter.Seq2[record.Record, error] {
	return s.each(ctx, keyRange{bucket: byUser, prefix: userPrefix(user)},
		func(r record.Record, err error) bool {
			// An index entry that names no record, or another user's, is none.
			return err == nil && r.User == user || errors.Is(err, record.ErrCorrupt) && r.ID != [16]byte{}
		})
}

// each lists the records that the range leads to and that are meant.
func (s *Store) each(ctx context.Context, r keyRange,
	meant func(record.Record, error) bool,
) iter.Seq2[record.Record, error] {
	return func(yield func(record.Record, error) bool) {
		for r := r; !r.done; { // a copy: the sequence may be used again
			var page []hit
			err := s.view(ctx, func(t *tx) error {
				page = t.page(&r)
				return nil
			})
			if err != nil {
				yield(record.Record{}, err)
				return
			}
			for _, h := range page {
				if meant(h.rec, h.err) && !yield(h.rec, h.err) {
					return
				}
			}
		}
	}
}
