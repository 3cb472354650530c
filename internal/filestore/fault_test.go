package filestore_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/session2/session2/internal/faultfs"
	"github.com/session2/session2/internal/filestore"
	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/record"
	"github.com/session2/session2/internal/testsite"
)

// inDir opens a store in a directory of the test's.
func inDir(t *testing.T) faultfs.Open {
	dir := filepath.Join(t.TempDir(), "s")
	return func(disk fsys.FS, log *slog.Logger) (record.Store, error) {
		return filestore.Open(disk, dir, filestore.Options{Logger: log})
	}
}

func TestFileStoreClosesWhatItDoesNotOpen(t *testing.T) { faultfs.ClosesWhatItDoesNotOpen(t, inDir(t)) }

func TestFileStoreOutlivesAFullDisk(t *testing.T) { faultfs.OutlivesAFullDisk(t, inDir(t)) }

// A refusal says that nothing was changed, at once; an error after a change is
// none. All others leave it open.
func TestFileStoreRefusesBeforeItChanges(t *testing.T) {
	ada, bob := fileRecord(1, "ada"), fileRecord(1, "bob")
	bob.Version = 2
	calls := map[string]func(ctx context.Context, s *filestore.Store) error{
		"create":  func(ctx context.Context, s *filestore.Store) error { return s.Save(ctx, fileRecord(2, "ada"), 0) },
		"replace": func(ctx context.Context, s *filestore.Store) error { return s.Save(ctx, bob, ada.Version) },
		"again":   func(ctx context.Context, s *filestore.Store) error { return s.Save(ctx, ada, 0) },
		"delete":  func(ctx context.Context, s *filestore.Store) error { return s.Delete(ctx, ada.ID) },
		"delete user": func(ctx context.Context, s *filestore.Store) error {
			_, err := s.DeleteUser(ctx, "ada")
			return err
		},
	}
	for name, call := range calls {
		for _, refusal := range []syscall.Errno{syscall.EACCES, syscall.EROFS} {
			for n := 0; ; n++ {
				f := faultfs.New()
				s, err := filestore.Open(f, t.TempDir(), filestore.Options{})
				if err != nil {
					t.Fatal(err)
				}
				mustSave(t, s, ada, 0)
				f.FailAfter(n, refusal)
				err = call(t.Context(), s)
				hit := f.Hit()
				f.FailAfter(math.MaxInt, nil)
				var got uint64
				for rec := range s.Iter(t.Context()) {
					got += rec.Version
				}
				synced := name == "again" && err != nil && strings.Contains(err.Error(), "sync")
				if errors.Is(err, refusal) && (got != ada.Version || synced) {
					t.Errorf("%s, %v after %d operations: a refusal, %v, but the change was made", name, refusal, n,
						err)
				}
				if n == 0 && !errors.Is(err, refusal) {
					t.Errorf("%s, %v at once: got %v, want a refusal", name, refusal, err)
				}
				if !hit {
					break
				}
			}
		}
	}
}

// agedRecord is one that was used last so many hours ago, and has not expired.
func agedRecord(n byte, hours int) record.Record {
	rec := fileRecord(n, "ada")
	rec.Accessed -= (time.Duration(hours) * time.Hour).Microseconds()
	return rec
}

// sweeps fails the test unless DeleteOld returns n and an error that is want, or
// none.
func sweeps(t *testing.T, when string, s *filestore.Store, age time.Duration, n int, want error) {
	t.Helper()
	if got, err := deleteOld(t.Context(), s, age); got != n || !errors.Is(err, want) {
		t.Errorf("%s: DeleteOld returns %d, %v; want %d, %v", when, got, err, n, want)
	}
	if users, due, err := s.CheckIndexes(t.Context()); len(users)+len(due) > 0 || err != nil {
		t.Errorf("%s: CheckIndexes: got %v, %v, %v, want none", when, users, due, err)
	}
}

// On a full disk a sweep removes all that is old, though it cannot file the entries
// of what lives on anew; and what lives on is swept in its time.
func TestFileStoreSweepsAFullDisk(t *testing.T) {
	full := new(atomic.Bool)
	s, err := filestore.Open(faultfs.Full{FS: fsys.OS, Now: full}, t.TempDir(), filestore.Options{})
	testsite.Must(t, err)
	mustSave(t, s, agedRecord(1, 4), 0)
	for i := range byte(3) {
		mustSave(t, s, agedRecord(2+i, 4-int(i)), 0) // the first one in the bucket of what lives on
	}
	sweeps(t, "with room", s, math.MaxInt64, 0, nil)
	testsite.Must(t, s.Touch(t.Context(), fileRecord(1, "").ID, access(time.Now(), time.Now().Add(time.Hour))))
	full.Store(true)
	sweeps(t, "full", s, time.Hour, 3, faultfs.ErrFull)
	sweeps(t, "still full", s, time.Hour, 0, faultfs.ErrFull)
	full.Store(false)
	sweeps(t, "with room again", s, time.Hour, 0, nil)
	sweeps(t, "in the end", s, 0, 1, nil)
}

// On a full disk a sweep also removes what is old and was announced only, by
// earlier sweeps' files and by new ones.
func TestFileStoreSweepsWhatItCannotTakeOver(t *testing.T) {
	full := new(atomic.Bool)
	dir := t.TempDir()
	s, err := filestore.Open(faultfs.Full{FS: fsys.OS, Now: full}, dir, filestore.Options{})
	testsite.Must(t, err)
	for round := range byte(2) {
		full.Store(false)
		for i := range byte(4) { // each first byte has one that is old and one that lives on
			rec := agedRecord(i/2, 4*int(i%2))
			rec.ID[14], rec.ID[15] = round, i
			mustSave(t, s, rec, 0)
		}
		full.Store(true)
		sweeps(t, "full", s, time.Hour, 2, faultfs.ErrFull)
		sweeps(t, "still full", s, time.Hour, 0, faultfs.ErrFull)
	}
	full.Store(false)
	sweeps(t, "with room again", s, time.Hour, 0, nil)
	sweeps(t, "in the end", s, 0, 4, nil)
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// On a full disk a sweep removes the buckets in which no entry leads to a record,
// though it cannot write the others anew.
func TestFileStoreThinsAFullDisk(t *testing.T) {
	full := new(atomic.Bool)
	dir := t.TempDir()
	s, err := filestore.Open(faultfs.Full{FS: fsys.OS, Now: full}, dir, filestore.Options{})
	testsite.Must(t, err)
	now := time.Now()
	for i := range byte(40) { // two a bucket
		rec := agedRecord(i, 0)
		rec.Accessed = now.Add(-time.Duration(i/2) * time.Hour).UnixMicro()
		mustSave(t, s, rec, 0)
	}
	sweeps(t, "with room", s, math.MaxInt64, 0, nil)
	for i := range byte(40) { // a half of ten buckets, and all of ten
		if i%2 == 0 || i >= 20 {
			testsite.Must(t, s.Delete(t.Context(), fileRecord(i, "").ID))
		}
	}
	full.Store(true)
	sweeps(t, "full", s, math.MaxInt64, 0, faultfs.ErrFull)
	if got := len(filesIn(t, filepath.Join(dir, "due", "accessed"))); got != 10 {
		t.Errorf("%d buckets are left, want the 10 that cannot be written anew", got)
	}
	full.Store(false)
	sweeps(t, "in the end", s, 0, 10, nil)
}
