package session2_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/goblog"
	progress "github.com/session2/session2/internal/tally"
	"github.com/session2/session2/internal/testsite"
)

// A mix is a random life of some stores over the same data.
type mix struct {
	rnd    *rand.Rand
	stores []houseStore
	now    time.Time
}

func (m *mix) store() houseStore { return m.stores[m.rnd.IntN(len(m.stores))] }

func (m *mix) record() session2.Record {
	n := m.rnd.IntN(1000)
	rec := session2.Record{
		ID: session2.ID{byte(n), byte(n >> 8), 15: byte(n)}, Version: session2.Version(1 + m.rnd.Uint64N(math.MaxUint64)),
		Created: m.now.Add(-24 * time.Hour), Data: make([]byte, m.rnd.IntN(1000)),
		Accessed: m.now.Add(-time.Duration(m.rnd.IntN(7200)) * time.Second),
		Expires:  m.now.Add(time.Duration(m.rnd.IntN(7200)-600) * time.Second),
	}
	if user := m.rnd.IntN(50); user > 0 {
		rec.User = fmt.Sprint("user", user)
	}
	return rec
}

// age returns one that a sweep goes by: an hour or so, or none at all, as for
// Manager.Cleanup.
func (m *mix) age() time.Duration {
	if m.rnd.IntN(2) == 0 {
		return math.MaxInt64
	}
	return time.Hour + time.Duration(m.rnd.IntN(3600))*time.Second
}

func (m *mix) step(t *testing.T) {
	t.Helper()
	s, rec := m.store(), m.record()
	var err error
	switch m.rnd.IntN(40) {
	case 0:
		_, err = s.DeleteOld(t.Context(), m.age())
	case 1, 2:
		_, err = s.DeleteUser(t.Context(), rec.User)
	case 3, 4, 5, 6, 7, 8:
		err = s.Delete(t.Context(), rec.ID)
	case 9, 10, 11, 12, 13, 14, 15:
		err = s.Touch(t.Context(), rec.ID, rec.Accessed, rec.Expires)
	default:
		old, loadErr := s.Load(t.Context(), rec.ID)
		if loadErr != nil && !errors.Is(loadErr, session2.ErrNotFound) {
			t.Fatal(loadErr)
		}
		err = s.Save(t.Context(), rec, old.Version)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// end ends all sessions, each in some way, and sweeps as Manager.Cleanup does.
func (m *mix) end(t *testing.T) {
	t.Helper()
	for rec, err := range m.store().Iter(t.Context()) {
		testsite.Must(t, err)
		s := m.store()
		switch m.rnd.IntN(3) {
		case 0:
			testsite.Must(t, s.Delete(t.Context(), rec.ID))
		case 1:
			_, err = s.DeleteUser(t.Context(), rec.User) // not nobody's
			testsite.Must(t, err)
			fallthrough
		default:
			prev := rec.Version
			rec.Version, rec.Expires = prev+1|1, m.now
			if err := s.Save(t.Context(), rec, prev); !errors.Is(err, session2.ErrNotFound) {
				testsite.Must(t, err)
			}
		}
	}
	_, err := m.store().DeleteOld(t.Context(), math.MaxInt64)
	testsite.Must(t, err)
	for rec, err := range m.store().Iter(t.Context()) {
		t.Fatalf("a session is left: %v, %v", rec.ID, err)
	}
}

// openUnsynced opens a store that does not wait for the disk.
func openUnsynced(kind, path string) (houseStore, error) {
	switch kind {
	case "file":
		return session2.OpenFileStore(path, &session2.FileOptions{NoSync: true})
	case "bolt":
		return session2.OpenBoltStore(path, &session2.BoltOptions{NoSync: true})
	case "gob":
		return session2.OpenGobStore(path, &session2.GobOptions{NoSync: true, Logger: slog.New(slog.DiscardHandler)})
	}
	return session2.NewMemoryStore(), nil
}

// When all sessions are gone, whatever ended them, what is left of a store is what
// it was in the beginning. A bolt file does not shrink, but nothing is in it, and
// its pages are free.
func TestStoresAreAsEmptyAsNew(t *testing.T) {
	t.Parallel()
	for kind, check := range map[string]func(t *testing.T, path string){
		"memory": func(*testing.T, string) {}, // see the tests of the index
		"bolt":   wantEmptyBolt,
		"gob":    wantEmptyGob,
	} {
		t.Run(kind, func(t *testing.T) {
			m := mix{rnd: testsite.Seeded(t), now: time.Now()}
			path := filepath.Join(t.TempDir(), "sessions")
			for range map[bool]int{true: 2, false: 1}[kind == "gob"] { // two share the file
				s, err := openUnsynced(kind, path)
				testsite.Must(t, err)
				defer s.Close()
				m.stores = append(m.stores, s)
			}
			for range 3 {
				for range 2000 {
					m.step(t)
				}
				m.end(t)
			}
			check(t, path)
		})
	}
}

func wantEmptyGob(t *testing.T, path string) {
	info, err := os.Stat(path)
	testsite.Must(t, err)
	if info.Size() != goblog.HeaderSize {
		t.Errorf("the file has %d bytes, want its header's %d", info.Size(), goblog.HeaderSize)
	}
	files, err := os.ReadDir(filepath.Dir(path))
	testsite.Must(t, err)
	if len(files) != 2 {
		t.Errorf("the directory holds %v, want the file and its lock", files)
	}
}

// wantEmptyBolt looks at a copy, as the store is open still.
func wantEmptyBolt(t *testing.T, path string) {
	data, err := os.ReadFile(path)
	testsite.Must(t, err)
	testsite.Must(t, os.WriteFile(path+".copy", data, 0o600))
	db, err := bolt.Open(path+".copy", 0o600, nil)
	testsite.Must(t, err)
	defer db.Close()
	testsite.Must(t, db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			stats, want := b.Stats(), 0
			if string(name) == "meta" {
				want = 1
			}
			if pages := stats.BranchPageN + stats.LeafPageN; stats.KeyN != want || pages > 1 {
				t.Errorf("bucket %s: %d entries on %d pages, want %d on one at most", name, stats.KeyN, pages, want)
			}
			return nil
		})
	}))
}

// Where only logouts end the sessions and nobody sweeps, what is left of a gob
// file has a bound that does not depend on how many there were.
func TestGobStoreLogoutsLeaveLittle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	s, err := session2.OpenGobStore(path, &session2.GobOptions{NoSync: true})
	mustGob(t, err)
	defer s.Close()
	for i := range 1000 {
		mustGob(t, s.Save(ctxGob, gobRecord(i, 1), 0))
	}
	for i := range 1000 {
		mustGob(t, s.Delete(ctxGob, gobID(i)))
	}
	info, err := os.Stat(path)
	mustGob(t, err)
	if info.Size() > 64<<10+goblog.HeaderSize {
		t.Errorf("the file has %d bytes, want 64 KiB at most", info.Size())
	}
}

// A temporary that a killed compaction left goes when the store is opened.
func TestGobStoreRemovesStaleTemporary(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	mustGob(t, openGob(t, path).Close())
	mustGob(t, os.WriteFile(path+".tmp", make([]byte, 1<<20), 0o600))
	mustGob(t, openGob(t, path).Close())
	wantEmptyGob(t, path)
}

// A deletion of many that is called off in its midst says so, and how many it has
// deleted, exactly.
func TestDeletionsCalledOffCountExactly(t *testing.T) {
	for _, kind := range []string{"memory", "file", "bolt", "gob"} {
		t.Run(kind, func(t *testing.T) {
			s, err := openUnsynced(kind, filepath.Join(t.TempDir(), "sessions"))
			testsite.Must(t, err)
			defer s.Close()
			callOff(t, s, "DeleteUser", func(ctx context.Context) (int, error) { return s.DeleteUser(ctx, "alice") })
			callOff(t, s, "DeleteOld", func(ctx context.Context) (int, error) { return s.DeleteOld(ctx, math.MaxInt64) })
		})
	}
}

// callOff lets call delete more than a store does at once, and ends its context
// when it has deleted some.
func callOff(t *testing.T, s houseStore, name string, call func(ctx context.Context) (int, error)) {
	const all = 600
	for i := range all {
		rec := houseRecord(byte(i), "alice")
		rec.ID[1], rec.Expires = byte(i>>8), time.Now()
		testsite.Must(t, s.Save(t.Context(), rec, 0))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n, err := call(progress.With(ctx, func(int) { cancel() }))
	left := 0
	for _, err := range s.Iter(t.Context()) {
		testsite.Must(t, err)
		left++
	}
	if !errors.Is(err, context.Canceled) || n == 0 || n != all-left {
		t.Errorf("%s of %d: got %d, %v, with %d left; want their exact number and %v", name, all, n, err, left, context.Canceled)
	}
	_, err = s.DeleteUser(t.Context(), "alice")
	testsite.Must(t, err)
}
