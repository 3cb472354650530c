package session2

import (
	"net/http"
	"strings"
	"time"
)

// setCookie returns the Set-Cookie line that the response owes, "" for none.
func (s *Session) setCookie() string {
	c := s.m.cfg.Cookie.cookie()
	switch s.cookie {
	case setCookie:
		c.Value = s.life.token.encode()
		st := s.life.base
		if st.persistent == persistYes || st.persistent == persistDefault && s.m.cfg.Cookie.Persistent {
			c.MaxAge = maxAge(time.Until(s.m.cfg.limit(st)))
		}
	case revokeCookie:
		c.MaxAge = -1
		c.Expires = time.Unix(1, 0) // for what does not know Max-Age
	default:
		return ""
	}
	return c.String()
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
