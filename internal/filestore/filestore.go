// Package filestore is the back end of a FileStore: a directory in which each
// session is a file. A record is replaced by renaming a finished and synced
// temporary over it, so that readers need no lock and a crash leaves the old record
// or the new one. Writers hold one of 256 file locks, picked by the ID.
//
//	sessions/xx/ID           the records, by the ID's first byte
//	users/xx/HASH/ID         the index by user: empty files, by SHA-256 of the user
//	due/new, due/accessed, due/expires    the index by time
//	users/complete, due/new/complete, ...    say that no entry was lost
//	locks/xx, locks/sweep    never renamed or removed
//	corrupt/ID               files that were no record
//
// All names are made from IDs, hashes and numbers, never from what users say.
//
// # The index by user
//
// It is a directory for each user, which holds an empty file for each of the user's
// sessions. An entry is durable before a record that needs it can be seen, and is
// removed after the record's change or end is durable. So "log out everywhere" misses
// no session, wherever a crash comes:
//
//   - before the record is renamed in place: the entry leads to no record, or
//     to one of another user;
//   - before the old user's entry is removed: likewise.
//
// Such an entry is dropped when somebody next lists the user's sessions, or by
// [Store.TrimIndexes], under the record's lock, which a writer holds from the
// entry to the end. Until then it costs an empty file.
//
// # The index by time
//
// It tells DeleteOld where to look. Its files hold entries, an ID with two times, in
// three directories:
//
//	due/new/xx             entries announced by Save, by the ID's first byte
//	due/accessed/BUCKET    entries whose Accessed falls into that stretch of time
//	due/expires/BUCKET     likewise by Expires
//
// The rule: each record has an entry under due/new, or one in each of the other
// two, whose times are not later than the record's. So an entry may lead to a
// record too early, and to none, but no record is missed; and Touch and most
// Saves, which move times forward, leave the index alone. DeleteOld takes the
// announced entries over, visits the records whose entries have come due, files
// those again that live on, and thins out the other buckets. What it wrote is
// durable before it removes what that came from: a crash leaves duplicates, which
// do no harm.
//
// A power cut may take back a Touch, which is not synced, or a Save that has not
// returned, after DeleteOld has seen it. That record is swept by the later times: later,
// but swept.
//
// # The marks
//
// Each directory of the indexes holds an empty file, complete. It says that no
// entry has been lost from there since every record had one, and it is lost with
// them: whoever removes the directory, or the files in it, removes the mark, too.
// A call that goes by an index looks for the mark first. If it is missing, the
// call makes the entries of all records anew, and then the mark. So it does once
// in a store of an earlier release, which made no marks and ignores them.
//
// A rebuilding holds the sweep's lock, and a record's lock while it enters that
// record; writers enter theirs meanwhile as ever. Until all entries are durable,
// the mark is a temporary. To rename it fails if somebody has removed it, and
// perhaps entries with it.
package filestore

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/session2/session2/internal/batch"
	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/lockfile"
	"github.com/session2/session2/internal/record"
)

const idSize = len([16]byte{})

// Store is a store in a directory.
type Store struct {
	fs     fsys.FS
	dir    string // absolute, without symbolic links
	sync   bool
	shared bool
	logger *slog.Logger
	closed atomic.Bool
	locks  [256]*lockfile.Mutex // by the ID's first byte
	sweeps *lockfile.Mutex      // held by DeleteOld; taken before the others
	syncs  [256]*dirSyncs       // of sessions/xx, after a Save

	sessions, users [256]atomic.Bool // directories xx that are known to be there
}

var _ record.Store = (*Store)(nil)

// Options are the fields of session2.FileOptions, and mean the same.
type Options struct {
	NoSync      bool
	SharedGroup bool
	Timeout     time.Duration
	Logger      *slog.Logger
}

// Open opens the store in dir, on the file system fsy, and creates what is missing
// of it.
func Open(fsy fsys.FS, dir string, o Options) (*Store, error) {
	if o.Timeout < 0 {
		return nil, fmt.Errorf("negative FileOptions.Timeout %v", o.Timeout)
	}
	o.Timeout = cmp.Or(o.Timeout, lockfile.Patience)
	s := &Store{fs: fsy, sync: !o.NoSync, shared: o.SharedGroup, logger: cmp.Or(o.Logger, slog.Default())}
	if err := s.place(dir); err != nil {
		return nil, err
	}
	for i := range s.locks {
		s.locks[i] = s.newLock(hexByte(byte(i)))
		s.locks[i].Patience = o.Timeout
		s.syncs[i] = s.newDirSyncs(s.path("sessions", hexByte(byte(i))))
	}
	s.sweeps = s.newLock("sweep") // without patience of its own: a sweep may take long
	ctx := lockfile.WithPatience(context.Background(), o.Timeout)
	if err := s.setup(ctx); err != nil {
		return nil, err
	}
	if s.isEmpty(s.path("sessions")) { // complete by nature: so nobody has to rebuild it when it has grown
		if err := s.complete(ctx, allIndexes...); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// newLock returns the lock on a file that is never renamed or removed.
func (s *Store) newLock(name string) *lockfile.Mutex {
	path := s.path("locks", name)
	return lockfile.New(func() (lockfile.File, error) {
		return s.fs.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	})
}

// Close makes later calls fail; those under way finish.
func (s *Store) Close() error {
	s.closed.Store(true)
	return nil
}

// ready refuses a call whose context has ended, or that comes after Close.
func (s *Store) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.closed.Load() {
		return fs.ErrClosed
	}
	return nil
}

const separator = string(filepath.Separator)

// path returns the place of something in the store.
func (s *Store) path(elem ...string) string {
	n := len(s.dir)
	for _, e := range elem {
		n += len(separator) + len(e)
	}
	var b strings.Builder
	b.Grow(n)
	b.WriteString(s.dir)
	for _, e := range elem {
		b.WriteString(separator)
		b.WriteString(e)
	}
	return b.String()
}

// dirOf returns the directory of the record, and file its file in there.
func (s *Store) dirOf(id [16]byte) string { return s.path("sessions", hexByte(id[0])) }

func (s *Store) file(id [16]byte) string {
	var name [2 * idSize]byte
	hex.Encode(name[:], id[:])
	return s.path("sessions", string(name[:2]), string(name[:]))
}

// userDir returns the directory of the user's entries.
func (s *Store) userDir(user string) string {
	sum := sha256.Sum256([]byte(user))
	return s.path("users", hexByte(sum[0]), hex.EncodeToString(sum[:]))
}

func hexByte(b byte) string { return hex.EncodeToString([]byte{b}) }

func hexID(id [16]byte) string { return hex.EncodeToString(id[:]) }

// parseID is the inverse of hexID. There is one name for each ID.
func parseID(name string) (id [16]byte, ok bool) {
	if len(name) != hex.EncodedLen(idSize) {
		return id, false
	}
	_, err := hex.Decode(id[:], []byte(name))
	return id, err == nil && hexID(id) == name
}

// dirSyncs lets callers who come at the same time share one sync of a directory: it is
// good for all who have made their change before it begins.
type dirSyncs = batch.Batcher[struct{}]

func (s *Store) newDirSyncs(dir string) *dirSyncs {
	return batch.New(math.MaxInt, func(sharers []struct{}) []error {
		return slices.Repeat([]error{s.fs.SyncDir(dir)}, len(sharers))
	})
}

// syncDir makes the names in a directory durable, unless NoSync forgoes it.
func (s *Store) syncDir(dir string) error {
	if !s.sync {
		return nil
	}
	return s.fs.SyncDir(dir)
}
