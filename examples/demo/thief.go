package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"github.com/session2/session2"
)

// thief has copies of cookies, by the sessions that they open. The server plays the
// thief's part because a script in the page could not: the cookie is HttpOnly.
type thief struct {
	mu     sync.Mutex
	tokens map[session2.ID]string
}

func (t *thief) take(id session2.ID, token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tokens == nil || len(t.tokens) >= maxRows {
		t.tokens = map[session2.ID]string{}
	}
	t.tokens[id] = token
}

// token returns the copy for a session, "" if there is none.
func (t *thief) token(id session2.ID) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tokens[id]
}

func (d *demo) steal(s *session2.Session, _ *http.Request) error {
	if s.IsNew() {
		return &problem{http.StatusConflict, "You have no cookie to steal: log in first."}
	}
	d.thief.take(s.ID(), s.Token())
	s.Flash("A thief has a copy of your cookie now. Use it, renew the token, and use it again.")
	return nil
}

// whoami tells a request whose session it has, as any page would.
func (d *demo) whoami(w http.ResponseWriter, r *http.Request) {
	s := d.m.Session(r)
	if s.IsNew() {
		http.Error(w, "Nobody: this request has no session.", http.StatusUnauthorized)
		return
	}
	n, _ := counter.Get(s)
	if s.User() == "" {
		fmt.Fprintf(w, "A visitor who has counted to %d.", n)
		return
	}
	fmt.Fprintf(w, "%s, who has counted to %d.", s.User(), n)
}

// loot is what the thief's request got.
type loot struct {
	Status int
	Text   string
	In     bool
	Events []happened
}

// useStolen sends a request with the thief's copy of the visitor's cookie.
func (d *demo) useStolen(ctx context.Context, s *session2.Session, r *http.Request) (string, any, error) {
	token, mark := d.thief.token(s.ID()), d.events.mark()
	if token == "" {
		return "", nil, &problem{http.StatusConflict, "No thief has a copy of your cookie: let it be copied first."}
	}
	var l loot
	var err error
	if l.Status, l.Text, err = read(send(ctx, r, token, "/whoami", nil)); err != nil {
		return "", nil, err
	}
	l.In, l.Events = l.Status == http.StatusOK, d.events.since(mark, s.ID())
	return "stolen", l, nil
}
