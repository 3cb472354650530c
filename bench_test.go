package session2_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

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
	st := testsite.NewSite(b, store, session2.Config{})
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
	benchStores(b, func(b *testing.B, store session2.Store) {
		benchServe(b, store, true, func(w http.ResponseWriter, r *http.Request) {
			if session2.FromContext(r.Context()).Get("key7") != "value" {
				b.Error("no value")
			}
		})
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

func BenchmarkWrapCreates(b *testing.B) {
	benchStores(b, func(b *testing.B, store session2.Store) {
		benchServe(b, store, false, func(w http.ResponseWriter, r *http.Request) {
			session2.FromContext(r.Context()).Set("key7", "value")
		})
	})
}
