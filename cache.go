package session2

import (
	"iter"
	"net/http"
	"strings"
)

// confine makes a response one that no shared cache stores: with a token in
// it, it would be one visitor's session for all. Cache-Control stays as it is if it
// says private or no-store, and becomes no-store otherwise (RFC 9111 3). Then it
// alone counts: what certain caches would look at first goes.
func confine(h http.Header) {
	var own []string
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
	h.Set("Cache-Control", "no-store")
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
