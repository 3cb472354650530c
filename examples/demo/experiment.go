package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/session2/session2"
)

const experimentTime = time.Minute // after which an experiment gives up

// experiment is what a button does that sends further requests. The visitor gets what it
// returns as a page of its own: the template of that name, with data.
type experiment func(ctx context.Context, s *session2.Session, r *http.Request) (name string, data any, err error)

// try returns the handler of an experiment's button.
func (d *demo) try(run experiment) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := d.m.Session(r)
		ctx, cancel := context.WithTimeout(r.Context(), experimentTime)
		defer cancel()
		err := d.check(w, r)
		if err == nil && s.IsNew() {
			err = &problem{http.StatusConflict, "You have no session to try that with: log in first."}
		}
		if err != nil {
			d.fail(w, r, err)
			return
		}
		name, data, err := run(ctx, s, r)
		if err != nil {
			d.fail(w, r, err)
			return
		}
		render(w, http.StatusOK, name, data)
	}
}

// send sends a request to the demo itself, over HTTP, by a client that has the
// session's token and nothing else. The caller closes the response's body.
func send(ctx context.Context, r *http.Request, token, path string, query url.Values) (*http.Response, error) {
	address, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return nil, fmt.Errorf("the server has no address")
	}
	u := url.URL{Scheme: "http", Host: address.String(), Path: path, RawQuery: query.Encode()}
	again, err := http.NewRequestWithContext(ctx, "GET", u.String(), nil)
	if err != nil {
		return nil, err
	}
	again.AddCookie(&http.Cookie{Name: cookieName, Value: token})
	return (&http.Transport{DisableKeepAlives: true}).RoundTrip(again)
}

// read returns what a response says, and its status.
func read(res *http.Response, err error) (status int, text string, _ error) {
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	return res.StatusCode, string(body), err
}

// experiments are those under way, by names that nobody can guess: what changes a session
// answers to no other requests than an experiment's own.
type experiments struct {
	mu      sync.Mutex
	running map[string]*meeting
}

// begin starts an experiment of n requests. The caller calls end.
func (e *experiments) begin(n int) (name string, end func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running == nil {
		e.running = map[string]*meeting{}
	}
	name = rand.Text()
	e.running[name] = &meeting{missing: n, all: make(chan struct{})}
	return name, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.running, name)
	}
}

// of returns the experiment that a request belongs to, nil if there is none.
func (e *experiments) of(r *http.Request) *meeting {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.running[r.FormValue("experiment")]
}

// meeting is where the requests of an experiment wait for one another.
type meeting struct {
	mu      sync.Mutex
	missing int
	all     chan struct{} // closed when nobody is missing
}

// join waits until all have come, or ctx ends.
func (m *meeting) join(ctx context.Context) error {
	m.mu.Lock()
	if m.missing--; m.missing == 0 {
		close(m.all)
	}
	m.mu.Unlock()
	select {
	case <-m.all:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
