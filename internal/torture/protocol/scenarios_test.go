package protocol

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/session2/session2"
)

// scenario is what clients do, and what must hold afterwards, besides what always
// does (checkAlways).
type scenario struct {
	name     string
	cfg      session2.Config
	managers int           // over one store; default 1
	skew     time.Duration // by which the last manager's clock is ahead
	stolen   bool          // somebody has a copy of a cookie
	play     func(w *world)
}

const renewEvery = 10 * time.Minute

var scenarios = []scenario{
	{name: "writers", play: writers},
	{name: "create", play: create},
	{name: "logout", play: writerAndLogout},
	{name: "twin", play: twin},
	{name: "two-users", play: twoUsers},
	{name: "switch", play: switchUser},
	{name: "renew", play: writerAndRenew},
	{name: "rotation", cfg: session2.Config{RenewEvery: renewEvery}, play: rotation},
	{name: "rotation-logout", cfg: session2.Config{RenewEvery: renewEvery}, play: rotationAndLogout},
	{name: "thief", cfg: session2.Config{RenewEvery: renewEvery}, stolen: true, play: thief},
	{name: "form", play: formTwice},
	{name: "lifetime", cfg: session2.Config{Lifetime: 10 * time.Minute, CommitTimeout: time.Hour}, play: expiry},
	{name: "idle", cfg: session2.Config{IdleTimeout: 10 * time.Minute, CommitTimeout: time.Hour}, play: expiry},
	{name: "empty", play: emptying},
	{name: "empty-two-managers", managers: 2, play: emptying},
	{name: "revoke", play: revoke},
	{name: "login-logout", play: loginAndLogout},
	{name: "planted", play: plantedCookie},
	{name: "tossed", play: tossedCookie},
	{name: "realms", managers: 2, play: realms},
	{name: "csrf", play: csrf},
	{name: "crowd", cfg: session2.Config{RenewEvery: renewEvery}, play: crowd},

	{name: "updates", play: updates},
	{name: "commits", play: commits},
	{name: "commits-rotation", cfg: session2.Config{RenewEvery: renewEvery}, managers: 2, play: commits},
	{name: "flashes", play: flashes},
	{name: "events", play: events},
	{name: "events-rotation", cfg: session2.Config{RenewEvery: renewEvery}, play: events},
	{name: "hijack", play: hijack},
	{name: "hijack-rotation", cfg: session2.Config{RenewEvery: renewEvery}, play: hijack},
	{name: "timeout-outside", play: timeoutOutside},
	{name: "timeout-inside", play: timeoutInside},
	{name: "open", play: open},
	{name: "open-rotation", cfg: session2.Config{RenewEvery: renewEvery}, play: open},
	{name: "login-again", play: loginAgain},
	{name: "revoke-login", play: revokeAndLogin},
	{name: "revoke-others", play: revokeOthers},

	// The last manager's clock is a minute ahead. Docs/SCALING.md asks for a
	// RenewGrace well above the difference.
	{name: "clocks-writers", cfg: clocks, managers: 2, skew: time.Minute, play: writers},
	{name: "clocks-logout", cfg: clocks, managers: 2, skew: time.Minute, play: writerAndLogout},
	{name: "clocks-twin", cfg: clocks, managers: 2, skew: time.Minute, play: twin},
	{name: "clocks-renew", cfg: clocks, managers: 2, skew: time.Minute, play: writerAndRenew},
	{name: "clocks-rotation", cfg: clocks, managers: 2, skew: time.Minute, play: rotation},
	{name: "clocks-thief", cfg: clocks, managers: 2, skew: time.Minute, stolen: true, play: thief},
	{name: "clocks-idle", cfg: session2.Config{IdleTimeout: 10 * time.Minute, CommitTimeout: time.Hour},
		managers: 2, skew: time.Minute, play: expiry},

	{name: "max", cfg: session2.Config{MaxPerUser: maxPerUser}, managers: 2, play: tooMany},
	{name: "max-three", cfg: session2.Config{MaxPerUser: 1}, managers: 2, play: tooManyAtOnce},
	{name: "max-twins", cfg: session2.Config{MaxPerUser: 1}, managers: 2, play: tooManyTwins},
	{name: "max-reject", cfg: session2.Config{MaxPerUser: maxPerUser, RejectLogin: true}, managers: 2, play: rejected},

	{name: "exclusive", cfg: lostUpdates, managers: 2, play: exclusive},
	{name: "exclusive-rotation", cfg: session2.Config{AllowLostUpdates: true, RenewEvery: renewEvery}, managers: 2,
		play: exclusive},
	{name: "exclusive-dies", cfg: lostUpdates, managers: 2, play: outlived(dies)},
	{name: "exclusive-long", cfg: lostUpdates, managers: 2, play: outlived(works)},
	{name: "exclusive-stands", cfg: lostUpdates, managers: 2, play: outlived(stands)},
	{name: "exclusive-logout", cfg: lostUpdates, managers: 2, play: exclusiveEnds},
	{name: "exclusive-leaves", cfg: lostUpdates, managers: 2, play: leaves},
	{name: "exclusive-renew", cfg: lostUpdates, managers: 2, play: exclusiveRenews},

	// Without a look at the session (WatchEvery), what the same manager does ends a stream.
	{name: "stream", cfg: session2.Config{WatchEvery: -1}, play: streamEnds},
	{name: "stream-elsewhere", managers: 2, play: streamEnds},
	{name: "stream-stays", managers: 2, play: streamStays},
	{name: "stream-rotation", cfg: session2.Config{RenewEvery: renewEvery}, managers: 2, play: streamStays},
	{name: "stream-renew", cfg: session2.Config{WatchEvery: -1}, play: streamRenews},
	{name: "stream-renew-elsewhere", managers: 2, play: streamRenews},
	{name: "stream-expires", cfg: session2.Config{Lifetime: 10 * time.Minute}, managers: 2, play: streamExpires},
}

// clocks is what clocks that differ by a minute ask for.
var clocks = session2.Config{RenewEvery: renewEvery, RenewGrace: 4 * time.Minute}

// session returns a browser with a session of user, "" for nobody's, with a mark.
func (w *world) session(user string) *browser {
	b := &browser{}
	b.signIn(user)
	w.alone("setup", b, body.wrap(func(_ *visit, s *session2.Session) {
		if user != "" {
			s.SetUser(user)
		}
		marks.Set(s, "cart ")
	}, nil))
	if b.token == "" {
		w.fail(told, "no session to begin with")
	}
	return b
}

// two runs two visits of one browser side by side, the second by the last manager.
func (w *world) two(b *browser, first, second handler) (one, other *visit) {
	w.together(
		part{"a", func(a *actor) { one = a.visit(b, first) }},
		part{"b", func(a *actor) { other = a.visitAt(w.lastManager(), b, second) }})
	return one, other
}

func (w *world) lastManager() *session2.Manager { return w.managers[len(w.managers)-1] }

// anyWrite returns a visit that changes the session one way or another.
func (w *world) anyWrite() handler {
	f := w.anyAct(update, naive)
	return w.style(all).wrap(f, f)
}

func writers(w *world) {
	b := w.session("alice")
	w.two(b, w.anyWrite(), w.anyWrite())
	w.landAll()
	w.checkMarks(lives)
	w.checkIn(b, "alice")
}

// create has two visits without a cookie begin a session each.
func create(w *world) {
	b := &browser{shared: true}
	one, other := w.two(b, w.style(succeed).wrap(update, update), w.style(succeed).wrap(update, update))
	w.landAll()
	w.checkClean(one, other)
	w.checkMarks(lives)
	if v := b.from; v != nil {
		w.checkIn(b, "")
		for _, c := range v.all {
			if c.outcome == once && count(w.look(b.token).marks, c.mark) != 1 {
				w.fail(keeps, "%q is not in the session that it began", c.mark)
			}
		}
	}
}

func writerAndLogout(w *world) {
	b := w.session("alice")
	one, other := w.two(b, w.anyWrite(), w.style(all).wrap(logout, read))
	w.landAll()
	w.checkClean(other)
	w.afterLogout(b, one, other)
}

// afterLogout checks what must hold when out was a logout.
func (w *world) afterLogout(b *browser, one, out *visit) {
	switch o := out.end.outcome; {
	case o == once:
		w.checkOut(one.sent, "the logout was acknowledged")
		w.checkMarks(closes)
	case o == never && one.dropped == nil:
		w.checkMarks(lives)
		w.checkIn(b, "alice")
	default:
		w.checkMarks(closes)
	}
}

// twin has two logins of one user begin with one cookie.
func twin(w *world) {
	b := w.session("")
	first := b.token
	b.shared = true
	in := func() handler { return w.style(succeed).wrap(login("alice"), update) }
	one, other := w.two(b, in(), in())
	w.landAll()
	w.checkClean(one, other)
	w.checkMarks(lives)
	if one.outcome() != once && other.outcome() != once || unsure(first, one, other) {
		return
	}
	if w.look(first).opens {
		w.fail(ended, "the token from before the login opens a session")
	}
	w.checkIn(b, "alice")
	got := w.look(b.token).marks
	for _, c := range w.changes {
		if c.outcome == once && count(got, c.mark) != 1 {
			w.fail(keeps, "%q was acknowledged, and the browser's session holds %q", c.mark, got)
		}
	}
	if count(got, "cart") != 1 {
		w.fail(keeps, "what the session held before the login is lost: %q", got)
	}
}

// twoUsers has two users sign in with the cookie of one anonymous session.
func twoUsers(w *world) {
	b := w.session("")
	first := b.token
	b.shared = true
	one, other := w.two(b, w.style(succeed).wrap(login("alice"), update), w.style(succeed).wrap(login("bob"), update))
	w.landAll()
	w.checkClean(one, other)
	w.checkMarks(closes)
	if (one.outcome() == once || other.outcome() == once) && w.look(first).opens {
		w.fail(ended, "the token from before the login opens a session")
	}
	w.checkOwn(one, "alice")
	w.checkOwn(other, "bob")
	if v := b.from; (v == one || v == other) && v.outcome() == once && !unsure(first, one, other) {
		w.checkIn(b, map[*visit]string{one: "alice", other: "bob"}[v])
	}
}

// checkOwn fails the run if a token that a visit was given opens a session of
// anybody but user, or one with marks that were left in another user's. What
// nobody in particular has left before a login is the user's from then on.
func (w *world) checkOwn(v *visit, user string) {
	for _, t := range v.set {
		got := w.look(t)
		if got.opens && got.user != user {
			w.fail(apart, "%s of %s opens a session of %q", w.nameToken(t), user, got.user)
		}
		for _, c := range w.changes {
			if c.user != "" && c.user != user && count(got.marks, c.mark) > 0 {
				w.fail(apart, "the session of %s holds %q of %q", user, c.mark, c.user)
			}
		}
	}
}

// unsure reports whether a login came to nobody knows what that had begun after
// another one of the same browser: what it may have replaced is not to be had.
func unsure(first string, visits ...*visit) bool {
	return slices.ContainsFunc(visits, func(v *visit) bool {
		return v.sent != first && outcomeOf(v.err) == maybe && v.err != nil
	})
}

// switchUser has bob sign in within alice's session, while she writes.
func switchUser(w *world) {
	b := w.session("alice")
	b.shared = true
	_, other := w.two(b, w.anyWrite(), w.style(succeed).wrap(login("bob"), update))
	w.landAll()
	w.checkMarks(closes)
	w.checkOwn(other, "bob")
	if t := other.token(); t != "" && count(w.look(t).marks, "cart") > 0 {
		w.fail(apart, "bob has the cart of alice")
	}
	if other.outcome() == once {
		w.checkIn(b, "bob")
	}
}

func writerAndRenew(w *world) {
	b := w.session("alice")
	before := b.token
	_, other := w.two(b, w.anyWrite(), w.style(succeed).wrap(renew, update))
	w.landAll()
	w.checkClean(other)
	w.checkMarks(closes)
	if other.outcome() != once {
		return
	}
	if w.look(before).opens {
		w.fail(ended, "the token opens a session after Renew")
	}
	w.checkIn(b, "alice")
	for _, c := range w.changes {
		if c.outcome == once && count(w.look(b.token).marks, c.mark) != 1 {
			w.fail(keeps, "%q was acknowledged, and is lost", c.mark)
		}
	}
}

// rotation lets the token be replaced twice, while responses get lost.
func rotation(w *world) {
	b := w.session("alice")
	b.shared, b.lossy = true, true
	for range 2 {
		w.wait(renewEvery + time.Minute)
		w.two(b, w.anyWrite(), w.style(succeed).wrap(update, update))
		w.checkIn(b, "alice")
		w.outwait()
		w.checkIn(b, "alice")
		if v := w.alone("c", b, body.wrap(update, nil)); v.err != nil || v.user != "alice" {
			w.fail(staysIn, "the browser is locked out: %d, user %q, %v", v.status, v.user, v.err)
		}
	}
	w.landAll()
	w.alone("d", b, body.wrap(update, nil)) // presents the last successor
	w.checkMarks(lives)
	w.checkIn(b, "alice")
	w.outwait()
	w.checkOnly()
}

func rotationAndLogout(w *world) {
	b := w.session("alice")
	b.shared = true
	w.wait(renewEvery + time.Minute)
	one, other := w.two(b, w.anyWrite(), w.style(all).wrap(logout, read))
	w.landAll()
	w.checkClean(other)
	w.afterLogout(b, one, other)
}

// thief has a copy of a cookie that was replaced since.
func thief(w *world) {
	b := w.session("alice")
	b.lossy = true
	stolen := &browser{token: b.token}
	w.wait(renewEvery + time.Minute)
	write := w.style(succeed).wrap(update, update)
	w.together(part{"a", func(a *actor) {
		a.visit(b, write)
		a.visit(b, write)
	}})
	for range 2 { // the second one presents the successor
		w.alone("c", b, body.wrap(update, nil))
	}
	w.checkMarks(lives)
	w.checkIn(b, "alice")
	w.outwait()
	var v *visit
	w.together(
		part{"t", func(a *actor) { v = a.visitAt(w.lastManager(), stolen, body.wrap(update, nil)) }},
		part{"d", func(a *actor) { a.visit(b, write) }})
	w.landAll()
	w.checkThief(v)
}

// checkThief fails the run unless a thief with an old cookie is out and noticed.
func (w *world) checkThief(v *visit) {
	if v.user != "" || w.look(v.sent).opens {
		w.fail(caught, "the thief is in, as %q", v.user)
	}
	if w.heardOf(session2.EventReuse) == 0 && v.err == nil {
		w.fail(caught, "the thief is not noticed")
	}
	rec, ok := w.record(v.sent)
	left := func(c *change) bool { return count(w.valueOf(rec), c.mark) > 0 }
	if ok && (v.err == nil || slices.ContainsFunc(v.all, left)) {
		w.fail(caught, "the session that a thief has shown up in lives: %q", w.valueOf(rec))
	}
	if t := v.token(); t != "" && w.look(t).user != "" {
		w.fail(caught, "the thief was given a session of %q", w.look(t).user)
	}
}

// formTwice sends one form twice.
func formTwice(w *world) {
	b := w.session("alice")
	var token string
	w.alone("setup", b, body.wrap(func(_ *visit, s *session2.Session) { token = s.FormToken() }, nil))
	var used, unknown int
	spend := func(v *visit, s *session2.Session, rw http.ResponseWriter) {
		ok, err := s.UseFormToken(v.ctx, token)
		v.a.w.tell("%s: UseFormToken: %v, %v", v.a.name, ok, err)
		w.mu.Lock()
		switch {
		case err != nil:
			unknown++
		case ok:
			used++
		}
		w.mu.Unlock()
		switch {
		case err != nil:
			rw.WriteHeader(http.StatusInternalServerError)
			return
		case !ok:
			rw.WriteHeader(http.StatusConflict)
			return
		}
		v.think()
		update(v, s)
		fmt.Fprint(rw, "thank you")
	}
	w.two(b, spend, spend)
	w.landAll()
	w.checkMarks(lives)
	w.checkIn(b, "alice")
	rec, _ := w.record(b.token)
	c, _ := w.contents(rec)
	switch {
	case used > 1:
		w.fail(single, "the form token was used %d times", used)
	case used == 1 && c.FormTokens > 0:
		w.fail(keeps, "the form token is used, and is still there")
	case used == 0 && unknown == 0:
		w.fail(told, "the form token was used by nobody")
	case w.faults == 0 && !w.slow && unknown > 0:
		w.fail(told, "the use of the form token has failed, and no call had")
	}
}

// expiry lets the session's time run out at some point.
func expiry(w *world) {
	b := w.session("alice")
	before := b.token
	w.wait(5 * time.Minute)
	w.jump = 11*time.Minute + w.skew
	slow := func(v *visit, s *session2.Session) {
		read(v, s)
		v.think()
		update(v, s)
	}
	w.two(b, w.style(all).wrap(slow, update), w.style(all).wrap(w.anyAct(read, update), read))
	if !w.jumped {
		w.checkMarks(lives)
		w.jumpNow()
	}
	w.landAll()
	w.checkMarks(closes)
	if w.look(before).opens && !w.inFlight {
		w.fail(ended, "the session's time is over, and it is open")
	}
}

// emptying has one visit take the last thing out of a session while another one
// puts something in.
func emptying(w *world) {
	b := &browser{}
	w.alone("setup", b, body.wrap(func(_ *visit, s *session2.Session) { s.Set("gone", true) }, nil))
	b.shared = true
	add := w.style(succeed).wrap(update, update)
	take := w.style(succeed).wrap(func(_ *visit, s *session2.Session) { s.Delete("gone") },
		func(*visit, *session2.Session) {})
	var one, other *visit
	w.together(
		part{"a", func(a *actor) { one = a.visitAt(w.lastManager(), b, take) }},
		part{"b", func(a *actor) { other = a.visit(b, add) }})
	w.landAll()
	w.checkClean(one, other)
	e := closes
	if len(w.managers) == 1 && w.faults == 0 {
		e = lives
	}
	w.checkMarks(e)
	w.checkAdded(other)
}

// checkAdded fails the run if what a visit has put in is out of its client's reach.
func (w *world) checkAdded(v *visit) {
	for _, c := range v.all {
		held := count(w.look(v.sent).marks, c.mark) == 1 ||
			slices.ContainsFunc(v.set, func(t string) bool { return count(w.look(t).marks, c.mark) == 1 })
		if c.outcome == once && !held {
			w.fail(keeps, "%q was acknowledged, and its client does not reach it", c.mark)
		}
	}
}

// revoke ends all of a user's sessions from outside while the user writes.
func revoke(w *world) {
	b := w.session("alice")
	before := b.token
	write := w.anyWrite()
	var failed error
	w.together(
		part{"a", func(a *actor) { a.visit(b, write) }},
		part{"r", func(a *actor) { failed = a.revokeUser("alice") }})
	w.landAll()
	w.checkMarks(closes)
	if failed == nil && w.look(before).opens {
		w.fail(ended, "a revoked session is open")
	}
}
