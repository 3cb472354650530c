package sqltest

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
)

// own starts a server for one benchmark alone, with memory for its table.
func (sys sqlSystem) own(t testing.TB) *testdb.Server {
	if sys.name == "postgres" {
		return testdb.NewPostgres(t, "shared_buffers = 2GB", "max_wal_size = 4GB")
	}
	return testdb.NewMySQL(t, "innodb-buffer-pool-size = 2G", "innodb-log-file-size = 1G")
}

// settle has the server write what it still has to, as if the table had been
// filled long ago.
func (sys sqlSystem) settle(t testing.TB, db *sql.DB, table string) {
	t.Helper()
	sys.analyze(t, db, table)
	if sys.name == "postgres" {
		_, err := db.Exec("CHECKPOINT")
		testsite.Must(t, err)
		return
	}
	mysqlFlush(t, db, 0, 50000)
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		var name string
		var dirty int
		testsite.Must(t, db.QueryRow("SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'").Scan(&name, &dirty))
		if dirty < 100 || time.Now().After(deadline) {
			break
		}
	}
	mysqlFlush(t, db, 90, 200)
}

// mysqlFlush sets how many of a hundred pages may be dirty, and how many a
// second are written: 90 and 200 are the defaults.
func mysqlFlush(t testing.TB, db *sql.DB, dirty, rate int) {
	t.Helper()
	for _, set := range []string{
		fmt.Sprintf("SET GLOBAL innodb_io_capacity_max = %d", max(rate, 2000)),
		fmt.Sprintf("SET GLOBAL innodb_io_capacity = %d", rate),
		fmt.Sprintf("SET GLOBAL innodb_max_dirty_pages_pct = %d", dirty),
	} {
		_, err := db.Exec(set)
		testsite.Must(t, err)
	}
}

// loadLatencies loads random rows up to n, from four goroutines 500 times a
// second each, until ctx ends, and returns how long each call took, in order.
func loadLatencies(ctx context.Context, t testing.TB, store session2.Store, n int) []time.Duration {
	const goroutines, every = 4, 2 * time.Millisecond
	var wg sync.WaitGroup
	var all [goroutines][]time.Duration
	for g := range all {
		wg.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for ctx.Err() == nil {
				start := time.Now()
				if _, err := store.Load(context.WithoutCancel(ctx), sqlRowID(rand.IntN(n)+1)); err != nil {
					t.Error(err)
					return
				}
				all[g] = append(all[g], time.Since(start))
				<-tick.C
			}
		})
	}
	wg.Wait()
	list := slices.Concat(all[:]...)
	slices.Sort(list)
	return list
}

// BenchmarkSQLSweep measures how long Loads take while a tenth of a table is
// swept, and without that, in turns and equally long; and how fast sweeps and
// DeleteUser are. At full size, on a machine that does nothing else:
//
//	SESSION2_BENCH_RECORDS=1000000 go test -run='^$' -bench=SQLSweep -benchtime=1x -timeout=30m .
func BenchmarkSQLSweep(b *testing.B) {
	for _, sys := range sqlSystems {
		b.Run(sys.name, func(b *testing.B) {
			s := newSweepBench(b, sys)
			b.Run("expired", func(b *testing.B) { s.sweep(b, sqlRows{expires: "{now}-(i%3600000)*1000"}) })
			b.Run("idle", func(b *testing.B) { s.sweep(b, sqlRows{accessed: "{now}-7200000000-(i%3600000)*1000"}) })
			b.Run("one", func(b *testing.B) { s.together(b, 1) })
			b.Run("four", func(b *testing.B) { s.together(b, 4) })
			b.Run("user", s.deleteUser)
		})
	}
}

// sweepBench is a table of live rows on a server of its own.
type sweepBench struct {
	sys   sqlSystem
	dsn   string
	db    *sql.DB
	store sqlStore
	live  int
	last  int // number of a row
}

func newSweepBench(b *testing.B, sys sqlSystem) *sweepBench {
	n := benchRecords(b, 20000)
	dsn := sys.own(b).DSN()
	db := openSQL(b, sys.driver, dsn)
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	s := &sweepBench{sys: sys, dsn: dsn, db: db, live: n, last: n}
	s.store = sys.store(b, db, session2.SQLOptions{Table: "t"})
	testsite.Must(b, s.store.Setup(b.Context()))
	sys.fill(b, db, "t", sqlRows{from: 1, to: n})
	s.add(b, n/10, sqlRows{expires: "{now}-i"}) // warms up
	s.underLoad(b)
	return s
}

// add makes more rows.
func (s *sweepBench) add(b *testing.B, n int, rows sqlRows) {
	b.Helper()
	rows.from, rows.to = s.last+1, s.last+n
	s.last += n
	s.sys.fill(b, s.db, "t", rows)
	s.sys.settle(b, s.db, "t")
}

func (s *sweepBench) sweep(b *testing.B, old sqlRows) {
	const rounds = 3
	var alone, beside []time.Duration
	var all, lateAlone, lateBeside time.Duration
	for range b.N * rounds {
		s.add(b, s.live/10, old)
		stop := lateness()
		lat, took := s.underLoad(b)
		lateBeside = max(lateBeside, stop())
		beside = append(beside, lat...)
		all += took
		s.sys.settle(b, s.db, "t")
		quiet, cancel := context.WithTimeout(b.Context(), took)
		stop = lateness()
		alone = append(alone, loadLatencies(quiet, b, s.store, s.live)...)
		lateAlone = max(lateAlone, stop())
		cancel()
	}
	b.ReportMetric(float64(lateAlone)/1e6, "alone-late-ms")
	b.ReportMetric(float64(lateBeside)/1e6, "beside-late-ms")
	report(b, alone, "alone")
	report(b, beside, "beside")
	b.ReportMetric(float64(slices.Max(beside))/float64(slices.Max(alone)), "worst-ratio")
	b.ReportMetric(float64(s.live/10*rounds*b.N)/all.Seconds(), "rows/s")
	b.ReportMetric(0, "ns/op")
}

// lateness finds out how late a timer is at worst: nothing on this machine can be
// more punctual, and what it is late has to do with no database.
func lateness() (stop func() time.Duration) {
	done, worst := make(chan struct{}), make(chan time.Duration)
	go func() {
		var late time.Duration
		for {
			start := time.Now()
			select {
			case <-done:
				worst <- late
				return
			case <-time.After(time.Millisecond):
				late = max(late, time.Since(start)-time.Millisecond)
			}
		}
	}()
	return func() time.Duration {
		close(done)
		return <-worst
	}
}

// report gives the worst of the latencies, and what one in a thousand exceeds.
func report(b *testing.B, list []time.Duration, name string) {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	slices.Sort(list)
	b.ReportMetric(ms(list[len(list)-1]), name+"-worst-ms")
	b.ReportMetric(ms(list[(len(list)-1)*999/1000]), name+"-p99.9-ms")
}

// underLoad sweeps a tenth of the rows, and returns the latencies of Loads
// meanwhile and how long it took.
func (s *sweepBench) underLoad(b *testing.B) (lat []time.Duration, took time.Duration) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	start := time.Now()
	go func() {
		defer cancel()
		if n, err := s.store.DeleteOld(ctx, time.Hour); n != s.live/10 || err != nil {
			b.Errorf("DeleteOld: got %d, %v, want %d", n, err, s.live/10)
		}
		took = time.Since(start)
	}()
	lat = loadLatencies(ctx, b, s.store, s.live)
	return lat, took
}

// together has several instances sweep a tenth of the rows at once, with no
// load. It reports how often they looked for each batch there was.
func (s *sweepBench) together(b *testing.B, instances int) {
	looks := 0
	for b.Loop() {
		b.StopTimer()
		s.add(b, s.live/10, sqlRows{expires: "{now}-(i%3600000)*1000"})
		b.StartTimer()
		n, l := s.sys.sweepAtOnce(b, s.dsn, "t", instances)
		if looks += l; n != s.live/10 {
			b.Errorf("got %d deleted, want %d", n, s.live/10)
		}
	}
	b.ReportMetric(float64(s.live/10*b.N)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(looks)/float64(s.live/10*b.N/100), "looks/batch")
}

// deleteUser ends the sessions of one user who has many.
func (s *sweepBench) deleteUser(b *testing.B) {
	const sessions = 10000
	for b.Loop() {
		b.StopTimer()
		s.add(b, sessions, sqlRows{user: "ada"})
		b.StartTimer()
		if n, err := s.store.DeleteUser(b.Context(), "ada"); n != sessions || err != nil {
			b.Fatalf("got %d, %v, want %d", n, err, sessions)
		}
	}
	b.ReportMetric(float64(sessions*b.N)/b.Elapsed().Seconds(), "rows/s")
}
