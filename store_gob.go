package session2

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/session2/session2/internal/batch"
	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/goblog"
	"github.com/session2/session2/internal/lockfile"
	"github.com/session2/session2/internal/record"
)

// GobStore is one append-only file of checksummed gob records, with
// an index in memory that takes some 250 bytes a record; the data stay on disk.
// Opening it reads the whole file: a few seconds for a million small records.
//
// It is for one machine, on which several processes may have it open. Each
// call first asks the system whether the file has grown or was replaced, and
// reads what is new, so that it sees all that was acknowledged before it began
// (and perhaps a change just before it is durable).
//
// Concurrent changes share one append and one fsync. When what is dead in the
// file takes more room than what is alive and more than 1 MiB, the next change
// first writes the live rest to a new file, which takes the old one's place. Until
// then changes wait, in all processes (some 9 seconds for a million records), and a
// second index is in memory; readers go on, and those of other processes then read
// the new file once. A DeleteOld that leaves no record leaves nothing of the file
// but its header. On Windows, where an open file cannot be replaced, the file is
// not compacted, and grows.
//
// A flipped byte costs at most the one record that it is in, which then
// answers [ErrCorrupt]. If it is in a change that may not have been durable
// before the machine went down, the record's earlier state is what counts.
//
// Beside the file lie a lock, with ".lock" added to the name, and, during a
// compaction, a temporary with ".tmp". The lock must not be removed while
// the store is in use. Goroutines may share a GobStore.
type GobStore struct {
	path   string // absolute, with no symbolic links
	noSync bool
	logger *slog.Logger
	fs     fsys.FS
	lock   *lockfile.Mutex // on path+".lock": who writes to the file
	batch  *batch.Batcher[*gobJob]
	slack  int64 // dead bytes that do not matter

	// What follows belongs to whoever leads the batch.
	enc      goblog.Encoder
	patience int64 // dead bytes to wait for after a compaction that failed

	mu     sync.RWMutex
	shelf  *gobShelf
	closed bool
	torn   bool // a failed append of our own, which has its error, may have left half a frame
}

var (
	_ Store          = (*GobStore)(nil)
	_ DeleteOldStore = (*GobStore)(nil)
	_ IterStore      = (*GobStore)(nil)
	_ TouchStore     = (*GobStore)(nil)
	_ UserStore      = (*GobStore)(nil)
	_ CapableStore   = (*GobStore)(nil)
)

// GobOptions are departures from what [OpenGobStore] does by default.
type GobOptions struct {
	// NoSync leaves it to the system when to write the file to the disk. What
	// was acknowledged then survives the death of the process, but not that of
	// the machine: the store is not Durable.
	NoSync bool

	// SharedGroup admits a directory and a file that their own group may write to,
	// as the volumes of a Kubernetes pod with an fsGroup are. Whoever is of that
	// group can then read, change, add and delete sessions. What the store creates
	// has the directory's group and is open to it, whatever the umask. A file of
	// another user is admitted if its group is one of this process's. Where the
	// system has no such groups, the option changes nothing.
	SharedGroup bool

	// Logger is told of damage in the file and of an incomplete end that was
	// cut off. The default is slog.Default().
	Logger *slog.Logger
}

// OpenGobStore opens the store in the file at path, and creates it, with mode
// 0600, if there is none; nil options are the safe defaults. The directory must
// be there. Directory and file must belong to this process's user, and nobody else
// may be able to write to them. The path is resolved now, once. A file that is no such store is left alone,
// with an error.
func OpenGobStore(path string, opts *GobOptions) (*GobStore, error) {
	s, err := openGobStore(fsys.OS, path, opts)
	if err != nil {
		return nil, fmt.Errorf("session2: open gob store: %w", err)
	}
	return s, nil
}

func openGobStore(fsy fsys.FS, path string, opts *GobOptions) (*GobStore, error) {
	if opts == nil {
		opts = new(GobOptions)
	}
	s := &GobStore{noSync: opts.NoSync, logger: opts.Logger, slack: gobSlack}
	if s.logger == nil {
		s.logger = slog.Default()
	}
	var err error
	if s.path, s.fs, err = fsys.Place(fsy, path, opts.SharedGroup); err != nil {
		return nil, err
	}
	s.lock = lockfile.New(s.openLock)
	s.batch = batch.NewWithin(gobBatch, s.lock.Lock, s.commit)
	if err := s.prepare(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *GobStore) openLock() (lockfile.File, error) {
	return s.fs.OpenFile(s.path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
}

// prepare creates the log if there is none, reads it, and compacts it if that
// is worth it.
func (s *GobStore) prepare() error {
	unlock, err := s.lock.Lock(context.Background())
	if err != nil {
		return err
	}
	defer unlock()
	s.fs.Remove(fsys.Temp(s.path)) // that a compaction left which was killed
	if err := s.create(); err != nil {
		return err
	}
	if s.shelf, err = openGobShelf(s.fs, s.path); err != nil {
		return err
	}
	if err := s.tidy(); err != nil {
		s.Close()
		return err
	}
	return nil
}

// create makes an empty log if there is no file. Whatever is there stays.
func (s *GobStore) create() error {
	_, err := s.fs.Lstat(s.path)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	log, err := goblog.Rewrite(s.fs, s.path, !s.noSync, func(*goblog.Writer) error { return nil })
	if err != nil {
		return err
	}
	return log.Close()
}

// Close closes the file. Calls under way end as if there had been no Close, and
// later ones answer an error matching os.ErrClosed.
func (s *GobStore) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	return s.shelf.log.Close() // no shelf takes another's place any more
}

// Capabilities implements [CapableStore].
func (s *GobStore) Capabilities() Capabilities {
	return Capabilities{ThreadSafe: true, MultiprocessSafe: true, Durable: !s.noSync}
}

// Load implements [Store].
func (s *GobStore) Load(ctx context.Context, id ID) (Record, error) {
	if err := s.refresh(ctx); err != nil {
		return Record{}, opError("load", id, err)
	}
	rec, err := s.read(id)
	if err != nil {
		return Record{}, opError("load", id, err)
	}
	return rec, nil
}

// read returns the record as it is now.
func (s *GobStore) read(id ID) (Record, error) {
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return Record{}, os.ErrClosed
	}
	e, found := s.shelf.index.Get(id)
	reader, release := s.shelf.log.Hold()
	s.mu.RUnlock()
	defer release()
	if !found {
		return Record{}, ErrNotFound
	}
	op, err := readGob(reader, id, e)
	if err != nil {
		return Record{}, err
	}
	return Record{
		ID: op.ID, Version: Version(op.Version), User: op.User,
		Created: timeMicro(op.Created), Accessed: timeMicro(op.Accessed), Expires: timeMicro(op.Expires),
		Data: op.Data,
	}, nil
}

// Has implements [Store].
func (s *GobStore) Has(ctx context.Context, id ID) (bool, error) {
	if err := s.refresh(ctx); err != nil {
		return false, opError("has", id, err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, found := s.shelf.index.Get(id)
	return found, nil
}

// Save implements [Store].
func (s *GobStore) Save(ctx context.Context, rec Record, prev Version) error {
	if err := checkSave(rec); err != nil {
		return err
	}
	if len(rec.Data)+len(rec.User) > goblog.MaxData {
		return opError("save", rec.ID, ErrTooLarge)
	}
	op := &goblog.Op{
		Kind: goblog.Put, ID: rec.ID, Version: uint64(rec.Version), User: rec.User, Data: rec.Data,
		Created: microTime(rec.Created), Accessed: microTime(rec.Accessed), Expires: microTime(rec.Expires),
	}
	err := s.do(ctx, &gobJob{durable: true, run: func(p *gobPlan) error {
		e, found := p.get(rec.ID)
		if e.Value.lost {
			return ErrCorrupt
		}
		write, err := record.Admit(found, e.Value.version, op.Version, uint64(prev))
		if write {
			err = p.add(op)
		}
		return err
	}})
	return opError("save", rec.ID, err)
}

// Delete implements [Store].
func (s *GobStore) Delete(ctx context.Context, id ID) error {
	err := s.do(ctx, &gobJob{durable: true, run: func(p *gobPlan) error {
		if _, found := p.get(id); !found {
			return nil
		}
		return p.add(&goblog.Op{Kind: goblog.Delete, ID: id})
	}})
	return opError("delete", id, err)
}

// Touch implements [TouchStore]. It appends the times without the data, does
// not wait for the disk, and writes nothing if the times do not move.
func (s *GobStore) Touch(ctx context.Context, id ID, accessed, expires time.Time) error {
	op := &goblog.Op{Kind: goblog.Touch, ID: id, Accessed: microTime(accessed), Expires: microTime(expires)}
	err := s.do(ctx, &gobJob{run: func(p *gobPlan) error {
		e, found := p.get(id)
		if e.Value.lost {
			return ErrCorrupt
		}
		if !found || op.Accessed <= e.Accessed && op.Expires <= e.Expires {
			return nil
		}
		return p.add(op)
	}})
	return opError("touch", id, err)
}
