package session2_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
)

// fileDirs are the directories of a FileStore that holds fileRecord(1, "ada").
var fileDirs = []string{".", "sessions", "sessions/01", "users", "users/fd",
	"due", "due/new", "due/accessed", "due/expires", "locks", "corrupt"}

// A directory that vanishes while the store is open costs the sessions that were
// in it, and no call: also not in the other process that has it open.
func TestFileStoreHeals(t *testing.T) {
	for _, gone := range fileDirs {
		dir := filepath.Join(t.TempDir(), "a", "b")
		s := openFile(t, dir, nil)
		other := openFile(t, dir, nil)
		rec := fileRecord(1, "ada")
		for _, s := range []*session2.FileStore{s, other} { // both know that the directories are there
			mustSave(t, s, rec, 0)
			if _, err := s.DeleteOld(t.Context(), time.Hour); err != nil {
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
func fileCalls(rec session2.Record) map[string]func(s *session2.FileStore) error {
	ctx := context.Background()
	return map[string]func(s *session2.FileStore) error{
		"Load": func(s *session2.FileStore) error {
			if _, err := s.Load(ctx, rec.ID); !errors.Is(err, session2.ErrNotFound) {
				return errors.Join(errors.New("want ErrNotFound"), err)
			}
			return nil
		},
		"Save": func(s *session2.FileStore) error {
			return errors.Join(s.Save(ctx, rec, 0), s.Delete(ctx, rec.ID))
		},
		"Save over": func(s *session2.FileStore) error {
			if err := s.Save(ctx, rec, 77); !errors.Is(err, session2.ErrNotFound) {
				return errors.Join(errors.New("want ErrNotFound"), err)
			}
			return nil
		},
		"Delete":     func(s *session2.FileStore) error { return s.Delete(ctx, rec.ID) },
		"Touch":      func(s *session2.FileStore) error { return s.Touch(ctx, rec.ID, rec.Accessed, rec.Expires) },
		"DeleteOld":  func(s *session2.FileStore) error { _, err := s.DeleteOld(ctx, time.Hour); return err },
		"DeleteUser": func(s *session2.FileStore) error { _, err := s.DeleteUser(ctx, "ada"); return err },
		"Setup":      func(s *session2.FileStore) error { return s.Setup(ctx) },
	}
}

// wholeAgain wants the stores to take a record, to list it by its user and to
// sweep it.
func wholeAgain(t *testing.T, when string, s, other *session2.FileStore, rec session2.Record) {
	t.Helper()
	ctx := t.Context()
	for _, s := range []*session2.FileStore{s, other} {
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
		if n, err := s.DeleteOld(ctx, 0); n != 1 || err != nil {
			t.Errorf("%s: DeleteOld afterwards: got %d, %v, want 1", when, n, err)
		}
	}
}

// A record that vanished with its directory has ended: no Save revives it.
func TestFileStoreHealsAndRevivesNothing(t *testing.T) {
	for _, gone := range fileDirs[:3] {
		dir := t.TempDir()
		s := openFile(t, dir, nil)
		rec := fileRecord(1, "ada")
		mustSave(t, s, rec, 0)
		os.RemoveAll(filepath.Join(dir, gone))
		next := rec
		next.Version = 2
		if err := s.Save(t.Context(), next, rec.Version); !errors.Is(err, session2.ErrNotFound) {
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
	s := openFile(t, dir, nil)
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
	mustSave(t, openFile(t, dir, nil), fileRecord(1, "ada"), 0)
	s := openFile(t, dir, nil)
	for _, sub := range []string{"sessions/01", "users/fd"} {
		if err := os.Chmod(filepath.Join(dir, sub), 0o770); err != nil {
			t.Fatal(err)
		}
		next := fileRecord(1, "ada")
		next.Version = session2.Version(len(sub))
		s.Delete(t.Context(), next.ID)
		mustSave(t, s, next, 0)
		if s, err := session2.OpenFileStore(dir, nil); err == nil || !strings.Contains(err.Error(), "others may write") {
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
	s := openFile(t, dir, nil)
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

// A path is resolved once: a link on the way that is changed later leads nobody
// to half a store.
func TestStoresFollowLinksOnce(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("links need a privilege here")
		return
	}
	for name, open := range placed {
		t.Run(name, func(t *testing.T) {
			first, second, at := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(first, at); err != nil {
				t.Fatal(err)
			}
			path := at // a FileStore's directory is the link itself
			if name != "file" {
				path = filepath.Join(at, "s")
			}
			s, err := open(path)
			if err != nil {
				t.Fatal(err)
			}
			os.Remove(at)
			if err := os.Symlink(second, at); err != nil {
				t.Fatal(err)
			}
			rec := houseRecord(1, "alice")
			if err := s.Save(t.Context(), rec, 0); err != nil {
				t.Errorf("Save: %v", err)
			}
			s.Close()
			if names, _ := os.ReadDir(second); len(names) > 0 {
				t.Errorf("written to where the link leads now: %v", names)
			}
			if s, err = open(filepath.Join(first, strings.TrimPrefix(path, at))); err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if ok, err := s.Has(t.Context(), rec.ID); !ok || err != nil {
				t.Errorf("Has where the link led: got %v, %v, want true", ok, err)
			}
		})
	}
}

// DeleteUser takes a lock and syncs for a group of records, not for each.
func TestFileStoreDeletesUserInGroups(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, &session2.FileOptions{NoSync: true})
	var keep []session2.ID
	for i := range 200 {
		rec := fileRecord(1, "ada")
		rec.ID = session2.ID{byte(i % 3), 15: byte(i)}
		mustSave(t, s, rec, 0)
		if i%50 == 0 {
			keep = append(keep, rec.ID)
		}
	}
	n, err := s.DeleteUser(t.Context(), "ada", keep...)
	if n != 196 || err != nil {
		t.Errorf("DeleteUser: got %d, %v, want 196", n, err)
	}
	var left []session2.ID
	for rec := range s.IterUser(t.Context(), "ada") {
		left = append(left, rec.ID)
	}
	slices.SortFunc(keep, func(a, b session2.ID) int { return strings.Compare(a.String(), b.String()) })
	if !slices.Equal(left, keep) {
		t.Errorf("left are %v, want %v", left, keep)
	}
}
