package sqlite

import (
	"context"
	"errors"
	"time"
)

// Explain says what an error of a driver means.
func Explain(err error) error { return (&Store{}).explain(context.Background(), err) }

// Retry makes a call of f as the store's own statements are made.
func Retry(ctx context.Context, f func(context.Context) error) error {
	_, err := retry(ctx, &Store{}, func(ctx context.Context) (int, error) { return 0, f(ctx) })
	return err
}

// NotDone reports whether err says that nothing was changed.
func NotDone(err error) bool { return errors.Is(err, errNotDone) }

// Registered finds a driver among names.
func Registered(names []string) error {
	_, err := registered(names)
	return err
}

// Indexed are the queries, on the default table, that must not read all of it.
func Indexed() []string {
	q := queriesOf("session2_sessions")
	return []string{
		q.load, q.has, q.version, q.update, q.updateBack, q.remove, q.touch, q.page, q.userPage, q.userIDs,
		q.refile[0], q.refile[1], q.sweep[0], q.sweep[1],
	}
}

// SetTimeout changes Options.Timeout of a store that was made with another one.
func (s *Store) SetTimeout(d time.Duration) { s.timeout = d }
