package session2

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/session2/session2/internal/record"
)

// maxReplays bounds how often one commit starts anew because others were
// faster. CommitTimeout usually ends it before.
const maxReplays = 1000

// txn is one commit under way.
type txn struct {
	attempt
	hearing
	s         *Session
	seen      *state     // the handler's view, as the log was taken down
	gen       int32      // the session's, likewise
	ended     []*state   // sessions to delete
	revoke    bool       // the client's cookie goes
	version   Version    // of what this commit writes, in whichever try: by it a try that landed is known
	lost      bool       // the answer to a Save was lost
	doubtful  bool       // a Save has failed, which the store may have said wrongly was not sent
	abandoned []ID       // of creates whose answers were lost and that were not there
	failed    bool       // the store has failed, and it was said
	last      bool       // no cookie can be sent by a later one
	turn      *loginTurn // of the user's logins, if they are counted
	oldest    []place    // sessions of the user to end when the login is stored
	blind     bool       // the log deletes what was not there, and may be by now
	behind    bool       // what the attempt starts from is old: load before deciding
	resets    int32      // the session's, as the log was taken down
	ends      int32
	plan      plan
	extra     *keyCommit // the last change of the log, which the session's own has not; nil: there is none
	time      allowance  // for all this
	room      struct {   // for what most commits hear and guard
		heard  [2]Event
		guards [1]row[look]
	}
}

var (
	errBusy = errors.New("session2: commit: another commit of this session is under way, and does not end; " +
		"an Update function or a hook must not commit")
	errLate     = errors.New("the request's time is over")
	errPanicked = errors.New("session2: commit: a function of the application panicked")
)

// commit stores the session's changes and does the housekeeping that is due.
func (s *Session) commit(ctx context.Context) error {
	if s.rests(false) {
		return nil
	}
	h, err := s.exclusively(ctx, func(s *Session, ctx context.Context) (hearing, error) {
		h, _, err := s.commitNow(ctx, nil, s.request == nil)
		return h, err
	})
	h.report(s.eventContext(), s.m)
	return err
}

// commitLast is the commit that the response waits for before its first byte, or
// none if the request has failed. No cookie can be sent for a later one. So one
// that another goroutine of the request has begun is waited for. It returns the error
// for which the response is replaced, which changes that are dropped are not.
func (s *Session) commitLast(ctx context.Context, commit bool) error {
	if s.rests(true) {
		return nil
	}
	h, err := s.exclusively(ctx, func(s *Session, ctx context.Context) (h hearing, err error) {
		if commit {
			var o outcome
			if h, o, err = s.commitNow(ctx, nil, true); o == dropped {
				err = nil
			}
		}
		s.mu.Lock()
		s.begun = true
		s.mu.Unlock()
		return h, err
	})
	s.endTurn()
	h.report(s.eventContext(), s.m)
	return err
}

// rests reports whether there is nothing to commit, as for most requests. If so,
// begins notes that the response begins.
func (s *Session) rests(begins bool) bool {
	if !begins && !s.loaded.Load() {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.working == nil { // who loads it after this can tell its client of nothing
		s.begun = s.begun || begins
		return true
	}
	if s.committing || s.over.Load() || s.changed() || !s.idle() || begins && s.claim != nil {
		return false
	}
	s.fresh, s.begun = false, s.begun || begins
	return true
}

// commitNow is a commit that no other one runs beside. If it is the last one whose
// cookie can be sent, it ends a session that came to hold nothing. k is a change of this
// commit's own; nil: there is none.
func (s *Session) commitNow(ctx context.Context, k *keyCommit, last bool) (hearing, outcome, error) {
	t, h, err := s.start(k, last)
	if t == nil {
		return h, pending, err
	}
	t.last = last
	o, err := s.carryOut(ctx, t)
	err = s.settle(t, o, err)
	return t.hearing, o, err
}

// carryOut does what t is to do, within the time that a commit may take.
func (s *Session) carryOut(ctx context.Context, t *txn) (outcome, error) {
	t.time = allowance{Context: ctx, until: time.Now().Add(s.m.cfg.CommitTimeout)}
	defer t.time.end()
	ctx = &t.time
	o, err := t.run(ctx)
	if t.turn != nil {
		defer t.passTurn(ctx)
	}
	switch goesOn := o != pending && o != vetoed; {
	case goesOn && len(t.ended) > 0:
		if failed := t.bury(ctx); failed != nil {
			return pending, failed
		}
		s.buried(t)
	case goesOn && t.revoke:
		s.revoked(t, t.life.base)
	}
	if t.turn != nil && (o == stored || o == landed) {
		if failed := t.keepPlace(ctx); failed != nil {
			return pending, failed
		}
	}
	return o, err
}

// allowance is the context of a commit: context.WithTimeout, with a timer from the first
// call of Done on. Stores that wait for nothing do not ask for it.
type allowance struct {
	context.Context // to look values up in
	until           time.Time
	timed           atomic.Pointer[timed]
}

type timed struct {
	context.Context
	cancel context.CancelFunc
}

// spent is what an allowance becomes whose Done nobody has asked for.
var spent = func() *timed {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return &timed{ctx, cancel}
}()

func (a *allowance) Deadline() (time.Time, bool) { return a.until, true }

func (a *allowance) Done() <-chan struct{} {
	if t := a.timed.Load(); t != nil {
		return t.Done()
	}
	t := new(timed)
	t.Context, t.cancel = context.WithDeadline(context.WithoutCancel(a.Context), a.until)
	if !a.timed.CompareAndSwap(nil, t) {
		t.cancel()
	}
	return a.timed.Load().Done()
}

func (a *allowance) Err() error {
	if t := a.timed.Load(); t != nil {
		return t.Err()
	}
	if time.Now().Before(a.until) {
		return nil
	}
	return context.DeadlineExceeded
}

// Value looks in the timer's context if there is one, for what package context keeps
// there.
func (a *allowance) Value(key any) any {
	if t := a.timed.Load(); t != nil && t != spent {
		return t.Value(key)
	}
	return context.WithoutCancel(a.Context).Value(key) // which hides what would end it
}

// end stops the timer.
func (a *allowance) end() {
	a.timed.CompareAndSwap(nil, spent)
	a.timed.Load().cancel()
}

// exclusively runs one commit at a time. What it heard is to be reported when that
// is over: what the application does then may use the session. Its own functions
// may panic in a commit; then nothing can be told of the changes, and no later
// commit stores them a second time. Where nothing was asked of the store yet, the session
// is as it was.
func (s *Session) exclusively(ctx context.Context,
	commit func(*Session, context.Context) (hearing, error),
) (h hearing, err error) {
	if s.over.Load() {
		return nil, errOver
	}
	if err := s.acquire(); err != nil {
		return hearing{{Kind: EventDropped, Err: err}}, err
	}
	panicked := true
	defer func() { s.release(panicked) }()
	h, err = commit(s, ctx)
	panicked = false
	return h, err
}

// acquire waits until no other commit is under way, for so long as one may take.
func (s *Session) acquire() error {
	wait := s.tryAcquire()
	if wait == nil {
		return nil
	}
	timeout := time.NewTimer(2 * s.m.cfg.CommitTimeout)
	defer timeout.Stop()
	for ; wait != nil; wait = s.tryAcquire() {
		select {
		case <-wait:
		case <-timeout.C:
			return &changeError{errBusy}
		}
	}
	return nil
}

// tryAcquire returns nil, or what is closed when the commit under way has ended.
func (s *Session) tryAcquire() (wait <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.committing {
		s.committing, s.fresh, s.sent, s.unsure = true, false, false, false
		return nil
	}
	if s.committed == nil {
		s.committed = make(chan struct{})
	}
	return s.committed
}

// release ends a commit.
func (s *Session) release(panicked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if panicked && s.sent {
		err := errPanicked
		if s.unsure {
			err = record.Uncertain(err)
		}
		s.broken = cmp.Or[error](s.broken, &changeError{err})
	}
	s.committing = false
	if s.committed != nil {
		close(s.committed)
		s.committed = nil
	}
}

// start takes down what is to be committed. It returns nil if there is nothing
// to commit, with an error if nothing may be. The last commit before the response
// begins also gives back a session that the request has for itself.
func (s *Session) start(k *keyCommit, last bool) (*txn, hearing, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return nil, nil, s.broken
	}
	late, changed := s.late(), k != nil || s.changed()
	if s.wrong != nil || late != nil && changed {
		err := cmp.Or(s.wrong, late)
		s.broken = late
		return nil, hearing{{Kind: EventDropped, ID: s.work.id, User: s.work.user, Err: err}}, err
	}
	leaves := last && s.claim != nil
	if !changed && (late != nil || s.idle() && !leaves) {
		return nil, nil, nil
	}
	if len(s.log) > 0 || k != nil {
		s.draw()
	}
	t := s.txn()
	t.log, t.viewed = s.log[:len(s.log):len(s.log)], len(s.log)
	if t.extra = k; k != nil {
		t.log = append(t.log, op{do: k.apply})
	}
	t.login, t.user, t.level = s.work.signIn, s.work.user, s.work.level()
	t.ended, t.revoke = s.ended, s.revoke
	t.behind = t.life.standing == superseded || t.resend() && len(t.log) == 0 || t.stale() || s.emptied()
	t.blind, t.leaves = s.blind || k != nil, leaves
	if len(t.log) > 0 {
		s.frame(t)
		t.seen, t.guards, t.gen = t.view, s.looks.guards(t.room.guards[:0]), s.gen
	}
	return t, nil, nil
}

// frame gives t what it stores, in what is left of the draft. It is called with s.mu held.
func (s *Session) frame(t *txn) {
	d := s.draft
	if s.draft = nil; d == nil { // the state was made anew after another commit
		d = new(draft)
	}
	t.view, t.spare = s.work.frozenTo(&d.view), d.versions[:0]
}

// changed reports whether there are changes that no commit has stored yet. It is
// called with s.mu held, as idle is.
func (s *Session) changed() bool { return len(s.log) > 0 || len(s.ended) > 0 || s.revoke }

// idle reports whether no housekeeping is due either, and nothing has gone wrong.
func (s *Session) idle() bool {
	if s.broken != nil || s.wrong != nil {
		return false
	}
	a := s.attempt()
	return s.neglected || a.idle(microNow()) && !s.emptied()
}

// emptied reports whether another request has left nothing in the session.
func (s *Session) emptied() bool {
	return s.holds(s.life.base.id) && s.m.open.isEmpty(s.life.base.id)
}

// txn returns a commit of nothing yet. It is called with s.mu held.
func (s *Session) txn() *txn {
	t := &txn{s: s, resets: s.resets, ends: s.ends, attempt: s.attempt()}
	t.hearing, t.origin = t.room.heard[:0], t.life.base
	return t
}

func (s *Session) attempt() attempt {
	return attempt{cfg: &s.m.cfg, life: s.life, cookie: !s.begun && s.way != byOther, way: s.way,
		passive: s.passive, claim: s.claim}
}

// stale reports whether a Save by what was loaded might take back an access that
// others have noted since by Touch, which leaves the version alone. A request that
// is a use of the session notes a later one itself. Stale is, too, what a cache had.
func (t *txn) stale() bool { return t.passive && t.life.base.stored() || t.life.old }

// aged reports whether the request has run for so long, since it has loaded its session,
// that the record must be looked at before a Touch. That has no version to guard it: if a
// login has replaced the token meanwhile, the session would be used by whoever had it before.
func (t *txn) aged(now instant) bool {
	return t.life.base == t.origin && now >= t.s.arrived.add(t.cfg.resolution(t.origin))
}

// late returns the error of a request whose time is over: its client has been
// told so, by http.TimeoutHandler for example, and nothing of it is stored any
// more. That a client has gone away is no reason.
func (s *Session) late() error {
	if err := s.ctx.Err(); errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("session2: save: %w: %w", errLate, err)
	}
	return nil
}

// run commits. A failure that leaves it open whether the changes are stored is
// ErrUncertain.
func (t *txn) run(ctx context.Context) (outcome, error) {
	o, err := t.tries(ctx)
	t.giveUp(ctx)
	if (t.lost || t.abandoned != nil) && o == pending && failedByStore(err) &&
		!errors.Is(err, ErrStale) && !errors.Is(err, errTurnLost) {
		return o, record.Uncertain(err)
	}
	return o, err
}

// giveUp deletes what creates that seemed lost may have left after all, landing late.
func (t *txn) giveUp(ctx context.Context) {
	if len(t.abandoned) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.cfg.CommitTimeout)
	defer cancel()
	for _, id := range t.abandoned {
		if t.s.m.store.Delete(ctx, id) != nil {
			return // it is a precaution, and the store's failure was said
		}
	}
}

// tries tries until a try has its way, or there is none to be had.
func (t *txn) tries(ctx context.Context) (outcome, error) {
	if t.life.standing == superseded && !t.login {
		if len(t.log) == 0 {
			return nothing, nil
		}
		if t.life.gone {
			return dropped, t.dropped(ErrNotFound)
		}
		return dropped, t.dropped(ErrStale)
	}
	// One version has one content: a try that lands late stands for the next.
	n := newNonce()
	t.version = newVersion()
	var cause error // of the latest try's failure
	for try := range maxReplays {
		now := microNow()
		t.behind = t.behind || t.over(now) // others may have used it meanwhile
		if t.behind {
			t.plan.unchanged = false // that was said of an older record
			if o, err := t.reload(ctx); o != pending || err != nil {
				return o, because(cause, o, err)
			}
		}
		var err error
		t.plan, err = t.decide(ctx, now, n)
		veto := vetoOf(err)
		switch {
		case t.blind && (t.plan.unchanged || veto != nil && t.life.base.stored()): // as far as it knows: look again
			t.behind, t.blind = true, false
			continue
		case veto != nil:
			return vetoed, veto
		case err != nil:
			return pending, err
		}
		if t.plan.todo == doTouch && t.aged(now) {
			t.behind = true
			continue
		}
		t.s.sent = true
		if err := t.makeRoom(ctx); err != nil {
			return pending, err
		}
		if err := t.s.late(); err != nil {
			return pending, err
		}
		if t.over(microNow()) { // deciding took its time
			t.behind = true
			continue
		}
		if ended := ctx.Err(); ended != nil { // likewise
			return pending, fmt.Errorf("session2: save %v: %w", t.life.token.id, withCause(ended, cause))
		}
		t.s.unsure = true
		err = t.write(ctx, now, n)
		switch {
		case err == nil:
			return stored, nil
		case untold(err):
			return tooLate, err
		case t.plan.todo == doTouch: // it is for another time, whatever became of it
			return pending, err
		case !unsettled(err) && !absent(err):
			return pending, err
		}
		t.lost = t.lost || errors.Is(err, ErrUncertain)
		t.s.unsure = t.lost || t.abandoned != nil
		t.behind = true
		if errors.Is(err, ErrConflict) {
			t.event(EventConflict, err)
		}
		cause = err
		if try > 0 && sleep(ctx, pause(try, err)) != nil {
			break
		}
	}
	return pending, fmt.Errorf("session2: save %v: gave up after several tries: %w", t.life.token.id, cause)
}

// because adds to the failure of a reload why the store was asked again, unless the
// reload has an outcome.
func because(cause error, o outcome, err error) error {
	if cause == nil || o != pending || absent(err) || refused(err) ||
		errors.Is(err, ErrStale) || errors.Is(err, ErrUncertain) {
		return err
	}
	return fmt.Errorf("%w: %w", cause, err)
}

// unsettled reports whether the error of a Save says that the record must be looked at
// again: others were faster, or nobody knows whether it landed.
func unsettled(err error) bool { return errors.Is(err, ErrConflict) || errors.Is(err, ErrUncertain) }

// pause is how long to wait before the next try: a moment where others were
// faster, and longer each time where the store has failed.
func pause(try int, err error) time.Duration {
	if errors.Is(err, ErrConflict) {
		return rand.N(min(time.Duration(try)*time.Millisecond, 20*time.Millisecond))
	}
	wait := 10 * time.Millisecond << min(try, 6)
	return wait/2 + rand.N(wait/2)
}

// reload bases the attempt on the record as it is now (the table in ARCHITECTURE.md).
func (t *txn) reload(ctx context.Context) (o outcome, err error) {
	if !t.life.base.stored() && t.life.standing == current {
		o, err = t.reloadCreated(ctx)
	} else {
		o, err = t.reloadStored(ctx)
	}
	if o == landed && err == nil {
		if err = confirm(ctx, t.s.m.store); err != nil {
			return pending, err
		}
	}
	return o, err
}

// confirm waits until what a store has shown is as safe as what it acknowledges: a database
// may show a commit that it can still lose.
func confirm(ctx context.Context, store Store) error {
	c, ok := store.(interface{ confirm(context.Context) error })
	if !ok {
		return nil
	}
	var err error
	again(ctx, func() bool {
		err = c.confirm(ctx)
		return err == nil || refused(err)
	})
	return err
}

// reloadCreated is reload for a session that was to be created.
func (t *txn) reloadCreated(ctx context.Context) (outcome, error) {
	if !t.lost && !t.doubtful { // somebody else's record has the ID that was drawn
		t.drawAnother()
		return pending, nil
	}
	st, err := t.fetch(ctx)
	switch {
	case absent(err): // it did not land, or not yet, or is gone before anybody had its token
		t.abandoned = append(t.abandoned, t.life.token.id)
		t.drawAnother()
		return pending, nil
	case err != nil:
		return pending, err
	}
	return t.found(st)
}

// drawAnother has the session created under another ID.
func (t *txn) drawAnother() {
	t.life, t.view, t.behind, t.lost, t.doubtful = t.s.newLife(), nil, false, false, false
}

// reloadStored is reload for a session that was stored.
func (t *txn) reloadStored(ctx context.Context) (outcome, error) {
	st, err := t.fetch(ctx)
	switch {
	case err == nil:
		return t.found(st)
	case !absent(err):
		return pending, err
	case t.lost && t.plan.todo == doEnd && st != nil && st.versions.contains(t.version):
		t.remove(ctx, st.id)
		return landed, nil
	case t.lost && t.plan.todo == doEnd: // perhaps by another request, and the browser may hold a newer cookie
		t.plan.cookie, t.plan.event = keepCookie, 0
		return landed, nil
	}
	return t.rebaseOn(nil)
}

// found is for a record that is there: does it show the Save whose answer was lost? It is
// believed of any: a store may say of one that landed that nobody could be connected to.
func (t *txn) found(st *state) (outcome, error) {
	o, err := st.remembers(t.version, t.life.base.version)
	switch {
	case o == landed:
		return t.foundLanded(st)
	case (t.lost || t.doubtful) && err != nil:
		return o, err
	}
	return t.rebaseOn(st)
}

// foundLanded is for a record that shows that the Save landed.
func (t *txn) foundLanded(st *state) (outcome, error) {
	if v := st.ident.judge(t.plan.token.secret, t.s.arrived, t.cfg.RenewGrace); v.opens() {
		if err := t.s.m.unseal(st, v.secret); err != nil {
			t.event(EventCorrupt, err)
			return t.rebaseOn(nil)
		}
	}
	t.plan.next = st
	return landed, nil
}

// rebaseOn has the client's token judged anew, by the record or, for nil, its absence.
func (t *txn) rebaseOn(st *state) (outcome, error) {
	own := t.s.newLife()
	var v verdict
	if st != nil {
		v = t.s.judge(st, t.life.shown)
	}
	if st != nil && (v.opens() || t.joins(st, v)) {
		if err := t.s.m.unseal(st, v.secret); err != nil {
			t.event(EventCorrupt, err)
			st, v = nil, verdict{}
		}
	}
	o, err := t.rebase(st, v, own)
	t.behind = false
	if t.life.token.id == own.token.id { // of another session nothing was asked yet
		t.lost, t.doubtful = false, false
	}
	return o, err
}

// fetch loads the record as it is now. It asks until the store answers: where
// the answer to a Save was lost, nothing else can tell what became of it.
func (t *txn) fetch(ctx context.Context) (*state, error) {
	return t.s.m.fetchAgain(ctx, t.life.token.id)
}

// remove deletes a record that was saved as expired. If that fails, it will be swept.
func (t *txn) remove(ctx context.Context, id ID) {
	if err := t.s.m.store.Delete(ctx, id); err != nil {
		t.event(EventStoreError, err)
	}
}

// claims reports whether a session that came to hold nothing may end now: with the
// last commit of the only request that has it.
func (t *txn) claims(id ID) bool {
	if t.plan.next.turns.awaited(t.claim, microNow()) { // in another process
		return false
	}
	t.s.mu.Lock()
	own := t.s.holds(id)
	t.s.mu.Unlock()
	return t.last && t.s.m.open.end(id, own)
}

// write carries out one try.
func (t *txn) write(ctx context.Context, now instant, n nonce) (err error) {
	if id := t.life.token.id; t.plan.nobodys && t.claims(id) {
		defer t.s.m.open.ended(id)
	} else if t.plan.nobodys {
		t.plan = t.decideEmpty(t.plan, now, n)
	}
	if t.plan.cookie == setCookie && !t.cookie {
		return t.untold()
	}
	if t.plan.todo == doTouch {
		done, err := t.touch(ctx, now)
		if done || err != nil {
			return err
		}
		t.plan.todo = doSave
	}
	if t.plan.todo == doNothing {
		return nil
	}
	rec, err := t.record(&t.plan, t.version, now)
	if err != nil {
		return err
	}
	if err := t.save(ctx, rec, t.life.base.version); err != nil {
		return err
	}
	if t.plan.todo == doEnd {
		t.remove(ctx, rec.ID)
	}
	return nil
}

// touch notes the access. It reports false if the store cannot, and the record
// has to be saved instead.
func (t *txn) touch(ctx context.Context, now instant) (bool, error) {
	next := t.plan.next
	next.accessed = now
	next.expires = t.cfg.expiry(next)
	err := touch(ctx, t.s.m.store, next.id, next.accessed.time(), next.expires.time())
	if errors.Is(err, errors.ErrUnsupported) {
		return false, nil
	}
	return true, err
}

// save asks the store to Save until it has an answer. One that fails for other
// reasons than a conflict may have landed, unless it was not sent: it is asked
// again, and a conflict is then uncertain. A create is not asked again: it may have
// landed and been deleted since, and must not come back.
func (t *txn) save(ctx context.Context, rec Record, prev Version) (err error) {
	var first error
	again(ctx, func() bool {
		if err != nil && t.over(microNow()) { // an expired session must not come back either
			if err = fmt.Errorf("%w: %w", errExpired, err); t.lost {
				err = record.Uncertain(err)
			}
			return true
		}
		err = t.s.m.store.Save(ctx, rec, prev)
		if err == nil || absent(err) || refused(err) || unsettled(err) {
			return true
		}
		if !t.failed {
			t.event(EventStoreError, err)
		}
		t.failed, t.doubtful = true, t.doubtful || !errors.Is(err, record.ErrNotDone)
		first = cmp.Or(first, err)
		if record.NotDone(err) {
			return false
		}
		t.lost = true
		if prev == 0 {
			err = record.Uncertain(err)
		}
		return prev == 0
	})
	return withCause(err, first)
}

// withCause adds to the error of a store that was asked until the time was up what
// it said at first.
func withCause(err, first error) error {
	if first == nil || !errors.Is(err, context.DeadlineExceeded) || errors.Is(first, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: %w", err, first)
}

// bury deletes the sessions that Destroy or a login ended. If that fails, the
// logout has failed, and what was created after it is taken back.
func (t *txn) bury(ctx context.Context) (err error) {
	store := t.s.m.store
	var first error
	nothing := true // none of them can have ended
	for _, st := range t.ended {
		unheard := false // of an earlier Delete
		again(ctx, func() bool {
			if err = ctx.Err(); err != nil { // the Save took all the time
				return true
			}
			err = store.Delete(ctx, st.id)
			if err == nil && unheard { // this one may have found nothing left to delete
				err = confirm(ctx, store)
			}
			first = cmp.Or(first, err)
			unheard = unheard || !refused(err) && !record.NotDone(err)
			nothing = nothing && (refused(err) || record.NotDone(err))
			return err == nil || refused(err)
		})
		if err != nil {
			break
		}
	}
	if err == nil {
		return nil
	}
	err = withCause(err, first)
	if t.plan.todo == doSave && t.plan.event == EventCreated {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.cfg.CommitTimeout)
		defer cancel()
		store.Delete(undo, t.plan.next.id)
	}
	if nothing {
		return err
	}
	return record.Uncertain(err)
}

// again calls f until it is done, or ctx is.
func again(ctx context.Context, f func() (done bool)) {
	for wait := 10 * time.Millisecond; !f(); wait = min(2*wait, 500*time.Millisecond) {
		if sleep(ctx, wait/2+rand.N(wait/2)) != nil {
			return
		}
	}
}

func (t *txn) event(kind EventKind, err error) {
	e := Event{Kind: kind, ID: t.life.token.id, User: t.life.base.user, Err: err}
	if e.ID == (ID{}) && len(t.ended) > 0 {
		e.ID, e.User = t.ended[0].id, t.ended[0].user
	}
	t.hear(e)
}

// sleep waits for d, or returns ctx's error.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
