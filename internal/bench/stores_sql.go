package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"

	_ "gitea.com/go-chi/session/mysql"
	_ "gitea.com/go-chi/session/postgres"
	"github.com/alexedwards/scs/mysqlstore"
	"github.com/alexedwards/scs/pgxstore"
	"github.com/alexedwards/scs/postgresstore"
	"github.com/alexedwards/scs/v2"
	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/session2/session2"
)

// connections is how many each contender's pool has: all of them idle ones as well, so
// that nobody connects while it is measured.
const connections = 16

// The floors of the SQL stores. What is "like ours" is a table with the columns and the
// indexes of session2's.
const (
	pqLike, pqBare     = "lib/pq by hand, table like ours", "lib/pq by hand, barest table"
	pgxLike, pgxBare   = "pgx stdlib by hand, table like ours", "pgx stdlib by hand, barest table"
	poolLike, poolBare = "pgxpool by hand, table like ours", "pgxpool by hand, barest table"
	myLike, myBare     = "driver by hand, table like ours", "driver by hand, barest table"
)

func postgres() []contender {
	return []contender{
		postgresFloor(pqLike, "postgres", true),
		postgresFloor(pqBare, "postgres", false),
		postgresFloor(pgxLike, "pgx", true),
		postgresFloor(pgxBare, "pgx", false),
		poolFloor(poolLike, true),
		poolFloor(poolBare, false),
		sessions("session2 on lib/pq", openedPostgres, pqLike, pqBare),
		sessions("session2 on pgx stdlib", pgxSessions, pgxLike, pgxBare),
		cached("session2 on lib/pq"+cacheSuffix, openedPostgres, pqLike, pqBare),
		scsOn("scs pgxstore", scsPool, poolLike, poolBare),
		scsSweepsOn("scs postgresstore (lib/pq)", scsPostgres, pqLike, pqBare),
		gochiOn("go-chi/session postgres (lib/pq)", "postgres", func(p place) (string, error) {
			db, dsn, err := ownSchema("postgres", p, `CREATE TABLE IF NOT EXISTS session
				(key CHAR(16) NOT NULL, data bytea, expiry INTEGER NOT NULL, PRIMARY KEY (key))`)
			if err != nil {
				return "", err
			}
			return dsn, db.Close()
		}, pqLike, pqBare),
	}
}

func mysqls() []contender {
	return []contender{
		mysqlFloor(myLike, true),
		mysqlFloor(myBare, false),
		sessions("session2 on MySQL", openedMySQL, myLike, myBare),
		scsSweepsOn("scs mysqlstore", scsMySQL, myLike, myBare),
		gochiOn("go-chi/session mysql", "mysql", func(p place) (string, error) {
			db, err := openDB("mysql", p.dsn, "CREATE TABLE IF NOT EXISTS session (`key` CHAR(16) NOT NULL, "+
				"data BLOB, expiry INT UNSIGNED NOT NULL, PRIMARY KEY (`key`)) ENGINE=InnoDB")
			if err != nil {
				return "", err
			}
			return p.dsn, db.Close()
		}, myLike, myBare),
	}
}

// openDB opens a pool and runs what is to be there.
func openDB(driver, dsn string, setup ...string) (*sql.DB, error) {
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	for _, text := range setup {
		if _, err := db.Exec(text); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	return db, nil
}

// ownSchema opens the database with a schema of the contender's own, for those whose
// tables have all the same name.
func ownSchema(driver string, p place, setup ...string) (*sql.DB, string, error) {
	schema := fmt.Sprint("contender", p.number)
	dsn := p.dsn + "&search_path=" + schema
	db, err := openDB(driver, dsn, append([]string{"CREATE SCHEMA IF NOT EXISTS " + schema}, setup...)...)
	return db, dsn, err
}

// openedMySQL is the store of a URL, which has a pool of its own.
func openedMySQL(p place) (session2.Store, error) {
	cfg, err := mysql.ParseDSN(p.dsn)
	if err != nil {
		return nil, err
	}
	db, err := openDB("mysql", p.dsn)
	if err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "mysql", User: url.UserPassword(cfg.User, cfg.Passwd), Host: cfg.Addr, Path: cfg.DBName}
	return opened(fmt.Sprintf("%s?conns=%d", &u, connections), db, rowsOfMySQL(db, "session2_sessions"))
}

// openedPostgres is the store of a URL, which has a pool of its own.
func openedPostgres(p place) (session2.Store, error) {
	db, _, err := ownSchema("postgres", p)
	if err != nil {
		return nil, err
	}
	return opened(fmt.Sprintf("%s&conns=%d&set.search_path=contender%d", p.dsn, connections, p.number),
		db, rowsOfPostgres(db, "session2_sessions"))
}

// opened opens the store of a URL. db is the bench's own pool beside it.
func opened(rawURL string, db *sql.DB, rows *rows) (session2.Store, error) {
	store, err := session2.Open(context.Background(), rawURL)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return closing{store.(sqlStore), db, rows}, nil
}

func pgxSessions(p place) (session2.Store, error) {
	db, _, err := ownSchema("pgx", p)
	if err != nil {
		return nil, err
	}
	store, err := session2.NewPostgresStore(db, nil)
	return closing{store, db, rowsOfPostgres(db, "session2_sessions")}, err
}

const cacheSuffix = ", NewCache"

// cached is session2 with a cache before the store, as it is by default.
func cached(name string, open func(place) (session2.Store, error), floors ...string) contender {
	c := sessions(name, func(p place) (session2.Store, error) {
		store, err := open(p)
		if err != nil {
			return nil, err
		}
		return session2.NewCache(store, nil), nil
	}, floors...)
	c.aging = true
	return c
}

// closing is a store whose database is closed with it.
type closing struct {
	sqlStore
	db   *sql.DB
	rows *rows
}

type sqlStore interface {
	session2.Store
	session2.SetupStore
	session2.DeleteOldStore
	session2.IterStore
	session2.TouchStore
	session2.UserStore
	session2.CapableStore
	Close() error
}

func (c closing) Close() error { return errors.Join(c.sqlStore.Close(), c.db.Close()) }

func dollar(n int) string { return fmt.Sprint("$", n) }

// postgresFloor makes its table in a schema of its own, as session2 does where it is to
// be like its table.
func postgresFloor(name, driver string, like bool) contender {
	return sweeping(like, name, func(p place) (byHandStore, error) {
		db, _, err := ownSchema(driver, p, "CREATE TABLE IF NOT EXISTS barest (id bytea PRIMARY KEY, data bytea NOT NULL)")
		if err != nil {
			return nil, err
		}
		table, err := floorTable(like, func() (session2.Store, error) { return session2.NewPostgresStore(db, nil) })
		if err != nil {
			return nil, err
		}
		run, err := prepare(db, byHandQueries(table, like, dollar))
		return likeOurs(like, run, postgresEnded, rowsOfPostgres(db, table), table), err
	})
}

func likeOurs(like bool, run sqlRunner, ended string, r *rows, table string) byHandSQL {
	if !like {
		return byHandSQL{db: run}
	}
	return byHandSQL{true, run, strings.ReplaceAll(ended, "{t}", table), r}
}

// sweeping is floorOf for one that sweeps where its table is like session2's.
func sweeping(like bool, name string, open func(place) (byHandStore, error)) contender {
	c := floorOf(name, open)
	c.sweeps = like
	return c
}

// floorTable returns the name of the table, and sets up the one that is like session2's.
func floorTable(like bool, open func() (session2.Store, error)) (string, error) {
	if !like {
		return "barest", nil
	}
	store, err := open()
	if err != nil {
		return "", err
	}
	return "session2_sessions", session2.Setup(context.Background(), store)
}

func poolFloor(name string, like bool) contender {
	return floorOf(name, func(p place) (byHandStore, error) {
		db, dsn, err := ownSchema("pgx", p, "CREATE TABLE IF NOT EXISTS barest (id bytea PRIMARY KEY, data bytea NOT NULL)")
		if err != nil {
			return nil, err
		}
		defer db.Close()
		table, err := floorTable(like, func() (session2.Store, error) { return session2.NewPostgresStore(db, nil) })
		if err != nil {
			return nil, err
		}
		pool, err := openPool(dsn)
		return byHandSQL{like: like, db: &pooled{pool, byHandQueries(table, like, dollar)}}, err
	})
}

func openPool(dsn string) (*pgxpool.Pool, error) {
	return pgxpool.New(context.Background(), fmt.Sprintf("%s&pool_max_conns=%d", dsn, connections))
}

func mysqlFloor(name string, like bool) contender {
	return sweeping(like, name, func(p place) (byHandStore, error) {
		db, err := openDB("mysql", p.dsn,
			"CREATE TABLE IF NOT EXISTS barest (id binary(16) PRIMARY KEY, data longblob NOT NULL) ENGINE=InnoDB")
		if err != nil {
			return nil, err
		}
		table := "barest"
		if like {
			table = "like_ours"
			store, err := session2.NewMySQLStore(db, &session2.SQLOptions{Table: table})
			if err != nil {
				return nil, err
			}
			if err := store.Setup(context.Background()); err != nil {
				return nil, err
			}
		}
		run, err := prepare(db, byHandQueries(table, like, func(int) string { return "?" }))
		return likeOurs(like, run, mysqlEnded, rowsOfMySQL(db, table), table), err
	})
}

// The tables are as the stores' documentation has them.

const scsTable = "CREATE TABLE IF NOT EXISTS sessions (token TEXT PRIMARY KEY, data BYTEA NOT NULL, " +
	"expiry TIMESTAMPTZ NOT NULL)"

const scsIndex = "CREATE INDEX IF NOT EXISTS sessions_expiry_idx ON sessions (expiry)"

// The statements that copy rows, as those for session2's tables do.
const (
	scsPostgresRows = `INSERT INTO sessions (token, data, expiry)
SELECT md5(random()::text || token), data, to_timestamp(($1 - random() * 3600000000) / 1000000)
FROM (SELECT token, data FROM sessions LIMIT $2) AS old`

	scsMySQLRows = `INSERT INTO sessions (token, data, expiry)
SELECT MD5(CONCAT(UUID(), RAND(), token)), data, FROM_UNIXTIME((? - FLOOR(RAND() * 3600000000)) / 1000000)
FROM (SELECT token, data FROM sessions LIMIT ?) AS old`
)

func scsPool(p place) (scs.Store, func() error, error) {
	db, dsn, err := ownSchema("pgx", p, scsTable, scsIndex)
	if err != nil {
		return nil, nil, err
	}
	if err := db.Close(); err != nil {
		return nil, nil, err
	}
	pool, err := openPool(dsn)
	return pgxstore.NewWithCleanupInterval(pool, 0), func() error { pool.Close(); return nil }, err
}

func scsPostgres(p place) (scs.Store, func() error, error) {
	db, _, err := ownSchema("postgres", p, scsTable, scsIndex)
	if err != nil {
		return nil, nil, err
	}
	store := postgresstore.NewWithCleanupInterval(db, 0)
	return scsSweeping{store, execs(db, "DELETE FROM sessions WHERE expiry < current_timestamp"),
		&rows{db, scsPostgresRows, 1}}, db.Close, nil
}

func scsMySQL(p place) (scs.Store, func() error, error) {
	sep := "?"
	if strings.Contains(p.dsn, "?") {
		sep = "&"
	}
	db, err := openDB("mysql", p.dsn+sep+"parseTime=true",
		"CREATE TABLE IF NOT EXISTS sessions (token CHAR(43) PRIMARY KEY, data BLOB NOT NULL, "+
			"expiry TIMESTAMP(6) NOT NULL, INDEX sessions_expiry_idx (expiry)) ENGINE=InnoDB")
	if err != nil {
		return nil, nil, err
	}
	store := mysqlstore.NewWithCleanupInterval(db, 0)
	return scsSweeping{store, execs(db, "DELETE FROM sessions WHERE expiry < UTC_TIMESTAMP(6)"),
		&rows{db, scsMySQLRows, 1}}, db.Close, nil
}

func execs(db *sql.DB, text string) func() error {
	return func() error {
		_, err := db.Exec(text)
		return err
	}
}
