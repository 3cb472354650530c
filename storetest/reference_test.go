package storetest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/session2/session2"
)

// A reference is the smallest store that keeps the whole contract: one lock
// around everything. The broken stores are made of it.
type reference struct {
	caps session2.Capabilities

	mu     sync.Mutex
	keep   keeper
	closed bool
}

// A keeper is where a reference has its records. It need not lock.
type keeper interface {
	lock() (unlock func(), err error) // against other processes
	get(id session2.ID) (rec session2.Record, found bool, err error)
	put(rec session2.Record) error
	remove(id session2.ID) error
	ids() ([]session2.ID, error)
}

var (
	_ session2.SetupStore     = (*reference)(nil)
	_ session2.DeleteOldStore = (*reference)(nil)
	_ session2.IterStore      = (*reference)(nil)
	_ session2.TouchStore     = (*reference)(nil)
	_ session2.UserStore      = (*reference)(nil)
	_ session2.CapableStore   = (*reference)(nil)
)

func newReference() *reference {
	return &reference{caps: session2.Capabilities{ThreadSafe: true}, keep: inMemory{}}
}

func openReference(dir string) *reference {
	return &reference{
		caps: session2.Capabilities{ThreadSafe: true, MultiprocessSafe: true, Durable: true},
		keep: inFolder(dir),
	}
}

// locked runs f as one atomic step.
func (s *reference) locked(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fs.ErrClosed
	}
	unlock, err := s.keep.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return f()
}

func (s *reference) Load(ctx context.Context, id session2.ID) (rec session2.Record, err error) {
	err = s.locked(ctx, func() error {
		var found bool
		if rec, found, err = s.keep.get(id); err == nil && !found {
			err = session2.ErrNotFound
		}
		return err
	})
	return rec, err
}

func (s *reference) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	return s.locked(ctx, func() error {
		if rec.Version == 0 {
			return errors.New("version zero")
		}
		stored, found, err := s.keep.get(rec.ID)
		switch {
		case err != nil:
			return err
		case found && stored.Version == rec.Version:
			return nil
		case found && stored.Version != prev:
			return session2.ErrConflict
		case !found && prev != 0:
			return session2.ErrNotFound
		}
		return s.keep.put(rec)
	})
}

func (s *reference) Delete(ctx context.Context, id session2.ID) error {
	return s.locked(ctx, func() error { return s.keep.remove(id) })
}

func (s *reference) Has(ctx context.Context, id session2.ID) (found bool, err error) {
	err = s.locked(ctx, func() error {
		_, found, err = s.keep.get(id)
		return err
	})
	return found, err
}

func (s *reference) Setup(ctx context.Context) error {
	return s.locked(ctx, func() error { return nil })
}

func (s *reference) Touch(ctx context.Context, id session2.ID, accessed, expires time.Time) error {
	return s.locked(ctx, func() error {
		rec, found, err := s.keep.get(id)
		if err != nil || !found {
			return err
		}
		rec.Accessed, rec.Expires = later(rec.Accessed, accessed), later(rec.Expires, expires)
		return s.keep.put(rec)
	})
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (s *reference) DeleteOld(ctx context.Context, age time.Duration) (int, error) {
	if age < 0 {
		return 0, errors.New("negative age")
	}
	now := time.Now()
	return s.removeIf(ctx, func(rec session2.Record) bool {
		return !rec.Accessed.After(now.Add(-age)) || !rec.Expires.After(now)
	})
}

func (s *reference) DeleteUser(ctx context.Context, user string, keep ...session2.ID) (int, error) {
	return s.removeIf(ctx, func(rec session2.Record) bool {
		return user != "" && rec.User == user && !slices.Contains(keep, rec.ID)
	})
}

// removeIf removes the records that are to go and counts them. One that cannot
// be read stays.
func (s *reference) removeIf(ctx context.Context, gone func(session2.Record) bool) (n int, err error) {
	err = s.locked(ctx, func() error {
		ids, err := s.keep.ids()
		if err != nil {
			return err
		}
		for _, id := range ids {
			rec, found, err := s.keep.get(id)
			if err != nil || !found || !gone(rec) {
				continue
			}
			if err := s.keep.remove(id); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return n, err
}

func (s *reference) Iter(ctx context.Context) iter.Seq2[session2.Record, error] {
	return s.iterIf(ctx, func(session2.Record) bool { return true })
}

func (s *reference) IterUser(ctx context.Context, user string) iter.Seq2[session2.Record, error] {
	return s.iterIf(ctx, func(rec session2.Record) bool { return user != "" && rec.User == user })
}

// iterIf takes the IDs at the start and loads the records one by one.
func (s *reference) iterIf(ctx context.Context, wanted func(session2.Record) bool) iter.Seq2[session2.Record, error] {
	return func(yield func(session2.Record, error) bool) {
		ids, err := s.ids(ctx)
		if err != nil {
			yield(session2.Record{}, err)
			return
		}
		for _, id := range ids {
			rec, err := s.Load(ctx, id)
			switch {
			case errors.Is(err, session2.ErrNotFound), err == nil && !wanted(rec):
				continue
			case err != nil:
				rec = session2.Record{ID: id}
			}
			if !yield(rec, err) || err != nil && !errors.Is(err, session2.ErrCorrupt) {
				return
			}
		}
	}
}

func (s *reference) ids(ctx context.Context) (ids []session2.ID, err error) {
	err = s.locked(ctx, func() error {
		ids, err = s.keep.ids()
		return err
	})
	return ids, err
}

func (s *reference) Capabilities() session2.Capabilities { return s.caps }

func (s *reference) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// inMemory keeps records in a map.
type inMemory map[session2.ID]session2.Record

func (m inMemory) lock() (func(), error) { return func() {}, nil }

func (m inMemory) get(id session2.ID) (session2.Record, bool, error) {
	rec, found := m[id]
	return rounded(rec), found, nil
}

func (m inMemory) put(rec session2.Record) error { m[rec.ID] = rounded(rec); return nil }
func (m inMemory) remove(id session2.ID) error   { delete(m, id); return nil }
func (m inMemory) ids() ([]session2.ID, error)   { return slices.Collect(maps.Keys(m)), nil }
func inUTC(t time.Time) time.Time                { return time.UnixMicro(t.UnixMicro()).UTC() }
func rounded(rec session2.Record) session2.Record {
	rec.Created, rec.Accessed, rec.Expires = inUTC(rec.Created), inUTC(rec.Accessed), inUTC(rec.Expires)
	rec.Data = bytes.Clone(rec.Data)
	return rec
}

// inFolder keeps each record in a file. It does not sync, for no test here
// cuts the power.
type inFolder string

func (f inFolder) lock() (func(), error)      { return lockFile(filepath.Join(string(f), "lock")) }
func (f inFolder) path(id session2.ID) string { return filepath.Join(string(f), id.String()) }

func (f inFolder) get(id session2.ID) (session2.Record, bool, error) {
	text, err := os.ReadFile(f.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return session2.Record{}, false, nil
	} else if err != nil {
		return session2.Record{}, false, err
	}
	rec, err := parse(id, text)
	return rec, err == nil, err
}

func (f inFolder) put(rec session2.Record) error {
	temporary := filepath.Join(string(f), fmt.Sprintf("new-%d", os.Getpid()))
	if err := os.WriteFile(temporary, format(rec), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, f.path(rec.ID))
}

func (f inFolder) remove(id session2.ID) error {
	if err := os.Remove(f.path(id)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (f inFolder) ids() (ids []session2.ID, err error) {
	entries, err := os.ReadDir(string(f))
	for _, entry := range entries {
		if id, err := session2.ParseID(entry.Name()); err == nil {
			ids = append(ids, id)
		}
	}
	return ids, err
}

// format and parse are the file of a record: a line of all but the data, then
// the data.
func format(rec session2.Record) []byte {
	head := fmt.Appendf(nil, "%d %d %d %d %q\n", rec.Version,
		rec.Created.UnixMicro(), rec.Accessed.UnixMicro(), rec.Expires.UnixMicro(), rec.User)
	return append(head, rec.Data...)
}

func parse(id session2.ID, text []byte) (session2.Record, error) {
	rec := session2.Record{ID: id}
	head, data, _ := bytes.Cut(text, []byte("\n"))
	var created, accessed, expires int64
	_, err := fmt.Sscanf(string(head), "%d %d %d %d %q",
		&rec.Version, &created, &accessed, &expires, &rec.User)
	if err != nil {
		return session2.Record{}, fmt.Errorf("%w: %v", session2.ErrCorrupt, id)
	}
	rec.Created, rec.Accessed = time.UnixMicro(created).UTC(), time.UnixMicro(accessed).UTC()
	rec.Expires, rec.Data = time.UnixMicro(expires).UTC(), data
	return rec, nil
}

// corrupt damages a record of a reference in a directory.
func corrupt(t testing.TB, dir string, id session2.ID) {
	if err := os.WriteFile(inFolder(dir).path(id), []byte("no record\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}
