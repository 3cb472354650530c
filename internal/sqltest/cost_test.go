//go:build unix

package sqltest

import (
	"context"
	"database/sql"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// BenchmarkSQLCost compares the processor time and the allocations of a store's
// calls with those of a prepared statement by hand that does the same, in turns:
// without a context that can end ("x-bare"), and with one ("x-ctx"), which is what
// the driver and database/sql make of it. Only processor time of this process counts.
//
//	go test -run='^$' -bench=SQLCost -benchtime=20x ./internal/sqltest
func BenchmarkSQLCost(b *testing.B) {
	for _, sys := range sqlSystems {
		c := newCostBench(b, sys)
		for name, work := range map[string]struct{ byHand, ours costWork }{
			"load": {c.loadByHand, c.load}, "update": {c.updateByHand, c.update}, "create": {c.createByHand, c.create},
		} {
			b.Run(sys.name+"/"+name, func(b *testing.B) {
				var bare, ended, ours cost
				for b.Loop() {
					bare.turn(b, context.Background(), work.byHand)
					ended.turn(b, b.Context(), work.byHand)
					ours.turn(b, b.Context(), work.ours)
				}
				b.ReportMetric(float64(ours.busy)/float64(bare.busy), "x-bare")
				b.ReportMetric(float64(ours.busy)/float64(ended.busy), "x-ctx")
				b.ReportMetric((float64(ours.allocs)-float64(bare.allocs))/float64(b.N*costCalls), "allocs-more")
				b.ReportMetric(float64(ours.busy.Microseconds())/float64(b.N*costCalls), "busy-us")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// costCalls is how many calls are a turn, and costRows how many rows are there.
const costCalls, costRows = 256, 2000

type costWork func(ctx context.Context, i int) error

// cost is what turns have cost so far.
type cost struct {
	busy   time.Duration
	allocs uint64
	calls  int
}

func (c *cost) turn(b *testing.B, ctx context.Context, work costWork) {
	b.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := processorTime(b)
	for range costCalls {
		c.calls++
		testsite.Must(b, work(ctx, c.calls))
	}
	c.busy += processorTime(b) - start
	runtime.ReadMemStats(&after)
	c.allocs += after.Mallocs - before.Mallocs
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	testsite.Must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// costBench is a store, and statements by hand on its table.
type costBench struct {
	store               sqlStore
	read, write, insert *sql.Stmt
	rec                 session2.Record // of each row, but for ID and version
	versions            [costRows]session2.Version
	last                int
}

func newCostBench(b *testing.B, sys sqlSystem) *costBench {
	b.Helper()
	db := openSQL(b, sys.driver, sys.volatile(b).DSN())
	now := time.Now().Truncate(time.Microsecond)
	c := &costBench{
		store: sys.store(b, db, session2.SQLOptions{Table: "t"}),
		rec:   session2.Record{Created: now, Accessed: now, Expires: now.Add(time.Hour), Data: make([]byte, 1100)},
	}
	testsite.Must(b, c.store.Setup(b.Context()))
	for range costRows {
		c.versions[c.last] = 1
		testsite.Must(b, c.create(b.Context(), 0))
	}
	prepare := func(query string) *sql.Stmt {
		parts := strings.Split(query, "?")
		for i := range parts[:len(parts)-1] {
			parts[i] += map[string]string{"postgres": "$" + strconv.Itoa(i+1), "mysql": "?"}[sys.name]
		}
		stmt, err := db.Prepare(strings.Join(parts, ""))
		testsite.Must(b, err)
		return stmt
	}
	c.read = prepare("SELECT version, username, created, accessed, expires, data FROM t WHERE id = ?")
	c.write = prepare("UPDATE t SET version = ?, accessed = ?, expires = ?, data = ? WHERE id = ?")
	c.insert = prepare("INSERT INTO t (id, version, username, created, accessed, expires, by_accessed, by_expires, data)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
	return c
}

func (c *costBench) loadByHand(ctx context.Context, i int) error {
	var version, created, accessed, expires int64
	var user, data []byte
	id := sqlRowID(i%costRows + 1)
	return c.read.QueryRowContext(ctx, id[:]).Scan(&version, &user, &created, &accessed, &expires, &data)
}

func (c *costBench) load(ctx context.Context, i int) error {
	_, err := c.store.Load(ctx, sqlRowID(i%costRows+1))
	return err
}

// next returns the record's next version, and the version before.
func (c *costBench) next(i int) (rec session2.Record, prev session2.Version) {
	i %= costRows
	rec, prev = c.rec, c.versions[i]
	c.versions[i]++
	rec.ID, rec.Version = sqlRowID(i+1), prev+1
	return rec, prev
}

func (c *costBench) updateByHand(ctx context.Context, i int) error {
	rec, _ := c.next(i)
	_, err := c.write.ExecContext(ctx, int64(rec.Version), rec.Accessed.UnixMicro(), rec.Expires.UnixMicro(),
		rec.Data, rec.ID[:])
	return err
}

func (c *costBench) update(ctx context.Context, i int) error {
	rec, prev := c.next(i)
	return c.store.Save(ctx, rec, prev)
}

// fresh returns a record that is not there.
func (c *costBench) fresh() session2.Record {
	c.last++
	rec := c.rec
	rec.ID, rec.Version = sqlRowID(c.last), 1
	return rec
}

func (c *costBench) createByHand(ctx context.Context, _ int) error {
	rec, at, end := c.fresh(), c.rec.Accessed.UnixMicro(), c.rec.Expires.UnixMicro()
	_, err := c.insert.ExecContext(ctx, rec.ID[:], int64(1), []byte{}, at, at, end, at, end, rec.Data)
	return err
}

func (c *costBench) create(ctx context.Context, _ int) error { return c.store.Save(ctx, c.fresh(), 0) }
