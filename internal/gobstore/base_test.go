package gobstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/session2/session2/internal/gobstore"
	"github.com/session2/session2/internal/record"
	"github.com/session2/session2/internal/testsite"
)

// indexed opens a store that has its index in a file, however few records there are.
func indexed(t *testing.T, path string) *gobstore.Store {
	t.Helper()
	s := open(t, path)
	s.SetFew(1)
	return s
}

// copyTo copies the log and its index as they are now, as if the process had been killed.
func copyTo(t *testing.T, path string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "log")
	for _, ext := range []string{"", ".index"} {
		b, err := os.ReadFile(path + ext)
		if err == nil {
			err = os.WriteFile(to+ext, b, 0o600)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return to
}

// wantRecords checks that a store has these versions and no others.
func wantRecords(t *testing.T, when string, s *gobstore.Store, versions map[int]uint64) {
	t.Helper()
	for n := range 60 {
		rec, err := s.Load(background, idOf(n))
		if v := versions[n]; rec.Version != v || err != nil && (v != 0 || !errors.Is(err, record.ErrNotFound)) {
			t.Fatalf("%s: record %d has version %d, %v, want %d", when, n, rec.Version, err, v)
		}
	}
	all := 0
	for _, err := range s.Iter(background) {
		testsite.Must(t, err)
		all++
	}
	if all != len(versions) {
		t.Fatalf("%s: %d records are listed, want %d", when, all, len(versions))
	}
}

// A store that is opened by its index has all that was acknowledged, and nothing that was
// deleted, whatever was done since the index was written, and whoever closed or killed it.
func TestGobStoreOpensByIndex(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	path := filepath.Join(t.TempDir(), "log")
	s, versions, byIndex := indexed(t, path), make(map[int]uint64), 0
	for round := range 60 {
		for range rnd.IntN(40) {
			switch n := rnd.IntN(60); rnd.IntN(6) {
			case 0:
				testsite.Must(t, s.Delete(background, idOf(n)))
				delete(versions, n)
			case 1:
				at := numbered(n, 0).Accessed + int64(round)
				testsite.Must(t, s.Touch(background, idOf(n), record.Access{Accessed: at, Expires: at}))
			default:
				testsite.Must(t, update(s, versions, n))
			}
		}
		if rnd.IntN(20) == 0 {
			_, err := s.DeleteUser(background, "user1")
			testsite.Must(t, err)
			for n := 1; n < 60; n += 3 {
				delete(versions, n)
			}
		}
		switch rnd.IntN(3) {
		case 0:
			path = copyTo(t, path)
			s.Close()
			s = indexed(t, path)
		case 1:
			testsite.Must(t, s.Close())
			s = indexed(t, path)
			if len(versions) > 0 && !s.Whole() {
				byIndex++
			}
		}
		if rnd.IntN(2) == 0 {
			s.AwaitCopy()
			wantRecords(t, fmt.Sprint("round ", round), s, versions)
		}
	}
	if byIndex == 0 {
		t.Error("no store was opened by its index")
	}
}

// indexedLog returns a log with its index, and the versions that it holds.
func indexedLog(t *testing.T, n int) (path string, versions map[int]uint64) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "log")
	s := indexed(t, path)
	versions = make(map[int]uint64)
	for i := range 3 * n {
		testsite.Must(t, update(s, versions, i%n))
	}
	testsite.Must(t, s.Close())
	return path, versions
}

// A damaged index is none.
func TestGobStoreDamagedIndex(t *testing.T) {
	path, versions := indexedLog(t, 7)
	good, err := os.ReadFile(path + ".index")
	testsite.Must(t, err)
	if s := open(t, path); s.Whole() {
		t.Fatal("a good index is not used")
	}
	for n := range good {
		bad := bytes.Clone(good)
		bad[n] ^= 0x21
		for _, bad := range [][]byte{bad, good[:n]} {
			testsite.Must(t, os.WriteFile(path+".index", bad, 0o600))
			s := open(t, path)
			if !s.Whole() {
				t.Fatalf("an index that is damaged at %d of %d is used", n, len(good))
			}
			s.Close()
		}
	}
	wantRecords(t, "without an index", open(t, path), versions)
}

// Nor is one of another log, be it an earlier copy of the same that has grown since.
func TestGobStoreIndexOfAnotherLog(t *testing.T) {
	path, versions := indexedLog(t, 7)
	s := open(t, path)
	earlier, err := os.ReadFile(path)
	testsite.Must(t, err)
	s.SetFew(1)
	for range 3 {
		testsite.Must(t, update(s, versions, 1))
	}
	testsite.Must(t, s.Close())
	index, err := os.ReadFile(path + ".index")
	testsite.Must(t, err)

	versions[1] -= 3
	testsite.Must(t, os.WriteFile(path, earlier, 0o600))
	s = open(t, path)
	for range 5 {
		testsite.Must(t, update(s, versions, 2))
	}
	testsite.Must(t, s.Close())
	testsite.Must(t, os.WriteFile(path+".index", index, 0o600))
	wantRecords(t, "an earlier copy that has grown", open(t, path), versions)

	other, versions := indexedLog(t, 5)
	testsite.Must(t, os.WriteFile(other+".index", index, 0o600))
	wantRecords(t, "the index of another log", open(t, other), versions)
}

// A record that is damaged is known to be there, and named, also where the index spares
// the reading of it; the others are as they were.
func TestGobStoreDamageBehindIndex(t *testing.T) {
	path, versions := indexedLog(t, 60) // so many that the mark is behind it
	corrupt(t, path, idOf(3))
	s := open(t, path)
	if s.Whole() {
		t.Fatal("the index is not used")
	}
	for n := range versions {
		if _, err := s.Load(background, idOf(n)); (n == 3) != errors.Is(err, record.ErrCorrupt) || n != 3 && err != nil {
			t.Errorf("record %d: %v", n, err)
		}
	}
	if err := s.Save(background, numbered(3, 9), 0); !errors.Is(err, record.ErrConflict) {
		t.Errorf("a create over a corrupt record: got %v, want a conflict", err)
	}
}

// A compaction writes the index as well, by which other processes go on to the new file.
func TestGobStoreCompactionWritesIndex(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	s, h, versions := openHalting(t, path)
	s.SetFew(1)
	other := open(t, path)
	testsite.Must(t, update(s, versions, 2))
	close(h.goOn)
	s.AwaitCopy()
	if _, err := other.Has(background, idOf(1)); err != nil {
		t.Error(err)
	}
	opened := open(t, path)
	if opened.Whole() {
		t.Error("the new file has no index")
	}
	wantRecords(t, "another", other, versions)
	wantRecords(t, "opened again", opened, versions)
}
