package protocol

import (
	"fmt"
	"io"
	"net/http"

	"github.com/session2/session2"
)

// act is a change of a session that leaves a mark, but for those that end it.
type act func(v *visit, s *session2.Session)

// update leaves a mark by Key.Update.
func update(v *visit, s *session2.Session) {
	mark := v.add(s.User())
	marks.Update(s, func(list string) string { return list + mark + " " })
}

// naive leaves a mark by Get and Set.
func naive(v *visit, s *session2.Session) {
	mark := v.add(s.User())
	list, _ := marks.Get(s)
	v.think()
	marks.Set(s, list+mark+" ")
}

// login signs user in and leaves a mark.
func login(user string) act {
	return func(v *visit, s *session2.Session) {
		v.b.signIn(user)
		s.SetUser(user)
		update(v, s)
	}
}

// logout ends the session.
func logout(v *visit, s *session2.Session) {
	v.end = &change{v: v, mark: "the logout"}
	v.open = append(v.open, v.end)
	s.Destroy()
}

func renew(v *visit, s *session2.Session) {
	s.Renew()
	update(v, s)
}

func read(v *visit, s *session2.Session) { v.user = v.saw(s.User()) }

// style is the way of a handler around what it does: first, and then if it goes
// on. Each is as handlers are.
type style struct {
	name string
	wrap func(first, then act) handler
}

var (
	body = style{"body", func(first, _ act) handler {
		return func(v *visit, s *session2.Session, rw http.ResponseWriter) {
			read(v, s)
			first(v, s)
			fmt.Fprint(rw, "a page")
		}
	}}
	redirect = style{"redirect", func(first, _ act) handler {
		return func(v *visit, s *session2.Session, rw http.ResponseWriter) {
			read(v, s)
			first(v, s)
			rw.Header().Set("Location", "/")
			rw.WriteHeader(http.StatusSeeOther)
		}
	}}
	silent = style{"silent", func(first, _ act) handler {
		return func(v *visit, s *session2.Session, _ http.ResponseWriter) { first(v, s) }
	}}
	stream = style{"stream", func(first, then act) handler {
		return func(v *visit, s *session2.Session, rw http.ResponseWriter) {
			first(v, s)
			if http.NewResponseController(rw).Flush() != nil {
				return
			}
			v.headerLeaves()
			v.status = http.StatusOK
			v.settle(v.outcome())
			then(v, s)
			if v.commit(s) == nil {
				io.WriteString(rw, "done")
			}
		}
	}}
	twice = style{"twice", func(first, then act) handler {
		return func(v *visit, s *session2.Session, rw http.ResponseWriter) {
			first(v, s)
			if v.commit(s) != nil {
				return
			}
			then(v, s)
			fmt.Fprint(rw, "a page")
		}
	}}
	panics = style{"panics", func(first, _ act) handler {
		return func(v *visit, s *session2.Session, _ http.ResponseWriter) {
			first(v, s)
			v.think()
			panic(errPlanned)
		}
	}}
	panicsLate = style{"panics-late", func(first, then act) handler { // what Commit has stored stays
		return func(v *visit, s *session2.Session, _ http.ResponseWriter) {
			first(v, s)
			if v.commit(s) == nil {
				then(v, s)
				v.think()
			}
			panic(errPlanned)
		}
	}}
	gone = style{"gone", func(first, _ act) handler { // the client is, and what its handler does is done all the same
		return func(v *visit, s *session2.Session, _ http.ResponseWriter) {
			v.cancel()
			first(v, s)
		}
	}}
	failing = style{"failing", func(first, _ act) handler {
		return func(v *visit, s *session2.Session, rw http.ResponseWriter) {
			first(v, s)
			rw.WriteHeader(http.StatusInternalServerError)
		}
	}}
)

var (
	all     = []style{body, redirect, silent, stream, twice, panics, panicsLate, failing, gone}
	succeed = []style{body, redirect, silent, twice}
)

// style lets the run choose one.
func (w *world) style(of []style) style {
	s := of[w.choices.pick(len(of))]
	w.tell("style: %s", s.name)
	return s
}

// anyAct lets the run choose a change.
func (w *world) anyAct(of ...act) act { return of[w.choices.pick(len(of))] }
