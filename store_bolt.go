package session2

import (
	"context"
	"errors"
	"fmt"
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
	boltBatch   = 256     // changes that share a transaction, at most
	boltSweep   = 256     // records that one transaction of a sweep looks at, at most
	boltPage    = 64      // records that Iter reads in one transaction, at most,
	boltPageMem = 1 << 20 // and bytes of them, give or take one record
)

// BoltStore keeps records in one file, a bbolt database. It needs no server,
// keeps indexes by user and by age, and suits a single process that has many
// sessions. Goroutines may share it; a second process that opens the file gets
// an error.
//
// Concurrent changes share a transaction and so its fsyncs: the more callers,
// the less each of them pays. A Touch costs as much as a Save if it is alone,
// because bbolt cannot commit a transaction without syncing it and keep the
// others safe: the pages of a commit may reach the disk in any order, and its
// root before its leaves would lose the database, not just that commit.
//
// The file grows to what the largest number of records took and never shrinks;
// space of deleted records is used again. Opening it reads the file's tree: some
// 0.4 s for a GB.
//
// A record that was damaged on the disk is an error of its own. But bbolt keeps
// no checksums of its pages: a file in which one of those is damaged is refused
// when it is opened, and calls that meet such damage later answer an error. Not
// all damage is seen in time, and then bbolt may take much memory or end the
// process: 1 of 200 files with four bad bytes did.
//
// Setup has nothing left to do after [OpenBoltStore]; it checks that the file is
// there and its format the right one. Has reports a corrupt record, too. A nil error
// of Save comes after the fsync, unless NoSync is set, and Touch writes a few bytes
// beside the record, not the record. Iter and IterUser go in the order of IDs, and no
// transaction is open while the loop's body runs. The store promises thread safety
// and, unless NoSync is set, durability.
type BoltStore struct {
	adapter
	bolt *boltBack
}

// boltBack is the back end of a BoltStore.
type boltBack struct {
	db      *bolt.DB
	file    *os.File // the database's own
	closed  atomic.Bool
	update  func(func(*bolt.Tx) error) error // db.Update, but for tests
	changes *batch.Batcher[boltChange]

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

// boltChange is one change within a batch. It decides first and writes after:
// one that answers an error has written nothing.
type boltChange func(t *boltTx) error

// BoltOptions are the options of [OpenBoltStore]. The zero value is the safe
// default.
type BoltOptions struct {
	// NoSync leaves out the fsyncs. A change then survives the end of the
	// process, but a power cut or a crash of the machine may destroy the whole
	// file. The store's Capabilities do not say Durable.
	NoSync bool

	// SharedGroup admits a directory and a file that their own group may write to,
	// as the volumes of a Kubernetes pod with an fsGroup are. Whoever is of that
	// group can then read, change, add and delete sessions. A file that the store
	// creates has the directory's group and is open to it, whatever the umask. A
	// file of another user is admitted if its group is one of this process's. Where
	// the system has no such groups, the option changes nothing.
	SharedGroup bool

	// Timeout is how long to wait for another process to close the file. Zero
	// is one second.
	Timeout time.Duration
}

// OpenBoltStore opens the database file at path and creates it, with mode 0600,
// if it is not there. The directory must exist. Directory and file must belong to
// this process's user, and nobody else may be able to write to them. The path is
// resolved now, once. Nil options are the defaults.
//
// A file that another process has open, that is no bolt database, that another
// application filled or a later release of this package wrote is an error and
// stays as it is. The caller closes the store.
func OpenBoltStore(path string, opts *BoltOptions) (*BoltStore, error) {
	var o BoltOptions
	if opts != nil {
		o = *opts
	}
	b, err := openBolt(path, o)
	if err != nil {
		return nil, fmt.Errorf("session2: open bolt store %s: %w", path, err)
	}
	return &BoltStore{adapter{b, Capabilities{ThreadSafe: true, Durable: !o.NoSync}}, b}, nil
}

func openBolt(path string, o BoltOptions) (*boltBack, error) {
	if o.Timeout < 0 {
		return nil, fmt.Errorf("negative BoltOptions.Timeout %v", o.Timeout)
	}
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	db, file, err := openBoltFile(path, o)
	if err != nil {
		return nil, err
	}
	b := &boltBack{db: db, file: file, update: db.Update}
	b.changes = batch.New(boltBatch, b.commit)
	return b, nil
}

// Close closes the file, once the calls that are under way have ended. Later
// calls return an error matching [io/fs.ErrClosed], but for Close itself, which
// may be called again.
func (b *BoltStore) Close() error { return failed("close bolt", b.back.Close()) }

// Close closes the file.
func (b *boltBack) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	var damage error
	if broken := b.broken.Load(); broken != nil {
		damage = *broken
	}
	return letGoOfBolt(b.db, b.file, damage)
}

// Setup checks the file's format.
func (b *boltBack) Setup(ctx context.Context) error { return b.view(ctx, (*boltTx).checkFormat) }

// Load returns a copy of the record.
func (b *boltBack) Load(ctx context.Context, id [16]byte) (r record.Record, err error) {
	err = b.view(ctx, func(t *boltTx) (err error) {
		r, err = t.record(id)
		return err
	})
	return r, err
}

// Has reports whether there is a record, be it corrupt.
func (b *boltBack) Has(ctx context.Context, id [16]byte) (found bool, err error) {
	err = b.view(ctx, func(t *boltTx) error {
		found = t.get(boltSessions, id[:]) != nil
		return nil
	})
	return found, err
}

// Save encodes the record before its turn comes.
func (b *boltBack) Save(ctx context.Context, r record.Record, prev uint64) error {
	s, err := newBoltSave(r, prev)
	if err != nil {
		return err
	}
	return b.changes.Do(ctx, func(t *boltTx) error { return t.save(s, b.doubt) })
}

// Delete removes the record.
func (b *boltBack) Delete(ctx context.Context, id [16]byte) error {
	return b.changes.Do(ctx, func(t *boltTx) error {
		t.remove(id)
		return nil
	})
}

// Touch writes a few bytes beside the record, not the record, and shares its
// transaction with other changes.
func (b *boltBack) Touch(ctx context.Context, id [16]byte, to record.Access) error {
	return b.changes.Do(ctx, func(t *boltTx) error { return t.touch(id, to) })
}

// DeleteOld removes what is due, a bounded number in each transaction.
func (b *boltBack) DeleteOld(ctx context.Context, accessed, expires int64) (int, error) {
	return b.inBatches(ctx, newBoltAgeSweep(accessed, expires).step)
}

// DeleteUser removes the user's records but those to keep.
func (b *boltBack) DeleteUser(ctx context.Context, user string, keep ...[16]byte) (int, error) {
	return b.inBatches(ctx, newBoltUserSweep(user, keep).step)
}

// inBatches repeats step, each time in another transaction, as long as there is
// more to do, and returns the number of records removed.
func (b *boltBack) inBatches(ctx context.Context, step func(*boltTx) (removed int, more bool)) (int, error) {
	total := 0
	for more := true; more; {
		var n int
		err := b.changes.Do(ctx, func(t *boltTx) error {
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
func (b *boltBack) Iter(ctx context.Context) iter.Seq2[record.Record, error] {
	return b.each(ctx, boltRange{bucket: boltSessions}, func(record.Record, error) bool { return true })
}

// IterUser lists the user's records.
func (b *boltBack) IterUser(ctx context.Context, user string) iter.Seq2[record.Record, error] {
	return b.each(ctx, boltRange{bucket: boltByUser, prefix: boltUser(user)},
		func(r record.Record, err error) bool {
			// An index entry that names no record, or another user's, is none.
			return err == nil && r.User == user || errors.Is(err, ErrCorrupt) && r.ID != ID{}
		})
}

// each lists the records that the range leads to and that are meant.
func (b *boltBack) each(ctx context.Context, r boltRange, meant func(record.Record, error) bool) iter.Seq2[record.Record, error] {
	return func(yield func(record.Record, error) bool) {
		for r := r; !r.done; { // a copy: the sequence may be used again
			var page []boltHit
			err := b.view(ctx, func(t *boltTx) error {
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
