package testdb

import (
	"fmt"
	"syscall"
	"testing"
)

// NewPgBouncer starts a PgBouncer in front of a server of [NewPostgres]. It is
// in transaction mode: each transaction may run on another connection to the
// server, so that prepared statements are not to be had.
func NewPgBouncer(t testing.TB, server *Server) *Server {
	t.Helper()
	return own(t, &Server{kind: kind{
		name: "pgbouncer", driver: "postgres",
		prepare: func(s *Server) error { return preparePgBouncer(s, server) },
		command: pgBouncerCommand, dsn: postgresDSN,
		shutdown: syscall.SIGINT,
	}})
}

func preparePgBouncer(s, server *Server) error {
	if _, err := find("pgbouncer", "/usr/sbin"); err != nil {
		return err
	}
	s.password = server.password
	if err := s.write("users", fmt.Sprintf("%q %q\n", account, s.password)); err != nil {
		return err
	}
	return s.write("pgbouncer.ini", fmt.Sprintf(`[databases]
postgres = host=127.0.0.1 port=%d

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s
pool_mode = transaction
max_client_conn = 400
default_pool_size = 4
`, server.port, s.port, s.path("users")))
}

func pgBouncerCommand(s *Server) []string {
	path, err := find("pgbouncer", "/usr/sbin")
	if err != nil {
		path = "pgbouncer"
	}
	return []string{path, s.path("pgbouncer.ini")}
}
