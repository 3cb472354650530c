package session2

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/record"
)

// The index by time tells DeleteOld where to look. Its files hold entries, an
// ID with two times, in three directories:
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
// those again that live on, and thins out the other buckets: see [fileSweep.takeOver]
// and [fileSweep.thin].
// What it wrote is durable before it removes what that came from: a crash leaves
// duplicates, which do no harm.
//
// A power cut may take back a Touch, which is not synced, after DeleteOld has
// seen it. That record is swept by the touched times: later, but swept.

// dueEntry leads to a record that had these times when the entry was made.
type dueEntry struct {
	id ID
	record.Access
}

const (
	dueEntrySize = len(ID{}) + record.AccessSize

	// dueWidth is the stretch of time of one bucket, in microseconds: a month
	// has 4320 buckets, and a sweep reads a tenth of a busy minute's entries in vain.
	dueWidth = int64(10 * time.Minute / time.Microsecond)

	// dueGroup is how many records at most a sweep handles while it holds a
	// lock, with one sync for all of them; dueBatch, how many announced
	// entries at least it takes over at once.
	dueGroup = 32
	dueBatch = 1 << 15

	// duePiece is how many entries of a file are read at once.
	duePiece = 1 << 11

	// dueForget is how many announced entries a Delete that leaves no record
	// behind them lets be: to make their file anew costs a sync.
	dueForget = 16
)

// dueTree is one of the two directories of buckets.
type dueTree struct {
	name  string
	time  func(record.Access) int64
	limit int64 // DeleteOld removes records whose time is not later
}

func dueTrees(now time.Time, age time.Duration) []dueTree {
	return []dueTree{
		{"accessed", func(a record.Access) int64 { return a.Accessed }, microTime(now.Add(-age))},
		{"expires", func(a record.Access) int64 { return a.Expires }, microTime(now)},
	}
}

// bucket returns the name of the bucket for a time. Names sort as times do.
func (t dueTree) bucket(µs int64) string {
	return fmt.Sprintf("%016x", max(µs, 0)/dueWidth)
}

// announce makes a durable entry for a record that is about to be written. The
// caller holds the record's lock.
func (s *FileStore) announce(id ID, a record.Access) error {
	return s.appendEntries(s.path("due", "new"), hexByte(id[0]), []dueEntry{{id, a}})
}

// forgetNew removes the entries that were announced for records of which none is
// left, once there are some, so that without sweeps, too, the index does not grow
// for ever. The caller holds the lock of all that share their ID's first byte, and
// has made durable that they are gone.
func (s *FileStore) forgetNew(id ID) error {
	name := s.path("due", "new", hexByte(id[0]))
	info, err := s.fs.Lstat(name)
	if err != nil || info.Size() < int64(dueForget*dueEntrySize) || !s.isEmpty(s.folder(id)) {
		return nil
	}
	err = s.fs.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fsys.Late(err)
}

// fileEntries appends entries to their buckets in a tree.
func (s *FileStore) fileEntries(ctx context.Context, t dueTree, entries []dueEntry) error {
	slices.SortStableFunc(entries, func(a, b dueEntry) int { return cmp.Compare(t.time(a.Access), t.time(b.Access)) })
	for len(entries) > 0 {
		bucket := t.bucket(t.time(entries[0].Access))
		n := 1
		for n < len(entries) && t.bucket(t.time(entries[n].Access)) == bucket {
			n++
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.appendEntries(s.path("due", t.name), bucket, entries[:n]); err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

// appendEntries makes entries durable at the end of a file. It writes over an
// entry that a crash tore: all of them have one size. The caller keeps others
// away from the file.
func (s *FileStore) appendEntries(dir, name string, entries []dueEntry) error {
	f, err := s.fs.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	end := info.Size() - info.Size()%int64(dueEntrySize)
	if end == 0 { // the file may be new: with an entry in it, it has a durable name
		if err := s.syncDir(dir); err != nil {
			return err
		}
	}
	if _, err := f.WriteAt(encodeEntries(entries), end); err != nil || !s.sync {
		return err
	}
	return f.Sync()
}

// readEntries returns the entries of a file. What a crash left of an entry
// that was never announced is skipped. It keeps no more in memory than the entries
// and a piece of the file.
func (s *FileStore) readEntries(name string) ([]dueEntry, error) {
	f, err := s.fs.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, err // what is no file has no entries
	}
	var entries []dueEntry
	b := make([]byte, min(info.Size(), int64(duePiece*dueEntrySize)))
	for off := int64(0); off < info.Size(); off += int64(len(b)) {
		n, err := f.ReadAt(b, off)
		if err != nil && err != io.EOF {
			return nil, err
		}
		entries = appendValid(entries, b[:n])
	}
	return entries, nil
}

// appendValid appends the valid ones of the entries that b consists of.
func appendValid(entries []dueEntry, b []byte) []dueEntry {
	for chunk := range slices.Chunk(b, dueEntrySize) {
		a, err := record.DecodeAccess(chunk[min(len(chunk), len(ID{})):])
		if err == nil {
			entries = append(entries, dueEntry{ID(chunk[:len(ID{})]), a})
		}
	}
	return entries
}

func encodeEntries(entries []dueEntry) []byte {
	b := make([]byte, 0, len(entries)*dueEntrySize)
	for _, e := range entries {
		b = record.AppendAccess(append(b, e.id[:]...), e.Access)
	}
	return b
}
