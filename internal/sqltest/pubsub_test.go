package sqltest

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
)

// pubSub returns a PubSub over its own connection, which the server knows by name.
func pubSub(t testing.TB, dsn, name string) session2.PubSub {
	t.Helper()
	sep := "?"
	if strings.Contains(dsn, "?") {
		sep = "&"
	}
	ps, err := session2.NewPostgresPubSub(dsn + sep + "table=others&conns=3&application_name=" + name)
	testsite.Must(t, err)
	return ps
}

// cachedSite is a process that keeps records for an hour, and hears of changes by ps.
func cachedSite(t testing.TB, dsn, table string, ps session2.PubSub) *testsite.Site {
	t.Helper()
	cache := session2.NewCache(openPostgres(t, dsn, session2.SQLOptions{Table: table}), &session2.CacheOptions{
		MaxAge: time.Hour, PubSub: ps, Logger: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(func() { session2.Close(cache) })
	return testsite.NewSite(t, cache, session2.Config{})
}

// nearStore is what a Manager asks a cache.
type nearStore interface {
	LoadCached(ctx context.Context, id session2.ID) (rec session2.Record, old bool, err error)
}

// eventually waits for what comes within milliseconds, or where a line is silent within
// seconds, on a machine that does much else.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// What one process changes another one is told by PostgreSQL, although it would keep the
// record for an hour; also when its connection was ended, and when nobody answers on it.
func TestPostgresPubSub(t *testing.T) {
	t.Parallel()
	dsn, table := testdb.Postgres(t), sqlTable(t.TempDir())
	proxy, silent := viaProxy(t, dsn)
	name := "pubsub_" + table
	here := cachedSite(t, dsn, table, pubSub(t, silent, name))
	there := cachedSite(t, dsn, table, pubSub(t, dsn, "there"))
	db := openSQL(t, "postgres", dsn)
	testsite.Must(t, session2.Setup(t.Context(), here.Store))

	b := &testsite.Browser{}
	here.Begin(b)
	step := 0
	var id session2.ID
	here.Do(b, func(s *session2.Session) { id = s.ID() })
	used := func() bool {
		_, old, err := here.Store.(nearStore).LoadCached(t.Context(), id)
		testsite.Must(t, err)
		return old
	}
	seen := func(how string, trouble func()) {
		t.Helper()
		eventually(t, "the cache is used", used)
		trouble()
		step++
		color := fmt.Sprint(step)
		there.Do(b.Clone(), func(s *session2.Session) { s.Set("color", color) })
		eventually(t, how, func() bool { return here.Stored(b, "color") == color })
	}
	seen("a change", func() {})
	seen("a change beside a lost connection", func() {
		_, err := db.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", name)
		testsite.Must(t, err)
	})
	seen("a change beside a silent connection", func() { proxy.Hang(true) })
	proxy.Hang(false)
	seen("a change when it is back", func() {})

	eventually(t, "the cache is used", used)
	there.Do(b.Clone(), func(s *session2.Session) { s.Destroy() })
	eventually(t, "a logout", func() bool { return here.Stored(b, "color") == nil })

	testsite.Must(t, session2.Close(here.Store))
	proxy.Cut()
	eventually(t, "Close ends the connection", func() (gone bool) {
		err := db.QueryRow("SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = $1", name).Scan(&gone)
		return err == nil && gone
	})
}

// BenchmarkPubSub takes the time from the end of a Revoke by one process until the cache
// of another one shows nothing of the session any more.
func BenchmarkPubSub(b *testing.B) {
	dsn, table := testdb.Postgres(b), sqlTable(b.TempDir())
	here := cachedSite(b, dsn, table, pubSub(b, dsn, "here"))
	there := cachedSite(b, dsn, table, pubSub(b, dsn, "there"))
	testsite.Must(b, session2.Setup(b.Context(), here.Store))
	var waited []time.Duration
	for b.Loop() {
		visitor := &testsite.Browser{}
		here.Begin(visitor)
		var id session2.ID
		here.Do(visitor, func(s *session2.Session) { id = s.ID() })
		for near, old := here.Store.(nearStore), false; !old; {
			_, old, _ = near.LoadCached(b.Context(), id)
		}
		testsite.Must(b, there.M.Revoke(b.Context(), id))
		start := time.Now()
		for here.Stored(visitor, "color") != nil {
			time.Sleep(50 * time.Microsecond)
		}
		waited = append(waited, time.Since(start))
	}
	slices.Sort(waited)
	b.ReportMetric(float64(waited[len(waited)/2].Microseconds()), "µs-median")
	b.ReportMetric(float64(waited[len(waited)*99/100].Microseconds()), "µs-99th")
}

// What cannot work is refused at once, without the password.
func TestPostgresPubSubRefuses(t *testing.T) {
	for _, url := range []string{
		"mysql://u:secret@localhost/x", "://secret", "postgres://u:secret@localhost/x?nonsense=1",
		"postgres://u:secret@localhost/x?sslmode=often", "postgres://u:secret@localhost:port/x",
		"postgres://u:secret@localhost/x?timeout=3&timeout=4",
	} {
		ps, err := session2.NewPostgresPubSub(url)
		if ps != nil || err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, %v", url, ps, err)
		}
	}
}

// Where a URL names several servers and the first one is silent, another one is found.
func TestPostgresPubSubOfSeveralServers(t *testing.T) {
	t.Parallel()
	dsn, table := testdb.Postgres(t), sqlTable(t.TempDir())
	proxy, silent := viaProxy(t, dsn)
	first, err := url.Parse(silent)
	testsite.Must(t, err)
	u, err := url.Parse(dsn)
	testsite.Must(t, err)
	ports := "port=" + first.Port() + "," + u.Port()
	u.Host, u.RawQuery = first.Hostname()+","+u.Hostname(), ports+"&sslmode=disable&target_session_attrs=read-write"
	proxy.Hang(true)
	here := cachedSite(t, dsn, table, pubSub(t, u.String(), "several"))
	testsite.Must(t, session2.Setup(t.Context(), here.Store))
	b := &testsite.Browser{}
	here.Begin(b)
	var id session2.ID
	here.Do(b, func(s *session2.Session) { id = s.ID() })
	eventually(t, "the cache is used", func() bool {
		_, old, err := here.Store.(nearStore).LoadCached(t.Context(), id)
		return old && err == nil
	})
}
