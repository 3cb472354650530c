package gobstore_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/faultfs"
	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/gobstore"
	"github.com/session2/session2/internal/lockfile"
	"github.com/session2/session2/internal/record"
	"github.com/session2/session2/internal/testsite"
	"github.com/session2/session2/storetest"
)

var background = context.Background()

var quiet = gobstore.Options{Logger: slog.New(slog.DiscardHandler)}

func open(t testing.TB, path string) *gobstore.Store {
	t.Helper()
	s, err := gobstore.Open(fsys.OS, path, quiet)
	testsite.Must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// openOn opens a store on another file system, without a log, and with another
// limit of what may be dead in the file.
func openOn(fsy fsys.FS, path string, noSync bool, slack int64) (*gobstore.Store, error) {
	s, err := gobstore.Open(fsy, path, gobstore.Options{NoSync: noSync, Logger: quiet.Logger})
	if err == nil {
		s.SetSlack(slack)
	}
	return s, err
}

// Microseconds.
const (
	second = 1_000_000
	hour   = 3600 * second
)

func idOf(n int) (id [16]byte) {
	binary.BigEndian.PutUint64(id[8:], uint64(0xabcdef0000+n))
	return id
}

func numbered(n int, v uint64) record.Record {
	const now = 1_700_000_000_000_000
	return record.Record{ID: idOf(n), Version: v, User: fmt.Sprint("user", n%3), Created: now,
		Data: bytes.Repeat([]byte{byte(n)}, 20), Access: record.Access{Accessed: now, Expires: now + 1000*hour}}
}

func TestGobStoreConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t testing.TB, dir string) session2.Store {
		s, err := session2.OpenGobStore(filepath.Join(dir, "sessions.gob"), &session2.GobOptions{Logger: quiet.Logger})
		testsite.Must(t, err)
		t.Cleanup(func() { s.Close() })
		return s
	}, &storetest.Options{Corrupt: func(t testing.TB, dir string, id session2.ID) {
		corrupt(t, filepath.Join(dir, "sessions.gob"), id)
	}})
}

// corrupt flips the byte behind the last appearance of the ID, which is in
// the payload of the record's frame.
func corrupt(t testing.TB, path string, id [16]byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.LastIndex(b, id[:])
	if i < 0 {
		t.Fatalf("no record %x in the file", id)
	}
	b[i+len(id)] ^= 0x40
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestGobStoreCopiedInUse copies the file while others save, delete and compact,
// as a backup would: whatever was acknowledged before the copy began is in it.
func TestGobStoreCopiedInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.gob")
	store, err := openOn(fsys.OS, path, true, 1<<20)
	testsite.Must(t, err)
	defer store.Close()
	var saved [4]atomic.Uint64 // how often each writer's record was
	done := make(chan struct{})
	var wg, first sync.WaitGroup
	for w := range saved {
		first.Add(1)
		wg.Go(func() {
			rec := numbered(w+1, 0)
			rec.Data = make([]byte, 1000)
			for prev := uint64(0); ; prev = rec.Version {
				select {
				case <-done:
					return
				default:
				}
				rec.Version = prev + 1
				binary.BigEndian.PutUint64(rec.Data, rec.Version)
				if err := store.Save(t.Context(), rec, prev); err != nil {
					panic(err) // the test waits for it
				}
				saved[w].Store(rec.Version)
				if prev == 0 {
					first.Done()
				}
			}
		})
	}
	first.Wait()
	for range 30 {
		wantCopied(t, path, &saved)
	}
	close(done)
	wg.Wait()
}

func wantCopied(t *testing.T, path string, saved *[4]atomic.Uint64) {
	t.Helper()
	var least [4]uint64
	for w := range saved {
		least[w] = saved[w].Load()
	}
	b, err := os.ReadFile(path)
	testsite.Must(t, err)
	copied := filepath.Join(t.TempDir(), "copy.gob")
	testsite.Must(t, os.WriteFile(copied, b, 0o600))
	store, err := gobstore.Open(fsys.OS, copied, quiet)
	testsite.Must(t, err)
	defer store.Close()
	for w := range least {
		rec, err := store.Load(t.Context(), numbered(w+1, 0).ID)
		if err != nil || rec.Version < least[w] || binary.BigEndian.Uint64(rec.Data) != rec.Version {
			t.Errorf("writer %d: got version %d, %v, want at least %d", w, rec.Version, err, least[w])
		}
	}
}

// A refusal says that nothing was changed. An error after the append is none.
func TestGobStoreRefusesBeforeItChanges(t *testing.T) {
	for _, refusal := range []syscall.Errno{
		syscall.EACCES, syscall.EROFS, syscall.ENOSPC, syscall.EFBIG, syscall.EDQUOT,
	} {
		for n := 0; ; n++ {
			path := filepath.Join(t.TempDir(), "log")
			f := faultfs.New()
			s, err := openOn(f, path, false, 1<<20)
			testsite.Must(t, err)
			defer s.Close()
			testsite.Must(t, s.Save(background, numbered(0, 1), 0))
			f.FailAfter(n, refusal)
			err = s.Save(background, numbered(1, 1), 0)
			if n == 0 && !errors.Is(err, refusal) {
				t.Errorf("%v at once: got %v, want a refusal", refusal, err)
			}
			hit := f.Hit()
			landed, hasErr := open(t, path).Has(background, idOf(1))
			testsite.Must(t, hasErr)
			if errors.Is(err, refusal) && landed {
				t.Errorf("%v after %d operations: %v, but the record is there", refusal, n, err)
			}
			if !hit {
				break
			}
		}
	}
}

// A process that stands still with the lock holds nobody up for good: neither who opens the
// file, nor a call without a deadline.
func TestGobStoreNamesAHeldLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	s, err := gobstore.Open(fsys.OS, path, gobstore.Options{Timeout: time.Millisecond})
	testsite.Must(t, err)
	defer s.Close()
	unlock, err := lockfile.New(func() (lockfile.File, error) {
		return os.OpenFile(path+".lock", os.O_RDWR, 0)
	}).Lock(background)
	testsite.Must(t, err)
	held := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, lockfile.ErrHeld) || !strings.Contains(err.Error(), path+".lock") {
			t.Errorf("%s: got %v, want %v, with the file's name", what, err, lockfile.ErrHeld)
		}
	}
	_, err = gobstore.Open(fsys.OS, path, gobstore.Options{Timeout: time.Millisecond})
	held("Open", err)
	held("Save", s.Save(background, numbered(0, 1), 0))
	_, err = s.DeleteUser(background, "alice")
	held("DeleteUser", err)
	unlock()
	patient, err := gobstore.Open(fsys.OS, path, gobstore.Options{Timeout: time.Hour})
	testsite.Must(t, err)
	defer patient.Close()
	testsite.Must(t, patient.Save(background, numbered(0, 1), 0))
}

// A call that waits for the file past its deadline, or is called off, says which,
// and at once, also behind one that waits on.
func TestGobStoreWaitsNoLongerThanItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	s, err := gobstore.Open(fsys.OS, path, gobstore.Options{Timeout: time.Hour}) // for the patient one
	testsite.Must(t, err)
	t.Cleanup(func() { s.Close() })
	testsite.Must(t, s.Save(background, numbered(0, 1), 0))
	unlock, err := lockfile.New(func() (lockfile.File, error) {
		return os.OpenFile(path+".lock", os.O_RDWR, 0)
	}).Lock(background)
	testsite.Must(t, err)
	rec, now := numbered(0, 2), time.Now().UnixMicro()
	calls := map[string]func(ctx context.Context) error{
		"Save":   func(ctx context.Context) error { return s.Save(ctx, rec, 1) },
		"Delete": func(ctx context.Context) error { return s.Delete(ctx, rec.ID) },
		"Touch": func(ctx context.Context) error {
			return s.Touch(ctx, rec.ID, record.Access{Accessed: now, Expires: now})
		},
		"DeleteOld":  func(ctx context.Context) error { _, err := s.DeleteOld(ctx, now-hour, now); return err },
		"DeleteUser": func(ctx context.Context) error { _, err := s.DeleteUser(ctx, "alice"); return err },
	}
	late := func(name string) {
		ctx, cancel := context.WithTimeout(background, 20*time.Millisecond)
		defer cancel()
		if err := calls[name](ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s past its deadline: got %v, want %v", name, err, context.DeadlineExceeded)
		}
		ctx, cancel = context.WithCancel(background)
		time.AfterFunc(20*time.Millisecond, cancel)
		if err := calls[name](ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s called off: got %v, want %v", name, err, context.Canceled)
		}
	}
	for name := range calls {
		late(name) // it leads
	}
	patient := make(chan error)
	go func() { patient <- s.Save(background, numbered(1, 1), 0) }()
	for name := range calls {
		late(name) // it follows, or leads and hands on
	}
	unlock()
	testsite.Must(t, <-patient)
	if got, err := s.Load(background, rec.ID); err != nil || got.Version != 1 {
		t.Errorf("Load: got version %d, %v, want 1: what was given up must not happen", got.Version, err)
	}
}

// A compaction that fails once is tried again when as much again is dead, and
// then all is as before.
func TestGobStoreCompactsAfterAFailure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f := faultfs.New()
	const slack = 4096
	s, err := openOn(f, path, false, slack)
	testsite.Must(t, err)
	defer s.Close()
	size := func() int64 {
		info, err := os.Stat(path)
		testsite.Must(t, err)
		return info.Size()
	}
	versions := map[int]uint64{}
	temp := fsys.Temp(path)
	testsite.Must(t, os.Mkdir(temp, 0o700)) // no compaction gets past that
	for size() < 10*slack {
		testsite.Must(t, update(s, versions, 0))
	}
	testsite.Must(t, os.Remove(temp))
	for size() > slack {
		if testsite.Must(t, update(s, versions, 0)); size() > 100*slack {
			t.Fatal("it is not compacted any more")
		}
	}
	for range 100 {
		if testsite.Must(t, update(s, versions, 0)); size() > 3*slack {
			t.Fatalf("%d bytes after it was compacted again, want %d at most", size(), 3*slack)
		}
	}
}

// smallLog returns a log with records 0 to n-1, and its size without the last.
func smallLog(t *testing.T, n int) (log []byte, before int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	s := open(t, path)
	for i := range n {
		info, err := os.Stat(path)
		testsite.Must(t, err)
		before = int(info.Size())
		testsite.Must(t, s.Save(background, numbered(i, 7), 0))
	}
	testsite.Must(t, s.Close())
	log, err := os.ReadFile(path)
	testsite.Must(t, err)
	return log, before
}

// openBytes opens a store on these bytes and returns what it logs.
func openBytes(t *testing.T, path string, b []byte) (*gobstore.Store, *strings.Builder, error) {
	t.Helper()
	testsite.Must(t, os.WriteFile(path, b, 0o600))
	out := new(strings.Builder)
	s, err := gobstore.Open(fsys.OS, path, gobstore.Options{Logger: slog.New(slog.NewTextHandler(out, nil))})
	return s, out, err
}

func TestGobStoreCutsTornTail(t *testing.T) {
	log, before := smallLog(t, 4)
	path := filepath.Join(t.TempDir(), "log")
	for n := before; n < len(log); n++ {
		s, out, err := openBytes(t, path, log[:n])
		testsite.Must(t, err)
		for i := range 3 {
			if _, err := s.Load(background, idOf(i)); err != nil {
				t.Fatalf("cut at %d: record %d: %v", n, i, err)
			}
		}
		if _, err := s.Load(background, idOf(3)); !errors.Is(err, record.ErrNotFound) {
			t.Fatalf("cut at %d: the torn record: got %v, want ErrNotFound", n, err)
		}
		if got, want := strings.Contains(out.String(), "cut off"), n > before; got != want {
			t.Fatalf("cut at %d: reported %v, want %v: %s", n, got, want, out)
		}
		testsite.Must(t, s.Save(background, numbered(3, 7), 0))
		testsite.Must(t, s.Close())
		if got, err := os.ReadFile(path); err != nil || len(got) != len(log) {
			t.Fatalf("cut at %d: saved again, the log has %d bytes, want %d (%v)", n, len(got), len(log), err)
		}
	}
}

func TestGobStoreFlippedByte(t *testing.T) {
	const records = 4
	log, _ := smallLog(t, records)
	path := filepath.Join(t.TempDir(), "log")
	for n := range log {
		flipped := bytes.Clone(log)
		flipped[n] ^= 0x21
		testsite.Must(t, os.WriteFile(path, flipped, 0o600))
		out := new(strings.Builder)
		s, err := session2.OpenGobStore(path, &session2.GobOptions{Logger: slog.New(slog.NewTextHandler(out, nil))})
		if n < 24 {
			if got, _ := os.ReadFile(path); err == nil || !bytes.Equal(got, flipped) {
				t.Fatalf("header damaged at %d: error %v, file changed %v", n, err, !bytes.Equal(got, flipped))
			}
			continue
		}
		testsite.Must(t, err)
		checkFlipped(t, n, s, out.String(), records)
		testsite.Must(t, s.Close())
	}
}

// checkFlipped checks that at most one record is lost, and named.
func checkFlipped(t *testing.T, n int, s *session2.GobStore, out string, records int) {
	t.Helper()
	lost := 0
	for i := range records {
		id := session2.ID(idOf(i))
		rec, err := s.Load(background, id)
		switch {
		case err == nil && bytes.Equal(rec.Data, numbered(i, 7).Data):
		case errors.Is(err, record.ErrCorrupt) && strings.Contains(err.Error(), id.String()):
			lost++
			if !strings.Contains(out, id.String()) {
				t.Fatalf("flipped %d: the report does not name %v: %s", n, id, out)
			}
			if err := s.Save(background, session2.Record{ID: id, Version: 9}, 0); err == nil {
				t.Fatalf("flipped %d: a create over a corrupt record succeeded", n)
			}
		default:
			t.Fatalf("flipped %d: record %d: %+v, %v", n, i, rec, err)
		}
	}
	if lost > 1 || out == "" {
		t.Fatalf("flipped %d: %d records lost, want at most one; report %q", n, lost, out)
	}
}

// A deletion must not be undone by damage to it.
func TestGobStoreFlippedDelete(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	s := open(t, path)
	testsite.Must(t, s.Save(background, numbered(0, 7), 0))
	info, err := os.Stat(path)
	testsite.Must(t, err)
	testsite.Must(t, s.Delete(background, idOf(0)))
	testsite.Must(t, s.Close())
	log, err := os.ReadFile(path)
	testsite.Must(t, err)
	for n := int(info.Size()); n < len(log); n++ {
		flipped := bytes.Clone(log)
		flipped[n] ^= 0x80
		s, _, err := openBytes(t, path, flipped)
		testsite.Must(t, err)
		if _, err := s.Load(background, idOf(0)); !errors.Is(err, record.ErrNotFound) {
			t.Fatalf("deletion damaged at %d: Load: %v, want ErrNotFound", n, err)
		}
		testsite.Must(t, s.Close())
	}
}

// An update that was torn by a power cut, before it was acknowledged, leaves
// the acknowledged state; one that was durable does not give way to an old one.
func TestGobStoreDamagedUpdate(t *testing.T) {
	for _, acknowledged := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "log")
		s := open(t, path)
		testsite.Must(t, s.Save(background, numbered(0, 7), 0))
		testsite.Must(t, s.Save(background, numbered(0, 8), 7))
		info, err := os.Stat(path)
		testsite.Must(t, err)
		if acknowledged {
			testsite.Must(t, s.Save(background, numbered(1, 7), 0)) // says that the former is durable
		}
		testsite.Must(t, s.Close())
		log, err := os.ReadFile(path)
		testsite.Must(t, err)
		log[info.Size()-10] ^= 1
		testsite.Must(t, os.WriteFile(path, log, 0o600))
		for range 2 { // the verdict is the same the next time
			s, err := gobstore.Open(fsys.OS, path, quiet)
			testsite.Must(t, err)
			rec, err := s.Load(background, idOf(0))
			if acknowledged && !errors.Is(err, record.ErrCorrupt) {
				t.Errorf("durable update damaged: got %+v, %v, want ErrCorrupt", rec, err)
			}
			if !acknowledged && (err != nil || rec.Version != 7) {
				t.Errorf("torn update: got version %v, %v, want 7", rec.Version, err)
			}
			testsite.Must(t, s.Save(background, numbered(2, 7), 0))
			testsite.Must(t, s.Close())
		}
	}
}

// Where only logouts end the sessions and nobody sweeps, what is left of a gob
// file has a bound that does not depend on how many there were.
func TestGobStoreLogoutsLeaveLittle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	s, err := openOn(fsys.OS, path, true, 1<<20)
	testsite.Must(t, err)
	defer s.Close()
	for i := range 1000 {
		testsite.Must(t, s.Save(background, numbered(i, 1), 0))
	}
	for i := range 1000 {
		testsite.Must(t, s.Delete(background, idOf(i)))
	}
	info, err := os.Stat(path)
	testsite.Must(t, err)
	if info.Size() > 64<<10+gobstore.HeaderSize {
		t.Errorf("the file has %d bytes, want 64 KiB at most", info.Size())
	}
}

// A temporary that a killed compaction left goes when the store is opened.
func TestGobStoreRemovesStaleTemporary(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	testsite.Must(t, open(t, path).Close())
	testsite.Must(t, os.WriteFile(path+".tmp", make([]byte, 1<<20), 0o600))
	testsite.Must(t, open(t, path).Close())
	info, err := os.Stat(path)
	testsite.Must(t, err)
	files, err := os.ReadDir(filepath.Dir(path))
	testsite.Must(t, err)
	if info.Size() != gobstore.HeaderSize || len(files) != 2 {
		t.Errorf("the file has %d bytes, the directory %v, want %d, and the file and its lock",
			info.Size(), files, gobstore.HeaderSize)
	}
}
