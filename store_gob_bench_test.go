package session2_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/session2/session2"
)

// BenchmarkGobStoreOpen opens a store of SESSION2_BENCH_RECORDS records, 10,000
// by default, of 200 bytes of data each.
func BenchmarkGobStoreOpen(b *testing.B) {
	n := 10_000
	if v := os.Getenv("SESSION2_BENCH_RECORDS"); v != "" {
		var err error
		n, err = strconv.Atoi(v)
		mustGob(b, err)
	}
	path := filepath.Join(b.TempDir(), "log")
	fillGob(b, path, n)
	info, err := os.Stat(path)
	mustGob(b, err)
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		s, err := session2.OpenGobStore(path, nil)
		mustGob(b, err)
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&after)
		mustGob(b, s.Close())
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/record")
	b.ReportMetric(float64(info.Size())/float64(n), "disk-B/record")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "mem-B/record")
}

// fillGob saves n records from several goroutines, which share the appends.
func fillGob(b *testing.B, path string, n int) {
	b.Helper()
	s, err := session2.OpenGobStore(path, &session2.GobOptions{NoSync: true})
	mustGob(b, err)
	const workers = 64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				rec := gobRecord(i, 7)
				rec.User, rec.Data = fmt.Sprint("user", i), make([]byte, 200)
				if err := s.Save(ctxGob, rec, 0); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	mustGob(b, s.Close())
}

func BenchmarkGobStoreLoad(b *testing.B) {
	path := filepath.Join(b.TempDir(), "log")
	fillGob(b, path, 1000)
	s := openGob(b, path)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Load(ctxGob, gobID(7)); err != nil {
			b.Fatal(err)
		}
	}
}

func benchGobSave(b *testing.B, opts *session2.GobOptions) {
	s, err := session2.OpenGobStore(filepath.Join(b.TempDir(), "log"), opts)
	mustGob(b, err)
	defer s.Close()
	rec := gobRecord(0, 1)
	rec.Data = make([]byte, 500)
	mustGob(b, s.Save(ctxGob, rec, 0))
	b.ReportAllocs()
	for b.Loop() {
		rec.Version++
		if err := s.Save(ctxGob, rec, rec.Version-1); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGobStoreSave(b *testing.B)       { benchGobSave(b, nil) }
func BenchmarkGobStoreSaveNoSync(b *testing.B) { benchGobSave(b, &session2.GobOptions{NoSync: true}) }

func BenchmarkGobStoreSaveParallel(b *testing.B) {
	s, err := session2.OpenGobStore(filepath.Join(b.TempDir(), "log"), nil)
	mustGob(b, err)
	defer s.Close()
	var n atomic.Int32
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		rec := gobRecord(int(n.Add(1)), 1)
		rec.Data = make([]byte, 500)
		mustGob(b, s.Save(ctxGob, rec, 0))
		for pb.Next() {
			rec.Version++
			mustGob(b, s.Save(ctxGob, rec, rec.Version-1))
		}
	})
}
