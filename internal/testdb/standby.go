package testdb

import (
	"database/sql"
	"fmt"
	"strconv"
	"testing"
)

// Standby is a PostgreSQL server that repeats what its primary commits.
type Standby struct{ *Server }

// NewStandby starts a standby of the primary for this test alone. It copies the
// primary's settings; these lines come after them. The primary waits for it
// if its synchronous_standby_names is '*', from the moment that this returns.
func NewStandby(t testing.TB, primary *Server, conf ...string) *Standby {
	t.Helper()
	k := newPostgres(nil).kind
	k.name, k.ready = "standby", func(*sql.DB) error { return streams(primary) }
	k.prepare = func(s *Server) error { return copyPrimary(s, primary) }
	return &Standby{own(t, &Server{kind: k, conf: conf, password: primary.password})}
}

// copyPrimary makes the standby's data.
func copyPrimary(s, primary *Server) error {
	program, err := find("pg_basebackup", postgresPlaces...)
	if err != nil {
		return err
	}
	// -R leaves the address of the primary and the mark of a standby.
	if err := s.tool(program, "-D", s.path("data"), "-d", primary.DSN(), "-R", "-c", "fast", "--no-sync"); err != nil {
		return err
	}
	return s.append("data/postgresql.auto.conf", append([]string{"port = " + strconv.Itoa(s.port)}, s.conf...))
}

// streams waits until the primary knows the standby as one to wait for.
func streams(primary *Server) error {
	db, err := sql.Open(primary.kind.driver, primary.DSN())
	if err != nil {
		return err
	}
	defer db.Close()
	var state, sync string
	err = db.QueryRow("SELECT state, sync_state FROM pg_stat_replication").Scan(&state, &sync)
	if err == nil && (state != "streaming" || sync == "potential") {
		err = fmt.Errorf("the standby is %s, %s", state, sync)
	}
	return err
}

// Promote makes the standby a primary, and waits until it takes writes.
func (s *Standby) Promote() {
	s.t.Helper()
	program, err := find("pg_ctl", postgresPlaces...)
	if err == nil {
		err = s.tool(program, "promote", "-w", "-D", s.path("data"))
	}
	if err != nil {
		s.t.Fatalf("promote: %v\n%s", err, s.log())
	}
	s.kind.ready = nil // it follows nobody any more
}
