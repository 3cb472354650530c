package session2_test

import (
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

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
