package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3"
	_ "modernc.org/sqlite"

	"github.com/session2/session2"
	"github.com/session2/session2/command"
	"github.com/session2/session2/stores/sqlite"
	"github.com/session2/session2/storetest"
)

// roles are what this binary does as another process, if the variable names one: the
// arguments are those that follow.
var roles = map[string]func(args []string) int{
	"command": func(args []string) int {
		return command.Main(args, map[string]session2.OpenFunc{"sqlite": sqlite.Open})
	},
	"write": write,
	"serve": serve,
}

const roleVariable = "SESSION2_SQLITE_ROLE"

func TestMain(m *testing.M) {
	if role := roles[os.Getenv(roleVariable)]; role != nil {
		os.Exit(role(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// process returns this binary as another process in a role.
func process(t testing.TB, role string, args ...string) *exec.Cmd {
	t.Helper()
	binary, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	return cmd
}

// A system is a driver, and how an application names a file to it.
type system struct {
	driver string
	dsn    func(path string) string
}

var systems = []system{
	{"sqlite", func(path string) string {
		return "file:" + path + "?_pragma=busy_timeout(100)&_pragma=journal_mode(wal)&_pragma=synchronous(full)"
	}},
	{"sqlite3", func(path string) string {
		return "file:" + path + "?_busy_timeout=100&_journal_mode=WAL&_synchronous=FULL"
	}},
}

// each runs a test with both drivers.
func each(t *testing.T, test func(t *testing.T, sys system)) {
	for _, sys := range systems {
		t.Run(sys.driver, func(t *testing.T) { test(t, sys) })
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens a database as an application does, with its settings.
func (sys system) open(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(sys.driver, dsn)
	must(t, err)
	db.SetMaxIdleConns(16) // a connection made anew for each call would be most of the work
	t.Cleanup(func() { db.Close() })
	return db
}

// file opens a file as the documentation of NewStore says.
func (sys system) file(t testing.TB, path string) *sql.DB { return sys.open(t, sys.dsn(path)) }

// store returns a store that is set up. A busy machine may need more than the default
// timeout.
func store(t testing.TB, db *sql.DB) *sqlite.Store {
	t.Helper()
	s, err := sqlite.NewStore(db, &sqlite.Options{Timeout: time.Minute})
	must(t, err)
	must(t, s.Setup(context.WithoutCancel(t.Context())))
	return s
}

// record returns a new record.
func record(b byte) session2.Record {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return session2.Record{
		ID: session2.ID{b}, Version: session2.Version(b) << 56, User: "alice",
		Created: now, Accessed: now, Expires: now.Add(time.Hour), Data: []byte("data"),
	}
}

// damage makes a record of the file one that cannot be read.
func (sys system) damage(name string) func(t testing.TB, dir string, id session2.ID) {
	return func(t testing.TB, dir string, id session2.ID) {
		db := sys.file(t, filepath.Join(dir, name))
		_, err := db.Exec("UPDATE session2_sessions SET version = 0 WHERE id = ?", id[:])
		must(t, errors.Join(err, db.Close()))
	}
}

// TestStore is the suite over the application's pool, with mattn's driver.
func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t testing.TB, dir string) session2.Store {
		return store(t, systems[1].file(t, filepath.Join(dir, "app.db")))
	}, &storetest.Options{Corrupt: systems[1].damage("app.db")})
}

// TestOpenedStore is the suite by URL, with modernc's driver, which is the one that Open
// prefers. It takes most of the time of these tests, as each pass over modernc's does.
func TestOpenedStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t testing.TB, dir string) session2.Store {
		ctx := context.WithoutCancel(t.Context())
		s, err := sqlite.Open(ctx, "sqlite:"+filepath.Join(dir, "sessions.db")+"?timeout=1m")
		must(t, err)
		must(t, session2.Setup(ctx, s))
		return s
	}, &storetest.Options{Corrupt: systems[0].damage("sessions.db")})
}
