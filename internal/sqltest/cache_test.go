package sqltest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
	"github.com/session2/session2/storetest"
)

// A cache in front of PostgreSQL keeps all that PostgreSQL promises, with other caches and
// other processes beside it.
func TestPostgresCache(t *testing.T) {
	t.Parallel()
	dsn := testdb.Postgres(t)
	storetest.Run(t, func(t testing.TB, dir string) session2.Store {
		return session2.NewCache(openPostgres(t, dsn, session2.SQLOptions{Table: sqlTable(dir)}), nil)
	}, nil)
}

// nowhere is a ResponseWriter that costs nothing itself.
type nowhere struct{ header http.Header }

func (w *nowhere) Header() http.Header         { return w.header }
func (w *nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (w *nowhere) WriteHeader(int)             {}

// BenchmarkCache reads one key of ten, of a session of 1 KiB: in memory, in PostgreSQL, and
// in PostgreSQL behind a cache, with the loads that it makes once a second.
func BenchmarkCache(b *testing.B) {
	dsn := testdb.Postgres(b)
	postgres := func() session2.Store { return openPostgres(b, dsn, session2.SQLOptions{Table: sqlTable(b.TempDir())}) }
	for _, c := range []struct {
		name string
		open func() session2.Store
	}{
		{"memory", func() session2.Store { return session2.NewMemoryStore() }},
		{"postgres", postgres},
		{"cached", func() session2.Store { return session2.NewCache(postgres(), nil) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			st := testsite.NewSite(b, c.open(), session2.Config{})
			visitor := &testsite.Browser{}
			st.Begin(visitor)
			st.Do(visitor, func(s *session2.Session) {
				for i := range 9 {
					s.Set(fmt.Sprint(i), strings.Repeat("x", 100))
				}
			})
			r := httptest.NewRequest("GET", "/", nil)
			visitor.Send(r)
			h := st.M.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if session2.FromContext(r.Context()).Get("color") != "green" {
					b.Error("no value")
				}
			}))
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(&nowhere{header: http.Header{}}, r)
			}
		})
	}
}
