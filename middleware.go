package session2

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
)

// contextKey finds the innermost manager's session in a context, exchangeKey its
// exchange.
type (
	contextKey  struct{}
	exchangeKey struct{}
)

// FromContext returns the session of the innermost manager that wraps the handler; nil
// outside of any.
func FromContext(ctx context.Context) *Session {
	s, _ := ctx.Value(contextKey{}).(*Session)
	return s
}

// Session returns this manager's session of the request; nil outside of its Wrap.
func (m *Manager) Session(r *http.Request) *Session {
	s, _ := r.Context().Value(m).(*Session)
	return s
}

// Wrap returns a handler that serves next with a session in each request's context.
// What next changes is committed just before the response's first byte leaves, or when
// next returns, and not at all if it panics or answers with a status of 500 or above. A
// panic after the first byte does not take back what was committed with it. That
// includes a byte that is written while the panic unwinds, for example by a deferred
// Close of a gzip.Writer: put the middleware that recovers inside of the one that
// compresses.
//
// The context of a request that has looked at its session ends when the session is
// destroyed, is revoked or expires, and when SetUser, SetLevel or Renew in another
// request replaces its token: a stream or a WebSocket ends whose handler waits for that
// (ASVS 7.4.1). A periodic rotation does not end it. [context.Cause] then matches
// [ErrNotFound], or [ErrStale] for a replaced token, and Err is context.Canceled. It
// happens at once if this manager does it, and within Config.WatchEvery and the time of
// a Load if another process does (sooner with a [PubSub]), or if the session's time is
// over. What a request does to its session itself does not end its own context; give
// [Manager.Revoke] and its like the request's context for that. A login by another
// request ends a context only once its response has begun: until then the request may be
// the same login, sent twice. All this costs something only where the context's Done is
// asked for, as by database/sql. When next has returned, such a context has ended, as
// net/http's has.
//
// Wrap does no store work for a request that does not look at its session. Inside
// another Wrap of the same manager it is next itself. The ResponseWriter that next is
// given keeps what the server's can do: flush, hijack, push, sendfile, CloseNotify,
// deadlines, and [net/http.ResponseController]'s methods. What is set on the request
// that next is given, such as its MultipartForm and its Pattern with the path values, is
// set on the server's request too when next has returned.
//
// What tells a client of its token is the manager's to write: a Set-Cookie of the
// session's name, and with [Transport] its response header, that next has set itself are
// left out of the response, and warned of once. So a backend, behind a proxy, puts no
// session of its own in the place of the client's.
func (m *Manager) Wrap(next http.Handler) http.Handler {
	m.must()
	if next == nil {
		panic("session2: Wrap: the handler is nil")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.Session(r) != nil {
			next.ServeHTTP(w, r)
			return
		}
		m.serve(next, w, r)
	})
}

// serve serves next with a session in the request's context.
func (m *Manager) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	x := &exchange{Context: r.Context(), w: w}
	x.r = *r.WithContext(x)
	x.session.m = m
	x.session.ctx = x.Context
	x.session.request = &x.r // and not r, which is written to when the handler has returned
	x.session.arrived = microNow()
	x.session.arrives(r)
	if h := w.Header(); len(h) > 0 {
		x.outer = h.Clone()
	}
	defer giveBack(r, &x.r)
	defer x.end()
	next.ServeHTTP(x.writer(), &x.r)
	x.returned = true
}

// exchange is one request and its response: the context that holds the session,
// and ends with it (live.go), the writer that commits it, and the request's copy. It
// is one piece of memory.
type exchange struct {
	context.Context // the request's
	session         Session
	w               http.ResponseWriter
	r               http.Request // the handler's, whose context is the exchange
	outer           http.Header  // what was set before the handler; it survives a failed commit
	begun           bool         // the first byte has left, or is about to
	returned        bool         // the handler did
	refused         bool         // its status was 500 or above
	cookie          bool         // a Set-Cookie of ours, or another way's token, is in the header
	body            bool         // the first byte of the body, too, has left
	failed          error        // the commit did: the response is the error handler's
	answer          http.Header  // the error handler's header
	room            headerRoom   // for the session's fields
	within          []field      // what managers inside this one owe: what it stands for is stored
}

// Format keeps fmt from the session, whose token and values it would print.
// With every verb, a context and a ResponseWriter name their session only.
func (x *exchange) Format(f fmt.State, _ rune) { io.WriteString(f, "session2.Exchange") }

// Value finds the session by its manager, and the innermost one by contextKey.
func (x *exchange) Value(key any) any {
	switch key := key.(type) {
	case contextKey:
		return &x.session
	case exchangeKey:
		return x
	case *Manager:
		if key == x.session.m {
			return &x.session
		}
	}
	return x.parent().Value(key)
}

// begin commits the session, once, before the first byte of a response with
// the given status. It returns the error for which the handler's response is
// replaced by the error handler's.
func (x *exchange) begin(status int) error {
	s := &x.session
	switch {
	case x.begun:
		if !x.body {
			x.confine()
		}
		return x.failed
	case s.m == nil: // the error handler's response
		x.begun = true
		x.confine()
		return nil
	}
	committed := status < http.StatusInternalServerError
	err := s.commitLast(x.Context, committed)
	if !committed {
		x.refused = true
		s.Discard()
	} else if err != nil {
		x.fail(err)
		return err
	}
	x.header(committed)
	x.begun = true
	s.streams()
	return nil
}

// header writes what the session has to say into the response's header, after a
// commit just now or without one.
func (x *exchange) header(committed bool) {
	h := x.w.Header()
	x.disown(h)
	x.disownAnnounced(h)
	var room [1]field
	looked, owed := x.session.begins(committed, room[:0])
	if !looked {
		return
	}
	x.session.vary(h, &x.room)
	x.session.clearSite(h, committed)
	for _, f := range owed {
		f.put(h, &x.room)
	}
	if len(owed) > 0 {
		x.cookie = true
		x.confine()
		x.session.warnPlain(&x.r)
		for o := x.around(); o != nil; o = o.around() {
			o.within = append(o.within, owed...)
			x.session.warnSameName(&o.session)
		}
	}
}

// around returns the exchange of another manager that this one is within.
func (x *exchange) around() *exchange {
	o, _ := x.Context.Value(exchangeKey{}).(*exchange)
	return o
}

// confine keeps a response with a cookie of ours out of shared caches. It is
// asked when the header is decided, before the first byte of the body, and at
// the end of the handler: writers such as gin's and http.TimeoutHandler's keep
// a header back for so long, and the handler may have changed it.
func (x *exchange) confine() {
	if x.cookie {
		confine(x.w.Header(), &x.room)
	}
}

// fail answers the request by the error handler: nothing of the handler's
// header is left, but for the cookie of what was committed before. If the error
// handler writes nothing, the server would answer 200.
func (x *exchange) fail(err error) {
	x.begun, x.failed = true, err
	h := x.w.Header()
	clear(h)
	maps.Copy(h, x.outer)
	for _, f := range x.within {
		f.put(h, &x.room)
	}
	x.cookie = len(x.within) > 0
	x.confine()
	x.session.failed()
	x.header(false)
	reply := &exchange{Context: x.Context, w: x.w, cookie: x.cookie}
	w := reply.writer()
	defer func() { // even if it panics
		if !reply.begun {
			httpError(w, statusOf(err))
		}
		x.answer = h.Clone()
	}()
	x.session.m.cfg.ErrorHandler(w, &x.r, err)
}

// end commits what is left to commit when the handler has returned, or drops it
// if it has panicked. Whoever recovers from the panic may still answer: with the
// cookie of what [Session.Commit] has stored.
//
// A handler that first looked at its session when its response had begun, and was
// shown nobody's because the store had failed, has told its client what may not be
// so. There is no status left to say that: the response is cut off.
func (x *exchange) end() {
	s := &x.session
	defer s.finish()
	if x.answer != nil { // trailers that the handler left in a header it had kept
		h := x.w.Header()
		clear(h)
		maps.Copy(h, x.answer)
	}
	x.disownLate(x.w.Header())
	x.confine()
	switch {
	case !x.returned && !x.begun:
		s.commitLast(x.Context, false)
		s.Discard()
		x.header(false)
	case !x.returned, x.refused:
		s.Discard()
	case !x.begun:
		x.begin(http.StatusOK)
	case x.failed == nil:
		s.commit(x.Context) // a failure is an event and in Err: the response has left
		if s.fooled() {
			panic(http.ErrAbortHandler)
		}
	}
}

// writer is the exchange as its handler sees it. Every method that lets bytes
// out begins the response first.
type writer exchange

func (w *writer) Format(f fmt.State, verb rune) { (*exchange)(w).Format(f, verb) }

func (w *writer) begin(status int) error { return (*exchange)(w).begin(status) }

// open begins the response for the first byte of its body.
func (w *writer) open() error {
	if w.body {
		return w.failed
	}
	err := w.begin(http.StatusOK)
	w.body = true
	return err
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.w }

func (w *writer) Header() http.Header {
	if w.failed != nil {
		return http.Header{} // the response is no longer the handler's
	}
	return w.w.Header()
}

// WriteHeader begins the response, unless status is an informational one, of
// which only 101 is final (RFC 9110, 15.2). One below 100 makes the server
// panic, before anything is stored.
func (w *writer) WriteHeader(status int) {
	informational := status <= 199 && status != http.StatusSwitchingProtocols
	if w.failed != nil || !informational && w.begin(status) != nil {
		return
	}
	if informational {
		(*exchange)(w).disown(w.w.Header())
	}
	w.w.WriteHeader(status)
}

func (w *writer) Write(p []byte) (int, error) {
	if err := w.open(); err != nil {
		return 0, err
	}
	return w.w.Write(p)
}

func (w *writer) WriteString(text string) (int, error) {
	if err := w.open(); err != nil {
		return 0, err
	}
	return io.WriteString(w.w, text)
}

// ReadFrom lets the server send files as it does best. The response begins with
// the first byte read: a reader that fails at once leaves the handler free to
// answer 500, and that must leave no trace.
func (w *writer) ReadFrom(r io.Reader) (int64, error) {
	var first int
	if !w.begun {
		buf := make([]byte, 512) // what the server would read, to tell the type
		n, err := readSome(r, buf)
		if n > 0 {
			var werr error
			first, werr = w.Write(buf[:n])
			err = cmp.Or(werr, err)
		}
		if err != nil {
			return int64(first), noEOF(err)
		}
	}
	if err := w.open(); err != nil {
		return 0, err
	}
	n, err := io.Copy(w.w, r)
	return int64(first) + n, err
}

// readSome reads until there is something, or an error.
func readSome(r io.Reader, buf []byte) (n int, err error) {
	for n == 0 && err == nil {
		n, err = r.Read(buf)
	}
	return n, err
}

func noEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// flush is http.Flusher's and, with the error, http.ResponseController's.
func (w *writer) flush() error {
	if err := w.open(); err != nil {
		return err
	}
	return http.NewResponseController(w.w).Flush()
}

// hijack commits before it hands over the connection. What the handler then
// writes is its own, header included, so a commit that needs a cookie fails. One
// that an earlier [Session.Commit] needs is in Header, for the handler to send.
func (w *writer) hijack() (net.Conn, *bufio.ReadWriter, error) {
	s := &w.session
	if !w.begun {
		s.mu.Lock()
		s.begun = true
		s.mu.Unlock()
	}
	if err := w.begin(http.StatusSwitchingProtocols); err != nil {
		return nil, nil, err
	}
	return http.NewResponseController(w.w).Hijack()
}

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
