package sqltest

import (
	"cmp"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/lib/pq"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// refusedSetup finds that Setup refuses, each time, in these words.
func refusedSetup(t *testing.T, store sqlStore, words ...string) {
	t.Helper()
	for range 2 {
		err := store.Setup(t.Context())
		if !errors.Is(err, fs.ErrPermission) {
			t.Fatalf("got %v, want it to match %v", err, fs.ErrPermission)
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("got %v, want it to say %q", err, word)
			}
		}
	}
}

// run runs statements about a table, {t}, and somebody who is not its owner, {u}.
func run(t testing.TB, db *sql.DB, table string, statements ...string) {
	t.Helper()
	r := strings.NewReplacer("{t}", table, "{u}", "u"+table)
	for _, stmt := range statements {
		if _, err := db.ExecContext(t.Context(), r.Replace(stmt)); err != nil {
			t.Fatalf("%s: %v", r.Replace(stmt), err)
		}
	}
}

// setUp returns a store of the owner's that is set up, and its table.
func (sys sqlSystem) setUp(t *testing.T, dsn string) (store sqlStore, db *sql.DB, table string) {
	t.Helper()
	db, table = openSQL(t, sys.driver, dsn), sqlTable(t.TempDir())
	store = sys.store(t, db, session2.SQLOptions{Table: table})
	testsite.Must(t, store.Setup(t.Context()))
	return store, db, table
}

// member returns the store of somebody who may do this with the table, and read its version.
func (sys sqlSystem) member(t *testing.T, admin *sql.DB, dsn, table, rights string) sqlStore {
	t.Helper()
	create, to := "CREATE ROLE {u} LOGIN PASSWORD 'pw'", " TO {u}"
	if sys.name == "mysql" {
		create, to = "CREATE USER {u}@'%' IDENTIFIED BY 'pw'", " TO {u}@'%'"
	}
	run(t, admin, table, create, "GRANT "+rights+" ON {t}"+to, "GRANT SELECT ON {t}_meta"+to)
	db := openSQL(t, sys.driver, asUser(sys.name, dsn, "u"+table))
	return sys.store(t, db, session2.SQLOptions{Table: table})
}

// TestSQLSetupWithoutKey sets up over tables that take two records of one ID.
func TestSQLSetupWithoutKey(t *testing.T) {
	drop := map[string]string{
		"postgres": "ALTER TABLE {t} DROP CONSTRAINT {t}_pkey", "mysql": "ALTER TABLE {t} DROP PRIMARY KEY",
	}
	unique := map[string]string{
		"postgres": "CREATE UNIQUE INDEX {t}_id ON {t} (id)", "mysql": "CREATE UNIQUE INDEX id ON {t} (id)",
	}
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		store, db, table := sys.setUp(t, dsn)
		for _, stmt := range []string{drop[sys.name], "ALTER TABLE {t} ADD PRIMARY KEY (id, version)"} {
			run(t, db, table, stmt)
			refusedSetup(t, store, "the table "+table+" has no primary key on id")
		}
		_, remedy, _ := strings.Cut(store.Setup(t.Context()).Error(), "which ")
		remedy, _, _ = strings.Cut(remedy, " makes")
		run(t, db, table, drop[sys.name], remedy)
		useSQL(t, store)
		run(t, db, table, drop[sys.name])
		run(t, db, table, unique[sys.name])
		useSQL(t, store)
	})
}

// TestMySQLSetupWithoutTransactions sets up over a table whose engine has none.
func TestMySQLSetupWithoutTransactions(t *testing.T) {
	sys := sqlSystems[1]
	store, db, table := sys.setUp(t, sys.server(t))
	for _, engine := range []string{"MyISAM", "Aria"} {
		run(t, db, table, "ALTER TABLE {t} ENGINE="+engine+" ROW_FORMAT=DEFAULT")
		refusedSetup(t, store, "the table "+table+" has the engine "+engine+", which has no transactions")
	}
	run(t, db, table, "ALTER TABLE {t} ENGINE=InnoDB")
	useSQL(t, store)
}

// dropIndex drops one of the three.
var dropIndex = map[string]string{
	"postgres": "DROP INDEX {t}_%s_idx",
	"mysql":    "DROP INDEX %s_idx ON {t}",
}

// TestMySQLSetupTakesCapitals has columns and indexes in capital letters, which mean the same.
func TestMySQLSetupTakesCapitals(t *testing.T) {
	sys := sqlSystems[1]
	_, db, table := sys.setUp(t, sys.server(t))
	run(t, db, table, "ALTER TABLE {t} CHANGE id ID binary(16) NOT NULL, CHANGE by_expires BY_EXPIRES bigint NOT NULL, "+
		"RENAME INDEX expires_idx TO Other, RENAME INDEX accessed_idx TO Accessed_Idx")
	useSQL(t, sys.member(t, db, sys.server(t), table, "SELECT, INSERT, UPDATE, DELETE"))
}

// TestSQLSetupMakesIndexes has 16 callers at once find that the indexes are gone.
func TestSQLSetupMakesIndexes(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		store, db, table := sys.setUp(t, dsn)
		testsite.Must(t, store.Save(t.Context(), sqlRecord(1), 0))
		before := sys.indexes(t, db, table)
		for _, which := range []string{"username", "accessed", "expires"} {
			run(t, db, table, fmt.Sprintf(dropIndex[sys.name], which))
		}
		setUpAtOnce(t, sys, dsn, table)
		if got := sys.indexes(t, db, table); !slices.Equal(got, before) || len(got) != 4 {
			t.Errorf("got the indexes %q, want %q", got, before)
		}
	})
}

// indexes returns the names of a table's indexes.
func (sys sqlSystem) indexes(t testing.TB, db *sql.DB, table string) (list []string) {
	t.Helper()
	query := "SELECT DISTINCT index_name FROM information_schema.statistics WHERE table_name = '%s' ORDER BY 1"
	if sys.name == "postgres" {
		query = "SELECT indexname FROM pg_indexes WHERE tablename = '%s' ORDER BY 1"
	}
	rows, err := db.QueryContext(t.Context(), fmt.Sprintf(query, table))
	testsite.Must(t, err)
	defer rows.Close()
	for rows.Next() {
		var v string
		testsite.Must(t, rows.Scan(&v))
		list = append(list, v)
	}
	testsite.Must(t, rows.Err())
	return list
}

// findsMissing finds that Setup sees what is missing of a table, by any connection.
func (sys sqlSystem) findsMissing(t *testing.T, store sqlStore, db *sql.DB, table string, drop ...string) {
	t.Helper()
	run(t, db, table, drop...)
	testsite.Must(t, store.Setup(t.Context()))
	_, name, _ := strings.Cut(table, ".")
	if got := sys.indexes(t, db, cmp.Or(name, table)); len(got) != 4 {
		t.Errorf("got the indexes %q, want 4", got)
	}
}

// TestSQLSetupElsewhere has the table in another schema, and letters of both cases in its name.
func TestSQLSetupElsewhere(t *testing.T) {
	create := map[string]string{"postgres": "CREATE SCHEMA ", "mysql": "CREATE DATABASE "}
	drop := map[string]string{
		"postgres": `DROP INDEX %s."%s_expires_idx"`, "mysql": "DROP INDEX expires_idx ON %s.%s",
	}
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		db, schema, name := openSQL(t, sys.driver, dsn), "s"+sqlTable(t.TempDir()), "Se_"+sqlTable(t.TempDir())
		run(t, db, "", create[sys.name]+schema)
		store := sys.store(t, db, session2.SQLOptions{Table: schema + "." + name})
		useSQL(t, store)
		sys.findsMissing(t, store, db, schema+"."+name, fmt.Sprintf(drop[sys.name], schema, name))
	})
}

// TestMySQLSetupSettings looks into the catalogue under settings that change what texts are.
func TestMySQLSetupSettings(t *testing.T) {
	sys, conf := sqlSystems[1], []string{"lower-case-table-names = 1", "character-set-server = gbk"}
	for server, dsn := range map[string]string{"plain": sys.server(t), "gbk": sys.private(t, conf...).DSN()} {
		for i, set := range []string{
			"", "charset=gbk", "set.character_set_client=big5", "set.collation_connection=ascii_bin",
			"set.sql_mode=EMPTY_STRING_IS_NULL", "set.sql_mode=ORACLE", "set.sql_mode=ANSI", "set.sql_safe_updates=1",
			"noprepare=true",
		} {
			t.Run(server+","+set, func(t *testing.T) {
				table := fmt.Sprintf("Setup_%d", i)
				store := openURL(t, sqlURL(t, "mysql", dsn), "&table="+table+"&"+set)
				db := openSQL(t, "mysql", dsn)
				sys.findsMissing(t, store, db, table, "DROP INDEX expires_idx ON {t}")
				run(t, db, table, "ALTER TABLE {t} DROP PRIMARY KEY")
				refusedSetup(t, store, "no primary key on id")
				run(t, db, table, "DROP TABLE {t}", "DROP TABLE {t}_meta")
			})
		}
	}
}

// TestSQLSetupNamesIndexes has somebody find that an index is gone who may not make one.
func TestSQLSetupNamesIndexes(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		owner, db, table := sys.setUp(t, dsn)
		store := sys.member(t, db, dsn, table, "SELECT, INSERT, UPDATE, DELETE")
		testsite.Must(t, store.Setup(t.Context()))
		for which, col := range map[string]string{
			"username": "username", "accessed": "by_accessed", "expires": "by_expires",
		} {
			run(t, db, table, fmt.Sprintf(dropIndex[sys.name], which))
			refusedSetup(t, store, "the table "+table+" has no index on "+col, "CREATE INDEX", which+"_idx")
			testsite.Must(t, owner.Setup(t.Context()))
			testsite.Must(t, store.Setup(t.Context()))
		}
	})
}

// TestSQLSetupTakesOtherIndexes has indexes of other names that do as well, one of another
// table with the name, and one that could not be finished.
func TestSQLSetupTakesOtherIndexes(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		owner, db, table := sys.setUp(t, dsn)
		run(t, db, table, fmt.Sprintf(dropIndex[sys.name], "expires"), "CREATE INDEX {t}_own ON {t} (by_expires, id)")
		testsite.Must(t, sys.member(t, db, dsn, table, "SELECT, INSERT, UPDATE, DELETE").Setup(t.Context()))
		if sys.name == "postgres" { // MySQL's names are the table's own
			run(t, db, table, "DROP INDEX {t}_own", "CREATE TABLE {t}_old (v int)",
				"CREATE INDEX {t}_expires_idx ON {t}_old (v)")
			refusedSetup(t, owner, "no index on by_expires", "another one has the name "+table+"_expires_idx")
			run(t, db, table, "DROP TABLE {t}_old")
			testsite.Must(t, owner.Setup(t.Context()))
			run(t, db, table, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{t}_accessed_idx'::regclass")
			refusedSetup(t, owner, "no index on by_accessed", "or it is not valid")
		}
	})
}

// TestSQLSetupSparesLargeTables finds that Setup holds up no writes to make an index in
// many records.
func TestSQLSetupSparesLargeTables(t *testing.T) {
	fill := map[string]string{
		"postgres": `INSERT INTO {t} SELECT decode(lpad(to_hex(i), 32, '0'), 'hex'), 1, '', 1, 1, 1, 1, 1, ''
			FROM generate_series(1, 100001) AS i`,
		"mysql": `INSERT INTO {t} SELECT UNHEX(LPAD(HEX(seq), 32, '0')), 1, '', 1, 1, 1, 1, 1, '' FROM seq_1_to_100001`,
	}
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		store, db, table := sys.setUp(t, dsn)
		for _, which := range []string{"username", "accessed", "expires"} {
			run(t, db, table, fmt.Sprintf(dropIndex[sys.name], which))
		}
		run(t, db, table, fill[sys.name])
		refusedSetup(t, store, "no index on username", "not done in more than 100000 records")
		run(t, db, table, "DELETE FROM {t}_meta")
		refusedSetup(t, store, "no index on username", "not done in more than 100000 records")
		run(t, db, table, "DELETE FROM {t} WHERE id = (SELECT id FROM (SELECT id FROM {t} LIMIT 1) AS t)")
		testsite.Must(t, store.Setup(t.Context()))
		run(t, db, table, "DROP TABLE {t}")
	})
}

// TestSQLSetupWithoutRights lacks one right at a time.
func TestSQLSetupWithoutRights(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		all := []string{"INSERT", "UPDATE", "DELETE"}
		for i, lacks := range all {
			_, db, table := sys.setUp(t, dsn)
			rights := slices.Delete(slices.Clone(all), i, i+1)
			store := sys.member(t, db, dsn, table, "SELECT, "+strings.Join(rights, ", "))
			refusedSetup(t, store, "the database refuses the store every "+lacks+": ", "denied")
		}
		_, db, table := sys.setUp(t, dsn)
		refusedSetup(t, sys.member(t, db, dsn, table, "SELECT"), "refuses the store every INSERT, UPDATE, DELETE: ")
	})
}

// TestSQLSetupChangesNothing has rows that a statement without its condition would change.
func TestSQLSetupChangesNothing(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		store, _, _ := sys.setUp(t, dsn)
		rec := sqlRecord(1)
		rec.ID = session2.ID{}
		testsite.Must(t, store.Save(t.Context(), rec, 0))
		testsite.Must(t, store.Setup(t.Context()))
		if got, err := store.Load(t.Context(), rec.ID); err != nil || got.Version != rec.Version {
			t.Errorf("got %v, %v, want version %v", got.Version, err, rec.Version)
		}
	})
}

// TestSQLSetupWithoutVersion restores the table of sessions without the one that notes the
// version, or that one empty, for somebody who may not make it.
func TestSQLSetupWithoutVersion(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		_, db, table := sys.setUp(t, dsn)
		store := sys.member(t, db, dsn, table, "SELECT, INSERT, UPDATE, DELETE")
		run(t, db, table, "DELETE FROM {t}_meta")
		refusedSetup(t, store, "the table "+table+"_meta, with the version of "+table+", is empty")
		run(t, db, table, "DROP TABLE {t}_meta")
		refusedSetup(t, store, "there is no table "+table+"_meta, with the version of "+table)
		run(t, db, table, "DROP TABLE {t}")
		refusedSetup(t, store, "there is no table "+table)
	})
}

// TestSQLSetupUnchecked has a database that tells nothing of its tables, and takes no INSERT
// that inserts nothing, as some that speak like these may do.
func TestSQLSetupUnchecked(t *testing.T) {
	answers := map[string][]error{
		"postgres": {&pq.Error{Code: "42601"}, &pq.Error{Code: "0A000"}, &pq.Error{Code: "XX000"}},
		"mysql":    {&mysql.MySQLError{Number: 1064}, &mysql.MySQLError{Number: 1235}, &mysql.MySQLError{Number: 1105}},
	}
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		_, db, table := sys.setUp(t, dsn)
		run(t, db, table, fmt.Sprintf(dropIndex[sys.name], "expires"))
		for _, answer := range answers[sys.name] {
			db, tap := tap(t, sys.driver, dsn)
			asked := 0
			answerAll := func(query string) error {
				for _, word := range []string{"information_schema", "pg_catalog", "1 = 0"} {
					if strings.Contains(query, word) {
						asked++
						return answer
					}
				}
				return nil
			}
			tap.tamperQueries(answerAll)
			tap.tamper(answerAll, nil)
			err := sys.store(t, db, session2.SQLOptions{Table: table}).Setup(t.Context())
			if err != nil || asked != 4 {
				t.Errorf("%v: got %v after %d answers, want no error after 4", answer, err, asked)
			}
		}
	})
}
