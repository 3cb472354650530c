package frameworks

import (
	"net/http"
	"strings"

	"github.com/session2/session2"
)

func prefetching(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Sec-Purpose"), "prefetch") // also "prefetch;prerender"
}

// idlePrefetch, inside Wrap, does not take a prefetch for the user's doing.
func idlePrefetch(m *session2.Manager, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if prefetching(r) {
			m.Session(r).Passive()
		}
		next.ServeHTTP(w, r)
	})
}

// noPrefetch is for pages that take something, such as flash messages.
func noPrefetch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if prefetching(r) {
			w.WriteHeader(http.StatusServiceUnavailable) // the browser asks again when the user does
			return
		}
		next.ServeHTTP(w, r)
	})
}
