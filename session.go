package session2

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxUser bounds the user's name, in bytes, so that every store can index it.
const maxUser = 1024

// maxAgent bounds what is kept of a User-Agent header, in bytes.
const maxAgent = 256

// Session is one request's handle on its session. The first use of its data loads the
// record, once; changes are seen at once by this request and stored by the commit, just
// before the response's first byte. Goroutines of the request may share it. It is over
// when the handler returns: a goroutine that goes on may read it, but its changes are not
// stored, which is in Err, and an event. For these it asks [Session.Token] before, and
// opens the session by [Manager.Open]. The methods of a nil Session panic, but for
// String, Format and LogValue.
//
// Accessors return no error. What went wrong is in [Session.Err]; if the record could
// not be loaded, the session reads as empty and the request is answered by the error
// handler.
type Session struct {
	m       *Manager
	ctx     context.Context // to load by
	arrived instant         // tokens are judged by it
	request *http.Request   // nil for Manager.Open
	opened  *string         // Manager.Open's token, or Transport.ReadOnly's; a pointer, so that no copy prints it

	loading sync.Mutex // held by the load; taken before mu
	loaded  atomic.Bool
	over    atomic.Bool // the handler has returned
	warned  atomic.Bool // and the session was used after that
	handing atomic.Bool // Token was called

	live atomic.Pointer[live] // the request's context, once somebody waits for its end

	mu       sync.Mutex
	held     ID     // the session that Manager.open has this request for
	made     ID     // likewise, one that the request has made itself, and emptied
	passive  bool   // the request is no use of the session
	begun    bool   // the response has begun: no cookie can be sent any more
	way      way    // how the client carries its token; it does not change
	left     ID     // the session that the request has ended by a method of the Manager
	claim    *claim // the request has the session for itself (Manager.Exclusive); nil: it does not
	*working        // nil before the first look
}

// working is a session that was loaded. It is apart so that a request that never
// looks does not pay for it. Session.mu guards it.
type working struct {
	life   life     // the session as it was loaded or last committed
	work   *state   // what the handler sees: life.base, or a clone with log applied
	draft  *draft   // what work is made in until the next commit
	log    []op     // what was changed and is not stored yet
	spare  []byte   // room for encoded values
	looks  looks    // what of life.base the handler has looked at
	room   room     // for the first of each
	others []*state // what the request's tokens open and is not its own: several sessions, or one that is being ended
	barred []*state // what they would open, had it not expired, or were it sealed as configured
	passed []*state // what they have opened until a moment ago, and whose user is the same since
	ended  []*state // sessions to delete at the commit: Destroy's, and those that a login ends
	undo   *undo    // what Discard goes back to
	gen    int32    // counts the changes of work
	resets int32    // counts the calls of Destroy and Discard: each empties the log
	ends   int32    // counts those of Destroy

	blind      bool          // log deletes what is not in life.base, and what the handler has not looked for
	committing bool          // a commit is under way; one at a time
	fresh      bool          // the latest commit has stored something: the token is the session's
	sent       bool          // the latest commit has asked the store for something
	unsure     bool          // and nobody can tell yet whether that is stored
	committed  chan struct{} // closed when it ends; nil if nobody waits

	revoke    bool // Destroy: the client's cookie goes, whatever it opens
	former    bool // the cookies of earlier releases go, too
	leaving   bool // Destroy, and no Discard since
	loggedOut bool // and that was done
	cookie    cookieAction
	unread    bool     // the record could not be loaded
	neglected bool     // the store has refused or failed the housekeeping: it is left to another request
	stale     error    // the token was replaced by a login before this request
	broken    error    // nothing can be committed any more, and the request fails: a load or a commit failed
	wrong     error    // a change that could not be made: until Discard
	note      error    // what else Err tells, and the response does not
	handed    []hash   // of the tokens that Token has returned
	drawn     []mark   // the form tokens that this request has made
	known     verifier // the current one when Check last looked
}

// room is for requests that look at one key and make one change, as most do.
type room struct {
	looks [1]row[look]
	log   [1]op
}

// draft is one piece of memory for what a request that changes its session needs: the
// state that it changes, and the one that its commit stores.
type draft struct {
	work, view state
	edits      [1]row[value]
	versions   [maxVersions * versionSize]byte
}

// life is a session's base and what the client's token is to it.
type life struct {
	base      *state
	token     token    // what the client should present; drawn late for a new session
	shown     verifier // what it did present
	presented bool     // a client did: shown is nothing that this request was issued itself
	standing  standing
	ending    bool   // it holds nothing, and another request ends it just now
	barred    bool   // its time is over, or it is not sealed as configured: all that can be done is to end it
	old       bool   // base is what a cache had, and another process may have changed it since
	unseen    bool   // shown is replaced, and its successor is still to be sent
	sameUser  *state // superseded while its user stayed the same: what Destroy ends all the same
	gone      bool   // superseded stands for a session that has ended
}

// undo is a session before Destroy.
type undo struct {
	life   life
	looks  looks
	others []*state
}

// op is one change. A commit that comes too late applies it again to the newer
// record, so it must depend on nothing else. It changes nothing if it fails.
type op struct {
	set value              // what Set has set
	do  func(*state) error // any other change
}

func (o op) apply(st *state) error {
	if o.do != nil {
		return o.do(st)
	}
	st.values.set(o.set)
	return nil
}

// cookieAction is what the response says about the cookie.
type cookieAction byte

const (
	keepCookie cookieAction = iota
	setCookie
	revokeCookie
)

// must panics where there is no session to use.
func (s *Session) must() {
	if s == nil {
		panic("session2: the session is nil: this request's handler is not inside Manager.Wrap, " +
			"or its context is not the one that Wrap made")
	}
	if s.m == nil {
		panic("session2: a Session that no Manager has made")
	}
}

var errOver = errors.New("session2: the session was used after its handler had returned: changes are not stored")

// look loads the session at its first use and returns with s.mu held.
func (s *Session) look() {
	s.must()
	if !s.loaded.Load() {
		s.load(s.ctx)
	}
	s.mu.Lock()
}

// alter is look for a change.
func (s *Session) alter() {
	s.look()
	if s.over.Load() {
		s.mu.Unlock()
		s.tellLate() // if the application's code panics, s.mu is not the caller's yet
		s.mu.Lock()
	}
}

// tellLate tells of a change by a goroutine that has outlived its handler.
func (s *Session) tellLate() {
	if !s.warned.CompareAndSwap(false, true) {
		return
	}
	s.mu.Lock()
	id := s.work.id
	s.note = cmp.Or(s.note, errOver)
	s.mu.Unlock()
	s.m.emit(s.eventContext(), Event{Kind: EventDropped, ID: id, Err: errOver})
}

// alterHeld is alter for a caller who has looked, and holds s.mu again after it, also if the
// application's code panics.
func (s *Session) alterHeld() {
	if s.over.Load() {
		s.mu.Unlock()
		defer s.mu.Lock()
		s.tellLate()
	}
}

// change applies do to what the handler sees and logs it for the commit.
func (s *Session) change(do func(*state) error) {
	s.alter()
	defer s.mu.Unlock()
	s.apply(do)
}

// apply is change with s.mu held.
func (s *Session) apply(do func(*state) error) {
	work := s.own()
	if err := do(work); err != nil {
		s.wrong = cmp.Or(s.wrong, err)
		return
	}
	s.changes(work, op{do: do})
}

// changes notes a change: work has it, and o does it again.
func (s *Session) changes(work *state, o op) {
	s.work, s.log, s.gen = work, append(roomy(s.log), o), s.gen+1
}

// own returns a state for the handler's own changes.
func (s *Session) own() *state {
	if s.work != s.life.base {
		return s.work
	}
	s.draft = new(draft)
	work := s.work.cloneTo(&s.draft.work, s.draft.edits[:0])
	if s.gen > 0 { // they may be in an earlier draft, which would keep the one before it, and so on
		work.versions = slices.Clone(work.versions)
	}
	return work
}

// refuse notes a change that could not be made: the request will fail, so that
// nobody is told of a success.
func (s *Session) refuse(err error) {
	s.alter()
	defer s.mu.Unlock()
	s.wrong = cmp.Or[error](s.wrong, &changeError{err})
}

// ID returns the record's ID, which is public. A new session's is drawn here,
// and is the one that it will be stored under.
func (s *Session) ID() ID {
	s.look()
	defer s.mu.Unlock()
	s.draw()
	return s.work.id
}

// draw gives a new session its token.
func (s *Session) draw() {
	l := &s.life
	if l.base.stored() || l.token.id != (ID{}) {
		return
	}
	l.token = newToken()
	l.shown, l.standing = l.token.secret, current
	l.base.id, s.work.id = l.token.id, l.token.id
}

// Token returns what the client must present from the next commit on, for a transport
// other than the cookie; "" if there is no session to come back to. It is a secret.
// SetUser, SetLevel, Renew and Config.RenewEvery replace it, at the commit: ask again
// after that.
func (s *Session) Token() string {
	s.look()
	defer s.mu.Unlock()
	if !s.work.hasInfo() {
		return ""
	}
	s.draw()
	if s.life.token.secret == (verifier{}) { // replaced by a login: what comes after it is known to the commit alone
		return ""
	}
	s.handOut()
	return s.life.token.encode()
}

// handOut remembers the token for as long as the handler runs: if the
// application opens the session by it meanwhile, that is no theft.
func (s *Session) handOut() {
	h := s.life.token.secret.hash()
	if s.request != nil && !s.over.Load() && !slices.Contains(s.handed, h) {
		s.handing.Store(true)
		s.handed = append(s.handed, h)
		s.m.handed.add(h)
	}
}

// IsNew reports whether the session is not stored yet: the request's token has opened
// none, or there was no token, and nothing was committed since.
func (s *Session) IsNew() bool {
	s.look()
	defer s.mu.Unlock()
	return !s.work.stored()
}

// User returns who is signed in, "" if nobody is.
func (s *Session) User() string {
	s.look()
	defer s.mu.Unlock()
	return s.work.user
}

// SetUser signs user in, or, with "", signs out. user is what the application knows the
// user by, at most 1024 bytes, those of Config.Realm included; a longer one is a
// mistake: it is in Err, and fails the request. The token is replaced: the old one is
// dead at once, for requests under way too (ASVS 7.2.4). If nobody or the same user was
// signed in before, what the session holds stays, but for form tokens and CSRF tokens;
// else it is cleared first. Signing in begins the session's Lifetime anew (NIST SP
// 800-63B-4, 5.2). Call it only when the user has proved who they are.
//
// If the request presents cookies of two different sessions, SetUser ends both and
// begins one of its own.
func (s *Session) SetUser(user string) {
	s.must()
	if len(userKey(s.m.cfg.Realm, user)) > maxUser {
		s.refuse(fmt.Errorf("session2: set user: a user has at most %d bytes, the realm included", maxUser))
		return
	}
	s.alter()
	defer s.mu.Unlock()
	s.endOthers()
	another := s.work.user != "" && s.work.user != user
	if another { // what this request did before was done for the former user
		s.looks.discarded()
		s.reset()
		s.looks.former(s.gen + 1)
	}
	now := microNow()
	s.apply(func(st *state) error {
		if st.user != "" && st.user != user || another && !st.joins {
			st.clear()
			st.lifetime, st.idle, st.persistent = 0, 0, persistDefault
		}
		st.user = user
		st.signIn = user != ""
		if !st.joins { // else it is the twin's, which has proved as much
			st.auth = authentication{}
		}
		if st.signIn && st.stored() && !st.joins { // the twin's login began it
			st.login = now
		}
		return renew(st)
	})
}

// Renew replaces the token, as any change of privileges should: the old one is
// dead at once. What the session holds stays, but for form tokens and CSRF
// tokens, which whoever knew the old session may know.
func (s *Session) Renew() { s.change(renew) }

func renew(st *state) error {
	if !st.joins { // else they are the twin's, from after its login
		st.csrf, st.forms = nil, nil
	}
	st.renew = true
	return nil
}

// Get returns a copy of the value of key, nil if there is none. A value that cannot be
// decoded reads as nil; this is in Err, and an EventCorrupt. With [Gob], read what a
// [Key] has set by that Key: Get decodes it only if its type is of a basic kind or an
// interface.
func (s *Session) Get(key string) any {
	return s.decode(key, s.raw(key))
}

// decode returns the value of key from its encoding, nil if there is none.
func (s *Session) decode(key string, e value) any {
	if !e.ok() {
		return nil
	}
	v, err := decodeAny(s.m.cfg.Codec, e.data())
	if err != nil {
		s.undecodable(fmt.Sprintf("get %q", key), anyType, err)
		return nil
	}
	return v
}

// raw returns the encoded value of key.
func (s *Session) raw(key string) value {
	s.look()
	defer s.mu.Unlock()
	s.saw(key)
	return s.work.values.get(key)
}

// saw notes that the handler looks at key. It is called with s.mu held.
func (s *Session) saw(key string) {
	if !s.m.cfg.AllowLostUpdates {
		s.looks.saw(key, s.life.base)
	}
}

// sawAll is saw for all keys.
func (s *Session) sawAll() {
	if !s.m.cfg.AllowLostUpdates {
		s.looks.sawAll(s.life.base)
	}
}

// valueError hides the text of its cause, which might show the value, unless it is ours.
type valueError struct {
	what  string
	cause error
}

func (e *valueError) Error() string {
	if why, ours := e.cause.(badValue); ours {
		return fmt.Sprintf("%s: %v", e.what, why)
	}
	return fmt.Sprintf("%s (%T)", e.what, e.cause)
}

func (e *valueError) Unwrap() error { return e.cause }

// anyType is what a value is decoded as whose reader names no type.
const anyType = "a value that names its type: read what a Key has set by that Key, or gob.Register its type, " +
	"one that was renamed by gob.RegisterName and its former name"

// undecodable notes a value that counts as absent.
func (s *Session) undecodable(where, what string, err error) {
	err = fmt.Errorf("session2: %s: %w", where, &valueError{"the value cannot be decoded as " + what, err})
	s.mu.Lock()
	s.note = cmp.Or(s.note, err)
	e := Event{Kind: EventCorrupt, ID: s.work.id, User: s.work.user, Err: err}
	s.mu.Unlock()
	s.m.emit(s.eventContext(), e)
}

// Set sets key to v, which is encoded at once: changing v afterwards changes nothing.
// Basic kinds (string, bool, integers, floats, []byte, time.Time, time.Duration, nil)
// come back as what they were; for others see [Codec] and [Key]. A value that cannot be
// encoded is in Err, and fails the request. If all that a request changes is what was
// there already, nothing is written, and what others have set meanwhile stays.
func (s *Session) Set(key string, v any) {
	s.must()
	if s.putBasic(key, v) {
		return
	}
	e, err := encodeAny(s.m.cfg.Codec, key, v)
	s.put(key, e, err)
}

// putBasic sets a short value of a basic kind, and reports whether it is one. It is
// encoded before the lock is taken, and copied to where there is room for more of them.
func (s *Session) putBasic(key string, v any) bool {
	var room [256]byte
	if len(key)+basicSize(v) > len(room) {
		return false
	}
	b, ok := appendBasic(append(room[:0], key...), v)
	if !ok {
		return false
	}
	s.alter()
	defer s.mu.Unlock()
	s.write(key, value{s.keep(b), len(key)})
	return true
}

// keep returns a copy of b.
func (w *working) keep(b []byte) []byte {
	if len(b) > len(w.spare) {
		n := len(b)
		if w.gen > 0 { // as for roomy
			n = max(n, min(16*n, 1024))
		}
		w.spare = make([]byte, n)
	}
	kept := w.spare[:len(b):len(b)]
	w.spare = w.spare[copy(kept, b):]
	return kept
}

func (s *Session) put(key string, v value, err error) {
	if err != nil {
		s.refuse(setError(key, err))
		return
	}
	s.alter()
	defer s.mu.Unlock()
	s.write(key, v)
}

// write is put with s.mu held.
func (s *Session) write(key string, v value) {
	s.looks.wrote(key, s.gen+1)
	work := s.own()
	work.values.put(key, v)
	s.changes(work, op{set: v})
}

func setError(key string, err error) error {
	return fmt.Errorf("session2: set %q: %w", key, err)
}

// Delete removes key, also where another request has set it in the meantime and this
// one has not looked for it.
func (s *Session) Delete(key string) {
	s.alter()
	defer s.mu.Unlock()
	s.remove(key)
}

// Pop returns the value of key and removes it; nil if there is none.
func (s *Session) Pop(key string) any {
	return s.decode(key, s.pop(key))
}

// pop removes key and returns what it was.
func (s *Session) pop(key string) value {
	s.alter()
	defer s.mu.Unlock()
	s.saw(key)
	e := s.work.values.get(key)
	s.remove(key)
	return e
}

// remove is Delete with s.mu held.
func (s *Session) remove(key string) {
	s.looks.wrote(key, s.gen+1)
	s.blind = s.blind || s.looks.row(key).blind && !s.life.base.values.get(key).ok()
	s.apply(func(st *state) error {
		st.values.delete(key)
		return nil
	})
}

// Has reports whether key has a value.
func (s *Session) Has(key string) bool {
	return s.raw(key).ok()
}

// Keys returns the keys in order. The caller owns the slice.
func (s *Session) Keys() []string {
	s.look()
	defer s.mu.Unlock()
	s.sawAll()
	list := s.work.values.list()
	keys := make([]string, len(list))
	for i, v := range list {
		keys[i] = v.key()
	}
	return keys
}

// Clear removes all keys, flash messages, form tokens and CSRF tokens. The user stays
// signed in: Destroy is the logout.
func (s *Session) Clear() {
	s.alter()
	defer s.mu.Unlock()
	s.looks.wroteAll(s.gen + 1)
	s.blind = s.blind || s.looks.all == nil && !s.life.base.values.any()
	s.apply(func(st *state) error {
		st.clear()
		return nil
	})
}

// HasInfo reports whether the session holds something: a user, a key, a flash
// message, a form token or a CSRF token. One that does not is not stored.
func (s *Session) HasInfo() bool {
	s.look()
	defer s.mu.Unlock()
	return s.work.hasInfo()
}

// Dirty reports whether there are changes that no commit has stored yet.
func (s *Session) Dirty() bool {
	s.must()
	if !s.loaded.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed()
}

// Err returns what went wrong with the session so far, nil if nothing did. It matches
// [ErrNotFound] if the session ended while the request ran, [ErrStale] if its token was
// replaced, and [ErrLostUpdate] if another request has changed a key that this one read
// and set; then the changes since the latest commit were dropped.
func (s *Session) Err() error {
	s.must()
	if !s.loaded.Load() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return cmp.Or(s.broken, s.wrong, s.note, s.stale)
}

// unusable returns why the session could not be loaded or stored.
func (s *Session) unusable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// Created returns when the session began.
func (s *Session) Created() time.Time {
	s.look()
	defer s.mu.Unlock()
	return s.work.created.time()
}

// Accessed returns when the session was last used, to Config.AccessResolution. Until
// this request has committed, that is the use before it.
func (s *Session) Accessed() time.Time {
	s.look()
	defer s.mu.Unlock()
	return s.work.accessed.time()
}

// Expires returns when the session will end if it is not used again.
func (s *Session) Expires() time.Time {
	s.look()
	defer s.mu.Unlock()
	return s.m.cfg.expiry(s.work).time()
}

// RemoteAddr returns [net/http.Request].RemoteAddr of the request that began the
// session. No header is looked at.
func (s *Session) RemoteAddr() string {
	s.look()
	defer s.mu.Unlock()
	return s.work.remote
}

// UserAgent returns the User-Agent of the request that began the session, its
// first 256 bytes.
func (s *Session) UserAgent() string {
	s.look()
	defer s.mu.Unlock()
	return s.work.agent
}

// SetPersistent says whether this session's cookie outlives the browser, instead of
// CookieConfig.Persistent.
func (s *Session) SetPersistent(persistent bool) {
	p := persistNo
	if persistent {
		p = persistYes
	}
	s.change(func(st *state) error {
		st.persistent, st.reissue = p, true
		return nil
	})
}

// SetLifetime sets this session's absolute limit, counted from its creation or
// its latest login and not from now, instead of Config.Lifetime; 0 goes back to
// that. A negative one, or one of less than a millisecond, is a mistake: it is in Err, and
// fails the request.
func (s *Session) SetLifetime(d time.Duration) {
	err := noUnit("set lifetime", d)
	if d < 0 {
		err = fmt.Errorf("session2: set lifetime: %v is negative", d)
	}
	if err != nil {
		s.refuse(err)
		return
	}
	s.change(func(st *state) error {
		st.lifetime = d
		st.reissue = st.reissue || s.m.cfg.lasts(st) != 0
		return nil
	})
}

// SetIdleTimeout sets how long this session may go unused, instead of
// Config.IdleTimeout: 0 goes back to that, and with a negative d there is no such
// limit. One of less than a millisecond is a mistake: it is in Err, and fails the request.
func (s *Session) SetIdleTimeout(d time.Duration) {
	if err := noUnit("set idle timeout", d); err != nil {
		s.refuse(err)
		return
	}
	s.change(func(st *state) error {
		st.idle = d
		return nil
	})
}

// Remember keeps the session for d, used or not, in a cookie that outlives the
// browser: it is SetPersistent(true), SetLifetime(d) and SetIdleTimeout(d). Call it
// after SetUser, which drops the limits of another user's session; a later login of
// the same user keeps them, unless it sets others. A d that is not positive, or of less
// than a millisecond, is a mistake: it is in Err, and fails the request. Browsers keep no
// cookie for longer than 400 days.
func (s *Session) Remember(d time.Duration) {
	err := noUnit("remember", d)
	if d <= 0 {
		err = fmt.Errorf("session2: remember: %v is not positive", d)
	}
	if err != nil {
		s.refuse(err)
		return
	}
	s.SetPersistent(true)
	s.SetLifetime(d)
	s.SetIdleTimeout(d)
}

// Passive says that this request is no use of the session, such as a page's own
// poll: it does not keep the session from its idle limit. A login in the same
// request is a use all the same.
func (s *Session) Passive() {
	s.must()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passive = true
}

// Destroy ends the session, whatever else goes on: a logout. The commit deletes the
// record and revokes the cookie, also one that opens nothing any more. If the request
// presents cookies of several sessions, all of them end. What is changed after Destroy
// belongs to a new session.
//
// A token that was replaced within RenewGrace ends its session, too, if Renew, SetLevel
// or another login of the same user has replaced it. One from before a login that
// changed whose session it is ends nothing, or whoever knew it then could sign others
// out: only the cookie goes, and Err matches [ErrStale]. But a request that was under
// way at that login, and had looked at its session before, does end it.
func (s *Session) Destroy() {
	s.alter()
	defer s.mu.Unlock()
	opens := s.stillOpens()
	s.endOthers()
	switch st := cmp.Or(s.life.sameUser, s.life.base); {
	case !opens:
		s.remember()
		s.life, s.looks = s.shut(st.id, s.life.shown), looks{}
		s.stale = fmt.Errorf("session2: load %v: %w", st.id, ErrStale)
	case st.stored():
		s.endToo(st)
		s.life, s.looks = life{base: s.newState()}, looks{}
	}
	for _, st := range slices.Concat(s.barred, s.passed) { // by another configuration the one would be open again
		s.endToo(st)
	}
	s.revoke = s.presentsAny()
	s.ends++
	s.leaving = true
	s.reset()
	if s.life.standing == superseded { // the session is not ended by this token, and that is audible
		s.apply(func(*state) error { return nil })
	}
}

// endOthers ends the sessions that the request presents beside one another.
func (s *Session) endOthers() {
	if len(s.others) > 0 {
		s.remember()
		s.ended, s.others = append(s.ended, s.others...), nil
	}
}

// endToo has Destroy end a session, once.
func (s *Session) endToo(st *state) {
	if !isAmong(s.ended, st) {
		s.remember()
		s.ended = append(s.ended, st)
	}
}

// remember keeps the session as it was before the first Destroy, for Discard.
func (s *Session) remember() {
	if s.undo == nil {
		s.undo = &undo{s.life, s.looks.clone(), s.others}
	}
}

// Discard drops all changes that no commit has stored, Destroy included.
func (s *Session) Discard() {
	s.must()
	if !s.loaded.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stay()
	s.wrong = nil
	s.looks.discarded()
	s.reset()
}

// stay takes Destroy back, as far as it is not done. It is called with s.mu held.
func (s *Session) stay() {
	if u := s.undo; u != nil {
		s.life, s.looks, s.others = u.life, u.looks, u.others
	}
	s.undo, s.ended, s.revoke, s.leaving = nil, nil, false, false
}

// failed has the session as it was committed last: the request is answered by the error
// handler, and what it still had to store is not.
func (s *Session) failed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.working != nil && s.undo != nil {
		s.stay()
		s.reset()
	}
}

// hold notes that the request is about to load a session, the first one only: with a
// second one none is its own. It returns false if the session is being ended.
func (s *Session) hold(id ID) bool {
	if s.request == nil { // nobody says when it ends
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != (ID{}) || s.over.Load() {
		return true
	}
	if !s.m.open.enter(id) {
		return false
	}
	s.held = id
	return true
}

// holdOwn notes that the request has a session that it has made itself. It is called with
// s.mu held.
func (s *Session) holdOwn(id ID) {
	if s.request == nil || s.over.Load() || s.holds(id) || !s.m.open.enter(id) {
		return
	}
	if was := s.made; was != (ID{}) && s.m.open.leave(was) { // the request has ended that one
		s.m.open.ended(was)
	}
	s.made = id
}

// holds reports whether the request is one of those that have the session. It is called
// with s.mu held.
func (s *Session) holds(id ID) bool { return id != (ID{}) && (id == s.held || id == s.made) }

// letGo notes that the request has ended, and ends a session that holds nothing and
// that no other request has.
func (s *Session) letGo() {
	s.mu.Lock()
	held, made := s.held, s.made
	s.held, s.made = ID{}, ID{}
	s.mu.Unlock()
	defer s.leaves(made)
	s.leaves(held)
}

func (s *Session) leaves(id ID) {
	if id == (ID{}) || !s.m.open.leave(id) {
		return
	}
	defer s.m.open.ended(id)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.m.cfg.CommitTimeout)
	defer cancel()
	ended, err := s.m.endIf(ctx, id, func(st *state) bool {
		return !st.hasInfo() && !st.turns.awaited(nil, microNow())
	})
	if err != nil {
		s.m.emit(s.eventContext(), Event{Kind: EventStoreError, ID: id, Err: err})
	} else if ended {
		s.m.emit(s.eventContext(), Event{Kind: EventDestroyed, ID: id})
	}
}

// fooled reports whether the session reads as empty because it could not be loaded.
func (s *Session) fooled() bool {
	if !s.loaded.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unread
}

// finish ends the request's use of the session: its handler has returned.
func (s *Session) finish() {
	s.over.Store(true)
	defer s.unfollow()
	defer s.takeBack()
	defer s.letGo()
	s.endTurn()
}

// takeBack forgets the tokens that the handler was given.
func (s *Session) takeBack() {
	if !s.handing.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.handed {
		s.m.handed.remove(h)
	}
	s.handed = nil
}

// reset forgets the log.
func (s *Session) reset() {
	s.work, s.log, s.blind, s.gen = s.life.base, nil, false, s.gen+1
	s.resets++
}

// Commit stores the changes so far, where a handler must know that they are stored
// before it goes on, and for a session of [Manager.Open]. ctx is looked at once: a
// commit that has begun does not end with it, but in Config.CommitTimeout. The error
// matches [ErrNotFound] if the session ended meanwhile, [ErrStale] if its token was
// replaced, and [ErrLostUpdate] if another request has changed a key that this one read
// and set. With an error, nothing was stored by this call, unless it matches
// [ErrUncertain]. If ctx had ended, the changes are still to come with the request's
// own commit: [Session.Discard] drops them. What Destroy has ended has ended, even if
// what came after it could not be stored because the response had begun and no cookie
// could be sent.
func (s *Session) Commit(ctx context.Context) error {
	s.must()
	ctx = s.beyond(ctx)
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.over.Load() {
		s.alter()
		s.mu.Unlock()
	}
	return s.commit(ctx)
}

// Check looks, for a handler that runs for long, whether the session is still the one
// that was opened: it returns nil if so, however often its token has been replaced, and
// an error matching [ErrNotFound] if the session has ended or expired, or somebody else
// has signed in. Any other error is the store's. It is a use of the session, as a
// request is, unless the request is [Session.Passive]. What the session shows stays as
// it was loaded. For a new session, which nobody can have ended, Check returns nil.
func (s *Session) Check(ctx context.Context) error {
	s.look()
	base, shown, standing, passive := s.life.base, s.life.shown, s.life.standing, s.passive
	err, ended := s.broken, len(s.ended) > 0 || s.ends > 0
	s.mu.Unlock()
	switch {
	case err != nil:
		return err
	case !base.stored() && (ended || standing == superseded):
		return fmt.Errorf("session2: check: %w", ErrNotFound)
	case !base.stored():
		return nil
	}
	ctx = s.beyond(ctx)
	st, err := s.m.fetch(ctx, base.id)
	var secret verifier
	if err == nil && st.user == base.user {
		secret, err = s.reopen(st, shown)
	}
	switch {
	case errors.Is(err, ErrCorrupt):
		return fmt.Errorf("session2: check %v: %w: %w", base.id, ErrNotFound, err)
	case err != nil:
		return fmt.Errorf("session2: check %v: %w", base.id, err)
	case st.user != base.user:
		return fmt.Errorf("session2: check %v: another user has signed in: %w", base.id, ErrNotFound)
	case passive:
		return nil
	}
	return s.m.used(ctx, st, &secret)
}

// Dump writes what the session holds, for debugging: its user, times and addresses, and
// keys with their sizes, but no values.
func (s *Session) Dump(w io.Writer) {
	s.look()
	s.sawAll()
	s.draw()
	st := s.work.clone()
	s.mu.Unlock()
	fmt.Fprintf(w, "session  %v\nuser     %q\ncreated  %v\naccessed %v\nexpires  %v\n",
		st.id, st.user, st.created.time(), st.accessed.time(), s.m.cfg.expiry(st).time())
	fmt.Fprintf(w, "remote   %q\nagent    %q\nforms    %d\nflashes  %d\n",
		st.remote, st.agent, len(st.forms), len(st.flashes))
	for _, v := range st.values.list() {
		fmt.Fprintf(w, "value    %q %d bytes\n", v.key(), len(v.data()))
	}
}

// String names the session by what is public of it, without loading it.
func (s *Session) String() string {
	if s == nil {
		return "<nil>"
	}
	if !s.loaded.Load() {
		return "session2.Session(not loaded)"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("session2.Session(%v)", s.work.id)
}

// Format is String with every verb: nothing prints what a session holds.
func (s *Session) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) }

// LogValue is String for package slog.
func (s *Session) LogValue() slog.Value { return slog.StringValue(s.String()) }
