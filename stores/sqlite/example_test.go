package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite"

	"github.com/session2/session2"
	"github.com/session2/session2/stores/sqlite"
)

// An application keeps its sessions in its own file, beside its own tables.
func ExampleNewStore() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "app.db")+
		"?_pragma=journal_mode(wal)&_pragma=synchronous(full)&_pragma=busy_timeout(100)")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	store, err := sqlite.NewStore(db, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Setup(context.Background()); err != nil {
		log.Fatal(err)
	}
	_, err = session2.NewManager(store, session2.Config{
		Require: session2.Capabilities{ThreadSafe: true, MultiprocessSafe: true, Durable: true},
	})
	fmt.Println(err)
	// Output: <nil>
}

// A program takes its store from its surroundings, and knows SQLite too.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	url := "sqlite:" + filepath.Join(dir, "sessions.db") // os.Getenv("SESSION2_STORE")
	schemes := map[string]session2.OpenFunc{"sqlite": sqlite.Open}
	store, err := session2.OpenWith(context.Background(), url, schemes)
	if err != nil {
		log.Fatal(err)
	}
	defer session2.Close(store)
	fmt.Println(session2.Setup(context.Background(), store))
	// Output: <nil>
}
