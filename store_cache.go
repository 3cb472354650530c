package session2

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"sync"
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

	// PubSub, if not nil, brings what other processes have changed within milliseconds:
	// those that use this store through a cache with a PubSub to the same channel. Streams
	// end as soon. MaxAge still holds for all that it does not bring. While nobody can say that it works,
	// which a cache asks every second and waits 3 s for at most, the cache is not used.
	PubSub PubSub

	// Logger is told when a PubSub fails and when it works again. Default [slog.Default].
	Logger *slog.Logger
}

// PubSub carries messages between the processes that share a store, for [CacheOptions];
// [NewPostgresPubSub] is one. A message is ASCII text of less than 8,000 bytes with no
// secret in it. A PubSub is for one cache, whose goroutine calls it from the first use of
// the cache until its Close.
type PubSub interface {
	// Subscribe calls subscribed once, when all that anybody publishes from then on will be
	// received, and receive for each message, those of this PubSub itself included, one
	// after the other. It returns when ctx ends or a message may have been lost. It may
	// be called again then.
	Subscribe(ctx context.Context, subscribed func(), receive func(message string)) error

	// Publish sends a message, while Subscribe runs.
	Publish(ctx context.Context, message string) error
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
// seen up to MaxAge later by requests that only read; milliseconds later with a PubSub.
// Do not use it where a session that was ended must show nothing more at once, or where
// processes take the requests of one client in turn and each must see what the one before
// has stored: there, such a request may show what was before, and one that sets what it
// has read so is refused with [ErrLostUpdate].
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
	c := &cachedStore{Store: store, given: store, near: cache.New(o.MaxAge, o.MaxBytes, (*kept).size)}
	if !capabilities(store).ThreadSafe {
		c.Store = &serialStore{store: store}
	}
	if o.PubSub != nil {
		c.peers = cache.NewPeers(c.near, o.PubSub, tellOnce(cmp.Or(o.Logger, slog.Default())),
			func(id cache.ID) { c.hear(ID(id)) })
	}
	return c
}

// tellOnce logs that a PubSub fails, and that it works again: each once.
func tellOnce(log *slog.Logger) func(error) {
	failing := false
	return func(err error) {
		switch {
		case err != nil && !failing:
			log.Error("session2: the cache is not used: its PubSub fails", "error", err.Error())
		case err == nil && failing:
			log.Info("session2: the cache is used again: its PubSub works")
		}
		failing = err != nil
	}
}

// kept is a record as the cache has it, for many requests at once: neither it nor what it
// refers to is changed.
type kept struct {
	rec Record
	st  *state // the record taken apart; nil if that failed
}

// keep has the cache load from the store.
func (c *cachedStore) keep(id ID) func(context.Context) (*kept, error) {
	return func(ctx context.Context) (*kept, error) {
		rec, err := c.Store.Load(ctx, id)
		if err != nil {
			return nil, err
		}
		st, _ := decodeRecord(rec)
		return &kept{rec, st}, nil
	}
}

// record returns the record for a caller who may change it.
func (k *kept) record() Record {
	rec := k.rec
	rec.Data = bytes.Clone(rec.Data)
	return rec
}

// state returns the record taken apart. A sealed one is for the caller to open.
func (k *kept) state() (*state, error) {
	if k.st == nil {
		return decodeRecord(k.rec)
	}
	if k.st.box != nil {
		sealed := *k.st
		return &sealed, nil
	}
	return k.st, nil
}

// size returns what it takes beside what the cache takes for it.
func (k *kept) size() int {
	n := cap(k.rec.Data) + len(k.rec.User)
	if k.st != nil {
		n += k.st.size()
	}
	return n
}

// cachedStore is the store of NewCache.
type cachedStore struct {
	Store       // behind a lock, if it needs one
	given Store // as NewCache was given it
	near  *cache.Cache[*kept]

	peers     *cache.Peers[*kept] // nil without a PubSub
	listening sync.Once
	end       context.CancelFunc // of the listening

	mu       sync.Mutex
	managers []*Manager // whose running requests hear of changes, too
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
	// look is Load and decodeRecord, but that with old the record is as the store held it
	// some time before the call. No older record follows a change that this store has
	// made. The state is shared.
	look(ctx context.Context, id ID) (st *state, old bool, err error)

	// tell tells other processes that records have changed, and serve has a manager told
	// what they tell.
	tell(ids ...ID)
	serve(*Manager)
}

// Load goes to the store, and the cache takes in what it returns.
func (c *cachedStore) Load(ctx context.Context, id ID) (Record, error) {
	k, err := c.near.Fresh(ctx, id, c.keep(id))
	if err != nil {
		return Record{}, err
	}
	return k.record(), nil
}

// LoadCached is Load as a request's first look has it: the record may be old.
func (c *cachedStore) LoadCached(ctx context.Context, id ID) (rec Record, old bool, err error) {
	k, old, err := c.get(ctx, id)
	if err != nil {
		return Record{}, false, err
	}
	return k.record(), old, nil
}

func (c *cachedStore) look(ctx context.Context, id ID) (st *state, old bool, err error) {
	k, old, err := c.get(ctx, id)
	if err == nil {
		st, err = k.state()
	}
	return st, old, err
}

func (c *cachedStore) get(ctx context.Context, id ID) (k *kept, old bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, opError("load", id, err)
	}
	c.listen()
	return c.near.Get(ctx, id, c.keep(id))
}

// closing is how long Close waits for a PubSub.
const closing = 5 * time.Second

// listen has the other processes told what this one changes, and heard. Whoever changes a
// record tells them when it is done, whatever has come of it.
func (c *cachedStore) listen() {
	if c.peers == nil {
		return
	}
	c.listening.Do(func() {
		var ctx context.Context
		ctx, c.end = context.WithCancel(context.Background())
		go c.peers.Run(ctx)
	})
}

func (c *cachedStore) Save(ctx context.Context, rec Record, prev Version) error {
	c.near.Begin(rec.ID)
	defer c.near.End(rec.ID)
	if prev != 0 { // nobody has what is not there yet
		defer c.tell(rec.ID)
	}
	return c.Store.Save(ctx, rec, prev)
}

func (c *cachedStore) Delete(ctx context.Context, id ID) error {
	c.near.Begin(id)
	defer c.near.End(id)
	defer c.tell(id)
	return c.Store.Delete(ctx, id)
}

func (c *cachedStore) tell(ids ...ID) {
	if c.peers == nil {
		return
	}
	c.listen()
	for _, id := range ids {
		c.peers.Changed(id)
	}
}

func (c *cachedStore) serve(m *Manager) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.managers = append(c.managers, m)
}

// hear has the running requests of a session that another process has changed looked
// after now.
func (c *cachedStore) hear(id ID) {
	c.mu.Lock()
	managers := c.managers
	c.mu.Unlock()
	for _, m := range managers {
		m.open.changedElsewhere(id)
		m.watch.hurry(id)
	}
}

func (c *cachedStore) Touch(ctx context.Context, id ID, accessed, expires time.Time) error {
	c.near.Begin(id)
	defer c.near.End(id)
	return touch(ctx, c.Store, id, accessed, expires)
}

func (c *cachedStore) confirm(ctx context.Context) error { return confirm(ctx, c.Store) }

// DeleteOld may delete any record, as DeleteUser may: a cached one need not show whose
// it is by now. So until it is over, the cache is not used. Other processes are not told:
// what it deletes has run out, as they see by themselves, or was not used for long.
func (c *cachedStore) DeleteOld(ctx context.Context, age time.Duration) (int, error) {
	c.near.BeginAll()
	defer c.near.EndAll()
	return deleteOld(ctx, c.Store, age)
}

func (c *cachedStore) DeleteUser(ctx context.Context, user string, keep ...ID) (int, error) {
	c.near.BeginAll()
	defer c.near.EndAll()
	n, err := deleteUser(ctx, c.Store, user, keep...)
	if c.peers != nil && (n > 0 || err != nil) {
		c.listen()
		c.peers.ChangedAll()
	}
	return n, err
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

// Close frees what is kept, too, and ends the listening, when the other processes are told
// what there is to tell.
func (c *cachedStore) Close() error {
	c.listening.Do(func() {})
	if c.end != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closing)
		c.peers.Flush(ctx)
		cancel()
		c.end()
	}
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
func (s *Session) first(ctx context.Context, id ID, tokens []token, only bool) (st *state, best life, err error) {
	near := only && s.m.near != nil && s.request != nil
	if near && (s.request.Method == http.MethodGet || s.request.Method == http.MethodHead) {
		st, old, err := s.m.near.look(ctx, id)
		if err == nil {
			st, err = s.m.admit(st)
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

// stillOpens has Destroy go by what the store has, where a cache has shown the session: it
// reports whether the token is not one from before a login that changed whose session it is,
// or from before the request came. Where the store does not say, the request fails. It is
// called with s.mu held, and lets go of it meanwhile.
func (s *Session) stillOpens() bool {
	was := s.life
	if !was.old || !was.base.stored() {
		return true
	}
	st, err := s.loadPastCache(was.base.id)
	if s.life.base != was.base {
		return true // another goroutine of the request was faster
	}
	if err != nil && !absent(err) {
		s.broken = cmp.Or(s.broken, fmt.Errorf("session2: load %v: %w", was.base.id, err))
	}
	if err != nil {
		return true // there is nothing to be ended
	}
	v := st.ident.judge(was.shown, s.arrived, s.m.cfg.RenewGrace)
	return v.standing > superseded || v.sameUser || v.after
}

// loadPastCache loads a record past the cache, with s.mu let go of meanwhile.
func (s *Session) loadPastCache(id ID) (*state, error) {
	s.mu.Unlock()
	defer s.mu.Lock() // also if the store panics
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.m.cfg.CommitTimeout)
	defer cancel()
	return s.m.fetchAgain(ctx, id)
}

// isOld reports whether a cache has shown the session and its user, and no commit has
// looked since.
func (s *Session) isOld() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.life.old && s.work.user == s.life.base.user
}
