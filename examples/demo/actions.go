package main

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/session2/session2"
)

func login(s *session2.Session, r *http.Request) error {
	user, err := text(r, "user")
	if err != nil {
		return err
	}
	s.SetUser(user) // a real application asks for a password first
	s.Flash("Hello " + user + ". Your session has a new token now; the old one is dead.")
	return nil
}

func logout(s *session2.Session, _ *http.Request) error {
	s.Destroy()
	return nil
}

func logoutFail(s *session2.Session, _ *http.Request) error {
	s.Destroy()
	return &problem{http.StatusInternalServerError,
		"You were logged out, then the request failed. So it left no trace: you are still logged in."}
}

func (d *demo) logoutEverywhere(s *session2.Session, r *http.Request) error {
	if _, err := d.m.RevokeUser(r.Context(), s.User()); err != nil {
		return err
	}
	s.Destroy() // its record is gone already; this takes the cookie back
	return nil
}

func keep(s *session2.Session, r *http.Request) error {
	value, err := text(r, "value")
	if err != nil {
		return err
	}
	kept.Set(s, value)
	return nil
}

// increment uses Commit: of any number of clicks at once, none is lost, and each is
// told another number, which is stored by then.
func increment(s *session2.Session, r *http.Request) error {
	n, err := counter.Commit(r.Context(), s, func(n int) (int, error) { return n + 1, nil })
	if err != nil {
		return err
	}
	s.Flash(fmt.Sprintf("Stored: the counter is %d.", n))
	return nil
}

// incrementFail uses Update, which is stored with the request or not at all.
func incrementFail(s *session2.Session, _ *http.Request) error {
	counter.Update(s, func(n int) int { return n + 1 })
	return &problem{http.StatusInternalServerError,
		"The counter was incremented, then the request failed. So it left no trace: the count is what it was."}
}

// renew replaces the token: who has a copy of the old one has nothing.
func renew(s *session2.Session, _ *http.Request) error {
	s.Renew()
	s.Flash("Your session has a new token. Copies of the old one open nothing.")
	return nil
}

func flash(s *session2.Session, _ *http.Request) error {
	s.Flash("This message is shown once. Reload, and it is gone.")
	return nil
}

// submit takes the form if its token has not been used yet.
func submit(s *session2.Session, r *http.Request) error {
	token := r.PostFormValue("form_token")
	fresh, err := s.UseFormToken(r.Context(), token)
	switch {
	case err != nil:
		return err
	case !fresh:
		return &problem{http.StatusConflict, "Refused: this form was submitted before."}
	}
	submitted.Set(s, token)
	s.Flash("The form was accepted. Now submit the same one again.")
	return nil
}

func (d *demo) end(s *session2.Session, r *http.Request) error {
	id, err := session2.ParseID(r.PostFormValue("id"))
	if err != nil {
		return &problem{http.StatusBadRequest, "That is no session's ID."}
	}
	if id == s.ID() {
		s.Destroy()
		return nil
	}
	// Here everybody sees all sessions. Elsewhere, look first whether it is one of the
	// user's own: d.m.Sessions(r.Context(), s.User()).
	if err := d.m.Revoke(r.Context(), id); err != nil {
		return err
	}
	tell(s, "Session "+id.String()+" has ended.")
	return nil
}

// deleteOld may delete the visitor's own session: the message is lost then, for
// no change brings a deleted session back.
func (d *demo) deleteOld(s *session2.Session, r *http.Request) error {
	minutes, err := strconv.ParseUint(r.PostFormValue("minutes"), 10, 20)
	if err != nil {
		return &problem{http.StatusBadRequest, "The age is a number of minutes, 0 or more."}
	}
	sweeper, ok := d.store.(session2.DeleteOldStore)
	if !ok {
		return &problem{http.StatusNotImplemented, "This store cannot delete by age."}
	}
	n, err := sweeper.DeleteOld(r.Context(), time.Duration(minutes)*time.Minute)
	if err != nil {
		return err
	}
	tell(s, fmt.Sprintf("Deleted: %d.", n))
	return nil
}

// tell leaves a message, unless that alone would start a session.
func tell(s *session2.Session, text string) {
	if !s.IsNew() {
		s.Flash(text)
	}
}

// text returns a form's field, which must not be empty.
func text(r *http.Request, field string) (string, error) {
	v := strings.TrimSpace(r.PostFormValue(field))
	if v == "" || len(v) > maxText {
		return "", &problem{http.StatusBadRequest, fmt.Sprintf("The field must have 1 to %d bytes.", maxText)}
	}
	return v, nil
}
