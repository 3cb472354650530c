package session2

import (
	"context"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// begins notes that the response begins. It returns whether the handler looked
// at the session, and the fields that the response owes. A token that was not
// committed just now may have been replaced by another request's. The fields are in room
// if that suffices.
func (s *Session) begins(committed bool, room []field) (looked bool, fields []field) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun = true
	if s.working == nil {
		return false, nil
	}
	if s.cookie == setCookie && !(committed && s.fresh) {
		s.confirmCookie()
	}
	return true, s.owed(room)
}

// setCookies appends the cookies that the response owes. It is called with s.mu held.
func (s *Session) setCookies(fields []field) []field {
	jar := s.jar()
	if s.former {
		for i := range jar.Former {
			fields = append(fields, field{setCookieField, jar.Former[i].revocation()})
		}
	}
	if s.cookie == revokeCookie {
		return append(fields, field{setCookieField, jar.revocation()})
	}
	st := s.life.base
	if end := s.m.cfg.lasts(st); end != 0 {
		c := jar.cookie()
		c.Value = s.life.token.encode()
		c.MaxAge = maxAge(time.Until(end.time()))
		return append(fields, field{setCookieField, c.String()})
	}
	return append(fields, field{setCookieField, s.life.token.within(jar.before, jar.after)})
}

// jar is the cookie of requests of one kind, and the Set-Cookie line of one that does
// not outlive the browser, before and after its value.
type jar struct {
	CookieConfig
	before, after string
}

func (c CookieConfig) jar() jar {
	before, after, _ := strings.Cut(c.cookie().String(), "=")
	return jar{c, before + "=", after}
}

// jar returns the cookie of a request that goes by one.
func (s *Session) jar() *jar { return &s.m.jars[s.way] }

// plain returns the cookie of requests that are not Secure by SecureFunc: under another
// name, so that neither is taken for the other.
func (c CookieConfig) plain() CookieConfig {
	c.Name, c.Insecure = c.Name[len(cookiePrefix(c.Name)):], true
	return c
}

// confirmCookie looks whether the token of a cookie that an earlier Commit owes is
// still the session's: if another request has replaced it, or ended the session,
// the browser may hold a newer cookie. If the store cannot tell, the cookie goes
// out, unless what the browser has is good anyway: then the next response has the
// successor. It is called with s.mu held, and gives it up meanwhile.
func (s *Session) confirmCookie() {
	t, base := s.life.token, s.life.base
	s.mu.Unlock()
	defer s.mu.Lock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.m.cfg.CommitTimeout)
	defer cancel()
	st, err := s.m.fetch(ctx, t.id)
	if absent(err) || err == nil && st.ident.hash != t.secret.hash() || err != nil && s.presents(base, replaced) {
		s.mu.Lock()
		s.cookie = keepCookie
		s.mu.Unlock()
	}
}

// presents reports whether a token that the request came with is of that standing to a
// session.
func (s *Session) presents(st *state, is standing) bool {
	list, _ := s.tokens(nil)
	return slices.ContainsFunc(list, func(t token) bool {
		return t.id == st.id && st.ident.judge(t.secret, s.arrived, s.m.cfg.RenewGrace).standing == is
	})
}

// revocation returns the line that takes the cookie away.
func (c *CookieConfig) revocation() string {
	gone := c.cookie()
	gone.MaxAge = -1
	gone.Expires = time.Unix(1, 0) // for what does not know Max-Age
	return gone.String()
}

// maxAge is what is left in seconds, a part of one counted as one, and at least 1, for 0
// would revoke.
func maxAge(left time.Duration) int {
	return max(1, int((min(left, maxCookieAge)+time.Second-1)/time.Second))
}

// cookie returns a cookie with all attributes that every Set-Cookie has: only
// with the same ones does a browser replace it (RFC 6265bis 5.7).
func (c *CookieConfig) cookie() *http.Cookie {
	return &http.Cookie{Name: c.Name, Path: c.Path, Domain: c.Domain, SameSite: c.SameSite,
		Secure: !c.Insecure, HttpOnly: true, Partitioned: c.Partitioned}
}

// warnPlain says once what browsers do not say: they drop a Secure cookie that
// comes over plain HTTP, unless from this machine, and keep one that is not Secure. A token
// in a header is not dropped, and everybody on the way can read it. With SecureFunc, the
// application knows.
func (s *Session) warnPlain(r *http.Request) {
	m, c := s.m, &s.m.cfg.Cookie
	const plain = ": use HTTPS, let the proxy in front say so by X-Forwarded-Proto, " +
		"or set Config.Cookie.Insecure for development"
	var what string
	switch cookie := s.way.cookie(); {
	case m.warned.Load(), r.TLS == nil && isLoopback(r.Host): // to which browsers send what they send over HTTPS
		return
	case (r.TLS != nil || saysHTTPS(r.Header)) != c.Insecure:
		return
	case c.Insecure && cookie:
		what = "a cookie that browsers also send over plain HTTP was sent over HTTPS: " +
			"leave out Config.Cookie.Insecure, or set SecureFunc if people come both ways"
	case c.Insecure, c.SecureFunc != nil && cookie:
		return
	case s.way == byHeader:
		what = "a token was sent over plain HTTP, for all on the way to read" + plain
	default:
		what = "a Secure cookie was sent over plain HTTP, and browsers drop it" + plain
	}
	if m.warned.CompareAndSwap(false, true) {
		m.cfg.Logger.WarnContext(r.Context(), "session2: "+what)
	}
}

// warnSameName says once that a manager around this one has a cookie of the same
// name, so that browsers keep only one of the two, or tells tokens in the same header.
func (s *Session) warnSameName(around *Session) {
	m := s.m
	if name, same := s.sameName(around); same && m.shared.CompareAndSwap(false, true) {
		m.cfg.Logger.Warn("session2: two managers, one inside the other, have cookies or headers of one name, "+
			"and each replaces the other's: give each its own Config.Cookie.Name, or Config.Transport.Header",
			"name", name)
	}
}

// sameName returns under which name both tell their client of its token.
func (s *Session) sameName(o *Session) (name string, same bool) {
	switch {
	case s.way == byHeader && o.way == byHeader:
		name = s.m.cfg.Transport.reply()
		return name, name == o.m.cfg.Transport.reply()
	case s.way.cookie() && o.way.cookie():
		a, b := s.jar(), o.jar()
		return a.Name, a.Name == b.Name && a.Path == b.Path && a.Domain == b.Domain
	}
	return "", false
}

// warnLateLook says once what caches do not say: what is written for one session's
// user may be shown to others, where no header says that it depends on the cookie.
func (s *Session) warnLateLook() {
	if s.request == nil || s.over.Load() {
		return
	}
	s.mu.Lock()
	late := s.begun
	s.mu.Unlock()
	if late && s.m.late.CompareAndSwap(false, true) {
		s.m.cfg.Logger.WarnContext(s.ctx, "session2: a session was looked at only when the response had begun, "+
			"so that the response has no Vary: Cookie, and no cookie could be set: "+
			"look at the session before the first byte is written",
			"request", s.request.Pattern)
	}
}

// isLoopback reports whether a Host header names this machine. A client that
// sends none is no browser.
func isLoopback(host string) bool {
	if strings.Contains(host, ":") {
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// schemeHeaders are the headers by which proxies pass on how the client spoke
// to them. Browsers send Sec-Fetch-Site over HTTPS alone, and to loopback.
var schemeHeaders = []string{"X-Forwarded-Proto", "Forwarded", "X-Forwarded-Ssl", "Sec-Fetch-Site",
	"X-Forwarded-Scheme", "X-Forwarded-Protocol", "X-Forwarded-Https", "X-Scheme", "X-Url-Scheme",
	"Front-End-Https", "X-Arr-Ssl", "Cloudfront-Forwarded-Proto", "Cf-Visitor", "Fly-Forwarded-Proto"}

// saysHTTPS reports whether the client spoke HTTPS to a proxy, by its headers.
func saysHTTPS(h http.Header) bool {
	for _, name := range schemeHeaders {
		for _, value := range h[name] {
			value = strings.ReplaceAll(strings.ToLower(value), `"`, "")
			switch {
			case name == "X-Arr-Ssl", name == "Sec-Fetch-Site": // whatever it says
				return true
			case name == "Forwarded":
				if strings.Contains(value, "proto=https") {
					return true
				}
			case strings.Contains(value, "https"), value == "on", value == "1", value == "true":
				return true
			}
		}
	}
	return false
}

// confine makes a response one that no shared cache stores: with a token in
// it, it would be one visitor's session for all. Cache-Control stays as it is if it
// says private or no-store, and becomes no-store otherwise (RFC 9111 3). Then it
// alone counts: what certain caches would look at first goes.
func confine(h http.Header, room *headerRoom) {
	own := make([]string, 0, 4)
	for name, lines := range h {
		switch {
		case strings.EqualFold(name, "Cache-Control"):
			own = append(own, lines...)
		case outranksCacheControl(name):
			delete(h, name)
		}
	}
	if confined(own) {
		return
	}
	for name := range h {
		if strings.EqualFold(name, "Cache-Control") {
			delete(h, name)
		}
	}
	h.Del("Expires") // for what does not know Cache-Control
	room.add(h, "Cache-Control", "no-store")
}

// outranksCacheControl reports whether some cache prefers the field of this name:
// CDN-Cache-Control and its like for one vendor (RFC 9213), and older ones.
func outranksCacheControl(name string) bool {
	const targeted = "-Cache-Control"
	if n := len(name) - len(targeted); n > 0 && strings.EqualFold(name[n:], targeted) {
		return true
	}
	return strings.EqualFold(name, "Surrogate-Control") || strings.EqualFold(name, "Edge-Control") ||
		strings.EqualFold(name, "X-Accel-Expires")
}

// confined reports whether lines of Cache-Control say private or no-store.
// private="field" is about that field alone.
func confined(lines []string) bool {
	for d := range directives(strings.Join(lines, ",")) {
		if strings.EqualFold(d, "private") || strings.EqualFold(d, "no-store") {
			return true
		}
	}
	return false
}

// directives splits a list at its commas, but for those in quoted strings
// (RFC 9110 5.6.1 and 5.6.4).
func directives(list string) iter.Seq[string] {
	return func(yield func(string) bool) {
		start, quoted := 0, false
		for i := 0; i <= len(list); i++ {
			switch {
			case i == len(list) || list[i] == ',' && !quoted:
				if !yield(strings.Trim(list[start:i], " \t")) {
					return
				}
				start = i + 1
			case list[i] == '"':
				quoted = !quoted
			case list[i] == '\\' && quoted:
				i++
			}
		}
	}
}

// clearSite has the response of a logout clear what the browser keeps of the site. What
// the handler itself says of that stays.
func (s *Session) clearSite(h http.Header, committed bool) {
	const field = "Clear-Site-Data"
	if !s.m.cfg.ClearSiteData || len(h[field]) > 0 {
		return
	}
	s.mu.Lock()
	gone, begins := s.loggedOut || committed && s.leaving, s.cookie == setCookie
	s.mu.Unlock()
	switch {
	case gone && (begins || !s.way.cookie()): // the cookie of the next session must stay, or of another
		h.Set(field, `"cache", "storage"`)
	case gone:
		h.Set(field, `"cache", "cookies", "storage"`)
	}
}

// vary adds a field's name to Vary, if it is not there.
func vary(h http.Header, room *headerRoom, field string) {
	for _, line := range h["Vary"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.TrimSpace(name); name == "*" || strings.EqualFold(name, field) {
				return
			}
		}
	}
	room.add(h, "Vary", field)
}
