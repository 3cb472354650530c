package protocol

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/session2/session2"
)

const (
	cookieName = "__Host-session"
	key        = "n" // under which visits leave their marks
)

var marks = session2.NewKey[string](key)

// browser is a cookie jar. Several actors may share it, as tabs do.
type browser struct {
	mu     sync.Mutex
	token  string
	tossed string   // by a neighbour, beside token
	from   *visit   // whose response set it; nil: none did
	shared bool     // when a visit begins, and when its response comes, matters to others
	lossy  bool     // responses may be lost
	looks  bool     // its requests within Exclusive have looked at their session before
	abroad bool     // it is a client of another realm
	users  []string // as whom it has signed in
}

// signIn notes that the browser's user signs in.
func (b *browser) signIn(user string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.users = append(b.users, user)
}

// visit is one request and its response.
type visit struct {
	a       *actor
	b       *browser
	name    string
	ctx     context.Context
	cancel  context.CancelFunc // of the request's context: the client goes away
	sent    string             // the token in its cookie
	set     []string           // the tokens in its Set-Cookie lines
	revoked bool               // one of them took the cookie away
	status  int
	user    string // as the handler saw
	err     error  // the ErrorHandler's
	dropped error  // of the latest EventDropped
	stale   bool   // an event has said that changes were refused, for the token was replaced
	came    bool   // the response arrived
	broken  bool   // the handler has panicked
	s       *session2.Session
	rec     *httptest.ResponseRecorder
	begun   int // by world.steps
	done    int
	doneAt  time.Time
	open    []*change
	all     []*change
	end     *change // the logout; nil: none

	streamed bool // what the handler has left to its end is told of by Session.Err alone
	hijacked bool
	upgraded bool // and it has sent the header
	late     bool // the handler has not come to its commit in time
}

// visitKey finds the visit in the context of a request.
type visitKey struct{}

// handler is what a visit's handler does.
type handler func(v *visit, s *session2.Session, rw http.ResponseWriter)

// outcome is what the client of a change was told, or what follows from it.
type outcome int

const (
	pending outcome = iota
	once            // acknowledged: it is stored, once
	never           // it failed, and has left no trace
	maybe           // ErrUncertain
	dropped         // it came too late for its session, and the application could know
)

func (o outcome) String() string {
	return [...]string{"pending", "once", "never", "maybe", "dropped"}[o]
}

// change is a mark that a visit has left in its session.
type change struct {
	v       *visit
	mark    string
	user    string
	outcome outcome
}

// outcomeOf tells from the error of a commit what has become of its changes.
func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return once
	case errors.Is(err, session2.ErrUncertain):
		return maybe
	}
	return never
}

// add notes that the handler is about to leave a mark in a session that it sees as
// the user's, and returns it.
func (v *visit) add(user string) string {
	v.saw(user)
	v.a.w.mu.Lock()
	defer v.a.w.mu.Unlock()
	c := &change{v: v, mark: fmt.Sprint(v.name, "-", len(v.a.w.changes)), user: user}
	v.open, v.all = append(v.open, c), append(v.all, c)
	v.a.w.changes = append(v.a.w.changes, c)
	return c.mark
}

// saw checks whom the handler sees: nobody, or somebody who has signed in with the
// visit's browser.
func (v *visit) saw(user string) string {
	v.b.mu.Lock()
	defer v.b.mu.Unlock()
	if user != "" && !slices.Contains(v.b.users, user) {
		v.a.w.fail(apart, "%s is served as %q, and its browser's users are %q", v.name, user, v.b.users)
	}
	return user
}

// settle notes what has become of the changes so far.
func (v *visit) settle(o outcome) {
	for _, c := range v.open {
		v.a.w.mu.Lock()
		c.outcome = o
		v.a.w.mu.Unlock()
		v.a.w.tell("%s: %q is %v", v.a.name, c.mark, o)
	}
	v.open, v.dropped = nil, nil
}

// commit is the handler's own Commit.
func (v *visit) commit(s *session2.Session) error {
	out := v.a.w.loggedOut(v.sent) && s.ID().String() == v.sent[:32] && !s.IsNew() && len(v.open) > 0
	err := s.Commit(v.ctx)
	v.a.w.say(err)
	if out && err == nil {
		v.a.w.fail(told, "%s commits to a session whose logout was acknowledged before, and is told of no error", v.name)
	}
	if err != nil && err == v.ctx.Err() { // the client has gone: they are still to come
		return err
	}
	v.settle(toldOf(err))
	return err
}

// toldOf tells from what Commit or Err returns what has become of changes.
func toldOf(err error) outcome {
	o := outcomeOf(err)
	if o == never && (errors.Is(err, session2.ErrNotFound) || errors.Is(err, session2.ErrStale)) {
		return dropped
	}
	return o
}

// loggedOut reports whether a logout of the token's session has been acknowledged.
func (w *world) loggedOut(token string) bool {
	id, err := idOf(token)
	w.mu.Lock()
	defer w.mu.Unlock()
	return err == nil && slices.ContainsFunc(w.visits, func(v *visit) bool {
		of, _ := idOf(v.sent)
		return v.done > 0 && !v.b.abroad && v.end != nil && v.end.outcome == once && of == id
	})
}

// outcome tells what has become of what the handler has left to the last commit.
func (v *visit) outcome() outcome {
	switch {
	case v.broken:
		return never
	case v.err != nil:
		return outcomeOf(v.err)
	case v.status >= 500:
		return never
	case v.streamed && !v.stale && errors.Is(v.s.Err(), session2.ErrStale):
		return once // Err says that the changes have landed, and that the token was replaced since
	case v.streamed:
		return toldOf(v.s.Err())
	case v.dropped != nil && outcomeOf(v.dropped) == maybe:
		return maybe
	case v.dropped != nil:
		return dropped
	}
	return once
}

func statusOf(err error) int {
	if errors.Is(err, session2.ErrStale) || errors.Is(err, session2.ErrLostUpdate) {
		return http.StatusConflict
	}
	return http.StatusServiceUnavailable
}

// errPlanned is what handlers panic with.
var errPlanned = errors.New("a handler's panic")

// visit serves one request of the browser, and lets it take the response.
func (a *actor) visit(b *browser, h handler) *visit {
	return a.visitAt(a.w.managers[0], b, h)
}

func (a *actor) visitAt(m *session2.Manager, b *browser, h handler) *visit {
	return a.visitIn(m.Wrap, m, b, h)
}

// visitIn has wrap around the handler.
func (a *actor) visitIn(wrap func(http.Handler) http.Handler, m *session2.Manager, b *browser, h handler) *visit {
	v, r := a.begin(b)
	defer v.cancel()
	rec := v.serve(wrap(v.inner(m, h)), r)
	v.read(rec)
	v.settle(v.outcome())
	v.arrive()
	return v
}

// begin makes the request of a visit.
func (a *actor) begin(b *browser) (*visit, *http.Request) {
	if b.shared {
		a.point(context.Background(), "the request begins")
	}
	v := &visit{a: a, b: b, name: a.name}
	r := httptest.NewRequest("GET", "https://example.com/", nil)
	v.sent = b.get()
	for _, t := range []string{v.sent, b.tossed} {
		if t != "" {
			r.AddCookie(&http.Cookie{Name: cookieName, Value: t})
			a.w.know(t)
		}
	}
	v.ctx, v.cancel = context.WithCancel(context.WithValue(context.WithValue(r.Context(), visitKey{}, v), actorKey{}, a))
	a.w.mu.Lock()
	v.begun, a.w.visits = a.w.steps, append(a.w.visits, v)
	a.w.mu.Unlock()
	a.w.tell("%s: request with %s", a.name, a.w.nameToken(v.sent))
	return v, r.WithContext(v.ctx)
}

// handler returns h within Wrap.
func (v *visit) handler(m *session2.Manager, h handler) http.Handler {
	return m.Wrap(v.inner(m, h))
}

func (v *visit) inner(m *session2.Manager, h handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		v.ctx, v.s = r.Context(), m.Session(r)
		h(v, v.s, rw)
	})
}

// hijackable is a recorder whose connection can be taken over.
type hijackable struct{ *httptest.ResponseRecorder }

func (hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, other := net.Pipe()
	other.Close()
	return conn, nil, nil
}

// serve runs a handler. If it panics, a middleware that recovers answers 500.
func (v *visit) serve(h http.Handler, r *http.Request) (rec *httptest.ResponseRecorder) {
	rec = httptest.NewRecorder()
	v.rec = rec
	defer func() {
		if p := recover(); p != nil {
			v.broken = true
			rec.WriteHeader(http.StatusInternalServerError)
			if p != errPlanned && p != http.ErrAbortHandler {
				v.a.w.fail(told, "%s: a panic: %v", v.a.name, p)
			}
		}
	}()
	h.ServeHTTP(hijackable{rec}, r)
	return rec
}

// read takes down what the response says.
func (v *visit) read(rec *httptest.ResponseRecorder) {
	res := rec.Result()
	v.status, v.set, v.revoked = res.StatusCode, nil, false
	if v.hijacked {
		v.status = http.StatusSwitchingProtocols
	}
	if v.hijacked && !v.upgraded { // the server sends no header any more
		return
	}
	for _, c := range res.Cookies() {
		if c.MaxAge < 0 {
			v.revoked = true
			continue
		}
		v.set = append(v.set, c.Value)
		v.a.w.know(c.Value)
	}
	v.a.w.tell("%s: %d, cookie %s%s, err %v", v.a.name, v.status, v.a.w.nameToken(v.token()),
		map[bool]string{true: " revoked"}[v.revoked], v.err)
}

// headerLeaves is for a handler that has begun its response and goes on. Where nothing
// says that the response may come late, its cookie is there by now.
func (v *visit) headerLeaves() {
	if !v.b.shared && !v.b.lossy {
		v.read(v.rec)
		v.take()
	}
}

// token returns the token that the response sets, "" if none.
func (v *visit) token() string {
	if len(v.set) == 0 {
		return ""
	}
	return v.set[len(v.set)-1]
}

// arrive brings the response to the browser, unless it is lost.
func (v *visit) arrive() {
	var faults []fault
	if v.b.lossy {
		faults = append(faults, lostResponse)
	}
	if (v.b.shared || v.b.lossy) && v.a.point(context.Background(), "the response arrives", faults...) == lostResponse {
		return
	}
	v.done, v.doneAt = max(1, v.a.w.step()), time.Now()
	if !v.came {
		v.take()
	}
}

// take has the browser take the cookie.
func (v *visit) take() {
	v.b.mu.Lock()
	defer v.b.mu.Unlock()
	v.came = true
	switch t := v.token(); {
	case t != "":
		v.b.token, v.b.from = t, v
	case v.revoked:
		v.b.token, v.b.from = "", v
	}
}

func (b *browser) get() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.token
}

// think is a point in the middle of a handler.
func (v *visit) think() { v.a.point(context.Background(), "the handler goes on") }

// know notes a token that was issued or presented.
func (w *world) know(token string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if slices.Contains(w.issued, token) {
		return
	}
	w.issued = append(w.issued, token)
	if id, err := idOf(token); err == nil {
		w.ids[id] = true
	}
}

// idOf returns the session that a token names.
func idOf(token string) (session2.ID, error) {
	id, _, _ := strings.Cut(token, ".")
	return session2.ParseID(id)
}

func (w *world) nameToken(token string) string {
	if token == "" {
		return "none"
	}
	id, _ := idOf(token)
	return w.name("S", id) + "." + w.name("t", token)
}

// alone makes one visit while nothing waits and nothing fails.
func (w *world) alone(name string, b *browser, h handler) *visit {
	return (&actor{w: w, name: name}).visit(b, h)
}

// view is what a token opens.
type view struct {
	opens bool
	user  string
	marks string
}

// look returns what a token would open now, and changes nothing.
func (w *world) look(token string) (got view) {
	if token == "" {
		return view{}
	}
	m := w.manager(frozen{w.disk})
	r := httptest.NewRequest("GET", "https://example.com/", nil)
	r.AddCookie(&http.Cookie{Name: cookieName, Value: token})
	m.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s := m.Session(r)
		got.opens, got.user = !s.IsNew(), s.User()
		got.marks, _ = marks.Get(s)
	})).ServeHTTP(httptest.NewRecorder(), r)
	return got
}

// valueOf returns the marks in a record.
func (w *world) valueOf(rec session2.Record) string {
	c, err := w.contents(rec)
	if err != nil {
		return err.Error()
	}
	for _, i := range c.Values {
		if i.Key == key {
			v, _ := i.Value()
			s, _ := v.(string)
			return s
		}
	}
	return ""
}

// count returns how often the marks hold mark.
func count(list, mark string) (n int) {
	for _, m := range strings.Fields(list) {
		if m == mark {
			n++
		}
	}
	return n
}

// revokeUser is the manager's, as a tool or another user's request calls it.
func (a *actor) revokeUser(user string) error { return a.revokeUserAt(a.w.managers[0], user) }

func (a *actor) revokeUserAt(m *session2.Manager, user string) error {
	ctx := context.WithValue(context.Background(), actorKey{}, a)
	_, err := m.RevokeUser(ctx, user)
	a.w.tell("%s: RevokeUser: %v", a.name, err)
	return err
}
