package sqlite_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/stores/sqlite"
)

// TestCapabilities finds that the store promises what the settings of the application's
// connections keep.
func TestCapabilities(t *testing.T) {
	each(t, func(t *testing.T, sys system) {
		for _, c := range []struct {
			journal, synchronous string
			durable              bool
		}{
			{"wal", "FULL", true}, {"wal", "EXTRA", true}, {"wal", "NORMAL", false}, {"wal", "OFF", false},
			{"delete", "FULL", false}, {"delete", "EXTRA", true}, {"truncate", "FULL", true},
			{"persist", "NORMAL", false}, {"memory", "EXTRA", false},
		} {
			db := sys.open(t, "file:"+filepath.Join(t.TempDir(), "app.db"))
			db.SetMaxOpenConns(1)
			_, err := db.Exec("PRAGMA journal_mode = " + c.journal + "; PRAGMA synchronous = " + c.synchronous)
			must(t, err)
			want := session2.Capabilities{ThreadSafe: true, MultiprocessSafe: true, Durable: c.durable}
			if got := store(t, db).Capabilities(); got != want {
				t.Errorf("%s, %s: got %+v, want %+v", c.journal, c.synchronous, got, want)
			}
		}
		memory := sys.open(t, ":memory:")
		memory.SetMaxOpenConns(1)
		if got := store(t, memory).Capabilities(); got != (session2.Capabilities{ThreadSafe: true}) {
			t.Errorf("in memory: got %+v", got)
		}
		// It holds for one connection, and the pool may have more.
		db := sys.open(t, "file:"+filepath.Join(t.TempDir(), "app.db"))
		_, err := db.Exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")
		must(t, err)
		other, err := db.Conn(t.Context())
		must(t, err)
		_, err = other.ExecContext(t.Context(), "PRAGMA synchronous = FULL")
		must(t, errors.Join(err, other.Close()))
		if store(t, db).Capabilities().Durable && sys.driver == "sqlite3" { // whose default in WAL mode is NORMAL
			t.Error("it is durable on one connection of two")
		}
	})
}

// TestNotSetUp calls a store before Setup, and Setup where it must not succeed.
func TestNotSetUp(t *testing.T) {
	each(t, func(t *testing.T, sys system) {
		db := sys.file(t, filepath.Join(t.TempDir(), "app.db"))
		s, err := sqlite.NewStore(db, nil)
		must(t, err)
		if err := s.Save(t.Context(), record(1), 0); !errors.Is(err, session2.ErrNotSetUp) {
			t.Errorf("got %v, want %v", err, session2.ErrNotSetUp)
		}
		must(t, s.CheckSchema(t.Context()))
		_, err = db.Exec("CREATE TABLE foreigner (id BLOB PRIMARY KEY)")
		must(t, err)
		foreign, err := sqlite.NewStore(db, &sqlite.Options{Table: "foreigner"})
		must(t, err)
		if err := foreign.Setup(t.Context()); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "not one") {
			t.Errorf("over another's table: got %v", err)
		}
		must(t, s.Setup(t.Context()))
		_, err = db.Exec("UPDATE session2_sessions_meta SET version = 2")
		must(t, err)
		if err := s.Setup(t.Context()); err == nil || !strings.Contains(err.Error(), "later release") {
			t.Errorf("over a later schema: got %v", err)
		}
		if err := s.CheckSchema(t.Context()); err == nil || !strings.Contains(err.Error(), "later release") {
			t.Errorf("over a later schema: got %v", err)
		}
		for _, table := range []string{"a b", "sqlite_x", "x_meta", "x_user_idx", `x"`, "1x"} {
			if _, err := sqlite.NewStore(db, &sqlite.Options{Table: table}); err == nil {
				t.Errorf("the table %q is taken", table)
			}
		}
		must(t, s.Close())
		if _, err := s.Load(t.Context(), record(1).ID); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("closed: got %v", err)
		}
		must(t, db.Ping()) // it is the application's
		must(t, db.Close())
		if _, err := foreign.Load(t.Context(), record(1).ID); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("the application closed it: got %v", err)
		}
	})
}

// TestRefusals has the database refuse: that is a definite no, and changes nothing.
func TestRefusals(t *testing.T) {
	each(t, func(t *testing.T, sys system) {
		path := filepath.Join(t.TempDir(), "app.db")
		db := sys.file(t, path)
		db.SetMaxOpenConns(1)
		s := store(t, db)
		rec := record(1)
		must(t, s.Save(t.Context(), rec, 0))
		large := rec
		large.Version++
		large.Data = make([]byte, 1<<20)
		saves := func(want error) {
			t.Helper()
			if err := s.Save(t.Context(), large, rec.Version); !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
			got, err := s.Load(t.Context(), rec.ID)
			if err != nil || got.Version != rec.Version {
				t.Errorf("got version %d, %v, want %d", got.Version, err, rec.Version)
			}
		}
		pragma := func(text string) {
			t.Helper()
			_, err := db.Exec("PRAGMA " + text)
			must(t, err)
		}
		pragma("max_page_count = 20")
		saves(syscall.ENOSPC)
		pragma("max_page_count = 100000")
		pragma("query_only = on")
		saves(fs.ErrPermission)
		pragma("query_only = off")
		must(t, s.Save(t.Context(), large, rec.Version))

		reader, err := sqlite.NewStore(sys.open(t, "file:"+path+"?mode=ro"), nil)
		must(t, err)
		must(t, reader.Setup(t.Context())) // all is there
		if got, err := reader.Load(t.Context(), rec.ID); err != nil || got.Version != large.Version {
			t.Errorf("got version %d, %v, want %d", got.Version, err, large.Version)
		}
		if err := reader.Delete(t.Context(), rec.ID); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("read-only: got %v, want %v", err, fs.ErrPermission)
		}
	})
}

// TestErrors goes through the errors that no test here can bring about.
func TestErrors(t *testing.T) {
	for text, want := range map[string]error{
		"string or blob too big":                                   session2.ErrTooLarge,
		"constraint failed: UNIQUE constraint failed: t.id (1555)": fs.ErrPermission,
		"not authorized":                                           fs.ErrPermission,
		"no such column: data":                                     fs.ErrPermission,
	} {
		if err := sqlite.Explain(errors.New(text)); !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	if err := sqlite.Registered([]string{"postgres"}); err == nil || !strings.Contains(err.Error(), "modernc.org/sqlite") {
		t.Errorf("without a driver: got %v", err)
	}
}

// TestIndexed finds that no query reads the whole table, and that an access moves no index.
func TestIndexed(t *testing.T) {
	db := systems[0].file(t, filepath.Join(t.TempDir(), "app.db"))
	s := store(t, db)
	for _, query := range sqlite.Indexed() {
		var id, parent, unused int
		var detail string
		rows, err := db.Query("EXPLAIN QUERY PLAN "+query, make([]any, max(strings.Count(query, "?"), 8))[:params(query)]...)
		must(t, err)
		for rows.Next() {
			must(t, rows.Scan(&id, &parent, &unused, &detail))
			if strings.Contains(detail, "SCAN") || strings.Contains(detail, "TEMP B-TREE") {
				t.Errorf("%s: %s", query, detail)
			}
		}
		must(t, rows.Err())
	}
	rec := record(1)
	must(t, s.Save(t.Context(), rec, 0))
	next := rec
	next.Version++
	next.Accessed, next.Expires = rec.Accessed.Add(1e9), rec.Expires.Add(1e9)
	must(t, s.Save(t.Context(), next, rec.Version))
	must(t, s.Touch(t.Context(), rec.ID, next.Accessed.Add(1e9), next.Expires.Add(1e9)))
	var accessed, expires int64
	must(t, db.QueryRow("SELECT by_accessed, by_expires FROM session2_sessions").Scan(&accessed, &expires))
	if accessed != rec.Accessed.UnixMicro() || expires != rec.Expires.UnixMicro() {
		t.Error("an access moves an index")
	}
}

// params returns how many arguments a query takes.
func params(query string) int {
	for n := 9; n > 0; n-- {
		if strings.Contains(query, fmt.Sprintf("?%d", n)) {
			return n
		}
	}
	return strings.Count(query, "?")
}

// TestOpen opens a file by its URL: Setup makes it, and nothing else does.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	url := "sqlite:" + filepath.Join(dir, "a file?%#.db")
	url = strings.NewReplacer("?", "%3F", "%", "%25", "#", "%23").Replace(url)
	url = strings.Replace(url, "%253F", "%3F", 1)
	opened, err := sqlite.Open(t.Context(), url+"?table=logins&timeout=1m")
	must(t, err)
	s := opened.(*sqlite.Store)
	if err := s.Save(t.Context(), record(1), 0); !errors.Is(err, session2.ErrNotSetUp) {
		t.Errorf("got %v, want %v", err, session2.ErrNotSetUp)
	}
	if names := list(t, dir); len(names) != 0 {
		t.Errorf("a look makes %v", names)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := s.Setup(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	must(t, s.Save(t.Context(), record(1), 0))
	info, err := os.Stat(filepath.Join(dir, "a file?%#.db"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want 0600", info, err)
	}
	if want := (session2.Capabilities{ThreadSafe: true, MultiprocessSafe: true, Durable: true}); s.Capabilities() != want {
		t.Errorf("got %+v, want %+v", s.Capabilities(), want)
	}
	must(t, session2.Close(s))
	must(t, session2.Close(s))
	if names := list(t, dir); len(names) != 1 {
		t.Errorf("got %v, want the file alone", names)
	}
}

// TestOpenAtOnce has several processes, as it were, set up one file that is not there. None
// may take another's file away.
func TestOpenAtOnce(t *testing.T) {
	for range 5 {
		url := "sqlite:" + filepath.Join(t.TempDir(), "sessions.db") + "?timeout=1m"
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				s, err := sqlite.Open(t.Context(), url)
				if err == nil {
					defer session2.Close(s)
					err = errors.Join(session2.Setup(t.Context(), s), s.Save(t.Context(), record(byte(i+1)), 0))
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		s, err := sqlite.Open(t.Context(), url)
		must(t, err)
		for i := range 4 {
			if _, err := s.Load(t.Context(), record(byte(i+1)).ID); err != nil {
				t.Error(err)
			}
		}
		must(t, session2.Close(s))
	}
}

func list(t testing.TB, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestOpenKeepsTheMode opens the file of an application, which is in another journal mode.
func TestOpenKeepsTheMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.db")
	db := systems[0].open(t, "file:"+path)
	_, err := db.Exec("CREATE TABLE app (n INTEGER)")
	must(t, err)
	s, err := sqlite.Open(t.Context(), "sqlite:"+path)
	must(t, err)
	defer session2.Close(s)
	must(t, session2.Setup(t.Context(), s))
	must(t, s.Save(t.Context(), record(1), 0))
	var mode string
	must(t, db.QueryRow("PRAGMA journal_mode").Scan(&mode))
	if mode != "delete" {
		t.Errorf("got the journal mode %s", mode)
	}
}

// TestOpenRefuses gives URLs that are none, and finds that no error repeats them.
func TestOpenRefuses(t *testing.T) {
	for _, url := range []string{
		"sqlite:", "sqlite::memory:", "sqlite://hunter2/x.db", "sqlite://u:hunter2@/x.db", "sqlite:x.db#hunter2",
		"sqlite:x.db?mode=hunter2", "sqlite:x.db?timeout=hunter2", "sqlite:x.db?table=", "sqlite:x.db?nosync=hunter2",
		"sqlite:x.db?table=a&table=b", "sqlite:%zz", "sqlite:x.db?%zz",
	} {
		s, err := sqlite.Open(t.Context(), url)
		if s != nil || err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, %v", url, s, err)
		}
	}
	lax, err := sqlite.Open(t.Context(), "sqlite:x.db?nosync=true")
	must(t, err)
	if lax.(*sqlite.Store).Capabilities().Durable {
		t.Error("nosync: it is durable")
	}
	must(t, session2.Close(lax))
}

// TestCommand runs the command line that knows SQLite.
func TestCommand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	run := func(want int, args ...string) string {
		t.Helper()
		cmd := process(t, "command", args...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("session2 %q: got status %d, want %d\n%s", args, got, want, out.String())
		}
		return out.String()
	}
	url := "sqlite:" + path
	if out := run(0, "setup", "-n", url); !strings.Contains(out, "CREATE TABLE") {
		t.Errorf("got %q, want the schema", out)
	}
	if out := run(1, "list", url); !strings.Contains(out, "not set up") {
		t.Errorf("got %q", out)
	}
	empty := "file:" + t.TempDir()
	run(0, "setup", empty)
	run(0, "copy", "-n", empty, url)
	if _, err := os.Stat(path); err == nil {
		t.Error("copy -n has made the file")
	}
	if out := run(0, "copy", empty, url); !strings.Contains(out, "made one") {
		t.Errorf("got %q, want to be told that there was no store", out)
	}
	run(0, "setup", url)
	s, err := openAs("sqlite3", path)
	must(t, err)
	m, err := session2.NewManager(s, session2.Config{})
	must(t, err)
	alice, err := m.Open(t.Context(), "")
	must(t, err)
	alice.SetUser("alice")
	must(t, alice.Commit(t.Context()))
	for _, args := range [][]string{{"list", url}, {"show", url, alice.ID().String()}} {
		if out := run(0, args...); !strings.Contains(out, "alice") {
			t.Errorf("%s: got %q", args[0], out)
		}
	}
	run(0, "check", url)
	run(0, "copy", url, url+".copy")
	run(0, "delete-user", url, "alice")
	if out := run(0, "list", url+".copy"); !strings.Contains(out, "alice") {
		t.Errorf("the copy: got %q", out)
	}
	run(0, "delete-old", "-age", "30d", url)
}
