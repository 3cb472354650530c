package protocol

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/session2/session2"
)

// mostMarks is how many marks Key.Commit leaves in a session at most.
const mostMarks = 4

var errFull = errors.New("there are as many marks as there may be")

// taken is what a Key.Commit has told its visit.
type taken struct {
	mark string
	list string
	err  error
}

// take returns an act that leaves a mark by Key.Commit, as long as there is room.
func (w *world) take(told *[]taken) act {
	return func(v *visit, s *session2.Session) {
		mark := v.add(s.User())
		c := v.open[len(v.open)-1]
		list, err := marks.Commit(v.ctx, s, func(list string) (string, error) {
			if len(strings.Fields(list)) >= mostMarks {
				return "", errFull
			}
			return list + mark + " ", nil
		})
		w.say(err)
		w.mu.Lock()
		*told = append(*told, taken{mark, list, err})
		w.mu.Unlock()
		w.tell("%s: Key.Commit: %q, %v", v.a.name, list, err)
		if err != nil && (err == errFull || err == v.ctx.Err()) { // the other changes are still to come
			v.open = slices.DeleteFunc(v.open, func(o *change) bool { return o == c })
			w.mu.Lock()
			c.outcome = never
			w.mu.Unlock()
			return
		}
		v.settle(toldOf(err))
	}
}

// commits has two visits leave marks by Key.Commit, beside others of their own, until there
// is no more room.
func commits(w *world) {
	b := w.session("alice")
	if w.cfg.RenewEvery > 0 {
		w.wait(renewEvery + time.Minute)
	}
	var told []taken
	take := w.take(&told)
	both := func(v *visit, s *session2.Session) {
		update(v, s)
		take(v, s)
	}
	w.two(b, w.style(all).wrap(w.anyAct(take, both), take), w.style(all).wrap(w.anyAct(take, both), both))
	w.landAll()
	w.checkMarks(lives)
	w.checkIn(b, "alice")
	rec, _ := w.record(b.get())
	w.checkTaken(told, w.valueOf(rec))
}

// checkTaken fails the run unless each value that was told was stored, with the caller's own
// mark as the last one. Marks are appended and never taken away, so the session begins with
// all that was ever stored. One that was refused has as many as there may be, with those that
// its own request has not committed yet.
func (w *world) checkTaken(list []taken, stored string) {
	for _, c := range list {
		n := len(strings.Fields(c.list))
		switch {
		case c.err != nil && c.err != errFull:
			continue
		case c.err == nil && !strings.HasPrefix(stored, c.list):
			w.fail(keeps, "%q was told %q, and %q is stored", c.mark, c.list, stored)
		case c.err != nil && n < mostMarks:
			w.fail(told, "%q was refused at %q", c.mark, c.list)
		case c.err == nil && !strings.HasSuffix(c.list, c.mark+" "):
			w.fail(single, "%q was told %q", c.mark, c.list)
		case c.err == nil && n > mostMarks:
			w.fail(limit, "%q was told %q, of more than %d", c.mark, c.list, mostMarks)
		}
	}
}
