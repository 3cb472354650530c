package session2

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/lib/pq"

	"github.com/session2/session2/internal/sqlstore"
)

const (
	// sqlConns is how many connections a store of Open keeps at most.
	// database/sql alone would close all but two of them between bursts, and
	// prepare every statement anew.
	sqlConns = 16

	// sqlConnLife is how long it uses one. A connection may outlive its server's
	// part: it leads to a primary that became read-only, or to one node where a
	// balancer has several again.
	sqlConnLife = 5 * time.Minute
)

// errSQLURL repeats nothing of what the driver says: that may hold a password.
var errSQLURL = errors.New("session2: open: the driver refuses the URL or one of its options")

// sqlOptions are the options of a database's URL that are not the driver's.
type sqlOptions struct {
	sqlstore.Options
	conns    int
	connLife time.Duration
	set      map[string]string // settings of the server, for each connection
}

// takeSQL takes these options. What is left is for the driver.
func (o *openOptions) takeSQL() (opts sqlOptions) {
	opts.Table = option(o, "table", func(s string) (string, error) { return s, nil })
	opts.NoPrepare = o.bool("noprepare")
	opts.Timeout = o.duration("timeout")
	if opts.conns = option(o, "conns", count); opts.conns == 0 {
		opts.conns = sqlConns
	}
	if opts.connLife = o.duration("connlife"); opts.connLife == 0 {
		opts.connLife = sqlConnLife
	}
	opts.set = make(map[string]string)
	for name, list := range o.query {
		if setting, ok := strings.CutPrefix(name, "set."); ok {
			opts.set[setting] = list[0]
			delete(o.query, name)
		}
	}
	return opts
}

// count parses a number of things.
func count(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err
}

// refuse notes the options that the driver does not know either and would send
// to the server: misspelt, they would be found out at the first connection.
func (o *openOptions) refuse(params map[string]string) error {
	for name := range params {
		o.errs = append(o.errs, fmt.Errorf("session2: open: unknown option %q; a setting of the server is set.%s", name, name))
	}
	return errors.Join(o.errs...)
}

// openPostgres opens the store of a postgres: URL, by lib/pq.
func openPostgres(u *url.URL, o *openOptions) (Store, error) {
	opts := o.takeSQL()
	if opts.NoPrepare {
		o.query.Set("binary_parameters", "yes")
	}
	dsn := *u
	dsn.Scheme, dsn.RawQuery = "postgres", o.query.Encode()
	cfg, err := pq.NewConfig(dsn.String())
	if err != nil {
		return nil, errors.Join(append(o.errs, errSQLURL)...)
	}
	if err := o.refuse(cfg.Runtime); err != nil {
		return nil, err
	}
	cfg.Runtime = opts.set
	if cfg.ConnectTimeout == 0 && opts.Wait() > 0 { // a server that hangs leaves time for the next one
		cfg.ConnectTimeout = opts.Wait() / time.Duration(1+len(cfg.Multi))
	}
	connector, err := pq.NewConnectorConfig(cfg)
	if err != nil {
		return nil, errSQLURL
	}
	connector.Dialer(sqlstore.BoundedDialer{Timeout: opts.Wait() * 11 / 10}) // the call has given up by then
	return openSQL(connector, opts, func(db *sql.DB) (Store, *sqlStore, error) {
		s, err := NewPostgresStore(db, (*SQLOptions)(&opts.Options))
		if err != nil {
			return nil, nil, err
		}
		return s, &s.sqlStore, nil
	})
}

// openMySQL opens the store of a mysql: URL.
func openMySQL(u *url.URL, o *openOptions) (Store, error) {
	opts := o.takeSQL()
	if opts.NoPrepare {
		o.query.Set("interpolateParams", "true")
	}
	cfg, err := mysqlConfig(u, o)
	if err != nil {
		return nil, errors.Join(append(o.errs, errSQLURL)...)
	}
	if err := o.refuse(cfg.Params); err != nil {
		return nil, err
	}
	cfg.Params = make(map[string]string)
	if wait := opts.Wait(); wait > 0 {
		// A statement that was given up waits on in the server, which keeps its
		// connection, of which the pool knows no more.
		cfg.Params["innodb_lock_wait_timeout"] = strconv.Itoa(int((wait + time.Second - 1) / time.Second))
	}
	for name, value := range opts.set {
		cfg.Params[name] = mysqlLiteral(value)
	}
	cfg.Logger = mysqlLog{}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, errSQLURL
	}
	return openSQL(connector, opts, func(db *sql.DB) (Store, *sqlStore, error) {
		s, err := NewMySQLStore(db, (*SQLOptions)(&opts.Options))
		if err != nil {
			return nil, nil, err
		}
		return s, &s.sqlStore, nil
	})
}

// mysqlLog takes what the driver would write to standard error. It says no more
// than the errors that the store returns, or what a pool gets over by itself, such
// as that the server has closed an idle connection. The logger may be changed
// while the store is open.
type mysqlLog struct{}

// Print implements [mysql.Logger].
func (mysqlLog) Print(v ...any) {
	slog.Default().Debug("session2: the MySQL driver says", "text", strings.TrimSpace(fmt.Sprint(v...)))
}

// mysqlConfig reads a URL as the driver would its own notation.
func mysqlConfig(u *url.URL, o *openOptions) (*mysql.Config, error) {
	socket := option(o, "socket", func(s string) (string, error) { return s, nil })
	if !o.query.Has("maxAllowedPacket") {
		o.query.Set("maxAllowedPacket", "0") // ask the server: it would break off at more
	}
	for _, name := range []string{"charset", "collation"} {
		o.query.Del(name) // they change nothing for us, and charset not for the better
	}
	network, addr := "tcp", u.Host
	database := strings.TrimPrefix(u.Path, "/")
	switch {
	case socket != "" && u.Host == "":
		network, addr = "unix", socket
	case socket != "" || u.Hostname() == "" || strings.Contains(database, "/"):
		return nil, errSQLURL
	case u.Port() == "":
		addr = net.JoinHostPort(u.Hostname(), "3306")
	}
	// With the address, as the driver takes from it whose certificate it wants.
	cfg, err := mysql.ParseDSN(network + "(" + addr + ")/?" + o.query.Encode())
	if err != nil || cfg.Net != network || cfg.Addr != addr {
		return nil, errSQLURL
	}
	cfg.User, cfg.DBName = u.User.Username(), database
	cfg.Passwd, _ = u.User.Password()
	return cfg, nil
}

// mysqlLiteral returns a setting's value as the driver puts it into a SET
// statement: a number, or a string.
func mysqlLiteral(value string) string {
	if _, err := strconv.ParseInt(value, 10, 64); err == nil {
		return value
	}
	return "'" + strings.NewReplacer("'", "''", `\`, `\\`).Replace(value) + "'"
}

// openSQL makes a store that owns its database.
func openSQL(c driver.Connector, opts sqlOptions, open func(*sql.DB) (Store, *sqlStore, error)) (Store, error) {
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(opts.conns)
	db.SetMaxIdleConns(opts.conns)
	db.SetConnMaxLifetime(opts.connLife)
	store, s, err := open(db)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.sql.OnClose(db.Close)
	return store, nil
}
