package sqlstore

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"

	"github.com/session2/session2/internal/record"
)

// Fault is what an error of the database means. An error that a server answered is a
// definite no, unless it is known to pass or to leave open what became of the
// statement. The engines' own numbers are from their documentation and source.
type Fault int

const (
	Failed     Fault = iota // anything else: it is not known whether the statement was carried out
	Refused                 // the server says no: nothing was changed
	ReadOnly                // the server takes no writes; another one may
	Duplicate               // an INSERT found its primary key taken, or a CREATE its name
	Missing                 // a table is not there
	Foreign                 // a column is not there
	Keyless                 // the table has no primary key
	Aborted                 // rolled back, a deadlock say: asking again is safe
	Broken                  // the connection broke: what was asked may have been done
	Unknown                 // the server does not know such a statement
	Vague                   // that, or anything else
	TooLarge                // the server takes no statement of that size
	Unprepared              // the server has no room for a prepared statement, or forgot it
	Closed                  // the database was closed: nothing was sent
)

// ErrNoTable says that a call came before Setup.
var ErrNoTable = Mark(errors.New("the table does not exist, call Setup first"), record.ErrNotSetUp)

// ErrForeign says that there is a table of that name with other columns.
var ErrForeign = errors.New("the table is not one of this store's")

// errTooLarge says that the database does not take so large a record.
var errTooLarge = Mark(errors.New("too large for the database"), record.ErrTooLarge)

// ErrTooMany says that a call failed again and again for reasons that pass.
var ErrTooMany = errors.New("gave up after several attempts")

// errLost says that an answer was lost, and that what the statement did cannot be
// found out.
var errLost = Mark(errors.New("an answer was lost"), record.ErrUncertain)

// Mark returns err, as it is and with its text, made to match kind as well.
func Mark(err, kind error) error { return &marked{err, kind} }

type marked struct{ err, kind error }

// Error implements error.
func (m *marked) Error() string { return m.err.Error() }

// Unwrap is for [errors.Is] and [errors.As].
func (m *marked) Unwrap() []error { return []error{m.err, m.kind} }

// fault tells what an error means.
func (s *Store) fault(err error) Fault {
	if err == nil {
		return Failed
	}
	if f := s.meaning(err); f != Failed {
		return f
	}
	if errors.Is(err, sql.ErrConnDone) || closedByCaller(err) {
		return Closed
	}
	return Failed
}

// connFault tells whether an error that the server did not send means that
// the connection broke.
func connFault(err error) Fault {
	var netErr *net.OpError
	if fmt.Sprintf("%T", err) == "*pq.safeRetryError" { // from its handshake, and it unwraps to nothing
		return Broken
	}
	for _, broken := range []error{driver.ErrBadConn, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, broken) {
			return Broken
		}
	}
	if errors.As(err, &netErr) {
		return Broken
	}
	return Failed
}

// says reports whether an error has one of the texts.
func says(err error, texts []string) bool {
	for _, text := range texts {
		if strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}

// closedByCaller knows the errors of database/sql that have no name.
func closedByCaller(err error) bool {
	text := err.Error()
	return strings.HasSuffix(text, "sql: database is closed") || strings.HasSuffix(text, "sql: statement is closed")
}

// explain says what an error means that is none that passes: in words, where
// everybody meets it once, and by what it matches, where it is a definite no. One
// that says it already stays as it is.
func (s *Store) explain(err error) error {
	for _, kind := range []error{ErrNoTable, ErrForeign, errTooLarge} {
		if errors.Is(err, kind) {
			return err
		}
	}
	switch s.fault(err) {
	case Missing:
		return fmt.Errorf("%w: %w", ErrNoTable, err)
	case Foreign:
		return Mark(fmt.Errorf("%w: %w", ErrForeign, err), fs.ErrPermission)
	case Keyless:
		return fmt.Errorf("%w: %w", s.keyless(), err)
	case TooLarge:
		return fmt.Errorf("%w: %w", errTooLarge, err)
	case Refused, ReadOnly, Duplicate, Unknown, Unprepared:
		return Mark(err, fs.ErrPermission)
	case Closed:
		return Mark(err, fs.ErrClosed)
	}
	return err
}

// unheard is the error of a statement of which an earlier attempt's answer was
// lost: that a later one was refused, or reached nobody, does not say that nothing was
// changed.
func unheard(err error) error {
	for _, no := range []error{fs.ErrPermission, fs.ErrClosed, ErrNoTable, errTooLarge} {
		if errors.Is(err, no) {
			return fmt.Errorf("%w: %v", errLost, err)
		}
	}
	return Mark(err, errLost)
}

// errMore says that a number may be too small.
var errMore = Mark(errors.New("more may have been deleted than were counted"), errLost)

// uncounted is the error of a deletion whose number is not sure, whatever else
// became of it.
func uncounted(sure bool, err error) error {
	switch {
	case sure:
		return err
	case err == nil:
		return fmt.Errorf("%w: %w", errLost, errMore)
	}
	return fmt.Errorf("%w: %w", err, errMore)
}
