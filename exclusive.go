package session2

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// errReplaced says that a request's token does not open its session any more.
var errReplaced = errors.New("its token was replaced")

// errTurnLost is a commit's of a request that no longer has the session for itself.
var errTurnLost = fmt.Errorf("its lease (Manager.Exclusive) had run out, and was not renewed in time; "+
	"another request has had the session since: %w", ErrConflict)

// Exclusive is [Manager.Wrap] for handlers that must not run at the same time for one
// session, in whatever process: a request waits for its turn, in the order in which
// they came, and finds all that those before it have stored. It may also be used inside
// of Wrap, for some handlers of many; Exclusive inside of Exclusive does nothing more.
// A request that opens no stored session runs at once. Requests that are not in
// Exclusive are not kept out, and what they change is merged as ever: if one of them
// changes a key that the handler has read and then changes, it is the handler that is
// refused, whatever it has done elsewhere by then. So put all handlers that change such
// a key into Exclusive, too; and what must not be done twice elsewhere, such as a
// payment, begin with a [Session.Commit] of what is about to be done.
//
// A handler must not wait for another request that is in Exclusive with the same session.
//
// Nothing is locked while the handler runs, and no database connection is held. The
// request has a lease of 10 s in the record, which is renewed while the handler runs. It
// is given back just before the first byte of the response, with the changes;
// [Session.Commit] keeps it. So a process that dies delays others by 10 s and no longer.
// If a process stands still for so long, another request may have the session
// meanwhile: then nothing that the first one has changed since is stored. Its commit
// fails with an error that matches ErrConflict, and the error handler answers (503). The
// clocks of machines that share a store should agree to a few seconds: what they differ
// by is taken from the lease.
//
// A request waits for as long as its context allows. If that ends, or if the store fails
// meanwhile, the error handler answers instead of next. If the session ends while a
// request waits, or its token is replaced by a login, the request is nobody's, as if it
// had come just now; one that has looked at its session before, inside of Wrap, is
// answered by the error handler, with ErrStale. What such a request has looked at may be
// old by the time of its turn: if it sets a key that it read before and that another has
// changed meanwhile, it is refused with ErrLostUpdate. Other changes that it has made are
// applied to the session as it is then.
//
// An uncontended request costs a Load, a Save to take the lease, and the Save of its
// commit, which is due even if nothing was changed. A [Session.Passive] one costs a Load
// more.
func (m *Manager) Exclusive(next http.Handler) http.Handler {
	m.must()
	if next == nil {
		panic("session2: Exclusive: the handler is nil")
	}
	return m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := m.Session(r).takeTurn(r.Context()); err != nil {
			m.Session(r).noTurn(err)
			return
		}
		next.ServeHTTP(w, r)
	}))
}

// noTurn has the error handler answer.
func (s *Session) noTurn(err error) {
	s.mu.Lock()
	s.broken = err
	begun := s.begun
	s.mu.Unlock()
	if begun { // there is no status left to say it: the response is cut off
		panic(http.ErrAbortHandler)
	}
}

// takeTurn returns nil when the request has its session for itself, or has none that
// others could have.
func (s *Session) takeTurn(ctx context.Context) error {
	ctx = s.beyond(ctx) // who waits while the session ends is nobody, and is served
	for looked := s.loaded.Load(); ; {
		s.look()
		base, err, has := s.life.base, s.broken, s.claim != nil
		s.mu.Unlock()
		if err != nil || has || !base.stored() {
			return err
		}
		err = s.takeTurnOf(ctx, base)
		if own := s.beyond(ctx); err != nil && own != ctx && own.Err() == nil { // a context made of the request's
			ctx, err = own, errReplaced // has ended with the session
		}
		switch {
		case err == nil:
			return nil
		case !shut(err):
			if ctx.Err() == nil && !errors.Is(err, errOver) {
				s.m.emit(s.eventContext(), Event{Kind: EventStoreError, ID: base.id, User: base.user, Err: err})
			}
			return fmt.Errorf("session2: exclusive %v: %w", base.id, err)
		case looked:
			return fmt.Errorf("session2: exclusive %v: the session was looked at before its turn: %w: %w",
				base.id, ErrStale, err)
		}
		s.loadAgain(ctx)
	}
}

// loadAgain loads the session as if nobody had looked at it.
func (s *Session) loadAgain(ctx context.Context) {
	var h hearing
	s.take(s.find(ctx, &h))
	h.report(s.eventContext(), s.m)
}

// shut reports whether err says that the request's token does not open the session
// any more.
func shut(err error) bool { return absent(err) || errors.Is(err, errReplaced) }

// takeTurnOf is takeTurn for the session that was loaded as base.
func (s *Session) takeTurnOf(ctx context.Context, base *state) error {
	c := &claim{m: s.m, id: base.id, number: uint64(newVersion())}
	s.mu.Lock()
	shown, first := s.life.shown, base
	if s.life.old {
		first = nil
	}
	s.mu.Unlock()
	c.judge = func(st *state) verdict {
		v := st.ident.judge(shown, s.arrived, s.m.cfg.RenewGrace)
		if v.opens() {
			return v
		}
		s.mu.Lock()
		own := s.life.shown // by now: the request's own login has replaced the other
		s.mu.Unlock()
		return st.ident.judge(own, s.arrived, s.m.cfg.RenewGrace)
	}
	err := errLoadPanicked
	defer func() {
		if err != nil { // a store that has failed is not asked again: the turn runs out
			c.end(ctx, !shut(err) && !errors.Is(err, errOver) && ctx.Err() == nil)
		}
	}()
	var st *state
	if st, err = c.wait(ctx, first); err == nil {
		err = s.hasTurn(c, base, st, c.judge(st))
	}
	return err
}

// hasTurn makes the session, which was loaded as base, what it is at the request's turn.
func (s *Session) hasTurn(c *claim, base, st *state, v verdict) error {
	s.mu.Lock()
	if s.over.Load() { // a goroutine of the request has outlived it, as in http.TimeoutHandler
		s.mu.Unlock()
		return errOver
	}
	if l := &s.life; l.base == base {
		l.base, l.token.secret, l.standing, l.unseen, l.old = st, v.secret, v.standing, v.unseen, false
		if len(s.log) == 0 {
			s.work = st
		}
	}
	c.keep(context.WithoutCancel(s.ctx))
	s.claim = c
	s.gen++
	s.mu.Unlock()
	s.rework()
	return nil
}

// endTurn lets the next request have the session, where the commit has not done so. A
// store that has failed is not asked again: then the lease runs out.
func (s *Session) endTurn() {
	if !s.loaded.Load() {
		return
	}
	s.mu.Lock()
	c := s.claim
	if c == nil {
		s.mu.Unlock()
		return
	}
	s.claim = nil
	down := s.neglected || s.broken != nil && failedByStore(s.broken) &&
		!errors.Is(s.broken, ErrStale) && !errors.Is(s.broken, errLate)
	s.mu.Unlock()
	if err := c.end(s.ctx, down); err != nil {
		s.m.emit(s.eventContext(), Event{Kind: EventStoreError, ID: c.id, Err: err})
	}
}

// claim is what a request has to do with the turns of its session.
type claim struct {
	m      *Manager
	id     ID
	number uint64               // of its turn
	judge  func(*state) verdict // of the request's token
	line   chan struct{}        // its place among the requests of this manager
	sent   bool                 // the turn may be in the record
	left   atomic.Bool          // a commit has given it back

	timer  *time.Timer // begins to renew the turn
	cancel context.CancelFunc
	ended  chan struct{} // closed when the timer's function has returned
}

// lost reports whether st, a newer record, shows that others have had the session.
func (c *claim) lost(st *state) bool {
	return c != nil && st.id == c.id && st.turns.place(c.number) != 0
}

// leave takes the turn out of st. It returns false if it is not there.
func (c *claim) leave(st *state) bool {
	if st.id != c.id || st.turns.place(c.number) < 0 {
		return false
	}
	st.turns = st.turns.without(c.number)
	return true
}

// wait waits for the turn, first in this process and then in the record, and returns
// the record as of then. It begins with st, which was loaded by the request, or with nil.
func (c *claim) wait(ctx context.Context, st *state) (*state, error) {
	line, first := c.m.lines.join(c.id)
	c.line = line
	if !first {
		select {
		case <-line:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		st = nil // who was before has changed it
	}
	for try := 1; ; try++ {
		var err error
		if st == nil {
			st, err = c.load(ctx)
		}
		if err == nil && !c.judge(st).opens() {
			err = errReplaced
		}
		if err != nil {
			return nil, err
		}
		wait := pause(try, ErrConflict) // and look again
		switch st, err = c.enter(ctx, st); {
		case err == nil && st.turns.place(c.number) == 0:
			return st, nil
		case err == nil:
			wait = pollPause(try, st.turns.place(c.number))
		case !unsettled(err):
			return nil, err
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
		st = nil
	}
}

// pollPause is how long to wait before the record is looked at again: the longer, the
// more others are before. With -1 there is no room yet.
func pollPause(try, place int) time.Duration {
	most := 100 * time.Millisecond
	if place == 1 {
		most /= 2
	}
	d := min(2*time.Millisecond<<min(try, 6), most)
	return d/2 + rand.N(d/2)
}

func (c *claim) load(ctx context.Context) (*state, error) {
	ctx, cancel := context.WithTimeout(ctx, c.m.cfg.CommitTimeout)
	defer cancel()
	st, err := c.m.fetchAgain(ctx, c.id)
	if err == nil {
		err = c.open(st)
	}
	return st, err
}

// open opens what is sealed in a record, if the request's token opens its session.
func (c *claim) open(st *state) error {
	if v := c.judge(st); v.opens() {
		return c.m.unseal(st, v.secret)
	}
	return nil
}

// enter has the turn in the record, in its place, and returns the record as it is then.
func (c *claim) enter(ctx context.Context, st *state) (*state, error) {
	turns, save := st.turns.take(c.number, microNow())
	if !save {
		return st, nil
	}
	c.sent = true
	return c.save(ctx, st, turns)
}

// save stores the record with other turns and no other change: it is no use of the
// session. It asks until there is an answer.
func (c *claim) save(ctx context.Context, st *state, turns turns) (*state, error) {
	next := st.clone()
	next.turns = turns
	a := attempt{cfg: &c.m.cfg, life: life{base: st}, passive: true}
	p := &plan{next: next, token: token{c.id, c.judge(st).secret}, todo: doSave}
	rec, err := a.record(p, newVersion(), microNow())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.m.cfg.CommitTimeout)
	defer cancel()
	again(ctx, func() bool {
		if a.over(microNow()) { // it must not come back
			err = errExpired
			return true
		}
		err = c.m.store.Save(ctx, rec, st.version)
		return err == nil || absent(err) || refused(err) || unsettled(err)
	})
	return next, err
}

// keep has the turn renewed until rest. Most handlers return before that begins.
func (c *claim) keep(ctx context.Context) {
	ctx, c.cancel = context.WithCancel(ctx)
	c.ended = make(chan struct{})
	c.timer = time.AfterFunc(leaseTime/3, func() {
		defer close(c.ended)
		defer func() { recover() }() // the store's panic: the lease runs out, and the commit tells
		for c.renew(ctx) && sleep(ctx, leaseTime/3) == nil {
		}
	})
}

// renew renews the turn. It returns false if there is no turn any more; the commit
// will find that out.
func (c *claim) renew(ctx context.Context) bool {
	for {
		st, err := c.load(ctx)
		switch {
		case absent(err):
			return false
		case err != nil:
			return true // it may come back in time
		case c.lost(st):
			return false
		}
		if _, err = c.enter(ctx, st); !unsettled(err) {
			return !absent(err)
		}
	}
}

// rest ends keep, and returns when no renewal is under way any more.
func (c *claim) rest() {
	if c.timer == nil {
		return
	}
	c.cancel()
	if !c.timer.Stop() {
		<-c.ended
	}
}

// end lets the next one have the session. It takes the turn out of the record, unless
// that was done or the store is down.
func (c *claim) end(ctx context.Context, down bool) error {
	c.rest()
	defer c.m.lines.leave(c.id, c.line)
	if !c.sent || c.left.Load() || down {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.m.cfg.CommitTimeout)
	defer cancel()
	for {
		st, err := c.m.fetch(ctx, c.id)
		switch {
		case absent(err), err == nil && st.turns.place(c.number) < 0:
			return nil
		case err != nil:
			return err
		}
		if err = c.open(st); err != nil || st.box != nil { // whoever has the key now waits for the lease to run out
			return err
		}
		_, err = c.save(ctx, st, st.turns.without(c.number))
		if !unsettled(err) {
			return err
		}
	}
}

// leaseTime is for how long a turn is good. A process that dies keeps others from
// the session for so long, and no longer.
const leaseTime = 10 * time.Second

// maxTurns bounds the turns of one record. Each is of another process: who finds no
// room asks again.
const maxTurns = 16

// turn is one request's place in the line for a session that one request at a time
// may have.
type turn struct {
	number uint64  // random; of the request
	until  instant // it is over then, unless it is renewed
}

// turns are a record's, in their order: the first one has the session, and the
// others wait. One that is over is passed over, and whoever goes ahead of it removes
// it. The slice is shared by states, and never changed.
type turns []turn

// over reports whether the time of the turn is over. It is, too, if it is so far ahead
// that only a wrong clock can have written it.
func (t turn) over(now instant) bool { return now >= t.until || t.until > now.add(2*leaseTime) }

// due reports whether it is time to renew the turn.
func (t turn) due(now instant) bool { return t.over(now) || t.until <= now.add(leaseTime*2/3) }

// take returns the turns as they are when number has, or waits for, the session: with
// its turn, as long as there is room, renewed if that is due, and without those that
// are over. It returns false if nothing needs to be stored for that.
func (q turns) take(number uint64, now instant) (next turns, save bool) {
	found := false
	for _, t := range q {
		if t.number == number {
			found = true
			if t.due(now) {
				t.until, save = now.add(leaseTime), true
			}
		} else if t.over(now) {
			continue
		}
		next = append(next, t)
	}
	if !found && len(next) < maxTurns {
		next, save = append(next, turn{number, now.add(leaseTime)}), true
	}
	return next, save || next.place(number) == 0 && q.place(number) != 0
}

// place returns how many are before number, -1 if it has no turn.
func (q turns) place(number uint64) int {
	return slices.IndexFunc(q, func(t turn) bool { return t.number == number })
}

// without returns the turns without that of number.
func (q turns) without(number uint64) turns {
	return slices.DeleteFunc(slices.Clone(q), func(t turn) bool { return t.number == number })
}

// only returns the turns without those of others than c.
func (q turns) only(c *claim) turns {
	return slices.DeleteFunc(slices.Clone(q), func(t turn) bool { return c == nil || t.number != c.number })
}

// awaited reports whether somebody else than c waits for the session or has it.
func (q turns) awaited(c *claim, now instant) bool {
	return slices.ContainsFunc(q, func(t turn) bool { return (c == nil || t.number != c.number) && !t.over(now) })
}

func (q turns) bytes() []byte {
	b := make([]byte, 0, 16*len(q))
	for _, t := range q {
		b = binary.BigEndian.AppendUint64(b, t.number)
		b = binary.BigEndian.AppendUint64(b, uint64(t.until))
	}
	return b
}

func (st *state) decodeTurns(b []byte) error {
	if len(b)%16 != 0 || len(b) > 16*maxTurns {
		return errFormat
	}
	for ; len(b) > 0; b = b[16:] {
		st.turns = append(st.turns, turn{binary.BigEndian.Uint64(b), bytesInstant(b[8:])})
	}
	return nil
}

// lines are where the requests of one manager wait for one another, each session's
// in the order of their coming. The first one of a line goes on to wait in the record,
// so that there is one turn of each process.
type lines struct {
	mu sync.Mutex
	of map[ID][]chan struct{}
}

// join returns what is closed when it is the request's turn here, nil if it is at once.
func (l *lines) join(id ID) (own chan struct{}, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = make(map[ID][]chan struct{})
	}
	own, first = make(chan struct{}), len(l.of[id]) == 0
	l.of[id] = append(l.of[id], own)
	return own, first
}

// leave must follow a join. The next one, if it was the first, goes on.
func (l *lines) leave(id ID, own chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := l.of[id]
	i := slices.Index(line, own)
	line = slices.Delete(line, i, i+1)
	switch {
	case len(line) == 0:
		if delete(l.of, id); len(l.of) == 0 {
			l.of = nil // a map does not shrink
		}
		return
	case i == 0:
		close(line[0])
	}
	l.of[id] = line
}
