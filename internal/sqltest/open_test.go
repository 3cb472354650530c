package sqltest

import (
	"context"
	"crypto/rsa"
	"fmt"
	"log/slog"
	"math/big"
	"net/url"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
)

// sqlURL returns the server's URL, as Open takes it.
func sqlURL(t testing.TB, system, dsn string) *url.URL {
	t.Helper()
	if system == "mysql" {
		dsn = testdb.MySQLURL(t, dsn)
	}
	u, err := url.Parse(dsn)
	testsite.Must(t, err)
	return u
}

// openURL opens the store of a URL and more options, and sets it up.
func openURL(t testing.TB, u *url.URL, options string) sqlStore {
	t.Helper()
	u.RawQuery += options
	opened, err := session2.Open(t.Context(), u.String())
	testsite.Must(t, err)
	store := opened.(sqlStore)
	t.Cleanup(func() { store.Close() })
	testsite.Must(t, store.Setup(t.Context()))
	return store
}

func TestOpenSQL(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		for _, options := range []string{"", "&noprepare=true", "&timeout=10s&conns=2"} {
			u := sqlURL(t, sys.name, dsn)
			u.RawQuery += "&table=" + sqlTable(t.TempDir()) + options
			store, err := session2.Open(t.Context(), u.String())
			testsite.Must(t, err)
			useSQL(t, store.(sqlStore))
			testsite.Must(t, store.(sqlStore).Close())
			testsite.Must(t, store.(sqlStore).Close())
		}
	})
}

// TestOpenMySQLDriverIsQuiet finds what the driver says of broken connections in
// the default logger, at debug level, and nowhere else.
func TestOpenMySQLDriverIsQuiet(t *testing.T) {
	dsn := testdb.MySQL(t)
	p, proxied := viaProxy(t, dsn)
	book := &testsite.Log{}
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(book.Logger())
	store := openURL(t, sqlURL(t, "mysql", proxied), "&conns=1&table="+sqlTable(t.TempDir()))
	testsite.Must(t, store.Save(t.Context(), sqlRecord(1), 0))
	dropped := p.DropAnswer()
	testsite.Must(t, store.Delete(t.Context(), sqlRecord(1).ID))
	<-dropped
	text := book.String()
	if !strings.Contains(text, "DEBUG") || !strings.Contains(text, "MySQL driver") ||
		strings.Contains(text, "session2:session2") {
		t.Errorf("got the log %q, want what the driver said, at debug level", text)
	}
}

// TestOpenMySQLKeepsItsKey finds that all of a store's connections are made by what was
// registered with the driver when it was opened.
func TestOpenMySQLKeepsItsKey(t *testing.T) {
	const name = "session2_test"
	mysql.RegisterServerPubKey(name, &rsa.PublicKey{N: big.NewInt(15), E: 3})
	u := sqlURL(t, "mysql", testdb.MySQL(t))
	u.RawQuery += "&serverPubKey=" + name + "&table=" + sqlTable(t.TempDir())
	store, err := session2.Open(t.Context(), u.String())
	mysql.DeregisterServerPubKey(name)
	testsite.Must(t, err)
	t.Cleanup(func() { store.(sqlStore).Close() })
	testsite.Must(t, store.(sqlStore).Setup(t.Context()))
}

func TestOpenSQLRefusals(t *testing.T) {
	for _, test := range []struct{ url, says string }{
		{"postgres://u:hunter2@h/db?table=a%20b", "no name for a table"},
		{"postgres://u:hunter2@h/db?noprepare=perhaps", "noprepare"},
		{"postgres://u:hunter2@h/db?timeout=1", "timeout"},
		{"postgres://u:hunter2@h/db?sslmode=hunter2", "driver refuses"},
		{"postgres://u:hunter2@h:port/db", "not a URL"},
		{"postgres://u:hunter2@h/db?tabel=x", `unknown option "tabel"`},
		{"postgres://u:hunter2@h/db?statement_timeout=1", "set.statement_timeout"},
		{"postgres://u:hunter2@h/db?sslmode=require&sslmode=disable", "more than once"},
		{"postgres://u:hunter2@h/db?connlife=long", "connlife"},
		{"mysql://u:hunter2@h/db?set.sql_mode=ANSI&set.sql_mode=hunter2", "more than once"},
		{"mysql://u:hunter2@h/db?table=a%20b", "no name for a table"},
		{"mysql://u:hunter2@h/db?parseTime=hunter2", "driver refuses"},
		{"mysql://u:hunter2@h/db?conns=many", "conns"},
		{"mysql://u:hunter2@h/db?conns=-1", "conns"},
		{"mysql://u:12?hunter2@h/db", "slash is missing"},
		{"mysql://u:12?hunter2=1@h/db", "slash is missing"},
		{"mysql:///db?hunter2@h", "malformed options"},
		{"mysql://u:hunter2@h/db#x", "fragment"},
		{"postgres://u:hunter2@h/db?tabel=", `"tabel" has no value`},
		{"postgres://u:hunter2@h/db?noprepar", `"noprepar" has no value`},
		{"mysql://u:hunter2@h/db?tabel=x", `unknown option "tabel"`},
		{"mysql://u:hunter2@h/db?sql_mode=ANSI", "set.sql_mode"},
		{"mysql://u:hunter2@h/db?socket=/s", "refuses"},
		{"mysql://u:hunter2@/db", "refuses"},
		{"mysql://u:hunter2@h/db/more", "refuses"},
	} {
		_, err := session2.Open(t.Context(), test.url)
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), test.says) {
			t.Errorf("Open(%q): got %v, want it to say %q without the password", test.url, err, test.says)
		}
	}
}

// TestOpenMySQLGivesUpInTheServer finds that a statement which waits for a row
// ends in the server, too, soon after its call was given up.
func TestOpenMySQLGivesUpInTheServer(t *testing.T) {
	dsn := testdb.MySQL(t)
	table, db := sqlTable(t.TempDir()), openSQL(t, "mysql", dsn)
	patient, rec := sqlSystems[1].patient(t, db, table), sqlRecord(1)
	testsite.Must(t, patient.Setup(t.Context()))
	testsite.Must(t, patient.Save(t.Context(), rec, 0))
	store := sqlSystems[1].opened(t, dsn, "&timeout=300ms&table="+table)
	tx, err := db.Begin()
	testsite.Must(t, err)
	defer tx.Rollback()
	_, err = tx.Exec("UPDATE " + table + " SET created = created + 1")
	testsite.Must(t, err)
	bounded(t, "delete", context.DeadlineExceeded, func() error { return store.Delete(t.Context(), rec.ID) })
	testsite.Must(t, until(func() (bool, error) {
		var n int
		const query = "SELECT count(*) FROM information_schema.processlist WHERE info LIKE ?"
		err := db.QueryRow(query, "DELETE FROM `"+table+"%").Scan(&n)
		return n == 0, err
	}))
}

// TestOpenSQLSettings gives settings to the server.
func TestOpenSQLSettings(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		bad := map[string]string{"postgres": "set.default_transaction_read_only=on", "mysql": "set.sql_mode=%27%5C"}
		good := map[string]string{
			"postgres": "set.timezone=Asia/Tokyo&set.synchronous_commit=on",
			"mysql":    "set.sql_mode=ANSI&set.innodb_lock_wait_timeout=3",
		}
		for set, want := range map[string]bool{bad[sys.name]: false, good[sys.name]: true} {
			u := sqlURL(t, sys.name, dsn)
			u.RawQuery += "&" + set + "&table=" + sqlTable(t.TempDir())
			store, err := session2.Open(t.Context(), u.String())
			testsite.Must(t, err)
			if err := store.(sqlStore).Setup(t.Context()); (err == nil) != want {
				t.Errorf("%s: got %v, want success %v", set, err, want)
			}
			testsite.Must(t, store.(sqlStore).Close())
		}
	})
}

// TestOpenSQLOddNames logs in with a user and a password that a URL must encode.
func TestOpenSQLOddNames(t *testing.T) {
	const password = `p@ss:w/rd?#%&'"\ ü`
	create := map[string][]string{
		"postgres": {`CREATE ROLE "{u}" LOGIN SUPERUSER PASSWORD '{p}'`},
		"mysql":    {"CREATE USER `{u}`@'%' IDENTIFIED BY '{p}'", "GRANT ALL ON `{d}`.* TO `{u}`@'%'"},
	}
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		table := sqlTable(t.TempDir())
		name := "odd@user:" + table[:12]
		u := sqlURL(t, sys.name, dsn)
		literal := strings.ReplaceAll(password, "'", "''")
		if sys.name == "mysql" {
			literal = strings.ReplaceAll(literal, `\`, `\\`)
		}
		r := strings.NewReplacer("{u}", name, "{p}", literal, "{d}", strings.TrimPrefix(u.Path, "/"))
		for _, stmt := range create[sys.name] {
			_, err := openSQL(t, sys.driver, dsn).Exec(r.Replace(stmt))
			testsite.Must(t, err)
		}
		u.User = url.UserPassword(name, password)
		u.RawQuery += "&table=" + table
		store, err := session2.Open(t.Context(), u.String())
		testsite.Must(t, err)
		useSQL(t, store.(sqlStore))
		testsite.Must(t, store.(sqlStore).Close())
	})
}

// TestOpenSQLReplacesConnections finds that a store of Open uses no connection
// for longer than it is told: the server lets nobody write who came while it was
// read-only, as a primary that was replaced does.
func TestOpenSQLReplacesConnections(t *testing.T) {
	dsn := testdb.Postgres(t)
	table := sqlTable(t.TempDir())
	db := openSQL(t, "postgres", dsn)
	role := func(stmt string) {
		t.Helper()
		_, err := db.Exec(fmt.Sprintf(stmt, table))
		testsite.Must(t, err)
	}
	role(`CREATE ROLE %s LOGIN SUPERUSER PASSWORD 'x'`)
	u := sqlURL(t, "postgres", dsn)
	u.User = url.UserPassword(table, "x")
	store := openURL(t, u, "&connlife=100ms&table="+table)

	role(`ALTER ROLE %s SET default_transaction_read_only = on`)
	rec := sqlRecord(1)
	testsite.Must(t, until(func() (bool, error) { return store.Save(t.Context(), rec, 0) != nil, nil }))
	role(`ALTER ROLE %s RESET default_transaction_read_only`)
	testsite.Must(t, until(func() (bool, error) { return store.Save(t.Context(), rec, 0) == nil, nil }))
}
