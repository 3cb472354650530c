package testdb

import (
	"database/sql"
	"testing"
)

// TestStandby finds what a primary committed on the standby that takes its
// place.
func TestStandby(t *testing.T) {
	primary := NewPostgres(t, "synchronous_standby_names = '*'")
	standby := NewStandby(t, primary, "synchronous_standby_names = ''")
	db, err := sql.Open("postgres", primary.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	run(t, db, "CREATE TABLE n (v int)")
	run(t, db, "INSERT INTO n VALUES (1)")
	primary.Kill()
	standby.Promote()
	after, err := sql.Open("postgres", standby.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	run(t, after, "INSERT INTO n VALUES (2)")
	if got := count(t, after); got != 2 {
		t.Errorf("got %d rows, want 2", got)
	}
}
