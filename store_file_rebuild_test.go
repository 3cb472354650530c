package session2_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/fsys"
)

// removals are the ways in which an index vanishes: by rm -rf, and by a cleaner of
// /tmp, which removes files.
var removals = map[string]func(t *testing.T, dir string){
	"directory removed": func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)) },
	"files removed": func(t *testing.T, dir string) {
		must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				err = os.Remove(path)
			}
			return err
		}))
	},
	"all below removed": func(t *testing.T, dir string) {
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		must(t, err)
		for _, name := range names {
			must(t, os.RemoveAll(name))
		}
	},
}

// eachRemoval calls test with a store that has lost an index, as three see it: who
// had the store open and wrote to it, who had it open, and who opens it now. Seven
// sessions are ada's and three bob's; a sweep has filed the first five.
func eachRemoval(t *testing.T, indexes []string, test func(t *testing.T, dir string, s *session2.FileStore)) {
	for _, index := range indexes {
		for name, remove := range removals {
			for _, who := range []string{"writer", "other", "restarted"} {
				t.Run(index+" "+name+" "+who, func(t *testing.T) {
					dir := t.TempDir()
					stores := map[string]*session2.FileStore{
						"writer": openFile(t, dir, &session2.FileOptions{NoSync: true}),
						"other":  openFile(t, dir, &session2.FileOptions{NoSync: true}),
					}
					for i := range byte(10) {
						rec := fileRecord(i%3, "ada")
						if rec.ID[15] = i; i >= 7 {
							rec.User = "bob"
						}
						mustSave(t, stores["writer"], rec, 0)
						if i == 4 {
							_, err := stores["other"].DeleteOld(t.Context(), math.MaxInt64)
							must(t, err)
						}
					}
					remove(t, filepath.Join(dir, index))
					s := stores[who]
					if s == nil {
						s = openFile(t, dir, &session2.FileOptions{NoSync: true})
					}
					test(t, dir, s)
				})
			}
		}
	}
}

func countUser(t *testing.T, s *session2.FileStore, user string) (n int) {
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
	eachRemoval(t, []string{"users"}, func(t *testing.T, dir string, s *session2.FileStore) {
		if n, err := s.DeleteUser(t.Context(), "ada"); n != 7 || err != nil {
			t.Errorf("DeleteUser: got %d, %v, want 7", n, err)
		}
		if n := countUser(t, s, "bob"); n != 3 {
			t.Errorf("IterUser: got %d sessions, want 3", n)
		}
		if n, err := s.DeleteOld(t.Context(), 0); n != 3 || err != nil {
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
	eachRemoval(t, indexes, func(t *testing.T, dir string, s *session2.FileStore) {
		if n, err := s.DeleteOld(t.Context(), 0); n != 10 || err != nil {
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
	eachRemoval(t, all, func(t *testing.T, dir string, s *session2.FileStore) {
		if users, due, err := s.CheckIndexes(t.Context()); len(users)+len(due) < 5 || err != nil {
			t.Errorf("CheckIndexes: got %d by user and %d by time, %v, want some", len(users), len(due), err)
		}
		must(t, s.Setup(t.Context()))
		for _, index := range []string{"users", "due/new", "due/accessed", "due/expires"} {
			must(t, os.Remove(filepath.Join(dir, index, "complete"))) // so it was left by an earlier release
		}
		for range 2 {
			if users, due, err := s.CheckIndexes(t.Context()); len(users)+len(due) > 0 || err != nil {
				t.Errorf("CheckIndexes: got %v by user and %v by time, %v, want none", users, due, err)
			}
			must(t, s.Setup(t.Context()))
		}
		before := len(filesIn(t, filepath.Join(dir, "users")))
		must(t, s.Setup(t.Context()))
		if after := len(filesIn(t, filepath.Join(dir, "users"))); before != 10 || after != 10 {
			t.Errorf("%d entries by user, then %d, want 10", before, after)
		}
		if n, err := s.DeleteOld(t.Context(), 0); n != 10 || err != nil {
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
	for name, use := range map[string]func(s *session2.FileStore, rec session2.Record) error{
		"Touch": func(s *session2.FileStore, rec session2.Record) error {
			return s.Touch(context.Background(), rec.ID, rec.Accessed, rec.Expires)
		},
		"Save": func(s *session2.FileStore, rec session2.Record) error {
			rec.Version++
			return s.Save(context.Background(), rec, rec.Version-1)
		},
	} {
		dir := t.TempDir()
		s := openFile(t, dir, &session2.FileOptions{NoSync: true})
		rec := fileRecord(1, "ada")
		mustSave(t, s, rec, 0)
		mustSave(t, s, fileRecord(2, "ada"), 0)
		entries, err := filepath.Glob(filepath.Join(dir, "users", "*", "*", rec.ID.String()))
		if err != nil || len(entries) != 1 {
			t.Fatalf("entries by user: %q, %v", entries, err)
		}
		must(t, os.Remove(entries[0]))
		must(t, os.Remove(filepath.Join(dir, "due", "new", "02")))
		users, due, err := s.CheckIndexes(t.Context())
		other := fileRecord(2, "").ID
		if err != nil || !slices.Equal(users, []session2.ID{rec.ID}) || !slices.Equal(due, []session2.ID{other}) {
			t.Errorf("CheckIndexes: got %v, %v, %v, want the first record and the second", users, due, err)
		}
		must(t, use(s, rec))
		if n := countUser(t, s, "ada"); n != 2 {
			t.Errorf("after %s IterUser yields %d sessions, want 2", name, n)
		}
	}
}

// A rebuilding beside writers and others that rebuild misses nobody, whenever the
// index vanishes.
func TestFileStoreRebuildsBesideWriters(t *testing.T) {
	dir, away := t.TempDir(), t.TempDir()
	stores := [2]*session2.FileStore{}
	for i := range stores {
		stores[i] = openFile(t, dir, &session2.FileOptions{NoSync: true})
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
		s, err := session2.OpenFileStoreFS(recordlessFS{fsys.OS}, dir, &session2.FileOptions{NoSync: true})
		must(t, err)
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

func (recordlessFS) Remove(name string) error { return errFull }

func (d recordlessFS) OpenFile(name string, flag int, perm fs.FileMode) (fsys.File, error) {
	if fsys.IsTemp(name) && strings.Contains(filepath.ToSlash(name), "/sessions/") {
		return nil, errFull
	}
	return d.FS.OpenFile(name, flag, perm)
}

// Entries by user that killed writers leave, and their directories, are gone after
// a trimming and after a rebuilding; those of living sessions stay.
func TestFileStoreTrimsStrayEntries(t *testing.T) {
	for name, trim := range map[string]func(s *session2.FileStore) error{
		"TrimIndexes":    func(s *session2.FileStore) error { return s.TrimIndexes(t.Context()) },
		"RebuildIndexes": func(s *session2.FileStore) error { return s.RebuildIndexes(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openFile(t, dir, nil)
			for i := range byte(5) {
				mustSave(t, s, fileRecord(i, "alice"), 0)
			}
			before := filesIn(t, filepath.Join(dir, "users"))
			strayEntries(t, dir, 10)
			entry := filepath.Join(dir, "users", before[0]) // of another user's record
			other := filepath.Join(dir, "users", "00", strings.Repeat("0", 64))
			must(t, os.MkdirAll(other, 0o700))
			must(t, os.WriteFile(filepath.Join(other, filepath.Base(entry)), nil, 0o600))
			if got := filesIn(t, filepath.Join(dir, "users")); len(got) != 5+20+1 {
				t.Fatalf("%d entries before, want 26", len(got))
			}
			must(t, trim(s))
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
	s := openFile(t, dir, nil)
	strayEntries(t, dir, 3)
	ctx := &endingContext{Context: t.Context(), looks: 5, done: make(chan struct{})}
	if err := s.TrimIndexes(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
	}
}

// A trimming beside writers loses no entry of theirs.
func TestFileStoreTrimsBesideWriters(t *testing.T) {
	s := openFile(t, t.TempDir(), &session2.FileOptions{NoSync: true})
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
		must(t, s.RebuildIndexes(t.Context()))
	}
	for trimming := true; trimming; {
		select {
		case <-done:
			trimming = false
		default:
		}
		must(t, s.TrimIndexes(t.Context()))
	}
	if n := countUser(t, s, "bob"); n != 4*20 {
		t.Errorf("IterUser yields %d sessions, want %d", n, 4*20)
	}
	if users, due, err := s.CheckIndexes(t.Context()); len(users)+len(due) > 0 || err != nil {
		t.Errorf("CheckIndexes: got %v, %v, %v, want none", users, due, err)
	}
}

// load notes what is in a directory as synced.
func (d *disk) load(t *testing.T, dir string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		node := &diskNode{dir: e.IsDir()}
		if !node.dir {
			node.data, err = os.ReadFile(path)
		}
		d.nodes[path] = node
		return err
	}))
	for path, node := range d.nodes {
		if node.dir {
			node.names = d.list(path)
		}
	}
}

// A crash at any step of a rebuilding: both indexes are whole afterwards, for who
// asks for them.
func TestFileStoreCrashRebuilding(t *testing.T) {
	t.Parallel()
	state := fileState{{1}: 1, {2}: 1, {3}: 1}
	for n := 0; !t.Failed(); n++ {
		root := t.TempDir()
		s := openFile(t, filepath.Join(root, "store"), &session2.FileOptions{NoSync: true})
		for id, user := range map[byte]string{1: "ada", 2: "bob", 3: "ada"} {
			rec := fileRecord(id, user)
			rec.ID, rec.Accessed = session2.ID{id}, rec.Accessed.Add(-time.Minute)
			mustSave(t, s, rec, 0)
		}
		removals["directory removed"](t, filepath.Join(root, "store", "users"))
		removals["files removed"](t, filepath.Join(root, "store", "due"))
		d := newDisk(root, n)
		d.load(t, root)
		done := false
		s, err := session2.OpenFileStoreFS(d, filepath.Join(root, "store"), nil)
		if err == nil {
			_, err = s.DeleteUser(t.Context(), "nobody")
		}
		if err == nil {
			_, err = s.DeleteOld(t.Context(), time.Hour)
		}
		done = err == nil
		for _, crash := range crashes() {
			if !checkAfterCrash(t, filepath.Join(crash.die(t, d, root), "store"), false, state, state) {
				t.Fatalf("%s after step %d", crash.name, n)
			}
		}
		if done {
			break
		}
	}
}
