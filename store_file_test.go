package session2_test

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
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

// Any damage is one ErrCorrupt that names the record, and then the ID is free.
func TestFileStoreCorrupt(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, &session2.FileOptions{NoSync: true})
	ctx := t.Context()
	rec, other := fileRecord(1, "ada"), fileRecord(2, "ada")
	mustSave(t, s, other, 0)
	name := sessionFile(dir, rec.ID)
	damages := map[string]func(){
		"empty": func() { os.Truncate(name, 0) },
		"cut":   func() { os.Truncate(name, 90) },
		"longer": func() {
			f, _ := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
			f.Write([]byte{0})
			f.Close()
		},
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
