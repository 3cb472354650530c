package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/session2/session2"
)

var _ session2.OpenFunc = Open

// conns is how many connections a store of Open has at most.
const conns = 8

// Open opens the store in the file that a URL names, for [session2.OpenWith] and package
// command:
//
//	sqlite:sessions.db          also sqlite:///var/lib/app/sessions.db
//
// It uses the driver that the program has imported: of those registered as sqlite
// (modernc.org/sqlite) and sqlite3 (github.com/mattn/go-sqlite3, and others) the first.
// Options follow, as in sqlite:sessions.db?table=logins&timeout=3s:
//
//	table=NAME      Options.Table
//	timeout=3s      Options.Timeout
//	nosync=true     a power cut may take the latest changes back; the file stays whole
//
// Setup makes the file, readable by this user only, in the journal mode WAL. A file
// that is there keeps its mode. The path is resolved once, so that a later change of
// the working directory moves nothing. The store promises all of Capabilities but
// MultihostSafe and, with nosync, Durable.
func Open(ctx context.Context, rawURL string) (session2.Store, error) {
	s, err := open(ctx, rawURL)
	if err != nil {
		return nil, failed("open", err) // and no Store that holds a nil pointer
	}
	return s, nil
}

func open(ctx context.Context, rawURL string) (*Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path, query, err := parse(rawURL)
	if err != nil {
		return nil, err
	}
	opts, nosync, err := options(query)
	if err != nil {
		return nil, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	drv, err := registered(sql.Drivers())
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector{drv, fileURI(path), pragmas(nosync)})
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	s, err := newStore(db, &opts)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.file = &file{path, drv}
	s.caps = session2.Capabilities{ThreadSafe: true, MultiprocessSafe: true, Durable: !nosync}
	return s, nil
}

// parse takes a URL apart. Its errors show nothing of it.
func parse(rawURL string) (path string, query url.Values, err error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", nil, errors.New("not a URL")
	}
	if path = u.Path; u.Opaque != "" {
		path, err = url.PathUnescape(u.Opaque)
	}
	query, badQuery := url.ParseQuery(u.RawQuery)
	switch {
	case err != nil || badQuery != nil || u.Fragment != "":
		return "", nil, errors.New("the URL of an SQLite store is sqlite: and a path, and then options")
	case u.User != nil || u.Host != "":
		return "", nil, errors.New("the URL of an SQLite store has no host and no user, as in sqlite:///var/lib/app.db")
	case path == "":
		return "", nil, errors.New("the URL names no path")
	case strings.HasPrefix(path, ":"):
		return "", nil, errors.New("an SQLite store of a URL is a file; memory: keeps sessions in memory")
	}
	return path, query, nil
}

// options reads the options of a URL.
func options(query url.Values) (opts Options, nosync bool, err error) {
	var errs []error
	for name, values := range query {
		var err error
		switch value := values[0]; {
		case len(values) > 1:
			err = errors.New("given more than once")
		case value == "":
			err = errors.New("no value")
		case name == "table":
			opts.Table = value
		case name == "timeout":
			if opts.Timeout, err = time.ParseDuration(value); err != nil {
				err = errors.New("not a duration such as 5s")
			}
		case name == "nosync":
			if nosync, err = strconv.ParseBool(value); err != nil {
				err = errors.New("not true or false")
			}
		default:
			err = errors.New("unknown")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("option %q: %w", name, err))
		}
	}
	return opts, nosync, errors.Join(errs...)
}

// registered returns the driver that the program's imports have registered.
func registered(names []string) (driver.Driver, error) {
	for _, name := range []string{"sqlite", "sqlite3"} {
		if !slices.Contains(names, name) {
			continue
		}
		db, err := sql.Open(name, "")
		if err != nil {
			return nil, err
		}
		return db.Driver(), db.Close()
	}
	return nil, errors.New("the program has no driver for SQLite: " +
		`import _ "modernc.org/sqlite" or _ "github.com/mattn/go-sqlite3"`)
}

// fileURI names the file as SQLite wants it: one that is there, to be written to.
func fileURI(path string) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // C:/sessions.db
	}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?mode=rw"
}

// pragmas are the settings of each connection. In the mode WAL, EXTRA is FULL.
func pragmas(nosync bool) []string {
	synchronous := "EXTRA"
	if nosync {
		synchronous = "NORMAL"
	}
	return []string{"PRAGMA busy_timeout = 100", "PRAGMA synchronous = " + synchronous}
}

// A connector makes connections with settings, whatever the driver's way to write them
// into a data source name.
type connector struct {
	driver  driver.Driver
	name    string
	pragmas []string
}

// Driver implements [driver.Connector].
func (c connector) Driver() driver.Driver { return c.driver }

// Connect implements [driver.Connector].
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.driver.Open(c.name)
	if err != nil {
		return nil, err
	}
	for _, pragma := range c.pragmas {
		if err := run(ctx, conn, pragma); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return conn, nil
}

func run(ctx context.Context, conn driver.Conn, statement string) error {
	e, ok := conn.(driver.ExecerContext)
	if !ok {
		return fmt.Errorf("a connection of type %T runs no statement by itself", conn)
	}
	_, err := e.ExecContext(ctx, statement, nil)
	return err
}

// A file is where a store of Open keeps its records. The nil one is the application's.
type file struct {
	path   string
	driver driver.Driver
}

// missing reports whether the file is not there.
func (f *file) missing() bool {
	if f == nil {
		return false
	}
	_, err := os.Stat(f.path)
	return errors.Is(err, fs.ErrNotExist)
}

// make makes the file in the journal mode WAL, if it is not there. It is whole, and closed,
// before it has its name: whoever closes a file takes this process's locks on it away
// from SQLite.
func (f *file) make(ctx context.Context) error {
	if !f.missing() {
		return nil
	}
	temp, err := os.CreateTemp(filepath.Dir(f.path), filepath.Base(f.path)+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	if err := temp.Close(); err != nil {
		return err
	}
	db := sql.OpenDB(connector{f.driver, fileURI(temp.Name()), pragmas(false)})
	_, err = db.ExecContext(ctx, "PRAGMA journal_mode = WAL")
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := os.Link(temp.Name(), f.path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
