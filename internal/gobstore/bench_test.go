//go:build unix

package gobstore_test

import (
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/gobstore"
	"github.com/session2/session2/internal/record"
	"github.com/session2/session2/internal/testsite"
)

// benchLog writes a log of SESSION2_BENCH_RECORDS records, 10,000 by default, which is
// as good as due for a compaction.
func benchLog(b *testing.B) (path string, n int) {
	b.Helper()
	n = 10_000
	if v := os.Getenv("SESSION2_BENCH_RECORDS"); v != "" {
		var err error
		n, err = strconv.Atoi(v)
		testsite.Must(b, err)
	}
	dir := b.TempDir()
	if v := os.Getenv("SESSION2_BENCH_DIR"); v != "" { // where a disk is
		var err error
		dir, err = os.MkdirTemp(v, "gob")
		testsite.Must(b, err)
		b.Cleanup(func() { os.RemoveAll(dir) })
	}
	path = filepath.Join(dir, "log")
	testsite.Must(b, gobstore.WriteLog(path, n, 200))
	return path, n
}

// BenchmarkSaveBesideCompaction saves until the file has been compacted, and reports how
// long the longest Save took, and the longest of as many before.
func BenchmarkSaveBesideCompaction(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		path, n := benchLog(b)
		s, err := gobstore.Open(fsys.OS, path, quiet)
		testsite.Must(b, err)
		before, err := os.Stat(path)
		testsite.Must(b, err)
		b.StartTimer()
		var longest atomic.Int64
		var saves atomic.Int64
		var done atomic.Bool
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				rec := record.Record{ID: gobstore.BenchID(n + w), Data: make([]byte, 200)}
				for !done.Load() {
					rec.Version++
					start := time.Now()
					testsite.Must(b, s.Save(background, rec, rec.Version-1))
					took := int64(time.Since(start))
					saves.Add(1)
					for old := longest.Load(); took > old && !longest.CompareAndSwap(old, took); old = longest.Load() {
					}
					info, err := os.Stat(path)
					testsite.Must(b, err)
					if !os.SameFile(info, before) {
						done.Store(true)
					}
				}
			})
		}
		wg.Wait()
		b.StopTimer()
		testsite.Must(b, s.Close())
		b.ReportMetric(float64(longest.Load())/1e6, "longest-ms")
		b.ReportMetric(float64(saves.Load()), "saves")
		b.StartTimer()
	}
}

// BenchmarkSavesPerSync has 64 callers read, work a little and save, and reports how many
// saves shared a sync.
func BenchmarkSavesPerSync(b *testing.B) {
	dir := b.TempDir()
	if v := os.Getenv("SESSION2_BENCH_DIR"); v != "" {
		dir = v
	}
	path := filepath.Join(dir, "log-"+strconv.Itoa(os.Getpid()))
	defer os.Remove(path + ".lock")
	defer os.Remove(path)
	d := &syncing{FS: fsys.OS, before: func() {}}
	s, err := openOn(d, path, false, 1<<40)
	testsite.Must(b, err)
	defer s.Close()
	const callers = 64
	next := make([]uint64, callers)
	for w := range callers {
		testsite.Must(b, s.Save(background, numbered(w, 1), 0))
	}
	d.n.Store(0)
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range callers {
		wg.Go(func() {
			for i := range uint64(b.N / callers) {
				rec, err := s.Load(background, idOf(w))
				testsite.Must(b, err)
				for range 10_000 {
					next[w]++
				}
				rec.Version = i + 2
				testsite.Must(b, s.Save(background, rec, i+1))
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/float64(d.n.Load()), "saves/sync")
}

// BenchmarkOpenByIndex opens a store of many records that was closed, and loads one.
func BenchmarkOpenByIndex(b *testing.B) {
	path, _ := benchLog(b)
	start, busy := time.Now(), processorTime()
	s, err := gobstore.Open(fsys.OS, path, quiet)
	testsite.Must(b, err)
	b.Logf("without an index: %v, %v of processor time", time.Since(start), processorTime()-busy)
	start, busy = time.Now(), processorTime()
	testsite.Must(b, s.Close())
	b.Logf("closed, which writes the index: %v, %v of processor time", time.Since(start), processorTime()-busy)
	for b.Loop() {
		start, busy = time.Now(), processorTime()
		s, err := gobstore.Open(fsys.OS, path, quiet)
		testsite.Must(b, err)
		_, err = s.Load(background, gobstore.BenchID(7))
		testsite.Must(b, err)
		b.StopTimer()
		b.Logf("by the index, and the first Load: %v, %v of processor time", time.Since(start), processorTime()-busy)
		s.AwaitCopy()
		b.Logf("all of the index: %v, %v of processor time", time.Since(start), processorTime()-busy)
		testsite.Must(b, s.Close())
		b.StartTimer()
	}
}

func processorTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
