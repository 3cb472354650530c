// Package gobstore keeps session records in one append-only file, which several
// processes read and write, behind an index in memory.
//
// The file is a header and frames; numbers are little-endian, checksums CRC-32C:
//
//	header   magic 8 | format 4 | generation 8 | checksum 4
//	frame    marker 3 | kind 1 | back 4 | length 4 | ID 16 | checksum 4 | payload | checksum 4
//
// A frame puts a record, touches or deletes one, or says that one is lost. The
// length is that of the payload: gob values of basic types, of which the kind and
// the ID are the first. Back says how far before the frame the file was known to be
// durable when the frame was written.
//
// Whoever writes holds a lock, on another file. The log grows by whole frames, and
// only what is provably half a frame is ever cut off, by one who holds the lock: so
// what was once read as a frame stays one, and readers need no lock. A compaction
// puts a new file, with another generation, in the place of the old one, which those
// who have it open can go on reading. It copies without the lock, notes which records
// change meanwhile, and takes the lock for the last of these and the new file's name.
//
// The index of many records lies in a file of its own, too (base.go). Whoever opens the
// log reads that and what the log got later, instead of all of it. Nothing depends on
// that file: without it, or if it is not the log's, the whole log is read.
//
// Half of the code would do for a log that trusts its disk and belongs to one
// process. The other half is for what the store promises beyond that:
//
//   - A flipped byte costs one record, which is named, and an update torn by a power
//     cut none: what is in scan.go, and two checksums and IDs a frame.
//   - A full disk refuses exactly the changes that it has no room for: Store.landed
//     and Store.settle.
//   - A failed sync is never taken back by the next one: log.suspect.
//   - Processes see each other's changes, also through a compaction: Store.refresh,
//     Store.catchUp, the generation.
//   - The file stays in proportion to what is alive: compact.go, copy.go.
package gobstore

import (
	"cmp"
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
	"github.com/session2/session2/internal/lockfile"
	"github.com/session2/session2/internal/record"
)

// Store is a back end. Goroutines may share it.
type Store struct {
	path   string // absolute, with no symbolic links
	noSync bool
	shared bool
	logger *slog.Logger
	fs     fsys.FS
	lock   *lockfile.Mutex // on path+".lock": who writes to the file
	batch  *batch.Batcher[*job]
	slack  int64 // dead bytes that do not matter
	small  int64 // live bytes that a commit copies itself
	few    int   // records that are worth no file for the index

	copying *lockfile.Mutex // on path+".compact.lock": who copies beside the changes
	ctx     context.Context // ends with Close, and a copy under way with it
	stop    context.CancelFunc
	copies  sync.WaitGroup

	spare *plan // the leader's; by a pointer: it holds the latest record, which a careless print would show

	mu       sync.RWMutex
	log      *log
	next     *log  // that is about to take its place, or has its file already
	copied   bool  // a goroutine copies the log, or writes its index
	filling  bool  // a goroutine makes the index whole
	patience int64 // dead bytes to wait for after a compaction that failed
	closed   bool
	torn     bool // a failed append of our own, which has its error, may have left half a frame
}

var _ record.Store = (*Store)(nil)

// Options are the options of [Open]. The logger is required.
type Options struct {
	NoSync      bool
	SharedGroup bool
	Timeout     time.Duration
	Logger      *slog.Logger
}

// Open opens the store in the file at path, creates the file if there is none, and
// compacts it if that is worth it.
func Open(fsy fsys.FS, path string, o Options) (*Store, error) {
	if o.Timeout < 0 {
		return nil, fmt.Errorf("negative GobOptions.Timeout %v", o.Timeout)
	}
	s := &Store{
		noSync: o.NoSync, shared: o.SharedGroup, logger: cmp.Or(o.Logger, slog.Default()),
		slack: maxDead, small: maxSmall, few: minRecords,
	}
	var err error
	if s.path, s.fs, err = fsys.Place(fsy, path, o.SharedGroup); err != nil {
		return nil, err
	}
	lock := s.path + ".lock"
	s.lock = lockfile.NewKept(s.opens(lock), func() (fs.FileInfo, error) { return s.fs.Lstat(lock) })
	s.lock.Patience = cmp.Or(o.Timeout, lockfile.Patience)
	s.copying = lockfile.New(s.opens(s.path + ".compact.lock"))
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.batch = batch.NewWithin(batchSize, s.lock.Lock, s.commit)
	if err := s.prepare(); err != nil {
		s.stop()
		s.lock.Close()
		return nil, err
	}
	return s, nil
}

// opens returns what opens a lock's file.
func (s *Store) opens(name string) func() (lockfile.File, error) {
	return func() (lockfile.File, error) { return s.fs.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600) }
}

func (s *Store) prepare() error {
	unlock, err := s.lock.Lock(context.Background())
	if err != nil {
		return err
	}
	defer unlock()
	s.fs.Remove(fsys.Temp(s.path)) // that a compaction left which was killed
	s.removeCopy()
	s.log = newLog(s.fs, s.path)
	err = s.log.open()
	if errors.Is(err, fs.ErrNotExist) {
		s.log, err = create(s.fs, s.path, !s.noSync)
	}
	if err != nil {
		return err
	}
	s.log.readBase(s.shared)
	if _, err := s.tidy(); err != nil {
		s.Close()
		return err
	}
	return nil
}

// Close closes the file, and waits for a compaction to give up. Calls under way end as
// if there had been no Close.
func (s *Store) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.stop()
	s.copies.Wait()
	s.mu.RLock()
	worthwhile := s.log.isIndexWorthwhile(s.few, lastTailPart)
	s.mu.RUnlock()
	if worthwhile {
		s.saveBase(s.log)
	}
	s.lock.Close()
	return s.log.close() // no other log takes its place any more
}

// Setup checks that the file is there, and reads what is new in it.
func (s *Store) Setup(ctx context.Context) error { return s.refresh(ctx) }

// Load reads the record from the file.
func (s *Store) Load(ctx context.Context, id [16]byte) (record.Record, error) {
	if err := s.refresh(ctx); err != nil {
		return record.Record{}, err
	}
	l, e, found, err := s.find(id)
	if err != nil {
		return record.Record{}, err
	}
	defer l.release()
	if !found {
		return record.Record{}, record.ErrNotFound
	}
	return l.record(id, e)
}

// Has reports whether there is a record, be it corrupt.
func (s *Store) Has(ctx context.Context, id [16]byte) (bool, error) {
	if err := s.refresh(ctx); err != nil {
		return false, err
	}
	l, _, found, err := s.find(id)
	if err != nil {
		return false, err
	}
	l.release()
	return found, nil
}

// find returns the entry of a record in the present log, which is held.
func (s *Store) find(id [16]byte) (l *log, e entry, found bool, err error) {
	s.mu.RLock()
	if l, err = s.held(); err != nil {
		s.mu.RUnlock()
		return nil, e, false, err
	}
	whole := l.base == nil
	if whole {
		e, found = l.index.Get(id)
	}
	s.mu.RUnlock()
	if !whole {
		s.mu.Lock()
		defer s.mu.Unlock()
		l.pull(id)
		e, found = l.index.Get(id)
	}
	return l, e, found, nil
}

// held returns the present log, held, unless the store is closed. The caller has
// s.mu.
func (s *Store) held() (*log, error) {
	if s.closed {
		return nil, fs.ErrClosed
	}
	s.log.hold()
	return s.log, nil
}

// refresh brings the index up to date with what other processes have done.
func (s *Store) refresh(ctx context.Context) error {
	fresh, whole, err := s.isFresh()
	if !whole {
		s.wholeBeside()
	}
	if fresh || err != nil {
		return err
	}
	err = s.follow(false)
	if !errors.Is(err, errUnsure) {
		return err
	}
	unlock, err := s.lock.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return s.follow(true)
}

// isFresh reports whether the index is up to date with the file, and whether all records
// are in it.
func (s *Store) isFresh() (fresh, whole bool, err error) {
	info, err := s.fs.Lstat(s.path)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return false, true, fs.ErrClosed
	}
	if err != nil {
		return false, true, err
	}
	return s.log.covers(info), s.log.base == nil, nil
}
