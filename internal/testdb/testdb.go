// Package testdb gives tests real database servers: private ones, on loopback,
// in a temporary directory, with their durability on, which are ended by their
// process ids. A test may kill its own and start it again.
package testdb

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

const (
	envPostgres = "SESSION2_TEST_POSTGRES"
	envMySQL    = "SESSION2_TEST_MYSQL"
	envRequire  = "SESSION2_REQUIRE_DB"
	envParent   = "SESSION2_TEST_SERVERS" // the directory to make the servers' directories in

	account  = "session2"
	database = "session2"
)

// errMissing says that a server's programs are not installed.
var errMissing = errors.New("not installed (make test installs what it can)")

// Postgres returns the URL of a PostgreSQL server that the tests of this process
// share, and those of its child processes: the one that SESSION2_TEST_POSTGRES
// names, or a private one that is started when first asked for. The package's
// TestMain must call [Main], which ends it.
func Postgres(t testing.TB) string {
	t.Helper()
	return sharedPostgres.get(t)
}

// MySQL returns the data source name, as github.com/go-sql-driver/mysql has it,
// of a MySQL or MariaDB server likewise. SESSION2_TEST_MYSQL may also be a
// mysql: URL.
func MySQL(t testing.TB) string {
	t.Helper()
	dsn := sharedMySQL.get(t)
	if strings.HasPrefix(dsn, "mysql:") {
		return mysqlDSN(t, dsn)
	}
	return dsn
}

// MySQLURL returns a data source name of MySQL's driver as a URL. It ends with a
// question mark: options may follow.
func MySQLURL(t testing.TB, dsn string) string {
	t.Helper()
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal("not a data source name")
	}
	u := url.URL{Scheme: "mysql", User: url.UserPassword(cfg.User, cfg.Passwd), Host: cfg.Addr, Path: "/" + cfg.DBName}
	return u.String() + "?"
}

// mysqlDSN translates a URL into the driver's notation.
func mysqlDSN(t testing.TB, rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatalf("%s is not a URL", envMySQL)
	}
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr, cfg.DBName = "tcp", u.Host, strings.TrimPrefix(u.Path, "/")
	cfg.User = u.User.Username()
	cfg.Passwd, _ = u.User.Password()
	if u.RawQuery != "" {
		return cfg.FormatDSN() + "?" + u.RawQuery
	}
	return cfg.FormatDSN()
}

// Main runs the tests and then ends the shared servers. It does not return.
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run is Main for a TestMain that has more to do: it returns the exit code. What
// MySQL's driver has to say of connections that tests break, it says to nobody.
func Run(m *testing.M) int {
	mysql.SetLogger(new(mysql.NopLogger))
	defer sharedPostgres.end()
	defer sharedMySQL.end()
	defer sharedRedis.end()
	return m.Run()
}

// NewPostgres starts a PostgreSQL server for this test alone, with these lines
// added to its postgresql.conf.
func NewPostgres(t testing.TB, conf ...string) *Server {
	t.Helper()
	return own(t, newPostgres(conf))
}

// NewMySQL starts a MariaDB server for this test alone, with these lines added
// to its option file.
func NewMySQL(t testing.TB, conf ...string) *Server {
	t.Helper()
	return own(t, newMySQL(conf))
}

// NewPostgresElsewhere is NewPostgres in another time zone and with a clock that
// is ahead of this machine's.
func NewPostgresElsewhere(t testing.TB, zone string, ahead time.Duration, conf ...string) *Server {
	t.Helper()
	return elsewhere(t, newPostgres(conf), zone, ahead)
}

// NewMySQLElsewhere is NewMySQL likewise.
func NewMySQLElsewhere(t testing.TB, zone string, ahead time.Duration, conf ...string) *Server {
	t.Helper()
	return elsewhere(t, newMySQL(conf), zone, ahead)
}

func elsewhere(t testing.TB, s *Server, zone string, ahead time.Duration) *Server {
	t.Helper()
	lib, err := find("libfaketimeMT.so.1", "/usr/lib/*/faketime", "/usr/lib64/faketime")
	need(t, err)
	s.env = []string{
		"TZ=" + zone, "LD_PRELOAD=" + lib,
		fmt.Sprintf("FAKETIME=%+ds", int(ahead.Seconds())), "FAKETIME_DONT_FAKE_MONOTONIC=1",
	}
	return own(t, s)
}

// Inherited returns what start returns, or what it returned in the parent
// process: a test that is run again in a child process, as storetest does, goes
// on with the server that its parent started. The key names it, and is one test's.
func Inherited(t *testing.T, key string, start func() string) string {
	t.Helper()
	env := "SESSION2_TESTDB_" + key
	if dsn := os.Getenv(env); dsn != "" {
		return dsn
	}
	dsn := start()
	os.Setenv(env, dsn) // not t.Setenv, which parallel tests may not use
	t.Cleanup(func() { os.Unsetenv(env) })
	return dsn
}

// own starts a server that ends with the test.
func own(t testing.TB, s *Server) *Server {
	t.Helper()
	notShort(t)
	ends(t, s)
	need(t, s.create())
	return s
}

// ends makes a server end with the test.
func ends(t testing.TB, s *Server) {
	s.t = t
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the server's log ends:\n%s", s.log())
		}
		s.remove()
	})
}

// notShort skips the test under -short, as make check runs it: a server takes
// seconds to start.
func notShort(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("no database server is started under -short")
	}
}

// need ends the test if a server could not be had. It skips it only where
// nothing is installed and nobody demanded servers.
func need(t testing.TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, errMissing) && os.Getenv(envRequire) != "1":
		t.Skip(err)
	default:
		t.Fatal(err)
	}
}

// shared is a server that is started when first asked for.
type shared struct {
	env    string
	server func(conf []string) *Server

	mu  sync.Mutex
	s   *Server
	err error
}

var (
	sharedPostgres = &shared{env: envPostgres, server: newPostgres}
	sharedMySQL    = &shared{env: envMySQL, server: newMySQL}
)

// get returns the name of the server's data, which it leaves in the environment
// for child processes.
func (s *shared) get(t testing.TB) string {
	t.Helper()
	notShort(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	if os.Getenv(s.env) == "" && s.err == nil {
		s.s = s.server(nil)
		if s.err = s.s.create(); s.err == nil {
			os.Setenv(s.env, s.s.DSN())
		}
	}
	need(t, s.err)
	return os.Getenv(s.env)
}

func (s *shared) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.s != nil {
		s.s.remove()
	}
}

// startTimeout is how long a server may take to answer: it may have a crash to
// recover from, on a busy machine.
const startTimeout = 2 * time.Minute

// newPassword draws the password of a server: other users of this machine can
// reach it.
func newPassword() string { return rand.Text() }

// until calls f until it succeeds or gives up.
func until(timeout time.Duration, f func() (done bool, err error)) error {
	deadline := time.Now().Add(timeout)
	for {
		done, err := f()
		switch {
		case done:
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("not ready after %v: %w", timeout, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
