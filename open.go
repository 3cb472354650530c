package session2

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/lib/pq"
	"github.com/session2/session2/internal/sqlstore"
)

// Open opens the store that a URL names:
//
//	memory:
//	file:sessions            a directory; also file:///var/lib/app/sessions
//	bolt:sessions.db         a file
//	gob:sessions.gob         a file
//	postgres://user:password@host:port/database
//	mysql://user:password@host:port/database
//
// Options follow, as in bolt:sessions.db?timeout=3s&nosync=true: the fields of
// FileOptions, BoltOptions, GobOptions and SQLOptions in lower case, but for Logger,
// and with group for SharedGroup. An unknown one is refused. A database's URL also
// takes
//
//	conns=32               connections at most, 16 by default
//	connlife=1m            how long one is used, 5m by default; negative: for ever
//	set.wsrep_sync_wait=7  a setting of the server, for each connection
//	socket=/run/mysqld.sock, mysql only: a socket in place of the host
//
// and the driver's own, such as sslmode for PostgreSQL and tls for MySQL. lib/pq
// demands TLS unless sslmode says otherwise.
//
// A database is not called yet. The store's Setup and Close are the caller's to call
// (see [Setup] and [Close]). No error repeats the URL, which may hold a password.
//
// [OpenWith] opens other stores as well.
func Open(ctx context.Context, rawURL string) (Store, error) {
	return OpenWith(ctx, rawURL, nil)
}

// openBuiltIn opens a store of this package.
func openBuiltIn(u *url.URL, schemes map[string]OpenFunc) (Store, error) {
	switch {
	case u.Fragment != "":
		return nil, errors.New("session2: open: a URL of a store has no fragment")
	case u.Host != "" && u.Path == "" && u.RawQuery != "": // these may be options, or a password with a question mark
		return nil, errors.New("session2: open: a slash is missing before the options in the URL")
	}
	o, err := newOpenOptions(u.RawQuery)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "postgres", "postgresql":
		return openPostgres(u, o)
	case "mysql":
		return openMySQL(u, o)
	case "memory", "file", "bolt", "gob":
	default:
		return nil, unknownScheme(u.Scheme, schemes)
	}
	path, err := storePath(u)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "memory":
		return opened(o, func() (*MemoryStore, error) { return NewMemoryStore(), nil })
	case "file":
		opts := FileOptions{NoSync: o.bool("nosync"), SharedGroup: o.bool("group"), Timeout: o.duration("timeout")}
		return opened(o, func() (*FileStore, error) { return OpenFileStore(path, &opts) })
	case "bolt":
		opts := BoltOptions{NoSync: o.bool("nosync"), SharedGroup: o.bool("group"), Timeout: o.duration("timeout")}
		return opened(o, func() (*BoltStore, error) { return OpenBoltStore(path, &opts) })
	default:
		opts := GobOptions{NoSync: o.bool("nosync"), SharedGroup: o.bool("group"), Timeout: o.duration("timeout")}
		return opened(o, func() (*GobStore, error) { return OpenGobStore(path, &opts) })
	}
}

// opened opens the store if all of its options were understood.
func opened[S Store](o *openOptions, open func() (S, error)) (Store, error) {
	if err := o.rest(); err != nil {
		return nil, err
	}
	store, err := open()
	if err != nil {
		return nil, err // and no Store that holds a nil pointer
	}
	return store, nil
}

// storePath returns the path that the URL of an embedded store names.
func storePath(u *url.URL) (string, error) {
	path := u.Path
	if u.Opaque != "" {
		var err error
		if path, err = url.PathUnescape(u.Opaque); err != nil {
			return "", errors.New("session2: open: malformed path in the URL")
		}
	}
	memory := u.Scheme == "memory"
	switch {
	case u.User != nil || u.Host != "" || memory && path != "":
		return "", fmt.Errorf("session2: open: a URL of the scheme %[1]s is %[1]s: and a path, "+
			"without host and user", u.Scheme)
	case path == "" && !memory:
		return "", errors.New("session2: open: the URL names no path")
	}
	return path, nil
}

// openOptions are taken one by one: what is left is what nobody knows.
type openOptions struct {
	query url.Values
	errs  []error
}

// newOpenOptions reads a URL's query. Its errors show no values.
func newOpenOptions(query string) (*openOptions, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("session2: open: malformed options in the URL")
	}
	var errs []error
	for name, list := range values {
		switch {
		case !optionName.MatchString(name): // it may be of a password with a question mark
			return nil, errors.New("session2: open: malformed options in the URL")
		case len(list) > 1:
			errs = append(errs, fmt.Errorf("session2: open: option %q is given more than once", name))
		case list[0] == "" && !strings.HasPrefix(name, "set."): // lib/pq passes over it, whatever its name
			errs = append(errs, fmt.Errorf("session2: open: option %q has no value", name))
		}
	}
	return &openOptions{query: values}, errors.Join(errs...)
}

var optionName = regexp.MustCompile(`^[A-Za-z0-9_.]+$`)

func (o *openOptions) bool(name string) bool { return option(o, name, strconv.ParseBool) }

func (o *openOptions) duration(name string) time.Duration {
	return option(o, name, time.ParseDuration)
}

// option takes an option's value, the zero value if it is not there.
func option[T any](o *openOptions, name string, parse func(string) (T, error)) (v T) {
	list, ok := o.query[name]
	if !ok {
		return v
	}
	delete(o.query, name)
	v, err := parse(list[0])
	if err != nil {
		o.errs = append(o.errs, fmt.Errorf("session2: open: option %s: %s", name, notA(v)))
	}
	return v
}

// notA says what was expected in the place of a value.
func notA(v any) string {
	switch v.(type) {
	case bool:
		return "not true or false"
	case time.Duration:
		return "not a duration such as 5s"
	}
	return "not a number"
}

// rest refuses the options that nobody took.
func (o *openOptions) rest() error {
	for name := range o.query {
		o.errs = append(o.errs, fmt.Errorf("session2: open: unknown option %q", name))
	}
	return errors.Join(o.errs...)
}

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
var errSQLURL = errors.New("session2: open: not a URL such as postgres://user:password@host:port/database, " +
	"or the driver refuses one of its options")

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
		o.errs = append(o.errs, fmt.Errorf("session2: open: unknown option %[1]q; a setting of the server is set.%[1]s",
			name))
	}
	return errors.Join(o.errs...)
}

// openPostgres opens the store of a postgres: URL, by lib/pq.
func openPostgres(u *url.URL, o *openOptions) (Store, error) {
	opts := o.takeSQL()
	if opts.NoPrepare || !o.query.Has("binary_parameters") {
		o.query.Set("binary_parameters", "yes") // without a statement to prepare; and half the bytes
	}
	cfg, err := postgresConfig(u, o)
	if err != nil {
		return nil, err
	}
	cfg.Runtime = opts.set
	if cfg.ConnectTimeout == 0 && opts.Wait() > 0 { // a server that hangs leaves time for the next one
		cfg.ConnectTimeout = opts.Wait() / time.Duration(1+len(cfg.Multi))
	}
	if _, err := pq.NewConnectorConfig(cfg); err != nil {
		return nil, errSQLURL
	}
	connector := sqlstore.PostgresConnector{Config: cfg, Timeout: 2 * opts.Wait()} // a call has given up by then
	return openSQL(connector, opts, func(db *sql.DB) (Store, *sqlStore, error) {
		s, err := NewPostgresStore(db, (*SQLOptions)(&opts.Options))
		if err != nil {
			return nil, nil, err
		}
		return s, &s.sqlStore, nil
	})
}

// postgresConfig reads a URL as lib/pq would. One without two slashes lib/pq takes for names
// and values, of which a name may be a password.
func postgresConfig(u *url.URL, o *openOptions) (cfg pq.Config, err error) {
	if u.Opaque == "" && !u.OmitHost {
		cfg, err = pq.NewConfig(postgresDSN(u, o))
	} else {
		err = errSQLURL
	}
	if err != nil {
		return cfg, errors.Join(append(o.errs, errSQLURL)...)
	}
	return cfg, o.refuse(cfg.Runtime)
}

// postgresDSN returns a URL for lib/pq.
func postgresDSN(u *url.URL, o *openOptions) string {
	dsn := *u
	dsn.Scheme, dsn.RawQuery = "postgres", o.query.Encode()
	if dsn.Host == "" && dsn.Path == "" { // String would leave the slashes out
		dsn.Path = "/"
	}
	return dsn.String()
}

// NewPostgresPubSub returns a PubSub by LISTEN and NOTIFY, for [CacheOptions]. rawURL is
// one for [Open], whatever driver the store uses; of its options, those that concern the
// store are passed over. It has one connection of its own while the cache is used, which
// must lead to the primary, and not through a pooler that hands out connections by the
// transaction: there some messages are lost, and only MaxAge holds. Nothing is called
// yet, and no error repeats the URL.
func NewPostgresPubSub(rawURL string) (PubSub, error) {
	u, err := url.Parse(rawURL)
	switch {
	case err != nil:
		return nil, errNoURL
	case u.Scheme != "postgres" && u.Scheme != "postgresql":
		return nil, errors.New("session2: open: a PubSub of PostgreSQL is opened by a URL of the scheme postgres")
	}
	o, err := newOpenOptions(u.RawQuery)
	if err != nil {
		return nil, err
	}
	o.takeSQL()
	cfg, err := postgresConfig(u, o)
	if err != nil {
		return nil, err
	}
	if cfg.ConnectTimeout == 0 {
		o.query.Set("connect_timeout", "3")
	}
	return sqlstore.NewPubSub(postgresDSN(u, o)), nil
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
	connector, err := sqlstore.NewMySQLConnector(cfg, opts.Wait())
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
// as that the server has closed an idle connection, and nothing of one that the store
// has closed. The logger may be changed while the store is open.
type mysqlLog struct{}

// Print implements [mysql.Logger].
func (mysqlLog) Print(v ...any) {
	for _, part := range v {
		if err, ok := part.(error); ok && errors.Is(err, net.ErrClosed) {
			return
		}
	}
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
