package session2

import (
	"bufio"
	"net"
	"net/http"
)

// find returns what w, or what it wraps, has of an interface.
func find[T any](w http.ResponseWriter) (t T, ok bool) {
	for {
		if t, ok = w.(T); ok {
			return t, true
		}
		u, wraps := w.(interface{ Unwrap() http.ResponseWriter })
		if !wraps {
			return t, false
		}
		w = u.Unwrap()
	}
}

func can[T any](w http.ResponseWriter) bool {
	_, ok := find[T](w)
	return ok
}

// flushes reports whether w can flush, one way or the other.
func flushes(w http.ResponseWriter) bool {
	return can[http.Flusher](w) || can[interface{ FlushError() error }](w)
}

// closeNotifier is http.CloseNotifier, which is deprecated and still asked for.
type closeNotifier interface{ CloseNotify() <-chan bool }

// writer returns the ResponseWriter for the handler, with the optional methods
// that the server's has and no others: handlers ask by type assertions.
func (x *exchange) writer() http.ResponseWriter {
	has := 0
	if flushes(x.w) {
		has |= 1
	}
	if can[http.Hijacker](x.w) {
		has |= 2
	}
	if can[http.Pusher](x.w) {
		has |= 4
	}
	if can[closeNotifier](x.w) {
		has |= 8
	}
	return (*writer)(x).with(has)
}

// with returns the one of the types below that has these methods.
func (w *writer) with(has int) http.ResponseWriter {
	switch has {
	case 1:
		return writerF{w}
	case 2:
		return writerH{w}
	case 2 | 1:
		return writerFH{writerF{w}}
	case 4:
		return writerP{w}
	case 4 | 1:
		return writerFP{writerF{w}}
	case 4 | 2:
		return writerHP{writerH{w}}
	case 4 | 2 | 1:
		return writerFHP{writerFH{writerF{w}}}
	case 8:
		return writerC{w}
	case 8 | 1:
		return writerFC{writerF{w}}
	case 8 | 2:
		return writerHC{writerH{w}}
	case 8 | 2 | 1: // HTTP/1.1
		return writerFHC{writerFH{writerF{w}}}
	case 8 | 4:
		return writerPC{writerP{w}}
	case 8 | 4 | 1: // HTTP/2
		return writerFPC{writerFP{writerF{w}}}
	case 8 | 4 | 2:
		return writerHPC{writerHP{writerH{w}}}
	case 8 | 4 | 2 | 1:
		return writerFHPC{writerFHP{writerFH{writerF{w}}}}
	}
	return w
}

// The combinations of Flusher, Hijacker, Pusher and CloseNotifier. Each is a
// single pointer, so that none is allocated, and adds to a smaller one.
type (
	writerF    struct{ *writer }
	writerH    struct{ *writer }
	writerP    struct{ *writer }
	writerC    struct{ *writer }
	writerFH   struct{ writerF }
	writerFP   struct{ writerF }
	writerFC   struct{ writerF }
	writerHP   struct{ writerH }
	writerHC   struct{ writerH }
	writerPC   struct{ writerP }
	writerFHP  struct{ writerFH }
	writerFHC  struct{ writerFH }
	writerFPC  struct{ writerFP }
	writerHPC  struct{ writerHP }
	writerFHPC struct{ writerFHP }
)

func (w writerF) Flush()            { w.flush() }
func (w writerF) FlushError() error { return w.flush() }

func (w writerH) Hijack() (net.Conn, *bufio.ReadWriter, error)  { return w.hijack() }
func (w writerFH) Hijack() (net.Conn, *bufio.ReadWriter, error) { return w.hijack() }

func (w writerP) Push(target string, o *http.PushOptions) error   { return w.push(target, o) }
func (w writerFP) Push(target string, o *http.PushOptions) error  { return w.push(target, o) }
func (w writerHP) Push(target string, o *http.PushOptions) error  { return w.push(target, o) }
func (w writerFHP) Push(target string, o *http.PushOptions) error { return w.push(target, o) }

func (w writerC) CloseNotify() <-chan bool    { return w.closeNotify() }
func (w writerFC) CloseNotify() <-chan bool   { return w.closeNotify() }
func (w writerHC) CloseNotify() <-chan bool   { return w.closeNotify() }
func (w writerPC) CloseNotify() <-chan bool   { return w.closeNotify() }
func (w writerFHC) CloseNotify() <-chan bool  { return w.closeNotify() }
func (w writerFPC) CloseNotify() <-chan bool  { return w.closeNotify() }
func (w writerHPC) CloseNotify() <-chan bool  { return w.closeNotify() }
func (w writerFHPC) CloseNotify() <-chan bool { return w.closeNotify() }

func (w *writer) push(target string, opts *http.PushOptions) error {
	p, _ := find[http.Pusher](w.w)
	return p.Push(target, opts)
}

func (w *writer) closeNotify() <-chan bool {
	c, _ := find[closeNotifier](w.w)
	return c.CloseNotify()
}
