package session2

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
)

// StripCookie removes the cookies of m from the Cookie header of r: those of the name that
// it has now, and of the names in CookieConfig.Former. What is left of the header is byte
// for byte as it was; where nothing is left, the header is removed. With Config.Transport it
// removes that header, too, if it brings a token of a session. It is for requests that
// are sent on, as by [net/http/httputil.ReverseProxy], whose backend has no use for the
// session and must not learn its secret:
//
//	proxy := &httputil.ReverseProxy{Rewrite: func(pr *httputil.ProxyRequest) {
//		pr.SetURL(backend)
//		m.StripCookie(pr.Out)
//	}}
//	http.Handle("/backend/", m.Wrap(proxy))
//
// r is the caller's own, such as ProxyRequest.Out, or Request.Clone of the incoming one. A
// shallow copy that shares its header with the incoming request is given a header of its
// own, so the session stays. StripCookie panics if r is the very request that Wrap has given
// its handler, and there is something to remove: the session still reads it. What the backend
// answers is Wrap's to look at.
func (m *Manager) StripCookie(r *http.Request) {
	m.must()
	lines := r.Header["Cookie"]
	kept := make([]string, 0, len(lines))
	for _, line := range lines {
		if line, left := m.strip(line); left {
			kept = append(kept, line)
		}
	}
	t := &m.cfg.Transport
	token, _ := t.said(r.Header)
	told := token != ""
	if slices.Equal(kept, lines) && !told {
		return
	}
	if s := m.Session(r); s != nil {
		if s.request == r {
			panic("session2: StripCookie: this is the handler's own request, by which the session is found: " +
				"strip a Clone of it, such as ProxyRequest.Out")
		}
		if reflect.ValueOf(s.request.Header).Pointer() == reflect.ValueOf(r.Header).Pointer() {
			r.Header = r.Header.Clone()
		}
	}
	if told {
		delete(r.Header, t.Header)
	}
	if r.Header["Cookie"] = kept; len(kept) == 0 {
		delete(r.Header, "Cookie")
	}
}

// strip returns a line of a Cookie header without the cookies of m, and whether anything is
// left. A line without any is returned as it is. Cookies end with semicolons, also within
// quotes, as net/http and browsers have it (RFC 6265 5.4).
func (m *Manager) strip(line string) (string, bool) {
	parts := strings.Split(line, ";")
	kept := slices.DeleteFunc(slices.Clone(parts), func(part string) bool {
		name, _, _ := strings.Cut(part, "=")
		return m.cfg.Cookie.names(strings.Trim(name, " \t\r\n")) // as net/http does
	})
	if len(kept) == len(parts) {
		return line, true
	}
	rest := strings.Join(kept, ";")
	if len(kept) > 0 && kept[0] != parts[0] { // the space that was before the second one
		rest = strings.TrimLeft(rest, " \t")
	}
	return rest, strings.Trim(rest, "; \t") != ""
}

// names reports whether name is one of the cookie's, now or formerly.
func (c *CookieConfig) names(name string) bool {
	return c.isNamed(name) || slices.ContainsFunc(c.Former, func(f CookieConfig) bool { return f.Name == name })
}

func (c *CookieConfig) isNamed(name string) bool {
	return name == c.Name || c.SecureFunc != nil && name == c.plain().Name
}

// disown takes out of the response what tells its client of a token and is not a
// manager's: by it a backend, behind a proxy, could put its own session in the place of
// the client's. What was there before the handler stays, and what managers inside owe.
func (x *exchange) disown(h http.Header) {
	m := x.session.m
	if m == nil { // the error handler's response
		return
	}
	for name, lines := range h { // in whatever letters: the server writes them as they are
		if !m.telling(name) {
			continue
		}
		planted := func(line string) bool {
			ours := slices.Contains(x.outer[name], line) || slices.Contains(x.within, field{name, line})
			return !ours && m.tells(name, line)
		}
		if !slices.ContainsFunc(lines, planted) {
			continue
		}
		if h[name] = slices.DeleteFunc(slices.Clone(lines), planted); len(h[name]) == 0 {
			delete(h, name)
		}
		if m.planted.CompareAndSwap(false, true) {
			m.cfg.Logger.WarnContext(x.Context, "session2: a response's own line was left out: it would put another session "+
				"in the place of the client's, and tells of a token under the name that is the manager's", "field", name)
		}
	}
}

// disownAnnounced does so for trailers that the header announces, and disownLate, at the
// end, for others.
func (x *exchange) disownAnnounced(h http.Header) {
	if h["Trailer"] == nil {
		return
	}
	names := strings.Split(strings.Join(h["Trailer"], ","), ",")
	if names = slices.DeleteFunc(names, x.session.m.telling); len(names) > 0 {
		h["Trailer"] = []string{strings.Join(names, ",")}
	} else {
		delete(h, "Trailer")
	}
}

func (x *exchange) disownLate(h http.Header) {
	for name := range h {
		if trailer, late := strings.CutPrefix(name, http.TrailerPrefix); late && x.session.m.telling(trailer) {
			delete(h, name)
		}
	}
}

// telling reports whether a field of this name can tell a client of its token.
func (m *Manager) telling(name string) bool {
	name = strings.Trim(name, blank)
	return strings.EqualFold(name, setCookieField) || name != "" && strings.EqualFold(name, m.cfg.Transport.reply())
}

// blank is what clients take no notice of; the server writes a CR or LF as a space.
const blank = " \t\r\n"

// tells reports whether a line of the response tells its client of a token. A cookie
// without a name is sent as its value, which may look like one that has a name.
func (m *Manager) tells(field, line string) bool {
	if !strings.EqualFold(field, setCookieField) {
		return true
	}
	name, _, _ := strings.Cut(strings.TrimLeft(line, blank+"="), "=")
	return !m.cfg.Transport.HeaderOnly && m.cfg.Cookie.isNamed(strings.TrimRight(name, blank))
}
