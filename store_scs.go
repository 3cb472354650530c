package session2

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/session2/session2/internal/record"
)

// SCSStore is the method set of a store for github.com/alexedwards/scs/v2.
type SCSStore interface {
	Find(token string) (b []byte, found bool, err error)
	Commit(token string, b []byte, expiry time.Time) error
	Delete(token string) error
}

// The methods that an SCSStore may have as well, by the names that scs gives them.
type (
	scsCtxStore interface {
		FindCtx(ctx context.Context, token string) (b []byte, found bool, err error)
		CommitCtx(ctx context.Context, token string, b []byte, expiry time.Time) error
		DeleteCtx(ctx context.Context, token string) error
	}
	scsAll interface {
		All() (map[string][]byte, error)
	}
	scsAllCtx interface {
		AllCtx(ctx context.Context) (map[string][]byte, error)
	}
)

// FromSCS makes a Store of a store for github.com/alexedwards/scs/v2, for places that
// session2 has no store for. Give it a place of its own, such as a key prefix or a schema.
// The sessions that scs has in the same place stay unseen: they are other sessions, under
// tokens of another form. But the Iterate of scs fails on those of session2.
//
// Such a store cannot compare before it writes. So the check and the write of a Save
// are one step only among the calls by one FromSCS: goroutines may share it, and it
// promises nothing where two processes share the data, or where FromSCS is called twice
// for the same data. What survives a crash is the store's to say, and so it is not
// promised: [Config.Require] refuses it where more than ThreadSafe is needed.
//
// A record is given to the store with an end one day after its Expires, so that an
// expired session is told from an unknown one for that long; and no later than in five
// years, since some of their columns end in 2038. The store's own cleanup removes it;
// DeleteOld and Iter work where the store has All or AllCtx, which read all of it into
// memory for a moment, and otherwise return an error matching [errors.ErrUnsupported].
//
// FromSCS panics if the store is nil.
func FromSCS(store SCSStore) Store {
	if store == nil {
		panic("session2: FromSCS: the store is nil")
	}
	s := &scsStore{store: store}
	s.ctx, _ = store.(scsCtxStore)
	switch store := store.(type) {
	case scsAllCtx:
		s.all = store.AllCtx
	case scsAll:
		s.all = func(context.Context) (map[string][]byte, error) { return store.All() }
	}
	for i := range s.turns {
		s.turns[i] = make(chan struct{}, 1)
	}
	return s
}

// scsStore serialises the writes of each session: one of 64 turns is its own.
type scsStore struct {
	store SCSStore
	ctx   scsCtxStore                                      // nil if it has no such methods
	all   func(context.Context) (map[string][]byte, error) // nil if it does not list
	turns [64]chan struct{}
}

var (
	_ DeleteOldStore = (*scsStore)(nil)
	_ IterStore      = (*scsStore)(nil)
	_ CapableStore   = (*scsStore)(nil)
)

// scsKept is how long the store keeps a record that has expired, and scsMost how long
// it keeps any that is not written again.
const (
	scsKept = 24 * time.Hour
	scsMost = 5 * 365 * 24 * time.Hour
)

func (s *scsStore) Capabilities() Capabilities { return Capabilities{ThreadSafe: true} }

func (s *scsStore) Load(ctx context.Context, id ID) (Record, error) {
	r, found, err := s.find(ctx, id)
	if err == nil && !found {
		err = ErrNotFound
	}
	if err != nil {
		return Record{}, opError("load", id, err)
	}
	return recordFrom(&r), nil
}

func (s *scsStore) Has(ctx context.Context, id ID) (bool, error) {
	_, found, err := s.find(ctx, id)
	if errors.Is(err, ErrCorrupt) {
		return true, nil
	}
	return found, opError("has", id, err)
}

func (s *scsStore) Save(ctx context.Context, rec Record, prev Version) error {
	return opError("save", rec.ID, s.alone(ctx, rec.ID, func() error {
		r := recordOf(rec)
		if err := r.Check(); err != nil {
			return err
		}
		stored, found, err := s.find(ctx, rec.ID)
		if err != nil {
			return err
		}
		if write, err := record.Admit(found, stored.Version, r.Version, uint64(prev)); !write {
			return err
		}
		return s.commit(ctx, r)
	}))
}

func (s *scsStore) Delete(ctx context.Context, id ID) error {
	return opError("delete", id, s.alone(ctx, id, func() error { return s.remove(ctx, id) }))
}

func (s *scsStore) DeleteOld(ctx context.Context, age time.Duration) (n int, err error) {
	if age < 0 {
		return 0, failed("delete old", errors.New("negative age"))
	}
	ids, err := s.ids(ctx)
	if err != nil {
		return 0, failed("delete old", err)
	}
	now := time.Now()
	old := func(r *record.Record) bool {
		return r.Accessed <= microTime(now.Add(-age)) || r.Expires <= microTime(now)
	}
	for _, id := range ids {
		err := s.alone(ctx, id, func() error {
			r, found, err := s.find(ctx, id)
			if err != nil || !found || !old(&r) {
				return err
			}
			n++ // also if the answer is lost: it may be gone
			return s.remove(ctx, id)
		})
		if err != nil && !errors.Is(err, ErrCorrupt) {
			return n, opError("delete old", id, err)
		}
	}
	return n, nil
}

func (s *scsStore) Iter(ctx context.Context) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if s.all == nil {
			yield(Record{}, failed("iter", errors.ErrUnsupported))
			return
		}
		list(ctx, "iter", s.records(ctx), yield)
	}
}

func (s *scsStore) records(ctx context.Context) iter.Seq2[record.Record, error] {
	return func(yield func(record.Record, error) bool) {
		ids, err := s.ids(ctx)
		if err != nil {
			yield(record.Record{}, err)
			return
		}
		for _, id := range ids {
			r, found, err := s.find(ctx, id)
			r.ID = id
			if (found || err != nil) && !yield(r, err) {
				return
			}
		}
	}
}

// alone runs f while no other write of the session runs.
func (s *scsStore) alone(ctx context.Context, id ID, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	turn := s.turns[id[0]%byte(len(s.turns))]
	select {
	case turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-turn }()
	return f()
}

func (s *scsStore) find(ctx context.Context, id ID) (r record.Record, found bool, err error) {
	if err := ctx.Err(); err != nil {
		return r, false, err
	}
	var b []byte
	if s.ctx != nil {
		b, found, err = s.ctx.FindCtx(ctx, id.String())
	} else {
		b, found, err = s.store.Find(id.String())
	}
	if err != nil || !found {
		return r, false, err
	}
	r, err = record.Decode(append([]byte(nil), b...)) // b may be what the store keeps
	if err == nil && r.ID != id {
		err = errors.New("another session's record")
	}
	if err != nil {
		return r, false, record.Corrupt(err)
	}
	return r, true, nil
}

func (s *scsStore) commit(ctx context.Context, r record.Record) error {
	b, err := record.Append(nil, &r)
	if err != nil {
		return err
	}
	now := microNow()
	ends := min(max(instant(r.Expires), now).add(scsKept), now.add(scsMost)).time()
	if s.ctx != nil {
		return s.ctx.CommitCtx(ctx, ID(r.ID).String(), b, ends)
	}
	return s.store.Commit(ID(r.ID).String(), b, ends)
}

func (s *scsStore) remove(ctx context.Context, id ID) error {
	if s.ctx != nil {
		return s.ctx.DeleteCtx(ctx, id.String())
	}
	return s.store.Delete(id.String())
}

// ids returns which sessions of session2 the store holds.
func (s *scsStore) ids(ctx context.Context) (ids []ID, err error) {
	if s.all == nil {
		return nil, errors.ErrUnsupported
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	all, err := s.all(ctx)
	if err != nil {
		return nil, err
	}
	for token := range all {
		if id, err := ParseID(token); err == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
