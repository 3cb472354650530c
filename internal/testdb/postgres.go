package testdb

import (
	"net/url"
	"strconv"
	"strings"
	"syscall"

	_ "github.com/lib/pq"
)

// postgresPlaces are where distributions keep the programs, out of the PATH.
var postgresPlaces = []string{
	"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin",
	"/opt/homebrew/opt/postgresql*/bin", "/usr/local/pgsql/bin",
}

func newPostgres(conf []string) *Server {
	return &Server{conf: conf, kind: kind{
		name: "postgres", driver: "postgres",
		prepare: preparePostgres, command: postgresCommand, dsn: postgresDSN,
		shutdown: syscall.SIGINT, // "fast": it rolls back and does not wait for clients
	}}
}

func preparePostgres(s *Server) error {
	initdb, err := find("initdb", postgresPlaces...)
	if err != nil {
		return err
	}
	if err := s.write("password", s.password); err != nil {
		return err
	}
	// -N: no need to sync what is thrown away if the machine dies now. The
	// server itself syncs.
	err = s.tool(initdb, "-D", s.path("data"), "-N", "-U", account, "-A", "password", "--pwfile", s.path("password"),
		"-E", "UTF8", "--locale=C")
	if err != nil {
		return err
	}
	return s.write("data/postgresql.auto.conf", strings.Join(append([]string{
		"listen_addresses = '127.0.0.1'",
		"port = " + strconv.Itoa(s.port),
		"unix_socket_directories = ''",
		"max_connections = 400",
		"dynamic_shared_memory_type = mmap", // in files of its own directory, which goes with it
	}, s.conf...), "\n")+"\n")
}

func postgresCommand(s *Server) []string {
	path, err := find("postgres", postgresPlaces...)
	if err != nil {
		path = "postgres" // initdb was there: starting it says what is wrong
	}
	return []string{path, "-D", s.path("data")}
}

func postgresDSN(s *Server) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(account, s.password), Host: s.Addr(),
		Path: "/postgres", RawQuery: "sslmode=disable",
	}
	return u.String()
}
