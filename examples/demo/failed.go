package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/session2/session2"
)

// failure is what the page of a failed request shows.
type failure struct {
	Status      int
	Title, Text string
	Compare     bool
	Was         content // when the request came
	Had         content // what the request had made of it
	Now         content // what is stored
}

// content is what the demo keeps in a session.
type content struct {
	User    string
	Counter int
	Kept    string
}

func contentOf(s *session2.Session) (c content) {
	c.User = s.User()
	c.Counter, _ = counter.Get(s)
	c.Kept, _ = kept.Get(s)
	return c
}

// stored returns what the session of that token holds in the store at this moment.
func (d *demo) stored(ctx context.Context, token string) (content, error) {
	s, err := d.m.Open(ctx, token)
	if err != nil {
		return content{}, err
	}
	return contentOf(s), nil
}

// fail answers with an error. A status of 500 or above drops what the request
// has changed by itself; Discard is for the others.
func (d *demo) fail(w http.ResponseWriter, r *http.Request, err error) {
	s, p := d.m.Session(r), problemOf(r, err)
	f := failure{Status: p.status, Title: http.StatusText(p.status), Text: p.text, Had: contentOf(s)}
	s.Discard()
	f.Was = contentOf(s)
	if s.Err() == nil {
		f.Now, err = d.stored(r.Context(), s.Token())
		f.Compare = err == nil
	}
	render(w, p.status, "problem", f)
}

// problemOf returns what the visitor may read of err. The log gets the rest.
func problemOf(r *http.Request, err error) *problem {
	var p *problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, session2.ErrNotFound), errors.Is(err, session2.ErrStale):
		return &problem{http.StatusConflict, "Your session ended, or got a new token, while this request ran."}
	}
	slog.ErrorContext(r.Context(), "demo", "path", r.URL.Path, "error", err.Error())
	return &problem{http.StatusInternalServerError, "That did not work; the log tells why. Nothing was changed."}
}
