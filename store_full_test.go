package session2_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/fsys"
)

// fullFS is a file system that has no room left for as long as full says so:
// the first half of each write fits.
type fullFS struct {
	fsys.FS
	full *atomic.Bool
}

var errFull = errors.New("no space left")

func (f fullFS) OpenFile(name string, flag int, perm fs.FileMode) (fsys.File, error) {
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return fullFile{file, f.full}, nil
}

type fullFile struct {
	fsys.File
	full *atomic.Bool
}

func (f fullFile) Write(b []byte) (int, error) {
	return f.half(b, f.File.Write)
}

func (f fullFile) WriteAt(b []byte, off int64) (int, error) {
	return f.half(b, func(b []byte) (int, error) { return f.File.WriteAt(b, off) })
}

func (f fullFile) half(b []byte, write func([]byte) (int, error)) (int, error) {
	if !f.full.Load() {
		return write(b)
	}
	n, err := write(b[:len(b)/2])
	if err == nil {
		err = errFull
	}
	return n, err
}

// A full disk costs the Saves that come meanwhile, each of which is told, and
// nothing that was acknowledged; and it is no damage, of which the log tells.
func TestStoresOutliveAFullDisk(t *testing.T) {
	full := new(atomic.Bool)
	log := new(strings.Builder)
	logger := slog.New(slog.NewTextHandler(log, nil))
	disk := fullFS{fsys.OS, full}
	stores := map[string]func(path string) (houseStore, error){
		"file": func(path string) (houseStore, error) { return session2.OpenFileStoreFS(disk, path, nil) },
		"gob": func(path string) (houseStore, error) {
			return session2.OpenGobStoreOn(disk, path, &session2.GobOptions{Logger: logger}, 1<<20)
		},
	}
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			full.Store(false)
			log.Reset()
			path := filepath.Join(t.TempDir(), "s")
			s, err := open(path)
			if err != nil {
				t.Fatal(err)
			}
			ctx := t.Context()
			for i := range byte(10) {
				if err := s.Save(ctx, houseRecord(i, "alice"), 0); err != nil {
					t.Fatal(err)
				}
			}
			full.Store(true)
			for i := range byte(20) {
				rec := houseRecord(i, "bob")
				prev := rec.Version
				if rec.Version += 100; i >= 10 {
					prev = 0
				}
				if err := s.Save(ctx, rec, prev); !errors.Is(err, errFull) {
					t.Fatalf("Save on a full disk: got %v, want %v", err, errFull)
				}
			}
			full.Store(false)
			check := func(when string) {
				for i := range byte(10) {
					want := houseRecord(i, "alice")
					if got, err := s.Load(ctx, want.ID); err != nil || got.Version != want.Version {
						t.Errorf("%s: Load: got version %d, %v, want %d", when, got.Version, err, want.Version)
					}
				}
				if ok, err := s.Has(ctx, houseRecord(10, "").ID); ok || err != nil {
					t.Errorf("%s: Has of what did not fit: got %v, %v, want false", when, ok, err)
				}
			}
			check("with room again")
			if err := s.Save(ctx, houseRecord(50, "bob"), 0); err != nil {
				t.Errorf("Save with room again: %v", err)
			}
			if n, err := s.DeleteUser(ctx, "bob"); n != 1 || err != nil {
				t.Errorf("DeleteUser: got %d, %v, want 1", n, err)
			}
			s.Close()
			if s, err = open(path); err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			check("opened again")
			if log.Len() > 0 {
				t.Errorf("the log says %s", log)
			}
		})
	}
}
