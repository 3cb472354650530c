package session2

import (
	"log/slog"
	"time"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/gobstore"
)

// GobStore keeps records in one append-only file of checksummed gob records, with an
// index in memory that takes some 250 bytes a record; the data stay on disk. Goroutines
// may share it, and several processes of one machine may have the file open.
//
// From 20,000 records on, a second file has the index as well, some 75 bytes a record.
// Opening the store reads that and what came later, and then makes the index in memory
// while the first calls are served. The second file is written by Close, by a
// compaction, and when a quarter of the records have changed. Without it, or if it is
// damaged, opening reads everything: a few seconds for a million small records.
//
// Each call first asks the system whether the file has grown or was replaced, and reads
// what is new, so that it sees all that was acknowledged before it began (and perhaps a
// change just before it is durable).
//
// Concurrent changes share one append and one fsync. When what is dead in the file
// takes more room than what is alive and more than 1 MiB, the live rest is written to a
// new file, which takes the old one's place. If up to 1 MiB is alive, the next change
// does that first. More is copied by a goroutine beside the changes, which it holds up
// for the last few records only; meanwhile a second index is in memory. Close ends that
// goroutine and waits for it. A DeleteOld that leaves no record leaves nothing of the
// file but its header. On Windows, where an open file cannot be replaced, the file is
// not compacted, and grows.
//
// A flipped byte costs at most the one record that it is in, whose calls then return
// [ErrCorrupt]. If it is in a change that may not have been durable before the machine
// went down, the record's earlier state is what counts.
//
// Beside the file lie a lock, with ".lock" added to the name; that of compactions, with
// ".compact.lock"; the index, with ".index"; and temporaries with ".tmp". The locks
// must not be removed while the store is in use; the index may be at any time.
//
// Setup has nothing left to do after [OpenGobStore]; it checks that the file is there.
// Has reports a corrupt record, too. Save returns nil after the fsync, unless NoSync is
// set. Touch appends the times without the data, does not wait for the disk, and writes
// nothing if the times do not move. DeleteOld and DeleteUser delete in batches, between
// which others have their turn. Iter and IterUser take down the IDs, 16 bytes each, and
// read the records one by one, in their order. The store promises ThreadSafe,
// MultiprocessSafe and, unless NoSync is set, Durable.
type GobStore struct{ adapter }

// GobOptions are the options of [OpenGobStore]. The zero value is the safe default.
type GobOptions struct {
	// NoSync leaves it to the operating system when to write to the disk. An
	// acknowledged Save then survives the death of the process, but not that of the
	// machine: the store is not Durable.
	NoSync bool

	// SharedGroup admits a directory and a file that their own group may write to,
	// as the volumes of a Kubernetes pod with an fsGroup are. Whoever is of that
	// group can then read, change, add and delete sessions. What the store creates
	// has the directory's group and is open to it, whatever the umask. A file of
	// another user is admitted if its group is one of this process's. Where the
	// system has no such groups, the option changes nothing.
	SharedGroup bool

	// Timeout is how long a call whose context has no deadline, and OpenGobStore, wait for
	// another process that holds the lock on the file. A process that opens the store holds
	// it while it reads the file. Default 30 s; negative is an error.
	Timeout time.Duration

	// Logger is told of damage in the file and of an incomplete end that was cut off.
	// Default slog.Default().
	Logger *slog.Logger
}

// OpenGobStore opens the store in the file at path, and creates it, with mode 0600, if
// there is none. The directory must be there. Directory and file must belong to this
// process's user, and nobody else may be able to write to them. The path is resolved
// once: a later change of the working directory or of a link moves nothing. A file that
// is no such store is left alone, with an error. Nil options are the safe defaults. The
// caller closes the store.
func OpenGobStore(path string, opts *GobOptions) (*GobStore, error) {
	o := filled(opts)
	s, err := gobstore.Open(fsys.OS, path, gobstore.Options(o))
	if err != nil {
		return nil, failed("open gob store", err)
	}
	return &GobStore{adapter{s, Capabilities{ThreadSafe: true, MultiprocessSafe: true, Durable: !o.NoSync}}}, nil
}
