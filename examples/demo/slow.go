package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/session2/session2"
)

// slow is a request that runs for so long that the user logs out meanwhile. It has read
// the session before, and writes to it afterwards.
func (d *demo) slow(w http.ResponseWriter, r *http.Request) {
	if d.experiments.of(r) == nil {
		http.NotFound(w, r)
		return
	}
	s := d.m.Session(r)
	values := d.plain.load(s.ID())
	w.WriteHeader(http.StatusOK)
	http.NewResponseController(w).Flush() // it has begun

	<-r.Context().Done()
	if !errors.Is(context.Cause(r.Context()), session2.ErrNotFound) {
		return // the experiment was broken off
	}
	// The session has ended. A handler that heeds its context stops here; this one goes on.
	ctx := context.WithoutCancel(r.Context())
	values.Kept = "written too late"
	d.plain.save(s.ID(), values)
	kept.Set(s, values.Kept)
	if err := s.Commit(ctx); errors.Is(err, session2.ErrNotFound) {
		fmt.Fprint(w, "dropped")
	} else {
		fmt.Fprint(w, "stored")
	}
}

// outcome is what came of a logout while a slow request ran.
type outcome struct {
	User   string
	Slow   string // what became of the slow request's change
	There  bool   // whether the session is still in the store
	Plain  content
	Events []happened
}

// slowLogout logs the visitor out while another request of theirs runs.
func (d *demo) slowLogout(ctx context.Context, s *session2.Session, r *http.Request) (string, any, error) {
	id, token, mark := s.ID(), s.Token(), d.events.mark()
	o := outcome{User: s.User()}
	d.plain.save(id, content{User: o.User})
	defer d.plain.delete(id)

	name, end := d.experiments.begin(1)
	defer end()
	slow, err := send(ctx, r, token, "/slow", url.Values{"experiment": {name}})
	if err != nil {
		return "", nil, err
	}
	defer slow.Body.Close()

	s.Destroy()
	d.plain.delete(id)
	if err := s.Commit(ctx); err != nil { // the logout is stored; the slow request goes on
		return "", nil, err
	}
	if _, o.Slow, err = read(slow, nil); err != nil {
		return "", nil, err
	}
	if o.There, err = d.store.Has(ctx, id); err != nil {
		return "", nil, err
	}
	o.Plain, o.Events = d.plain.load(id), d.events.since(mark, id)
	return "slow-logout", o, nil
}
