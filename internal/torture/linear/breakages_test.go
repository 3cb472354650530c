package linear

import (
	"context"
	"errors"
	"iter"
	"runtime"
	"sync"
	"time"

	"github.com/session2/session2"
)

// force writes a record whatever is there.
func force(ctx context.Context, s store, rec session2.Record) error {
	for {
		old, err := s.Load(ctx, rec.ID)
		if err != nil && !errors.Is(err, session2.ErrNotFound) {
			return err
		}
		err = s.Save(ctx, rec, old.Version)
		if !errors.Is(err, session2.ErrConflict) && !errors.Is(err, session2.ErrNotFound) {
			return err
		}
	}
}

// admit is the rule of Save, without the writing.
func admit(old session2.Record, rec session2.Record, prev session2.Version) (write bool, err error) {
	switch {
	case old.Version == rec.Version:
		return false, nil
	case old.Version == 0 && prev != 0:
		return false, session2.ErrNotFound
	case old.Version != prev:
		return false, session2.ErrConflict
	}
	return true, nil
}

// elsewhere lets other goroutines run.
func elsewhere() {
	for range 20 {
		runtime.Gosched()
	}
}

// memo is a map that goroutines share.
type memo[T any] struct {
	mu sync.Mutex
	m  map[session2.ID]T
}

func (m *memo[T]) set(id session2.ID, v T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.m == nil {
		m.m = make(map[session2.ID]T)
	}
	m.m[id] = v
}

func (m *memo[T]) get(id session2.ID) (v T, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok = m.m[id]
	return v, ok
}

var breakages = []struct {
	name string
	do   func(b *broken, s store)
}{
	{"Save checks and writes in two steps", func(b *broken, s store) {
		b.save = func(ctx context.Context, rec session2.Record, prev session2.Version) error {
			old, err := s.Load(ctx, rec.ID)
			if err != nil && !errors.Is(err, session2.ErrNotFound) {
				return err
			}
			write, err := admit(old, rec, prev)
			if !write {
				return err
			}
			elsewhere()
			return force(ctx, s, rec)
		}
	}},
	{"Save creates whatever prev is", func(b *broken, s store) {
		b.save = func(ctx context.Context, rec session2.Record, prev session2.Version) error {
			err := s.Save(ctx, rec, prev)
			if errors.Is(err, session2.ErrNotFound) {
				err = s.Save(ctx, rec, 0)
			}
			return err
		}
	}},
	{"a create overwrites", func(b *broken, s store) {
		b.save = func(ctx context.Context, rec session2.Record, prev session2.Version) error {
			if prev == 0 {
				return force(ctx, s, rec)
			}
			return s.Save(ctx, rec, prev)
		}
	}},
	{"a repeated Save is a conflict", func(b *broken, s store) {
		b.save = func(ctx context.Context, rec session2.Record, prev session2.Version) error {
			if old, err := s.Load(ctx, rec.ID); err == nil && old.Version == rec.Version {
				return session2.ErrConflict
			}
			return s.Save(ctx, rec, prev)
		}
	}},
	{"a repeated Save is applied over another's", func(b *broken, s store) {
		var saved memo[map[session2.Version]bool]
		b.save = func(ctx context.Context, rec session2.Record, prev session2.Version) error {
			err := s.Save(ctx, rec, prev)
			list, _ := saved.get(rec.ID)
			if errors.Is(err, session2.ErrConflict) && list[rec.Version] {
				return force(ctx, s, rec)
			}
			if err == nil {
				next := map[session2.Version]bool{rec.Version: true}
				for v := range list {
					next[v] = true
				}
				saved.set(rec.ID, next)
			}
			return err
		}
	}},
	{"a Save that is refused is written", func(b *broken, s store) {
		n := 0
		var mu sync.Mutex
		b.save = func(ctx context.Context, rec session2.Record, prev session2.Version) error {
			err := s.Save(ctx, rec, prev)
			mu.Lock()
			defer mu.Unlock()
			if n++; errors.Is(err, session2.ErrConflict) && n%4 == 0 {
				force(ctx, s, rec)
			}
			return err
		}
	}},
	{"a Save whose answer was lost is made again without a look", func(b *broken, s store) {
		b.save = func(ctx context.Context, rec session2.Record, prev session2.Version) error {
			err := s.Save(ctx, rec, prev)
			if err == nil && rec.Version%3 == 0 {
				elsewhere()
				return force(ctx, s, rec)
			}
			return err
		}
	}},
	{"Save forgets the user", func(b *broken, s store) {
		b.save = func(ctx context.Context, rec session2.Record, prev session2.Version) error {
			if prev != 0 {
				rec.User = ""
			}
			return s.Save(ctx, rec, prev)
		}
	}},
	{"a Save whose context is done is carried out", func(b *broken, s store) {
		b.save = func(ctx context.Context, rec session2.Record, prev session2.Version) error {
			if err := ctx.Err(); err != nil {
				s.Save(context.WithoutCancel(ctx), rec, prev)
				return err
			}
			return s.Save(ctx, rec, prev)
		}
	}},
	{"Has is cached", func(b *broken, s store) {
		var cache memo[bool]
		b.has = func(ctx context.Context, id session2.ID) (bool, error) {
			if found, ok := cache.get(id); ok && found {
				return true, ctx.Err()
			}
			found, err := s.Has(ctx, id)
			cache.set(id, found)
			return found, err
		}
	}},
	{"Load returns a copy from before", func(b *broken, s store) {
		var cache memo[session2.Record]
		b.load = func(ctx context.Context, id session2.ID) (session2.Record, error) {
			if rec, ok := cache.get(id); ok && rec.Version%4 == 1 {
				return rec, ctx.Err()
			}
			rec, err := s.Load(ctx, id)
			if err == nil {
				cache.set(id, rec)
			}
			return rec, err
		}
	}},
	{"Delete returns before it is done", func(b *broken, s store) {
		b.remove = func(ctx context.Context, id session2.ID) error {
			go func() {
				elsewhere()
				s.Delete(context.WithoutCancel(ctx), id)
			}()
			return ctx.Err()
		}
	}},
	{"Touch brings a record back", func(b *broken, s store) {
		b.touch = func(ctx context.Context, id session2.ID, accessed, expires time.Time) error {
			rec, err := s.Load(ctx, id)
			if err != nil {
				return s.Touch(ctx, id, accessed, expires)
			}
			elsewhere()
			if err := s.Touch(ctx, id, accessed, expires); err != nil {
				return err
			}
			if found, err := s.Has(ctx, id); err == nil && !found {
				s.Save(ctx, rec, 0)
			}
			return nil
		}
	}},
	{"Touch moves times back", func(b *broken, s store) {
		b.touch = func(ctx context.Context, id session2.ID, accessed, expires time.Time) error {
			rec, err := s.Load(ctx, id)
			if err != nil {
				return s.Touch(ctx, id, accessed, expires)
			}
			rec.Accessed, rec.Expires = accessed, expires
			tmp := rec
			tmp.Version++
			if err := s.Save(ctx, tmp, rec.Version); err == nil {
				s.Save(ctx, rec, tmp.Version)
			}
			return nil
		}
	}},
	{"DeleteOld deletes what was touched meanwhile", func(b *broken, s store) {
		b.deleteOld = func(ctx context.Context, age time.Duration) (n int, err error) {
			now := time.Now()
			for rec := range s.Iter(ctx) {
				if !rec.Accessed.After(now.Add(-age)) || !rec.Expires.After(now) {
					elsewhere()
					s.Delete(ctx, rec.ID)
					n++
				}
			}
			return n, ctx.Err()
		}
	}},
	{"DeleteOld leaves what has expired", func(b *broken, s store) {
		b.deleteOld = func(ctx context.Context, age time.Duration) (n int, err error) { return 0, ctx.Err() }
	}},
	{"DeleteUser deletes what has become another's", func(b *broken, s store) {
		b.deleteUser = func(ctx context.Context, user string, keep ...session2.ID) (n int, err error) {
			kept := make(map[session2.ID]bool)
			for _, id := range keep {
				kept[id] = true
			}
			for rec := range s.IterUser(ctx, user) {
				if !kept[rec.ID] {
					elsewhere()
					s.Delete(ctx, rec.ID)
					n++
				}
			}
			return n, ctx.Err()
		}
	}},
	{"DeleteUser overlooks one", func(b *broken, s store) {
		b.deleteUser = func(ctx context.Context, user string, keep ...session2.ID) (n int, err error) {
			for rec := range s.IterUser(ctx, user) {
				keep = append(keep, rec.ID)
				break
			}
			return s.DeleteUser(ctx, user, keep...)
		}
	}},
	{"DeleteUser counts wrong", func(b *broken, s store) {
		b.deleteUser = func(ctx context.Context, user string, keep ...session2.ID) (n int, err error) {
			n, err = s.DeleteUser(ctx, user, keep...)
			return n / 2, err
		}
	}},
	{"IterUser lists what the user no longer has", func(b *broken, s store) {
		var cache memo[session2.Record]
		b.iterUser = func(ctx context.Context, user string) iter.Seq2[session2.Record, error] {
			return func(yield func(session2.Record, error) bool) {
				for rec, err := range s.IterUser(ctx, user) {
					if old, ok := cache.get(rec.ID); ok && old.User == user {
						rec = old
					}
					cache.set(rec.ID, rec)
					if !yield(rec, err) {
						return
					}
				}
			}
		}
	}},
}
