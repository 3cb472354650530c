package session2

import (
	"net/http"
	"unsafe"
)

// giveBack makes r what the handler has made of inner, the copy that it was
// given, as if there had been no copy: the server removes the files of its own
// request's MultipartForm, and handlers outside read Pattern and the path values
// that a mux inside has set. Only the context stays r's own.
//
// A request that nothing was set on is not written to, for handlers outside may
// read it at the same time.
func giveBack(r, inner *http.Request) {
	back := inner.WithContext(r.Context())
	if back.Trailer == nil { // the server puts undeclared trailers into its own request
		back.Trailer = r.Trailer
	}
	if !same(r, back) {
		*r = *back
	}
}

// same reports whether all fields of a and b are the same, bit by bit. The
// language compares no maps and functions, and reflection takes longer than the
// whole of Wrap. Path values are in fields that net/http keeps to itself.
func same(a, b *http.Request) bool {
	type bits = [unsafe.Sizeof(http.Request{})]byte
	return *(*bits)(unsafe.Pointer(a)) == *(*bits)(unsafe.Pointer(b))
}
