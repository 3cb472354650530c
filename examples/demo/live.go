package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/session2/session2"
)

const tick = time.Second // between two signs of life

// live is a page that goes on for as long as its session does. It is sent piece by piece;
// a WebSocket, or server-sent events, would wait for the same context.
func (d *demo) live(w http.ResponseWriter, r *http.Request) {
	s := d.m.Session(r)
	if s.IsNew() {
		render(w, http.StatusOK, "live-none", nil)
		return
	}
	render(w, http.StatusOK, "live", s.User())
	out := http.NewResponseController(w)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for out.Flush() == nil {
		select {
		case <-ticker.C:
			fmt.Fprint(w, ". ")
		case <-r.Context().Done():
			renderMore(w, "live-end", why(context.Cause(r.Context())))
			return
		case <-d.closing:
			renderMore(w, "live-end", "The demo is ending.")
			return
		}
	}
}

// why says in words why a session's request is to end.
func why(cause error) string {
	switch {
	case errors.Is(cause, session2.ErrStale):
		return "The session has a new token."
	case errors.Is(cause, session2.ErrNotFound):
		return "The session has ended."
	}
	return "The browser has gone." // so that nobody reads it
}
