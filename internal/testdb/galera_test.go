package testdb

import (
	"database/sql"
	"testing"
)

// TestGalera finds what one node committed on the others, on one that was away,
// and on all of them when all were.
func TestGalera(t *testing.T) {
	g := NewGalera(t)
	var dbs []*sql.DB
	for _, s := range g.Nodes {
		db, err := sql.Open("mysql", s.DSN()+"?wsrep_sync_wait=1")
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		dbs = append(dbs, db)
	}
	run(t, dbs[0], "CREATE TABLE n (v int PRIMARY KEY)")
	run(t, dbs[1], "INSERT INTO n VALUES (1)")
	g.Nodes[0].Kill()
	run(t, dbs[2], "INSERT INTO n VALUES (2)")
	g.Nodes[0].Start()
	run(t, dbs[0], "INSERT INTO n VALUES (3)")
	g.Kill()
	g.Start()
	run(t, dbs[2], "INSERT INTO n VALUES (4)")
	for i, db := range dbs {
		if got := count(t, db); got != 4 {
			t.Errorf("node %d: got %d rows, want 4", i, got)
		}
	}
}
