package session2

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// maxTokens bounds the tokens of one request that are looked up. Of more, the
// first half and the last half count: where in a request a cookie stands is up
// to the browser and to whoever may set cookies beside ours.
const maxTokens = 8

var (
	errAmbiguous    = errors.New("several cookies open different sessions")
	errLoadPanicked = errors.New("session2: load: the store panicked")
)

// maxRemote bounds what is kept of a request's address, in bytes: what stands in front of
// the manager may have put a header into it.
const maxRemote = 256

// newState returns a session that holds nothing.
func (s *Session) newState() *state {
	st := &state{created: s.arrived, accessed: s.arrived}
	if s.request != nil {
		st.remote = s.request.RemoteAddr[:min(len(s.request.RemoteAddr), maxRemote)]
		st.agent = userAgent(s.request)
	}
	return st
}

// userAgent returns what is kept of a request's User-Agent.
func userAgent(r *http.Request) string {
	agent := r.UserAgent()
	return agent[:min(len(agent), maxAgent)]
}

// newLife returns a session that holds nothing, with a token of its own.
func (s *Session) newLife() life {
	t := newToken()
	st := s.newState()
	st.id = t.id
	return life{base: st, token: t, shown: t.secret, standing: current}
}

// hearing collects events, which are reported when no lock is held: what the
// application does with them may use the session.
type hearing []Event

func (h *hearing) hear(e Event) { *h = append(*h, e) }

// again forgets what is to be heard anew, and not what was done.
func (h *hearing) again() {
	*h = slices.DeleteFunc(*h, func(e Event) bool { return e.Kind != EventReuse && e.Kind != EventDestroyed })
}

// of returns the first event of a kind for a session; nil if there is none.
func (h hearing) of(kind EventKind, id ID) *Event {
	for i := range h {
		if h[i].Kind == kind && h[i].ID == id {
			return &h[i]
		}
	}
	return nil
}

// report tells of all that was heard, also if the application's function panics at
// one of it.
func (h hearing) report(ctx context.Context, m *Manager) {
	if len(h) == 0 {
		return
	}
	told := 0
	defer func() { h[told:].report(ctx, m) }()
	for _, e := range h {
		told++
		m.emit(ctx, e)
	}
}

// eventContext is what Config.OnEvent is given: the handler's context, by which
// it finds the session.
func (s *Session) eventContext() context.Context {
	if s.request != nil {
		return s.request.Context()
	}
	return s.ctx
}

// load finds the session that the request's tokens open. It runs once; if it
// panics, the session cannot be used any more.
func (s *Session) load(ctx context.Context) {
	var h hearing
	if s.loadOnce(ctx, &h) {
		s.follow()
		s.warnLateLook()
		h.report(s.eventContext(), s.m)
	}
}

func (s *Session) loadOnce(ctx context.Context, h *hearing) bool {
	s.loading.Lock()
	defer s.loading.Unlock()
	if s.loaded.Load() {
		return false
	}
	var found found
	err := errLoadPanicked
	defer func() { s.take(found, err) }()
	found, err = s.find(ctx, h)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) && s.request != nil {
		// The client has gone. What its handler does is done all the same.
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.m.cfg.CommitTimeout)
		defer cancel()
		found, err = s.find(late, h)
	}
	return true
}

// found is what a request's tokens open.
type found struct {
	life   life     // the one session, or one that the request's token was replaced in
	opened []*state // all of them, if more than one; or one that another request is ending
	barred []*state // those that they would open, had these not expired, or were they sealed as configured
	passed []*state // those that they have opened until a moment ago, and whose user is the same since
}

// add takes in what the tokens of one record are.
func (f *found) add(l life) {
	one := f.life.base
	if l.sameUser != nil && !l.barred {
		f.passed = append(f.passed, l.sameUser)
	}
	switch open := l.standing == current || l.standing == replaced; {
	case l.barred:
		if open {
			f.barred = append(f.barred, l.base)
		}
	case open && l.ending: // it is not this request's to use, but to end
		f.opened = append(f.opened, l.base)
	case open && one == nil && f.opened == nil:
		f.life = l
	case open && f.opened == nil:
		f.life, f.opened = life{}, []*state{one, l.base}
	case open:
		f.opened = append(f.opened, l.base)
	case l.standing == superseded && one == nil && f.opened == nil:
		// Remembered, so that its request leaves the newer cookie alone.
		f.life = life{
			token: token{id: l.token.id}, shown: l.shown, presented: true,
			standing: superseded, sameUser: l.sameUser,
		}
	}
}

// take makes what was found the session.
func (s *Session) take(f found, err error) {
	l := f.life
	if l.base == nil {
		l.base = s.newState()
		l.base.id = l.token.id
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.working = &working{
		life: l, work: l.base, others: f.opened, barred: f.barred, passed: f.passed, broken: err, unread: err != nil,
	}
	s.looks.keys.rows, s.log = s.room.looks[:0], s.room.log[:0]
	if l.standing == superseded {
		s.stale = fmt.Errorf("session2: load %v: %w", l.token.id, ErrStale)
	}
	s.loaded.Store(true)
}

// tokens appends to list the well-formed tokens that the request presents, each once.
func (s *Session) tokens(list []token) (_ []token, malformed bool) {
	add := func(text string) {
		t, ok := parseToken(text)
		if malformed = malformed || !ok; ok {
			list = append(list, t)
		}
	}
	if s.opened == nil && s.way.cookie() {
		if t, ok := onlyToken(s.request.Header["Cookie"], s.jar().Name); ok {
			return append(list, t), false
		}
	}
	s.presented(add)
	if len(list) > 1 {
		list = once(list)
	}
	if n := len(list); n > maxTokens {
		list = append(list[:maxTokens/2:maxTokens/2], list[n-maxTokens/2:]...)
		malformed = true
	}
	return list, malformed
}

// once drops the tokens that are there before: a request may bring thousands.
func once(list []token) []token {
	seen := make(map[token]bool, len(list))
	return slices.DeleteFunc(list, func(t token) bool {
		again := seen[t]
		seen[t] = true
		return again
	})
}

// onlyToken returns the token of the header that nearly all browsers send: one line, in
// which the cookie's name stands once, before a well-formed token. It is what
// Request.CookiesNamed would find.
func onlyToken(lines []string, name string) (t token, ok bool) {
	if len(lines) != 1 {
		return token{}, false
	}
	before, after, ok := strings.Cut(lines[0], name)
	if !ok || before != "" && !strings.HasSuffix(before, "; ") || len(after) <= tokenLen || after[0] != '=' {
		return token{}, false
	}
	text, rest := after[1:1+tokenLen], after[1+tokenLen:]
	if rest != "" && rest[0] != ';' || strings.Contains(rest, name) {
		return token{}, false
	}
	return parseToken(text)
}

// find looks up every token presented. A cookie may have been tossed in beside
// ours by a sibling domain, or be left from an earlier release, so none is
// preferred for its place, and all tokens of one record are judged together.
func (s *Session) find(ctx context.Context, h *hearing) (f found, err error) {
	h.again()
	var room [2]token // enough for nearly all
	list, malformed := s.tokens(room[:0])
	if malformed {
		h.hear(Event{Kind: EventMalformed})
	}
	for i, t := range list {
		if slices.ContainsFunc(list[:i], func(earlier token) bool { return earlier.id == t.id }) {
			continue
		}
		l, err := s.lookUp(ctx, h, t.id, list[i:], len(list) == 1)
		if err != nil {
			return found{}, err
		}
		f.add(l)
	}
	if len(f.opened) > 1 {
		h.hear(Event{Kind: EventMalformed, Err: errAmbiguous})
	}
	if s.m.cfg.Anomalies {
		s.anomaly(h, f.life.base)
	}
	return f, nil
}

// lookUp loads a record and judges the tokens presented for it. The best of them
// counts: whoever has the current one is no thief. An error is the store's; a
// token that opens nothing is none. If it is the only one, a cache may answer.
func (s *Session) lookUp(ctx context.Context, h *hearing, id ID, tokens []token, only bool) (best life, err error) {
	ending := !s.hold(id)
	st, best, err := s.first(ctx, id, tokens, only)
	live, err := s.m.readable(ctx, h, id, st, err)
	if st == nil {
		return life{}, err
	}
	best.ending = ending
	if !live {
		best.barred = true
		return best, nil
	}
	switch best.standing {
	case unknown:
		h.hear(Event{Kind: EventUnknown, ID: id})
	case superseded:
		h.hear(Event{Kind: EventUnknown, ID: id, Err: ErrStale})
	case reused:
		return life{}, s.m.reuse(ctx, h, st, s.way)
	default:
		if err := s.m.unseal(st, best.token.secret); err != nil {
			h.hear(Event{Kind: EventCorrupt, ID: id, Err: err})
			best.barred = true
		}
	}
	return best, nil
}

// best returns the session by the best of the tokens presented for a record.
func (s *Session) best(st *state, tokens []token) (best life) {
	for _, t := range tokens {
		if t.id != st.id {
			continue
		}
		v := st.ident.judge(t.secret, s.arrived, s.m.cfg.RenewGrace)
		if v.standing == reused && s.request == nil && s.m.handed.has(t.secret.hash()) {
			v.standing = replaced // a handler that is still running has handed it out
		}
		if v.standing > best.standing || best.base == nil {
			best = life{
				base: st, token: token{id: st.id, secret: v.secret}, shown: t.secret, presented: true,
				standing: v.standing, unseen: v.unseen,
			}
			if v.sameUser {
				best.sameUser = st
			}
		}
	}
	return best
}

// judge says what the request's token is to a record that it loads again. One that was
// replaced more often than the record remembers is judged by the latest successor that
// the request has learned of, by Check or as a stream. Nobody has presented that one.
func (s *Session) judge(st *state, shown verifier) verdict {
	grace := s.m.cfg.RenewGrace
	if v := st.ident.judge(shown, s.arrived, grace); v.standing != unknown {
		return v
	}
	s.mu.Lock()
	known := s.known
	if l := s.live.Load(); l != nil && l.id == st.id {
		known = l.secret
	}
	s.mu.Unlock()
	v := st.ident.judge(known, s.arrived, grace)
	if v.standing == current {
		v.standing = replaced
	}
	v.unseen, v.twin = false, false
	return v
}

// errExpired is the absence of a session whose record is still there.
var errExpired = fmt.Errorf("expired: %w", ErrNotFound)

// fetch loads a record and takes it apart. With errExpired there is a state.
func (m *Manager) fetch(ctx context.Context, id ID) (*state, error) {
	rec, err := m.store.Load(ctx, id)
	if err != nil {
		return nil, err
	}
	st, err := decodeRecord(rec)
	if err != nil {
		return nil, err
	}
	return m.admit(st)
}

// admit is the second half of fetch: it tells what is a session of this manager.
func (m *Manager) admit(st *state) (*state, error) {
	switch {
	case st.realm != m.cfg.Realm:
		return nil, fmt.Errorf("of another realm: %w", ErrNotFound)
	case st.isTurn():
		return nil, fmt.Errorf("no session: %w", ErrNotFound)
	case m.cfg.expired(st, microNow()):
		return st, errExpired
	}
	return st, nil
}

// fetchAgain is fetch that asks until the store answers, or ctx ends.
func (m *Manager) fetchAgain(ctx context.Context, id ID) (st *state, err error) {
	again(ctx, func() bool {
		st, err = m.fetch(ctx, id)
		return err == nil || absent(err) || refused(err)
	})
	return st, err
}

// absent reports whether a fetch says that there is no session to be had, and
// not that the store failed.
func absent(err error) bool { return errors.Is(err, ErrNotFound) || errors.Is(err, ErrCorrupt) }

// readable takes what a fetch for a token presented has returned: that its session is not
// there, has expired or cannot be read is an event, and no error. With one that has expired
// there is a state, and it is not live.
func (m *Manager) readable(ctx context.Context, h *hearing, id ID, st *state, err error) (live bool, _ error) {
	if err == nil {
		return true, nil
	}
	e := Event{Kind: EventStoreError, ID: id, Err: err}
	switch {
	case errors.Is(err, errExpired):
		e = Event{Kind: EventExpired, ID: id, User: st.user}
	case errors.Is(err, ErrNotFound):
		e = Event{Kind: EventUnknown, ID: id}
		if reuse := h.of(EventReuse, id); reuse != nil { // this request has ended it; the answer may have been lost
			if h.of(EventDestroyed, id) != nil {
				return false, nil
			}
			e = Event{Kind: EventDestroyed, ID: id, User: reuse.User}
		}
	case errors.Is(err, ErrCorrupt):
		e.Kind = EventCorrupt
	}
	if e.Kind != EventStoreError || ctx.Err() == nil { // that a client has gone is no failure of the store
		h.hear(e)
	}
	if absent(err) {
		err = nil
	}
	return false, err
}

// used notes an access to a session, if one is due. A store without Touch saves
// the record, unless others do at the same time; secret is the current verifier. It is
// a pointer, for the stack of a panic in the store shows the bytes of what is none.
func (m *Manager) used(ctx context.Context, st *state, secret *verifier) error {
	now := microNow()
	a := attempt{cfg: &m.cfg, life: life{base: st}}
	if !a.accessed(st, now) {
		return nil
	}
	next := st.clone()
	next.accessed = now
	err := touch(ctx, m.store, st.id, now.time(), m.cfg.expiry(next).time())
	switch {
	case !errors.Is(err, errors.ErrUnsupported):
		return err
	case st.box != nil: // nobody has the key any more
		return nil
	}
	rec, err := a.record(&plan{next: next, token: token{st.id, *secret}, todo: doSave}, newVersion(), now)
	if err == nil {
		err = m.store.Save(ctx, rec, st.version)
	}
	if unsettled(err) {
		return nil
	}
	return err
}

// reuse answers a token whose time is over: two have the cookie, and which one
// is the thief cannot be told. So the session ends, unless it came by a way by which no
// client is told a new one.
func (m *Manager) reuse(ctx context.Context, h *hearing, st *state, by way) error {
	if h.of(EventReuse, st.id) == nil {
		h.hear(Event{Kind: EventReuse, ID: st.id, User: st.user})
	}
	if by == byOther {
		return nil
	}
	if m.cfg.KeepOnReuse {
		return nil
	}
	if err := m.store.Delete(ctx, st.id); err != nil {
		h.hear(Event{Kind: EventStoreError, ID: st.id, User: st.user, Err: err})
		return err
	}
	h.hear(Event{Kind: EventDestroyed, ID: st.id, User: st.user})
	return nil
}
