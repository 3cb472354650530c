package session2

import (
	"errors"
	"fmt"
	"time"
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
// with a user, or SetLevel. It is the zero time if nobody is signed in. A cookie that
// is presented again, even after days, proves nothing anew.
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

// SetLevel says how much the user has proved, from 1 to 255; what each means is the
// application's to say, such as 2 for a second factor. It replaces the token as Renew
// does. A level that is not lower than the present one counts as an authentication;
// a lower one gives up privileges and is no proof of anything. The next SetUser goes
// back to 1. Lifetime is not begun anew, as one factor alone does not extend a
// session of two (NIST SP 800-63B-4, 2.2.3). A level out of range, or of nobody, is a
// mistake: it is in Err, and fails the request.
func (s *Session) SetLevel(level int) {
	s.must()
	if level < 1 || level > maxLevel {
		s.refuse(fmt.Errorf("session2: set level: %d is not from 1 to %d", level, maxLevel))
		return
	}
	if s.User() == "" {
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

// AAL1 returns the limits of NIST SP 800-63B-4, 2.1.3, for authenticator assurance
// level 1, to be completed: 30 days overall, and no idle limit. The application still
// has to authenticate the user by one factor and to offer a logout.
func AAL1() Config {
	return Config{Lifetime: 30 * 24 * time.Hour, IdleTimeout: -1}
}

// AAL2 returns the limits of NIST SP 800-63B-4, 2.2.3, for authenticator assurance
// level 2, to be completed: 24 hours overall, 1 hour idle. The application still has
// to authenticate the user by two factors before it calls SetUser, or to serve what
// needs level 2 only where [Session.Level] says so; to offer an authenticator that
// resists phishing; and to leave alone Remember, SetLifetime and SetIdleTimeout, which
// go beyond the limits.
func AAL2() Config {
	return Config{Lifetime: 24 * time.Hour, IdleTimeout: time.Hour}
}

// AAL3 returns the limits of NIST SP 800-63B-4, 2.3.3, for authenticator assurance
// level 3, to be completed: 12 hours overall, 15 minutes idle. The application still
// has to authenticate the user by two factors, one of them a hardware key that
// resists phishing, at the login and again when a limit has ended the session, and to
// leave alone Remember, SetLifetime and SetIdleTimeout, which go beyond the limits.
func AAL3() Config {
	return Config{Lifetime: 12 * time.Hour, IdleTimeout: 15 * time.Minute}
}
