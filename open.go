package session2

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
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
// Options follow, as in bolt:sessions.db?timeout=3s&nosync=true, under the names
// of FileOptions, BoltOptions, GobOptions and SQLOptions in lower case, with group
// for SharedGroup; an unknown one is refused. Beside those of SQLOptions a database's URL takes
//
//	conns=32               connections at most, 16 by default
//	connlife=1m            how long one is used, 5m by default; negative: for ever
//	set.wsrep_sync_wait=7  a setting of the server, for each connection
//	socket=/run/mysqld.sock, mysql only: a socket in place of the host
//
// and the driver's own, such as sslmode for PostgreSQL and tls for MySQL. lib/pq
// demands TLS unless sslmode says otherwise.
//
// A database is not called yet. The store's Setup is the caller's to call, and
// its Close, if it has one. No error repeats the URL, which may hold a password.
func Open(ctx context.Context, rawURL string) (Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errors.New("session2: open: not a URL")
	}
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
		return nil, fmt.Errorf("session2: open: no store has the URL scheme %q, as in file:path; "+
			"there are file, bolt, gob, memory, postgres and mysql", u.Scheme)
	}
	path, err := storePath(u)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "memory":
		return opened(o, func() (*MemoryStore, error) { return NewMemoryStore(), nil })
	case "file":
		opts := FileOptions{NoSync: o.bool("nosync"), SharedGroup: o.bool("group")}
		return opened(o, func() (*FileStore, error) { return OpenFileStore(path, &opts) })
	case "bolt":
		opts := BoltOptions{NoSync: o.bool("nosync"), SharedGroup: o.bool("group"), Timeout: o.duration("timeout")}
		return opened(o, func() (*BoltStore, error) { return OpenBoltStore(path, &opts) })
	default:
		opts := GobOptions{NoSync: o.bool("nosync"), SharedGroup: o.bool("group")}
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
		o.errs = append(o.errs, fmt.Errorf("session2: open: option %s: not a %T", name, v))
	}
	return v
}

// rest refuses the options that nobody took.
func (o *openOptions) rest() error {
	for name := range o.query {
		o.errs = append(o.errs, fmt.Errorf("session2: open: unknown option %q", name))
	}
	return errors.Join(o.errs...)
}
