package sqltest

import (
	"crypto/rand"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
)

// volatile starts a server that waits for no disk.
func (sys sqlSystem) volatile(t testing.TB) *testdb.Server {
	if sys.name == "postgres" {
		return testdb.NewPostgres(t, "shared_buffers = 256MB", "max_wal_size = 4GB", "fsync = off",
			"synchronous_commit = off", "full_page_writes = off")
	}
	return testdb.NewMySQL(t, "innodb-flush-log-at-trx-commit = 0", "innodb-flush-method = nosync",
		"innodb-doublewrite = 0", "innodb-buffer-pool-size = 512M")
}

// BenchmarkSQLIndexes measures what each secondary index costs a creation and an
// update: the time where nothing waits for a disk, and the bytes of the server's log.
//
//	go test -run='^$' -bench=SQLIndexes -benchtime=5x ./internal/sqltest
func BenchmarkSQLIndexes(b *testing.B) {
	for _, sys := range sqlSystems {
		b.Run(sys.name, func(b *testing.B) {
			db := openSQL(b, sys.driver, sys.volatile(b).DSN())
			db.SetMaxOpenConns(32)
			var all []*indexBench
			for _, without := range []string{"", "username", "accessed", "expires", "accessed,expires"} {
				all = append(all, newIndexBench(b, sys, db, without))
			}
			for b.Loop() {
				for _, t := range all {
					t.turn(b)
				}
			}
			for _, t := range all {
				name := "without-" + strings.ReplaceAll(t.without, ",", "+")
				b.ReportMetric(float64(t.create.took.Microseconds())/float64(t.turns*indexRows), name+"-create-us")
				b.ReportMetric(float64(t.create.log)/float64(t.turns*indexRows), name+"-create-B")
				b.ReportMetric(float64(t.update.took.Microseconds())/float64(t.turns*indexRows), name+"-update-us")
				b.ReportMetric(float64(t.update.log)/float64(t.turns*indexRows), name+"-update-B")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// indexRows is how many records a turn creates and updates.
const indexRows = 2000

// indexBench is a table without some of its indexes.
type indexBench struct {
	sys            sqlSystem
	db             *sql.DB
	store          sqlStore
	without        string
	turns          int
	create, update indexCost
}

type indexCost struct {
	took time.Duration
	log  int64
}

func newIndexBench(b *testing.B, sys sqlSystem, db *sql.DB, without string) *indexBench {
	b.Helper()
	table := "t_" + strings.ReplaceAll(without, ",", "_")
	store := sys.store(b, db, session2.SQLOptions{Table: table})
	testsite.Must(b, store.Setup(b.Context()))
	for _, name := range strings.FieldsFunc(without, func(r rune) bool { return r == ',' }) {
		drop := "DROP INDEX " + name + "_idx ON " + table
		if sys.name == "postgres" {
			drop = "DROP INDEX " + table + "_" + name + "_idx"
		}
		_, err := db.Exec(drop)
		testsite.Must(b, err)
	}
	return &indexBench{sys: sys, db: db, store: store, without: without}
}

func (t *indexBench) turn(b *testing.B) {
	b.Helper()
	list := t.creations(b)
	for i := range list {
		list[i].Version, list[i].Accessed = 2, list[i].Accessed.Add(time.Second)
	}
	t.update.add(b, t, list, 1)
}

// creations creates the records of a turn.
func (t *indexBench) creations(b *testing.B) []session2.Record {
	b.Helper()
	t.turns++
	list := make([]session2.Record, indexRows)
	now := time.Now().Truncate(time.Microsecond)
	for i := range list {
		list[i] = session2.Record{
			Version: 1, User: "user" + strconv.Itoa(i), Created: now, Accessed: now, Expires: now.Add(time.Hour),
			Data: make([]byte, 1100),
		}
		rand.Read(list[i].ID[:])
	}
	t.create.add(b, t, list, 0)
	return list
}

func (c *indexCost) add(b *testing.B, t *indexBench, list []session2.Record, prev session2.Version) {
	b.Helper()
	start, log := time.Now(), t.log(b)
	var wg sync.WaitGroup
	const goroutines = 32
	for g := range goroutines {
		wg.Go(func() {
			for i := g; i < len(list); i += goroutines {
				if err := t.store.Save(b.Context(), list[i], prev); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	c.took += time.Since(start)
	c.log += t.log(b) - log
}

// log returns how much the server has written to its log.
func (t *indexBench) log(b *testing.B) (n int64) {
	b.Helper()
	if t.sys.name == "postgres" {
		testsite.Must(b, t.db.QueryRow("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").Scan(&n))
		return n
	}
	var name, text string
	testsite.Must(b, t.db.QueryRow("SHOW GLOBAL STATUS LIKE 'Innodb_lsn_current'").Scan(&name, &text))
	_, err := fmt.Sscan(text, &n)
	testsite.Must(b, err)
	return n
}
