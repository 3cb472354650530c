package session2

import (
	"bufio"
	"net"
	"net/http"
)

// closeNotifier is http.CloseNotifier, which is deprecated and still asked for.
type closeNotifier interface{ CloseNotify() <-chan bool }

// The optional methods of a ResponseWriter, for which handlers ask by type
// assertions. Flush stands for FlushError too.
const (
	canFlush = 1 << iota
	canHijack
	canPush
	canNotify
)

// writer returns the ResponseWriter for the handler, with the optional methods
// that the server's has, or what that wraps, and no others.
func (x *exchange) writer() http.ResponseWriter {
	has := 0
	for w := x.w; w != nil; w = unwrap(w) {
		if _, ok := w.(http.Flusher); ok {
			has |= canFlush
		} else if _, ok := w.(interface{ FlushError() error }); ok {
			has |= canFlush
		}
		if _, ok := w.(http.Hijacker); ok {
			has |= canHijack
		}
		if _, ok := w.(http.Pusher); ok {
			has |= canPush
		}
		if _, ok := w.(closeNotifier); ok {
			has |= canNotify
		}
	}
	return (*writer)(x).with(has)
}

// unwrap returns what w wraps, nil if that is nothing.
func unwrap(w http.ResponseWriter) http.ResponseWriter {
	if u, ok := w.(interface{ Unwrap() http.ResponseWriter }); ok {
		return u.Unwrap()
	}
	return nil
}

// with returns the one of the types below that has these methods.
func (w *writer) with(has int) http.ResponseWriter {
	switch has {
	case canFlush:
		return writerF{w}
	case canHijack:
		return writerH{w}
	case canHijack | canFlush:
		return writerFH{writerF{w}}
	case canPush:
		return writerP{w}
	case canPush | canFlush:
		return writerFP{writerF{w}}
	case canPush | canHijack:
		return writerHP{writerH{w}}
	case canPush | canHijack | canFlush:
		return writerFHP{writerFH{writerF{w}}}
	case canNotify:
		return writerC{w}
	case canNotify | canFlush:
		return writerFC{writerF{w}}
	case canNotify | canHijack:
		return writerHC{writerH{w}}
	case canNotify | canHijack | canFlush: // HTTP/1.1
		return writerFHC{writerFH{writerF{w}}}
	case canNotify | canPush:
		return writerPC{writerP{w}}
	case canNotify | canPush | canFlush: // HTTP/2
		return writerFPC{writerFP{writerF{w}}}
	case canNotify | canPush | canHijack:
		return writerHPC{writerHP{writerH{w}}}
	case canNotify | canPush | canHijack | canFlush:
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
	for u := w.w; u != nil; u = unwrap(u) {
		if p, ok := u.(http.Pusher); ok {
			return p.Push(target, opts)
		}
	}
	return http.ErrNotSupported
}

func (w *writer) closeNotify() <-chan bool {
	for u := w.w; u != nil; u = unwrap(u) {
		if c, ok := u.(closeNotifier); ok {
			return c.CloseNotify()
		}
	}
	return nil
}
