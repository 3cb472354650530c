package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/session2/session2/internal/testdb"
)

// serverOf returns what starts a database server: with all of its durability, in a
// directory on a disk, or with none, in memory.
func serverOf(start func(testing.TB, ...string) *testdb.Server, always, volatile []string) startServer {
	return func(parent string, durable bool) (server *testdb.Server, stop func(), err error) {
		conf := always
		if !durable {
			conf = append(conf[:len(conf):len(conf)], volatile...)
		}
		os.Setenv("SESSION2_TEST_SERVERS", parent)
		defer os.Unsetenv("SESSION2_TEST_SERVERS")
		t := &starter{}
		defer func() {
			if failed := recover(); failed != nil {
				t.stop()
				err = fmt.Errorf("start a server: %v", failed)
			}
		}()
		return start(t, conf...), t.stop, nil
	}
}

type startServer func(parent string, durable bool) (*testdb.Server, func(), error)

// starter is the test that a server of testdb wants to belong to. It panics where a
// test would end.
type starter struct {
	testing.TB // nil: for the methods that testdb does not call
	cleanups   []func()
	failed     bool
}

func (t *starter) Helper()                 { /* it has no stack to show */ }
func (t *starter) Cleanup(f func())        { t.cleanups = append(t.cleanups, f) }
func (t *starter) Failed() bool            { return t.failed }
func (t *starter) Logf(f string, a ...any) { fmt.Fprintf(os.Stderr, f+"\n", a...) }

func (t *starter) Fatal(args ...any) {
	t.failed = true
	panic(fmt.Sprint(args...))
}

func (t *starter) Skip(args ...any) { t.Fatal(args...) }

func (t *starter) stop() {
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		t.cleanups[i]()
	}
	t.cleanups = nil
}

var (
	startPostgres = serverOf(testdb.NewPostgres,
		[]string{"shared_buffers = 1GB", "max_wal_size = 2GB"},
		[]string{"fsync = off", "synchronous_commit = off", "full_page_writes = off"})
	crampedPostgres = serverOf(testdb.NewPostgres, []string{"shared_buffers = 16MB", "max_wal_size = 2GB"}, nil)
	startMySQL      = serverOf(testdb.NewMySQL,
		[]string{"innodb-buffer-pool-size = 2G", "innodb-log-file-size = 512M"},
		[]string{"innodb-flush-log-at-trx-commit = 0", "innodb-flush-method = nosync", "innodb-doublewrite = 0"})
	crampedMySQL = serverOf(testdb.NewMySQL,
		[]string{"innodb-buffer-pool-size = 16M", "innodb-flush-method = O_DIRECT", "innodb-log-file-size = 512M"}, nil)
)
