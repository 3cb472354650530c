package protocol

import (
	"slices"
	"time"

	"github.com/session2/session2"
)

// checkAlways checks what holds after every schedule of every scenario. Then each
// browser makes requests and signs out, and time passes until all sessions must have
// ended. Nothing fails any more by then.
func (w *world) checkAlways(sc *scenario) {
	w.landAll()
	w.checkMarks(closes)
	w.checkSecrets()
	w.checkApart()
	w.checkLogouts()
	if n := w.heardOf(session2.EventReuse); n > 0 && !sc.stolen {
		w.fail(staysIn, "%d reuses, and nobody has a copy of a cookie", n)
	}
	w.checkBrowsers()
	w.checkExpired()
}

// checkApart fails the run if a session shows what was left in another user's. What
// nobody in particular has left before a login is the user's from then on.
func (w *world) checkApart() {
	for _, t := range w.issued {
		got := w.look(t)
		for _, c := range w.changes {
			if got.opens && c.user != "" && c.user != got.user && count(got.marks, c.mark) > 0 {
				w.fail(apart, "%s opens a session of %q that holds %q of %q", w.nameToken(t), got.user, c.mark, c.user)
			}
		}
	}
}

// checkLogouts fails the run if a token of a session opens it after its logout was
// acknowledged.
func (w *world) checkLogouts() {
	for _, v := range w.visits {
		if !v.b.abroad && v.end != nil && v.end.outcome == once && v.sent != "" {
			w.checkOut(v.sent, "the logout of "+v.name+" was acknowledged")
		}
	}
}

// checkBrowsers has all browsers whose cookie opens a session use it and sign out.
func (w *world) checkBrowsers() {
	var open []*browser
	for _, v := range slices.Clone(w.visits) {
		if !v.b.abroad && !slices.Contains(open, v.b) && w.look(v.b.token).opens {
			open = append(open, v.b)
			v.b.tossed = ""
		}
	}
	for _, b := range open {
		w.checkUses(b)
	}
	w.outwait()
	for _, b := range open {
		w.checkLeaves(b)
	}
}

// checkUses fails the run unless a browser's requests are served as its user's, and
// what they change is stored.
func (w *world) checkUses(b *browser) {
	user := w.look(b.token).user
	for range 2 { // the second one presents the successor, if the token was replaced
		v := w.alone("z", b, body.wrap(update, nil))
		if v.err != nil || v.user != user {
			w.fail(staysIn, "a browser of %q is served as %q: %d, %v", user, v.user, v.status, v.err)
		}
		if count(w.look(b.token).marks, v.all[0].mark) != 1 {
			w.fail(keeps, "%q was acknowledged at leisure, and is lost", v.all[0].mark)
		}
	}
}

// checkLeaves fails the run if a browser's session has more than one token that is
// good, or outlives its logout.
func (w *world) checkLeaves(b *browser) {
	if !w.look(b.token).opens { // another browser has signed out of the same session
		return
	}
	id, _ := idOf(b.token)
	for _, t := range w.issued {
		if of, _ := idOf(t); of == id && t != b.token && w.look(t).opens {
			w.fail(oneToken, "%s opens a session beside %s", w.nameToken(t), w.nameToken(b.token))
		}
	}
	sent := b.token
	w.alone("z", b, body.wrap(logout, nil))
	w.checkOut(sent, "the logout at leisure was acknowledged")
}

// checkExpired fails the run if a session outlives all limits.
func (w *world) checkExpired() {
	w.wait(25 * time.Hour)
	for _, t := range w.issued {
		if w.look(t).opens {
			w.fail(ended, "%s opens a session after its time", w.nameToken(t))
		}
	}
}
