package storetest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/storetest"
)

// A broken store is a reference of which single methods are replaced.
type broken struct {
	*reference
	load       func(ctx context.Context, id session2.ID) (session2.Record, error)
	save       func(ctx context.Context, rec session2.Record, prev session2.Version) error
	remove     func(ctx context.Context, id session2.ID) error
	has        func(ctx context.Context, id session2.ID) (bool, error)
	setup      func(ctx context.Context) error
	deleteOld  func(ctx context.Context, age time.Duration) (int, error)
	iter       func(ctx context.Context) iter.Seq2[session2.Record, error]
	touch      func(ctx context.Context, id session2.ID, accessed, expires time.Time) error
	iterUser   func(ctx context.Context, user string) iter.Seq2[session2.Record, error]
	deleteUser func(ctx context.Context, user string, keep ...session2.ID) (int, error)
	close      func() error
}

func newBroken(r *reference) *broken {
	return &broken{
		reference: r, load: r.Load, save: r.Save, remove: r.Delete, has: r.Has, setup: r.Setup, deleteOld: r.DeleteOld,
		iter: r.Iter, touch: r.Touch, iterUser: r.IterUser, deleteUser: r.DeleteUser, close: r.Close,
	}
}

func (s *broken) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	return s.load(ctx, id)
}
func (s *broken) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	return s.save(ctx, rec, prev)
}
func (s *broken) Delete(ctx context.Context, id session2.ID) error      { return s.remove(ctx, id) }
func (s *broken) Has(ctx context.Context, id session2.ID) (bool, error) { return s.has(ctx, id) }
func (s *broken) Setup(ctx context.Context) error                       { return s.setup(ctx) }
func (s *broken) DeleteOld(ctx context.Context, age time.Duration) (int, error) {
	return s.deleteOld(ctx, age)
}
func (s *broken) Iter(ctx context.Context) iter.Seq2[session2.Record, error] { return s.iter(ctx) }
func (s *broken) Touch(ctx context.Context, id session2.ID, accessed, expires time.Time) error {
	return s.touch(ctx, id, accessed, expires)
}
func (s *broken) IterUser(ctx context.Context, user string) iter.Seq2[session2.Record, error] {
	return s.iterUser(ctx, user)
}
func (s *broken) DeleteUser(ctx context.Context, user string, keep ...session2.ID) (int, error) {
	return s.deleteUser(ctx, user, keep...)
}
func (s *broken) Close() error { return s.close() }

// change changes a stored record behind the contract's back.
func (r *reference) change(id session2.ID, f func(rec *session2.Record)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec, ok := r.keep.(inMemory)[id]; ok {
		f(&rec)
		r.keep.(inMemory)[id] = rec
	}
}

// A breakage is one way to break the contract, and the clause it breaks.
type breakage struct {
	name   string
	clause string
	do     func(s *broken, r *reference)
}

// saving makes a breakage that changes each record on its way in.
func saving(f func(r *reference, rec *session2.Record)) func(*broken, *reference) {
	return func(s *broken, r *reference) {
		s.save = func(ctx context.Context, rec session2.Record, prev session2.Version) error {
			f(r, &rec)
			return r.Save(ctx, rec, prev)
		}
	}
}

// answering makes a breakage that changes each answer of Save.
func answering(from, to error) func(*broken, *reference) {
	return func(s *broken, r *reference) {
		s.save = func(ctx context.Context, rec session2.Record, prev session2.Version) error {
			if err := r.Save(ctx, rec, prev); !errors.Is(err, from) {
				return err
			}
			return to
		}
	}
}

// touching makes a breakage that replaces Touch on a record that is there.
func touching(f func(rec *session2.Record, accessed, expires time.Time)) func(*broken, *reference) {
	return func(s *broken, r *reference) {
		s.touch = func(ctx context.Context, id session2.ID, accessed, expires time.Time) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			r.change(id, func(rec *session2.Record) { f(rec, accessed, expires) })
			return nil
		}
	}
}

// sweeping makes a breakage that has its own idea of what is old.
func sweeping(old func(rec session2.Record, now time.Time, age time.Duration) bool) func(*broken, *reference) {
	return func(s *broken, r *reference) {
		s.deleteOld = func(ctx context.Context, age time.Duration) (int, error) {
			now := time.Now()
			return r.removeIf(ctx, func(rec session2.Record) bool { return old(rec, now, age) })
		}
	}
}

// owning makes breakages that have their own idea of whose a record is.
func owning(owns func(owner, user string) bool) func(*broken, *reference) {
	return func(s *broken, r *reference) {
		mine := func(user string) func(session2.Record) bool {
			return func(rec session2.Record) bool { return owns(rec.User, user) }
		}
		s.iterUser = func(ctx context.Context, user string) iter.Seq2[session2.Record, error] {
			return r.iterIf(ctx, mine(user))
		}
		s.deleteUser = func(ctx context.Context, user string, keep ...session2.ID) (int, error) {
			return r.removeIf(ctx, mine(user))
		}
	}
}

// yielding makes a breakage of Iter out of the sequence that is right.
func yielding(
	f func(seq iter.Seq2[session2.Record, error], yield func(session2.Record, error) bool),
) func(*broken, *reference) {
	return func(s *broken, r *reference) {
		s.iter = func(ctx context.Context) iter.Seq2[session2.Record, error] {
			return func(yield func(session2.Record, error) bool) { f(r.Iter(ctx), yield) }
		}
	}
}

var breakages = []breakage{
	{"ignores prev", "Save over another version than the stored one is ErrConflict and changes nothing",
		func(s *broken, r *reference) {
			s.save = func(ctx context.Context, rec session2.Record, prev session2.Version) error {
				return r.locked(ctx, func() error { return r.keep.put(rec) })
			}
		}},
	{"creates over a record", "Save with a zero prev over a record is ErrConflict and changes nothing",
		func(s *broken, r *reference) {
			s.save = func(ctx context.Context, rec session2.Record, prev session2.Version) error {
				if old, err := r.Load(ctx, rec.ID); err == nil && prev == 0 {
					prev = old.Version
				}
				return r.Save(ctx, rec, prev)
			}
		}},
	{"checks and then writes", "Counting by load and conditional save in 8 goroutines comes out exact", checkThenWrite},
	{"creates by Has and then Save", "Of several creations of one ID at once exactly one wins", checkThenWrite},
	{"revives by Save", "Save over a deleted record is ErrNotFound and does not revive it",
		func(s *broken, r *reference) {
			s.save = func(ctx context.Context, rec session2.Record, prev session2.Version) error {
				err := r.Save(ctx, rec, prev)
				if errors.Is(err, session2.ErrNotFound) {
					err = r.Save(ctx, rec, 0)
				}
				return err
			}
		}},
	{"forgets to delete", "Delete removes the record whatever its version", func(s *broken, r *reference) {
		s.remove = func(ctx context.Context, id session2.ID) error { return ctx.Err() }
	}},
	{"finds absence a failure", "Delete of an absent record is no error", func(s *broken, r *reference) {
		s.remove = func(ctx context.Context, id session2.ID) error {
			if ok, _ := r.Has(ctx, id); !ok {
				return session2.ErrNotFound
			}
			return r.Delete(ctx, id)
		}
	}},
	{"reports a conflict as absence",
		"Save over another version than the stored one is ErrConflict and changes nothing",
		answering(session2.ErrConflict, session2.ErrNotFound)},
	{"reports absence as a conflict", "Save over an absent record is ErrNotFound and creates nothing",
		answering(session2.ErrNotFound, session2.ErrConflict)},
	{"is not idempotent", "Save asked again answers nil and changes nothing", func(s *broken, r *reference) {
		s.save = func(ctx context.Context, rec session2.Record, prev session2.Version) error {
			if old, err := r.Load(ctx, rec.ID); err == nil && old.Version != prev {
				return session2.ErrConflict
			}
			return r.Save(ctx, rec, prev)
		}
	}},
	{"writes again what it has", "Save asked again answers nil and changes nothing", func(s *broken, r *reference) {
		s.save = func(ctx context.Context, rec session2.Record, prev session2.Version) error {
			err := r.Save(ctx, rec, prev)
			if err == nil {
				r.change(rec.ID, func(old *session2.Record) { *old = rounded(rec) })
			}
			return err
		}
	}},
	{"accepts version zero", "Save refuses the version zero and changes nothing", func(s *broken, r *reference) {
		s.save = func(ctx context.Context, rec session2.Record, prev session2.Version) error {
			if rec.Version == 0 {
				return r.locked(ctx, func() error { return r.keep.put(rec) })
			}
			return r.Save(ctx, rec, prev)
		}
	}},
	{"keeps versions in 63 bits", "Every version but zero is good, the largest too",
		saving(func(_ *reference, rec *session2.Record) { rec.Version &= 1<<63 - 1 })},
	{"keeps a slice it was given", "Save copies the Data that it is given", func(s *broken, r *reference) {
		s.save = func(ctx context.Context, rec session2.Record, prev session2.Version) error {
			err := r.Save(ctx, rec, prev)
			if err == nil {
				r.change(rec.ID, func(old *session2.Record) { old.Data = rec.Data })
			}
			return err
		}
	}},
	{"hands out its own slice", "Load hands out Data that the caller may change", func(s *broken, r *reference) {
		s.load = func(ctx context.Context, id session2.ID) (session2.Record, error) {
			rec, err := r.Load(ctx, id)
			r.change(id, func(old *session2.Record) { rec.Data = old.Data })
			return rec, err
		}
	}},
	{"hands out its own slices in Iter", "Iter hands out Data that the caller may change and keep",
		func(s *broken, r *reference) {
			s.iter = func(ctx context.Context) iter.Seq2[session2.Record, error] {
				return func(yield func(session2.Record, error) bool) {
					for rec, err := range r.Iter(ctx) {
						r.change(rec.ID, func(old *session2.Record) { rec.Data = old.Data })
						if !yield(rec, err) {
							return
						}
					}
				}
			}
		}},
	{"truncates times to seconds", "Times are kept to the microsecond and come back in UTC",
		saving(func(_ *reference, rec *session2.Record) { rec.Created = rec.Created.Truncate(time.Second) })},
	{"keeps 32 bits of seconds", "The zero time and times before 1970 and in the far future are kept", saving(
		func(_ *reference, rec *session2.Record) {
			rec.Expires = time.Unix(int64(uint32(rec.Expires.Unix())), int64(rec.Expires.Nanosecond()))
		})},
	{"answers in local time", "Times are kept to the microsecond and come back in UTC", func(s *broken, r *reference) {
		s.load = func(ctx context.Context, id session2.ID) (session2.Record, error) {
			rec, err := r.Load(ctx, id)
			rec.Accessed = rec.Accessed.In(time.FixedZone("here", 7200))
			return rec, err
		}
	}},
	{"loses the user", "A user of any bytes is kept up to 255 of them",
		saving(func(_ *reference, rec *session2.Record) { rec.User = "" })},
	{"repairs UTF-8", "A user of any bytes is kept up to 255 of them",
		saving(func(_ *reference, rec *session2.Record) { rec.User = strings.ToValidUTF8(rec.User, "?") })},
	{"cuts data at 64 KiB", "Data of 1 MiB come back whole",
		saving(func(_ *reference, rec *session2.Record) { rec.Data = rec.Data[:min(len(rec.Data), 1<<16)] })},
	{"trims zero bytes", "Data come back byte for byte whatever the bytes",
		saving(func(_ *reference, rec *session2.Record) { rec.Data = bytes.TrimRight(rec.Data, "\x00") })},
	{"hides expired records", "Expired records are shown by Load and Has", func(s *broken, r *reference) {
		s.load = func(ctx context.Context, id session2.ID) (session2.Record, error) {
			rec, err := r.Load(ctx, id)
			if err == nil && !rec.Expires.After(time.Now()) {
				return session2.Record{}, session2.ErrNotFound
			}
			return rec, err
		}
	}},
	{"ignores contexts", "A call whose context is done on entry returns the context's error and changes nothing",
		func(s *broken, r *reference) {
			s.save = func(_ context.Context, rec session2.Record, prev session2.Version) error {
				return r.Save(context.Background(), rec, prev)
			}
		}},
	{"prints data in its errors", "An error of Save repeats nothing of the data", func(s *broken, r *reference) {
		s.save = func(ctx context.Context, rec session2.Record, prev session2.Version) error {
			if err := r.Save(ctx, rec, prev); err != nil {
				return errors.Join(err, errors.New(string(rec.Data)))
			}
			return nil
		}
	}},
	{"panics after Close", "A call after Close is an error that does not pass for an absent record",
		func(s *broken, r *reference) {
			s.close = func() error { s.load = nil; return r.Close() }
		}},
	{"shows nothing after Close", "A call after Close is an error that does not pass for an absent record",
		func(s *broken, r *reference) {
			s.close = func() error {
				return r.locked(context.Background(), func() error { clear(r.keep.(inMemory)); return nil })
			}
		}},
	{"returns what it has when its time is up",
		"DeleteUser whose context ends in its midst returns the context's error or a number that is exact",
		func(s *broken, r *reference) {
			s.deleteUser = func(ctx context.Context, user string, keep ...session2.ID) (n int, err error) {
				if err := ctx.Err(); err != nil {
					return 0, err
				}
				for rec := range r.IterUser(context.WithoutCancel(ctx), user) {
					if ctx.Err() != nil {
						break
					}
					if r.Delete(context.WithoutCancel(ctx), rec.ID) == nil {
						n++
					}
				}
				return n, nil
			}
		}},
	{"calls the deadline a cancellation",
		"DeleteOld whose context ends in its midst returns the context's error or a number that is exact",
		func(s *broken, r *reference) {
			s.deleteOld = func(ctx context.Context, age time.Duration) (int, error) {
				n, err := r.DeleteOld(ctx, age)
				if errors.Is(err, context.DeadlineExceeded) {
					err = context.Canceled
				}
				return n, err
			}
		}},
	{"deletes what it is told to keep", "DeleteUser leaves the records that it is told to keep, and their user",
		func(s *broken, r *reference) {
			s.deleteUser = func(ctx context.Context, user string, keep ...session2.ID) (int, error) {
				return r.DeleteUser(ctx, user)
			}
		}},
	{"finds nobody's records after Close", "A call after Close is an error that does not pass for an absent record",
		func(s *broken, r *reference) {
			s.deleteUser = func(ctx context.Context, user string, keep ...session2.ID) (int, error) {
				if user == "" {
					return 0, ctx.Err()
				}
				return r.DeleteUser(ctx, user, keep...)
			}
		}},
	{"sorts times as unsigned numbers", "DeleteOld tells times before 1970 and in the far future apart", sweeping(
		func(rec session2.Record, now time.Time, age time.Duration) bool {
			accessed, cutoff := uint64(rec.Accessed.UnixMicro()), uint64(now.Add(-age).UnixMicro())
			return accessed <= cutoff || !rec.Expires.After(now)
		})},
	{"closes once", "Close may be called twice", func(s *broken, r *reference) {
		s.close = func() error {
			if r.closed {
				return errors.New("closed already")
			}
			return r.Close()
		}
	}},
	{"drops data in Setup", "Setup may be called any number of times and never drops data",
		func(s *broken, r *reference) {
			s.setup = func(ctx context.Context) error {
				return r.locked(ctx, func() error { clear(r.keep.(inMemory)); return nil })
			}
		}},
	{"creates by Touch", "Touch of an absent record creates nothing and is no error", func(s *broken, r *reference) {
		s.touch = func(ctx context.Context, id session2.ID, accessed, expires time.Time) error {
			r.Save(ctx, session2.Record{ID: id, Version: 1, Accessed: accessed, Expires: expires}, 0)
			return r.Touch(ctx, id, accessed, expires)
		}
	}},
	{"moves Accessed back", "Touch moves Accessed by itself and never back", touching(
		func(rec *session2.Record, accessed, expires time.Time) {
			rec.Accessed, rec.Expires = accessed, later(rec.Expires, expires)
		})},
	{"moves Expires back", "Touch moves Expires by itself and never back", touching(
		func(rec *session2.Record, accessed, expires time.Time) {
			rec.Accessed, rec.Expires = later(rec.Accessed, accessed), expires
		})},
	{"moves Expires with Accessed only", "Touch moves Expires by itself and never back", touching(
		func(rec *session2.Record, accessed, expires time.Time) {
			if accessed.After(rec.Accessed) {
				rec.Accessed, rec.Expires = accessed, later(rec.Expires, expires)
			}
		})},
	{"changes Version in Touch",
		"Touch moves Accessed and Expires forward and keeps all else, Version and Data too",
		touching(func(rec *session2.Record, accessed, expires time.Time) {
			rec.Accessed, rec.Expires = later(rec.Accessed, accessed), later(rec.Expires, expires)
			rec.Version++
		})},
	{"writes old data back in Touch", "A Touch beside a Save neither loses the Save nor stops it",
		func(s *broken, r *reference) {
			s.touch = func(ctx context.Context, id session2.ID, accessed, expires time.Time) error {
				old, err := r.Load(ctx, id)
				if err != nil {
					return err
				}
				time.Sleep(time.Microsecond) // hands the processor over, as a query would
				r.change(id, func(rec *session2.Record) {
					*rec = old
					rec.Accessed, rec.Expires = later(rec.Accessed, accessed), later(rec.Expires, expires)
				})
				return nil
			}
		}},
	{"deletes fresh sessions by age", "DeleteOld removes what was not accessed for that long and counts it", sweeping(
		func(rec session2.Record, now time.Time, age time.Duration) bool {
			return !rec.Created.After(now.Add(-age)) || !rec.Expires.After(now)
		})},
	{"ignores the expiry", "DeleteOld removes what has expired whatever its age", sweeping(
		func(rec session2.Record, now time.Time, age time.Duration) bool {
			return !rec.Accessed.After(now.Add(-age))
		})},
	{"takes a negative age", "DeleteOld of a negative age is an error and removes nothing", sweeping(
		func(rec session2.Record, now time.Time, age time.Duration) bool {
			return !rec.Accessed.After(now.Add(-age)) || !rec.Expires.After(now)
		})},
	{"sweeps without a second look", "A record saved beside DeleteOld survives or the Save is told", sweepBlindly},
	{"yields twice", "Iter yields every record exactly once and whole", yielding(
		func(seq iter.Seq2[session2.Record, error], yield func(session2.Record, error) bool) {
			for rec, err := range seq {
				if !yield(rec, err) || rec.User == "alice" && !yield(rec, err) {
					return
				}
			}
		})},
	{"skips one", "Iter yields every record exactly once and whole", yielding(
		func(seq iter.Seq2[session2.Record, error], yield func(session2.Record, error) bool) {
			first := true
			for rec, err := range seq {
				if !first && !yield(rec, err) {
					return
				}
				first = false
			}
		})},
	{"iterates without its context", "Iter yields the context's error and ends when that is done between two records",
		func(s *broken, r *reference) {
			s.iter = func(ctx context.Context) iter.Seq2[session2.Record, error] {
				if ctx.Err() != nil {
					return r.Iter(ctx)
				}
				return r.Iter(context.WithoutCancel(ctx))
			}
		}},
	{"ignores break", "Iter stops when it is told to", yielding(
		func(seq iter.Seq2[session2.Record, error], yield func(session2.Record, error) bool) {
			for rec, err := range seq {
				yield(rec, err)
			}
		})},
	{"iterates over a copy of everything", "Iter streams and does not hold all records in memory",
		func(s *broken, r *reference) {
			s.iter = func(ctx context.Context) iter.Seq2[session2.Record, error] {
				return func(yield func(session2.Record, error) bool) {
					var all []session2.Record
					for rec := range r.Iter(ctx) {
						all = append(all, rec)
					}
					for i := range all {
						if !yield(all[i], nil) {
							return
						}
					}
				}
			}
		}},
	{"keeps its lock over the yield", "The body of an Iter loop may call the store", func(s *broken, r *reference) {
		s.iter = func(ctx context.Context) iter.Seq2[session2.Record, error] {
			return func(yield func(session2.Record, error) bool) {
				r.mu.Lock()
				defer r.mu.Unlock()
				for _, rec := range maps.Clone(r.keep.(inMemory)) {
					if !yield(rounded(rec), nil) {
						return
					}
				}
			}
		}
	}},
	{"matches users by prefix", "Users are told apart byte by byte",
		owning(func(owner, user string) bool { return user != "" && strings.HasPrefix(owner, user) })},
	{"folds the case of users", "Users are told apart byte by byte",
		owning(func(owner, user string) bool { return user != "" && strings.EqualFold(owner, user) })},
	{"takes nobody for a user", "The empty user has no records",
		owning(func(owner, user string) bool { return owner == user })},
	{"keeps the user of the creation", "A Save with another user moves the record from the one to the other",
		firstUser},
}

// checkThenWrite is "does it exist? Then write": two steps, and others between.
func checkThenWrite(s *broken, r *reference) {
	s.save = func(ctx context.Context, rec session2.Record, prev session2.Version) error {
		old, err := r.Load(ctx, rec.ID)
		time.Sleep(time.Microsecond) // hands the processor over, as a query would
		switch {
		case err == nil && old.Version == rec.Version:
			return nil
		case err == nil && old.Version != prev:
			return session2.ErrConflict
		case err != nil && prev != 0:
			return err
		}
		return r.locked(ctx, func() error { return r.keep.put(rec) })
	}
}

// sweepBlindly looks first and deletes later whatever is there by then.
func sweepBlindly(s *broken, r *reference) {
	s.deleteOld = func(ctx context.Context, age time.Duration) (n int, err error) {
		now := time.Now()
		var old []session2.ID
		for rec := range r.Iter(ctx) {
			if !rec.Accessed.After(now.Add(-age)) || !rec.Expires.After(now) {
				old = append(old, rec.ID)
			}
		}
		time.Sleep(50 * time.Microsecond) // hands the processor over, as a query would
		for _, id := range old {
			err = errors.Join(err, r.Delete(ctx, id))
		}
		return len(old), err
	}
}

// firstUser has an index of users that only a creation writes.
func firstUser(s *broken, r *reference) {
	index := map[session2.ID]string{}
	s.save = func(ctx context.Context, rec session2.Record, prev session2.Version) error {
		err := r.Save(ctx, rec, prev)
		if _, known := index[rec.ID]; err == nil && !known {
			index[rec.ID] = rec.User
		}
		return err
	}
	s.iterUser = func(ctx context.Context, user string) iter.Seq2[session2.Record, error] {
		return r.iterIf(ctx, func(rec session2.Record) bool { return user != "" && index[rec.ID] == user })
	}
}

func TestBrokenStores(t *testing.T) {
	for _, b := range breakages {
		t.Run(b.name, func(t *testing.T) {
			failsIn(t, b.clause, func(testing.TB, string) session2.Store {
				r := newReference()
				s := newBroken(r)
				b.do(s, r)
				return s
			}, nil)
		})
	}
}

// failsIn wants a store to fail one clause, and the failure to say it.
func failsIn(t *testing.T, clause string, open func(testing.TB, string) session2.Store, opts *storetest.Options) {
	t.Helper()
	limit := 5 * time.Second
	if strings.HasPrefix(clause, "The body of an Iter loop") {
		limit = time.Second / 2 // that store hangs
	}
	failures := storetest.Failures(t, clause, limit, open, opts)
	if len(failures) == 0 {
		t.Fatalf("the broken store passes: %s", clause)
	}
	for _, failure := range failures {
		if !strings.HasPrefix(failure, clause) {
			t.Errorf("got the failure %q, want the clause in front: %s", failure, clause)
		}
	}
}

// liar claims what a store in this process's memory cannot keep.
func liar(caps session2.Capabilities) func(testing.TB, string) session2.Store {
	return func(testing.TB, string) session2.Store {
		r := newReference()
		r.caps = caps
		return r
	}
}

func TestClaimsDurable(t *testing.T) {
	failsIn(t, "Opened again the store shows everything", liar(session2.Capabilities{Durable: true}), nil)
}

func TestClaimsMultihost(t *testing.T) {
	failsIn(t, "A store that machines may share can be shared by processes too",
		liar(session2.Capabilities{MultihostSafe: true}), nil)
}

func TestClaimsMultiprocess(t *testing.T) {
	failsIn(t, "What one store does another over the same data shows at once",
		liar(session2.Capabilities{MultiprocessSafe: true}), nil)
}

// A writeBehind keeps what it acknowledged until it is closed.
type writeBehind struct{ *reference }

func (s writeBehind) Close() error {
	if buffer, ok := s.keep.(*buffered); ok {
		return errors.Join(buffer.flush(), s.reference.Close())
	}
	return s.reference.Close()
}

// buffered is a directory behind a memory.
type buffered struct {
	inMemory
	folder inFolder
}

func (b *buffered) flush() error {
	entries, err := b.folder.ids()
	for _, id := range entries {
		err = errors.Join(err, b.folder.remove(id))
	}
	for _, rec := range b.inMemory {
		err = errors.Join(err, b.folder.put(rec))
	}
	return err
}

func openWriteBehind(t testing.TB, dir string) session2.Store {
	b := &buffered{inMemory: inMemory{}, folder: inFolder(dir)}
	ids, err := b.folder.ids()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if b.inMemory[id], _, err = b.folder.get(id); err != nil {
			t.Fatal(err)
		}
	}
	return writeBehind{&reference{caps: session2.Capabilities{Durable: true}, keep: b}}
}

func TestWritesAtClose(t *testing.T) {
	failsIn(t, "After kill -9 every acknowledged change is there and nothing is half done", openWriteBehind, nil)
}

// lazy takes what it was to save to the disk with the next Delete only.
type lazy struct{ *buffered }

func (l lazy) remove(id session2.ID) error {
	return errors.Join(l.inMemory.remove(id), l.flush())
}

func TestSavesAreWrittenByTheNextDelete(t *testing.T) {
	open := func(t testing.TB, dir string) session2.Store {
		s := openWriteBehind(t, dir).(writeBehind)
		s.keep = lazy{s.keep.(*buffered)}
		return s
	}
	failsIn(t, "After kill -9 every acknowledged change is there and nothing is half done", open, nil)
}

// textual writes users as UTF-8 text and no time before 1970,
// and shows what it was given until it is opened again.
type textual struct{ *reference }

func (s textual) Close() error {
	b := s.keep.(*buffered)
	for id, rec := range b.inMemory {
		rec.User = strings.ToValidUTF8(rec.User, "?")
		if rec.Created.Before(time.Unix(0, 0)) {
			rec.Created = time.Unix(0, 0)
		}
		b.inMemory[id] = rec
	}
	return errors.Join(b.flush(), s.reference.Close())
}

func TestWritesLessThanItShows(t *testing.T) {
	open := func(t testing.TB, dir string) session2.Store {
		return textual{openWriteBehind(t, dir).(writeBehind).reference}
	}
	failsIn(t, "A user of any bytes is kept up to 255 of them", open, nil)
	failsIn(t, "The zero time and times before 1970 and in the far future are kept", open, nil)
}

// A clause that is given up says nothing any more: package testing would end the
// whole test binary.
func TestGivenUpClauseIsSilent(t *testing.T) {
	done := make(chan struct{})
	t.Run("clause", func(t *testing.T) {
		failures := storetest.Failures(t, "Save copies the Data that it is given", 50*time.Millisecond,
			func(t testing.TB, _ string) session2.Store {
				r := newReference()
				s := newBroken(r)
				s.save = func(context.Context, session2.Record, session2.Version) error {
					time.Sleep(200 * time.Millisecond)
					time.AfterFunc(100*time.Millisecond, func() { t.Error("late"); close(done) })
					return errors.New("late")
				}
				return s
			}, nil)
		if len(failures) != 1 || !strings.Contains(failures[0], "too slow") {
			t.Errorf("got %q, want one failure that says that the store is too slow", failures)
		}
	})
	<-done
}

// A Save that cannot read what is there must not take it for its own.
func TestSavesOverDamage(t *testing.T) {
	open := func(_ testing.TB, dir string) session2.Store {
		r := openReference(dir)
		s := newBroken(r)
		s.save = func(ctx context.Context, rec session2.Record, prev session2.Version) error {
			err := r.Save(ctx, rec, prev)
			if errors.Is(err, session2.ErrCorrupt) {
				return r.keep.put(rec)
			}
			return err
		}
		return s
	}
	failsIn(t, "Save does not replace what it cannot read and so not compare",
		open, &storetest.Options{Corrupt: corrupt})
}

// unlocked is a directory that does not exclude other processes: the first time that
// this one replaces a record, it waits for another to be about to.
type unlocked struct {
	inFolder
	meet func() error
}

func (unlocked) lock() (func(), error) { return func() {}, nil }

func (u unlocked) put(rec session2.Record) error {
	if _, err := os.Stat(u.path(rec.ID)); err == nil {
		if err := u.meet(); err != nil {
			return err
		}
	}
	return u.inFolder.put(rec)
}

// meeting returns a function that returns when two processes have called it.
func meeting(dir string) func() error {
	return sync.OnceValue(func() error {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("here-%d", os.Getpid())), nil, 0o600); err != nil {
			return err
		}
		for {
			here, err := filepath.Glob(filepath.Join(dir, "here-*"))
			if err != nil || len(here) > 1 {
				return err
			}
			time.Sleep(time.Millisecond)
		}
	})
}

func TestLocksNoProcesses(t *testing.T) {
	open := func(_ testing.TB, dir string) session2.Store {
		s := openReference(dir)
		s.keep = unlocked{inFolder(dir), meeting(dir)}
		return s
	}
	failsIn(t, "Counting by load and conditional save in 4 processes comes out exact", open, nil)
}

// stale is a directory of which each store remembers what it has read.
type stale struct {
	inFolder
	seen inMemory
}

func (s stale) get(id session2.ID) (session2.Record, bool, error) {
	if rec, found := s.seen[id]; found {
		return rec, true, nil
	}
	rec, found, err := s.inFolder.get(id)
	if found {
		s.seen[id] = rec
	}
	return rec, found, err
}

func (s stale) put(rec session2.Record) error {
	delete(s.seen, rec.ID)
	return s.inFolder.put(rec)
}

func TestRemembersWhatOthersReplaced(t *testing.T) {
	open := func(_ testing.TB, dir string) session2.Store {
		s := openReference(dir)
		s.keep = stale{inFolder(dir), inMemory{}}
		return s
	}
	failsIn(t, "Two stores over the same data may save and load at once, and each shows what the other saved",
		open, nil)
}

// losing is a directory in which a damaged record passes for none.
type losing struct{ inFolder }

func (l losing) get(id session2.ID) (session2.Record, bool, error) {
	rec, found, err := l.inFolder.get(id)
	if errors.Is(err, session2.ErrCorrupt) {
		return session2.Record{}, false, nil
	}
	return rec, found, err
}

func TestHidesDamage(t *testing.T) {
	open := func(_ testing.TB, dir string) session2.Store {
		s := openReference(dir)
		s.keep = losing{inFolder(dir)}
		return s
	}
	failsIn(t, "A corrupt record is ErrCorrupt with its ID and no other record is lost",
		open, &storetest.Options{Corrupt: corrupt})
}

// TestRunFails proves that what fails a clause fails Run: it runs the whole
// suite for a broken store in another process, which must fail and say why.
func TestRunFails(t *testing.T) {
	const variable, name = "STORETEST_RUN_BROKEN", "truncates times to seconds"
	var b breakage
	for _, b = range breakages {
		if b.name == name {
			break
		}
	}
	if os.Getenv(variable) != "" {
		storetest.Run(t, func(testing.TB, string) session2.Store {
			r := newReference()
			s := newBroken(r)
			b.do(s, r)
			return s
		}, nil)
		return
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-test.run=^TestRunFails$")
	cmd.Env = append(os.Environ(), variable+"=1")
	output, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("Run of a broken store: got %v, want a failed test", err)
	}
	if !strings.Contains(string(output), b.clause+".") {
		t.Errorf("Run of a broken store does not say %q:\n%s", b.clause, output)
	}
}

// TestSentences keeps the sentences apart, and usable as names of subtests.
func TestSentences(t *testing.T) {
	seen := map[string]bool{}
	for _, says := range storetest.Sentences() {
		if seen[says] {
			t.Errorf("two clauses say: %s", says)
		}
		if seen[says] = true; strings.ContainsAny(says, "/.") {
			t.Errorf("a sentence with a slash or a full stop: %s", says)
		}
	}
}
