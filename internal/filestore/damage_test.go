package filestore_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/session2/session2/internal/bounded"
	"github.com/session2/session2/internal/faultfs"
	"github.com/session2/session2/internal/filestore"
	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/record"
	"github.com/session2/session2/internal/testsite"
)

// removals are the ways in which an index vanishes: by rm -rf, and by a cleaner of
// /tmp, which removes files.
var removals = map[string]func(t *testing.T, dir string){
	"directory removed": func(t *testing.T, dir string) { testsite.Must(t, os.RemoveAll(dir)) },
	"files removed": func(t *testing.T, dir string) {
		testsite.Must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				err = os.Remove(path)
			}
			return err
		}))
	},
	"all below removed": func(t *testing.T, dir string) {
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		testsite.Must(t, err)
		for _, name := range names {
			testsite.Must(t, os.RemoveAll(name))
		}
	},
}

// eachRemoval calls test with a store that has lost an index, as three see it: who
// had the store open and wrote to it, who had it open, and who opens it now. Seven
// sessions are ada's and three bob's; a sweep has filed the first five.
func eachRemoval(t *testing.T, indexes []string, test func(t *testing.T, dir string, s *filestore.Store)) {
	for _, index := range indexes {
		for name, remove := range removals {
			for _, who := range []string{"writer", "other", "restarted"} {
				t.Run(index+" "+name+" "+who, func(t *testing.T) {
					dir := t.TempDir()
					stores := map[string]*filestore.Store{
						"writer": openFile(t, dir, filestore.Options{NoSync: true}),
						"other":  openFile(t, dir, filestore.Options{NoSync: true}),
					}
					for i := range byte(10) {
						rec := fileRecord(i%3, "ada")
						if rec.ID[15] = i; i >= 7 {
							rec.User = "bob"
						}
						mustSave(t, stores["writer"], rec, 0)
						if i == 4 {
							_, err := deleteOld(t.Context(), stores["other"], math.MaxInt64)
							testsite.Must(t, err)
						}
					}
					remove(t, filepath.Join(dir, index))
					s := stores[who]
					if s == nil {
						s = openFile(t, dir, filestore.Options{NoSync: true})
					}
					test(t, dir, s)
				})
			}
		}
	}
}

func countUser(t *testing.T, s *filestore.Store, user string) (n int) {
	t.Helper()
	for rec, err := range s.IterUser(t.Context(), user) {
		if n++; err != nil || rec.User != user {
			t.Errorf("IterUser(%q) yields a session of %q, %v", user, rec.User, err)
		}
	}
	return n
}

// "Log out everywhere" ends all sessions of the user also if the index by user has
// vanished.
func TestFileStoreRebuildsUsers(t *testing.T) {
	eachRemoval(t, []string{"users"}, func(t *testing.T, dir string, s *filestore.Store) {
		if n, err := s.DeleteUser(t.Context(), "ada"); n != 7 || err != nil {
			t.Errorf("DeleteUser: got %d, %v, want 7", n, err)
		}
		if n := countUser(t, s, "bob"); n != 3 {
			t.Errorf("IterUser: got %d sessions, want 3", n)
		}
		if n, err := deleteOld(t.Context(), s, 0); n != 3 || err != nil {
			t.Errorf("DeleteOld: got %d, %v, want 3", n, err)
		}
		if left := leftovers(t, dir); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	})
}

// A sweep finds all that is old also if a part of the index by time has vanished.
func TestFileStoreRebuildsDue(t *testing.T) {
	indexes := []string{"due", "due/new", "due/accessed", "due/expires"}
	eachRemoval(t, indexes, func(t *testing.T, dir string, s *filestore.Store) {
		if n, err := deleteOld(t.Context(), s, 0); n != 10 || err != nil {
			t.Errorf("DeleteOld: got %d, %v, want 10", n, err)
		}
		if left := leftovers(t, dir); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	})
}

// Setup rebuilds what has vanished, once. That costs a store of an earlier release,
// which has no marks, nothing but the time.
func TestFileStoreSetupRebuilds(t *testing.T) {
	all := []string{"users", "due"}
	eachRemoval(t, all, func(t *testing.T, dir string, s *filestore.Store) {
		if users, due, err := s.CheckIndexes(t.Context()); len(users)+len(due) < 5 || err != nil {
			t.Errorf("CheckIndexes: got %d by user and %d by time, %v, want some", len(users), len(due), err)
		}
		testsite.Must(t, s.Setup(t.Context()))
		for _, index := range []string{"users", "due/new", "due/accessed", "due/expires"} {
			testsite.Must(t, os.Remove(filepath.Join(dir, index, "complete"))) // so it was left by an earlier release
		}
		for range 2 {
			if users, due, err := s.CheckIndexes(t.Context()); len(users)+len(due) > 0 || err != nil {
				t.Errorf("CheckIndexes: got %v by user and %v by time, %v, want none", users, due, err)
			}
			testsite.Must(t, s.Setup(t.Context()))
		}
		before := len(filesIn(t, filepath.Join(dir, "users")))
		testsite.Must(t, s.Setup(t.Context()))
		if after := len(filesIn(t, filepath.Join(dir, "users"))); before != 10 || after != 10 {
			t.Errorf("%d entries by user, then %d, want 10", before, after)
		}
		if n, err := deleteOld(t.Context(), s, 0); n != 10 || err != nil {
			t.Errorf("DeleteOld: got %d, %v, want 10", n, err)
		}
		if left := leftovers(t, dir); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	})
}

// Of single entries that somebody removed CheckIndexes knows; Save and Touch make
// those by user anew.
func TestFileStoreEntersAgain(t *testing.T) {
	for name, use := range map[string]func(s *filestore.Store, rec record.Record) error{
		"Touch": func(s *filestore.Store, rec record.Record) error {
			return s.Touch(context.Background(), rec.ID, rec.Access)
		},
		"Save": func(s *filestore.Store, rec record.Record) error {
			rec.Version++
			return s.Save(context.Background(), rec, rec.Version-1)
		},
	} {
		dir := t.TempDir()
		s := openFile(t, dir, filestore.Options{NoSync: true})
		rec := fileRecord(1, "ada")
		mustSave(t, s, rec, 0)
		mustSave(t, s, fileRecord(2, "ada"), 0)
		entries, err := filepath.Glob(filepath.Join(dir, "users", "*", "*", hexID(rec.ID)))
		if err != nil || len(entries) != 1 {
			t.Fatalf("entries by user: %q, %v", entries, err)
		}
		testsite.Must(t, os.Remove(entries[0]))
		testsite.Must(t, os.Remove(filepath.Join(dir, "due", "new", "02")))
		users, due, err := s.CheckIndexes(t.Context())
		other := fileRecord(2, "").ID
		if err != nil || !slices.Equal(users, [][16]byte{rec.ID}) || !slices.Equal(due, [][16]byte{other}) {
			t.Errorf("CheckIndexes: got %v, %v, %v, want the first record and the second", users, due, err)
		}
		testsite.Must(t, use(s, rec))
		if n := countUser(t, s, "ada"); n != 2 {
			t.Errorf("after %s IterUser yields %d sessions, want 2", name, n)
		}
	}
}

// A rebuilding beside writers and others that rebuild misses nobody, whenever the
// index vanishes.
func TestFileStoreRebuildsBesideWriters(t *testing.T) {
	dir, away := t.TempDir(), t.TempDir()
	stores := [2]*filestore.Store{}
	for i := range stores {
		stores[i] = openFile(t, dir, filestore.Options{NoSync: true})
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range byte(60) {
				rec := fileRecord(i%4, "ada")
				rec.ID[1], rec.ID[15] = byte(w), i
				if err := stores[w%2].Save(t.Context(), rec, 0); err != nil {
					t.Error(err)
				}
				if i%10 == 0 {
					countUser(t, stores[w%2], "ada")
				}
			}
		})
	}
	for i := range 10 { // at once, unlike rm
		err := os.Rename(filepath.Join(dir, "users"), filepath.Join(away, fmt.Sprint(i)))
		if err != nil && !strings.Contains(err.Error(), "no such file") {
			t.Error(err)
		}
		countUser(t, stores[i%2], "ada")
	}
	wg.Wait()
	for _, s := range stores {
		if n := countUser(t, s, "ada"); n != 4*60 {
			t.Errorf("IterUser yields %d sessions, want %d", n, 4*60)
		}
	}
	users, due, err := stores[0].CheckIndexes(t.Context())
	if len(users)+len(due) > 0 || err != nil {
		t.Errorf("CheckIndexes: got %v, %v, %v, want none", users, due, err)
	}
}

// strayEntries leaves n entries by user behind as writers do that die between entry
// and record: each at a user of its own, and at alice.
func strayEntries(t *testing.T, dir string, n byte) {
	t.Helper()
	for i := range n {
		s, err := filestore.Open(recordlessFS{fsys.OS}, dir, filestore.Options{NoSync: true})
		testsite.Must(t, err)
		for _, user := range []string{"alice", fmt.Sprint("user", i)} {
			rec := fileRecord(100+i, user)
			rec.ID[1] = byte(len(user))
			if err := s.Save(t.Context(), rec, 0); err == nil {
				t.Fatal("saved by a writer that dies")
			}
		}
	}
}

// recordlessFS fails at each record, and removes nothing.
type recordlessFS struct{ fsys.FS }

func (recordlessFS) Remove(name string) error { return faultfs.ErrFull }

func (d recordlessFS) OpenFile(name string, flag int, perm fs.FileMode) (fsys.File, error) {
	if fsys.IsTemp(name) && strings.Contains(filepath.ToSlash(name), "/sessions/") {
		return nil, faultfs.ErrFull
	}
	return d.FS.OpenFile(name, flag, perm)
}

// Entries by user that killed writers leave, and their directories, are gone after
// a trimming and after a rebuilding; those of living sessions stay.
func TestFileStoreTrimsStrayEntries(t *testing.T) {
	for name, trim := range map[string]func(s *filestore.Store) error{
		"TrimIndexes":    func(s *filestore.Store) error { return s.TrimIndexes(t.Context()) },
		"RebuildIndexes": func(s *filestore.Store) error { return s.RebuildIndexes(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openFile(t, dir, filestore.Options{})
			for i := range byte(5) {
				mustSave(t, s, fileRecord(i, "alice"), 0)
			}
			before := filesIn(t, filepath.Join(dir, "users"))
			strayEntries(t, dir, 10)
			entry := filepath.Join(dir, "users", before[0]) // of another user's record
			other := filepath.Join(dir, "users", "00", strings.Repeat("0", 64))
			testsite.Must(t, os.MkdirAll(other, 0o700))
			testsite.Must(t, os.WriteFile(filepath.Join(other, filepath.Base(entry)), nil, 0o600))
			if got := filesIn(t, filepath.Join(dir, "users")); len(got) != 5+20+1 {
				t.Fatalf("%d entries before, want 26", len(got))
			}
			testsite.Must(t, trim(s))
			if got := filesIn(t, filepath.Join(dir, "users")); !slices.Equal(got, before) {
				t.Errorf("got %d entries, want %d", len(got), len(before))
			}
			if dirs, _ := filepath.Glob(filepath.Join(dir, "users", "*", "*")); len(dirs) != 1 {
				t.Errorf("users' directories: got %q, want alice's", dirs)
			}
			if n := countUser(t, s, "alice"); n != 5 {
				t.Errorf("IterUser yields %d sessions, want 5", n)
			}
		})
	}
}

// A trimming ends with its context.
func TestFileStoreTrimsUntilItsContextEnds(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, filestore.Options{})
	strayEntries(t, dir, 3)
	ctx := &endingContext{Context: t.Context(), looks: 5, done: make(chan struct{})}
	if err := s.TrimIndexes(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
	}
}

// A trimming beside writers loses no entry of theirs.
func TestFileStoreTrimsBesideWriters(t *testing.T) {
	s := openFile(t, t.TempDir(), filestore.Options{NoSync: true})
	var wg sync.WaitGroup
	for w := range byte(4) {
		wg.Go(func() {
			for i := range byte(40) {
				rec := fileRecord(i%4, "ada")
				rec.ID[1], rec.ID[15] = w, i
				err := s.Save(t.Context(), rec, 0)
				rec.Version, rec.User = 2, "bob"
				err = errors.Join(err, s.Save(t.Context(), rec, 1))
				if i%2 == 0 {
					err = errors.Join(err, s.Delete(t.Context(), rec.ID))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for range 3 {
		testsite.Must(t, s.RebuildIndexes(t.Context()))
	}
	for trimming := true; trimming; {
		select {
		case <-done:
			trimming = false
		default:
		}
		testsite.Must(t, s.TrimIndexes(t.Context()))
	}
	if n := countUser(t, s, "bob"); n != 4*20 {
		t.Errorf("IterUser yields %d sessions, want %d", n, 4*20)
	}
	if users, due, err := s.CheckIndexes(t.Context()); len(users)+len(due) > 0 || err != nil {
		t.Errorf("CheckIndexes: got %v, %v, %v, want none", users, due, err)
	}
}

// A crash at any step of a rebuilding: both indexes are whole afterwards, for who
// asks for them.
func TestFileStoreCrashRebuilding(t *testing.T) {
	t.Parallel()
	state := fileState{{1}: 1, {2}: 1, {3}: 1}
	for n := 0; !t.Failed(); n++ {
		root := t.TempDir()
		s := openFile(t, filepath.Join(root, "store"), filestore.Options{NoSync: true})
		for id, user := range map[byte]string{1: "ada", 2: "bob", 3: "ada"} {
			rec := fileRecord(id, user)
			rec.ID, rec.Accessed = [16]byte{id}, rec.Accessed-time.Minute.Microseconds()
			mustSave(t, s, rec, 0)
		}
		removals["directory removed"](t, filepath.Join(root, "store", "users"))
		removals["files removed"](t, filepath.Join(root, "store", "due"))
		d := faultfs.NewDisk(t, root, n)
		done := false
		s, err := filestore.Open(d, filepath.Join(root, "store"), filestore.Options{})
		if err == nil {
			_, err = s.DeleteUser(t.Context(), "nobody")
		}
		if err == nil {
			_, err = deleteOld(t.Context(), s, time.Hour)
		}
		done = err == nil
		for _, crash := range faultfs.Crashes() {
			if !checkAfterCrash(t, filepath.Join(crash.Die(t, d), "store"), false, state, state) {
				t.Fatalf("%s after step %d", crash.Name, n)
			}
		}
		if done {
			break
		}
	}
}

// fileDirs are the directories of a FileStore that holds fileRecord(1, "ada").
var fileDirs = []string{".", "sessions", "sessions/01", "users", "users/fd",
	"due", "due/new", "due/accessed", "due/expires", "locks", "corrupt"}

// A directory that vanishes while the store is open costs the sessions that were
// in it, and no call: also not in the other process that has it open.
func TestFileStoreHeals(t *testing.T) {
	for _, gone := range fileDirs {
		dir := filepath.Join(t.TempDir(), "a", "b")
		s := openFile(t, dir, filestore.Options{})
		other := openFile(t, dir, filestore.Options{})
		rec := fileRecord(1, "ada")
		for _, s := range []*filestore.Store{s, other} { // both know that the directories are there
			mustSave(t, s, rec, 0)
			if _, err := deleteOld(t.Context(), s, time.Hour); err != nil {
				t.Fatal(err)
			}
			if err := s.Delete(t.Context(), rec.ID); err != nil {
				t.Fatal(err)
			}
		}
		for call, do := range fileCalls(rec) {
			if err := os.RemoveAll(filepath.Join(dir, gone)); err != nil {
				t.Fatal(err)
			}
			if err := do(s); err != nil {
				t.Errorf("%s removed: %s: %v", gone, call, err)
			}
			wholeAgain(t, gone+" removed, "+call, s, other, rec)
		}
	}
}

// fileCalls returns the calls that change something, in a store without records.
func fileCalls(rec record.Record) map[string]func(s *filestore.Store) error {
	ctx := context.Background()
	return map[string]func(s *filestore.Store) error{
		"Load": func(s *filestore.Store) error {
			if _, err := s.Load(ctx, rec.ID); !errors.Is(err, record.ErrNotFound) {
				return errors.Join(errors.New("want ErrNotFound"), err)
			}
			return nil
		},
		"Save": func(s *filestore.Store) error {
			return errors.Join(s.Save(ctx, rec, 0), s.Delete(ctx, rec.ID))
		},
		"Save over": func(s *filestore.Store) error {
			if err := s.Save(ctx, rec, 77); !errors.Is(err, record.ErrNotFound) {
				return errors.Join(errors.New("want ErrNotFound"), err)
			}
			return nil
		},
		"Delete":     func(s *filestore.Store) error { return s.Delete(ctx, rec.ID) },
		"Touch":      func(s *filestore.Store) error { return s.Touch(ctx, rec.ID, rec.Access) },
		"DeleteOld":  func(s *filestore.Store) error { _, err := deleteOld(ctx, s, time.Hour); return err },
		"DeleteUser": func(s *filestore.Store) error { _, err := s.DeleteUser(ctx, "ada"); return err },
		"Setup":      func(s *filestore.Store) error { return s.Setup(ctx) },
	}
}

// wholeAgain wants the stores to take a record, to list it by its user and to
// sweep it.
func wholeAgain(t *testing.T, when string, s, other *filestore.Store, rec record.Record) {
	t.Helper()
	ctx := t.Context()
	for _, s := range []*filestore.Store{s, other} {
		if err := s.Save(ctx, rec, 0); err != nil {
			t.Errorf("%s: Save afterwards: %v", when, err)
		}
		n := 0
		for got, err := range other.IterUser(ctx, rec.User) {
			if n++; err != nil || got.ID != rec.ID {
				t.Errorf("%s: IterUser afterwards yields %v, %v", when, got.ID, err)
			}
		}
		if n != 1 {
			t.Errorf("%s: IterUser afterwards yields %d records, want 1", when, n)
		}
		if n, err := deleteOld(ctx, s, 0); n != 1 || err != nil {
			t.Errorf("%s: DeleteOld afterwards: got %d, %v, want 1", when, n, err)
		}
	}
}

// A record that vanished with its directory has ended: no Save revives it.
func TestFileStoreHealsAndRevivesNothing(t *testing.T) {
	for _, gone := range fileDirs[:3] {
		dir := t.TempDir()
		s := openFile(t, dir, filestore.Options{})
		rec := fileRecord(1, "ada")
		mustSave(t, s, rec, 0)
		os.RemoveAll(filepath.Join(dir, gone))
		next := rec
		next.Version = 2
		if err := s.Save(t.Context(), next, rec.Version); !errors.Is(err, record.ErrNotFound) {
			t.Errorf("%s removed: Save over the record: got %v, want ErrNotFound", gone, err)
		}
		if has, err := s.Has(t.Context(), rec.ID); has || err != nil {
			t.Errorf("%s removed: Has: got %v, %v, want false", gone, has, err)
		}
	}
}

// Setup makes what is missing, and forgets what it believed to be there.
func TestFileStoreSetupResets(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	s := openFile(t, dir, filestore.Options{})
	mustSave(t, s, fileRecord(1, "ada"), 0)
	os.RemoveAll(dir)
	if err := s.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"sessions", "users", "locks", "corrupt", "due/new", "due/accessed", "due/expires"} {
		if _, err := os.Stat(filepath.Join(dir, sub)); err != nil {
			t.Error(err)
		}
	}
	mustSave(t, s, fileRecord(1, "ada"), 0)
}

// Owner and mode are looked at when the store is opened: later changes are the
// operator's affair and stop nobody, until the next opening refuses.
func TestFileStoreChecksWhenOpened(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("mode bits say nothing here")
		return
	}
	dir := t.TempDir()
	mustSave(t, openFile(t, dir, filestore.Options{}), fileRecord(1, "ada"), 0)
	s := openFile(t, dir, filestore.Options{})
	for _, sub := range []string{"sessions/01", "users/fd"} {
		if err := os.Chmod(filepath.Join(dir, sub), 0o770); err != nil {
			t.Fatal(err)
		}
		next := fileRecord(1, "ada")
		next.Version = uint64(len(sub))
		s.Delete(t.Context(), next.ID)
		mustSave(t, s, next, 0)
		if s, err := filestore.Open(fsys.OS, dir, filestore.Options{}); err == nil ||
			!strings.Contains(err.Error(), "others may write") {
			t.Errorf("opening with an open %s: got %v, %v, want a refusal", sub, s, err)
		}
		os.Chmod(filepath.Join(dir, sub), 0o700)
	}
}

// Somebody else's directory in the place of the one that vanished is refused.
func TestFileStoreHealsInNoStrangersDirectory(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("mode bits say nothing here")
		return
	}
	dir := filepath.Join(t.TempDir(), "s")
	s := openFile(t, dir, filestore.Options{})
	mustSave(t, s, fileRecord(1, "ada"), 0)
	os.RemoveAll(dir)
	os.Mkdir(dir, 0o700)
	os.Chmod(dir, 0o777)
	err := s.Save(t.Context(), fileRecord(1, "ada"), 0)
	if err == nil || !strings.Contains(err.Error(), "others may write") {
		t.Errorf("Save: got %v, want a refusal", err)
	}
	if names, _ := os.ReadDir(dir); len(names) > 0 {
		t.Errorf("left there: %v", names)
	}
}

// DeleteUser takes a lock and syncs for a group of records, not for each.
func TestFileStoreDeletesUserInGroups(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, filestore.Options{NoSync: true})
	var keep [][16]byte
	for i := range 200 {
		rec := fileRecord(1, "ada")
		rec.ID = [16]byte{byte(i % 3), 15: byte(i)}
		mustSave(t, s, rec, 0)
		if i%50 == 0 {
			keep = append(keep, rec.ID)
		}
	}
	n, err := s.DeleteUser(t.Context(), "ada", keep...)
	if n != 196 || err != nil {
		t.Errorf("DeleteUser: got %d, %v, want 196", n, err)
	}
	var left [][16]byte
	for rec := range s.IterUser(t.Context(), "ada") {
		left = append(left, rec.ID)
	}
	slices.SortFunc(keep, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	if !slices.Equal(left, keep) {
		t.Errorf("left are %v, want %v", left, keep)
	}
}

// readingFS notes how many bytes are read from files, and the most at once.
type readingFS struct {
	fsys.FS
	all, most atomic.Int64
}

func (r *readingFS) OpenFile(name string, flag int, perm fs.FileMode) (fsys.File, error) {
	f, err := r.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return readingFile{f, r}, nil
}

type readingFile struct {
	fsys.File
	fs *readingFS
}

func (f readingFile) ReadAt(b []byte, off int64) (int, error) {
	f.fs.all.Add(int64(len(b)))
	f.fs.most.Store(max(f.fs.most.Load(), int64(len(b))))
	return f.File.ReadAt(b, off)
}

// longSize is that of a file that takes too much memory when it is read whole.
const longSize = 1 << 28

// A record's file that somebody has made very long is corrupt, which is found out
// without reading it.
func TestFileStoreOverlongRecord(t *testing.T) {
	rec := fileRecord(1, "ada")
	file := func(n int64) func(t *testing.T, name string) {
		return func(t *testing.T, name string) { testsite.Must(t, os.Truncate(name, n)) }
	}
	damages := map[string]func(t *testing.T, name string){
		"longer": file(longSize),
		"zeros": func(t *testing.T, name string) {
			file(0)(t, name)
			file(longSize)(t, name)
		},
		"long user": func(t *testing.T, name string) {
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			testsite.Must(t, err)
			_, err = f.WriteAt([]byte{0x0f, 0xff, 0xff, 0xff}, 2*20+33)
			testsite.Must(t, errors.Join(err, f.Close()))
			file(longSize)(t, name)
		},
	}
	calls := map[string]func(ctx context.Context, s *filestore.Store) error{
		"Load": func(ctx context.Context, s *filestore.Store) error { _, err := s.Load(ctx, rec.ID); return err },
		"Save": func(ctx context.Context, s *filestore.Store) error { return s.Save(ctx, rec, 0) },
		"Iter": func(ctx context.Context, s *filestore.Store) (err error) {
			for _, err = range s.Iter(ctx) {
			}
			return err
		},
		"Touch": func(ctx context.Context, s *filestore.Store) error {
			return s.Touch(ctx, rec.ID, rec.Access)
		},
		"Delete": func(ctx context.Context, s *filestore.Store) error { return s.Delete(ctx, rec.ID) },
		"DeleteOld": func(ctx context.Context, s *filestore.Store) error {
			_, err := deleteOld(ctx, s, 0)
			return err
		},
		"DeleteUser": func(ctx context.Context, s *filestore.Store) error {
			_, err := s.DeleteUser(ctx, "ada")
			return err
		},
		"CheckIndexes": func(ctx context.Context, s *filestore.Store) error {
			_, _, err := s.CheckIndexes(ctx)
			return err
		},
		"RebuildIndexes": func(ctx context.Context, s *filestore.Store) error { return s.RebuildIndexes(ctx) },
	}
	for damage, do := range damages {
		for name, call := range calls {
			t.Run(damage+" "+name, func(t *testing.T) {
				r := &readingFS{FS: fsys.OS}
				dir := t.TempDir()
				s, err := filestore.Open(r, dir, filestore.Options{NoSync: true})
				testsite.Must(t, err)
				mustSave(t, s, rec, 0)
				do(t, sessionFile(dir, rec.ID))
				r.all.Store(0)
				if err := call(t.Context(), s); err != nil && !errors.Is(err, record.ErrCorrupt) {
					t.Errorf("got %v, want %v or no error", err, record.ErrCorrupt)
				}
				if n := r.all.Load(); n > 1<<16 {
					t.Errorf("reads %d bytes", n)
				}
				_, err = s.Load(t.Context(), rec.ID)
				if name == "Load" || name == "Iter" { // they have set it aside
					if _, err := os.Lstat(filepath.Join(dir, "corrupt", hexID(rec.ID))); err != nil {
						t.Error(err)
					}
				}
				if !errors.Is(err, record.ErrCorrupt) && !errors.Is(err, record.ErrNotFound) {
					t.Errorf("Load: got %v", err)
				}
			})
		}
	}
}

// A record may be long, also one in a later format, which stays where it is.
func TestFileStoreLongRecord(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, filestore.Options{NoSync: true})
	for i, user := range []string{"ada", string(make([]byte, 3<<20))} {
		rec := fileRecord(byte(i), user)
		rec.Data = bytes.Repeat([]byte("data"), 1<<20)
		mustSave(t, s, rec, 0)
		got, err := s.Load(t.Context(), rec.ID)
		if err != nil || got.User != user || !bytes.Equal(got.Data, rec.Data) {
			t.Errorf("Load of a record with %d bytes of data: got %d, %v", len(rec.Data), len(got.Data), err)
		}
	}
	name := sessionFile(dir, fileRecord(0, "").ID)
	b, err := os.ReadFile(name)
	testsite.Must(t, err)
	b[40] = 2
	binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[40:len(b)-4], crc32.MakeTable(crc32.Castagnoli)))
	testsite.Must(t, os.WriteFile(name, b, 0o600))
	for range 2 {
		if _, err := s.Load(t.Context(), fileRecord(0, "").ID); !errors.Is(err, record.ErrCorrupt) {
			t.Errorf("Load of a later format: got %v, want %v", err, record.ErrCorrupt)
		}
	}
	if _, err := os.Lstat(name); err != nil {
		t.Errorf("a record in a later format was set aside: %v", err)
	}
}

// A file of entries that somebody has made very long is read in pieces, and what is
// valid in it counts.
func TestFileStoreOverlongIndex(t *testing.T) {
	for _, filed := range []bool{false, true} {
		r := &readingFS{FS: fsys.OS}
		dir := t.TempDir()
		s, err := filestore.Open(r, dir, filestore.Options{NoSync: true})
		testsite.Must(t, err)
		mustSave(t, s, fileRecord(1, "ada"), 0)
		if filed {
			_, err := deleteOld(t.Context(), s, math.MaxInt64)
			testsite.Must(t, err)
		}
		for _, name := range filesIn(t, filepath.Join(dir, "due")) {
			testsite.Must(t, os.Truncate(filepath.Join(dir, "due", name), longSize/4))
		}
		if !filed { // behind what is no entry
			bob := fileRecord(1, "bob")
			bob.Version = 2
			mustSave(t, s, bob, 1)
			rec := fileRecord(1, "ada")
			rec.ID[1] = 1
			mustSave(t, s, rec, 0)
		}
		_, due, err := s.CheckIndexes(t.Context())
		if len(due) > 0 || err != nil {
			t.Errorf("filed %v: CheckIndexes: got %v, %v, want none", filed, due, err)
		}
		want := 2
		if filed {
			want = 1
		}
		if n, err := deleteOld(t.Context(), s, 0); n != want || err != nil {
			t.Errorf("filed %v: DeleteOld returns %d, %v, want %d", filed, n, err, want)
		}
		if most := r.most.Load(); most > 1<<17 {
			t.Errorf("filed %v: reads %d bytes at once", filed, most)
		}
		if left := leftovers(t, dir); len(left) > 0 {
			t.Errorf("filed %v: left: %q", filed, left)
		}
	}
}

// A record that is set aside is said to be, once, without anything of what it held.
func TestFileStoreLogsWhatItSetsAside(t *testing.T) {
	dir, log := t.TempDir(), &testsite.Log{}
	s := openFile(t, dir, filestore.Options{Logger: log.Logger()})
	rec := fileRecord(1, "ada")
	rec.Data = []byte("a secret of ada's")
	mustSave(t, s, rec, 0)
	file := filepath.Join(dir, "sessions", "01", hexID(rec.ID))
	b, err := os.ReadFile(file)
	testsite.Must(t, err)
	b[len(b)-1]++
	testsite.Must(t, os.WriteFile(file, b, 0o600))
	for range 2 {
		s.Load(t.Context(), rec.ID)
	}
	text := log.String()
	if strings.Count(text, "set aside") != 1 || !strings.Contains(text, hexID(rec.ID)) ||
		strings.Contains(text, "secret") {
		t.Errorf("the log says %q", text)
	}
}

// Each bit of a record's file flipped, and the file cut at each length: the record is
// read as it was, or is ErrCorrupt or gone, and never another; its neighbour stays.
func TestFileStoreEveryBit(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, filestore.Options{NoSync: true, Logger: slog.New(slog.DiscardHandler)})
	rec, other := fileRecord(1, "ada"), fileRecord(2, "ada")
	mustSave(t, s, rec, 0)
	mustSave(t, s, other, 0)
	later := access(time.Now().Add(time.Minute), time.Now().Add(2*time.Hour))
	testsite.Must(t, s.Touch(t.Context(), rec.ID, later)) // both places of its access are in use
	name := sessionFile(dir, rec.ID)
	whole, err := os.ReadFile(name)
	testsite.Must(t, err)
	corrupt := 0
	look := func(what string, content []byte) {
		testsite.Must(t, os.WriteFile(name, content, 0o600))
		got, err := s.Load(t.Context(), rec.ID)
		switch {
		case errors.Is(err, record.ErrCorrupt):
			corrupt++
		case errors.Is(err, record.ErrNotFound):
		case err != nil:
			t.Errorf("%s: %v", what, err)
		case got.Access != rec.Access && got.Access != later:
			t.Errorf("%s: accesses of %v", what, got.Access)
		default:
			got.Access = rec.Access
			if fmt.Sprint(got) != fmt.Sprint(rec) {
				t.Errorf("%s: got %v, want %v", what, got, rec)
			}
		}
		if got, err := s.Load(t.Context(), other.ID); err != nil || got.Version != other.Version {
			t.Errorf("%s: the other record: version %d, %v", what, got.Version, err)
		}
	}
	for i := range 8 * len(whole) {
		content := slices.Clone(whole)
		content[i/8] ^= 1 << (i % 8)
		look(fmt.Sprintf("bit %d of byte %d", i%8, i/8), content)
	}
	for n := range whole {
		look(fmt.Sprintf("%d bytes", n), whole[:n])
	}
	if corrupt < 4*len(whole) {
		t.Errorf("%d damages of %d were noticed", corrupt, 9*len(whole))
	}
}

// FuzzFileRecord puts any bytes in the place of a record's file, as they are, with a
// good checksum, and behind a good record: the store reads, lists, replaces, sweeps
// and deletes them as a record or as none, and the neighbour stays.
func FuzzFileRecord(f *testing.F) {
	dir := f.TempDir()
	s := openFile(f, dir, filestore.Options{NoSync: true, Logger: slog.New(slog.DiscardHandler)})
	rec, other := fileRecord(1, "ada"), fileRecord(2, "ada")
	mustSave(f, s, rec, 0)
	mustSave(f, s, other, 0)
	good, err := os.ReadFile(sessionFile(dir, rec.ID))
	testsite.Must(f, err)
	f.Add([]byte{})
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add(good[:record.HeadSize])
	f.Add(append(good[:record.HeadSize:record.HeadSize], "\x02 what a newer program writes"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		summed := binary.LittleEndian.AppendUint32(bytes.Clone(b), crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
		for _, content := range [][]byte{b, summed, append(bytes.Clone(good), b...)} {
			testsite.Must(t, os.WriteFile(sessionFile(dir, rec.ID), content, 0o600))
			bounded.Decode(t, len(content), func() { callEach(t, s, rec, other) })
		}
	})
}

// callEach makes each call on a record that may be damaged, and looks at its neighbour.
func callEach(t *testing.T, s *filestore.Store, rec, other record.Record) {
	got, err := s.Load(t.Context(), rec.ID)
	if err != nil && !errors.Is(err, record.ErrCorrupt) && !errors.Is(err, record.ErrNotFound) {
		t.Errorf("Load: %v", err)
	}
	if err == nil && got.ID != rec.ID {
		t.Errorf("Load returns the record of %x", got.ID)
	}
	s.Touch(t.Context(), rec.ID, access(time.Now(), time.Now().Add(time.Hour)))
	for r, err := range s.IterUser(t.Context(), "ada") {
		if err == nil && r.User != "ada" {
			t.Errorf("ada's sessions have one of %q", r.User)
		}
	}
	s.Save(t.Context(), rec, got.Version)
	if err := s.Delete(t.Context(), rec.ID); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if err := s.Save(t.Context(), rec, 0); err != nil {
		t.Errorf("creating it anew: %v", err)
	}
	if got, err := s.Load(t.Context(), other.ID); err != nil || got.Version != other.Version {
		t.Errorf("the other record: version %d, %v", got.Version, err)
	}
}
