package session2

import "net/http"

// giveBack makes r what the handler has made of inner, the copy that it was
// given, as if there had been no copy: the server removes the files of its own
// request's MultipartForm, and handlers outside read Pattern and the path values
// that a mux inside has set. Only the context stays r's own.
//
// A request that nothing was set on is not written to, for handlers outside may
// read it at the same time.
func giveBack(r, inner *http.Request) {
	if unset(r, inner) {
		return
	}
	back := inner.WithContext(r.Context())
	if back.Trailer == nil { // the server puts undeclared trailers into its own request
		back.Trailer = r.Trailer
	}
	*r = *back
}

// unset reports whether nothing was set on inner that a handler outside could look
// for. Path values cannot be listed; a mux sets them together with Pattern.
func unset(r, inner *http.Request) bool {
	return inner.Pattern == r.Pattern && inner.MultipartForm == r.MultipartForm &&
		(inner.Form == nil) == (r.Form == nil) && (inner.PostForm == nil) == (r.PostForm == nil) &&
		inner.Method == r.Method && inner.URL == r.URL && inner.Host == r.Host &&
		inner.RemoteAddr == r.RemoteAddr && inner.RequestURI == r.RequestURI
}
