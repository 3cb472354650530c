package session2_test

import (
	"crypto/sha256"
	"database/sql"
	"fmt"
	"testing"

	_ "github.com/lib/pq"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/storetest"
)

func TestMain(m *testing.M) { testdb.Main(m) }

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
	dsn := testdb.MySQL(t)
	storetest.Run(t, func(t testing.TB, dir string) session2.Store {
		return openMySQL(t, dsn, session2.SQLOptions{Table: sqlTable(dir)})
	}, &storetest.Options{Corrupt: sqlCorrupt("mysql", dsn, "UPDATE %s SET version = 0 WHERE id = ?")})
}

// sqlCorrupt damages records as far as the columns' types let anybody.
func sqlCorrupt(driver, dsn, query string) func(testing.TB, string, session2.ID) {
	return func(t testing.TB, dir string, id session2.ID) {
		t.Helper()
		_, err := openSQL(t, driver, dsn).Exec(fmt.Sprintf(query, sqlTable(dir)), id[:])
		must(t, err)
	}
}
