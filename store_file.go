package session2

import (
	"context"
	"log/slog"
	"time"

	"github.com/session2/session2/internal/filestore"
	"github.com/session2/session2/internal/fsys"
)

// FileStore keeps each session in a file of its own, named by its ID, in a
// directory that processes of one machine may share. A record is replaced by
// renaming a finished and synced temporary over it, so that readers need no
// lock and a crash leaves the old record or the new one. Writers hold one of
// 256 file locks, picked by the ID; writes of most other sessions go on beside
// them. The directory must be on a local disk. The store promises all but
// MultihostSafe, and Durable only without NoSync.
//
// A file that cannot be read as a record is an error matching [ErrCorrupt]
// once: it is moved to the subdirectory corrupt, and the ID is free. Until then
// Has reports it.
//
// Touch writes 20 bytes in place, without a sync. Iter goes through 256 directories
// one after the other, and keeps the IDs of one of them in memory: 16 bytes each. A
// record that cannot be deleted keeps neither DeleteUser nor DeleteOld from the
// others. Sweeps of one directory, in whichever process, take turns. Writers wait for
// a sweep as for one another, and readers not at all.
//
// Setup makes the store's directories, as [OpenFileStore] has done already, and checks
// those that are there. It rebuilds an index that has vanished, as the next call that
// needs it does otherwise.
type FileStore struct {
	adapter
	files *filestore.Store
}

// FileOptions are the options of [OpenFileStore]. The zero value is the safe default.
type FileOptions struct {
	// NoSync leaves it to the operating system when to write to the disk. An
	// acknowledged Save then survives the death of the process, but not that
	// of the machine, which may also leave damaged records behind.
	NoSync bool

	// SharedGroup admits a directory that its own group may write to, as the
	// volumes of a Kubernetes pod with an fsGroup are. Whoever is of that group
	// can then read, change, add and delete sessions. What the store creates has
	// the directory's group and is open to it, whatever the umask. A directory of
	// another user is admitted if its group is one of this process's. The store's own
	// directory gets the group of the one that it is made in, or is opened to its group
	// if it was closed. Where the system has no such groups, the option changes nothing.
	SharedGroup bool

	// Timeout is how long a call whose context has no deadline waits for another process
	// that holds the lock on a record; OpenFileStore, any lock. Sweeps take turns, and wait
	// for one another for as long as these take. Default 30 s; negative is an error.
	Timeout time.Duration

	// Logger is told of each damaged record that is set aside. Default slog.Default().
	Logger *slog.Logger
}

// OpenFileStore opens the store in the directory dir and creates what is missing of it.
// It refuses a directory that another user could write to, and fails with an error
// matching [errors.ErrUnsupported] where the system has no file locks that can be
// trusted. The path is resolved once: a later change of the working directory or of a
// link moves nothing. Nil options are the safe defaults.
//
// A directory of the store's that is removed while the store is in use is made anew by
// the next call that needs it; the sessions in it have ended. If it was one of the
// indexes, that call makes the index anew from the sessions, which takes the longer the
// more there are.
func OpenFileStore(dir string, opts *FileOptions) (*FileStore, error) {
	o := filled(opts)
	files, err := filestore.Open(fsys.OS, dir, filestore.Options(o))
	if err != nil {
		return nil, failed("open file store", err)
	}
	caps := Capabilities{ThreadSafe: true, MultiprocessSafe: true, Durable: !o.NoSync}
	return &FileStore{adapter{files, caps}, files}, nil
}

// CheckIndexes returns the IDs of the records that are missing from the index by
// user, and of those that are missing from the index by time: RevokeUser misses
// the former, and DeleteOld the latter. It reads every record, changes nothing, and
// holds up DeleteOld, but no other call.
//
// An index that has vanished is rebuilt by Setup, and by the next call that needs
// it. One that lacks entries here and there, because somebody removed those, is
// rebuilt by [FileStore.RebuildIndexes], as the command session2 setup does. Save
// and Touch enter a session in the index by user again.
func (s *FileStore) CheckIndexes(ctx context.Context) (users, due []ID, err error) {
	err = s.do(ctx, "check indexes", func(ctx context.Context) error {
		u, d, err := s.files.CheckIndexes(ctx)
		users, due = idsFrom(u), idsFrom(d)
		return err
	})
	return users, due, err
}

// RebuildIndexes makes the indexes by user and by time anew from the records, and
// then drops what [FileStore.TrimIndexes] does. It holds up DeleteOld, and takes the
// longer the more records there are. If it does not come to its end, the next call
// that needs an index goes on with making it.
func (s *FileStore) RebuildIndexes(ctx context.Context) error {
	return s.do(ctx, "rebuild indexes", s.files.RebuildIndexes)
}

// TrimIndexes drops from the index by user the entries that lead to no record, or to
// another user's: empty files, one of which a writer that is killed may leave. It
// reads the records that the index leads to, one after the other, and waits for
// writers only where it drops something.
func (s *FileStore) TrimIndexes(ctx context.Context) error {
	return s.do(ctx, "trim indexes", s.files.TrimIndexes)
}

func idsFrom(list [][16]byte) (ids []ID) {
	for _, id := range list {
		ids = append(ids, id)
	}
	return ids
}
