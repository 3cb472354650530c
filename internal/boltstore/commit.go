package boltstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"strings"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/session2/session2/internal/fsys"
)

// errNothing ends a transaction that has nothing to commit.
var errNothing = errors.New("nothing to commit")

// view lets f read. All that f keeps it must copy: what a transaction shows is
// mapped memory, and after the transaction touching it may end the process.
func (s *Store) view(ctx context.Context, f func(t *tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.closed.Load() {
		return fs.ErrClosed
	}
	if stuck := s.stuck.Load(); stuck != nil {
		return forGood(*stuck)
	}
	var err error
	t := &tx{}
	damage := guard(func() {
		err = s.db.View(func(btx *bolt.Tx) error {
			t.tx = btx
			return cmp.Or(f(t), t.err)
		})
	})
	if damage != nil && t.tx == nil { // bbolt still holds its lock
		broken := damage
		s.broken.CompareAndSwap(nil, &broken)
		s.stuck.CompareAndSwap(nil, &broken)
	}
	return cmp.Or(damage, named(err))
}

// there returns an error if the file is no longer at its path: what is written to one
// that was removed is gone with this process. When the file is back, the store goes on.
func (s *Store) there() error {
	found, err := os.Lstat(s.path)
	if err == nil && !os.SameFile(s.own, found) {
		err = fmt.Errorf("%s is another file by now", s.path)
	}
	return err
}

// forGood is the error of each call after a panic that the store does not outlive.
func forGood(cause error) error {
	return fmt.Errorf("%w, for good, since this: %v", fs.ErrClosed, cause)
}

// commit makes the changes in one transaction. If that fails, it fails for all:
// even a refusal was decided by what never came to be.
func (s *Store) commit(changes []change) []error {
	errs := make([]error, len(changes))
	err := s.transact(func(t *tx) {
		for i, change := range changes {
			errs[i] = change(t)
		}
	})
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
	}
	return errs
}

// transact commits what f writes, if anything.
func (s *Store) transact(f func(t *tx)) error {
	if broken := s.broken.Load(); broken != nil {
		return forGood(*broken)
	}
	err := s.there()
	if err != nil {
		return err
	}
	applied := errNothing // until a transaction began
	var id int
	broken := guard(func() {
		err = s.update(s.db, func(btx *bolt.Tx) error {
			if id, applied = btx.ID(), apply(btx, f); applied == nil {
				s.listed.Store(false)
			}
			return applied
		})
	})
	if broken != nil {
		s.broken.Store(&broken)
		if applied == errNothing && id == 0 { // no transaction began
			s.stuck.CompareAndSwap(nil, &broken)
		}
		return broken
	}
	if err == errNothing {
		return nil
	}
	if applied == nil && err != nil {
		s.doubt = true
		if s.shows(id) {
			return fsys.Late(err)
		}
	}
	if err == nil {
		return fsys.Late(s.there())
	}
	return named(err)
}

// shows reports whether a commit that failed is visible all the same.
func (s *Store) shows(id int) bool {
	last := id
	err := guard(func() {
		s.db.View(func(btx *bolt.Tx) error {
			last = btx.ID()
			return nil
		})
	})
	return err != nil || last >= id
}

// apply lets f write and reports whether the transaction may be committed.
func apply(btx *bolt.Tx, f func(t *tx)) error {
	t := &tx{tx: btx}
	if err := guard(func() { f(t) }); err != nil {
		return err
	}
	if t.err == nil && !t.wrote {
		return errNothing
	}
	return t.err
}

// guard returns the panic of f as an error. bbolt panics over a damaged
// page, and reading beyond the end of a truncated file is a fault, which ends
// the process unless the goroutine asks for a panic instead.
func guard(f func()) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("bolt database damaged: %v", p)
		}
	}()
	f()
	return nil
}

// named gives errors of bbolt's their usual names: that of a call after Close,
// and that of a file which cannot grow, of which bbolt keeps only the text.
func named(err error) error {
	switch {
	case errors.Is(err, bolterrors.ErrDatabaseNotOpen):
		return fs.ErrClosed
	case err != nil && strings.HasPrefix(err.Error(), "file resize error: "):
		return fsys.Recognized(err)
	}
	return err
}
