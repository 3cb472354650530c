// Package sessiontest has helpers for the tests of applications that use session2.
//
// [Request] gives a request a session in one line; [After] is the session that a response
// has left, and [Next] the client's next request. None of them needs a server, or the
// name of the cookie or header:
//
//	r := sessiontest.Request(t, m, httptest.NewRequest("GET", "/account", nil), func(s *session2.Session) {
//		s.SetUser("alice")
//	})
//	w := httptest.NewRecorder()
//	handler.ServeHTTP(w, r)
//	s := sessiontest.After(t, m, r, w.Result())
//
// They speak to the manager as a client does: a session is stored in the manager's store,
// its cookie has a token, events are raised. [NewStore] wraps a store to make it fail.
//
// A request goes as it would in the application: over TLS or not, for
// CookieConfig.SecureFunc, as httptest.NewRequest makes it of an https URL; and by the
// header of Config.Transport if it has that header, as "Authorization: Bearer" alone, or if
// all requests go by it.
//
// # Time
//
// Sessions expire, and a failing store is asked again, by time.Now: inside
// [testing/synctest.Test], time.Sleep(31 * time.Minute) takes no time and ends a session by
// its idle limit. Make the store and the manager inside the bubble, and use
// [session2.MemoryStore] and the handlers themselves, as above: a real file, database or
// network is nothing that the bubble can wait for. [session2.Manager.Cleanup] runs in a
// goroutine that must have ended before the bubble does.
package sessiontest

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
)

// Request returns a clone of r that carries a session of m as prepare has made it. The
// session is stored in m's store. Where r carries a session already, prepare is given that
// one. The body of r is shared, and not read.
//
// A session that cannot be stored ends the test; so does one that holds nothing, for that
// one is not stored and has no cookie: a request of a visitor without a session is r itself.
func Request(t testing.TB, m *session2.Manager, r *http.Request, prepare func(s *session2.Session)) *http.Request {
	t.Helper()
	var err error
	var holds bool
	resp := serve(m, r, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		prepare(s)
		holds = s.HasInfo()
		err = s.Commit(r.Context())
	})
	switch {
	case err != nil:
		t.Fatalf("sessiontest: the session cannot be stored: %v", err)
	case !holds:
		t.Fatal("sessiontest: the session holds nothing, so it is not stored, and there is no token to carry")
	}
	return Next(r, resp, r)
}

// After returns the session that a client has after it has sent r and has got resp: the one
// of the token in resp, or else of the token in r. It is a session of Manager.Open, as it
// is stored now; nothing is changed by looking at it. Where the client has no session, After
// returns a new one, whose IsNew is true.
func After(t testing.TB, m *session2.Manager, r *http.Request, resp *http.Response) *session2.Session {
	t.Helper()
	var token string
	var err error
	serve(m, Next(r, resp, r), func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
		token, err = s.Token(), s.Err()
		w.WriteHeader(http.StatusInternalServerError) // so that nothing is stored
	})
	if err == nil || errors.Is(err, session2.ErrStale) { // by a token that was replaced the browser is nobody
		var s *session2.Session
		if s, err = m.Open(context.Background(), token); err == nil {
			return s
		}
	}
	t.Fatalf("sessiontest: the session cannot be loaded: %v", err)
	return nil
}

// Next returns a clone of next with the cookies that a browser has after it has sent r and
// has got resp: those of r, as the Set-Cookie lines of resp have changed them. They go by
// their names: paths, domains and next's own cookies are not looked at. A Set-Cookie line
// with a negative Max-Age or a time that is over removes its cookie. Where r or resp has a
// token in a header, as with Config.Transport, next is given the latest one in that header.
func Next(r *http.Request, resp *http.Response, next *http.Request) *http.Request {
	jar := r.Cookies()
	for _, c := range resp.Cookies() {
		jar = slices.DeleteFunc(jar, func(old *http.Cookie) bool { return old.Name == c.Name })
		if over := !c.Expires.IsZero() && !c.Expires.After(time.Now()) && c.MaxAge == 0; c.MaxAge >= 0 && !over {
			jar = append(jar, &http.Cookie{Name: c.Name, Value: c.Value, Quoted: c.Quoted})
		}
	}
	next = next.Clone(next.Context())
	next.Header.Del("Cookie")
	for _, c := range jar {
		next.AddCookie(c)
	}
	if name, value := credential(r.Header, resp.Header); name != "" {
		next.Header.Set(name, value)
	}
	return next
}

const (
	bearer = "Bearer "
	reply  = "Session-Token" // the response header for a token that Authorization brings
)

// credential returns the header that an API client sends after it has sent sent and has got
// got; "" if no token is in either.
func credential(sent, got http.Header) (name, value string) {
	for key, lines := range sent {
		text := strings.Join(lines, ",")
		if isToken(text) || key == "Authorization" && isToken(strings.TrimPrefix(text, bearer)) {
			name, value = key, text
		}
	}
	for key, lines := range got {
		switch text := strings.Join(lines, ","); {
		case key == reply && sent[reply] == nil: // else it is the application's own header
			name, value = "Authorization", strings.TrimSpace(bearer+text)
		case key == name, isToken(text): // an empty text takes the token away
			name, value = key, text
		}
	}
	return name, value
}

// isToken reports whether a text has the form of a session's token.
func isToken(text string) bool {
	id, secret, _ := strings.Cut(text, ".")
	_, err := session2.ParseID(id)
	return err == nil && len(secret) == base64.RawURLEncoding.EncodedLen(32)
}

// serve has m serve a request with the header of r by f.
func serve(
	m *session2.Manager, r *http.Request, f func(s *session2.Session, w http.ResponseWriter, r *http.Request),
) *http.Response {
	own := r.Clone(context.Background()) // within no other Wrap, and whatever has become of r's context
	own.Body = http.NoBody
	own.Header.Set("Sec-Fetch-Site", "same-origin") // so that nobody is warned of a test's plain HTTP
	w := httptest.NewRecorder()
	m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(m.Session(r), w, r) })).ServeHTTP(w, own)
	return w.Result()
}
