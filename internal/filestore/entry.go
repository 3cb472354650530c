package filestore

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/session2/session2/internal/record"
)

// entry leads to a record that had these times when the entry was made.
type entry struct {
	id [16]byte
	record.Access
}

const (
	entrySize = idSize + record.AccessSize

	// bucketWidth is the stretch of time of one bucket, in microseconds: a month
	// has 4320 buckets, and a sweep reads a tenth of a busy minute's entries in vain.
	bucketWidth = int64(10 * time.Minute / time.Microsecond)

	// groupSize is how many records at most a sweep handles while it holds a
	// lock, with one sync for all of them; batchSize, how many announced
	// entries at least it takes over at once.
	groupSize = 32
	batchSize = 1 << 15

	// pieceSize is how many entries of a file are read at once.
	pieceSize = 1 << 11

	// forgetFrom is how many announced entries a Delete that leaves no record
	// behind them lets be: to make their file anew costs a sync.
	forgetFrom = 16
)

// tree is one of the two directories of buckets.
type tree struct {
	name  string
	time  func(record.Access) int64
	limit int64 // DeleteOld removes records whose time is not later
}

func trees(accessed, expires int64) []tree {
	return []tree{
		{"accessed", func(a record.Access) int64 { return a.Accessed }, accessed},
		{"expires", func(a record.Access) int64 { return a.Expires }, expires},
	}
}

// bucket returns the name of the bucket for a time. Names sort as times do.
func (t tree) bucket(µs int64) string {
	return fmt.Sprintf("%016x", max(µs, 0)/bucketWidth)
}

// fileEntries appends entries to their buckets in a tree.
func (s *Store) fileEntries(ctx context.Context, t tree, entries []entry) error {
	slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(t.time(a.Access), t.time(b.Access)) })
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

// readEntries returns the entries of a file. What a crash left of an entry
// that was never announced is skipped. It keeps no more in memory than the entries
// and a piece of the file.
func (s *Store) readEntries(name string) ([]entry, error) {
	f, err := s.fs.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, err // what is no file has no entries
	}
	var entries []entry
	b := make([]byte, min(info.Size(), int64(pieceSize*entrySize)))
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
func appendValid(entries []entry, b []byte) []entry {
	for chunk := range slices.Chunk(b, entrySize) {
		a, err := record.DecodeAccess(chunk[min(len(chunk), idSize):])
		if err == nil {
			entries = append(entries, entry{[16]byte(chunk[:idSize]), a})
		}
	}
	return entries
}

// earliest sorts entries by their IDs and leaves one of each, with the earliest
// times of all.
func earliest(entries []entry) (list []entry) {
	slices.SortFunc(entries, func(a, b entry) int { return bytes.Compare(a.id[:], b.id[:]) })
	for _, e := range entries {
		if n := len(list); n == 0 || list[n-1].id != e.id {
			list = append(list, e)
		} else {
			list[n-1].Access = list[n-1].Earlier(e.Access)
		}
	}
	return list
}

// partition splits entries by what fn says of them.
func partition(entries []entry, fn func(entry) bool) (yes, no []entry) {
	for _, e := range entries {
		if fn(e) {
			yes = append(yes, e)
		} else {
			no = append(no, e)
		}
	}
	return yes, no
}
