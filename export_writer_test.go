package session2

import "net/http"

// WriterWith returns the handler's ResponseWriter that has the given optional
// methods, one bit each: Flush, Hijack, Push, CloseNotify.
func WriterWith(has int) http.ResponseWriter { return (*writer)(&exchange{}).with(has) }
