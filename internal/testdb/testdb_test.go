package testdb

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

var constructors = map[string]func(t testing.TB, conf ...string) *Server{"postgres": NewPostgres, "mysql": NewMySQL}

// TestServer takes a server through its life: what was committed is there after
// each end.
func TestServer(t *testing.T) {
	for driver, newServer := range constructors {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			db, err := sql.Open(driver, s.DSN())
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			run(t, db, "CREATE TABLE n (v int)")
			run(t, db, "INSERT INTO n VALUES (1)")
			s.Kill()
			if err := db.Ping(); err == nil {
				t.Fatal("a killed server answers")
			}
			s.Start()
			run(t, db, "INSERT INTO n VALUES (2)")
			s.Stop()
			s.Start()
			if got := count(t, db); got != 2 {
				t.Errorf("got %d rows, want 2", got)
			}
			s.Pause()
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			go db.PingContext(ctx) // lib/pq waits for good
			<-ctx.Done()
			s.Resume()
			if got := count(t, db); got != 2 {
				t.Errorf("after a pause: got %d rows, want 2", got)
			}
		})
	}
}

func run(t *testing.T, db *sql.DB, query string) {
	t.Helper()
	var err error
	for range 3 { // a pool finds out that its connections are broken
		if _, err = db.Exec(query); err == nil {
			return
		}
	}
	t.Fatal(err)
}

func count(t *testing.T, db *sql.DB) (n int) {
	t.Helper()
	if err := db.QueryRow("SELECT count(*) FROM n").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestShared finds that the shared servers are the same at each call, and in a
// child process.
func TestShared(t *testing.T) {
	const env = "SESSION2_TESTDB_CHILD"
	names := Postgres(t) + " " + MySQL(t)
	if want := os.Getenv(env); want != "" {
		if names != want {
			t.Error("the child has other servers")
		}
		return
	}
	if Postgres(t)+" "+MySQL(t) != names {
		t.Error("other servers at the second call")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestShared$")
	cmd.Env = append(os.Environ(), env+"="+names)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("child: %v\n%s", err, out)
	}
}

func TestLeftoversAreRemoved(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(parent(), fmt.Sprintf("%s%d-postgres-1", folderPrefix, cmd.Process.Pid))
	living := filepath.Join(parent(), fmt.Sprintf("%s%d-postgres-1", folderPrefix, os.Getpid()))
	for _, dir := range []string{dead, living} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(dir)
	}
	removeLeftovers()
	if _, err := os.Stat(dead); err == nil {
		t.Error("the directory of a process that is gone is still there")
	}
	if _, err := os.Stat(living); err != nil {
		t.Error(err)
	}
}
