package session2

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// OpenFunc opens the store that a URL of its scheme names, for [OpenWith]. As [Open]
// does, it refuses options that it does not know, and none of its errors repeats the
// URL, which may hold a password. It need not call a server yet. It makes no store that
// is not there, so that a mistyped name makes none: Setup does, and until then the
// store's calls return an error matching [ErrNotSetUp]. Package command goes by that. With
// an error it returns a nil Store.
type OpenFunc func(ctx context.Context, url string) (Store, error)

// builtIn are the schemes of Open.
var builtIn = []string{"file", "bolt", "gob", "memory", "postgres", "postgresql", "mysql"}

// errNoURL repeats nothing of the URL.
var errNoURL = errors.New("session2: open: not a URL, such as file:sessions or " +
	"postgres://user:password@host:port/database: a password's special characters are written as %23 for #")

// schemeForm is a scheme as url.Parse returns it.
var schemeForm = regexp.MustCompile(`^[a-z][a-z0-9+.-]*$`)

// OpenWith is [Open] for a program that knows more stores than those of this package:
// schemes has an OpenFunc for each of their URL schemes, in lower case. A scheme of
// Open's own cannot be given another meaning.
//
//	store, err := session2.OpenWith(ctx, url, map[string]session2.OpenFunc{"sqlite": sqlite.Open})
func OpenWith(ctx context.Context, rawURL string, schemes map[string]OpenFunc) (Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkSchemes(schemes); err != nil {
		return nil, err
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errNoURL
	}
	if open := schemes[u.Scheme]; open != nil {
		return open(ctx, rawURL)
	}
	return openBuiltIn(u, schemes)
}

// checkSchemes refuses what would never be called.
func checkSchemes(schemes map[string]OpenFunc) error {
	var errs []error
	for _, scheme := range slices.Sorted(maps.Keys(schemes)) {
		switch {
		case slices.Contains(builtIn, scheme):
			errs = append(errs, fmt.Errorf("session2: open: the scheme %q is built in and cannot be replaced", scheme))
		case !schemeForm.MatchString(scheme):
			errs = append(errs, fmt.Errorf("session2: open: %q is no URL scheme in lower case", scheme))
		case schemes[scheme] == nil:
			errs = append(errs, fmt.Errorf("session2: open: the scheme %q has no function", scheme))
		}
	}
	return errors.Join(errs...)
}

// unknownScheme lists the schemes that there are.
func unknownScheme(scheme string, schemes map[string]OpenFunc) error {
	known := append(slices.Clone(builtIn), slices.Sorted(maps.Keys(schemes))...)
	hint := ""
	switch scheme {
	case "":
		hint = "; a bolt file is bolt:sessions.db"
	case "sqlite":
		hint = "; give OpenWith the Open of the module stores/sqlite, and use its command"
	case "redis", "rediss":
		hint = "; give OpenWith the Open of the module stores/redis, and use its command"
	}
	return fmt.Errorf("session2: open: no store has the URL scheme %q, as in file:path; there are %s%s",
		scheme, strings.Join(known, ", "), hint)
}
