package gobstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/session2/session2/internal/faultfs"
	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/gobstore"
	"github.com/session2/session2/internal/record"
	"github.com/session2/session2/internal/testsite"
)

// halting is a file system on which a copy beside changes stops when it has begun, and
// goes on when it is told to.
type halting struct {
	fsys.FS
	begun, goOn chan struct{}
	once        sync.Once
}

func newHalting() *halting {
	return &halting{FS: fsys.OS, begun: make(chan struct{}), goOn: make(chan struct{})}
}

func (h *halting) OpenFile(name string, flag int, perm os.FileMode) (fsys.File, error) {
	f, err := h.FS.OpenFile(name, flag, perm)
	if err == nil && strings.HasSuffix(name, ".compact.tmp") && flag&os.O_TRUNC != 0 {
		return haltingFile{f, h}, nil
	}
	return f, err
}

type haltingFile struct {
	fsys.File
	h *halting
}

func (f haltingFile) Write(b []byte) (int, error) {
	f.h.once.Do(func() {
		close(f.h.begun)
		<-f.h.goOn
	})
	return f.File.Write(b)
}

// openHalting opens a store of ten records in which the next change begins a compaction.
func openHalting(t *testing.T, path string) (*gobstore.Store, *halting, map[int]uint64) {
	t.Helper()
	h := newHalting()
	s, err := openOn(h, path, true, 1<<20)
	testsite.Must(t, err)
	t.Cleanup(func() { s.Close() })
	s.SetSmall(-1)
	versions := make(map[int]uint64)
	for i := range 40 {
		testsite.Must(t, update(s, versions, i%10))
	}
	s.SetSlack(0)
	testsite.Must(t, update(s, versions, 0))
	<-h.begun
	return s, h, versions
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	testsite.Must(t, err)
	return info.Size()
}

// Changes and readers go on while a compaction copies, in this process and in others, and
// the new file has all that they did.
func TestGobStoreCompactsBesideChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	s, h, versions := openHalting(t, path)
	other := open(t, path) // must leave the copy alone
	testsite.Must(t, update(s, versions, 1))
	testsite.Must(t, update(other, versions, 2))
	testsite.Must(t, update(s, versions, 20)) // a new one
	testsite.Must(t, s.Delete(background, idOf(3)))
	testsite.Must(t, other.Delete(background, idOf(4)))
	testsite.Must(t, s.Delete(background, idOf(5)))
	versions[5] = 0
	testsite.Must(t, update(s, versions, 5)) // is back
	delete(versions, 3)
	delete(versions, 4)
	later := numbered(6, 1).Expires + hour
	testsite.Must(t, s.Touch(background, idOf(6), record.Access{Accessed: later, Expires: later}))
	before := size(t, path)
	close(h.goOn)
	s.AwaitCopy()
	if after := size(t, path); after > before/2 {
		t.Errorf("the file has %d bytes, and had %d before it was compacted", after, before)
	}
	for name, s := range map[string]*gobstore.Store{"itself": s, "another": other, "opened again": open(t, path)} {
		for n, v := range versions {
			if rec, err := s.Load(background, idOf(n)); err != nil || rec.Version != v || n == 6 && rec.Expires != later {
				t.Errorf("%s: record %d has version %d, %v, want %d", name, n, rec.Version, err, v)
			}
		}
		for _, n := range []int{3, 4} {
			if _, err := s.Load(background, idOf(n)); !errors.Is(err, record.ErrNotFound) {
				t.Errorf("%s: record %d, which was deleted: %v", name, n, err)
			}
		}
	}
	if _, err := os.Stat(path + ".compact.tmp"); err == nil {
		t.Error("a copy was left")
	}
}

// Close ends a compaction, waits for it, and loses nothing.
func TestGobStoreClosedInACompaction(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	s, h, versions := openHalting(t, path)
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	close(h.goOn)
	testsite.Must(t, <-closed)
	checkVersions(t, "closed in a compaction", path, versions)
	if _, err := os.Stat(path + ".compact.tmp"); err == nil {
		t.Error("a copy was left")
	}
}

// A file that takes the place of the one that is copied stays.
func TestGobStoreCopyOvertaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	s, h, versions := openHalting(t, path)
	other := open(t, path)
	other.SetSlack(0) // compacts by itself, as an earlier release does
	testsite.Must(t, update(other, versions, 1))
	testsite.Must(t, update(other, versions, 2))
	close(h.goOn)
	s.AwaitCopy()
	testsite.Must(t, update(s, versions, 3))
	checkVersions(t, "after two compactions at once", path, versions)
}

// What a killed process left of a copy goes when the store is opened, unless somebody is
// still at it.
func TestGobStoreRemovesStaleCopy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	testsite.Must(t, open(t, path).Close())
	testsite.Must(t, os.WriteFile(path+".compact.tmp", make([]byte, 100), 0o600))
	open(t, path)
	if _, err := os.Stat(path + ".compact.tmp"); err == nil {
		t.Error("a stale copy is still there")
	}
}

// besideLife has each change wait for the compaction that it may have begun, so that the
// steps of both come in one order.
func besideLife(d fsys.FS, path string) (before, after map[int]uint64, err error) {
	before = map[int]uint64{}
	s, err := openOn(d, path, false, 0)
	if err != nil {
		return before, before, err
	}
	defer s.Close()
	s.SetSmall(-1)
	s.SetFew(1)
	for i := range 24 {
		n := i % 3
		after = map[int]uint64{}
		for n, v := range before {
			after[n] = v
		}
		if i%5 == 4 {
			delete(after, n)
			err = s.Delete(background, idOf(n))
		} else {
			after[n]++
			err = s.Save(background, numbered(n, after[n]), before[n])
		}
		if err != nil {
			return before, after, err
		}
		before = after
		s.AwaitCopy()
	}
	return before, before, s.Close()
}

// A power cut or a kill at any step of a compaction beside changes loses nothing.
func TestGobStorePowerCutBesideCompaction(t *testing.T) {
	for n := 0; !t.Failed(); n++ {
		root := t.TempDir()
		d := faultfs.NewDisk(t, root, n)
		before, after, err := besideLife(d, filepath.Join(root, "log"))
		if err == nil {
			t.Logf("%d steps", n)
			if n < 60 { // 24 changes alone are two each
				t.Error("nothing was compacted")
			}
			break
		}
		if !errors.Is(err, faultfs.ErrStopped) {
			t.Fatalf("after %d steps: %v, want %v", n, err, faultfs.ErrStopped)
		}
		for _, crash := range faultfs.Crashes() {
			checkAfterCrash(t, fmt.Sprintf("%s after step %d", crash.Name, n),
				filepath.Join(crash.Die(t, d), "log"), before, after)
		}
	}
}

// Several stores on one file compact it beside each other's changes, and none is lost.
func TestGobStoreSharedCompactionBesideChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var wg sync.WaitGroup
	for p := range 3 {
		s, err := openOn(fsys.OS, path, true, 500)
		testsite.Must(t, err)
		defer s.Close()
		s.SetSmall(-1)
		s.SetFew(p) // not the first
		for w := range 2 {
			wg.Go(func() {
				ctx, cancel := context.WithCancel(background)
				defer cancel()
				versions := make(map[int]uint64)
				for i := range 150 {
					n := 20*p + 10*w + i%5
					if i%31 == 30 {
						testsite.Must(t, s.Delete(ctx, idOf(n)))
						delete(versions, n)
						continue
					}
					if err := update(s, versions, n); err != nil {
						t.Errorf("store %d, update %d: %v", p, i, err)
						return
					}
					if rec, err := s.Load(ctx, idOf(n)); err != nil || rec.Version != versions[n] {
						t.Errorf("store %d: version %v, %v, want %v", p, rec.Version, err, versions[n])
					}
				}
			})
		}
	}
	wg.Wait()
}
