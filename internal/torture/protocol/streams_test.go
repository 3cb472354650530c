package protocol

import (
	"context"
	"net/http"
	"time"

	"github.com/session2/session2"
)

// follower is a stream, whose handler waits for the end of its context.
type follower struct {
	opens bool      // the request's token has opened a session
	ended bool      // with the session, as far as the handler knows
	cause error     // why
	until time.Time // when the handler has returned
}

// follows is how long it waits at most: for several looks at the session, of which some
// may fail. It is due at no instant at which anything else is.
const follows = 44700 * time.Millisecond

// handler returns one that commits now and then and waits. It asks for the end of its
// context before it looks at its session, or when the response has begun.
func (f *follower) handler(early bool) handler {
	return func(v *visit, s *session2.Session, rw http.ResponseWriter) {
		if early {
			v.ctx.Done()
		}
		read(v, s)
		f.opens = !s.IsNew()
		if http.NewResponseController(rw).Flush() != nil {
			return
		}
		v.headerLeaves()
		v.status, v.streamed = http.StatusOK, true
		end := v.ctx.Done()
		for range 2 {
			v.think()
			update(v, s)
			if v.commit(s) != nil {
				break
			}
		}
		select {
		case <-end:
		case <-time.After(follows):
		}
		f.ended, f.cause, f.until = v.ctx.Err() != nil, context.Cause(v.ctx), time.Now()
		v.a.w.tell("%s: the stream's context: %v", v.a.name, f.cause)
	}
}

// checkEnded fails the run if the stream has gone on for long after its session had
// ended.
func (w *world) checkEnded(f *follower, at time.Time) {
	looks := 2*max(0, w.watchEvery()) + commitTimeout
	for range w.faults {
		looks += w.watchEvery() + commitTimeout
	}
	if f.opens && !f.ended && !w.slow && f.until.Sub(at) > looks {
		w.fail(ended, "the stream went on for %v after its session had ended", f.until.Sub(at))
	}
}

// watchEvery is Config.WatchEvery with its default.
func (w *world) watchEvery() time.Duration {
	if w.cfg.WatchEvery == 0 {
		return 5 * time.Second
	}
	return w.cfg.WatchEvery
}

// checkKept fails the run if a session that lives has lost what was acknowledged.
func (w *world) checkKept(token string, visits ...*visit) {
	got := w.look(token)
	for _, v := range visits {
		for _, c := range v.all {
			if got.opens && c.outcome == once && count(got.marks, c.mark) != 1 {
				w.fail(keeps, "%q was acknowledged, and is lost: %q", c.mark, got.marks)
			}
		}
	}
}

// streamEnds ends the session of a stream: by a logout in another tab, or by RevokeUser.
func streamEnds(w *world) {
	b := w.session("alice")
	f := &follower{}
	h, out := f.handler(w.choices.pick(2) == 1), w.style(succeed).wrap(logout, read)
	revokes := w.choices.pick(2) == 1
	var one, other *visit
	var at time.Time
	w.together(
		part{"a", func(a *actor) { one = a.visit(b, h) }},
		part{"b", func(a *actor) {
			if !revokes {
				other = a.visitAt(w.lastManager(), b, out)
				if other.end.outcome == once && other.sent != "" {
					at = other.doneAt
				}
			} else if a.revokeUserAt(w.lastManager(), "alice") == nil {
				at = time.Now()
			}
		}})
	w.landAll()
	w.checkMarks(closes)
	open := w.look(one.sent).opens
	if !at.IsZero() {
		w.checkEnded(f, at)
		if open {
			w.fail(ended, "the session is open after its end was acknowledged")
		}
	}
	if open && f.ended {
		w.fail(staysIn, "the stream has ended, and its session has not: %v", f.cause)
	}
	w.checkKept(one.sent, one)
}

// streamStays has others use the session of a stream, and replace its token when that is
// due.
func streamStays(w *world) {
	b := w.session("alice")
	if w.cfg.RenewEvery > 0 {
		b.shared = true
		w.wait(renewEvery + time.Minute)
	}
	f := &follower{}
	h, write, more := f.handler(w.choices.pick(2) == 1), w.anyWrite(), w.style(succeed).wrap(read, update)
	w.together(
		part{"a", func(a *actor) { a.visit(b, h) }},
		part{"b", func(a *actor) {
			a.visitAt(w.lastManager(), b, write)
			a.visit(b, more)
		}})
	w.landAll()
	if f.ended {
		w.fail(staysIn, "the stream has ended, and nothing had ended its session: %v", f.cause)
	}
	w.checkMarks(lives)
	w.checkIn(b, "alice")
}

// streamRenews has another tab replace the token of a stream by a login or Renew.
func streamRenews(w *world) {
	b := w.session("alice")
	f := &follower{}
	do := w.choices.pick(3)
	h := f.handler(w.choices.pick(2) == 1)
	in := w.style(succeed).wrap([]act{renew, login("alice"), login("bob")}[do], read)
	var one, other *visit
	w.together(
		part{"a", func(a *actor) { one = a.visit(b, h) }},
		part{"b", func(a *actor) { other = a.visitAt(w.lastManager(), b, in) }})
	w.landAll()
	w.checkMarks(closes)
	switch o := other.outcome(); {
	case o == once:
		w.checkEnded(f, other.doneAt)
	case o == never && f.ended && w.look(one.sent).opens:
		w.fail(staysIn, "the stream has ended, and its token opens the session: %v", f.cause)
	}
	if other.outcome() == once {
		w.checkIn(b, []string{"alice", "alice", "bob"}[do])
	}
	if do < 2 && other.outcome() == once {
		w.checkKept(b.get(), one, other)
	}
}

// streamExpires lets the session of a stream run out.
func streamExpires(w *world) {
	b := w.session("alice")
	at := time.Now().Add(w.cfg.Lifetime)
	w.wait(w.cfg.Lifetime - follows/3)
	f := &follower{}
	h, write := f.handler(w.choices.pick(2) == 1), w.anyWrite()
	var one *visit
	w.together(
		part{"a", func(a *actor) { one = a.visit(b, h) }},
		part{"b", func(a *actor) { a.visitAt(w.lastManager(), b, write) }})
	w.landAll()
	w.checkMarks(closes)
	w.checkKept(one.sent, one)
	w.checkEnded(f, at)
	if f.ended && f.until.Before(at) {
		w.fail(staysIn, "the stream has ended before its session: %v", f.cause)
	}
}
