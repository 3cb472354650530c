package session2

import (
	fifo "container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// running counts for each session the requests under way that have looked at it. A
// session that merely came to hold nothing is ended by the last of them, for another
// one may be about to put something into it. Requests of other processes do not count.
type running struct {
	emptied atomic.Int64 // how many of the sessions hold nothing
	mu      sync.Mutex
	held    map[ID]holders
	most    int // how many there were at once
}

// manyHeld is from how many on the map is made anew.
const manyHeld = 1000

type holders struct {
	n      int
	empty  bool // it was saved with nothing in it
	ending bool // somebody ends it
	news   *news
	told   bool // another process has changed it since the first of them came
}

// set notes what is known of a session. It is called with r.mu held.
func (r *running) set(id ID, h holders) {
	if r.held == nil {
		r.held = make(map[ID]holders)
	}
	if h.n > 0 || h.ending {
		r.held[id] = h
		r.most = max(r.most, len(r.held))
		return
	}
	if delete(r.held, id); len(r.held) == 0 && r.most > manyHeld {
		r.held, r.most = nil, 0 // a map does not shrink
	}
	if h.empty {
		r.emptied.Add(-1)
	}
}

// enter notes a request, before it loads the session. It returns false if somebody
// ends the session: who comes now has one of its own.
func (r *running) enter(id ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.held[id]
	if h.ending {
		return false
	}
	h.n++
	r.set(id, h)
	return true
}

// leave notes that a request has ended. If it was the last one of a session that
// holds nothing, leave returns true, and the session is the caller's to end.
func (r *running) leave(id ID) (end bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.held[id]
	h.n--
	end = h.n == 0 && h.empty && !h.ending
	h.ending = h.ending || end
	r.set(id, h)
	return end
}

// end returns true if no request has the session, but the caller's own if that is
// one of them. The session is then the caller's to end.
func (r *running) end(id ID, own bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.held[id]
	if h.ending || h.n > 1 || h.n == 1 && !own {
		return false
	}
	h.ending = true
	r.set(id, h)
	return true
}

// ended must follow when leave or end has returned true, whatever has come of it.
func (r *running) ended(id ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.held[id]
	h.ending = false
	r.set(id, h)
}

// empty notes that a session was saved with nothing in it.
func (r *running) empty(id ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.held[id]; h.n > 0 && !h.empty {
		h.empty = true
		r.emptied.Add(1)
		r.set(id, h)
	}
}

// isEmpty returns whether it was.
func (r *running) isEmpty(id ID) bool {
	if r.emptied.Load() == 0 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held[id].empty
}

// tell notes what has become of a session, for those of its requests that ask later.
func (r *running) tell(id ID, n *news) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.held[id]; h.n > 0 && (h.news == nil || h.news.ended == nil) {
		h.news = n
		r.set(id, h)
	}
}

// changedElsewhere notes that another process has changed the session, likewise.
func (r *running) changedElsewhere(id ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.held[id]; h.n > 0 {
		h.told = true
		r.set(id, h)
	}
}

// isTold returns whether it was.
func (r *running) isTold(id ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held[id].told
}

// latest returns what tell has noted; nil if there is nothing to tell.
func (r *running) latest(id ID) *news {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held[id].news
}

// A request's context ends with its session. Only a handler that asks for the end of
// its context pays for that: until the first call of Done, it is the server's context.
// From then on, and once the request has a stored session, the manager tells it what
// becomes of the session: at once if this manager does it, and else by a look at the
// record, every Config.WatchEvery.

// live is a request's context from the first call of its Done on.
type live struct {
	ctx    context.Context
	cancel context.CancelCauseFunc

	// These are guarded by Session.mu.
	id     ID       // of the session that Manager.watch has the request for; zero: none
	token  token    // of that session, as the request has it
	secret verifier // and as it is by now, after periodic rotations
	since  instant  // when that one was made
	stale  error    // a login has replaced the token: the context ends when the response begins
}

// news is what has become of a session.
type news struct {
	now   *state // it has another token
	ended error  // there is none any more, and why
	read  bool   // it was read from the store, perhaps while the request's own commit was under way
}

// Done makes the request's context one that ends with the session.
func (x *exchange) Done() <-chan struct{} {
	if l := x.session.alive(); l != nil {
		return l.ctx.Done()
	}
	return x.Context.Done()
}

// Err is non-nil once the server's context has ended, or the session.
func (x *exchange) Err() error {
	if l := x.session.live.Load(); l != nil {
		if err := l.ctx.Err(); err != nil {
			return err
		}
	}
	return x.Context.Err()
}

// parent is the context to look values up in. Package context finds the end of x and
// its cause by such a value, so that a context derived from x costs no goroutine.
func (x *exchange) parent() context.Context {
	if l := x.session.live.Load(); l != nil {
		return l.ctx
	}
	return x.Context
}

// alive returns the request's live context, which it makes at the first call; nil if
// the handler has returned without one.
func (s *Session) alive() *live {
	if l := s.live.Load(); l != nil {
		return l
	}
	l := &live{}
	l.ctx, l.cancel = context.WithCancelCause(s.ctx) // not under the lock: s.ctx may be anybody's
	s.mu.Lock()
	made := !s.over.Load() && s.live.CompareAndSwap(nil, l)
	s.mu.Unlock()
	if !made {
		l.cancel(nil)
		return s.live.Load()
	}
	s.follow()
	return l
}

// beyond returns ctx without the end that the session's end has put to it, if ctx is
// the request's: what its handler then asks of the session is still answered.
func (s *Session) beyond(ctx context.Context) context.Context {
	if x, ok := ctx.(*exchange); ok && &x.session == s {
		return s.ctx
	}
	l := s.live.Load()
	if l != nil && ctx.Err() != nil && l.ctx.Err() != nil && context.Cause(ctx) == context.Cause(l.ctx) {
		return s.ctx
	}
	return ctx
}

// follow has the live context, if there is one, end with the session that the request
// has now: after a load, and after a commit, which may have made another one of it.
func (s *Session) follow() {
	l := s.live.Load()
	if l == nil || !s.loaded.Load() {
		return
	}
	var id ID
	s.mu.Lock()
	if s.life.base.stored() && s.life.base.id != s.left && !s.over.Load() {
		id = s.life.base.id
	}
	if t := s.life.token; t != l.token && s.life.standing != superseded {
		l.token, l.secret, l.since, l.stale = t, t.secret, s.life.base.ident.since, nil
	}
	moved := s.move(l, id)
	s.mu.Unlock()
	if !moved {
		return
	}
	if n := s.m.open.latest(id); n != nil { // from before the request was watched
		s.hear(id, *n)
	}
	if s.m.open.isTold(id) {
		s.m.watch.hurry(id)
	}
}

// move has the request watched for session id, or for none. It is called with s.mu held.
func (s *Session) move(l *live, id ID) bool {
	if id == l.id {
		return false
	}
	if l.id != (ID{}) {
		s.m.watch.leave(l.id, s)
	}
	if l.id = id; id != (ID{}) {
		s.m.watch.enter(id, s)
	}
	return true
}

// unfollow ends the live context: the handler has returned.
func (s *Session) unfollow() {
	l := s.live.Load()
	if l == nil {
		return
	}
	s.mu.Lock()
	s.move(l, ID{})
	s.mu.Unlock()
	l.cancel(nil)
}

// hear ends the live context if the news are that the request's session has ended, or
// that its token is dead.
func (s *Session) hear(id ID, n news) {
	l := s.live.Load()
	if l == nil {
		return
	}
	s.mu.Lock()
	cause := s.cause(l, id, n)
	s.mu.Unlock()
	if cause != nil {
		l.cancel(cause)
	}
}

// cause returns why the live context ends, nil if it does not. It is called with s.mu
// held.
//
// A request that has done it itself has another session, or another token, once its
// commit is over. Before its response has begun a login may be this request's next
// step, or be under way: a login sent twice must find its database. So a login by
// another request ends its context when the response begins.
func (s *Session) cause(l *live, id ID, n news) error {
	base := s.life.base
	switch {
	case s.over.Load() || id == s.left || !base.stored() || base.id != id:
		return nil
	case n.read && s.committing: // it may be this commit's doing: the next look will tell
		return nil
	case n.ended != nil:
		return n.ended
	}
	v := n.now.ident.judge(l.secret, 0, 0) // whenever it was replaced, the request was there before
	switch {
	case v.opens():
		l.secret, l.since = v.secret, n.now.ident.since
		return nil
	case v.standing == unknown && n.now.ident.since <= l.since: // old news, from before the token was made
		return nil
	}
	l.stale = fmt.Errorf("session2: session %v: a login or Renew has replaced the token: %w", id, ErrStale)
	if v.twin && !s.begun {
		return nil
	}
	return l.stale
}

// streams ends the live context if a login has replaced the token before the response
// began.
func (s *Session) streams() {
	l := s.live.Load()
	if l == nil {
		return
	}
	s.mu.Lock()
	stale := l.stale
	s.mu.Unlock()
	if stale != nil {
		l.cancel(stale)
	}
}

// isOver ends the live context of a request whose commit has found its session gone.
func (s *Session) isOver(err error) {
	l := s.live.Load()
	if l == nil {
		return
	}
	s.mu.Lock()
	was := s.move(l, ID{})
	s.mu.Unlock()
	if was {
		l.cancel(err)
	}
}

// leave takes the request from the watch if it has ended its own session by a method of
// the Manager: its response goes on.
func (s *Session) leave(id ID) {
	if !s.loaded.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.base.id != id {
		return
	}
	s.left = id
	if l := s.live.Load(); l != nil {
		s.move(l, ID{})
	}
}

// leaving takes the request whose context ctx is from the watch, if its own session is
// about to end by a method of the Manager: else a look could cut that off half-way.
func (m *Manager) leaving(ctx context.Context, ends func(*state) bool) {
	self, ok := ctx.Value(m).(*Session)
	if !ok || !self.loaded.Load() {
		return
	}
	self.mu.Lock()
	base := self.life.base
	self.mu.Unlock()
	if base.stored() && ends(base) {
		self.leave(base.id)
	}
}

// hasEnded returns the cause of a context whose session has ended; how is 0 if that is
// not known.
func hasEnded(id ID, how EventKind, err error) error {
	if how == 0 {
		return fmt.Errorf("session2: session %v has ended: %w", id, err)
	}
	return fmt.Errorf("session2: session %v has ended (%v): %w", id, how, err)
}

// heard tells the requests of a session that it has ended, if that is the event, but
// for the one whose context ctx is: it has done so itself.
func (m *Manager) heard(ctx context.Context, e Event) {
	switch e.Kind {
	case EventDestroyed, EventRevoked, EventExpired:
		if e.ID == (ID{}) {
			return
		}
		if self, ok := ctx.Value(m).(*Session); ok {
			self.leave(e.ID)
		}
		m.tell(e.ID, news{ended: hasEnded(e.ID, e.Kind, ErrNotFound)})
	}
}

// tell tells the requests of a session what has become of it, those too that will
// ask for their Done after this.
func (m *Manager) tell(id ID, n news) {
	m.open.tell(id, &n)
	m.watch.tell(id, n)
}

// lookAtDue looks at the sessions whose turn it is, one after the other.
func (m *Manager) lookAtDue() {
	if !m.watch.start() {
		return
	}
	for {
		w, more := m.watch.next()
		if more {
			go m.lookAtDue()
		}
		if w == nil {
			return
		}
		m.lookAt(w.id)
		m.watch.again(w)
	}
}

// lookAt reads one record and tells its requests. A store that fails ends nothing: it
// is asked again at the next turn. That it fails is one event until it works again.
func (m *Manager) lookAt(id ID) {
	ctx, cancel := context.WithTimeout(context.Background(), m.cfg.CommitTimeout)
	defer cancel()
	defer func() { // the store or OnEvent has panicked, and there is no request to fail
		if p := recover(); p != nil {
			m.cfg.Logger.Error("session2: a look at a running request's session panicked", "panic", fmt.Sprintf("%T", p))
		}
	}()
	st, err := m.fetch(ctx, id)
	failed := err != nil && !absent(err)
	switch {
	case failed && m.watch.failing.CompareAndSwap(false, true):
		m.emit(ctx, Event{Kind: EventStoreError, ID: id, Err: fmt.Errorf("session2: watch %v: %w", id, err)})
	case failed:
		return
	case errors.Is(err, errExpired):
		m.tell(id, news{ended: hasEnded(id, EventExpired, ErrNotFound), read: true})
	case errors.Is(err, ErrNotFound):
		m.tell(id, news{ended: hasEnded(id, 0, ErrNotFound), read: true})
	case err != nil: // nobody can use it
		m.tell(id, news{ended: hasEnded(id, EventCorrupt, fmt.Errorf("%w: %w", ErrNotFound, err)), read: true})
	default:
		m.watch.tell(id, news{now: st, read: true})
	}
	m.watch.failing.Store(failed)
}

// maxLooks bounds how many sessions are looked at at once.
const maxLooks = 8

// watch knows the requests whose live context ends with their session, and when to look
// at those sessions: each one Config.WatchEvery after its first request came, and again
// after each look. So a request that is shorter than that is never looked after.
type watch struct {
	every   time.Duration // negative: never
	look    func()
	failing atomic.Bool // the latest look did not reach the record

	mu      sync.Mutex
	of      map[ID]*watched
	queue   fifo.List // of *watched, in the order in which they are due
	timer   *time.Timer
	looking int
}

// watched is one session.
type watched struct {
	id    ID
	by    map[*Session]struct{}
	due   time.Time
	place *fifo.Element // in the queue; nil while it is looked at
	again bool          // it has changed since that began
}

// enter has s told about a session.
func (w *watch) enter(id ID, s *Session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	one := w.of[id]
	if one == nil {
		one = &watched{id: id, by: make(map[*Session]struct{}, 1)}
		if w.of == nil {
			w.of = make(map[ID]*watched)
		}
		w.of[id] = one
		w.line(one)
	}
	one.by[s] = struct{}{}
}

// leave is the end of enter.
func (w *watch) leave(id ID, s *Session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	one := w.of[id]
	if delete(one.by, s); len(one.by) > 0 {
		return
	}
	if delete(w.of, id); len(w.of) == 0 {
		w.of = nil // a map does not shrink
	}
	if one.place != nil {
		w.queue.Remove(one.place)
	}
	if w.queue.Len() == 0 && w.timer != nil {
		w.timer.Stop()
	}
}

// line puts a session at the end of the queue. It is called with w.mu held, as arm is.
func (w *watch) line(one *watched) {
	if w.every < 0 {
		return
	}
	one.due = time.Now().Add(w.every)
	one.place = w.queue.PushBack(one)
	if w.queue.Len() == 1 {
		w.arm()
	}
}

// hurry has a session looked at now.
func (w *watch) hurry(id ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch one := w.of[id]; {
	case one == nil || w.every < 0:
	case one.place == nil:
		one.again = true
	default:
		one.due = time.Now()
		w.queue.MoveToFront(one.place)
		w.arm()
	}
}

// arm sets the timer for the head of the queue.
func (w *watch) arm() {
	head := w.queue.Front()
	if head == nil {
		return
	}
	wait := time.Until(head.Value.(*watched).due)
	if w.timer == nil {
		w.timer = time.AfterFunc(wait, w.look)
		return
	}
	w.timer.Reset(wait)
}

// start returns false if enough others are looking.
func (w *watch) start() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.looking == maxLooks {
		return false
	}
	w.looking++
	return true
}

// next takes the head of the queue, if it is due, and returns whether there is work for
// another one. With nil, the caller is done.
func (w *watch) next() (one *watched, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.isDue() {
		w.looking--
		w.arm()
		return nil, false
	}
	one = w.queue.Remove(w.queue.Front()).(*watched)
	one.place = nil
	if more = w.isDue() && w.looking < maxLooks; !more {
		w.arm()
	}
	return one, more
}

// isDue reports whether the head of the queue is.
func (w *watch) isDue() bool {
	head := w.queue.Front()
	return head != nil && !time.Now().Before(head.Value.(*watched).due)
}

// again puts a session back that was looked at, unless its last request has left.
func (w *watch) again(one *watched) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of[one.id] != one {
		return
	}
	w.line(one)
	if one.again {
		one.again, one.due = false, time.Now()
		w.queue.MoveToFront(one.place)
	}
}

// tell tells the requests of a session, with no lock held.
func (w *watch) tell(id ID, n news) {
	w.mu.Lock()
	var told []*Session
	if one := w.of[id]; one != nil {
		told = make([]*Session, 0, len(one.by))
		for s := range one.by {
			told = append(told, s)
		}
	}
	w.mu.Unlock()
	for _, s := range told {
		s.hear(id, n)
	}
}
