package session2_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/lockfile"
	"github.com/session2/session2/internal/record"
	"github.com/session2/session2/storetest"
)

func openFile(t testing.TB, dir string, opts *session2.FileOptions) *session2.FileStore {
	t.Helper()
	store, err := session2.OpenFileStore(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// sessionFile returns where a FileStore keeps a record.
func sessionFile(dir string, id session2.ID) string {
	return filepath.Join(dir, "sessions", id.String()[:2], id.String())
}

func TestFileStoreConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t testing.TB, dir string) session2.Store {
		return openFile(t, filepath.Join(dir, "store"), nil)
	}, &storetest.Options{Corrupt: func(t testing.TB, dir string, id session2.ID) {
		flip(t, sessionFile(filepath.Join(dir, "store"), id), -1)
	}})
}

// flip damages a file at an offset, from its end if that is negative.
func flip(t testing.TB, name string, at int) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 0x10
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func fileRecord(n byte, user string) session2.Record {
	now := time.Now()
	return session2.Record{ID: session2.ID{n, 15: n}, Version: 1, User: user, Created: now, Accessed: now,
		Expires: now.Add(time.Hour), Data: []byte("data")}
}

func mustSave(t testing.TB, s *session2.FileStore, rec session2.Record, prev session2.Version) {
	t.Helper()
	if err := s.Save(t.Context(), rec, prev); err != nil {
		t.Fatal(err)
	}
}

// filesIn returns the files below a folder by their paths in it, but for the marks
// of a FileStore's indexes, of which there are four, without content.
func filesIn(t testing.TB, dir string) (names []string) {
	t.Helper()
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && !isIndexMark(path) {
			name, _ := filepath.Rel(dir, path)
			names = append(names, filepath.ToSlash(name))
		}
		return nil
	})
	return names
}

func isIndexMark(path string) bool {
	tree := filepath.Base(filepath.Dir(path))
	return filepath.Base(path) == "complete" && slices.Contains([]string{"users", "new", "accessed", "expires"}, tree)
}

func TestFileStoreNames(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, nil)
	rec := fileRecord(0xab, "../../ada/\x00")
	mustSave(t, s, rec, 0)
	want := []string{"ab/" + rec.ID.String()}
	if got := filesIn(t, filepath.Join(dir, "sessions")); !slices.Equal(got, want) {
		t.Errorf("files of records are %q, want %q", got, want)
	}
	sum := sha256.Sum256([]byte(rec.User))
	hash := hex.EncodeToString(sum[:])
	want = []string{hash[:2] + "/" + hash + "/" + rec.ID.String()}
	if got := filesIn(t, filepath.Join(dir, "users")); !slices.Equal(got, want) {
		t.Errorf("files of users are %q, want %q", got, want)
	}
	if runtime.GOOS == "windows" {
		return
	}
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if info, err := e.Info(); path != dir && (err != nil || info.Mode().Perm()&0o077 != 0) {
			t.Errorf("%s has mode %v, %v: others may read it", path, info.Mode(), err)
		}
		return nil
	})
}

func TestFileStoreRefusesFolders(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("mode bits say nothing here")
		return
	}
	for _, sub := range []string{".", "sessions", "locks", "due/new"} {
		for _, mode := range []fs.FileMode{0o720, 0o702, 0o777} {
			dir := t.TempDir()
			openFile(t, dir, nil)
			os.Chmod(filepath.Join(dir, sub), mode)
			if _, err := session2.OpenFileStore(dir, nil); err == nil || !strings.Contains(err.Error(), "others may write") {
				t.Errorf("%s with mode %v: error %v, want a refusal", sub, mode, err)
			}
		}
	}
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)
	if _, err := session2.OpenFileStore(filepath.Join(dir, "file"), nil); err == nil {
		t.Error("a file is accepted as the folder")
	}
	os.Symlink(t.TempDir(), filepath.Join(dir, "sessions"))
	if _, err := session2.OpenFileStore(dir, nil); err == nil {
		t.Error("a link is accepted as a subfolder")
	}
}

func TestFileStoreRefusesOthersFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can give a folder away; not checked")
		return
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 12345, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := session2.OpenFileStore(dir, nil); err == nil || !strings.Contains(err.Error(), "another user") {
		t.Errorf("another user's folder: error %v, want a refusal", err)
	}
}

// Any damage is one ErrCorrupt that names the record, and then the ID is free.
func TestFileStoreCorrupt(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, &session2.FileOptions{NoSync: true})
	ctx := t.Context()
	rec, other := fileRecord(1, "ada"), fileRecord(2, "ada")
	mustSave(t, s, other, 0)
	name := sessionFile(dir, rec.ID)
	damages := map[string]func(){
		"empty":          func() { os.Truncate(name, 0) },
		"cut":            func() { os.Truncate(name, 90) },
		"longer":         func() { f, _ := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0); f.Write([]byte{0}); f.Close() },
		"both accesses":  func() { flip(t, name, 3); flip(t, name, 23) },
		"body":           func() { flip(t, name, 45) },
		"another's":      func() { b, _ := os.ReadFile(sessionFile(dir, other.ID)); os.WriteFile(name, b, 0o600) },
		"no file at all": func() { os.Remove(name); os.Mkdir(name, 0o700) },
	}
	calls := map[string]func() error{
		"Load": func() error { _, err := s.Load(ctx, rec.ID); return err },
		"Save": func() error { next := rec; next.Version = 2; return s.Save(ctx, next, 1) },
	}
	for damage, do := range damages {
		for call, err := range calls {
			mustSave(t, s, rec, 0)
			do()
			if err := err(); !errors.Is(err, session2.ErrCorrupt) || !strings.Contains(err.Error(), rec.ID.String()) {
				t.Errorf("%s, %s: error %v, want ErrCorrupt with the ID", damage, call, err)
			}
			if _, err := s.Load(ctx, rec.ID); !errors.Is(err, session2.ErrNotFound) {
				t.Errorf("%s, %s: error %v afterwards, want ErrNotFound", damage, call, err)
			}
			if _, err := os.Lstat(filepath.Join(dir, "corrupt", rec.ID.String())); err != nil {
				t.Errorf("%s, %s: not set aside: %v", damage, call, err)
			}
			os.RemoveAll(filepath.Join(dir, "corrupt", rec.ID.String()))
		}
	}
	if _, err := s.Load(ctx, other.ID); err != nil {
		t.Errorf("the other record: %v", err)
	}
}

// A record of a later version of session2 is not ours to put away.
func TestFileStoreLaterFormat(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, nil)
	rec := fileRecord(1, "")
	mustSave(t, s, rec, 0)
	name := sessionFile(dir, rec.ID)
	b, _ := os.ReadFile(name)
	b[record.HeadSize] = 2
	body := b[record.HeadSize : len(b)-4]
	binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	os.WriteFile(name, b, 0o600)
	for range 2 {
		if _, err := s.Load(t.Context(), rec.ID); !errors.Is(err, session2.ErrCorrupt) {
			t.Errorf("Load: %v, want ErrCorrupt", err)
		}
	}
	if err := s.Delete(t.Context(), rec.ID); err != nil {
		t.Error(err)
	}
	if has, err := s.Has(t.Context(), rec.ID); has || err != nil {
		t.Errorf("Has after Delete = %v, %v", has, err)
	}
}

// Touch writes a few bytes of the same file: no new file, nothing else changed.
func TestFileStoreTouchesInPlace(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, nil)
	rec := fileRecord(1, "ada")
	rec.Data = make([]byte, 100_000)
	mustSave(t, s, rec, 0)
	name := sessionFile(dir, rec.ID)
	before, _ := os.Stat(name)
	was, _ := os.ReadFile(name)
	for i := range 3 {
		if err := s.Touch(t.Context(), rec.ID, rec.Accessed.Add(time.Duration(i)*time.Minute), rec.Expires); err != nil {
			t.Fatal(err)
		}
	}
	after, _ := os.Stat(name)
	is, _ := os.ReadFile(name)
	if !os.SameFile(before, after) {
		t.Error("Touch replaced the file")
	}
	if !bytes.Equal(was[record.HeadSize:], is[record.HeadSize:]) {
		t.Error("Touch changed more than the access")
	}
}

// Readers take no lock: they are not held up by a writer that has stopped.
func TestFileStoreReadsWithoutLock(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, nil)
	rec := fileRecord(7, "")
	mustSave(t, s, rec, 0)
	m := lockfile.New(func() (lockfile.File, error) { return os.OpenFile(filepath.Join(dir, "locks", "07"), os.O_RDWR, 0) })
	unlock, err := m.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if _, err := s.Load(t.Context(), rec.ID); err != nil {
		t.Errorf("Load beside a writer: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	rec.Version = 2
	if err := s.Save(ctx, rec, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Save beside a writer: %v, want the context's error", err)
	}
	rec = fileRecord(8, "")
	mustSave(t, s, rec, 0) // another lock
}

func TestFileStoreClosed(t *testing.T) {
	s := openFile(t, t.TempDir(), nil)
	s.Close()
	if _, err := s.Load(t.Context(), session2.ID{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Load after Close: %v, want %v", err, os.ErrClosed)
	}
	if got := s.Capabilities(); !got.Durable || !got.MultiprocessSafe || !got.ThreadSafe || got.MultihostSafe {
		t.Errorf("Capabilities() = %+v", got)
	}
	if got := openFile(t, t.TempDir(), &session2.FileOptions{NoSync: true}).Capabilities(); got.Durable {
		t.Error("a store without syncs promises Durable")
	}
}

func ExampleOpenFileStore() {
	dir, err := os.MkdirTemp("", "sessions")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	store, err := session2.OpenFileStore(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	fmt.Println(store.Capabilities().Durable, store.Capabilities().MultiprocessSafe)
	// Output: true true
}
