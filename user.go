package session2

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/session2/session2/internal/record"
)

// authentication is the latest proof of who the user is that SetLevel has noted. The
// zero one is the login's own: level 1, at the time from which Lifetime counts. So a
// session without a second factor stores nothing for it, and one of an earlier
// release reads the same.
type authentication struct {
	at    instant
	level byte
}

// maxLevel bounds SetLevel.
const maxLevel = 255

// began is when the session began: its creation, or the latest login into it.
func (st *state) began() instant { return max(st.created, st.login) }

// level returns how much the user has proved, 0 for nobody.
func (st *state) level() int {
	if st.user == "" {
		return 0
	}
	return max(1, int(st.auth.level))
}

// authenticated returns when the user last proved who they are, 0 for nobody.
func (st *state) authenticated() instant {
	switch {
	case st.user == "":
		return 0
	case st.auth.at != 0:
		return st.auth.at
	}
	return st.began()
}

// AuthenticatedAt returns when the user last proved who they are: the latest SetUser
// with a user, or SetLevel that did not lower the level. It is the zero time if nobody
// is signed in. A cookie that is presented again, even after days, proves nothing anew.
func (s *Session) AuthenticatedAt() time.Time {
	s.look()
	defer s.mu.Unlock()
	if at := s.work.authenticated(); at != 0 {
		return at.time()
	}
	return time.Time{}
}

// AuthenticatedWithin reports whether somebody is signed in who has proved who they
// are less than d ago. Ask it before a change of the password or of the mail address,
// and before a payment, and if it is false let the user sign in again (ASVS 7.5.1,
// 7.5.3).
func (s *Session) AuthenticatedWithin(d time.Duration) bool {
	s.look()
	defer s.mu.Unlock()
	at := s.work.authenticated()
	return at != 0 && microNow() < at.add(d)
}

// Level returns how much the user has proved: 0 if nobody is signed in, 1 after
// SetUser, and otherwise what SetLevel was given since.
func (s *Session) Level() int {
	s.look()
	defer s.mu.Unlock()
	return s.work.level()
}

// SetLevel says how much the user has proved, from 1 to 255; what each level means is
// the application's to say, such as 2 for a second factor. It replaces the token as
// Renew does: streams of the session end (see [Manager.Wrap]). A level that is not
// lower than the present one counts as an authentication; a lower one gives up
// privileges and is no proof of anything. The next SetUser goes back to 1. Lifetime is
// not begun anew, as one factor alone does not extend a session of two (NIST SP
// 800-63B-4, 2.2.3). A level out of range, or a call while nobody is signed in, is a
// mistake: it is in Err, and fails the request.
func (s *Session) SetLevel(level int) {
	s.must()
	if level < 1 || level > maxLevel {
		s.refuse(fmt.Errorf("session2: set level: %d is not from 1 to %d", level, maxLevel))
		return
	}
	s.look()
	nobody, shut := s.work.user == "", s.life.standing == superseded
	s.mu.Unlock()
	if nobody && !shut { // else it is dropped as any change is
		s.refuse(errors.New("session2: set level: nobody is signed in"))
		return
	}
	now := microNow()
	s.change(func(st *state) error {
		if st.user != "" && !st.joins { // the twin has set the same one
			st.authenticate(level, now)
		}
		return renew(st)
	})
}

// authenticate notes a proof of the given level.
func (st *state) authenticate(level int, now instant) {
	at := now
	if level < st.level() {
		at = st.authenticated()
	}
	st.auth = authentication{at: at, level: byte(level)}
}

func (st *state) encodeAuth(e *encoder) {
	if st.auth != (authentication{}) {
		e.section(tagAuth, []byte{st.auth.level}, instantBytes(st.auth.at))
	}
}

func (st *state) decodeAuth(b []byte) error {
	if len(b) != 1+8 {
		return errFormat
	}
	st.auth = authentication{level: b[0], at: bytesInstant(b[1:])}
	if st.auth.level == 0 || st.auth.at == 0 {
		return errFormat
	}
	return nil
}

// AAL1 returns a Config with the limits of NIST SP 800-63B-4, 2.1.3, for authenticator
// assurance level 1, for the application to complete: 30 days overall, and no idle
// limit. The application still has to authenticate the user by one factor and to offer
// a logout.
func AAL1() Config {
	return Config{Lifetime: 30 * 24 * time.Hour, IdleTimeout: -1}
}

// AAL2 returns a Config with the limits of NIST SP 800-63B-4, 2.2.3, for authenticator
// assurance level 2, for the application to complete: 24 hours overall, 1 hour idle.
// The application still has to authenticate the user by two factors before it calls
// SetUser, or to serve what needs level 2 only where [Session.Level] says so; to offer
// an authenticator that resists phishing; and to leave alone Remember, SetLifetime and
// SetIdleTimeout, which go beyond the limits.
func AAL2() Config {
	return Config{Lifetime: 24 * time.Hour, IdleTimeout: time.Hour}
}

// AAL3 returns a Config with the limits of NIST SP 800-63B-4, 2.3.3, for authenticator
// assurance level 3, for the application to complete: 12 hours overall, 15 minutes
// idle. The application still has to authenticate the user by two factors, one of them
// a hardware key that resists phishing, at the login and again when a limit has ended
// the session, and to leave alone Remember, SetLifetime and SetIdleTimeout, which go
// beyond the limits.
func AAL3() Config {
	return Config{Lifetime: 12 * time.Hour, IdleTimeout: 15 * time.Minute}
}

// anomaly raises an event if a signed-in session is used from elsewhere than it began.
// A session that began without a request has nothing to compare with.
func (s *Session) anomaly(h *hearing, st *state) {
	if s.request == nil || st == nil || st.user == "" || st.remote == "" {
		return
	}
	var err error
	if host(st.remote) != host(s.request.RemoteAddr) {
		err = ErrOtherAddress
	}
	if st.agent != userAgent(s.request) {
		err = errors.Join(err, ErrOtherAgent)
	}
	if err != nil {
		h.hear(Event{Kind: EventAnomaly, ID: st.id, User: st.user, Err: err})
	}
}

// host returns an address without its port, which is another one for each connection.
func host(addr string) string {
	if name, _, err := net.SplitHostPort(addr); err == nil {
		return name
	}
	return addr
}

// How many sessions a user has (Config.MaxPerUser). A login that takes a new place
// does this, and one of the user's logins at a time (loginTurn):
//
//  1. It lists the user's sessions, and is refused, or notes which of them must go.
//  2. It saves its own.
//  3. It ends those that must go: none of them, if its own Save has failed.

// place is a live session, as far as it matters which is the oldest.
type place struct {
	id             ID
	began, created instant
}

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.began, q.began), cmp.Compare(p.created, q.created),
		slices.Compare(p.id[:], q.id[:]))
}

// takesPlace reports whether the plan makes one more session of its user's. A login
// that joins its twin makes none; but the twin may have failed to end the oldest.
func (t *txn) takesPlace() bool {
	if t.cfg.MaxPerUser == 0 || !t.login || t.plan.todo != doSave {
		return false
	}
	return t.life.base.user != t.user || t.join && !t.cfg.RejectLogin
}

// makeRoom takes the user's turn, if the plan needs it, and notes which sessions must
// end for it. It returns ErrTooManySessions if there is no place and none is made.
func (t *txn) makeRoom(ctx context.Context) (err error) {
	t.oldest = nil
	if !t.takesPlace() {
		return nil
	}
	if t.turn == nil {
		if t.turn, err = t.s.m.takeTurn(ctx, t.user, 0); err != nil {
			return err
		}
	}
	t.oldest, err = t.tooMany(ctx)
	return err
}

// tooMany returns the user's oldest sessions, of which there is one for each that is
// one too many beside the session of this login.
func (t *txn) tooMany(ctx context.Context) ([]place, error) {
	var live []place
	var err error
	again(ctx, func() bool {
		live, err = t.others(ctx)
		return err == nil || refused(err)
	})
	over := len(live) + 1 - t.cfg.MaxPerUser
	switch {
	case err != nil:
		return nil, fmt.Errorf("session2: list the user's sessions: %w", err)
	case over <= 0:
		return nil, nil
	case t.cfg.RejectLogin:
		return nil, fmt.Errorf("session2: save %v: %w", t.life.token.id, ErrTooManySessions)
	}
	slices.SortFunc(live, place.compare)
	return live[:over], nil
}

// others returns the user's live sessions, without this login's own and those that it
// ends itself.
func (t *txn) others(ctx context.Context) (live []place, err error) {
	m, now := t.s.m, microNow()
	for st, err := range decoded(iterUser(ctx, m.store, userKey(t.cfg.Realm, t.user))) {
		switch {
		case errors.Is(err, ErrCorrupt): // nobody can use it
		case err != nil:
			return nil, err
		case t.cfg.shuts(st, now), st.id == t.life.base.id, slices.Contains(t.abandoned, st.id):
		case isAmong(t.ended, st):
		default:
			live = append(live, place{st.id, st.began(), st.created})
		}
	}
	return live, nil
}

// keepPlace ends the sessions that must go, now that the login is stored. If that
// fails the login is taken back: there would be one session too many.
func (t *txn) keepPlace(ctx context.Context) error {
	if !t.takesPlace() {
		return nil
	}
	var err error
	if !t.turn.sure(t.cfg) || !t.s.m.hasTurn(ctx, t.turn) { // another login may have had its turn beside this one
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.cfg.CommitTimeout)
		defer cancel()
		ctx, err = late, t.recount(late)
	}
	if err == nil {
		err = t.endOldest(ctx)
	}
	if err == nil {
		return nil
	}
	if t.join { // it is not this login's to take back
		return record.Uncertain(err)
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.cfg.CommitTimeout)
	defer cancel()
	if failed := t.s.m.store.Delete(undo, t.plan.next.id); failed == nil && errors.Is(err, ErrTooManySessions) {
		return err
	}
	return record.Uncertain(err)
}

// recount takes the turn and counts once more.
func (t *txn) recount(ctx context.Context) error {
	next, err := t.s.m.takeTurn(ctx, t.user, t.turn.version)
	if err != nil {
		return err
	}
	t.turn = next
	t.oldest, err = t.tooMany(ctx)
	return err
}

// endOldest ends the sessions that must go. Where one of them is another user's by now,
// or the user has signed in there again, so that it is not the oldest any more, it
// counts anew.
func (t *txn) endOldest(ctx context.Context) error {
	for len(t.oldest) > 0 {
		left := false
		for _, p := range t.oldest {
			ended, err := t.endPlace(ctx, p)
			if err != nil {
				return fmt.Errorf("session2: end %v, the user's oldest session: %w", p.id, err)
			}
			left = left || !ended
		}
		if !left {
			return nil
		}
		var err error
		if t.oldest, err = t.tooMany(ctx); err != nil {
			return err
		}
	}
	return nil
}

// endPlace ends a session, unless it is not what it was when it was counted, and
// returns whether it did.
func (t *txn) endPlace(ctx context.Context, p place) (ended bool, err error) {
	lost := false
	again(ctx, func() bool {
		ended, err = t.s.m.endIf(ctx, p.id, func(st *state) bool { return st.user == t.user && st.began() == p.began })
		lost = lost || err != nil
		return ended || err == nil || refused(err)
	})
	if ended || lost && err == nil { // though its record may be left to the sweep
		t.hear(Event{Kind: EventRevoked, ID: p.id, User: t.user})
		return true, nil
	}
	return false, err
}

// passTurn lets the next login have its turn. A commit that has used up its time, so
// that nobody knows whether its Save is still to land, does not: see endTurn.
func (t *txn) passTurn(ctx context.Context) {
	if err := t.s.m.endTurn(ctx, t.turn); err != nil {
		t.event(EventStoreError, err)
	}
}

// lists refuses a store that cannot list a user's sessions, where it must.
func (c *Config) lists(store Store) error {
	var p problems
	p.when(c.MaxPerUser > 0 && !canList(store),
		"Config.MaxPerUser: the store, or one that it wraps, is neither a UserStore nor an IterStore")
	return errors.Join(p...)
}

// canList reports whether a store can list a user's sessions. A wrapper has the methods
// whatever it wraps, and so it is asked, with a context that is done: it says no, and
// otherwise does nothing.
func canList(store Store) bool {
	switch s := store.(type) {
	case *cachedStore:
		return canList(s.given)
	case *Migrating:
		return canList(s.old) && canList(s.new)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, err := range iterUser(ctx, store, "") {
		return !errors.Is(err, errors.ErrUnsupported)
	}
	return true
}

// No store has a transaction over several records. So logins of one user that are
// counted (Config.MaxPerUser) take turns, by a record that only one of them can have
// created. It is no session: no verifier has the hash zero, so no token opens it, and
// fetch says that it is not there. It is nobody's, so that no list of a user's
// sessions has it.

// loginTurn is the right of one login to count its user's sessions. It ends by itself,
// for its holder may have been killed.
type loginTurn struct {
	id      ID
	version Version
	until   instant
}

// isTurn reports whether a record is a turn and no session.
func (st *state) isTurn() bool { return st.ident.hash == hash{} }

// turnID returns under which ID the logins of a user meet.
func turnID(realmName, user string) ID {
	sum := sha256.Sum256([]byte("session2 turn v1\x00" + userKey(realmName, user)))
	return ID(sum[:])
}

// turnRecord returns the record of a turn that begins now.
func (m *Manager) turnRecord(id ID) Record {
	now := microNow()
	data, _ := encodeData(&state{realm: m.cfg.Realm, ident: identity{since: now}})
	return Record{ID: id, Version: newVersion(), Created: now.time(), Accessed: now.time(),
		Expires: now.add(2 * m.cfg.CommitTimeout).time(), Data: data}
}

// takeTurn waits for the user's turn until ctx ends. prev is the version of a turn
// that the caller has had, or zero.
func (m *Manager) takeTurn(ctx context.Context, user string, prev Version) (*loginTurn, error) {
	id := turnID(m.cfg.Realm, user)
	rec := m.turnRecord(id)
	for try := 1; ; try++ {
		err := m.store.Save(ctx, rec, prev)
		if err == nil {
			return &loginTurn{id, rec.Version, instantOf(rec.Expires)}, nil
		}
		if refused(err) {
			return nil, fmt.Errorf("session2: wait for other logins of the user: %w", err)
		}
		found, free, lookErr := m.lookAtTurn(ctx, id)
		if lookErr == nil && found.Version == rec.Version { // the answer was lost
			return &loginTurn{id, rec.Version, instantOf(rec.Expires)}, nil
		}
		prev = 0
		if free {
			prev = found.Version
		}
		lost := !errors.Is(err, ErrConflict) && !absent(err) // it may still land, and one version has one content
		if (lost || !free) && sleep(ctx, turnPause(try)) != nil {
			return nil, fmt.Errorf("session2: wait for other logins of the user: %w", err)
		}
		if !lost {
			rec = m.turnRecord(id)
		}
	}
}

// turnPause is how long to wait before the next try.
func turnPause(try int) time.Duration {
	wait := min(time.Duration(try)*time.Millisecond, 20*time.Millisecond)
	return wait/2 + rand.N(wait)
}

// lookAtTurn returns the turn that is stored, the zero Record if there is none, and
// whether it is free: its time is over, or is that of a clock which is fast by more than
// clocks may be, and which nobody waits for.
func (m *Manager) lookAtTurn(ctx context.Context, id ID) (rec Record, free bool, err error) {
	rec, err = m.store.Load(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return Record{}, true, nil
	case errors.Is(err, ErrCorrupt): // nobody can hold it, and no Save replaces it
		return Record{}, true, m.store.Delete(ctx, id)
	case err != nil:
		return Record{}, false, err
	}
	now := microNow()
	over := now >= instantOf(rec.Expires) || instantOf(rec.Created) > now.add(m.cfg.CommitTimeout)
	return rec, over, nil
}

// sure reports whether nobody can have taken the turn over yet, with time to spare for
// a call that is under way and for clocks that differ.
func (t *loginTurn) sure(cfg *Config) bool { return microNow() < t.until.add(-cfg.CommitTimeout) }

// hasTurn reports whether the turn is still the login's: the Delete of one before may have
// been on its way until now.
func (m *Manager) hasTurn(ctx context.Context, t *loginTurn) bool {
	rec, err := m.store.Load(ctx, t.id)
	return err == nil && rec.Version == t.version
}

// endTurn lets the next login have its turn. One whose commit has taken all its time
// ends by itself: the Save may still land, and the next login must count it, and a
// Delete might come so late that it ends another's turn.
func (m *Manager) endTurn(ctx context.Context, t *loginTurn) error {
	if !t.sure(&m.cfg) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.cfg.CommitTimeout)
	defer cancel()
	return m.store.Delete(ctx, t.id)
}
