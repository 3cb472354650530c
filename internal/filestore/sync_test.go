package filestore_test

import (
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/session2/session2/internal/filestore"
	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/record"
)

// slowSync is a file system in which the sync of a directory called 00 waits.
type slowSync struct {
	fsys.FS
	slow  atomic.Bool
	syncs atomic.Int32
	goOn  chan struct{}
}

func (f *slowSync) SyncDir(name string) error {
	if f.slow.Load() && filepath.Base(name) == "00" {
		f.syncs.Add(1)
		<-f.goOn
	}
	return f.FS.SyncDir(name)
}

// siblings returns records of one directory.
func siblings(n byte) record.Record {
	return record.Record{ID: [16]byte{15: n}, Version: 1}
}

// Saves into one directory share its sync: those that come while one is under way wait
// for one more, all together, for the first may have begun before their change.
func TestSavesShareSyncs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsy := &slowSync{FS: fsys.OS, goOn: make(chan struct{})}
		s, err := filestore.Open(fsy, t.TempDir(), filestore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		const others = 5
		for i := range byte(1 + others) {
			mustSave(t, s, siblings(i), 0)
		}
		fsy.slow.Store(true)
		var returned atomic.Int32
		var all sync.WaitGroup
		save := func(i byte) {
			all.Go(func() {
				rec := siblings(i)
				rec.Version = 2
				if err := s.Save(t.Context(), rec, 1); err != nil {
					t.Error(err)
				}
				returned.Add(1)
			})
			synctest.Wait()
		}
		save(0)
		for i := range byte(others) {
			save(1 + i)
		}
		if n := fsy.syncs.Load(); n != 1 {
			t.Errorf("%d syncs are under way at once, want 1", n)
		}
		fsy.goOn <- struct{}{}
		synctest.Wait()
		if n := returned.Load(); n != 1 {
			t.Errorf("%d saves have returned after the sync of one of them", n)
		}
		if n := fsy.syncs.Load(); n != 2 {
			t.Fatalf("%d syncs, want a second one for the others", n)
		}
		fsy.goOn <- struct{}{}
		all.Wait()
		if n := fsy.syncs.Load(); n != 2 {
			t.Errorf("%d syncs for %d saves, want 2", n, 1+others)
		}
	})
}
