package testdb

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"github.com/go-sql-driver/mysql"
)

func newMySQL(conf []string) *Server {
	return &Server{conf: conf, kind: kind{
		name: "mysql", driver: "mysql",
		prepare: prepareMySQL, command: mysqlCommand, dsn: mysqlServerDSN,
		shutdown: syscall.SIGTERM,
	}}
}

func prepareMySQL(s *Server) error {
	install, err := find("mariadb-install-db")
	if err != nil {
		return err
	}
	if _, err := find("mariadbd", "/usr/sbin", "/usr/libexec"); err != nil {
		return err
	}
	if err := s.write("my.cnf", mysqlConf(s)); err != nil {
		return err
	}
	if err := s.write("init.sql", mysqlInit(s)); err != nil {
		return err
	}
	return s.tool(install, "--defaults-file="+s.path("my.cnf"),
		"--auth-root-authentication-method=normal", "--skip-test-db")
}

func mysqlConf(s *Server) string {
	return strings.Join(append([]string{
		"[mariadbd]",
		"datadir = " + s.path("data"),
		"tmpdir = " + s.dir, // a server that starts clears it of what others use
		"socket = " + s.path("socket"),
		"pid-file = " + s.path("pid"),
		"bind-address = 127.0.0.1",
		"port = " + strconv.Itoa(s.port),
		"skip-name-resolve",
		"max-connections = 400",
		"innodb-flush-log-at-trx-commit = 1",
		"innodb-buffer-pool-size = 256M",
	}, s.conf...), "\n") + "\n"
}

// mysqlInit is run at every start.
func mysqlInit(s *Server) string {
	return fmt.Sprintf(`CREATE DATABASE IF NOT EXISTS %[3]s;
CREATE USER IF NOT EXISTS %[1]s@'127.0.0.1' IDENTIFIED BY '%[2]s';
GRANT ALL PRIVILEGES ON *.* TO %[1]s@'127.0.0.1' WITH GRANT OPTION;
`, account, s.password, database)
}

func mysqlCommand(s *Server) []string {
	path, err := find("mariadbd", "/usr/sbin", "/usr/libexec")
	if err != nil {
		path = "mariadbd"
	}
	return []string{path, "--defaults-file=" + s.path("my.cnf"), "--init-file=" + s.path("init.sql")}
}

func mysqlServerDSN(s *Server) string {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.Net, cfg.Addr, cfg.DBName = account, s.password, "tcp", s.Addr(), database
	return cfg.FormatDSN()
}
