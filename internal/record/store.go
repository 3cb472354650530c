package record

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
)

// The errors of back ends that have a name. They are the root package's own, which
// says what each of them means.
var (
	ErrNotFound  = errors.New("session not found")
	ErrConflict  = errors.New("session changed meanwhile")
	ErrUncertain = errors.New("outcome unknown")
	ErrTooLarge  = errors.New("session data too large")
	ErrCorrupt   = errors.New("session record corrupt")
	ErrNotSetUp  = errors.New("store not set up, call Setup first")
)

// ErrNotDone says of a failed call that it changed nothing: see [NotDone].
var ErrNotDone = errors.New("not carried out")

// Store is a back end. Its methods keep the contracts that the root package's Store
// and optional interfaces state, and a caller who makes a public store of it does
// the rest: errors name neither the operation nor the record, a context that is done
// on entry never comes here, and no Save has a record that [Record.Check] refuses.
type Store interface {
	Load(ctx context.Context, id [16]byte) (Record, error)
	Save(ctx context.Context, r Record, prev uint64) error
	Delete(ctx context.Context, id [16]byte) error
	Has(ctx context.Context, id [16]byte) (bool, error)
	Touch(ctx context.Context, id [16]byte, to Access) error

	// DeleteOld removes what was accessed at or before the one time, or expires at
	// or before the other.
	DeleteOld(ctx context.Context, accessed, expires int64) (int, error)
	DeleteUser(ctx context.Context, user string, keep ...[16]byte) (int, error)

	// Iter and IterUser yield a record that cannot be read with its ID, where it is
	// known, and an ErrCorrupt. The caller ends the loop at any other error.
	Iter(ctx context.Context) iter.Seq2[Record, error]
	IterUser(ctx context.Context, user string) iter.Seq2[Record, error]

	Setup(ctx context.Context) error
	Close() error
}

// Check refuses a record that no store may keep.
func (r *Record) Check() error {
	if r.Version == 0 {
		return errors.New("a stored record's version is never zero")
	}
	return nil
}

// Admit decides a conditional Save from what is stored, the same way for every
// store. It reports whether to write; if not, err is the answer, nil for a Save
// that landed before.
func Admit(found bool, stored, next, prev uint64) (write bool, err error) {
	switch {
	case found && stored == next:
		return false, nil
	case found && (prev == 0 || stored != prev): // zero: it must not exist
		return false, ErrConflict
	case !found && prev != 0:
		return false, ErrNotFound
	}
	return true, nil
}

// Corrupt returns the ErrCorrupt of a record that cannot be read for the reason err.
func Corrupt(err error) error { return fmt.Errorf("%w: %v", ErrCorrupt, err) }

// Uncertain marks the failure of what may have been done all the same.
func Uncertain(err error) error {
	if errors.Is(err, ErrUncertain) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUncertain, err)
}

// NotDone reports whether a manager takes a call that failed for one that has not reached the
// store, as where nobody could be connected to. That is no refusal, and no lost answer either.
func NotDone(err error) bool {
	var op *net.OpError
	dial := errors.As(err, &op) && op.Op == "dial"
	return (dial || errors.Is(err, ErrNotDone)) && !errors.Is(err, ErrUncertain)
}
