package session2

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/lockfile"
	"github.com/session2/session2/internal/record"
)

// FileStore keeps each session in a file of its own, named by its ID, in a
// directory that processes of one machine may share. A record is replaced by
// renaming a finished and synced temporary over it, so that readers need no
// lock and a crash leaves the old record or the new one. Writers hold one of
// 256 file locks, picked by the ID; writes of most other sessions go on beside
// them. The directory must be on a local disk.
//
// A file that cannot be read as a record is an error matching [ErrCorrupt]
// once: it is moved to the subdirectory corrupt, and the ID is free.
type FileStore struct {
	fs     fsys.FS
	dir    string // absolute, without symbolic links
	sync   bool
	logger *slog.Logger
	shared bool
	closed atomic.Bool
	locks  [256]*lockfile.Mutex // by the ID's first byte
	sweep  *lockfile.Mutex      // held by DeleteOld; taken before the others

	sessions, users [256]atomic.Bool // directories xx that are known to be there
}

// FileOptions are a [FileStore]'s departures from the safe defaults.
type FileOptions struct {
	// NoSync leaves it to the operating system when to write to the disk. An
	// acknowledged Save then survives the death of the process, but not that
	// of the machine, which may also leave damaged records behind.
	NoSync bool

	// SharedGroup admits a directory that its own group may write to, as the
	// volumes of a Kubernetes pod with an fsGroup are. Whoever is of that group
	// can then read, change, add and delete sessions. What the store creates has
	// the directory's group and is open to it, whatever the umask. A directory of
	// another user is admitted if its group is one of this process's. Where the
	// system has no such groups, the option changes nothing.
	SharedGroup bool

	// Logger is told of each damaged record that is set aside. By default
	// slog.Default().
	Logger *slog.Logger
}

var (
	_ Store          = (*FileStore)(nil)
	_ SetupStore     = (*FileStore)(nil)
	_ DeleteOldStore = (*FileStore)(nil)
	_ IterStore      = (*FileStore)(nil)
	_ TouchStore     = (*FileStore)(nil)
	_ UserStore      = (*FileStore)(nil)
	_ CapableStore   = (*FileStore)(nil)
)

// OpenFileStore opens the store in the directory dir and creates what is missing
// of it. It refuses a directory that another user could write to, and fails with
// an error matching [errors.ErrUnsupported] where the system has no file locks
// that can be trusted. The path is resolved now, once. Nil options are the safe
// defaults.
//
// A directory of the store's that is removed while the store is in use is made
// anew by the next call that needs it; the sessions in it have ended. If it was one
// of the indexes, that call makes the index anew from the sessions, which takes
// the longer the more there are.
func OpenFileStore(dir string, opts *FileOptions) (*FileStore, error) {
	return openFileStore(fsys.OS, dir, opts)
}

func openFileStore(fs fsys.FS, dir string, opts *FileOptions) (*FileStore, error) {
	if opts == nil {
		opts = &FileOptions{}
	}
	s, err := newFileStore(fs, dir, opts)
	if err == nil {
		err = s.setup(context.Background())
	}
	if err == nil && s.isEmpty(s.path("sessions")) { // complete by nature: so nobody has to rebuild it when it has grown
		err = s.complete(context.Background(), fileIndexes...)
	}
	if err != nil {
		return nil, fmt.Errorf("session2: open file store: %w", err)
	}
	return s, nil
}

func newFileStore(fs fsys.FS, dir string, opts *FileOptions) (*FileStore, error) {
	s := &FileStore{fs: fs, sync: !opts.NoSync, shared: opts.SharedGroup, logger: cmp.Or(opts.Logger, slog.Default())}
	if err := s.place(dir); err != nil {
		return nil, err
	}
	for i := range s.locks {
		s.locks[i] = s.newLock(hexByte(byte(i)))
	}
	s.sweep = s.newLock("sweep")
	return s, nil
}

// newLock returns the lock on a file that is never renamed or removed.
func (s *FileStore) newLock(name string) *lockfile.Mutex {
	return lockfile.New(func() (lockfile.File, error) {
		return s.fs.OpenFile(s.path("locks", name), os.O_RDWR|os.O_CREATE, 0o600)
	})
}

// Close ends the use of the store: later calls fail with an error matching
// [os.ErrClosed]. Calls under way finish. It may be called twice.
func (s *FileStore) Close() error {
	s.closed.Store(true)
	return nil
}

// Capabilities returns what the store promises: all but MultihostSafe, and
// Durable only without NoSync.
func (s *FileStore) Capabilities() Capabilities {
	return Capabilities{ThreadSafe: true, MultiprocessSafe: true, Durable: s.sync}
}

// Load implements [Store].
func (s *FileStore) Load(ctx context.Context, id ID) (Record, error) {
	rec, err := s.load(ctx, id)
	return rec, opError("load", id, err)
}

func (s *FileStore) load(ctx context.Context, id ID) (Record, error) {
	if err := s.begin(ctx); err != nil {
		return Record{}, err
	}
	r, found, err := s.read(id)
	if errors.Is(err, ErrCorrupt) {
		err = s.locked(ctx, id, func() (err error) {
			r, found, err = s.lookup(id)
			return err
		})
	}
	switch {
	case err != nil:
		return Record{}, err
	case !found:
		return Record{}, ErrNotFound
	}
	return fromFile(r), nil
}

// Save implements [Store].
func (s *FileStore) Save(ctx context.Context, rec Record, prev Version) error {
	if err := checkSave(rec); err != nil {
		return err
	}
	return opError("save", rec.ID, s.locked(ctx, rec.ID, func() error {
		old, found, err := s.lookup(rec.ID)
		if err != nil {
			return err
		}
		write, err := record.Admit(found, old.Version, uint64(rec.Version), uint64(prev))
		if err != nil {
			return err
		}
		if !write { // it landed before, perhaps without its last step
			return s.syncFolder(rec.ID)
		}
		return s.replace(ctx, old, found, toFile(rec))
	}))
}

// replace writes r in place of old, which is what is stored if found. The
// record is the truth and the two indexes follow it: what leads to r is made
// durable before r is, and what led to old alone is removed after that is
// durable, too. So a crash between any two steps leaves entries too many,
// which are checked against the record whenever they are read, and never one
// too few. The caller holds the lock.
func (s *FileStore) replace(ctx context.Context, old record.Record, found bool, r record.Record) (err error) {
	buf, err := record.Append(nil, &r)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	if err := s.fanOut("sessions", &s.sessions[r.ID[0]], hexByte(r.ID[0])); err != nil {
		return err
	}
	// While no write moves its times back, the record's first entry stays good.
	if !found || r.Accessed < old.Accessed || r.Expires < old.Expires {
		if err := s.announce(r.ID, r.Access); err != nil {
			return err
		}
	}
	if r.User != old.User || s.lacksUser(r.User, r.ID) { // somebody removed the entry
		defer func() {
			if err != nil && r.User != "" {
				s.checkEntry(r.User, r.ID) // it would be dropped when next met: here it need not succeed
			}
		}()
		if err := s.addUser(r.User, r.ID); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err = fsys.WriteFile(s.fs, s.file(r.ID), s.sync, func(w io.Writer) error {
		_, err := w.Write(buf)
		return err
	})
	switch {
	case errors.Is(err, syscall.EFBIG):
		err = fmt.Errorf("%w: %w", ErrTooLarge, err)
	case err == nil && r.User != old.User:
		s.dropUser(old.User, r.ID)
	}
	return err
}

// Delete implements [Store].
func (s *FileStore) Delete(ctx context.Context, id ID) error {
	return opError("delete", id, s.locked(ctx, id, func() error {
		old, _, _ := s.read(id) // whatever cannot be read is removed all the same
		if err := s.remove(id); err != nil {
			return err
		}
		if err := s.endUser(old.User, id); err != nil {
			return err
		}
		return s.forgetNew(id)
	}))
}

// remove removes the record and what a killed writer left beside it. The
// caller holds the lock, and syncs the directory before it removes the entry in
// the index by user: else a power cut might bring the record back without it.
func (s *FileStore) remove(id ID) error {
	err := s.fs.Remove(s.file(id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.fs.Remove(fsys.Temp(s.file(id)))
	return nil
}

// Has implements [Store]. A record counts even if it cannot be read.
func (s *FileStore) Has(ctx context.Context, id ID) (bool, error) {
	if err := s.begin(ctx); err != nil {
		return false, opError("has", id, err)
	}
	_, err := s.fs.Lstat(s.file(id))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, opError("has", id, err)
}

// touchSize is how much of a record Touch reads: more than enough for the user,
// unless the name is very long.
const touchSize = 512

// Touch implements [TouchStore]. It writes 20 bytes in place, without a sync.
func (s *FileStore) Touch(ctx context.Context, id ID, accessed, expires time.Time) error {
	to := record.Access{Accessed: microTime(accessed), Expires: microTime(expires)}
	return opError("touch", id, s.locked(ctx, id, func() error { return s.touch(id, to) }))
}

func (s *FileStore) touch(id ID, to record.Access) error {
	f, err := s.fs.OpenFile(s.file(id), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, touchSize)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return err
	}
	head = head[:n]
	offset, write, err := record.Touch(head[:min(n, record.HeadSize)], to)
	if err != nil {
		_, _, err = s.lookup(id) // sets it aside
		return err
	}
	if write != nil {
		_, err = f.WriteAt(write, offset)
	}
	if err == nil && s.lacksUser(record.User(head), id) {
		err = s.enterUser(id)
	}
	return err
}

// begin refuses a call whose context has ended, or that comes after Close.
func (s *FileStore) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.closed.Load() {
		return os.ErrClosed
	}
	return nil
}

// locked calls do while no other writer, here or in another process, is at the
// record. It calls do again if a directory had to be made anew.
func (s *FileStore) locked(ctx context.Context, id ID, do func() error) error {
	return s.healed(ctx, func() error { return s.lockedOnce(ctx, id, do) })
}

func (s *FileStore) lockedOnce(ctx context.Context, id ID, do func() error) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	unlock, err := s.locks[id[0]].Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return do()
}

// healed calls do, and again once the store's directories are made anew if one
// of them turned out to be missing: somebody removed it since it was made, and
// entries of the indexes may have been in it.
func (s *FileStore) healed(ctx context.Context, do func() error) error {
	err := do()
	for try := 0; try < 3 && errors.Is(err, fs.ErrNotExist); try++ {
		if err := s.setup(ctx); err != nil {
			return err
		}
		s.unmark(fileIndexes) // it need not succeed
		err = do()
	}
	return err
}
