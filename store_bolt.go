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
type BoltStore struct {
	db      *bolt.DB
	file    *os.File // the database's own
	closed  atomic.Bool
	update  func(func(*bolt.Tx) error) error // db.Update, but for tests
	changes *batch.Batcher[boltChange]
	opts    BoltOptions

	// broken is the panic that bbolt failed with in the midst of a commit. There
	// are no commits after it.
	broken atomic.Pointer[error]

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

var (
	_ Store          = (*BoltStore)(nil)
	_ SetupStore     = (*BoltStore)(nil)
	_ DeleteOldStore = (*BoltStore)(nil)
	_ IterStore      = (*BoltStore)(nil)
	_ TouchStore     = (*BoltStore)(nil)
	_ UserStore      = (*BoltStore)(nil)
	_ CapableStore   = (*BoltStore)(nil)
)

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
	return b, nil
}

func openBolt(path string, o BoltOptions) (*BoltStore, error) {
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
	b := &BoltStore{db: db, file: file, update: db.Update, opts: o}
	b.changes = batch.New(boltBatch, b.commit)
	return b, nil
}

// Close closes the file, once the calls that are under way have ended. Later
// calls answer an error matching [fs.ErrClosed], but for Close itself, which
// may be called again.
func (b *BoltStore) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	var damage error
	if broken := b.broken.Load(); broken != nil {
		damage = *broken
	}
	if err := letGoOfBolt(b.db, b.file, damage); err != nil {
		return fmt.Errorf("session2: close bolt: %w", err)
	}
	return nil
}

// Capabilities promises thread safety and, unless NoSync is set, durability.
func (b *BoltStore) Capabilities() Capabilities {
	return Capabilities{ThreadSafe: true, Durable: !b.opts.NoSync}
}

// Setup has nothing left to do after [OpenBoltStore]; it checks that the file
// is there and its format the right one.
func (b *BoltStore) Setup(ctx context.Context) error {
	if err := b.view(ctx, (*boltTx).checkFormat); err != nil {
		return fmt.Errorf("session2: set up: %w", err)
	}
	return nil
}

// Load returns the record, or an error matching [ErrNotFound], or [ErrCorrupt]
// if it cannot be read. The caller owns its Data.
func (b *BoltStore) Load(ctx context.Context, id ID) (Record, error) {
	var rec Record
	err := b.view(ctx, func(t *boltTx) (err error) {
		rec, err = t.record(id)
		return err
	})
	if err != nil {
		return Record{}, opError("load", id, err)
	}
	return rec, nil
}

// Has reports whether there is a record, be it corrupt.
func (b *BoltStore) Has(ctx context.Context, id ID) (bool, error) {
	var found bool
	err := b.view(ctx, func(t *boltTx) error {
		found = t.get(boltSessions, id[:]) != nil
		return nil
	})
	return found, opError("has", id, err)
}

// Save replaces the record if its version is still prev, or creates it for a
// zero prev. It answers [ErrConflict] or [ErrNotFound] as [Store] says, and
// [ErrCorrupt] if the stored record cannot be read and so not be compared. A
// nil answer comes after the fsync, unless NoSync is set.
func (b *BoltStore) Save(ctx context.Context, rec Record, prev Version) error {
	if err := checkSave(rec); err != nil {
		return err
	}
	s, err := newBoltSave(rec, prev)
	if err == nil {
		err = b.changes.Do(ctx, func(t *boltTx) error { return t.save(s, b.doubt) })
	}
	return opError("save", rec.ID, err)
}

// Delete removes the record. An absent one is no error.
func (b *BoltStore) Delete(ctx context.Context, id ID) error {
	return opError("delete", id, b.changes.Do(ctx, func(t *boltTx) error {
		t.remove(id)
		return nil
	}))
}

// Touch moves Accessed and Expires forward, each by itself and never back. An
// absent record is no error. It writes a few bytes beside the record, not the
// record, and shares its transaction with other changes.
func (b *BoltStore) Touch(ctx context.Context, id ID, accessed, expires time.Time) error {
	a := record.Access{Accessed: microTime(accessed), Expires: microTime(expires)}
	return opError("touch", id, b.changes.Do(ctx, func(t *boltTx) error {
		return t.touch(id, a)
	}))
}

// DeleteOld removes the records that were not accessed for age or have
// expired, and returns their number. It finds them by index, a bounded number
// in each transaction.
func (b *BoltStore) DeleteOld(ctx context.Context, age time.Duration) (int, error) {
	if err := checkAge(age); err != nil {
		return 0, err
	}
	now := time.Now()
	s := newBoltAgeSweep(microTime(now.Add(-age)), microTime(now))
	return b.inBatches(ctx, "delete old", s.step)
}

// DeleteUser ends all sessions of the user but those to keep, and returns their
// number. For the
// empty user there are none.
func (b *BoltStore) DeleteUser(ctx context.Context, user string, keep ...ID) (int, error) {
	return b.inBatches(ctx, "delete user", newBoltUserSweep(user, keep).step)
}

// inBatches repeats step, each time in another transaction, as long as there is
// more to do, and returns the number of records removed.
func (b *BoltStore) inBatches(ctx context.Context, op string, step func(*boltTx) (removed int, more bool)) (int, error) {
	total := 0
	for more := true; more; {
		var n int
		err := b.changes.Do(ctx, func(t *boltTx) error {
			n, more = step(t)
			return nil
		})
		if err != nil {
			return total, fmt.Errorf("session2: %s: %w", op, err)
		}
		total += n
		tally.Add(ctx, n)
	}
	return total, nil
}

// Iter lists all records, in the order of their IDs. It reads a bounded number
// at a time, and no transaction is open while the loop's body runs.
func (b *BoltStore) Iter(ctx context.Context) iter.Seq2[Record, error] {
	return b.each(ctx, "iter", boltRange{bucket: boltSessions}, func(Record, error) bool { return true })
}

// IterUser lists the user's records likewise. For the empty user there are
// none.
func (b *BoltStore) IterUser(ctx context.Context, user string) iter.Seq2[Record, error] {
	return b.each(ctx, "iter user", boltRange{bucket: boltByUser, prefix: boltUser(user)},
		func(rec Record, err error) bool {
			// An index entry that names no record, or another user's, is none.
			return err == nil && rec.User == user || errors.Is(err, ErrCorrupt) && rec.ID != ID{}
		})
}

// each lists the records that the range leads to and that are meant.
func (b *BoltStore) each(ctx context.Context, op string, r boltRange, meant func(Record, error) bool) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for r := r; !r.done; { // a copy: the sequence may be used again
			var page []boltHit
			err := b.view(ctx, func(t *boltTx) error {
				page = t.page(&r)
				return nil
			})
			if err != nil {
				yield(Record{}, fmt.Errorf("session2: %s: %w", op, err))
				return
			}
			for _, h := range page {
				if err := ctx.Err(); err != nil {
					yield(Record{}, fmt.Errorf("session2: %s: %w", op, err))
					return
				}
				if !meant(h.rec, h.err) {
					continue
				}
				if !yield(h.rec, opError(op, h.rec.ID, h.err)) {
					return
				}
			}
		}
	}
}
