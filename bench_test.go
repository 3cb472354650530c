package session2_test

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// nowhere is a ResponseWriter that costs nothing itself.
type nowhere struct{ header http.Header }

func (w *nowhere) Header() http.Header         { return w.header }
func (w *nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (w *nowhere) WriteHeader(int)             {}

// benchStores are the stores that the benchmarks run on.
func benchStores(b *testing.B, f func(b *testing.B, store session2.Store)) {
	b.Run("memory", func(b *testing.B) { f(b, session2.NewMemoryStore()) })
	b.Run("bolt", func(b *testing.B) {
		store, err := session2.OpenBoltStore(filepath.Join(b.TempDir(), "sessions.db"), nil)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { store.Close() })
		f(b, store)
	})
}

// benchServe serves requests with the cookie of a session of ten keys.
func benchServe(b *testing.B, store session2.Store, cookie bool, h http.HandlerFunc) {
	benchConfig(b, store, session2.Config{}, cookie, h)
}

func benchConfig(b *testing.B, store session2.Store, cfg session2.Config, cookie bool, h http.HandlerFunc) {
	st := testsite.NewSite(b, store, cfg)
	visitor := &testsite.Browser{}
	st.Do(visitor, func(s *session2.Session) {
		for i := range 10 {
			s.Set(fmt.Sprintf("key%d", i), "value")
		}
	})
	r := httptest.NewRequest("GET", "/", nil)
	if cookie {
		visitor.Send(r)
	}
	handler := st.M.Wrap(h)
	b.ReportAllocs()
	for b.Loop() {
		handler.ServeHTTP(&nowhere{header: http.Header{}}, r)
	}
}

func BenchmarkWrapNeverLooks(b *testing.B) {
	h := func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) }
	b.Run("bare", func(b *testing.B) {
		r := httptest.NewRequest("GET", "/", nil)
		b.ReportAllocs()
		for b.Loop() {
			http.HandlerFunc(h).ServeHTTP(&nowhere{header: http.Header{}}, r)
		}
	})
	b.Run("no cookie", func(b *testing.B) { benchServe(b, session2.NewMemoryStore(), false, h) })
	b.Run("cookie", func(b *testing.B) { benchServe(b, session2.NewMemoryStore(), true, h) })
}

func BenchmarkWrapReads(b *testing.B) {
	reads := func(b *testing.B, store session2.Store) {
		benchServe(b, store, true, func(w http.ResponseWriter, r *http.Request) {
			if session2.FromContext(r.Context()).Get("key7") != "value" {
				b.Error("no value")
			}
		})
	}
	benchStores(b, reads)
	b.Run("cache", func(b *testing.B) { // a hit costs the same whatever store is behind it
		reads(b, session2.NewCache(session2.NewMemoryStore(), nil))
	})
}

func BenchmarkWrapWrites(b *testing.B) {
	benchStores(b, func(b *testing.B, store session2.Store) {
		n := 0
		benchServe(b, store, true, func(w http.ResponseWriter, r *http.Request) {
			n++ // the same value again would be no change
			session2.FromContext(r.Context()).Set("key7", n)
		})
	})
}

// BenchmarkSealed shows what sealing costs, beside the same without it.
func BenchmarkSealed(b *testing.B) {
	for _, on := range []bool{false, true} {
		cfg := session2.Config{Sealed: on}
		b.Run(fmt.Sprintf("reads/sealed=%t", on), func(b *testing.B) {
			benchConfig(b, session2.NewMemoryStore(), cfg, true, func(w http.ResponseWriter, r *http.Request) {
				session2.FromContext(r.Context()).Get("key7")
			})
		})
		b.Run(fmt.Sprintf("writes/sealed=%t", on), func(b *testing.B) {
			n := 0
			benchConfig(b, session2.NewMemoryStore(), cfg, true, func(w http.ResponseWriter, r *http.Request) {
				n++
				session2.FromContext(r.Context()).Set("key7", n)
			})
		})
	}
}

func BenchmarkWrapCreates(b *testing.B) {
	benchStores(b, func(b *testing.B, store session2.Store) {
		benchServe(b, store, false, func(w http.ResponseWriter, r *http.Request) {
			session2.FromContext(r.Context()).Set("key7", "value")
		})
	})
}

func randomFileRecord(user string) session2.Record {
	rec := fileRecord(0, user)
	rand.Read(rec.ID[:])
	rec.Data = make([]byte, 500)
	return rec
}

func BenchmarkFileStoreCreate(b *testing.B) {
	s := openFile(b, b.TempDir(), nil)
	for b.Loop() {
		mustSave(b, s, randomFileRecord(""), 0)
	}
}

func BenchmarkFileStoreCreateForUser(b *testing.B) {
	s := openFile(b, b.TempDir(), nil)
	for b.Loop() {
		mustSave(b, s, randomFileRecord("ada"), 0)
	}
}

func BenchmarkFileStoreReplace(b *testing.B) {
	s := openFile(b, b.TempDir(), nil)
	rec := randomFileRecord("ada")
	mustSave(b, s, rec, 0)
	for b.Loop() {
		rec.Version++
		mustSave(b, s, rec, rec.Version-1)
	}
}

func BenchmarkFileStoreReplaceParallel(b *testing.B) {
	s := openFile(b, b.TempDir(), nil)
	var n atomic.Int32
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		rec := randomFileRecord("ada")
		rec.ID[0] = byte(n.Add(1))
		mustSave(b, s, rec, 0)
		for pb.Next() {
			rec.Version++
			mustSave(b, s, rec, rec.Version-1)
		}
	})
}

func BenchmarkFileStoreLoad(b *testing.B) {
	s := openFile(b, b.TempDir(), nil)
	rec := randomFileRecord("ada")
	mustSave(b, s, rec, 0)
	for b.Loop() {
		if _, err := s.Load(b.Context(), rec.ID); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFileStoreTouch(b *testing.B) {
	s := openFile(b, b.TempDir(), nil)
	rec := randomFileRecord("ada")
	mustSave(b, s, rec, 0)
	at := rec.Accessed
	for b.Loop() {
		at = at.Add(time.Microsecond)
		if err := s.Touch(b.Context(), rec.ID, at, rec.Expires); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkGobStoreOpen opens a store of SESSION2_BENCH_RECORDS records, 10,000
// by default, of 200 bytes of data each.
func BenchmarkGobStoreOpen(b *testing.B) {
	n := 10_000
	if v := os.Getenv("SESSION2_BENCH_RECORDS"); v != "" {
		var err error
		n, err = strconv.Atoi(v)
		testsite.Must(b, err)
	}
	path := filepath.Join(b.TempDir(), "log")
	fillGob(b, path, n)
	info, err := os.Stat(path)
	testsite.Must(b, err)
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		s, err := session2.OpenGobStore(path, nil)
		testsite.Must(b, err)
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&after)
		testsite.Must(b, s.Close())
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/record")
	b.ReportMetric(float64(info.Size())/float64(n), "disk-B/record")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "mem-B/record")
}

// benchRecord returns a record of a user of its own.
func benchRecord(n int) session2.Record {
	rec := houseRecord(0, fmt.Sprint("user", n))
	binary.BigEndian.PutUint64(rec.ID[8:], uint64(n))
	return rec
}

// fillGob saves n records from several goroutines, which share the appends.
func fillGob(b *testing.B, path string, n int) {
	b.Helper()
	s, err := session2.OpenGobStore(path, &session2.GobOptions{NoSync: true})
	testsite.Must(b, err)
	const workers = 64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				rec := benchRecord(i)
				rec.Data = make([]byte, 200)
				if err := s.Save(b.Context(), rec, 0); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	testsite.Must(b, s.Close())
}

func BenchmarkGobStoreLoad(b *testing.B) {
	path := filepath.Join(b.TempDir(), "log")
	fillGob(b, path, 1000)
	s, id := openGob(b, path), benchRecord(7).ID
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Load(b.Context(), id); err != nil {
			b.Fatal(err)
		}
	}
}

func benchGobSave(b *testing.B, opts *session2.GobOptions) {
	s, err := session2.OpenGobStore(filepath.Join(b.TempDir(), "log"), opts)
	testsite.Must(b, err)
	defer s.Close()
	rec := benchRecord(0)
	rec.Data = make([]byte, 500)
	testsite.Must(b, s.Save(b.Context(), rec, 0))
	b.ReportAllocs()
	for b.Loop() {
		rec.Version++
		if err := s.Save(b.Context(), rec, rec.Version-1); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGobStoreSave(b *testing.B)       { benchGobSave(b, nil) }
func BenchmarkGobStoreSaveNoSync(b *testing.B) { benchGobSave(b, &session2.GobOptions{NoSync: true}) }

func BenchmarkGobStoreSaveParallel(b *testing.B) {
	s, err := session2.OpenGobStore(filepath.Join(b.TempDir(), "log"), nil)
	testsite.Must(b, err)
	defer s.Close()
	var n atomic.Int32
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		rec := benchRecord(int(n.Add(1)))
		rec.Data = make([]byte, 500)
		testsite.Must(b, s.Save(b.Context(), rec, 0))
		for pb.Next() {
			rec.Version++
			testsite.Must(b, s.Save(b.Context(), rec, rec.Version-1))
		}
	})
}
