package sessiontest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/session2/session2"
)

// Store is a store whose calls fail on command. What it is not told to fail it passes on to
// the store that it wraps; it can do what that one can. Goroutines may share it.
type Store struct {
	store session2.Store

	mu   sync.Mutex
	errs map[string]error // by method
}

var (
	_ session2.SetupStore     = (*Store)(nil)
	_ session2.DeleteOldStore = (*Store)(nil)
	_ session2.IterStore      = (*Store)(nil)
	_ session2.TouchStore     = (*Store)(nil)
	_ session2.UserStore      = (*Store)(nil)
	_ session2.CapableStore   = (*Store)(nil)
	_ io.Closer               = (*Store)(nil)
)

// methods are what Fail knows.
var methods = []string{
	"Load", "Save", "Delete", "Has", "Setup", "DeleteOld", "Iter", "Touch", "IterUser", "DeleteUser",
}

// NewStore returns a Store that wraps store, and fails nothing yet. It panics if store is
// nil.
func NewStore(store session2.Store) *Store {
	if store == nil {
		panic("sessiontest: NewStore: the store is nil")
	}
	return &Store{store: store, errs: make(map[string]error)}
}

// Fail has the methods of these names, such as "Save", return err from now on, before
// they reach the store that is wrapped; without names, all methods that take a context.
// With a nil err they work again. Fail panics if no method has such a name.
//
// A manager calls a Save or a Delete that fails again, until Config.CommitTimeout is
// over (5 s), because it cannot know that nothing was stored; the request is then
// answered with 503, and its error matches [session2.ErrUncertain]. Set a short
// CommitTimeout, or run the test within [testing/synctest]. If err is a definite
// refusal, such as [io/fs.ErrPermission] (see [session2.Store]), the 503 comes at once,
// without ErrUncertain. A Load is called once where a request begins.
func (s *Store) Fail(err error, names ...string) {
	for _, name := range names {
		if !slices.Contains(methods, name) {
			panic(fmt.Sprintf("sessiontest: no method %q can fail; there are %s", name, strings.Join(methods, ", ")))
		}
	}
	if len(names) == 0 {
		names = methods
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		s.errs[name] = err
	}
}

func (s *Store) failure(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.errs[name]
}

// Load implements [session2.Store].
func (s *Store) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	if err := s.failure("Load"); err != nil {
		return session2.Record{}, err
	}
	return s.store.Load(ctx, id)
}

// Save implements [session2.Store].
func (s *Store) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	if err := s.failure("Save"); err != nil {
		return err
	}
	return s.store.Save(ctx, rec, prev)
}

// Delete implements [session2.Store].
func (s *Store) Delete(ctx context.Context, id session2.ID) error {
	if err := s.failure("Delete"); err != nil {
		return err
	}
	return s.store.Delete(ctx, id)
}

// Has implements [session2.Store].
func (s *Store) Has(ctx context.Context, id session2.ID) (bool, error) {
	if err := s.failure("Has"); err != nil {
		return false, err
	}
	return s.store.Has(ctx, id)
}

// Setup implements [session2.SetupStore].
func (s *Store) Setup(ctx context.Context) error {
	if err := s.failure("Setup"); err != nil {
		return err
	}
	return session2.Setup(ctx, s.store)
}

// DeleteOld implements [session2.DeleteOldStore].
func (s *Store) DeleteOld(ctx context.Context, age time.Duration) (int, error) {
	if err := s.failure("DeleteOld"); err != nil {
		return 0, err
	}
	if d, ok := s.store.(session2.DeleteOldStore); ok {
		return d.DeleteOld(ctx, age)
	}
	return 0, errors.ErrUnsupported
}

// Iter implements [session2.IterStore].
func (s *Store) Iter(ctx context.Context) iter.Seq2[session2.Record, error] {
	if err := s.failure("Iter"); err != nil {
		return failed(err)
	}
	if i, ok := s.store.(session2.IterStore); ok {
		return i.Iter(ctx)
	}
	return failed(errors.ErrUnsupported)
}

// Touch implements [session2.TouchStore].
func (s *Store) Touch(ctx context.Context, id session2.ID, accessed, expires time.Time) error {
	if err := s.failure("Touch"); err != nil {
		return err
	}
	if t, ok := s.store.(session2.TouchStore); ok {
		return t.Touch(ctx, id, accessed, expires)
	}
	return errors.ErrUnsupported
}

// IterUser implements [session2.UserStore].
func (s *Store) IterUser(ctx context.Context, user string) iter.Seq2[session2.Record, error] {
	if err := s.failure("IterUser"); err != nil {
		return failed(err)
	}
	if u, ok := s.store.(session2.UserStore); ok {
		return u.IterUser(ctx, user)
	}
	return failed(errors.ErrUnsupported)
}

// DeleteUser implements [session2.UserStore].
func (s *Store) DeleteUser(ctx context.Context, user string, keep ...session2.ID) (int, error) {
	if err := s.failure("DeleteUser"); err != nil {
		return 0, err
	}
	if u, ok := s.store.(session2.UserStore); ok {
		return u.DeleteUser(ctx, user, keep...)
	}
	return 0, errors.ErrUnsupported
}

// Capabilities implements [session2.CapableStore]: those of the store that is wrapped.
func (s *Store) Capabilities() session2.Capabilities {
	if c, ok := s.store.(session2.CapableStore); ok {
		return c.Capabilities()
	}
	return session2.Capabilities{}
}

// Close closes the store that is wrapped.
func (s *Store) Close() error { return session2.Close(s.store) }

// failed yields err alone.
func failed(err error) iter.Seq2[session2.Record, error] {
	return func(yield func(session2.Record, error) bool) { yield(session2.Record{}, err) }
}
