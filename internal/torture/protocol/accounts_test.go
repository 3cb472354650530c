package protocol

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/session2/session2"
)

// opened is a visit without HTTP, by Manager.Open and Commit: the client is told the
// token when the commit has said that it is stored.
func (a *actor) opened(b *browser, do act, again bool) *visit {
	v, r := a.begin(b)
	defer v.cancel()
	s, err := a.w.managers[0].Open(r.Context(), v.sent)
	if err != nil {
		v.err = err
		a.w.tell("%s: Open: %v", a.name, err)
		return v
	}
	v.s = s
	do(v, s)
	v.think()
	if v.err = v.commit(s); v.err == nil && again {
		update(v, s)
		s.Discard()
		v.settle(never)
		update(v, s)
		v.err = v.commit(s)
	}
	if t := s.Token(); v.err == nil && t != "" && t != v.sent {
		v.set = append(v.set, t)
		a.w.know(t)
	}
	v.revoked = v.err == nil && v.end != nil
	a.w.tell("%s: Commit: %v, token %s", a.name, v.err, a.w.nameToken(v.token()))
	v.arrive()
	return v
}

// open has a client of Manager.Open beside a browser, or two.
func open(w *world) {
	b := w.session("alice")
	do := w.choices.pick(4)
	if w.cfg.RenewEvery > 0 {
		b.shared = do < 2 // else a successor that comes late replaces what a Renew has sent
		w.wait(renewEvery + time.Minute)
	}
	act, again := []act{update, naive, renew, logout}[do], w.choices.pick(2) == 1 && do < 3
	both := w.choices.pick(2) == 1
	write := w.anyWrite()
	var one, other *visit
	w.together(
		part{"a", func(a *actor) { one = a.opened(b, act, again) }},
		part{"b", func(a *actor) {
			if both {
				other = a.opened(b, update, true)
			} else {
				other = a.visit(b, write)
			}
		}})
	w.landAll()
	if do < 2 {
		w.checkMarks(lives)
		w.checkIn(b, "alice")
		return
	}
	w.checkMarks(closes)
	switch {
	case do == 2 && one.err == nil:
		w.checkIn(b, "alice")
		w.checkReplaced(one)
	case do == 3 && one.end != nil && one.end.outcome == never && other.dropped == nil:
		w.checkIn(b, "alice")
	}
}

// checkReplaced fails the run if the token from before a Renew opens a session.
func (w *world) checkReplaced(v *visit) {
	if v.token() != "" && w.look(v.sent).opens {
		w.fail(ended, "the token opens a session after Renew")
	}
}

// revokeAndLogin ends all of a user's sessions while the user signs in elsewhere: that
// login is ended, or comes after.
func revokeAndLogin(w *world) {
	b, elsewhere := w.session("alice"), w.session("")
	before := b.token
	in, write := w.style(succeed).wrap(login("alice"), update), w.anyWrite()
	var login *visit
	var err error
	var began, over int
	w.together(
		part{"a", func(a *actor) { login = a.visit(elsewhere, in) }},
		part{"b", func(a *actor) { a.visit(b, write) }},
		part{"r", func(a *actor) {
			a.point(context.Background(), "RevokeUser begins")
			began = w.step()
			err = a.revokeUser("alice")
			over = w.step()
		}})
	w.landAll()
	w.checkMarks(closes)
	if err != nil {
		return
	}
	if w.look(before).opens {
		w.fail(ended, "a revoked session is open")
	}
	switch {
	case login.outcome() != once:
	case login.done < began && w.look(login.token()).opens:
		w.fail(ended, "a session is open that had begun before all were revoked")
	case login.begun > over:
		w.checkIn(elsewhere, "alice")
	}
}

// revokeOthers has a user end all other sessions, while one of them writes and another
// one begins. The user's own stays.
func revokeOthers(w *world) {
	b, old, elsewhere := w.session("alice"), w.session("alice"), w.session("")
	before := old.token
	in, write := w.style(succeed).wrap(login("alice"), update), w.anyWrite()
	var err error
	var one *visit
	w.together(
		part{"a", func(a *actor) {
			one = a.visit(b, func(v *visit, s *session2.Session, rw http.ResponseWriter) {
				update(v, s)
				if _, err = w.managers[0].RevokeOthers(v.ctx, s); err != nil {
					rw.WriteHeader(http.StatusInternalServerError)
					return
				}
				fmt.Fprint(rw, "a page")
			})
		}},
		part{"b", func(a *actor) { a.visit(old, write) }},
		part{"c", func(a *actor) { a.visit(elsewhere, in) }})
	w.landAll()
	w.checkMarks(closes)
	w.checkIn(b, "alice")
	for _, c := range one.all {
		if c.outcome == once && count(w.look(b.token).marks, c.mark) != 1 {
			w.fail(keeps, "%q was acknowledged, and is lost with the other sessions", c.mark)
		}
	}
	if err == nil && w.look(before).opens {
		w.fail(ended, "another session is open after all others were revoked")
	}
	if w.faults == 0 && !w.slow && err != nil && !errors.Is(err, session2.ErrUncertain) {
		w.fail(told, "RevokeOthers has failed, and no call had: %v", err)
	}
}

// loginAgain has a user whose login has failed, as far as they were told, sign in again:
// it may have landed all the same, and they get to what the session held.
func loginAgain(w *world) {
	b := w.session("")
	first := b.token
	in := w.style(succeed).wrap(login("alice"), update)
	w.together(part{"a", func(a *actor) {
		for range 2 {
			if a.visit(b, in).outcome() == once {
				return
			}
		}
	}})
	w.landAll()
	if w.look(b.token).user != "alice" {
		w.alone("c", b, body.wrap(login("alice"), nil))
	}
	w.checkMarks(lives)
	w.checkIn(b, "alice")
	if w.look(first).opens {
		w.fail(ended, "the token from before the login opens a session")
	}
	if got := w.look(b.token).marks; count(got, "cart") != 1 {
		w.fail(keeps, "what the session held before the login is out of reach: %q", got)
	}
}
