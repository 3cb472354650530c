package session2

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// maxCandidates bounds the cookies of one name that are looked up.
const maxCandidates = 4

var errAmbiguous = errors.New("several cookies open different sessions")

// newState returns a session that holds nothing.
func (s *Session) newState() *state {
	now := s.arrived.UTC().Truncate(time.Microsecond)
	st := &state{created: now, accessed: now}
	if s.request != nil {
		st.remote = s.request.RemoteAddr
		st.agent = s.request.UserAgent()
		st.agent = st.agent[:min(len(st.agent), maxAgent)]
	}
	return st
}

// newLife returns a session that holds nothing, with a token of its own.
func (s *Session) newLife() life {
	t := newToken()
	st := s.newState()
	st.id = t.id
	return life{base: st, token: t, shown: t.secret, standing: current}
}

// load finds the session that the request's cookie opens. It runs once.
func (s *Session) load(ctx context.Context) {
	lives, err := s.candidates(ctx)
	if err != nil && ctx.Err() != nil && s.request != nil { // the client has gone: what its handler does is done all the same
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.m.cfg.CommitTimeout)
		defer cancel()
		lives, err = s.candidates(late)
	}
	l, ambiguous := choose(lives)
	if ambiguous {
		s.m.emit(ctx, Event{Kind: EventMalformed, Err: errAmbiguous})
	}
	if l.base == nil {
		l.base = s.newState()
		l.base.id = l.token.id
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = firstError(s.broken, err)
	if l.standing == superseded {
		s.note = fmt.Errorf("session2: load %v: %w", l.token.id, ErrStale)
	}
	s.life, s.work = l, l.base
}

// tokens returns the well-formed tokens that the request presents, each once.
func (s *Session) tokens() (list []token, malformed bool) {
	add := func(text string) {
		t, ok := parseToken(text)
		if !ok {
			malformed = true
			return
		}
		if !slices.Contains(list, t) {
			list = append(list, t)
		}
	}
	if s.request == nil {
		if s.opened != "" {
			add(s.opened)
		}
		return list, malformed
	}
	for _, c := range s.request.CookiesNamed(s.m.cfg.Cookie.Name) {
		add(c.Value)
	}
	return list, malformed
}

// candidates looks up every token presented. A cookie may have been tossed in
// beside ours by a sibling domain, so none is preferred for its place.
func (s *Session) candidates(ctx context.Context) ([]life, error) {
	list, malformed := s.tokens()
	if malformed || len(list) > maxCandidates {
		s.m.emit(ctx, Event{Kind: EventMalformed})
	}
	if len(list) > maxCandidates {
		return nil, nil
	}
	var lives []life
	for _, t := range list {
		l, err := s.m.lookUp(ctx, t, s.arrived)
		if err != nil {
			return nil, err
		}
		lives = append(lives, l)
	}
	return lives, nil
}

// choose picks the one session that the tokens open. Two that open different
// sessions open none. A token that a login has replaced opens nothing, but is
// remembered, so that its request leaves the newer cookie alone.
func choose(lives []life) (chosen life, ambiguous bool) {
	for _, l := range lives {
		open := l.standing == current || l.standing == replaced
		switch {
		case !open && (l.standing != superseded || chosen.standing != unknown):
		case !open:
			chosen = life{token: token{id: l.token.id}, shown: l.shown, standing: superseded}
		case chosen.base != nil && chosen.base.id != l.base.id:
			return life{}, true
		case chosen.base == nil || l.standing == current:
			chosen = l
		}
	}
	return chosen, false
}

// lookUp loads the record that a token names and judges the token by it. An
// error is the store's; a token that opens nothing is none.
func (m *Manager) lookUp(ctx context.Context, t token, arrived time.Time) (life, error) {
	st, err := m.read(ctx, t.id)
	if st == nil {
		return life{}, err
	}
	v := st.ident.judge(t.secret, arrived, m.cfg.RenewGrace)
	l := life{base: st, token: token{t.id, v.secret}, shown: t.secret, standing: v.standing, unseen: v.unseen}
	switch v.standing {
	case unknown:
		m.emit(ctx, Event{Kind: EventUnknown, ID: t.id})
	case superseded:
		m.emit(ctx, Event{Kind: EventUnknown, ID: t.id, Err: ErrStale})
	case reused:
		return life{}, m.reuse(ctx, st)
	}
	return l, nil
}

// errExpired is the absence of a session whose record is still there.
var errExpired = fmt.Errorf("expired: %w", ErrNotFound)

// fetch loads a record and takes it apart.
func (m *Manager) fetch(ctx context.Context, id ID) (*state, error) {
	rec, err := m.store.Load(ctx, id)
	if err != nil {
		return nil, err
	}
	st, err := decodeRecord(rec)
	if err == nil && m.cfg.expired(st, time.Now()) {
		err = errExpired
	}
	return st, err
}

// absent reports whether a fetch says that there is no session to be had, and
// not that the store failed.
func absent(err error) bool { return errors.Is(err, ErrNotFound) || errors.Is(err, ErrCorrupt) }

// read is fetch for a token presented: that its session is not there, has
// expired or cannot be read is an event, and no error.
func (m *Manager) read(ctx context.Context, id ID) (*state, error) {
	st, err := m.fetch(ctx, id)
	if err == nil {
		return st, nil
	}
	e := Event{Kind: EventStoreError, ID: id, Err: err}
	switch {
	case errors.Is(err, errExpired):
		e = Event{Kind: EventExpired, ID: id, User: st.user}
	case errors.Is(err, ErrNotFound):
		e = Event{Kind: EventUnknown, ID: id}
	case errors.Is(err, ErrCorrupt):
		e.Kind = EventCorrupt
	}
	if e.Kind != EventStoreError || ctx.Err() == nil { // that a client has gone is no failure of the store
		m.emit(ctx, e)
	}
	if absent(err) {
		err = nil
	}
	return nil, err
}

// reuse answers a token whose time is over: two have the cookie, and which one
// is the thief cannot be told. So the session ends.
func (m *Manager) reuse(ctx context.Context, st *state) error {
	m.emit(ctx, Event{Kind: EventReuse, ID: st.id, User: st.user})
	if m.cfg.KeepOnReuse {
		return nil
	}
	if err := m.store.Delete(ctx, st.id); err != nil {
		m.emit(ctx, Event{Kind: EventStoreError, ID: st.id, User: st.user, Err: err})
		return err
	}
	m.emit(ctx, Event{Kind: EventDestroyed, ID: st.id, User: st.user})
	return nil
}

// limit is when the session ends however much it is used.
func (c *Config) limit(st *state) time.Time {
	return st.created.Add(or(st.lifetime, c.Lifetime))
}

// expiry is when it ends if it is not used after st.accessed.
func (c *Config) expiry(st *state) time.Time {
	limit := c.limit(st)
	if c.IdleTimeout > 0 {
		if idle := st.accessed.Add(c.IdleTimeout); idle.Before(limit) {
			return idle
		}
	}
	return limit
}

// expired reports whether the session's time is over, by what is stored and by
// what is configured now, whichever is less.
func (c *Config) expired(st *state, now time.Time) bool {
	return !now.Before(st.expires) || !now.Before(c.expiry(st))
}
