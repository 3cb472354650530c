package session2

import (
	"context"
	"net/http"
	"strings"
	"time"
)

// setCookies returns the Set-Cookie lines that the response owes. It is called
// with s.mu held.
func (s *Session) setCookies() (lines []string) {
	if s.cookie == keepCookie {
		return nil
	}
	cfg := &s.m.cfg.Cookie
	if s.former {
		for i := range cfg.Former {
			lines = append(lines, cfg.Former[i].revocation())
		}
	}
	if s.cookie == revokeCookie {
		return append(lines, cfg.revocation())
	}
	c := cfg.cookie()
	c.Value = s.life.token.encode()
	st := s.life.base
	if st.persistent == persistYes || st.persistent == persistDefault && cfg.Persistent {
		c.MaxAge = maxAge(time.Until(s.m.cfg.limit(st)))
	}
	return append(lines, c.String())
}

// confirmCookie looks whether the token of a cookie that an earlier Commit owes is
// still the session's: if another request has replaced it, or ended the session,
// the browser may hold a newer cookie. If the store cannot tell, the cookie goes
// out. It is called with s.mu held, and gives it up meanwhile.
func (s *Session) confirmCookie() {
	t := s.life.token
	s.mu.Unlock()
	defer s.mu.Lock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.m.cfg.CommitTimeout)
	defer cancel()
	st, err := s.m.fetch(ctx, t.id)
	if absent(err) || err == nil && st.ident.hash != t.secret.hash() {
		s.mu.Lock()
		s.cookie = keepCookie
		s.mu.Unlock()
	}
}

// revocation returns the line that takes the cookie away.
func (c *CookieConfig) revocation() string {
	gone := c.cookie()
	gone.MaxAge = -1
	gone.Expires = time.Unix(1, 0) // for what does not know Max-Age
	return gone.String()
}

// maxAge is what is left in whole seconds, at least 1, for 0 would revoke.
func maxAge(left time.Duration) int {
	return max(1, int(min(left, maxCookieAge)/time.Second))
}

// cookie returns a cookie with all attributes that every Set-Cookie has: only
// with the same ones does a browser replace it (RFC 6265bis 5.7).
func (c *CookieConfig) cookie() *http.Cookie {
	return &http.Cookie{Name: c.Name, Path: c.Path, Domain: c.Domain, SameSite: c.SameSite,
		Secure: !c.Insecure, HttpOnly: true, Partitioned: c.Partitioned}
}

// vary tells caches that the response depends on the cookie (RFC 9111 4.1).
func vary(h http.Header) {
	for _, line := range h["Vary"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.TrimSpace(name); name == "*" || strings.EqualFold(name, "Cookie") {
				return
			}
		}
	}
	h.Add("Vary", "Cookie")
}
