package protocol

import "time"

// loginAndLogout has one tab sign in while another one signs out.
func loginAndLogout(w *world) {
	b := w.session("")
	first := b.token
	b.shared = true
	in, out := w.two(b, w.style(succeed).wrap(login("alice"), update), w.style(succeed).wrap(logout, read))
	w.landAll()
	w.checkClean(in, out)
	w.checkMarks(closes)
	w.checkOwn(in, "alice")
	if (in.outcome() == once || out.end.outcome == once) && w.look(first).opens {
		w.fail(ended, "the token from before the login and the logout opens a session")
	}
	if out.end.outcome == once && out.sent == in.token() && w.look(out.sent).opens {
		w.fail(ended, "the session is open after its logout")
	}
}

// plantedCookie has a user sign in with a cookie that an attacker has planted, while
// the attacker uses it.
func plantedCookie(w *world) {
	attacker := w.session("")
	victim := &browser{token: attacker.token}
	write := w.style(all).wrap(w.anyAct(update, naive, renew, logout, login("mallory")), read)
	var one, evil *visit
	w.together(
		part{"a", func(a *actor) { one = a.visit(victim, w.bodyLogin()) }},
		part{"m", func(a *actor) {
			evil = a.visit(attacker, write)
			a.visit(attacker, body.wrap(update, nil))
		}})
	w.landAll()
	w.checkClean(one)
	w.checkOwn(one, "alice")
	if one.outcome() == once && evil.end == nil { // a logout under way at the login may end it, as Destroy says
		w.checkIn(victim, "alice")
	}
	w.checkAttacker(evil, attacker)
}

func (w *world) bodyLogin() handler { return body.wrap(login("alice"), nil) }

// checkAttacker fails the run if an attacker has got anything of alice's.
func (w *world) checkAttacker(v *visit, b *browser) {
	for _, t := range append(v.set, v.sent, b.get()) {
		if t != "" && w.look(t).user == "alice" {
			w.fail(apart, "the attacker's %s opens the session of alice", w.nameToken(t))
		}
	}
	if v.user == "alice" {
		w.fail(apart, "the attacker was served as alice")
	}
}

// tossedCookie has a user sign in with a neighbour's cookie beside the browser's own,
// while the neighbour uses it.
func tossedCookie(w *world) {
	attacker := w.session("mallory")
	victim := w.session("alice")
	own := victim.token
	victim.tossed = attacker.token
	var one, evil *visit
	w.together(
		part{"a", func(a *actor) { one = a.visit(victim, w.bodyLogin()) }},
		part{"m", func(a *actor) { evil = a.visit(attacker, body.wrap(update, nil)) }})
	w.landAll()
	w.checkClean(one)
	w.checkMarks(closes)
	w.checkOwn(one, "alice")
	w.checkAttacker(evil, attacker)
	if one.outcome() != once {
		return
	}
	w.checkIn(victim, "alice")
	if w.look(own).opens || w.look(evil.sent).opens {
		w.fail(ended, "a session that was presented beside another one outlives the login")
	}
}

// crowd has three tabs write and one sign out when a rotation is due.
func crowd(w *world) {
	b := w.session("alice")
	b.shared = true
	w.wait(renewEvery + time.Minute)
	var out *visit
	first, end := w.anyWrite(), w.style(all).wrap(logout, read)
	w.together(
		part{"a", func(a *actor) { a.visit(b, first) }},
		part{"b", func(a *actor) { a.visit(b, body.wrap(update, nil)) }},
		part{"c", func(a *actor) { a.visit(b, body.wrap(naive, nil)) }},
		part{"x", func(a *actor) { out = a.visit(b, end) }})
	w.landAll()
	w.checkMarks(closes)
	if out.end.outcome == once && out.sent != "" {
		w.checkOut(out.sent, "the logout was acknowledged")
	}
	if out.end.outcome == never {
		w.checkIn(b, "alice")
	}
}
