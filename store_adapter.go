package session2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/session2/session2/internal/record"
)

// adapter makes a store of a back end. The public types embed it, so its methods
// are theirs and its comments stand on their pages; what is special to a store
// stands in the comment of its type.
type adapter struct {
	back record.Store
	caps Capabilities
}

var (
	_ Store          = (*adapter)(nil)
	_ SetupStore     = (*adapter)(nil)
	_ DeleteOldStore = (*adapter)(nil)
	_ IterStore      = (*adapter)(nil)
	_ TouchStore     = (*adapter)(nil)
	_ UserStore      = (*adapter)(nil)
	_ CapableStore   = (*adapter)(nil)
	_ io.Closer      = (*adapter)(nil)
)

// isZero reports whether none of the package's functions has made the store.
func (a *adapter) isZero() bool { return a == nil || a.back == nil }

// Capabilities returns what the store promises.
func (a *adapter) Capabilities() Capabilities { return a.caps }

// Setup prepares the store, or checks what is prepared. It may be called any number
// of times, by several processes at once, and never drops data.
func (a *adapter) Setup(ctx context.Context) error {
	return a.do(ctx, "set up", a.back.Setup)
}

// Close ends the use of the store. Later calls return an error matching
// [io/fs.ErrClosed], but for Close itself, which may be called again.
func (a *adapter) Close() error { return failed("close", a.back.Close()) }

// Load returns the record, or an error matching [ErrNotFound], or [ErrCorrupt] if
// it cannot be read. The caller owns its Data.
func (a *adapter) Load(ctx context.Context, id ID) (Record, error) {
	err := ctx.Err()
	if err == nil {
		var r record.Record
		if r, err = a.back.Load(ctx, id); err == nil {
			return recordFrom(&r), nil
		}
	}
	return Record{}, opError("load", id, err)
}

// Has reports whether there is a record, without reading it.
func (a *adapter) Has(ctx context.Context, id ID) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, opError("has", id, err)
	}
	found, err := a.back.Has(ctx, id)
	return found, opError("has", id, err)
}

// Save replaces the record if its version is still prev, or creates it for a zero
// prev. It returns [ErrConflict], [ErrNotFound] and [ErrUncertain] as [Store] says,
// and [ErrCorrupt] if the stored record cannot be read and so not be compared. The
// store keeps no reference to the Data.
func (a *adapter) Save(ctx context.Context, rec Record, prev Version) error {
	r := recordOf(rec)
	err := r.Check()
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = a.back.Save(ctx, r, uint64(prev))
	}
	return opError("save", rec.ID, err)
}

// Delete removes the record, whatever its version. An absent one is no error.
func (a *adapter) Delete(ctx context.Context, id ID) error {
	err := ctx.Err()
	if err == nil {
		err = a.back.Delete(ctx, id)
	}
	return opError("delete", id, err)
}

// Touch moves Accessed and Expires forward, each by itself and never back. An
// absent record is no error.
func (a *adapter) Touch(ctx context.Context, id ID, accessed, expires time.Time) error {
	err := ctx.Err()
	if err == nil {
		err = a.back.Touch(ctx, id, access(accessed, expires))
	}
	return opError("touch", id, err)
}

// DeleteOld removes the records that were not accessed for age or have expired, by
// this machine's clock, and returns their number. It finds them by index and
// removes a bounded number at a time.
func (a *adapter) DeleteOld(ctx context.Context, age time.Duration) (n int, err error) {
	if age < 0 {
		return 0, fmt.Errorf("session2: delete old: negative age %v", age)
	}
	now := time.Now()
	err = a.do(ctx, "delete old", func(ctx context.Context) error {
		n, err = a.back.DeleteOld(ctx, microTime(now.Add(-age)), microTime(now))
		return err
	})
	return n, err
}

// DeleteUser removes the user's records but those to keep, and returns their number.
// For the empty user there are none.
func (a *adapter) DeleteUser(ctx context.Context, user string, keep ...ID) (n int, err error) {
	var kept [][16]byte
	for _, id := range keep {
		kept = append(kept, id)
	}
	err = a.do(ctx, "delete user", func(ctx context.Context) error {
		n, err = a.back.DeleteUser(ctx, user, kept...)
		return err
	})
	return n, err
}

// confirm waits until what Load has shown is as safe as what Save acknowledges.
func (a *adapter) confirm(ctx context.Context) error {
	if back, ok := a.back.(interface{ Confirm(context.Context) error }); ok {
		return failed("confirm", back.Confirm(ctx))
	}
	return nil
}

// do runs what concerns no single record.
func (a *adapter) do(ctx context.Context, op string, f func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return failed(op, err)
	}
	return failed(op, f(ctx))
}

// Iter lists all records, as [IterStore] says. It holds neither a lock nor all records
// while the loop's body runs.
func (a *adapter) Iter(ctx context.Context) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) { list(ctx, "iter", a.back.Iter(ctx), yield) }
}

// IterUser lists the user's records likewise. For the empty user there are none.
func (a *adapter) IterUser(ctx context.Context, user string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) { list(ctx, "iter user", a.back.IterUser(ctx, user), yield) }
}

// list yields a back end's records. It goes on past a corrupt one, but not past any
// other failure, nor past the context's end.
func list(ctx context.Context, op string, records iter.Seq2[record.Record, error], yield func(Record, error) bool) {
	if err := ctx.Err(); err != nil {
		yield(Record{}, failed(op, err))
		return
	}
	records(func(r record.Record, err error) bool {
		corrupt := errors.Is(err, ErrCorrupt)
		if ended := ctx.Err(); ended != nil && (err == nil || corrupt) {
			r.ID, err, corrupt = ID{}, ended, false
		}
		switch {
		case err == nil:
			return yield(recordFrom(&r), nil)
		case r.ID == ID{} && !corrupt: // of the store
			yield(Record{}, failed(op, err))
			return false
		}
		return yield(Record{ID: r.ID}, opError(op, r.ID, err)) && corrupt
	})
}

// recordOf is the inverse of recordFrom. The two share the Data.
func recordOf(rec Record) record.Record {
	return record.Record{
		ID: rec.ID, Version: uint64(rec.Version), User: rec.User, Created: microTime(rec.Created), Data: rec.Data,
		Access: access(rec.Accessed, rec.Expires),
	}
}

func recordFrom(r *record.Record) Record {
	return Record{
		ID: r.ID, Version: Version(r.Version), User: r.User, Created: timeMicro(r.Created),
		Accessed: timeMicro(r.Accessed), Expires: timeMicro(r.Expires), Data: r.Data,
	}
}

func access(accessed, expires time.Time) record.Access {
	return record.Access{Accessed: microTime(accessed), Expires: microTime(expires)}
}

// filled returns the options, or for nil their zero value.
func filled[T any](opts *T) (o T) {
	if opts != nil {
		o = *opts
	}
	return o
}

// failed names the operation that failed; nil stays nil.
func failed(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("session2: %s: %w", op, err)
}

// serialStore lends a mutex to a store that is not safe for concurrent use.
type serialStore struct {
	mu    sync.Mutex
	store Store
}

var (
	_ DeleteOldStore = (*serialStore)(nil)
	_ IterStore      = (*serialStore)(nil)
	_ TouchStore     = (*serialStore)(nil)
	_ UserStore      = (*serialStore)(nil)
)

func (s *serialStore) Load(ctx context.Context, id ID) (Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.Load(ctx, id)
}

func (s *serialStore) Save(ctx context.Context, rec Record, prev Version) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.Save(ctx, rec, prev)
}

func (s *serialStore) Delete(ctx context.Context, id ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.Delete(ctx, id)
}

func (s *serialStore) Has(ctx context.Context, id ID) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.Has(ctx, id)
}

func (s *serialStore) DeleteOld(ctx context.Context, age time.Duration) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return deleteOld(ctx, s.store, age)
}

func (s *serialStore) Touch(ctx context.Context, id ID, accessed, expires time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return touch(ctx, s.store, id, accessed, expires)
}

func (s *serialStore) Iter(ctx context.Context) iter.Seq2[Record, error] {
	return s.each(iterAll(ctx, s.store))
}

func (s *serialStore) IterUser(ctx context.Context, user string) iter.Seq2[Record, error] {
	return s.each(iterUser(ctx, s.store, user))
}

func (s *serialStore) DeleteUser(ctx context.Context, user string, keep ...ID) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return deleteUser(ctx, s.store, user, keep...)
}

// each takes the lock for each step and not for the loop's body, which may
// call the store.
func (s *serialStore) each(seq iter.Seq2[Record, error]) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		next, stop := iter.Pull2(seq)
		locked := func() (Record, error, bool) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return next()
		}
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			stop()
		}()
		for {
			rec, err, ok := locked()
			if !ok || !yield(rec, err) {
				return
			}
		}
	}
}
