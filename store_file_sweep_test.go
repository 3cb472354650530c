package session2_test

import (
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/fsys"
)

// counting counts how often a file below sessions is opened.
type counting struct {
	fsys.FS
	opens atomic.Int64
}

func (c *counting) OpenFile(name string, flag int, perm fs.FileMode) (fsys.File, error) {
	if strings.Contains(filepath.ToSlash(name), "/sessions/") {
		c.opens.Add(1)
	}
	return c.FS.OpenFile(name, flag, perm)
}

// The cost of a sweep follows what it deletes.
func TestFileStoreSweepsByIndex(t *testing.T) {
	c := &counting{FS: fsys.OS}
	s, err := session2.OpenFileStoreFS(c, t.TempDir(), &session2.FileOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		rec := fileRecord(byte(i), "ada")
		if i < 5 {
			rec.Expires = time.Now().Add(-time.Second)
		}
		mustSave(t, s, rec, 0)
	}
	for _, want := range []struct{ deleted, opens int }{{5, 5}, {0, 0}} {
		c.opens.Store(0)
		n, err := s.DeleteOld(t.Context(), time.Hour)
		if err != nil || n != want.deleted || c.opens.Load() > int64(want.opens) {
			t.Errorf("DeleteOld = %d, %v, and opens %d of 200 records; want %d deleted, %d opened", n, err, c.opens.Load(), want.deleted, want.opens)
		}
	}
	if n, err := s.DeleteOld(t.Context(), 0); n != 195 || err != nil {
		t.Errorf("DeleteOld(0) = %d, %v; want the other 195", n, err)
	}
}

// Entries whose record lives on are filed again, once.
func TestFileStoreSweepsLater(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, &session2.FileOptions{NoSync: true})
	now := time.Now()
	rec := fileRecord(1, "ada")
	rec.Accessed, rec.Expires = now.Add(-2*time.Hour), now.Add(time.Minute)
	mustSave(t, s, rec, 0)
	if err := s.Touch(t.Context(), rec.ID, now.Add(-30*time.Minute), now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	for range 3 { // by its first times it would be due
		if n, err := s.DeleteOld(t.Context(), time.Hour); n != 0 || err != nil {
			t.Errorf("DeleteOld = %d, %v; want the touched record to live", n, err)
		}
	}
	if got := len(filesIn(t, filepath.Join(dir, "due"))); got != 2 {
		t.Errorf("%d files in the index by time, want one in each tree: %v", got, filesIn(t, filepath.Join(dir, "due")))
	}
	if n, err := s.DeleteOld(t.Context(), 20*time.Minute); n != 1 || err != nil {
		t.Errorf("DeleteOld = %d, %v; want the record", n, err)
	}
}

// What killed writers leave is removed where it is met, and nobody else's.
func TestFileStoreSweepsLeftovers(t *testing.T) {
	for name, sweep := range map[string]func(t *testing.T, s *session2.FileStore){
		"DeleteOld": func(t *testing.T, s *session2.FileStore) { s.DeleteOld(t.Context(), 0) },
		"Delete":    func(t *testing.T, s *session2.FileStore) { s.Delete(t.Context(), fileRecord(1, "").ID) },
		"Iter": func(t *testing.T, s *session2.FileStore) {
			for range s.Iter(t.Context()) {
			}
		},
	} {
		dir := t.TempDir()
		s := openFile(t, dir, nil)
		rec := fileRecord(1, "ada")
		mustSave(t, s, rec, 0)
		temp := fsys.Temp(sessionFile(dir, rec.ID))
		os.WriteFile(temp, []byte("half a rec"), 0o600)
		sweep(t, s)
		if _, err := os.Lstat(temp); err == nil {
			t.Errorf("%s leaves the temporary of a killed writer", name)
		}
	}
}

// A torn or foreign entry in the index leads nowhere and hides no other.
func TestFileStoreTornEntries(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, nil)
	name := filepath.Join(dir, "due", "new", "01")
	os.WriteFile(name, make([]byte, 36+7), 0o600) // zeros where a power cut lost data, and a part
	mustSave(t, s, fileRecord(1, "ada"), 0)
	os.WriteFile(filepath.Join(dir, "due", "new", "zz"), []byte("foreign"), 0o600)
	os.WriteFile(filepath.Join(dir, "due", "expires", "0000000000000000.tmp"), []byte("left"), 0o600)
	if n, err := s.DeleteOld(t.Context(), 0); n != 1 || err != nil {
		t.Errorf("DeleteOld = %d, %v; want 1", n, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "due", "expires", "0000000000000000.tmp")); err == nil {
		t.Error("the temporary of a killed sweep is left")
	}
}

// brokenFS fails at what has a certain name.
type brokenFS struct {
	fsys.FS
	name string // a suffix
}

func (b *brokenFS) fault(name string) error {
	if b.name != "" && strings.HasSuffix(filepath.ToSlash(name), b.name) {
		return &fs.PathError{Op: "use", Path: name, Err: syscall.EIO}
	}
	return nil
}

func (b *brokenFS) OpenFile(name string, flag int, perm fs.FileMode) (fsys.File, error) {
	if err := b.fault(name); err != nil {
		return nil, err
	}
	return b.FS.OpenFile(name, flag, perm)
}

func (b *brokenFS) Rename(oldName, newName string) error {
	if err := b.fault(newName); err != nil {
		return err
	}
	return b.FS.Rename(oldName, newName)
}

func (b *brokenFS) SyncDir(name string) error {
	if err := b.fault(name); err != nil {
		return err
	}
	return b.FS.SyncDir(name)
}

// What a sweep fails at does not keep it from the rest; and later it does that, too.
func TestFileStoreSweepsPastFailures(t *testing.T) {
	for _, test := range []struct {
		fails string // the bucket of the first record if empty
		filed bool   // the entries are in buckets
		n     int    // what is removed meanwhile
	}{
		{fails: "/sessions/01", n: 2},
		{fails: "/sessions/01", filed: true, n: 2},
		{fails: "/sessions/01/" + fileRecord(1, "").ID.String(), n: 1},
		{fails: "/sessions/01/" + fileRecord(1, "").ID.String(), filed: true, n: 1},
		{fails: "/new/01.old", n: 2},
		{fails: "/due/new", n: 0},
		{filed: true, n: 1},
	} {
		dir := t.TempDir()
		b := &brokenFS{FS: fsys.OS}
		s, err := session2.OpenFileStoreFS(b, dir, nil)
		must(t, err)
		mustSave(t, s, agedRecord(1, 4), 0)
		mustSave(t, s, agedRecord(2, 3), 0)
		if test.filed {
			sweeps(t, "before", s, math.MaxInt64, 0, nil)
		}
		if b.name = test.fails; b.name == "" {
			b.name = filesIn(t, filepath.Join(dir, "due", "accessed"))[0]
		}
		n, err := s.DeleteOld(t.Context(), time.Hour)
		if err == nil || n != test.n {
			t.Errorf("%s fails: DeleteOld returns %d, %v, want %d and an error", b.name, n, err, test.n)
		}
		b.name = ""
		sweeps(t, "in the end", s, time.Hour, 2-n, nil)
		if left := filesIn(t, filepath.Join(dir, "sessions")); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	}
}
