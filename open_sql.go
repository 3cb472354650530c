package session2

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/lib/pq"
)

// sqlConns is how many connections a store of Open keeps at most. database/sql
// alone would close all but two of them between bursts, and prepare every
// statement anew.
const sqlConns = 16

// errSQLURL repeats nothing of what the driver says: that may hold a password.
var errSQLURL = errors.New("session2: open: the driver refuses the URL or one of its options")

// takeSQL takes the options of a SQL store. What is left is the driver's.
func (o *openOptions) takeSQL() (opts SQLOptions, conns int) {
	opts.Table = option(o, "table", func(s string) (string, error) { return s, nil })
	opts.NoPrepare = o.bool("noprepare")
	opts.Timeout = o.duration("timeout")
	if conns = option(o, "conns", strconv.Atoi); conns == 0 {
		conns = sqlConns
	}
	return opts, conns
}

// openPostgres opens the store of a postgres: URL, by lib/pq.
func openPostgres(u *url.URL, o *openOptions) (Store, error) {
	opts, conns := o.takeSQL()
	if opts.NoPrepare {
		o.query.Set("binary_parameters", "yes")
	}
	dsn := *u
	dsn.Scheme, dsn.RawQuery = "postgres", o.query.Encode()
	connector, err := pq.NewConnector(dsn.String())
	if err != nil {
		return nil, errors.Join(append(o.errs, errSQLURL)...)
	}
	connector.Dialer(boundedDialer{timeout: 2 * opts.wait()}) // a call has given up by then
	return openSQL(o, connector, conns, func(db *sql.DB) (Store, *sqlStore, error) {
		s, err := NewPostgresStore(db, &opts)
		if err != nil {
			return nil, nil, err
		}
		return s, &s.sqlStore, nil
	})
}

// openMySQL opens the store of a mysql: URL.
func openMySQL(u *url.URL, o *openOptions) (Store, error) {
	opts, conns := o.takeSQL()
	if opts.NoPrepare {
		o.query.Set("interpolateParams", "true")
	}
	connector, err := mysqlConnector(u, o.query)
	if err != nil {
		return nil, errors.Join(append(o.errs, errSQLURL)...)
	}
	return openSQL(o, connector, conns, func(db *sql.DB) (Store, *sqlStore, error) {
		s, err := NewMySQLStore(db, &opts)
		if err != nil {
			return nil, nil, err
		}
		return s, &s.sqlStore, nil
	})
}

// mysqlConnector translates a URL into the driver's own notation.
func mysqlConnector(u *url.URL, params url.Values) (driver.Connector, error) {
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr = "tcp", u.Host
	cfg.User = u.User.Username()
	cfg.Passwd, _ = u.User.Password()
	if len(u.Path) > 1 {
		cfg.DBName = u.Path[1:]
	}
	dsn := cfg.FormatDSN()
	if len(params) > 0 {
		dsn += "?" + params.Encode()
	}
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, err
	}
	return mysql.NewConnector(cfg)
}

// openSQL makes a store that owns its database.
func openSQL(o *openOptions, c driver.Connector, conns int, open func(*sql.DB) (Store, *sqlStore, error)) (Store, error) {
	if err := errors.Join(o.errs...); err != nil {
		return nil, err
	}
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	store, s, err := open(db)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.owned = db.Close
	return store, nil
}

// boundedDialer makes connections whose reads end in time. lib/pq waits for an
// answer even when its context is done, unless the server carries out its
// request to cancel. The store gives up on such a call, and only this gives the
// pool its connection back where the server hangs.
type boundedDialer struct {
	net.Dialer
	timeout time.Duration
}

// Dial implements [pq.Dialer].
func (d boundedDialer) Dial(network, addr string) (net.Conn, error) {
	return d.DialTimeout(network, addr, max(d.timeout, 0))
}

// DialTimeout implements [pq.Dialer].
func (d boundedDialer) DialTimeout(network, addr string, timeout time.Duration) (net.Conn, error) {
	d.Timeout = timeout
	c, err := d.Dialer.Dial(network, addr)
	if err != nil || d.timeout <= 0 {
		return c, err
	}
	return boundedConn{c, d.timeout}, nil
}

type boundedConn struct {
	net.Conn
	timeout time.Duration
}

// Read implements [io.Reader].
func (c boundedConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}
