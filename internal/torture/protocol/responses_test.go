package protocol

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/session2/session2"
)

// updates has three tabs Update one key.
func updates(w *world) {
	b := w.session("alice")
	tab := func() handler { return w.style(all).wrap(update, update) }
	one, other, third := tab(), tab(), w.style(succeed).wrap(update, update)
	w.together(
		part{"a", func(a *actor) { a.visit(b, one) }},
		part{"b", func(a *actor) { a.visit(b, other) }},
		part{"c", func(a *actor) { a.visit(b, third) }})
	w.landAll()
	w.checkMarks(lives)
	w.checkIn(b, "alice")
}

// shown is a flash message, by whom it was left, and who has shown it.
type shown struct {
	text   string
	left   *change
	shows  []*change // each a mark of the request that showed it
	atOnce int       // how many of these were side by side
}

// flashes has a tab show a message while another one leaves one, and shows what is
// there. Of two that are side by side, both may show a message.
func flashes(w *world) {
	b := w.session("alice")
	var messages []*shown
	leave := func(v *visit, s *session2.Session) {
		update(v, s)
		m := &shown{left: v.all[len(v.all)-1]}
		m.text = "message " + m.left.mark
		s.Flash(m.text)
		w.mu.Lock()
		defer w.mu.Unlock()
		messages = append(messages, m)
	}
	show := func(v *visit, s *session2.Session) {
		update(v, s)
		list := s.Flashes()
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, f := range list {
			for _, m := range messages {
				if m.text == f {
					m.shows = append(m.shows, v.all[len(v.all)-1])
				}
			}
		}
	}
	w.alone("setup", b, body.wrap(leave, nil))
	first := w.style(all).wrap(show, leave)
	both := func(v *visit, s *session2.Session) { show(v, s); leave(v, s) }
	second := w.style(all).wrap(w.anyAct(leave, show, both), show)
	w.two(b, first, second)
	w.landAll()
	w.checkMarks(lives)
	for _, m := range messages {
		m.atOnce = len(m.shows)
	}
	w.alone("c", b, body.wrap(show, nil))
	w.alone("d", b, body.wrap(show, nil))
	for _, m := range messages {
		w.checkShown(m)
	}
}

// checkShown fails the run if a message was lost, shown again, or left by a request
// that has failed.
func (w *world) checkShown(m *shown) {
	before, unknown := 0, m.left.outcome == maybe
	for _, c := range m.shows[:m.atOnce] {
		if c.outcome == once {
			before++
		}
		unknown = unknown || c.outcome == maybe
	}
	later := len(m.shows) - m.atOnce
	switch {
	case later > 1, later == 1 && before > 0:
		w.fail(single, "%q was shown already", m.text)
	case later+before == 0 && m.left.outcome == once && !unknown:
		w.fail(keeps, "%q was shown by nobody", m.text)
	case len(m.shows) > 0 && m.left.outcome == never && m.left.v != m.shows[0].v:
		w.fail(traceless, "%q is of a request that has failed", m.text)
	}
}

// eventStream is the handler of an event source: it commits after the first byte,
// with each event, and leaves a change to its end.
func eventStream(looks bool) handler {
	return func(v *visit, s *session2.Session, rw http.ResponseWriter) {
		rw.Header().Set("Content-Type", "text/event-stream")
		if looks {
			read(v, s)
		}
		if http.NewResponseController(rw).Flush() != nil {
			return
		}
		v.headerLeaves()
		v.status, v.streamed = http.StatusOK, true
		for i := range 2 {
			update(v, s)
			if v.commit(s) != nil {
				return
			}
			fmt.Fprintf(rw, "data: %d\n\n", i)
			http.NewResponseController(rw).Flush()
			v.think()
		}
		update(v, s)
	}
}

// events has an event source write while another tab writes, signs out, or replaces
// the token.
func events(w *world) {
	b := w.session("alice")
	if w.cfg.RenewEvery > 0 {
		w.wait(renewEvery + time.Minute)
	}
	h := eventStream(w.choices.pick(2) == 1)
	do := w.choices.pick(4)
	_, other := w.two(b, h, w.style(succeed).wrap([]act{update, logout, renew, login("alice")}[do], read))
	w.landAll()
	w.checkClean(other)
	switch {
	case do == 0:
		w.checkMarks(lives)
		w.checkIn(b, "alice")
	case do > 1 && other.outcome() == once:
		w.checkIn(b, "alice")
	}
}

// upgrade has a handler take over the connection after what it does. If it commits
// before, it sends the header, and the cookie in it.
func upgrade(first act, commits bool) handler {
	return func(v *visit, s *session2.Session, rw http.ResponseWriter) {
		read(v, s)
		first(v, s)
		if commits && v.commit(s) != nil {
			return
		}
		conn, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		v.hijacked, v.upgraded, v.status = true, commits, http.StatusSwitchingProtocols
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
		conn.Close()
	}
}

// hijack has a handler take over its connection while another tab writes. A cookie
// that would go with its 101 is refused, unless an earlier Commit has stored what it
// is for.
func hijack(w *world) {
	b := w.session("alice")
	if w.cfg.RenewEvery > 0 {
		w.wait(renewEvery + time.Minute)
	}
	commits := w.choices.pick(2) == 1
	end := w.choices.pick(4)
	do := []act{update, renew, login("alice"), logout}[end]
	one, other := w.two(b, w.anyWrite(), upgrade(do, commits))
	w.landAll()
	switch {
	case other.end != nil:
		w.afterLogout(b, one, other)
		return
	case end == 0:
		w.checkMarks(lives)
	case !commits && other.hijacked:
		w.fail(told, "a token was replaced for a response that cannot tell the new one")
	case !commits:
		w.checkMarks(lives)
	default:
		w.checkMarks(closes)
	}
	if !commits || outcomeOf(other.err) != maybe && other.all[0].outcome != maybe {
		w.checkIn(b, "alice")
	}
}

// anotherActor returns a handler that runs h as an actor of its own, as
// http.TimeoutHandler runs it in a goroutine of its own.
func (v *visit) anotherActor(h func(rw http.ResponseWriter, r *http.Request)) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		a := v.a.w.join(v.name + "'")
		v.a = a
		defer a.end()
		h(rw, r.WithContext(context.WithValue(r.Context(), actorKey{}, a)))
	})
}

// slowly is a handler that may not come to its commit in time.
func slowly(do act, commits bool) handler {
	return func(v *visit, s *session2.Session, rw http.ResponseWriter) {
		do(v, s)
		if commits {
			v.think()
			if v.commit(s) != nil {
				return
			}
			do(v, s)
		}
		v.think()
		v.late = errors.Is(v.ctx.Err(), context.DeadlineExceeded)
		fmt.Fprint(rw, "a page")
	}
}

// timed is what http.TimeoutHandler allows: less than a tick, by which the clock moves,
// and more than any wait between two tries.
const timed = tick * 9 / 10

// timeoutOutside has http.TimeoutHandler around Wrap answer before the handler has
// come to its end.
func timeoutOutside(w *world) {
	b := w.session("alice")
	write, h := w.anyWrite(), slowly(w.anyAct(update, naive), w.choices.pick(2) == 1)
	var v *visit
	w.together(
		part{"a", func(a *actor) {
			var r *http.Request
			v, r = a.begin(b)
			inner := v.anotherActor(v.handler(w.managers[0], h).ServeHTTP)
			v.await(a, v.serve(http.TimeoutHandler(inner, timed, "too slow"), r))
		}},
		part{"b", func(a *actor) { a.visit(b, write) }})
	w.landAll()
	answered := v.status == http.StatusOK
	if v.status == http.StatusServiceUnavailable {
		v.status = http.StatusOK // TimeoutHandler's, not the handler's
	}
	if v.late && v.err == nil {
		v.settle(never)
	}
	v.settle(v.outcome())
	if answered && v.err != nil {
		w.fail(told, "the commit has failed, and its client was answered 200: %v", v.err)
	}
	w.checkMarks(lives)
	w.checkIn(b, "alice")
}

// await brings the response of a visit whose handler may still run.
func (v *visit) await(a *actor, rec interface{ Result() *http.Response }) {
	a.point(context.Background(), "the response arrives")
	v.status = rec.Result().StatusCode
	a.w.tell("%s: %d", a.name, v.status)
}

// timeoutInside has http.TimeoutHandler within Wrap answer before the handler has
// come to its end: the 503 is one of the session's request.
func timeoutInside(w *world) {
	b := w.session("alice")
	write, h := w.anyWrite(), slowly(w.anyAct(update, naive), w.choices.pick(2) == 1)
	var v *visit
	w.together(
		part{"a", func(a *actor) {
			var r *http.Request
			v, r = a.begin(b)
			m := w.managers[0]
			inner := http.TimeoutHandler(v.anotherActor(func(rw http.ResponseWriter, r *http.Request) {
				v.ctx = r.Context()
				h(v, m.Session(r), rw)
			}), timed, "too slow")
			outer := m.Wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				m.Session(r).User() // as a middleware that asks who it is
				inner.ServeHTTP(rw, r)
			}))
			v.await(a, v.serve(outer, r))
		}},
		part{"b", func(a *actor) { a.visit(b, write) }})
	w.landAll()
	v.settle(v.outcome())
	w.checkMarks(lives)
	w.checkIn(b, "alice")
}
