package session2_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/lockfile"
	"github.com/session2/session2/internal/testsite"
	"github.com/session2/session2/storetest"
)

var ctxGob = context.Background()

func openGob(t testing.TB, path string) *session2.GobStore {
	t.Helper()
	s, err := session2.OpenGobStore(path, &session2.GobOptions{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestGobStoreConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t testing.TB, dir string) session2.Store {
		return openGob(t, filepath.Join(dir, "sessions.gob"))
	}, &storetest.Options{Corrupt: func(t testing.TB, dir string, id session2.ID) {
		corruptGob(t, filepath.Join(dir, "sessions.gob"), id)
	}})
}

// corruptGob flips the byte behind the last appearance of the ID, which is in
// the payload of the record's frame.
func corruptGob(t testing.TB, path string, id session2.ID) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := hex.DecodeString(id.String())
	i := bytes.LastIndex(b, raw)
	if i < 0 {
		t.Fatalf("no record %v in the file", id)
	}
	b[i+len(raw)] ^= 0x40
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestGobStoreCopiedInUse copies the file while others save, delete and compact,
// as a backup would: whatever was acknowledged before the copy began is in it.
func TestGobStoreCopiedInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.gob")
	store, err := session2.OpenGobStore(path, &session2.GobOptions{NoSync: true})
	testsite.Must(t, err)
	defer store.Close()
	var saved [4]atomic.Uint64 // how often each writer's record was
	done := make(chan struct{})
	var wg, first sync.WaitGroup
	for w := range saved {
		first.Add(1)
		wg.Go(func() {
			rec := houseRecord(byte(w+1), "alice")
			rec.Data = make([]byte, 1000)
			for prev := session2.Version(0); ; prev = rec.Version {
				select {
				case <-done:
					return
				default:
				}
				rec.Version = prev + 1
				binary.BigEndian.PutUint64(rec.Data, uint64(rec.Version))
				if err := store.Save(t.Context(), rec, prev); err != nil {
					panic(err) // the test waits for it
				}
				saved[w].Store(uint64(rec.Version))
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
	store, err := session2.OpenGobStore(copied, &session2.GobOptions{Logger: slog.New(slog.DiscardHandler)})
	testsite.Must(t, err)
	defer store.Close()
	for w := range least {
		rec, err := store.Load(t.Context(), houseRecord(byte(w+1), "alice").ID)
		if err != nil || uint64(rec.Version) < least[w] || binary.BigEndian.Uint64(rec.Data) != uint64(rec.Version) {
			t.Errorf("writer %d: got version %d, %v, want at least %d", w, rec.Version, err, least[w])
		}
	}
}

var quietGob = &session2.GobOptions{Logger: slog.New(slog.DiscardHandler)}

// A refusal says that nothing was changed. An error after the append is none.
func TestGobStoreRefusesBeforeItChanges(t *testing.T) {
	for _, refusal := range []syscall.Errno{
		syscall.EACCES, syscall.EROFS, syscall.ENOSPC, syscall.EFBIG, syscall.EDQUOT,
	} {
		for n := 0; ; n++ {
			path := filepath.Join(t.TempDir(), "log")
			f := &faultFS{FS: fsys.OS, n: math.MaxInt}
			s, err := session2.OpenGobStoreOn(f, path, quietGob, 1<<20)
			mustGob(t, err)
			defer s.Close()
			mustGob(t, s.Save(ctxGob, gobRecord(0, 1), 0))
			f.failAfter(n, refusal)
			err = s.Save(ctxGob, gobRecord(1, 1), 0)
			if n == 0 && !errors.Is(err, refusal) {
				t.Errorf("%v at once: got %v, want a refusal", refusal, err)
			}
			hit := f.hit()
			landed, hasErr := openGob(t, path).Has(ctxGob, gobID(1))
			mustGob(t, hasErr)
			if errors.Is(err, refusal) && landed {
				t.Errorf("%v after %d operations: %v, but the record is there", refusal, n, err)
			}
			if !hit {
				break
			}
		}
	}
}

// A call that waits for the file past its deadline, or is called off, says which,
// and at once, also behind one that waits on.
func TestGobStoreWaitsNoLongerThanItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	s := openGob(t, path)
	mustGob(t, s.Save(ctxGob, gobRecord(0, 1), 0))
	unlock, err := lockfile.New(func() (lockfile.File, error) {
		return os.OpenFile(path+".lock", os.O_RDWR, 0)
	}).Lock(ctxGob)
	mustGob(t, err)
	rec := gobRecord(0, 2)
	calls := map[string]func(ctx context.Context) error{
		"Save":       func(ctx context.Context) error { return s.Save(ctx, rec, 1) },
		"Delete":     func(ctx context.Context) error { return s.Delete(ctx, rec.ID) },
		"Touch":      func(ctx context.Context) error { return s.Touch(ctx, rec.ID, time.Now(), time.Now()) },
		"DeleteOld":  func(ctx context.Context) error { _, err := s.DeleteOld(ctx, time.Hour); return err },
		"DeleteUser": func(ctx context.Context) error { _, err := s.DeleteUser(ctx, "alice"); return err },
	}
	late := func(name string) {
		ctx, cancel := context.WithTimeout(ctxGob, 20*time.Millisecond)
		defer cancel()
		if err := calls[name](ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s past its deadline: got %v, want %v", name, err, context.DeadlineExceeded)
		}
		ctx, cancel = context.WithCancel(ctxGob)
		time.AfterFunc(20*time.Millisecond, cancel)
		if err := calls[name](ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s called off: got %v, want %v", name, err, context.Canceled)
		}
	}
	for name := range calls {
		late(name) // it leads
	}
	patient := make(chan error)
	go func() { patient <- s.Save(ctxGob, gobRecord(1, 1), 0) }()
	for name := range calls {
		late(name) // it follows, or leads and hands on
	}
	unlock()
	mustGob(t, <-patient)
	if got, err := s.Load(ctxGob, rec.ID); err != nil || got.Version != 1 {
		t.Errorf("Load: got version %d, %v, want 1: what was given up must not happen", got.Version, err)
	}
}

// A compaction that fails once is tried again when as much again is dead, and
// then all is as before.
func TestGobStoreCompactsAfterAFailure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f := &faultFS{FS: fsys.OS, n: math.MaxInt}
	const slack = 4096
	s, err := session2.OpenGobStoreOn(f, path, quietGob, slack)
	mustGob(t, err)
	defer s.Close()
	size := func() int64 {
		info, err := os.Stat(path)
		mustGob(t, err)
		return info.Size()
	}
	versions := map[int]session2.Version{}
	temp := fsys.Temp(path)
	mustGob(t, os.Mkdir(temp, 0o700)) // no compaction gets past that
	for size() < 10*slack {
		mustGob(t, update(s, versions, 0))
	}
	mustGob(t, os.Remove(temp))
	for size() > slack {
		if mustGob(t, update(s, versions, 0)); size() > 100*slack {
			t.Fatal("it is not compacted any more")
		}
	}
	for range 100 {
		if mustGob(t, update(s, versions, 0)); size() > 3*slack {
			t.Fatalf("%d bytes after it was compacted again, want %d at most", size(), 3*slack)
		}
	}
}

func gobID(n int) session2.ID {
	id, err := session2.ParseID(fmt.Sprintf("%032x", 0xabcdef0000+n))
	if err != nil {
		panic(err)
	}
	return id
}

func gobRecord(n int, v session2.Version) session2.Record {
	now := time.UnixMicro(1_700_000_000_000_000).UTC()
	return session2.Record{ID: gobID(n), Version: v, User: fmt.Sprint("user", n%3), Created: now, Accessed: now,
		Expires: now.Add(1000 * time.Hour), Data: bytes.Repeat([]byte{byte(n)}, 20)}
}

func mustGob(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// smallGob returns a log with records 0 to n-1, and its size without the last.
func smallGob(t *testing.T, n int) (log []byte, before int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	s := openGob(t, path)
	for i := range n {
		info, err := os.Stat(path)
		mustGob(t, err)
		before = int(info.Size())
		mustGob(t, s.Save(ctxGob, gobRecord(i, 7), 0))
	}
	mustGob(t, s.Close())
	log, err := os.ReadFile(path)
	mustGob(t, err)
	return log, before
}

// openGobBytes opens a store on these bytes and returns what it logs.
func openGobBytes(t *testing.T, path string, b []byte) (*session2.GobStore, *strings.Builder, error) {
	t.Helper()
	mustGob(t, os.WriteFile(path, b, 0o600))
	out := new(strings.Builder)
	s, err := session2.OpenGobStore(path, &session2.GobOptions{Logger: slog.New(slog.NewTextHandler(out, nil))})
	return s, out, err
}

func TestGobStoreCutsTornTail(t *testing.T) {
	log, before := smallGob(t, 4)
	path := filepath.Join(t.TempDir(), "log")
	for n := before; n < len(log); n++ {
		s, out, err := openGobBytes(t, path, log[:n])
		mustGob(t, err)
		for i := range 3 {
			if _, err := s.Load(ctxGob, gobID(i)); err != nil {
				t.Fatalf("cut at %d: record %d: %v", n, i, err)
			}
		}
		if _, err := s.Load(ctxGob, gobID(3)); !errors.Is(err, session2.ErrNotFound) {
			t.Fatalf("cut at %d: the torn record: got %v, want ErrNotFound", n, err)
		}
		if got, want := strings.Contains(out.String(), "cut off"), n > before; got != want {
			t.Fatalf("cut at %d: reported %v, want %v: %s", n, got, want, out)
		}
		mustGob(t, s.Save(ctxGob, gobRecord(3, 7), 0))
		mustGob(t, s.Close())
		if got, err := os.ReadFile(path); err != nil || len(got) != len(log) {
			t.Fatalf("cut at %d: saved again, the log has %d bytes, want %d (%v)", n, len(got), len(log), err)
		}
	}
}

func TestGobStoreFlippedByte(t *testing.T) {
	const records = 4
	log, _ := smallGob(t, records)
	path := filepath.Join(t.TempDir(), "log")
	for n := range log {
		flipped := bytes.Clone(log)
		flipped[n] ^= 0x21
		s, out, err := openGobBytes(t, path, flipped)
		if n < 24 {
			if got, _ := os.ReadFile(path); err == nil || !bytes.Equal(got, flipped) {
				t.Fatalf("header damaged at %d: error %v, file changed %v", n, err, !bytes.Equal(got, flipped))
			}
			continue
		}
		mustGob(t, err)
		checkFlipped(t, n, s, out.String(), records)
		mustGob(t, s.Close())
	}
}

// checkFlipped checks that at most one record is lost, and named.
func checkFlipped(t *testing.T, n int, s *session2.GobStore, out string, records int) {
	t.Helper()
	lost := 0
	for i := range records {
		rec, err := s.Load(ctxGob, gobID(i))
		switch {
		case err == nil && bytes.Equal(rec.Data, gobRecord(i, 7).Data):
		case errors.Is(err, session2.ErrCorrupt) && strings.Contains(err.Error(), gobID(i).String()):
			lost++
			if !strings.Contains(out, gobID(i).String()) {
				t.Fatalf("flipped %d: the report does not name %v: %s", n, gobID(i), out)
			}
			if err := s.Save(ctxGob, gobRecord(i, 9), 0); err == nil {
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
	s := openGob(t, path)
	mustGob(t, s.Save(ctxGob, gobRecord(0, 7), 0))
	info, err := os.Stat(path)
	mustGob(t, err)
	mustGob(t, s.Delete(ctxGob, gobID(0)))
	mustGob(t, s.Close())
	log, err := os.ReadFile(path)
	mustGob(t, err)
	for n := int(info.Size()); n < len(log); n++ {
		flipped := bytes.Clone(log)
		flipped[n] ^= 0x80
		s, _, err := openGobBytes(t, path, flipped)
		mustGob(t, err)
		if _, err := s.Load(ctxGob, gobID(0)); !errors.Is(err, session2.ErrNotFound) {
			t.Fatalf("deletion damaged at %d: Load: %v, want ErrNotFound", n, err)
		}
		mustGob(t, s.Close())
	}
}

// An update that was torn by a power cut, before it was acknowledged, leaves
// the acknowledged state; one that was durable does not give way to an old one.
func TestGobStoreDamagedUpdate(t *testing.T) {
	for _, acknowledged := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "log")
		s := openGob(t, path)
		mustGob(t, s.Save(ctxGob, gobRecord(0, 7), 0))
		mustGob(t, s.Save(ctxGob, gobRecord(0, 8), 7))
		info, err := os.Stat(path)
		mustGob(t, err)
		if acknowledged {
			mustGob(t, s.Save(ctxGob, gobRecord(1, 7), 0)) // says that the former is durable
		}
		mustGob(t, s.Close())
		log, err := os.ReadFile(path)
		mustGob(t, err)
		log[info.Size()-10] ^= 1
		mustGob(t, os.WriteFile(path, log, 0o600))
		for range 2 { // the verdict is the same the next time
			s, err := session2.OpenGobStore(path, &session2.GobOptions{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
			mustGob(t, err)
			rec, err := s.Load(ctxGob, gobID(0))
			if acknowledged && !errors.Is(err, session2.ErrCorrupt) {
				t.Errorf("durable update damaged: got %+v, %v, want ErrCorrupt", rec, err)
			}
			if !acknowledged && (err != nil || rec.Version != 7) {
				t.Errorf("torn update: got version %v, %v, want 7", rec.Version, err)
			}
			mustGob(t, s.Save(ctxGob, gobRecord(2, 7), 0))
			mustGob(t, s.Close())
		}
	}
}
