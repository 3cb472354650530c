package command

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/session2/session2"
)

// location is where a store is.
type location struct {
	url     *url.URL
	schemes map[string]session2.OpenFunc // beside the built-in ones
}

// foreign reports whether the store is none of the library's own.
func (l location) foreign() bool { return l.schemes[l.url.Scheme] != nil }

// String returns the place without what may be secret. Where a database's URL
// names no host, what there is may be a password in the wrong place.
func (l location) String() string {
	u := url.URL{Scheme: l.url.Scheme, OmitHost: l.url.OmitHost}
	plain := l.foreign() && !strings.ContainsAny(l.url.Opaque+l.url.Path, "@%") // a file, most likely
	if l.path() != "" || l.url.Host != "" || plain {
		u.Opaque, u.Host, u.Path = l.url.Opaque, l.url.Host, l.url.Path
	}
	if name := l.url.User.Username(); name != "" {
		u.User = url.User(name)
	}
	return u.String()
}

const storeComes = "it comes before the other arguments, or by -store or SESSION2_STORE"

// locate reads a URL, or the file that @FILE names, and completes a database's
// password.
func (o options) locate(text string) (location, error) {
	if file, ok := strings.CutPrefix(text, "@"); ok {
		b, err := os.ReadFile(file)
		if err != nil {
			return location{}, err
		}
		text = strings.TrimSpace(string(b))
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" {
		// It says no more: the text may hold a password.
		return location{}, usageError("the store is not a URL such as bolt:sessions.db: " + storeComes +
			"; in a database's password, special characters are written as %%23 for #")
	}
	l := location{u, o.schemes}
	if _, set := u.User.Password(); set || l.path() != "" || u.Scheme == "memory" || l.foreign() && u.Host == "" {
		return l, nil
	}
	password, err := o.password()
	switch {
	case err != nil || password == "":
	case u.Host == "" && strings.HasPrefix(u.Scheme, "postgres") && !u.Query().Has("password"):
		// The host is an option, too.
		q := u.Query()
		q.Set("password", password)
		u.RawQuery = q.Encode()
	default:
		u.User = url.UserPassword(u.User.Username(), password)
	}
	return l, err
}

// password returns the password from the file or the environment, if any.
func (o options) password() (string, error) {
	if o.passwordFile == "" {
		return os.Getenv("SESSION2_PASSWORD"), nil
	}
	b, err := os.ReadFile(o.passwordFile)
	return strings.TrimRight(string(b), "\r\n"), err
}

// storeForm is what no user is likely to be called.
var storeForm = regexp.MustCompile(`^(@|(memory|file|bolt|gob|mysql|postgres|postgresql):)`)

// named reports whether a text is the name of a store, and not of a user.
func (o options) named(text string) bool {
	scheme, _, _ := strings.Cut(text, ":")
	return storeForm.MatchString(text) || o.schemes[scheme] != nil && scheme != text
}

// locateStore finds the one store that a command works on, and returns the
// arguments that are left. The store is the first argument if there is one too
// many, or if it cannot be anything else, or if there is no other and it looks like
// one: then what else the command needs is missing.
func (j *job) locateStore(c command, args []string) (rest []string, err error) {
	text := j.url
	first := len(args) > c.most || c.ids && len(args) > 0 && strings.ContainsAny(args[0], ":@")
	switch {
	case text != "" && first:
		return nil, usageError("two stores are named, or there is an argument too many")
	case first:
		text, args = args[0], args[1:]
	case text == "":
		text = os.Getenv("SESSION2_STORE")
	}
	if text == "" && len(args) > 0 && j.named(args[0]) {
		text, args = args[0], args[1:]
	}
	if text == "" {
		return nil, usageError("no store is named: " + storeComes)
	}
	j.where, err = j.locate(text)
	return args, err
}

// notSetUp reports whether a store that is open is not there all the same: a database's
// or one of somebody else's scheme, which nothing but its Setup makes.
func notSetUp(ctx context.Context, store session2.Store) bool {
	_, err := store.Has(ctx, session2.ID{})
	if err == nil { // some see a record that is not there, and look no further
		_, err = store.Load(ctx, session2.ID{})
	}
	return errors.Is(err, session2.ErrNotSetUp)
}

func (l location) absent() error {
	return fmt.Errorf("there is no store at %s: session2 setup makes one", l)
}

// missing reports whether it is one of the library's embedded stores, which are made
// when they are opened, and is not there, although there may be a directory or an
// empty file.
func (l location) missing() bool {
	path := l.path()
	if path == "" {
		return false
	}
	folder := l.url.Scheme == "file"
	if folder {
		path = filepath.Join(path, "sessions")
	}
	info, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist) || err == nil && !folder && info.Size() == 0
}

// path returns the path of an embedded store, or "".
func (l location) path() string {
	switch l.url.Scheme {
	case "file", "bolt", "gob":
	default:
		return ""
	}
	if l.url.Opaque == "" {
		return l.url.Path
	}
	path, _ := url.PathUnescape(l.url.Opaque)
	return path
}

// aside returns the IDs of the records that a file store has set aside because
// they were corrupt.
func (l location) aside() (ids []session2.ID, err error) {
	if l.url.Scheme != "file" {
		return nil, nil
	}
	entries, err := os.ReadDir(filepath.Join(l.path(), "corrupt"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if id, err := session2.ParseID(e.Name()); err == nil {
			ids = append(ids, id)
		}
	}
	return ids, err
}

// open opens the store. Unless it may be made, it must be there: a mistyped
// path makes no new store.
func (l location) open(ctx context.Context, create bool) (session2.Store, error) {
	if !create && l.missing() {
		return nil, l.absent()
	}
	type opened struct {
		store session2.Store
		err   error
	}
	done := make(chan opened, 1)
	go func() { // it may wait for a lock, whatever the context says
		store, err := session2.OpenWith(ctx, l.url.String(), l.schemes)
		done <- opened{store, err}
	}()
	select {
	case o := <-done:
		if o.err != nil {
			return nil, fmt.Errorf("%s: %w", l, o.err)
		}
		return l.checked(ctx, o.store)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// checked closes a store whose tables a later release has made: who does not know them
// may do damage there.
func (l location) checked(ctx context.Context, store session2.Store) (session2.Store, error) {
	if c, ok := store.(interface{ CheckSchema(context.Context) error }); ok {
		if err := c.CheckSchema(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", l, err), session2.Close(store))
		}
	}
	return store, nil
}

// setup makes what the store needs, or with -n says what that would be.
func setup(ctx context.Context, j *job) (err error) {
	if j.dry && j.where.missing() {
		return j.foretell(false)
	}
	store, err := j.where.open(ctx, !j.dry)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session2.Close(store)) }()
	if s, ok := store.(interface{ Schema() []string }); ok && j.dry {
		f := fields{"store": j.where.String(), "schema": s.Schema()}
		return j.out.result(f, "%s;", strings.Join(s.Schema(), ";\n"))
	}
	if j.dry {
		return j.foretell(!notSetUp(ctx, store))
	}
	entered, err := mendIndexes(ctx, store)
	if err == nil {
		err = session2.Setup(ctx, store)
	}
	if err != nil {
		return err
	}
	text := "%s is ready"
	if entered > 0 {
		text += fmt.Sprintf(": %d records were missing from an index", entered)
	}
	return j.out.result(fields{"store": j.where.String(), "ready": true, "missing": entered}, text, j.where)
}

// foretell says with -n what setup would do.
func (j *job) foretell(ready bool) error {
	text := "would make %s"
	if ready {
		text = "%s is ready"
	}
	return j.out.result(fields{"store": j.where.String(), "ready": ready}, text, j.where)
}
