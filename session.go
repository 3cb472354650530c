package session2

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// maxUser bounds the user's name, in bytes, so that every store can index it.
const maxUser = 1024

// maxAgent bounds what is kept of a User-Agent header, in bytes.
const maxAgent = 256

// Session is one request's handle on its session. The first use of its data
// loads the record, once; changes are seen at once by this request and stored
// by the commit, just before the response's first byte. Goroutines of the
// request may share it.
//
// Accessors return no error. What went wrong is in [Session.Err]; if the record
// could not be loaded, the session reads as empty and the request is answered
// by the error handler.
type Session struct {
	m       *Manager
	ctx     context.Context // to load by
	arrived time.Time       // tokens are judged by it
	request *http.Request   // nil for Manager.Open
	opened  string          // Manager.Open's token

	loadOnce sync.Once
	commitMu sync.Mutex // one commit at a time; taken before mu

	mu     sync.Mutex
	life   life   // the session as it was loaded or last committed
	work   *state // life.base with log applied: what the handler sees; nil before the first look
	log    []op   // what was changed and is not stored yet
	gen    int    // counts the changes of work
	resets int    // counts the calls of Destroy and Discard: each empties the log
	ends   int    // counts those of Destroy
	doomed *life  // ended by Destroy, not deleted yet
	begun  bool   // the response has begun: no cookie can be sent any more
	cookie cookieAction
	broken error // nothing can be committed any more, and the request fails: the record could not be loaded, or a commit failed
	wrong  error // a change that could not be made: until Discard
	note   error // what else Err tells, and the response does not
}

// life is a session's base and what the client's token is to it.
type life struct {
	base     *state
	token    token    // what the client should present; drawn late for a new session
	shown    verifier // what it did present
	standing standing
	unseen   bool
}

// op is one change. A commit that comes too late applies it again to the newer
// record, so it must depend on nothing else. It replaces what it changes.
type op func(*state) error

// cookieAction is what the response says about the cookie.
type cookieAction int

const (
	keepCookie cookieAction = iota
	setCookie
	revokeCookie
)

// look loads the session at its first use and returns with s.mu held.
func (s *Session) look() {
	s.loadOnce.Do(func() { s.load(s.ctx) })
	s.mu.Lock()
}

// change applies o to what the handler sees and logs it for the commit.
func (s *Session) change(o op) {
	s.look()
	defer s.mu.Unlock()
	s.apply(o)
}

// apply is change with s.mu held.
func (s *Session) apply(o op) {
	next := *s.work
	if err := o(&next); err != nil {
		s.wrong = firstError(s.wrong, err)
		return
	}
	s.work, s.log, s.gen = &next, append(s.log, o), s.gen+1
}

// refuse notes a change that could not be made: the request will fail, so that
// nobody is told of a success.
func (s *Session) refuse(err error) {
	s.look()
	defer s.mu.Unlock()
	s.wrong = firstError(s.wrong, err)
}

func firstError(old, err error) error {
	if old != nil {
		return old
	}
	return err
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
	if s.life.base.stored() || s.life.token.id != (ID{}) {
		return
	}
	work := *s.work
	s.life = s.newLife()
	work.id = s.life.base.id
	s.work = &work
}

// Token returns what the client must present from the next commit on, for a
// transport other than the cookie; "" if there is no session to come back to.
// It is a secret. A login or Renew changes it at the commit.
func (s *Session) Token() string {
	s.look()
	defer s.mu.Unlock()
	if !s.work.stored() && !s.work.hasInfo() {
		return ""
	}
	s.draw()
	if s.life.token.secret == (verifier{}) { // replaced by a login: what comes after it is known to the commit alone
		return ""
	}
	return s.life.token.encode()
}

// IsNew reports whether no stored session was opened.
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

// SetUser signs user in, at most 1024 bytes that mean something to the
// application, or with "" signs out. The token is replaced: the old one is dead
// at once, for requests under way too (ASVS 7.2.4). What the session holds
// stays, but for form tokens and CSRF tokens; another user's session is cleared
// first. Call it only when the user has proved who they are.
func (s *Session) SetUser(user string) {
	if len(user) > maxUser {
		s.refuse(fmt.Errorf("session2: set user: a user has at most %d bytes", maxUser))
		return
	}
	s.change(func(st *state) error {
		if st.user != "" && st.user != user {
			st.clear()
		}
		st.user = user
		st.login = user != ""
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

// Get returns a copy of the value of key, nil if there is none. A value that
// cannot be decoded reads as nil, and is in Err.
func (s *Session) Get(key string) any {
	data, ok := s.raw(key)
	return s.decode(key, data, ok)
}

// decode returns the value of key from its encoding, nil if there is none.
func (s *Session) decode(key string, data []byte, ok bool) any {
	if !ok {
		return nil
	}
	v, err := decodeAny(s.m.cfg.Codec, data)
	if err != nil {
		s.undecodable(key, err)
		return nil
	}
	return v
}

// raw returns the encoded value of key.
func (s *Session) raw(key string) ([]byte, bool) {
	s.look()
	defer s.mu.Unlock()
	return s.work.get(key)
}

// valueError hides the text of its cause, which might show the value.
type valueError struct {
	what  string
	cause error
}

func (e *valueError) Error() string { return fmt.Sprintf("%s (%T)", e.what, e.cause) }
func (e *valueError) Unwrap() error { return e.cause }

func getError(key string, err error) error {
	return fmt.Errorf("session2: get %q: %w", key, &valueError{"the value cannot be decoded", err})
}

func (s *Session) undecodable(key string, err error) {
	err = getError(key, err)
	s.mu.Lock()
	s.note = firstError(s.note, err)
	e := Event{Kind: EventCorrupt, ID: s.work.id, User: s.work.user, Err: err}
	s.mu.Unlock()
	s.m.emit(s.ctx, e)
}

// Set sets key to v, which is encoded at once: changing v afterwards changes
// nothing. Basic kinds (string, bool, integers, floats, []byte, time.Time,
// time.Duration, nil) come back as what they were; for others see [Codec] and
// [Key]. A value that cannot be encoded is in Err, and fails the request.
func (s *Session) Set(key string, v any) {
	data, err := encodeAny(s.m.cfg.Codec, v)
	s.put(key, data, err)
}

func (s *Session) put(key string, data []byte, err error) {
	if err != nil {
		s.refuse(setError(key, err))
		return
	}
	s.change(setOp(key, data))
}

func setError(key string, err error) error {
	return fmt.Errorf("session2: set %q: %w", key, err)
}

func setOp(key string, data []byte) op {
	return func(st *state) error {
		st.set(key, data)
		return nil
	}
}

// Delete removes key. An absent key is no change.
func (s *Session) Delete(key string) { s.take(key) }

// Pop returns the value of key and removes it; nil if there is none.
func (s *Session) Pop(key string) any {
	data, ok := s.take(key)
	return s.decode(key, data, ok)
}

// take removes key and returns what it was.
func (s *Session) take(key string) ([]byte, bool) {
	s.look()
	defer s.mu.Unlock()
	data, ok := s.work.get(key)
	if ok {
		s.apply(func(st *state) error {
			st.delete(key)
			return nil
		})
	}
	return data, ok
}

// Has reports whether key has a value.
func (s *Session) Has(key string) bool {
	_, ok := s.raw(key)
	return ok
}

// Keys returns the keys in order. The caller owns the slice.
func (s *Session) Keys() []string {
	s.look()
	defer s.mu.Unlock()
	keys := make([]string, len(s.work.values))
	for i, v := range s.work.values {
		keys[i] = v.key
	}
	return keys
}

// Clear removes all keys, flash messages and tokens of forms. The user stays.
func (s *Session) Clear() {
	s.look()
	defer s.mu.Unlock()
	w := s.work
	if len(w.values)+len(w.flashes)+len(w.forms)+len(w.csrf) == 0 {
		return
	}
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
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.log) > 0 || s.doomed != nil
}

// Err returns what went wrong with the session so far, nil if nothing did. It
// matches ErrNotFound if the session ended while the request ran, ErrStale if
// its token was replaced; then the changes were dropped.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return firstError(firstError(s.broken, s.wrong), s.note)
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
	return s.work.created
}

// Accessed returns when the session was last used before this request, to
// Config.AccessResolution.
func (s *Session) Accessed() time.Time {
	s.look()
	defer s.mu.Unlock()
	return s.work.accessed
}

// Expires returns when the session will end if it is not used again.
func (s *Session) Expires() time.Time {
	s.look()
	defer s.mu.Unlock()
	return s.m.cfg.expiry(s.work)
}

// RemoteAddr returns http.Request.RemoteAddr of the request that began the
// session. No header can change it.
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

// SetPersistent says whether the cookie outlives the browser, instead of
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

// SetLifetime sets this session's absolute limit, counted from its creation,
// instead of Config.Lifetime; 0 goes back to that.
func (s *Session) SetLifetime(d time.Duration) {
	if d < 0 {
		s.refuse(fmt.Errorf("session2: set lifetime: %v is negative", d))
		return
	}
	s.change(func(st *state) error {
		st.lifetime, st.reissue = d, true
		return nil
	})
}

// Destroy ends the session, whatever else goes on: a logout. The commit deletes
// the record and revokes the cookie. What is changed after it belongs to a new
// session.
func (s *Session) Destroy() {
	s.look()
	defer s.mu.Unlock()
	if s.life.base.stored() {
		ended := s.life
		s.doomed = &ended
		s.life = life{base: s.newState()}
	}
	s.ends++
	s.reset()
}

// Discard drops all changes that no commit has stored, Destroy included.
func (s *Session) Discard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.work == nil {
		return
	}
	if s.doomed != nil {
		s.life, s.doomed = *s.doomed, nil
	}
	s.reset()
	s.wrong = nil
}

// reset forgets the log.
func (s *Session) reset() {
	s.work, s.log, s.gen = s.life.base, nil, s.gen+1
	s.resets++
}

// Commit stores the changes so far, where a handler must know that they are
// stored before it goes on, and for a session of Manager.Open. ctx is looked at
// once: a commit that has begun does not end with it, but in Config.CommitTimeout.
// The error matches ErrNotFound if the session ended meanwhile, and ErrStale if
// its token was replaced.
func (s *Session) Commit(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.commit(ctx)
}

// Dump writes what the session holds, for debugging: keys and sizes, no values.
func (s *Session) Dump(w io.Writer) {
	s.look()
	st := *s.work
	s.mu.Unlock()
	fmt.Fprintf(w, "session  %v\nuser     %q\ncreated  %v\naccessed %v\nexpires  %v\nremote   %q\nagent    %q\nforms    %d\nflashes  %d\n",
		st.id, st.user, st.created, st.accessed, s.m.cfg.expiry(&st), st.remote, st.agent, len(st.forms), len(st.flashes))
	for _, v := range st.values {
		fmt.Fprintf(w, "value    %q %d bytes\n", v.key, len(v.data))
	}
}

// String names the session by what is public of it, without loading it.
func (s *Session) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.work == nil {
		return "session2.Session(not loaded)"
	}
	return fmt.Sprintf("session2.Session(%v)", s.work.id)
}

// Format is String with every verb: nothing prints what a session holds.
func (s *Session) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) }

// LogValue is String for package slog.
func (s *Session) LogValue() slog.Value { return slog.StringValue(s.String()) }
