package sqltest

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/lib/pq"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
)

// patient has no timeout, so that a call which does not come to its answer at
// once would never end.
func (sys sqlSystem) patient(t testing.TB, db *sql.DB, table string) sqlStore {
	t.Helper()
	return sys.store(t, db, session2.SQLOptions{Table: table, Timeout: -1})
}

// refused checks that a definite refusal is answered as one, by the store and to
// a client of a manager, who waits for no timeout.
func refused(t *testing.T, store sqlStore, want error) {
	t.Helper()
	rec := sqlRecord(9)
	for what, err := range map[string]error{
		"create":  store.Save(t.Context(), rec, 0),
		"replace": store.Save(t.Context(), sqlRecord(8), 7),
		"delete":  store.Delete(t.Context(), rec.ID),
	} {
		if !errors.Is(err, want) || errors.Is(err, session2.ErrUncertain) {
			t.Errorf("%s: got %v, want it to match %v", what, err, want)
		}
	}
	var got error
	m, err := session2.NewManager(store, session2.Config{
		CommitTimeout: time.Hour, Logger: (&testsite.Log{}).Logger(),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			got = err
			w.WriteHeader(http.StatusServiceUnavailable)
		},
	})
	testsite.Must(t, err)
	st := &testsite.Site{T: t, M: m}
	res := st.Do(&testsite.Browser{}, increment)
	if res.StatusCode != 503 || !errors.Is(got, want) || errors.Is(got, session2.ErrUncertain) {
		t.Errorf("a request: got status %d, %v, want 503 and %v", res.StatusCode, got, want)
	}
}

// TestSQLNoRight uses a table as somebody who may only read it.
func TestSQLNoRight(t *testing.T) {
	grants := map[string][]string{
		"postgres": {`CREATE ROLE {u} LOGIN PASSWORD 'pw'`, `GRANT SELECT ON {t} TO {u}`},
		"mysql":    {`CREATE USER {u}@'%' IDENTIFIED BY 'pw'`, `GRANT SELECT ON {t} TO {u}@'%'`},
	}
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		db, table := openSQL(t, sys.driver, dsn), sqlTable(t.TempDir())
		testsite.Must(t, sys.patient(t, db, table).Setup(t.Context()))
		user := "u" + table
		r := strings.NewReplacer("{u}", user, "{t}", table)
		for _, stmt := range grants[sys.name] {
			_, err := db.Exec(r.Replace(stmt))
			testsite.Must(t, err)
		}
		refused(t, sys.patient(t, openSQL(t, sys.driver, asUser(sys.name, dsn, user)), table), fs.ErrPermission)
		refused(t, sys.patient(t, openSQL(t, sys.driver, asUser(sys.name, dsn, "nobody")), table), fs.ErrPermission)
	})
}

// TestSQLConstraint saves what somebody's constraints do not let through: by a
// check, and by a second unique index, which is not the primary key's conflict.
func TestSQLConstraint(t *testing.T) {
	checks := map[string]string{
		"postgres": "ALTER TABLE %s ADD CHECK (created > 5)",
		"mysql":    "ALTER TABLE %s ADD CONSTRAINT CHECK (created > 5)",
	}
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		db, table := openSQL(t, sys.driver, dsn), sqlTable(t.TempDir())
		store := sys.patient(t, db, table)
		testsite.Must(t, store.Setup(t.Context()))
		one, two := sqlRecord(1), sqlRecord(2)
		two.Created = one.Created.Add(time.Second)
		testsite.Must(t, store.Save(t.Context(), one, 0))
		testsite.Must(t, store.Save(t.Context(), two, 0))
		for _, ddl := range []string{checks[sys.name], "CREATE UNIQUE INDEX u_" + table + " ON %s (created)"} {
			_, err := db.Exec(fmt.Sprintf(ddl, table))
			testsite.Must(t, err)
		}
		for what, created := range map[string]time.Time{"check": time.UnixMicro(1), "unique index": one.Created} {
			fresh, next := sqlRecord(3), two
			next.Version++
			fresh.Created, next.Created = created, created
			for _, err := range []error{store.Save(t.Context(), fresh, 0), store.Save(t.Context(), next, two.Version)} {
				if !errors.Is(err, fs.ErrPermission) || errors.Is(err, session2.ErrUncertain) {
					t.Errorf("%s: got %v, want it to match %v", what, err, fs.ErrPermission)
				}
			}
		}
	})
}

// TestSQLClosedByCaller closes the database, and not the store.
func TestSQLClosedByCaller(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		for _, noPrepare := range []bool{false, true} {
			db := openSQL(t, sys.driver, dsn)
			store := sys.store(t, db, session2.SQLOptions{Timeout: -1, NoPrepare: noPrepare})
			testsite.Must(t, store.Setup(t.Context()))
			testsite.Must(t, store.Save(t.Context(), sqlRecord(1), 0))
			testsite.Must(t, db.Close())
			refused(t, store, fs.ErrClosed)
			if err := store.Setup(t.Context()); !errors.Is(err, fs.ErrClosed) {
				t.Errorf("Setup: got %v, want %v", err, fs.ErrClosed)
			}
		}
	})
}

// TestSQLNotSetUp calls a store before Setup.
func TestSQLNotSetUp(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		refused(t, sys.patient(t, openSQL(t, sys.driver, dsn), sqlTable(t.TempDir())), session2.ErrNotSetUp)
	})
}

// readOnly has one connection take no more writes, as those to a primary that
// was replaced.
var readOnly = map[string]string{
	"postgres": "SET default_transaction_read_only = on",
	"mysql":    "SET SESSION TRANSACTION READ ONLY",
}

// demote makes n connections of a pool, all that it has, and has none of them
// take writes.
func (sys sqlSystem) demote(t *testing.T, db *sql.DB, n int) {
	t.Helper()
	db.SetMaxIdleConns(n)
	for range n {
		c := connect(t, db)
		defer c.Close()
		_, err := c.ExecContext(t.Context(), readOnly[sys.name])
		testsite.Must(t, err)
	}
}

// TestSQLFailover finds that a write which meets a connection to a server that
// became read-only goes to another one, with all that the store can write.
func TestSQLFailover(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		for _, noPrepare := range []bool{false, true} {
			db := openSQL(t, sys.driver, dsn)
			store := sys.store(t, db, session2.SQLOptions{NoPrepare: noPrepare, Timeout: -1})
			testsite.Must(t, store.Setup(t.Context()))
			rec := sqlRecord(1)
			next, after := rec, rec
			next.Version, after.Version = rec.Version+1, rec.Version+2
			for what, call := range map[string]func() error{
				"create": func() error { return store.Save(t.Context(), rec, 0) },
				"replace": func() error {
					return errors.Join(store.Save(t.Context(), rec, 0), store.Save(t.Context(), next, rec.Version))
				},
				"touch": func() error {
					later := rec.Accessed.Add(time.Second)
					err := store.Save(t.Context(), rec, 0)
					return errors.Join(err, store.Touch(t.Context(), rec.ID, later, rec.Expires))
				},
				"delete old":  func() error { _, err := store.DeleteOld(t.Context(), 0); return err },
				"delete user": func() error { _, err := store.DeleteUser(t.Context(), "alice"); return err },
			} {
				sys.demote(t, db, 8)
				if err := call(); err != nil {
					t.Errorf("%s: got %v, want it to go to another connection", what, err)
				}
				testsite.Must(t, store.Delete(t.Context(), rec.ID))
			}
		}
	})
}

// TestSQLReadOnlyServer has a whole server take no writes, which is a refusal,
// and take some again.
func TestSQLReadOnlyServer(t *testing.T) {
	t.Parallel()
	turn := map[string][2][]string{
		"postgres": {{"ALTER ROLE {u} SET default_transaction_read_only = on"},
			{"ALTER ROLE {u} RESET default_transaction_read_only"}},
		"mysql": {{"SET GLOBAL read_only = 1"}, {"SET GLOBAL read_only = 0"}},
	}
	grants := map[string][]string{
		"postgres": {
			`CREATE ROLE {u} LOGIN PASSWORD 'pw'`,
			`GRANT SELECT, INSERT, UPDATE, DELETE ON {t} TO {u}`,
			`GRANT SELECT ON {t}_meta TO {u}`,
		},
		"mysql": {
			`CREATE USER {u}@'%' IDENTIFIED BY 'pw'`,
			`GRANT SELECT, INSERT, UPDATE, DELETE ON {t} TO {u}@'%'`,
			`GRANT SELECT ON {t}_meta TO {u}@'%'`,
		},
	}
	for _, sys := range sqlSystems {
		t.Run(sys.name, func(t *testing.T) {
			t.Parallel()
			dsn := sys.private(t).DSN()
			admin, table := openSQL(t, sys.driver, dsn), "sessions"
			r := strings.NewReplacer("{u}", "app", "{t}", table)
			run := func(list []string) {
				for _, stmt := range list {
					_, err := admin.Exec(r.Replace(stmt))
					testsite.Must(t, err)
				}
			}
			testsite.Must(t, sys.patient(t, admin, table).Setup(t.Context()))
			run(grants[sys.name])
			db := openSQL(t, sys.driver, asUser(sys.name, dsn, "app"))
			store := sys.patient(t, db, table)
			testsite.Must(t, store.Save(t.Context(), sqlRecord(1), 0))
			for b := range byte(3) {
				run(turn[sys.name][0])
				sys.demote(t, db, 4)
				refused(t, store, fs.ErrPermission)
				refusedSetup(t, store, "the database refuses the store every INSERT, UPDATE, DELETE: ")
				run(turn[sys.name][1])
				testsite.Must(t, store.Setup(t.Context()))
				testsite.Must(t, store.Save(t.Context(), sqlRecord(2+b), 0))
			}
		})
	}
}

// TestMySQLNoRoomForPrepared has a server prepare no statement.
func TestMySQLNoRoomForPrepared(t *testing.T) {
	t.Parallel()
	sys := sqlSystems[1]
	db := openSQL(t, sys.driver, testdb.NewMySQL(t).DSN())
	_, err := db.Exec("SET GLOBAL max_prepared_stmt_count = 0")
	testsite.Must(t, err)
	store := sys.store(t, db, session2.SQLOptions{})
	useSQL(t, store)
	rec := sqlRecord(7)
	rec.Data = []byte("'?\\\x00\xff")
	testsite.Must(t, store.Save(t.Context(), rec, 0))
	for got, err := range store.IterUser(t.Context(), rec.User) {
		if err != nil || string(got.Data) != string(rec.Data) {
			t.Errorf("got %q, %v, want %q", got.Data, err, rec.Data)
		}
	}
	if n, err := store.DeleteOld(t.Context(), 0); n != 1 || err != nil {
		t.Errorf("DeleteOld: got %d, %v, want 1", n, err)
	}
	next := rec
	next.Version++
	if err := store.Save(t.Context(), next, rec.Version); !errors.Is(err, session2.ErrNotFound) {
		t.Errorf("got %v, want %v", err, session2.ErrNotFound)
	}
}

// sqlAnswers are the errors of engines, and what they mean: a sentinel, or nil for
// what passes.
var sqlAnswers = map[string][]struct {
	err  error
	want error
}{
	"postgres": {
		{&pq.Error{Code: "42501"}, fs.ErrPermission},
		{&pq.Error{Code: "23514"}, fs.ErrPermission},
		{&pq.Error{Code: "25006"}, fs.ErrPermission},
		{&pq.Error{Code: "3D000"}, fs.ErrPermission},
		{&pq.Error{Code: "28P01"}, fs.ErrPermission},
		{&pq.Error{Code: "53100"}, fs.ErrPermission},
		{&pq.Error{Code: "P0001"}, fs.ErrPermission},
		{&pq.Error{Code: "0A000"}, fs.ErrPermission},
		{&pq.Error{Code: "42P10"}, fs.ErrPermission},
		{&pq.Error{Code: "08P01", Message: "unsupported startup parameter: x"}, fs.ErrPermission},
		{&pq.Error{Code: "42P01"}, session2.ErrNotSetUp},
		{&pq.Error{Code: "XX000", Message: "Table 0 not found: OBJECT_NOT_FOUND"}, session2.ErrNotSetUp},
		{&pq.Error{Code: "54000"}, session2.ErrTooLarge},
		{&pq.Error{Code: "22001"}, session2.ErrTooLarge},
		{&pq.Error{Code: "XXUUU", Message: "command is too large: 5 bytes (max: 4)"}, session2.ErrTooLarge},
		{&pq.Error{Code: "08P01", Message: "message bigger than maximum allowed message size"}, session2.ErrTooLarge},
		{&pq.Error{Code: "XX000", Message: "invalid memory alloc request size 1073741824"}, session2.ErrTooLarge},
		{&pq.Error{Code: "55P03"}, nil},
		{&pq.Error{Code: "40001"}, nil},
		{&pq.Error{Code: "57014"}, nil},
		{&pq.Error{Code: "57P01"}, nil},
		{&pq.Error{Code: "40003"}, nil},
	},
	"mysql": {
		{&mysql.MySQLError{Number: 1142}, fs.ErrPermission},
		{&mysql.MySQLError{Number: 1044}, fs.ErrPermission},
		{&mysql.MySQLError{Number: 1045}, fs.ErrPermission},
		{&mysql.MySQLError{Number: 1290}, fs.ErrPermission},
		{&mysql.MySQLError{Number: 1836}, fs.ErrPermission},
		{&mysql.MySQLError{Number: 1792}, fs.ErrPermission},
		{&mysql.MySQLError{Number: 4025}, fs.ErrPermission},
		{&mysql.MySQLError{Number: 3819}, fs.ErrPermission},
		{&mysql.MySQLError{Number: 1114}, fs.ErrPermission},
		{&mysql.MySQLError{Number: 1644, SQLState: [5]byte([]byte("45000"))}, fs.ErrPermission},
		{&mysql.MySQLError{Number: 1146}, session2.ErrNotSetUp},
		{&mysql.MySQLError{Number: 1109}, session2.ErrNotSetUp},
		{&mysql.MySQLError{Number: 8113, Message: "Schema change caused error: [schema:1146]"}, session2.ErrNotSetUp},
		{&mysql.MySQLError{Number: 8025}, session2.ErrTooLarge},
		{&mysql.MySQLError{Number: 8004}, session2.ErrTooLarge},
		{&mysql.MySQLError{Number: 1153}, session2.ErrTooLarge},
		{&mysql.MySQLError{Number: 1118}, session2.ErrTooLarge},
		{&mysql.MySQLError{Number: 1105, Message: "grpc: trying to send message larger than max"},
			session2.ErrTooLarge},
		{&mysql.MySQLError{Number: 1105, Message: "Maximum writeset size exceeded"}, session2.ErrTooLarge},
		{&mysql.MySQLError{Number: 1180, Message: `Got error 90 "Message too long" during COMMIT`},
			session2.ErrTooLarge},
		{&mysql.MySQLError{Number: 1205}, nil},
		{&mysql.MySQLError{Number: 1020}, nil},
		{&mysql.MySQLError{Number: 8028}, nil},
		{&mysql.MySQLError{Number: 1317}, nil},
		{&mysql.MySQLError{Number: 9002}, nil},
		{&mysql.MySQLError{Number: 1461}, nil},
	},
}

// TestSQLAnswers answers each error to a Save: what refuses is asked once, or
// until no old connection is left, and what passes is asked again.
func TestSQLAnswers(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		store, tap := sys.tapped(t, dsn)
		rec := sqlRecord(1)
		testsite.Must(t, store.Save(t.Context(), rec, 0))
		for _, a := range sqlAnswers[sys.name] {
			next := rec
			next.Version++
			if a.want == nil {
				tap.tamper(once("UPDATE", a.err), nil)
				if err := store.Save(t.Context(), next, rec.Version); err != nil {
					t.Errorf("%v once: got %v, want another attempt", a.err, err)
				}
				rec = next
				continue
			}
			asked := 0
			tap.tamper(func(query string) error { asked++; return a.err }, nil)
			err := store.Save(t.Context(), next, rec.Version)
			if !errors.Is(err, a.want) || errors.Is(err, session2.ErrUncertain) || asked > 3 {
				t.Errorf("%v: asked %d times, got %v, want %v", a.err, asked, err, a.want)
			}
		}
	})
}

// TestSQLUnknownOutcome has servers answer what says nothing of the outcome.
func TestSQLUnknownOutcome(t *testing.T) {
	answers := map[string]error{"postgres": &pq.Error{Code: "XX000"}, "mysql": &mysql.MySQLError{Number: 1105}}
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		store, tap := sys.tapped(t, dsn)
		tap.tamper(func(string) error { return answers[sys.name] }, nil)
		err := store.Save(t.Context(), sqlRecord(1), 0)
		for _, no := range []error{fs.ErrPermission, session2.ErrTooLarge, session2.ErrNotSetUp, fs.ErrClosed} {
			if err == nil || errors.Is(err, no) {
				t.Errorf("got %v, want no definite refusal", err)
			}
		}
	})
}
