package session2_test

import (
	"database/sql"
	"fmt"
	"log"
	"time"

	"github.com/session2/session2"
)

func ExampleNewPostgresStore() {
	db, err := sql.Open("postgres", "host=localhost dbname=app")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	store, err := session2.NewPostgresStore(db, &session2.SQLOptions{Table: "app.sessions"})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	fmt.Println(store.Schema()[1])

	_, err = session2.NewPostgresStore(db, &session2.SQLOptions{Table: "sessions; --"})
	fmt.Println(err)
	// Output:
	// CREATE INDEX IF NOT EXISTS "sessions_username_idx" ON "app"."sessions" (username, id) WHERE username <> ''
	// session2: "sessions; --" is no name for a table: want letters, digits and underscores, at most 40
}

func ExampleNewMySQLStore() {
	db, err := sql.Open("mysql", "app@tcp(localhost)/app")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	store, err := session2.NewMySQLStore(db, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	for _, statement := range store.Schema()[1:] { // the first makes the table of sessions
		fmt.Println(statement)
	}
	// Output:
	// CREATE TABLE IF NOT EXISTS `session2_sessions_meta` (version bigint NOT NULL PRIMARY KEY) ENGINE=InnoDB
	// INSERT IGNORE INTO `session2_sessions_meta` (version) VALUES (1)
}

func ExampleSQLOptions() {
	// For PgBouncer in transaction mode.
	db, err := sql.Open("postgres", "host=pgbouncer dbname=app binary_parameters=yes")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	store, err := session2.NewPostgresStore(db, &session2.SQLOptions{
		Table:     "shop.sessions",
		NoPrepare: true,
		Timeout:   2 * time.Second,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	fmt.Printf("%+v\n", store.Capabilities())
	// Output: {ThreadSafe:true MultiprocessSafe:true MultihostSafe:true Durable:true}
}
