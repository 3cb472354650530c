package sqltest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
)

func TestSQLSetupAtOnce(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		setUpAtOnce(t, sys, dsn, sqlTable(t.TempDir()))
	})
}

// setUpAtOnce has 16 stores set up one table.
func setUpAtOnce(t *testing.T, sys sqlSystem, dsn, table string) {
	t.Helper()
	var wg sync.WaitGroup
	for range 16 {
		store := sys.store(t, openSQL(t, sys.driver, dsn), session2.SQLOptions{Table: table})
		wg.Go(func() {
			if err := store.Setup(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestSQLBeforeSetup(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		store := sys.store(t, openSQL(t, sys.driver, dsn), session2.SQLOptions{})
		_, loadErr := store.Load(t.Context(), session2.ID{})
		for _, err := range []error{loadErr, store.Save(t.Context(), sqlRecord(1), 0)} {
			if !errors.Is(err, session2.ErrNotSetUp) ||
				!strings.Contains(err.Error(), "the table does not exist, call Setup first") {
				t.Errorf("got %v, want it to say that Setup is missing", err)
			}
		}
	})
}

func TestSQLLaterSchema(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		db, table := openSQL(t, sys.driver, dsn), sqlTable(t.TempDir())
		store := sys.store(t, db, session2.SQLOptions{Table: table})
		testsite.Must(t, store.Setup(t.Context()))
		_, err := db.Exec("INSERT INTO " + table + "_meta VALUES (99)")
		testsite.Must(t, err)
		if err := store.Setup(t.Context()); err == nil || !strings.Contains(err.Error(), "version 99") {
			t.Errorf("got %v, want it to refuse version 99", err)
		}
	})
}

// TestSQLLeastPrivilege makes the tables by Schema, and uses them as somebody
// who may read and write rows and nothing else.
func TestSQLLeastPrivilege(t *testing.T) {
	grants := map[string][]string{
		"postgres": {`CREATE ROLE {u} LOGIN PASSWORD 'pw'`, `GRANT SELECT, INSERT, UPDATE, DELETE ON {t} TO {u}`,
			`GRANT SELECT ON {t}_meta TO {u}`},
		"mysql": {`CREATE USER {u}@'%' IDENTIFIED BY 'pw'`, `GRANT SELECT, INSERT, UPDATE, DELETE ON {t} TO {u}@'%'`,
			`GRANT SELECT ON {t}_meta TO {u}@'%'`},
	}
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		db, table := openSQL(t, sys.driver, dsn), sqlTable(t.TempDir())
		user := "u" + table
		admin := sys.store(t, db, session2.SQLOptions{Table: table})
		r := strings.NewReplacer("{u}", user, "{t}", table)
		for _, stmt := range slices.Concat(admin.Schema(), admin.Schema(), grants[sys.name]) {
			if _, err := db.Exec(r.Replace(stmt)); err != nil {
				t.Fatalf("%s: %v", stmt, err)
			}
		}
		store := sys.store(t, openSQL(t, sys.driver, asUser(sys.name, dsn, user)), session2.SQLOptions{Table: table})
		useSQL(t, store)
	})
}

// asUser returns the data source name for another user.
func asUser(system, dsn, user string) string {
	if system == "mysql" {
		return user + ":pw" + dsn[strings.LastIndex(dsn, "@"):]
	}
	u, _ := url.Parse(dsn)
	u.User = url.UserPassword(user, "pw")
	return u.String()
}

// useSQL calls every method once, with Setup first.
func useSQL(t *testing.T, store sqlStore) {
	t.Helper()
	ctx, rec := t.Context(), sqlRecord(255)
	testsite.Must(t, store.Setup(ctx))
	testsite.Must(t, store.Save(ctx, rec, 0))
	next := rec
	next.Version, next.User = 9, "Alice"
	testsite.Must(t, store.Save(ctx, next, rec.Version))
	next.Accessed = next.Accessed.Add(time.Second)
	testsite.Must(t, store.Touch(ctx, rec.ID, next.Accessed, time.Time{}))
	for _, user := range []string{"alice", "ALICE", "Alice "} {
		if n, err := store.DeleteUser(ctx, user); n != 0 || err != nil {
			t.Errorf("DeleteUser(%q): got %d, %v, want 0", user, n, err)
		}
	}
	got, err := store.Load(ctx, rec.ID)
	if err != nil || !got.Accessed.Equal(next.Accessed) || !got.Expires.Equal(rec.Expires) || got.Version != 9 {
		t.Errorf("got %+v, %v, want %+v", got, err, next)
	}
	if n, err := store.DeleteOld(ctx, time.Hour); n != 0 || err != nil {
		t.Errorf("DeleteOld: got %d, %v, want 0", n, err)
	}
	if n, err := store.DeleteUser(ctx, "Alice"); n != 1 || err != nil {
		t.Errorf("DeleteUser: got %d, %v, want 1", n, err)
	}
}

func withSettings(dsn, set string) string {
	if strings.Contains(dsn, "?") {
		return dsn + "&" + set
	}
	return dsn + "?" + set
}

// TestPostgresTouchIsHeapOnly counts the updates that write no index.
func TestPostgresTouchIsHeapOnly(t *testing.T) {
	sys := sqlSystems[0]
	db, table := openSQL(t, sys.driver, sys.server(t)), sqlTable(t.TempDir())
	db.SetMaxOpenConns(1) // a session's counters are its own until it is idle
	store := sys.store(t, db, session2.SQLOptions{Table: table})
	testsite.Must(t, store.Setup(t.Context()))
	for i := range 50 {
		testsite.Must(t, store.Save(t.Context(), sqlRecord(byte(i+1)), 0))
	}
	for i := range 1000 {
		rec := sqlRecord(byte(i%50 + 1))
		later := time.Duration(i) * time.Hour
		testsite.Must(t, store.Touch(t.Context(), rec.ID, rec.Accessed.Add(later), rec.Expires.Add(later)))
	}
	var all, hot int
	_, err := db.Exec(`SELECT pg_stat_force_next_flush()`)
	testsite.Must(t, err)
	row := db.QueryRow(`SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = $1`, table)
	testsite.Must(t, row.Scan(&all, &hot))
	if all != 1000 || hot*10 < all*9 {
		t.Errorf("got %d heap-only of %d updates, want 9 in 10 of 1000", hot, all)
	}
	t.Logf("%d of %d updates were heap-only", hot, all)
}

func TestSQLTableNames(t *testing.T) {
	db := unconnected(t)
	for _, sys := range sqlSystems {
		for _, name := range []string{
			"a b", `a"b`, "a`b", "1a", "a.b.c", ".", "a.", "ä", "a;b", "a_meta", "s.a_idx",
			strings.Repeat("a", 41),
		} {
			_, err := sys.open(db, &session2.SQLOptions{Table: name})
			if err == nil || !strings.Contains(err.Error(), "name") {
				t.Errorf("%s: table %q: got %v, want it refused", sys.name, name, err)
			}
		}
		if _, err := sys.open(nil, nil); err == nil || !strings.Contains(err.Error(), "database") {
			t.Errorf("%s: without a database: got %v, want it refused", sys.name, err)
		}
	}
}

// TestSQLSetupAfterDrop drops the table of sessions and not the one that notes
// the version: Setup makes it anew.
func TestSQLSetupAfterDrop(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		table, db := sqlTable(t.TempDir()), openSQL(t, sys.driver, dsn)
		store := sys.store(t, db, session2.SQLOptions{Table: table})
		testsite.Must(t, store.Setup(t.Context()))
		_, err := db.Exec("DROP TABLE " + table)
		testsite.Must(t, err)
		useSQL(t, store)
	})
}

// TestSQLForeignTable sets up where somebody else's table has the name: Setup
// says so, each time, and leaves that table alone.
func TestSQLForeignTable(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		table, db := sqlTable(t.TempDir()), openSQL(t, sys.driver, dsn)
		for _, stmt := range []string{"CREATE TABLE %s (id int)", "INSERT INTO %s VALUES (7)"} {
			_, err := db.Exec(fmt.Sprintf(stmt, table))
			testsite.Must(t, err)
		}
		store := sys.store(t, db, session2.SQLOptions{Table: table})
		for range 2 {
			err := store.Setup(t.Context())
			if err == nil || strings.Count(err.Error(), "not one of this store's") != 1 ||
				!errors.Is(err, fs.ErrPermission) {
				t.Errorf("got %v, want it to say once whose table it is not, and to match %v", err, fs.ErrPermission)
			}
		}
		var id int
		testsite.Must(t, db.QueryRow("SELECT id FROM "+table).Scan(&id))
	})
}

func TestSQLClosed(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		store, _ := sys.tapped(t, dsn)
		testsite.Must(t, store.Close())
		if err := store.Delete(t.Context(), session2.ID{}); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("got %v, want %v", err, fs.ErrClosed)
		}
		if err := store.Setup(t.Context()); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("Setup: got %v, want %v", err, fs.ErrClosed)
		}
	})
}

// TestSQLSetupInProcesses has 16 processes set up one table at once.
func TestSQLSetupInProcesses(t *testing.T) {
	const env = "SESSION2_TEST_SETUP_TABLE"
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		if table := os.Getenv(env); table != "" {
			db := openSQL(t, sys.driver, dsn)
			testsite.Must(t, db.Ping())
			fmt.Println("ready")
			fmt.Scanln() // until all are
			testsite.Must(t, sys.store(t, db, session2.SQLOptions{Table: table}).Setup(t.Context()))
			return
		}
		table := sqlTable(t.TempDir())
		children := make([]*child, 16)
		for i := range children {
			children[i] = startChild(t, env+"="+table)
		}
		for _, c := range children {
			if line, err := c.out.ReadString('\n'); line != "ready\n" {
				t.Fatalf("got %q, %v, want a child that is ready", line, err)
			}
		}
		for _, c := range children {
			c.in.Close()
		}
		for _, c := range children {
			out, _ := io.ReadAll(c.out)
			if err := c.cmd.Wait(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		}
		useSQL(t, sys.store(t, openSQL(t, sys.driver, dsn), session2.SQLOptions{Table: table}))
	})
}

// child is this test, run again in another process.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startChild(t *testing.T, env string) *child {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$")
	cmd.Env = append(os.Environ(), env)
	in, err := cmd.StdinPipe()
	testsite.Must(t, err)
	out, err := cmd.StdoutPipe()
	testsite.Must(t, err)
	testsite.Must(t, cmd.Start())
	return &child{cmd, in, bufio.NewReader(out)}
}

// TestSQLSharedDatabase runs two managers in one database, one of them on a
// table of another schema: what one does the other does not see.
func TestSQLSharedDatabase(t *testing.T) {
	create := map[string]string{"postgres": "CREATE SCHEMA ", "mysql": "CREATE DATABASE "}
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		db, schema := openSQL(t, sys.driver, dsn), "s"+sqlTable(t.TempDir())
		_, err := db.Exec(create[sys.name] + schema)
		testsite.Must(t, err)
		shop := sys.store(t, db, session2.SQLOptions{Table: sqlTable(t.TempDir())})
		admin := sys.store(t, db, session2.SQLOptions{Table: schema + ".Admin_Sessions"})
		for _, store := range []sqlStore{shop, admin} {
			testsite.Must(t, store.Setup(t.Context()))
			testsite.Must(t, store.Save(t.Context(), sqlRecord(7), 0))
		}
		for _, m := range []*session2.Manager{newManager(t, shop), newManager(t, admin)} {
			if n, err := m.RevokeUser(t.Context(), "alice"); n != 1 || err != nil {
				t.Errorf("RevokeUser: got %d, %v, want 1 of its own", n, err)
			}
		}
	})
}

func newManager(t *testing.T, store session2.Store) *session2.Manager {
	t.Helper()
	m, err := session2.NewManager(store, session2.Config{})
	testsite.Must(t, err)
	return m
}

// TestMySQLAutocommitOff finds that Setup refuses connections on which the
// store's statements would never be committed.
func TestMySQLAutocommitOff(t *testing.T) {
	db := openSQL(t, "mysql", withSettings(testdb.MySQL(t), "autocommit=0"))
	store := sqlSystems[1].store(t, db, session2.SQLOptions{})
	if err := store.Setup(t.Context()); err == nil || !strings.Contains(err.Error(), "autocommit is off") {
		t.Errorf("got %v, want it to say that autocommit is off", err)
	}
}
