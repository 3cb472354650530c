package session2

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"reflect"
	"slices"
	"sync/atomic"
	"time"
)

// Manager drives a Store for the handlers that it wraps. It is safe for concurrent use,
// keeps no session in memory between requests, and needs no closing: the store is its
// owner's to close. It starts no goroutine but short ones, while requests wait for the
// end of their context for longer than Config.WatchEvery, and those that keep the lease
// of [Manager.Exclusive] for handlers that run for long.
type Manager struct {
	store   Store
	near    nearStore // the store, if it is a cache; or nil
	cfg     Config
	handed  handed
	open    running
	watch   watch
	lines   lines
	jars    [2]jar // the cookie, and that over plain HTTP, by the way of a request
	counts  [len(eventNames)]atomic.Uint64
	warned  atomic.Bool // of a secure cookie over plain HTTP
	late    atomic.Bool // of a first look after the response had begun, likewise
	shared  atomic.Bool // of a cookie name that a manager around this one has, too
	planted atomic.Bool // of a handler that tells its client of a token
}

// NewManager returns a Manager over store. It refuses a configuration that is unsafe or
// contradicts itself, and a store without what cfg.Require asks for, with an error that
// names every bad field.
func NewManager(store Store, cfg Config) (*Manager, error) {
	if v := reflect.ValueOf(store); store == nil || v.Kind() == reflect.Pointer && v.IsNil() {
		return nil, errors.New("session2: NewManager: the store is nil")
	}
	if a, ok := store.(interface{ isZero() bool }); ok && a.isZero() {
		return nil, fmt.Errorf("session2: NewManager: a zero %T: make it by its function, as NewMemoryStore", store)
	}
	cfg = cfg.withDefaults()
	have := capabilities(store)
	if err := errors.Join(cfg.check(), cfg.Require.missing(have), cfg.lists(store)); err != nil {
		return nil, err
	}
	if !have.ThreadSafe {
		store = &serialStore{store: store}
	}
	m := &Manager{store: lent(store), cfg: cfg, jars: [2]jar{cfg.Cookie.jar(), cfg.Cookie.plain().jar()}}
	m.near, _ = store.(nearStore)
	m.watch.every, m.watch.look = cfg.WatchEvery, m.lookAtDue
	if m.cfg.ErrorHandler == nil {
		m.cfg.ErrorHandler = m.cfg.defaultErrorHandler
	}
	if m.near != nil {
		m.near.serve(m)
	}
	return m, nil
}

// must panics where there is no manager to use.
func (m *Manager) must() {
	if m == nil {
		panic("session2: the Manager is nil: NewManager returned an error instead of one")
	}
	if m.store == nil {
		panic("session2: a Manager that NewManager has not made")
	}
}

// Open returns the session that token opens, for a transport other than net/http, or a
// new one if token is "". Its changes are stored by [Session.Commit], and
// [Session.Token] is what the client must present next time. The error matches
// [ErrNotFound] if the token opens nothing, and [ErrStale] as well if a login replaced
// it within RenewGrace; any other is the store's.
func (m *Manager) Open(ctx context.Context, token string) (*Session, error) {
	m.must()
	s := &Session{m: m, ctx: context.WithoutCancel(ctx), arrived: microNow(), opened: &token}
	s.load(ctx)
	switch {
	case s.broken != nil:
		return nil, s.broken
	case token != "" && !s.life.base.stored():
		if s.stale != nil {
			return nil, fmt.Errorf("session2: open: %w: %w", ErrNotFound, s.stale)
		}
		return nil, fmt.Errorf("session2: open: %w", ErrNotFound)
	}
	return s, nil
}

// Revoke ends a session from outside, for example from a list of a user's devices. It
// does not ask whose session it is, and an ID is no secret: look first whether an ID
// that a client has sent is among the user's [Manager.Sessions]. A session that is not
// there, or belongs to another realm, is no error.
func (m *Manager) Revoke(ctx context.Context, id ID) error {
	m.leaving(ctx, func(st *state) bool { return st.id == id })
	st, err := m.fetch(ctx, id)
	switch {
	case errors.Is(err, errExpired), errors.Is(err, ErrCorrupt): // nobody can use it, and it is there
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	if err := m.store.Delete(ctx, id); err != nil {
		return err
	}
	e := Event{Kind: EventRevoked, ID: id}
	if st != nil {
		e.User = st.user
	}
	m.emit(ctx, e)
	return nil
}

// Info is what a user may be told of one of their sessions.
type Info struct {
	ID                         ID // for [Manager.Revoke]
	Created, Accessed, Expires time.Time
	RemoteAddr, UserAgent      string // of the request that began it; "" if it is sealed
	Sealed                     bool   // by [Config.Sealed]
}

// Sessions lists the sessions of user in this manager's realm, in no particular order,
// for example for a page of the user's devices (ASVS 7.5.2). Sessions that have
// expired, or that Config.NotBefore or Config.Sealed refuses, are not among them. One
// that cannot be read is yielded as an error matching [ErrCorrupt], and the iteration
// goes on; after any other error it ends. For "", who is nobody, there are none. With a
// store that is neither a [UserStore] nor an [IterStore] the error matches
// [errors.ErrUnsupported].
func (m *Manager) Sessions(ctx context.Context, user string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if user == "" {
			return
		}
		for st, err := range decoded(iterUser(ctx, m.store, userKey(m.cfg.Realm, user))) {
			switch {
			case err != nil:
				if !yield(Info{ID: st.id}, err) || !errors.Is(err, ErrCorrupt) {
					return
				}
			case !m.cfg.shuts(st, microNow()) && !yield(m.info(st), nil):
				return
			}
		}
	}
}

func (m *Manager) info(st *state) Info {
	return Info{ID: st.id, Created: st.created.time(), Accessed: st.accessed.time(),
		Expires: min(st.expires, m.cfg.expiry(st)).time(), RemoteAddr: st.remote, UserAgent: st.agent,
		Sealed: st.box != nil}
}

// RevokeUser ends all sessions of user in this manager's realm, and returns how many it
// has ended, also with an error (ASVS 7.4.2); those count, too, whose time is over and
// which no sweep has deleted yet. A login that commits at the same time is
// either ended or comes after. For "", who is nobody, it ends none. If the request's
// own session is among them, call [Session.Destroy] after it, so that the cookie goes,
// too. With a store that is neither a [UserStore] nor an [IterStore] the error matches
// [errors.ErrUnsupported].
func (m *Manager) RevokeUser(ctx context.Context, user string) (int, error) {
	return m.revokeUser(ctx, user)
}

// RevokeOthers ends all other sessions of the user of s and returns how many it has
// ended (ASVS 7.4.3). It is [Manager.RevokeUser] in everything else. It returns an
// error for a session of another manager, and for one that the request has destroyed or
// signed out, or whose token another request has replaced: such a session does not tell
// whose the others are.
func (m *Manager) RevokeOthers(ctx context.Context, s *Session) (int, error) {
	s.must()
	if s.m != m {
		return 0, errors.New("session2: revoke others: the session is another manager's")
	}
	user, keep := s.User(), s.ID()
	err := cmp.Or(s.unusable(), s.unowned())
	if err == nil && s.isOld() { // somebody else may have signed in by now
		err = s.Check(ctx)
	}
	if err != nil {
		return 0, err // it is not known whose the others are
	}
	return m.revokeUser(ctx, user, keep)
}

// unowned returns why the session does not tell whose it was, if it has been somebody's
// in this request.
func (s *Session) unowned() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.work.user != "":
		return nil
	case s.stale != nil:
		return s.stale
	case s.ends > 0, s.life.base.user != "":
		return errors.New("session2: revoke others: the request has signed its user out: call it before Destroy and SetUser")
	}
	return nil
}

// revokeUser lists the sessions first, for their events, and then has the store
// delete them all in one go, and what has come in between.
func (m *Manager) revokeUser(ctx context.Context, user string, keep ...ID) (int, error) {
	if user == "" {
		return 0, nil
	}
	m.leaving(ctx, func(st *state) bool { return st.user == user && !slices.Contains(keep, st.id) })
	key := userKey(m.cfg.Realm, user)
	var ids []ID
	for rec, err := range iterUser(ctx, m.store, key) {
		switch {
		case errors.Is(err, ErrCorrupt): // nobody can use it
		case errors.Is(err, errors.ErrUnsupported):
			return 0, fmt.Errorf("session2: revoke user: the store is neither a UserStore nor an IterStore: %w", err)
		case err != nil:
			return 0, err
		case !slices.Contains(keep, rec.ID):
			ids = append(ids, rec.ID)
		}
	}
	n, err := m.deleteUser(ctx, key, ids, keep)
	if err != nil {
		if n == 0 && !errors.Is(err, ErrUncertain) {
			return 0, err
		}
		ids = m.gone(ctx, key, ids)
	}
	if m.near != nil {
		m.near.tell(ids...)
	}
	var h hearing
	for _, id := range ids {
		h.hear(Event{Kind: EventRevoked, ID: id, User: user})
	}
	for range n - len(ids) { // began since they were listed: the store does not say which
		h.hear(Event{Kind: EventRevoked, User: user})
	}
	h.report(ctx, m)
	return n, err
}

// gone returns which sessions have ended by a deletion that did not come to its
// end, or does not know how many they are. It returns none if the store does not
// tell, and looks also if the caller's time is over.
func (m *Manager) gone(ctx context.Context, key string, ids []ID) (list []ID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.cfg.CommitTimeout)
	defer cancel()
	left := make(map[ID]bool)
	for rec, err := range iterUser(ctx, m.store, key) {
		if err != nil && !errors.Is(err, ErrCorrupt) {
			return nil
		}
		left[rec.ID] = true
	}
	return slices.DeleteFunc(ids, func(id ID) bool { return left[id] })
}

// deleteUser deletes by the store's index, or one by one where it has none.
func (m *Manager) deleteUser(ctx context.Context, key string, ids, keep []ID) (n int, err error) {
	n, err = deleteUser(ctx, m.store, key, keep...)
	if !errors.Is(err, errors.ErrUnsupported) {
		return n, err
	}
	for _, id := range ids {
		ended, err := m.endIf(ctx, id, func(st *state) bool { return userKey(st.realm, st.user) == key })
		if ended {
			n++
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// RevokeAll ends all sessions of this manager's realm and returns how many it has
// ended, also with an error (ASVS 7.4.5). It reads all records, one at a time, and may
// miss a session that begins meanwhile: [Config.NotBefore] ends all at once, by a
// restart. Sessions that NotBefore or another limit refuses are among them. With a
// store that is no [IterStore] the error matches [errors.ErrUnsupported].
func (m *Manager) RevokeAll(ctx context.Context) (n int, err error) {
	m.must()
	m.leaving(ctx, func(*state) bool { return true })
	for st, err := range decoded(iterAll(ctx, m.store)) {
		switch {
		case errors.Is(err, ErrCorrupt): // nobody can use it, and nobody knows whose it is
			continue
		case err != nil:
			return n, err
		case st.realm != m.cfg.Realm, st.isTurn():
			continue
		}
		if err := m.store.Delete(ctx, st.id); err != nil {
			return n, err
		}
		n++
		m.emit(ctx, Event{Kind: EventRevoked, ID: st.id, User: st.user})
	}
	return n, nil
}

// endIf ends a session of which is reports true, by a Save that finds it as it was
// then: it may have become another user's. It returns whether it did.
func (m *Manager) endIf(ctx context.Context, id ID, is func(*state) bool) (bool, error) {
	for {
		st, err := m.fetch(ctx, id)
		switch {
		case absent(err), err == nil && !is(st):
			return false, nil
		case err != nil:
			return false, err
		}
		a := attempt{cfg: &m.cfg, life: life{base: st}}
		rec, err := a.record(&plan{next: st.clone(), todo: doEnd}, newVersion(), microNow())
		if err == nil {
			err = m.store.Save(ctx, rec, st.version)
		}
		switch {
		case err == nil:
			return true, m.store.Delete(ctx, id)
		case !unsettled(err) && !absent(err):
			return false, err
		}
	}
}

// decoded takes the records of a list apart. With an error, of the list or of a record,
// the state has the record's ID and nothing else.
func decoded(records iter.Seq2[Record, error]) iter.Seq2[*state, error] {
	return func(yield func(*state, error) bool) {
		for rec, err := range records {
			var st *state
			if err == nil {
				st, err = decodeRecord(rec)
			}
			if err != nil {
				st = &state{id: rec.ID}
			}
			if !yield(st, err) {
				return
			}
		}
	}
}

// iterUser lists a user's records by the store's index, or by looking at all
// of them where it has none.
func iterUser(ctx context.Context, store Store, user string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if iterIndex(ctx, store, user, yield) {
			return
		}
		for rec, err := range iterAll(ctx, store) {
			if (err != nil || rec.User == user) && !yield(rec, err) {
				return
			}
		}
	}
}

// iterIndex lists them by the store's index. It reports false if there is none.
func iterIndex(ctx context.Context, store Store, user string, yield func(Record, error) bool) bool {
	u, ok := store.(UserStore)
	if !ok {
		return false
	}
	for rec, err := range u.IterUser(ctx, user) {
		if errors.Is(err, errors.ErrUnsupported) {
			return false // a wrapper's, around a store without one
		}
		if !yield(rec, err) {
			break
		}
	}
	return true
}

// iterAll lists all records of a store that can.
func iterAll(ctx context.Context, store Store) iter.Seq2[Record, error] {
	if it, ok := store.(IterStore); ok {
		return it.Iter(ctx)
	}
	return func(yield func(Record, error) bool) {
		yield(Record{}, fmt.Errorf("session2: iter: %w", errors.ErrUnsupported))
	}
}

// Cleanup deletes what has expired, at once and then once in the interval every, until
// ctx ends. It blocks: run it in a goroutine of your own. It returns ctx's error, or at
// once an error matching [errors.ErrUnsupported] if the store is no [DeleteOldStore],
// or an error if every is less than a millisecond. A store that fails is an event, and is asked
// again at the next turn. Several processes may run it.
func (m *Manager) Cleanup(ctx context.Context, every time.Duration) error {
	err := noUnit("cleanup", every)
	if every <= 0 {
		err = fmt.Errorf("session2: cleanup: an interval of %v: it must be a millisecond at least", every)
	}
	if err != nil {
		return m.noCleanup(ctx, err)
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		_, err := deleteOld(ctx, m.store, math.MaxInt64) // no age: what is expired says so itself
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errors.ErrUnsupported):
			return m.noCleanup(ctx, err)
		case err != nil:
			m.emit(ctx, Event{Kind: EventStoreError, Err: err})
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// noCleanup logs why nothing is swept: who runs Cleanup in a goroutine may not look
// at what it returns.
func (m *Manager) noCleanup(ctx context.Context, err error) error {
	m.cfg.Logger.ErrorContext(ctx, "session2: nothing is swept", "err", err)
	return err
}

// deleteOld sweeps a store that can.
func deleteOld(ctx context.Context, store Store, age time.Duration) (int, error) {
	if d, ok := store.(DeleteOldStore); ok {
		return d.DeleteOld(ctx, age)
	}
	return 0, fmt.Errorf("session2: delete old: %w", errors.ErrUnsupported)
}

// deleteUser deletes a user's records by the index of a store that has one.
func deleteUser(ctx context.Context, store Store, user string, keep ...ID) (int, error) {
	if u, ok := store.(UserStore); ok {
		return u.DeleteUser(ctx, user, keep...)
	}
	return 0, fmt.Errorf("session2: delete user: %w", errors.ErrUnsupported)
}

// touch notes an access, where the store can.
func touch(ctx context.Context, store Store, id ID, accessed, expires time.Time) error {
	if t, ok := store.(TouchStore); ok {
		return t.Touch(ctx, id, accessed, expires)
	}
	return fmt.Errorf("session2: touch: %w", errors.ErrUnsupported)
}
