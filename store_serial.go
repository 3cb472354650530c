package session2

import (
	"context"
	"iter"
	"sync"
	"time"
)

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
