package session2

import (
	"errors"
	"net/http"
	"slices"
	"strings"
)

// Transport is how clients carry a session's token. Its zero value is the cookie
// alone.
//
// With Header, API clients send the token in a request header, and are told each new
// one in a response header. Which way a request goes is decided when it arrives, and
// holds for all of it:
//
//   - A request with the header goes by the header, whatever its value. Its cookies are
//     neither looked at, nor set, nor revoked, also if the token opens nothing.
//   - Any other request goes by the cookie, and is told no token in a header.
//
// So a token that a header has brought never becomes a cookie, and one that a cookie has
// brought never leaves by a header, where scripts could read it. Browsers send no such
// header by themselves, nor do they let another site's page add one, unless the
// application allows it to by CORS: a request that goes by the header needs no CSRF token
// (see [Session.ValidCSRFToken]).
//
// A client begins with no token, and asks for one in the header by a header without
// one: "Authorization: Bearer" alone, or a header of the application's own with an empty
// value. What it is told it sends from then on:
//
//   - A new token comes in the response header Session-Token, or in the one that has the
//     request header's name if that is not Authorization. It comes when a session
//     begins, with each login, Renew, SetLevel, and rotation by Config.RenewEvery, and
//     may come in any response, so look at each one. Responses to redirects count: do
//     not answer a login with one, for many clients follow it and drop its header.
//   - An empty value says that there is no session any more, as after a logout.
//   - Without that header in the response, the token stays as it is. A client that did
//     not get an answer goes on with the token that it has: after a periodic rotation it
//     is told the same successor again, and a login that is sent again within RenewGrace
//     is told what the first one was.
//
// The token is the password of the session: it goes over TLS only (RFC 6750, 5.3), and
// is to be kept where no other program reads it. A response that tells one has
// Cache-Control no-store or private (ASVS 14.2.2), and each that depends on the session
// has the header's name in Vary. What the application does: the status 401, with
// WWW-Authenticate: Bearer (RFC 6750, 3); for clients in browsers of other origins,
// Access-Control-Allow-Headers and Access-Control-Expose-Headers; and to remove the header
// by [Manager.StripCookie] from requests that it passes on.
type Transport struct {
	// Header is the request header of API clients: "Authorization", for
	// "Authorization: Bearer <token>" (RFC 6750, 2.1), or one of the application's own,
	// such as "X-Session", of which the token is the whole value. Default none.
	//
	// Authorization with another scheme, or with a Bearer token of another form, such as
	// a JWT, is somebody else's: as if it were not there. Several lines, and what looks
	// like a token of a session and is none, open nothing (EventMalformed).
	Header string

	// HeaderOnly takes no cookie and sets none: all requests go by the header, and a
	// client need not ask. Config.Cookie is of no use, but for Insecure, which says that
	// tokens may go over plain HTTP, for development.
	HeaderOnly bool

	// ReadOnly returns the token that a request brings by other means, such as the
	// subprotocol of a WebSocket, whose client cannot set headers; "" if there is none.
	// Such a request goes neither by the cookie nor, if it has none, by the header. It can
	// use its session, change it and end it, but its client can be told nothing: a
	// periodic rotation waits for another request, and what needs a new token, such as
	// a login, Renew, or a new session, fails (500), and nothing of it is stored. The
	// client has the token from [Session.Token]. One that RenewEvery has replaced, and
	// whose time is over, opens nothing, and is an EventReuse, but does not end the
	// session, for its client could not be told. A token in a URL ends up in logs and
	// histories (ASVS 14.2.1).
	//
	// ReadOnly is called once for each request, when it arrives, and must not use
	// sessions.
	ReadOnly func(r *http.Request) string
}

const (
	authorization = "Authorization"
	tokenReply    = "Session-Token" // the answer to it
)

// way is how the client of one request carries its token.
type way byte

const (
	byCookie      way = iota
	byPlainCookie     // over plain HTTP, by CookieConfig.SecureFunc
	byHeader
	byOther // Transport.ReadOnly
)

// cookie reports whether it is a cookie, of either kind.
func (w way) cookie() bool { return w == byCookie || w == byPlainCookie }

var errReadOnly = errors.New("session2: changes lost: they need a new token, " +
	"and the client of Config.Transport.ReadOnly cannot be told one")

// arrives decides by which way the request goes. Functions of the application are
// called, so it comes before anything else, and no lock is held.
func (s *Session) arrives(r *http.Request) {
	t := &s.m.cfg.Transport
	if _, ours := t.said(r.Header); ours {
		s.way = byHeader
		return
	}
	if t.ReadOnly != nil {
		if text := t.ReadOnly(r); text != "" {
			s.way, s.opened = byOther, &text
			return
		}
	}
	if secure := s.m.cfg.Cookie.SecureFunc; t.HeaderOnly {
		s.way = byHeader
	} else if secure != nil && !secure(r) {
		s.way = byPlainCookie
	}
}

// said returns what a request says in the header, and whether that is for us. Of several
// lines, which are against RFC 9110, 5.3, none counts: their text is no token.
func (t *Transport) said(h http.Header) (text string, ours bool) {
	if t.Header == "" {
		return "", false
	}
	lines := h[t.Header]
	for _, line := range lines {
		if said, is := t.credential(line); is {
			text, ours = said, true
		}
	}
	if ours && len(lines) > 1 {
		text = ","
	}
	return text, ours
}

// credential returns the token of one line of the header (RFC 9110, 11.4; the scheme is
// in any case), and whether the line is for us.
func (t *Transport) credential(line string) (text string, ours bool) {
	if t.Header != authorization {
		return line, true
	}
	scheme, text, _ := strings.Cut(line, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	text = strings.TrimLeft(text, " ")
	return text, text == "" || resemblesToken(text)
}

// resemblesToken reports whether text begins like a token of ours, so that it is nobody
// else's.
func resemblesToken(text string) bool {
	const n = 2 * len(ID{})
	if len(text) <= n || text[n] != '.' {
		return false
	}
	_, err := ParseID(strings.ToLower(text[:n]))
	return err == nil
}

// reply is the name of the response header.
func (t *Transport) reply() string {
	if t.Header == authorization {
		return tokenReply
	}
	return t.Header
}

// presented calls add for each text that the request presents as a token.
func (s *Session) presented(add func(text string)) {
	text := ""
	switch {
	case s.opened != nil: // Manager.Open's, too
		text = *s.opened
	case s.way == byHeader:
		text, _ = s.m.cfg.Transport.said(s.request.Header)
	default:
		for _, c := range s.request.CookiesNamed(s.jar().Name) {
			add(c.Value)
		}
	}
	if text != "" {
		add(text)
	}
}

// presentsAny reports whether the client has anything that it may be told to forget.
func (s *Session) presentsAny() (any bool) {
	if s.request != nil && s.way != byOther {
		s.presented(func(string) { any = true })
	}
	return any
}

// field is a header field that a response owes.
type field struct{ name, value string }

const setCookieField = "Set-Cookie"

// put writes the field. Cookies stand beside one another; of tokens a response tells one.
func (f field) put(h http.Header, room *headerRoom) {
	if f.name != setCookieField {
		delete(h, f.name)
	}
	room.add(h, f.name, f.value)
}

// headerRoom is room for the lines of header fields that have but one, as those of most
// responses: http.Header makes a slice for each.
type headerRoom struct {
	lines [3]string
	n     int
}

// add is http.Header.Add for a canonical name.
func (r *headerRoom) add(h http.Header, name, value string) {
	if len(h[name]) > 0 || r.n == len(r.lines) {
		h[name] = append(h[name], value)
		return
	}
	h[name] = append(r.lines[r.n:r.n:r.n+1], value)
	r.n++
}

// owed appends the fields that tell the client of its token. It is called with s.mu held.
func (s *Session) owed(fields []field) []field {
	switch {
	case s.cookie == keepCookie, s.way == byOther:
		return fields
	case s.way.cookie():
		return s.setCookies(fields)
	case s.cookie == revokeCookie:
		return append(fields, field{s.m.cfg.Transport.reply(), ""})
	}
	return append(fields, field{s.m.cfg.Transport.reply(), s.life.token.encode()})
}

// vary tells caches on what the response depends (RFC 9111, 4.1).
func (s *Session) vary(h http.Header, room *headerRoom) {
	t := &s.m.cfg.Transport
	if !t.HeaderOnly {
		vary(h, room, "Cookie")
	}
	if t.Header != "" {
		vary(h, room, t.Header)
	}
	if s.way == byOther { // what ReadOnly looks at only the application knows
		vary(h, room, "*")
	}
}

// fixedHeaders are those that mean something else already, in a request or in its
// response, and those that browsers send by themselves or let any site's page set, of
// which a CORS-safelisted header is one.
var fixedHeaders = []string{"Cache-Control", "Connection", "Content-Language", "Content-Length", "Content-Type",
	"Cookie", "Date", "Dnt", "Downlink", "Dpr", "Ect", "Expect", "Host", "If-Match", "If-Modified-Since",
	"If-None-Match", "If-Range", "If-Unmodified-Since", "Keep-Alive", "Last-Event-Id", "Location", "Origin", "Ping-From",
	"Ping-To", "Pragma", "Priority", "Proxy-Authorization", "Range", "Referer", "Rtt", "Save-Data", "Server",
	"Set-Cookie", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Upgrade-Insecure-Requests", "User-Agent", "Vary",
	"Via", "Viewport-Width", "Width", "Www-Authenticate", "X-Csrf-Token"}

// fixedPrefixes begin the names of others.
var fixedPrefixes = []string{"Accept", "Access-Control-", "Sec-"}

// check refuses what cannot work.
func (t *Transport) check(p *problems) {
	p.when(t.HeaderOnly && t.Header == "", "Config.Transport.HeaderOnly: there is no Header")
	p.when(t.Header != "" && !isFieldName(t.Header), "Config.Transport.Header: %q is no header's name", t.Header)
	fixed := slices.Contains(fixedHeaders, t.Header) ||
		slices.ContainsFunc(fixedPrefixes, func(p string) bool { return strings.HasPrefix(t.Header, p) })
	p.when(fixed,
		"Config.Transport.Header: %q means something else, or is sent by browsers by themselves", t.Header)
}

// isFieldName reports whether name is a token by RFC 9110, 5.6.2.
func isFieldName(name string) bool {
	return !strings.ContainsFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') &&
			!strings.ContainsRune("!#$%&'*+-.^_`|~", c)
	})
}
