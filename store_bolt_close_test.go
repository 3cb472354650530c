package session2_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/session2/session2"
)

// filesOpen returns how many files this process has open, or zero where the
// system does not tell.
func filesOpen() int {
	entries, _ := os.ReadDir("/proc/self/fd")
	return len(entries)
}

// shareRoots lets the bucket of users begin at the page of another one.
func shareRoots(whole []byte) []byte {
	data := bytes.Clone(whole)
	from, to := []byte("expires"), []byte("users")
	for i := range whole { // on each copy of the page of buckets
		if !bytes.HasPrefix(whole[i:], from) {
			continue
		}
		j := i + bytes.Index(whole[i:], to)
		copy(data[j+len(to):], whole[i+len(from):i+len(from)+8])
	}
	return data
}

// breakFreelist makes bbolt panic over its list of free pages, which is on a page
// of the kind 16 after it has written without our options.
func breakFreelist(data []byte) []byte {
	for at := 0; at < len(data); at += os.Getpagesize() {
		if data[at+8] == 16 {
			data[at+8] = 64
		}
	}
	return data
}

// A file that is refused is let go: put right, it opens at once.
func TestBoltRefusedFileIsLetGo(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sessions.db")
	b := openBolt(t, dir)
	for i := range uint64(200) {
		saveBolt(t, b, boltRecord(i, fmt.Sprint(i)))
	}
	must(t, b.Close())
	whole, err := os.ReadFile(path)
	must(t, err)
	edited := func(f func(tx *bolt.Tx) error) []byte {
		must(t, os.WriteFile(path, whole, 0o600))
		editBolt(t, dir, f)
		data, err := os.ReadFile(path)
		must(t, err)
		return data
	}
	for name, data := range map[string][]byte{
		"not a database": bytes.Repeat([]byte("no database\n"), 10_000),
		"later format": edited(func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("meta")).Put([]byte("format"), []byte("2"))
		}),
		"no bucket of users":     edited(func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("users")) }),
		"a page in two buckets":  shareRoots(whole),
		"a panic inside of bolt": breakFreelist(edited(func(*bolt.Tx) error { return nil })),
	} {
		must(t, os.WriteFile(path, data, 0o600))
		before := filesOpen()
		if b, err := session2.OpenBoltStore(path, nil); err == nil {
			b.Close()
			t.Errorf("%s: opened", name)
		}
		if n := filesOpen(); n != before {
			t.Errorf("%s: %d files are open, want %d as before", name, n, before)
		}
		must(t, os.WriteFile(path, whole, 0o600))
		b, err := session2.OpenBoltStore(path, nil)
		if err != nil {
			t.Fatalf("%s, put right: %v", name, err)
		}
		must(t, b.Close())
	}
}

// After bbolt has panicked in a commit the store takes no more changes, says so at
// once, and lets the file go when it is closed.
func TestBoltBrokenStoreIsLetGo(t *testing.T) {
	dir := t.TempDir()
	b := openBolt(t, dir)
	saveBolt(t, b, boltRecord(1, ""))
	b.BreakCommits()
	if err := b.Save(t.Context(), boltRecord(2, ""), 0); err == nil || errors.Is(err, fs.ErrClosed) {
		t.Errorf("the Save that broke it: %v, want an error that is no refusal", err)
	}
	if err := b.Save(t.Context(), boltRecord(2, ""), 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("a later Save: %v, want fs.ErrClosed", err)
	}
	must(t, b.Close())
	if _, err := b.Load(t.Context(), boltRecord(1, "").ID); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Load after Close: %v, want fs.ErrClosed", err)
	}
	if _, err := openBolt(t, dir).Load(t.Context(), boltRecord(1, "").ID); err != nil {
		t.Errorf("opened again: %v", err)
	}
}

// A refusal of the system is one where nothing was changed, and none where the
// change shows.
func TestBoltRefusals(t *testing.T) {
	for _, refusal := range []error{syscall.EROFS, fs.ErrPermission} {
		err := fmt.Errorf("write: %w", refusal)
		b := openBolt(t, t.TempDir())
		b.FailCommits(err)
		if err := b.Save(t.Context(), boltRecord(1, ""), 0); !errors.Is(err, refusal) {
			t.Errorf("nothing changed: %v, want %v", err, refusal)
		}
		b = openBolt(t, t.TempDir())
		b.LoseAnswers(&err)
		if err := b.Save(t.Context(), boltRecord(1, ""), 0); err == nil || errors.Is(err, refusal) {
			t.Errorf("changed and not known to be durable: %v, want an error that is no refusal", err)
		}
		if _, err := b.Load(t.Context(), boltRecord(1, "").ID); err != nil {
			t.Errorf("Load: %v", err)
		}
	}
}

// Damaged records do not tell where their index entries are. When no record is
// left, a sweep finds these.
func TestBoltSweepsWhatDamageLeft(t *testing.T) {
	dir := t.TempDir()
	b := openBolt(t, dir)
	for i := range uint64(20) {
		saveBolt(t, b, boltRecord(i, "alice"))
	}
	must(t, b.Close())
	editBolt(t, dir, func(tx *bolt.Tx) error {
		for i := range uint64(20) {
			id := boltRecord(i, "").ID
			bucket := []string{"sessions", "access"}[i%2]
			must(t, damageBolt(tx, bucket, id[:]))
		}
		return nil
	})
	b = openBolt(t, dir)
	for i := range uint64(20) {
		must(t, b.Delete(t.Context(), boltRecord(i, "").ID))
	}
	if _, err := b.DeleteOld(t.Context(), 1<<62); err != nil {
		t.Fatal(err)
	}
	must(t, b.Close())
	if dump := dumpBolt(t, dir); len(dump) != 1 {
		t.Errorf("left behind: %q", dump)
	}
}

// A file that may not grow any more (RLIMIT_FSIZE, or the largest file of the file
// system) is a refusal: it comes at once, is known as one, and changes nothing.
func TestBoltFileTooLarge(t *testing.T) {
	if dir := os.Getenv("SESSION2_BOLT_CHILD"); dir != "" {
		fillBolt(t, dir)
		return
	}
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such limit")
	}
	cmd := boltChild(t, t.TempDir())
	cmd.Args = append([]string{"sh", "-c", `ulimit -f 700; exec "$0" "$@"`}, cmd.Args...)
	cmd.Path, cmd.Err = exec.LookPath("sh")
	if out, err := cmd.Output(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// fillBolt saves until the file is too large.
func fillBolt(t *testing.T, dir string) {
	b := openBolt(t, dir)
	n := uint64(0)
	save := func() error {
		rec := boltRecord(n, "")
		rec.Data = make([]byte, 10_000)
		return b.Save(t.Context(), rec, 0)
	}
	var err error
	for ; err == nil && n < 1000; n++ {
		err = save()
	}
	n-- // of the one that was refused
	if !errors.Is(err, syscall.EFBIG) {
		t.Errorf("Save = %v, want EFBIG", err)
	}
	if _, err := b.Load(t.Context(), boltRecord(n, "").ID); !errors.Is(err, session2.ErrNotFound) {
		t.Errorf("Load of what was refused: %v", err)
	}
	site := newSite(t, b, session2.Config{CommitTimeout: time.Hour})
	w := site.do(&browser{}, func(s *session2.Session) { s.Set("key", make([]byte, 50_000)) })
	if w.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %d, want 503", w.StatusCode)
	}
	for i := range n { // with room again, it goes on
		must(t, b.Delete(t.Context(), boltRecord(i, "").ID))
	}
	must(t, save())
}
