package sqltest

import (
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"

	_ "github.com/lib/pq"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
	"github.com/session2/session2/storetest"
)

// sqlTable returns the name of a table for the data that dir names.
func sqlTable(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return fmt.Sprintf("t_%x", sum[:12])
}

func openSQL(t testing.TB, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxIdleConns(32) // a connection made anew for each call would be most of the work
	t.Cleanup(func() { db.Close() })
	return db
}

func openPostgres(t testing.TB, dsn string, opts session2.SQLOptions) *session2.PostgresStore {
	t.Helper()
	store, err := session2.NewPostgresStore(openSQL(t, "postgres", dsn), &opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	return store
}

func TestPostgresStore(t *testing.T) {
	t.Parallel()
	dsn := testdb.Postgres(t)
	storetest.Run(t, func(t testing.TB, dir string) session2.Store {
		return openPostgres(t, dsn, session2.SQLOptions{Table: sqlTable(dir)})
	}, &storetest.Options{Corrupt: sqlCorrupt("postgres", dsn, "UPDATE %s SET version = 0 WHERE id = $1")})
}

func openMySQL(t testing.TB, dsn string, opts session2.SQLOptions) *session2.MySQLStore {
	t.Helper()
	store, err := session2.NewMySQLStore(openSQL(t, "mysql", dsn), &opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	return store
}

func TestMySQLStore(t *testing.T) {
	t.Parallel()
	dsn := testdb.MySQL(t)
	storetest.Run(t, func(t testing.TB, dir string) session2.Store {
		return openMySQL(t, dsn, session2.SQLOptions{Table: sqlTable(dir)})
	}, &storetest.Options{Corrupt: sqlCorrupt("mysql", dsn, "UPDATE %s SET version = 0 WHERE id = ?")})
}

// TestSQLTooLarge saves what a table cannot hold: the answer says so, and what
// is there stays.
func TestSQLTooLarge(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		store := openURL(t, sqlURL(t, sys.name, dsn), "&table="+sqlTable(t.TempDir()))
		rec := sqlRecord(1)
		testsite.Must(t, store.Save(t.Context(), rec, 0))
		large := func(change func(*session2.Record)) {
			t.Helper()
			next := rec
			next.Version++
			change(&next)
			if err := store.Save(t.Context(), next, rec.Version); !errors.Is(err, session2.ErrTooLarge) {
				t.Errorf("got %v, want %v", err, session2.ErrTooLarge)
			}
		}
		large(func(r *session2.Record) { r.User = strings.Repeat("u", 1025) })
		if sys.name == "mysql" { // PostgreSQL takes a gigabyte
			large(func(r *session2.Record) { r.Data = make([]byte, 9<<20) })
			large(func(r *session2.Record) { r.Data = make([]byte, 17<<20) })
		}
		got, err := store.Load(t.Context(), rec.ID)
		if err != nil || got.Version != rec.Version {
			t.Errorf("got %v, %v, want version %v", got.Version, err, rec.Version)
		}
	})
}

// sqlCorrupt damages records as far as the columns' types let anybody.
func sqlCorrupt(driver, dsn, query string) func(testing.TB, string, session2.ID) {
	return func(t testing.TB, dir string, id session2.ID) {
		t.Helper()
		_, err := openSQL(t, driver, dsn).Exec(fmt.Sprintf(query, sqlTable(dir)), id[:])
		testsite.Must(t, err)
	}
}
