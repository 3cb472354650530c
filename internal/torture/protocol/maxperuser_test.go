package protocol

import (
	"bytes"
	"context"
	"crypto/sha256"
	"time"

	"github.com/session2/session2"
)

// maxPerUser is Config.MaxPerUser of these scenarios.
const maxPerUser = 2

// isTurn reports whether a record is no session, but the turn of one of a user's
// logins: its identity has the hash zero.
func isTurn(rec session2.Record) bool { return bytes.Contains(rec.Data, make([]byte, sha256.Size)) }

// anyBrowser returns a browser that nobody has signed in with, with a session or
// without one.
func (w *world) anyBrowser() *browser {
	if w.choices.pick(2) == 1 {
		return w.session("")
	}
	return &browser{}
}

// logins has a browser sign in, and once more if that has failed, as far as its user was
// told.
func (a *actor) logins(m *session2.Manager, b *browser, h handler) (v *visit) {
	for range 2 {
		if v = a.visitAt(m, b, h); v.outcome() == once {
			break
		}
	}
	return v
}

// tooMany has a user with as many sessions as there may be sign in with two more
// browsers, while an old session writes.
func tooMany(w *world) {
	w.session("alice")
	w.wait(time.Minute)
	old := w.session("alice")
	w.wait(time.Minute)
	b, c := w.anyBrowser(), w.anyBrowser()
	in := w.style(succeed).wrap(login("alice"), update)
	write := w.anyWrite()
	var one, other *visit
	w.together(
		part{"a", func(a *actor) { one = a.logins(w.managers[0], b, in) }},
		part{"b", func(a *actor) { other = a.logins(w.lastManager(), c, in) }},
		part{"c", func(a *actor) { a.visit(old, write) }})
	w.landAll()
	w.checkClean(one, other)
	w.checkMarks(closes)
	w.checkPlaces("alice")
	w.checkPlace(one, other)
	w.checkPlace(other, one)
	w.checkTurn()
}

// tooManyAtOnce has a user sign in with three browsers, and has a session elsewhere, of
// which there may be one.
func tooManyAtOnce(w *world) {
	w.session("alice")
	w.wait(time.Minute)
	browsers := []*browser{w.anyBrowser(), {}, {}}
	in := w.style(succeed).wrap(login("alice"), update)
	visits := make([]*visit, len(browsers))
	var parts []part
	for i, b := range browsers {
		parts = append(parts, part{string("abc"[i]), func(a *actor) {
			visits[i] = a.visitAt(w.managers[i%2], b, in)
		}})
	}
	if w.choices.pick(2) == 1 { // they may begin one after another, and time passes in between
		for _, b := range browsers {
			b.shared = true
		}
		parts = append(parts, part{"clock", func(*actor) { time.Sleep(2*w.cfg.CommitTimeout + tick) }})
	}
	w.together(parts...)
	w.landAll()
	w.checkClean(visits...)
	w.checkMarks(closes)
	w.checkPlaces("alice")
	if w.faults == 0 && !w.slow && w.live("alice") != w.cfg.MaxPerUser {
		w.fail(staysIn, "%d sessions are left", w.live("alice"))
	}
	w.checkTurn()
}

// tooManyTwins has a user sign in twice with one cookie, and has a session elsewhere,
// of which there may be one.
func tooManyTwins(w *world) {
	elsewhere := w.session("alice")
	w.wait(time.Minute)
	b := w.session("")
	b.shared = true
	in := func() handler { return w.style(succeed).wrap(login("alice"), update) }
	one, other := w.two(b, in(), in())
	w.landAll()
	w.checkClean(one, other)
	w.checkMarks(closes)
	w.checkPlaces("alice")
	if one.outcome() == once || other.outcome() == once {
		if w.look(elsewhere.token).opens {
			w.fail(ended, "the oldest session is open beside the one that has taken its place")
		}
	}
	w.checkTurn()
}

// rejected has a user sign in twice where there is one place left, and once more after
// that, when an old session has signed out.
func rejected(w *world) {
	old := w.session("alice")
	b, c := w.anyBrowser(), w.anyBrowser()
	in := w.style(succeed).wrap(login("alice"), update)
	one, other := (*visit)(nil), (*visit)(nil)
	w.together(
		part{"a", func(a *actor) { one = a.logins(w.managers[0], b, in) }},
		part{"b", func(a *actor) { other = a.logins(w.lastManager(), c, in) }})
	w.landAll()
	w.checkMarks(closes)
	w.checkPlaces("alice")
	w.checkIn(old, "alice")
	for _, v := range []*visit{one, other} {
		if v.outcome() == once {
			w.checkIn(v.b, "alice")
		}
	}
	if w.faults == 0 && !w.slow && (one.outcome() == once) == (other.outcome() == once) {
		w.fail(told, "there was one place, and two logins came to: %v, %v", one.err, other.err)
	}
	w.checkTurn()
	w.alone("d", old, body.wrap(logout, nil))
	if w.live("alice") >= maxPerUser { // one of them is nobody's: its login was told of ErrUncertain
		return
	}
	v := w.alone("e", &browser{}, body.wrap(login("alice"), nil))
	if v.err != nil {
		w.fail(staysIn, "a login is refused although there is a place: %v", v.err)
	}
}

// live returns how many sessions a user has, with those whose token nobody has.
func (w *world) live(user string) (n int) {
	for rec := range w.disk.IterUser(context.Background(), user) {
		if rec.Expires.After(time.Now()) {
			n++
		}
	}
	return n
}

// checkPlaces fails the run if more sessions of a user are open than there may be.
func (w *world) checkPlaces(user string) {
	open := make(map[session2.ID]bool)
	for _, t := range w.issued {
		if got := w.look(t); got.opens && got.user == user {
			id, _ := idOf(t)
			open[id] = true
		}
	}
	if len(open) > w.cfg.MaxPerUser {
		w.fail(limit, "%d sessions of %s are open, and there may be %d", len(open), user, w.cfg.MaxPerUser)
	}
}

// checkPlace fails the run if an acknowledged login is not good, unless the other one
// has ended it: that may take what it has left by a lost Save for one more session.
func (w *world) checkPlace(v, other *visit) {
	if v.outcome() != once {
		return
	}
	id, _ := idOf(v.token())
	byOther := w.faults > 0 && (w.revoked[id] != nil && w.revoked[id].b == other.b || other.outcome() == maybe)
	if !byOther && !w.slow {
		w.checkIn(v.b, "alice")
	}
}

// checkTurn fails the run if a login's turn is left for longer than it is good for, or
// if a login cannot have it after that.
func (w *world) checkTurn() {
	w.wait(2*w.cfg.CommitTimeout + time.Second)
	for rec := range w.disk.Iter(context.Background()) {
		if isTurn(rec) && rec.Expires.After(time.Now()) {
			w.fail(staysIn, "a login's turn is left for %v more", time.Until(rec.Expires))
		}
	}
}
