package session2

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"time"

	"github.com/session2/session2/internal/cache"
)

// CacheOptions are the options of [NewCache]. The zero value is the default.
type CacheOptions struct {
	// MaxAge is how old the record may be that a GET or HEAD request sees of its
	// session: it sees what another process has changed no later than that. Default 1
	// s; negative: nothing is kept.
	MaxAge time.Duration

	// MaxBytes bounds the memory that the cache takes, its own overhead included. A
	// record that takes more than a sixteenth of it is not kept. Default 64 MiB;
	// negative: nothing is kept.
	MaxBytes int
}

// NewCache returns the store with a cache in the memory of this process; nil options
// are the defaults. A GET or HEAD request sees its session as the store held it at most
// MaxAge before, and what this process has saved or deleted it sees at once. All else
// goes to the store as ever: each change, which is made to the record that is stored by
// then; [Session.Check]; the turns of [Manager.Exclusive]; requests by other methods;
// and those whose token the cached record does not open. So no change is lost by the
// cache.
//
// A logout, a revocation or a new token, by another process or by another cache, is
// seen up to MaxAge later by requests that only read. Do not use it where a session
// that was ended must show nothing more at once, or where processes take the requests
// of one client in turn and each must see what the one before has stored: there, such a
// request may show what was before, and one that sets what it has read so is refused
// with [ErrLostUpdate].
//
// The cache is for a Manager, which must be given it as it is: a wrapper around it
// hides it. All managers of a process that share the store should share its cache. Its
// Load is the store's, so that all [Capabilities] of the store hold; of concurrent
// requests that miss one record, one loads it. A store that is not ThreadSafe is called
// by one goroutine at a time. Setup and Close are the store's.
//
// NewCache panics if the store is nil.
func NewCache(store Store, opts *CacheOptions) Store {
	if store == nil {
		panic("session2: NewCache: the store is nil")
	}
	o := filled(opts)
	o.MaxAge, o.MaxBytes = cmp.Or(o.MaxAge, time.Second), cmp.Or(o.MaxBytes, 64<<20)
	c := &cachedStore{Store: store, given: store, near: cache.New(o.MaxAge, o.MaxBytes, cloneRecord, recordSize)}
	if !capabilities(store).ThreadSafe {
		c.Store = &serialStore{store: store}
	}
	return c
}

func cloneRecord(rec Record) Record {
	rec.Data = bytes.Clone(rec.Data)
	return rec
}

// recordSize returns what a record takes beside what the cache takes for it.
func recordSize(rec Record) int { return cap(rec.Data) + len(rec.User) }

// cachedStore is the store of NewCache.
type cachedStore struct {
	Store       // behind a lock, if it needs one
	given Store // as NewCache was given it
	near  *cache.Cache[Record]
}

var (
	_ nearStore      = (*cachedStore)(nil)
	_ SetupStore     = (*cachedStore)(nil)
	_ DeleteOldStore = (*cachedStore)(nil)
	_ IterStore      = (*cachedStore)(nil)
	_ TouchStore     = (*cachedStore)(nil)
	_ UserStore      = (*cachedStore)(nil)
	_ CapableStore   = (*cachedStore)(nil)
	_ io.Closer      = (*cachedStore)(nil)
)

// nearStore is a Store that can show a record as it was a moment ago.
type nearStore interface {
	// LoadCached is Load, but that with old the record is as the store held it some time
	// before the call. No older record follows a change that this store has made.
	LoadCached(ctx context.Context, id ID) (rec Record, old bool, err error)
}

// Load goes to the store, and the cache takes in what it returns.
func (c *cachedStore) Load(ctx context.Context, id ID) (Record, error) {
	return c.near.Fresh(ctx, id, func(ctx context.Context) (Record, error) { return c.Store.Load(ctx, id) })
}

func (c *cachedStore) LoadCached(ctx context.Context, id ID) (rec Record, old bool, err error) {
	if err := ctx.Err(); err != nil {
		return Record{}, false, opError("load", id, err)
	}
	return c.near.Get(ctx, id, func(ctx context.Context) (Record, error) { return c.Store.Load(ctx, id) })
}

func (c *cachedStore) Save(ctx context.Context, rec Record, prev Version) error {
	c.near.Begin(rec.ID)
	defer c.near.End(rec.ID)
	return c.Store.Save(ctx, rec, prev)
}

func (c *cachedStore) Delete(ctx context.Context, id ID) error {
	c.near.Begin(id)
	defer c.near.End(id)
	return c.Store.Delete(ctx, id)
}

func (c *cachedStore) Touch(ctx context.Context, id ID, accessed, expires time.Time) error {
	c.near.Begin(id)
	defer c.near.End(id)
	return touch(ctx, c.Store, id, accessed, expires)
}

// DeleteOld may delete any record, as DeleteUser may: a cached one need not show whose
// it is by now. So until it is over, the cache is not used.
func (c *cachedStore) DeleteOld(ctx context.Context, age time.Duration) (int, error) {
	c.near.BeginAll()
	defer c.near.EndAll()
	return deleteOld(ctx, c.Store, age)
}

func (c *cachedStore) DeleteUser(ctx context.Context, user string, keep ...ID) (int, error) {
	c.near.BeginAll()
	defer c.near.EndAll()
	return deleteUser(ctx, c.Store, user, keep...)
}

// IterUser is errors.ErrUnsupported where the store has none, as wrappers must be.
func (c *cachedStore) IterUser(ctx context.Context, user string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if _, ok := c.given.(UserStore); !ok || !iterIndex(ctx, c.Store, user, yield) {
			yield(Record{}, failed("iter user", errors.ErrUnsupported))
		}
	}
}

func (c *cachedStore) Iter(ctx context.Context) iter.Seq2[Record, error] {
	return iterAll(ctx, c.Store)
}

func (c *cachedStore) Setup(ctx context.Context) error { return Setup(ctx, c.given) }

// Close frees what is kept, too.
func (c *cachedStore) Close() error {
	c.near.BeginAll()
	defer c.near.EndAll()
	return Close(c.given)
}

func (c *cachedStore) Capabilities() Capabilities {
	caps := capabilities(c.given)
	caps.ThreadSafe = true
	return caps
}

// first is fetch for a request's first look, with the best of the tokens that it presents.
// A request that only reads may see an old record, if one of them opens it: then that is
// how the session was. Whatever else an old record says, another process may have changed:
// a token that it does not know may be of a login, and a time that is over extended.
func (s *Session) first(ctx context.Context, id ID, tokens []token) (st *state, best life, err error) {
	if s.m.near != nil && s.request != nil && (s.request.Method == http.MethodGet || s.request.Method == http.MethodHead) {
		rec, old, err := s.m.near.LoadCached(ctx, id)
		if err == nil {
			st, err = s.m.takeApart(rec)
		}
		if st != nil {
			best = s.best(st, tokens)
		}
		best.old = old
		if !old || err == nil && best.standing == current {
			return st, best, err
		}
	}
	if st, err = s.m.fetch(ctx, id); st != nil {
		best = s.best(st, tokens)
	}
	return st, best, err
}
