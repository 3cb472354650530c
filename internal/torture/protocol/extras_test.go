package protocol

import (
	"net/http/httptest"
	"slices"

	"github.com/session2/session2"
)

// realms has a manager of another realm use a cookie of this one's.
func realms(w *world) {
	b := w.session("alice")
	foreign := &browser{token: b.token, abroad: true}
	w.cfg.Realm = "other"
	w.managers[1] = w.manager(w.store())
	w.cfg.Realm = ""
	write := w.anyWrite()
	abroad := w.style(all).wrap(w.anyAct(update, logout, renew, login("mallory")), read)
	var evil *visit
	w.together(
		part{"a", func(a *actor) { a.visit(b, write) }},
		part{"m", func(a *actor) { evil = a.visitAt(w.managers[1], foreign, abroad) }})
	w.landAll()
	w.checkMarks(lives)
	w.checkIn(b, "alice")
	if evil.user == "alice" {
		w.fail(apart, "a manager of another realm served its client as alice")
	}
	if slices.ContainsFunc(evil.set, func(t string) bool { return w.look(t).opens }) {
		w.fail(apart, "a token of another realm opens a session")
	}
}

// csrf has two visits draw a session's CSRF token for the first time.
func csrf(w *world) {
	b := w.session("alice")
	var drawn [2]string
	draw := func(i int) handler {
		return w.style(succeed).wrap(func(v *visit, s *session2.Session) {
			drawn[i] = s.CSRFToken()
			update(v, s)
		}, update)
	}
	one, other := w.two(b, draw(0), draw(1))
	w.landAll()
	w.checkClean(one, other)
	w.checkMarks(lives)
	for i, v := range []*visit{one, other} {
		if v.outcome() == once && !w.validCSRF(b, drawn[i]) {
			w.fail(keeps, "the CSRF token of %s is not valid", v.name)
		}
	}
}

func (w *world) validCSRF(b *browser, token string) (valid bool) {
	w.alone("check", b, body.wrap(func(_ *visit, s *session2.Session) {
		r := httptest.NewRequest("POST", "https://example.com/", nil)
		r.Header.Set("X-CSRF-Token", token)
		valid = s.ValidCSRFToken(r)
	}, nil))
	return valid
}
