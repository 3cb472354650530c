package protocol

import (
	"context"
	"net/http"
	"time"

	"github.com/session2/session2"
)

// In these scenarios a lost update is let through (Config.AllowLostUpdates). So all that
// keeps a count by Get and Set whole is that one request has the session at a time.
var lostUpdates = session2.Config{AllowLostUpdates: true}

// lease is for how long a turn is good.
const lease = 10 * time.Second

// turned is a handler within Exclusive, before its first byte.
var turned = []style{body, redirect, silent, twice, panics, panicsLate, failing, gone}

func (w *world) counts() handler { return w.style(turned).wrap(naive, naive) }

// exclusive is a visit with its session for itself. It may have looked at it before.
func (a *actor) exclusive(m *session2.Manager, b *browser, h handler) *visit {
	wrap := m.Exclusive
	if b.looks {
		wrap = func(next http.Handler) http.Handler {
			turn := m.Exclusive(next)
			return m.Wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				m.Session(r).User()
				turn.ServeHTTP(rw, r)
			}))
		}
	}
	return a.visitIn(wrap, m, b, h)
}

// signedIn returns a browser of alice's, whose requests look at their session before
// their turn, or not.
func (w *world) signedIn() *browser {
	b := w.session("alice")
	b.looks = w.choices.pick(2) == 1
	return b
}

// checkTurns fails the run if the session is not to be had, now that nobody has it any
// more.
func (w *world) checkTurns(b *browser) {
	v := (&actor{w: w, name: "e"}).exclusive(w.lastManager(), b, body.wrap(naive, nil))
	if v.err != nil {
		w.fail(staysIn, "the session's turn is not to be had any more: %v", v.err)
	}
}

// exclusive has three requests count, two of them in one process.
func exclusive(w *world) {
	b := w.signedIn()
	if w.cfg.RenewEvery > 0 {
		b.shared = true
		w.wait(renewEvery + time.Minute)
	}
	first, second, third := w.counts(), w.counts(), w.counts()
	var one, other, last *visit
	w.together(
		part{"a", func(a *actor) { one = a.exclusive(w.managers[0], b, first) }},
		part{"b", func(a *actor) { other = a.exclusive(w.lastManager(), b, second) }},
		part{"c", func(a *actor) { last = a.exclusive(w.managers[0], b, third) }})
	w.landAll()
	w.checkClean(one, other, last)
	w.checkTurns(b)
	w.checkMarks(lives)
	w.checkIn(b, "alice")
}

// dies is a handler whose process is killed in the middle of it.
func dies(do act, commits bool) handler {
	return func(v *visit, s *session2.Session, _ http.ResponseWriter) {
		do(v, s)
		if commits && v.commit(s) != nil {
			return
		}
		if commits {
			do(v, s)
		}
		v.think()
		v.a.goesAway()
		v.settle(never)
		panic(errPlanned)
	}
}

// goesAway has the process of an actor stand still.
func (a *actor) goesAway() {
	a.wasAway = true
	a.away.Store(true)
}

// stands is a handler whose process stands still in the middle of it, for longer than
// its lease, and then goes on.
func stands(do act, commits bool) handler {
	return func(v *visit, s *session2.Session, rw http.ResponseWriter) {
		do(v, s)
		if commits && v.commit(s) != nil {
			return
		}
		v.a.goesAway()
		time.Sleep(lease + 3*tick)
		v.a.away.Store(false)
		v.think()
		do(v, s)
		rw.WriteHeader(http.StatusNoContent)
	}
}

// works is a handler that takes longer than its lease, which is renewed meanwhile.
func works(do act, commits bool) handler {
	return func(v *visit, s *session2.Session, rw http.ResponseWriter) {
		do(v, s)
		if commits && v.commit(s) != nil {
			return
		}
		time.Sleep(lease + 3*tick)
		do(v, s)
		rw.WriteHeader(http.StatusNoContent)
	}
}

// outlived has a request that takes longer than its lease, in a process of its own, and
// two that wait.
func outlived(hold func(do act, commits bool) handler) func(w *world) {
	return func(w *world) {
		b := w.signedIn()
		first, second, third := hold(naive, w.choices.pick(2) == 1), w.counts(), w.counts()
		var one, other, last *visit
		w.together(
			part{"a", func(a *actor) { one = a.exclusive(w.managers[0], b, first) }},
			part{"b", func(a *actor) { other = a.exclusive(w.lastManager(), b, second) }},
			part{"c", func(a *actor) { last = a.exclusive(w.lastManager(), b, third) }})
		w.landAll()
		w.checkClean(other, last)
		if !w.starved && !w.actors[0].wasAway {
			w.checkClean(one)
		}
		w.checkTurns(b)
		w.checkMarks(lives)
		w.checkIn(b, "alice")
	}
}

// exclusiveEnds has a logout beside a request that has the session, and one that waits.
func exclusiveEnds(w *world) {
	b := w.signedIn()
	first, second, end := w.counts(), w.counts(), w.style(all).wrap(logout, read)
	inTurn := w.choices.pick(2) == 1
	var one, other, out *visit
	w.together(
		part{"a", func(a *actor) { one = a.exclusive(w.managers[0], b, first) }},
		part{"b", func(a *actor) { other = a.exclusive(w.lastManager(), b, second) }},
		part{"x", func(a *actor) {
			if inTurn {
				out = a.exclusive(w.lastManager(), b, end)
			} else {
				out = a.visitAt(w.lastManager(), b, end)
			}
		}})
	w.landAll()
	w.checkClean(out)
	switch {
	case out.end == nil: // it did not have its turn
	case out.end.outcome == once && out.user == "alice":
		w.checkOut(one.sent, "the logout was acknowledged")
	case out.end.outcome == never && one.dropped == nil && other.dropped == nil:
		w.checkTurns(b)
		w.checkMarks(lives)
		w.checkIn(b, "alice")
		return
	}
	w.checkMarks(closes)
}

// leaves has the client of a request go away that waits for its turn, or has it.
func leaves(w *world) {
	b := w.signedIn()
	first, second, third := w.counts(), w.counts(), w.counts()
	var one, last *visit
	w.together(
		part{"a", func(a *actor) { one = a.exclusive(w.managers[0], b, first) }},
		part{"b", func(a *actor) { a.exclusive(w.lastManager(), b, second) }},
		part{"c", func(a *actor) { last = a.exclusive(w.lastManager(), b, third) }},
		part{"x", func(a *actor) {
			a.point(context.Background(), "the client goes away")
			w.clientLeaves("b")
		}})
	w.landAll()
	w.checkClean(one, last)
	w.checkTurns(b)
	w.checkMarks(lives)
	w.checkIn(b, "alice")
}

// clientLeaves has the clients of an actor's requests go away.
func (w *world) clientLeaves(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range w.visits {
		if v.name == name {
			v.cancel()
		}
	}
}

// exclusiveRenews has a request replace the token that has the session for itself, while
// another one waits: that one is nobody's then.
func exclusiveRenews(w *world) {
	b := w.signedIn()
	b.shared = true
	before := b.token
	first := w.style(succeed).wrap(w.anyAct(renew, login("alice")), naive)
	second, third := w.counts(), w.counts()
	var one *visit
	w.together(
		part{"a", func(a *actor) { one = a.exclusive(w.managers[0], b, first) }},
		part{"b", func(a *actor) { a.exclusive(w.lastManager(), b, second) }},
		part{"c", func(a *actor) { a.exclusive(w.managers[0], b, third) }})
	w.landAll()
	w.checkClean(one)
	w.checkMarks(closes)
	if one.outcome() != once {
		return
	}
	if w.look(before).opens {
		w.fail(ended, "the token opens a session after it was replaced")
	}
	w.checkIn(b, "alice")
	w.checkTurns(b)
	for _, c := range w.changes {
		if c.outcome == once && c.user == "alice" && count(w.look(b.token).marks, c.mark) != 1 {
			w.fail(keeps, "%q was acknowledged, and is lost", c.mark)
		}
	}
}
