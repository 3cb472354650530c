package protocol

import (
	"bytes"
	"context"
	"encoding/base64"
	"strings"
	"time"

	"github.com/session2/session2"
)

// ending says what the scenario does to its sessions, so that changes to them may be
// gone.
type ending int

const (
	lives  ending = iota // nothing: each acknowledged change is stored
	closes               // it may end them, or replace their tokens by a login or Renew
)

// checkMarks fails the run if an acknowledged change is lost, any is there twice, or
// a failed request has left a trace.
func (w *world) checkMarks(e ending) {
	stored := w.stored()
	for _, c := range w.changes {
		n := count(stored, c.mark)
		switch {
		case n > 1:
			w.fail(single, "%q is stored %d times", c.mark, n)
		case n == 1 && c.outcome == never:
			w.fail(traceless, "%q is stored, and its request has failed: %d, %v", c.mark, c.v.status, c.v.err)
		case n == 1 && c.outcome == dropped:
			w.fail(traceless, "%q is stored, and was said to be dropped", c.mark)
		case n == 0 && c.outcome == once && e == lives:
			w.fail(keeps, "%q was acknowledged, and is lost", c.mark)
		case c.outcome == dropped && e == lives:
			w.fail(keeps, "%q was dropped, and nothing had ended the session", c.mark)
		case c.outcome == pending:
			w.fail(told, "%q came to nothing", c.mark)
		}
	}
}

// stored returns the marks of all sessions that live and whose token anybody has.
func (w *world) stored() string {
	var b strings.Builder
	for rec := range w.disk.Iter(context.Background()) {
		if w.ids[rec.ID] && rec.Expires.After(time.Now()) {
			b.WriteString(w.valueOf(rec) + " ")
		}
	}
	return b.String()
}

// checkClean fails the run if a visit has failed although the store has not. One that
// has waited for others until its time was up is no exception, unless the scheduler let
// the time pass.
func (w *world) checkClean(visits ...*visit) {
	for _, v := range visits {
		planned := v.broken || v.status == 500 && v.err == nil
		if w.faults == 0 && !(w.slow && w.starved) && !planned && v.err != nil {
			w.fail(told, "%s has failed, and no call had: %v", v.name, v.err)
		}
	}
}

// checkOut fails the run if any token of a session opens it; what says why it must
// not.
func (w *world) checkOut(token, what string) {
	id, _ := idOf(token)
	for _, t := range w.issued {
		if of, _ := idOf(t); of == id && w.look(t).opens {
			w.fail(ended, "%s, and %s opens a session", what, w.nameToken(t))
		}
	}
}

// checkIn fails the run unless the browser's cookie opens a session of user.
func (w *world) checkIn(b *browser, user string) {
	if got := w.look(b.get()); !got.opens || got.user != user {
		w.fail(staysIn, "the browser's %s opens %+v, want a session of %q", w.nameToken(b.get()), got, user)
	}
}

// checkOnly fails the run unless exactly one token opens a session.
func (w *world) checkOnly() {
	var open []string
	for _, t := range w.issued {
		if w.look(t).opens {
			open = append(open, w.nameToken(t))
		}
	}
	if len(open) != 1 {
		w.fail(oneToken, "the tokens %v open sessions, want one", open)
	}
}

// checkSecrets fails the run if the store holds the secret half of a token, or an
// event or an error tells one, or what a session holds.
func (w *world) checkSecrets() {
	for _, text := range w.said {
		for _, t := range w.issued {
			if _, half, _ := strings.Cut(t, "."); strings.Contains(text, half) {
				w.fail(secret, "%q tells the secret of %s", text, w.nameToken(t))
			}
		}
		for _, c := range w.changes {
			if strings.Contains(text, c.mark) {
				w.fail(secret, "%q tells what a session holds: %q", text, c.mark)
			}
		}
	}
	for rec := range w.disk.Iter(context.Background()) {
		if rec.Expires.After(time.Now()) && !isTurn(rec) {
			w.checkSealed(rec)
		}
		for _, t := range w.issued {
			_, text, _ := strings.Cut(t, ".")
			half, err := base64.RawURLEncoding.DecodeString(text)
			if err != nil || bytes.Contains(rec.Data, half) || bytes.Contains(rec.Data, []byte(text)) {
				w.fail(secret, "%s holds the secret of %s", w.name("S", rec.ID), w.nameToken(t))
			}
		}
	}
}

// record returns the stored record of a token's session.
func (w *world) record(token string) (session2.Record, bool) {
	id, err := idOf(token)
	if err != nil {
		return session2.Record{}, false
	}
	rec, err := w.disk.Load(context.Background(), id)
	return rec, err == nil
}
