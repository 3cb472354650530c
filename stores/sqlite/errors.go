package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"github.com/session2/session2"
)

// errNotDone says of a failed statement that it changed nothing.
var errNotDone = errors.New("not carried out")

// errForeign says that there is a table of that name with other columns.
var errForeign = marked{errors.New("the table is not one of this store's"), fs.ErrPermission}

// marked is an error, with its text, that matches another one as well.
type marked struct {
	error
	kind error
}

// Unwrap is for [errors.Is] and [errors.As].
func (m marked) Unwrap() []error { return []error{m.error, m.kind} }

func notDone(err error) error { return marked{err, errNotDone} }

// The errors of SQLite, by the texts that sqlite3_errstr and sqlite3_errmsg have for them,
// and that every driver passes on. The drivers have the codes too, each in its own way.
var (
	lockedTexts = []string{
		"database is locked", "database table is locked", "database schema is locked", "locking protocol",
	}
	refusals = []struct {
		texts []string
		kind  error
	}{
		{[]string{"no such table"}, session2.ErrNotSetUp},
		{[]string{"no such column", "has no column named"}, errForeign},
		{[]string{"string or blob too big", "too large"}, session2.ErrTooLarge},
		{[]string{"database or disk is full"}, syscall.ENOSPC},
		{[]string{
			"attempt to write a readonly database", "access permission denied", "not authorized", "constraint failed",
		}, fs.ErrPermission},
		{[]string{"sql: database is closed"}, fs.ErrClosed},
	}
)

// locked reports whether somebody else has the lock: the statement changed nothing.
func locked(err error) bool { return says(err, lockedTexts) }

func says(err error, texts []string) bool {
	return err != nil && slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(err.Error(), text) })
}

// explain says what an error means, by what it matches: a definite no, or the end of
// the context, of which a driver may say only that it was interrupted.
func (s *Store) explain(ctx context.Context, err error) error {
	if err == nil || isRecord(err) {
		return err
	}
	if ended := ctx.Err(); ended != nil {
		if errors.Is(err, ended) {
			return err
		}
		return fmt.Errorf("%w: %v", ended, err)
	}
	for _, r := range refusals {
		if says(err, r.texts) {
			return fmt.Errorf("%w: %w", marked{r.kind, errNotDone}, err)
		}
	}
	if s.file.missing() {
		return fmt.Errorf("%w: %w", marked{session2.ErrNotSetUp, errNotDone}, err)
	}
	return err
}

// isRecord reports whether an error is about a record, and not about the database.
func isRecord(err error) bool {
	for _, kind := range []error{session2.ErrNotFound, session2.ErrConflict, session2.ErrCorrupt} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// uncounted is the error of a deletion of many. The number that comes with it may be too
// small, unless it is known that the last statement changed nothing.
func uncounted(err error) error {
	if err == nil || errors.Is(err, errNotDone) {
		return err
	}
	return fmt.Errorf("%w: %w", err, session2.ErrUncertain)
}
