package sqltest

import (
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
)

// BenchmarkSQLGroupCommit measures creations of many clients on servers that
// wait for their disk, under settings that have commits wait for one another.
//
//	go test -run='^$' -bench=SQLGroupCommit -benchtime=3x ./internal/sqltest
func BenchmarkSQLGroupCommit(b *testing.B) {
	settings := map[string][]string{
		"postgres": {
			"ALTER SYSTEM SET commit_delay = 0; ALTER SYSTEM SET synchronous_commit = on", "ALTER SYSTEM SET commit_delay = 200",
			"ALTER SYSTEM SET commit_delay = 1000",
			"ALTER SYSTEM SET commit_delay = 0; ALTER SYSTEM SET synchronous_commit = off",
		},
		"mysql": {
			"SET GLOBAL binlog_commit_wait_count = 0; SET GLOBAL innodb_flush_log_at_trx_commit = 1; SET GLOBAL sync_binlog = 1",
			"SET GLOBAL binlog_commit_wait_count = 8; SET GLOBAL binlog_commit_wait_usec = 1000",
			"SET GLOBAL binlog_commit_wait_count = 0; SET GLOBAL innodb_flush_log_at_trx_commit = 2; SET GLOBAL sync_binlog = 0",
		},
	}
	for _, sys := range sqlSystems {
		start := map[string]func() *testdb.Server{
			"postgres": func() *testdb.Server { return testdb.NewPostgres(b) },
			"mysql":    func() *testdb.Server { return testdb.NewMySQL(b, "log-bin", "server-id = 1", "sync-binlog = 1") },
		}
		db := openSQL(b, sys.driver, start[sys.name]().DSN())
		db.SetMaxOpenConns(32)
		store := sys.store(b, db, session2.SQLOptions{Table: "t"})
		testsite.Must(b, store.Setup(b.Context()))
		t := &indexBench{sys: sys, db: db, store: store}
		took := make(map[string]time.Duration)
		b.Run(sys.name, func(b *testing.B) {
			for b.Loop() {
				for _, all := range settings[sys.name] {
					for _, one := range strings.Split(all, "; ") {
						_, err := db.Exec(one)
						testsite.Must(b, err)
					}
					if sys.name == "postgres" {
						_, err := db.Exec("SELECT pg_reload_conf()")
						testsite.Must(b, err)
						time.Sleep(200 * time.Millisecond) // the others read it
					}
					t.create = indexCost{}
					t.creations(b)
					took[all] += t.create.took
				}
			}
			for i, all := range settings[sys.name] {
				b.ReportMetric(float64(b.N*indexRows)/took[all].Seconds(), string(rune('a'+i))+"/s")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}
