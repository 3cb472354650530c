package session2

import (
	"time"

	"github.com/session2/session2/internal/boltstore"
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
// 0.4 s for a GB, and as much again where the process before was killed. Close
// leaves in the file which pages are free.
//
// A record that was damaged on the disk is an error of its own. But bbolt keeps
// no checksums of its pages: a file in which one of those is damaged is refused
// when it is opened, and calls that meet such damage later return an error. Not
// all damage is seen in time, and then bbolt may take much memory or end the
// process: 1 of 200 files with four bad bytes did.
//
// Setup has nothing left to do after [OpenBoltStore]; it checks that the file is there
// and its format the right one. Has reports a corrupt record, too. Save returns nil
// after the fsync, unless NoSync is set, and Touch writes a few bytes beside the
// record, not the record. Iter and IterUser go in the order of IDs, and no transaction
// is open while the loop's body runs. The store promises ThreadSafe and, unless NoSync
// is set, Durable.
type BoltStore struct{ adapter }

// BoltOptions are the options of [OpenBoltStore]. The zero value is the safe default.
type BoltOptions struct {
	// NoSync leaves out the fsyncs. An acknowledged Save then survives the death of the
	// process, but a power cut or a crash of the machine may destroy the whole file:
	// the store is not Durable.
	NoSync bool

	// SharedGroup admits a directory and a file that their own group may write to,
	// as the volumes of a Kubernetes pod with an fsGroup are. Whoever is of that
	// group can then read, change, add and delete sessions. A file that the store
	// creates has the directory's group and is open to it, whatever the umask. A
	// file of another user is admitted if its group is one of this process's. Where
	// the system has no such groups, the option changes nothing.
	SharedGroup bool

	// Timeout is how long to wait for another process to close the file. Default 1 s;
	// negative is an error.
	Timeout time.Duration
}

// OpenBoltStore opens the database file at path and creates it, with mode 0600, if it
// is not there. The directory must exist. Directory and file must belong to this
// process's user, and nobody else may be able to write to them. The path is resolved
// once: a later change of the working directory or of a link moves nothing. Nil options
// are the safe defaults.
//
// A file that another process has open, that is no bolt database, that another
// application filled or a later release of this package wrote is an error and stays as
// it is. The caller closes the store.
func OpenBoltStore(path string, opts *BoltOptions) (*BoltStore, error) {
	o := filled(opts)
	back, err := boltstore.Open(path, boltstore.Options(o))
	if err != nil {
		return nil, failed("open bolt store "+path, err)
	}
	return &BoltStore{adapter{back, Capabilities{ThreadSafe: true, Durable: !o.NoSync}}}, nil
}

// Close closes the file, once the calls that are under way have ended. Later
// calls return an error matching [io/fs.ErrClosed], but for Close itself, which
// may be called again.
func (b *BoltStore) Close() error { return failed("close bolt", b.back.Close()) }
