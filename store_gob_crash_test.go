package session2_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/fsys"
)

var errDead = errors.New("the process is dead")

// dyingFS does its first operations that change something and none after them,
// as if the process had been killed; the last one is done by half.
type dyingFS struct {
	fsys.FS
	left  atomic.Int64
	syncs atomic.Int64
}

func (d *dyingFS) step() error {
	if d.left.Add(-1) < 0 {
		return errDead
	}
	return nil
}

func (d *dyingFS) OpenFile(name string, flag int, perm fs.FileMode) (fsys.File, error) {
	if err := d.step(); err != nil {
		return nil, err
	}
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return dyingFile{f, d}, nil
}

func (d *dyingFS) Rename(oldName, newName string) error {
	if err := d.step(); err != nil {
		return err
	}
	return d.FS.Rename(oldName, newName)
}

func (d *dyingFS) Remove(name string) error {
	if err := d.step(); err != nil {
		return err
	}
	return d.FS.Remove(name)
}

func (d *dyingFS) SyncDir(name string) error {
	if err := d.step(); err != nil {
		return err
	}
	return d.FS.SyncDir(name)
}

type dyingFile struct {
	fsys.File
	d *dyingFS
}

func (f dyingFile) Write(b []byte) (int, error) {
	if f.d.step() != nil {
		n, _ := f.File.Write(b[:len(b)/2])
		return n, errDead
	}
	return f.File.Write(b)
}

func (f dyingFile) WriteAt(b []byte, off int64) (int, error) {
	if f.d.step() != nil {
		n, _ := f.File.WriteAt(b[:len(b)/2], off)
		return n, errDead
	}
	return f.File.WriteAt(b, off)
}

func (f dyingFile) Truncate(n int64) error {
	if err := f.d.step(); err != nil {
		return err
	}
	return f.File.Truncate(n)
}

func (f dyingFile) Sync() error {
	if err := f.d.step(); err != nil {
		return err
	}
	f.d.syncs.Add(1)
	return f.File.Sync()
}

// update saves the next version of record n over the one in versions.
func update(s *session2.GobStore, versions map[int]session2.Version, n int) error {
	prev := versions[n]
	err := s.Save(ctxGob, gobRecord(n, prev+1), prev)
	if err == nil {
		versions[n] = prev + 1
	}
	return err
}

// Whatever operation is the last, what was acknowledged is there afterwards.
// With no slack, most updates compact the file.
func TestGobStoreKilledAtEveryOperation(t *testing.T) {
	for left := int64(0); ; left++ {
		path := filepath.Join(t.TempDir(), "log")
		d := &dyingFS{FS: fsys.OS}
		d.left.Store(left)
		versions := make(map[int]session2.Version)
		s, err := session2.OpenGobStoreOn(d, path, &session2.GobOptions{Logger: slog.New(slog.DiscardHandler)}, 0)
		for i := 0; err == nil && i < 14; i++ {
			err = update(s, versions, i%3)
		}
		if s != nil {
			s.Close()
		}
		checkVersions(t, fmt.Sprintf("killed after %d operations", left), path, versions)
		if err == nil {
			t.Logf("%d operations", left)
			return
		}
		if !errors.Is(err, errDead) {
			t.Fatalf("after %d operations: %v, want %v", left, err, errDead)
		}
	}
}

// checkVersions checks that the store holds the versions, or the next ones,
// which were not acknowledged.
func checkVersions(t *testing.T, when, path string, versions map[int]session2.Version) {
	t.Helper()
	s := openGob(t, path)
	defer s.Close()
	for n, v := range versions {
		rec, err := s.Load(ctxGob, gobID(n))
		if err != nil || rec.Version != v && rec.Version != v+1 {
			t.Fatalf("%s: record %d has version %v, %v; %v was acknowledged", when, n, rec.Version, err, v)
		}
	}
	mustGob(t, s.Save(ctxGob, gobRecord(99, 1), 0))
}

func TestGobStoreGroupCommit(t *testing.T) {
	d := &dyingFS{FS: fsys.OS}
	d.left.Store(1 << 40)
	s, err := session2.OpenGobStoreOn(d, filepath.Join(t.TempDir(), "log"), nil, 1<<20)
	mustGob(t, err)
	defer s.Close()
	const savers, each = 64, 20
	before := d.syncs.Load()
	var wg sync.WaitGroup
	for w := range savers {
		wg.Go(func() {
			for i := range each {
				if err := s.Save(ctxGob, gobRecord(w*each+i, 7), 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	syncs := d.syncs.Load() - before
	t.Logf("%d commits, %d syncs: %.1f commits a sync", savers*each, syncs, float64(savers*each)/float64(syncs))
	if syncs == 0 || syncs > savers*each/4 {
		t.Errorf("%d syncs for %d commits of %d savers, want some and at most a quarter", syncs, savers*each, savers)
	}
}

// failSync fails one sync and goes on: the system has then forgotten the pages.
type failSync struct {
	fsys.FS
	fail atomic.Bool
	done atomic.Int64
}

func (f *failSync) OpenFile(name string, flag int, perm fs.FileMode) (fsys.File, error) {
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return failSyncFile{file, f}, nil
}

type failSyncFile struct {
	fsys.File
	f *failSync
}

func (f failSyncFile) Sync() error {
	if f.f.fail.CompareAndSwap(true, false) {
		return errDead
	}
	f.f.done.Add(1)
	return f.File.Sync()
}

func TestGobStoreFailedSync(t *testing.T) {
	f := &failSync{FS: fsys.OS}
	path := filepath.Join(t.TempDir(), "log")
	s, err := session2.OpenGobStoreOn(f, path, nil, 1<<20)
	mustGob(t, err)
	defer s.Close()
	mustGob(t, s.Save(ctxGob, gobRecord(0, 7), 0))
	f.fail.Store(true)
	if err := s.Save(ctxGob, gobRecord(0, 8), 7); !errors.Is(err, errDead) {
		t.Fatalf("Save with a failing sync: %v, want its error", err)
	}
	before := f.done.Load()
	mustGob(t, s.Save(ctxGob, gobRecord(0, 8), 7)) // the same again: landed, and made durable
	if f.done.Load() == before {
		t.Error("a repeated Save was acknowledged without a sync")
	}
	checkVersions(t, "after a failed sync", path, map[int]session2.Version{0: 8})
}

// Two stores on one file, as two processes have them, compact and write.
func TestGobStoreSharedCompaction(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var wg sync.WaitGroup
	for p := range 2 {
		s, err := session2.OpenGobStoreOn(fsys.OS, path, &session2.GobOptions{NoSync: true}, 500)
		mustGob(t, err)
		defer s.Close()
		wg.Go(func() {
			versions := make(map[int]session2.Version)
			for i := range 300 {
				n := 10*p + i%5
				if err := update(s, versions, n); err != nil {
					t.Errorf("store %d, update %d: %v", p, i, err)
					return
				}
				if rec, err := s.Load(ctxGob, gobID(n)); err != nil || rec.Version != versions[n] {
					t.Errorf("store %d: version %v, %v, want %v", p, rec.Version, err, versions[n])
				}
			}
		})
	}
	wg.Wait()
	info, err := fsys.OS.Lstat(path)
	mustGob(t, err)
	if info.Size() > 8192 { // without compaction it would have 75 KB
		t.Errorf("the file has %d bytes, want at most 8192", info.Size())
	}
}

// Touches alone must not let the file grow without bounds.
func TestGobStoreTouchesAreCompacted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	s, err := session2.OpenGobStoreOn(fsys.OS, path, nil, 4096)
	mustGob(t, err)
	defer s.Close()
	rec := gobRecord(0, 7)
	mustGob(t, s.Save(ctxGob, rec, 0))
	for i := range 1000 {
		mustGob(t, s.Touch(ctxGob, rec.ID, rec.Accessed.Add(time.Duration(i+1)*time.Second), rec.Expires))
	}
	info, err := fsys.OS.Lstat(path)
	mustGob(t, err)
	if info.Size() > 8192 {
		t.Errorf("the file has %d bytes after 1000 touches, want at most 8192", info.Size())
	}
	got, err := s.Load(ctxGob, rec.ID)
	if want := rec.Accessed.Add(1000 * time.Second); err != nil || !got.Accessed.Equal(want) {
		t.Errorf("Accessed is %v, %v, want %v", got.Accessed, err, want)
	}
}
