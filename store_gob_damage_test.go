package session2_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
)

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
