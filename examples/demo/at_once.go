package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"

	"github.com/session2/session2"
)

const crowd = 64 // requests at once

// way is one of the ways to count. It reads, waits for the others to have read, then
// writes, and returns the number that it has counted to.
type way func(s *session2.Session, ctx context.Context, met func() error) (int, error)

// byCommit counts by a function, which runs again if another request was faster.
func byCommit(s *session2.Session, ctx context.Context, met func() error) (int, error) {
	s.User() // reads the session
	if err := met(); err != nil {
		return 0, err
	}
	return counter.Commit(ctx, s, func(n int) (int, error) { return n + 1, nil })
}

// byGetAndSet writes what it has read plus one. If others have counted in between, it is
// refused with ErrLostUpdate, and may try again.
func byGetAndSet(s *session2.Session, ctx context.Context, met func() error) (int, error) {
	n, _ := counter.Get(s)
	if err := met(); err != nil {
		return 0, err
	}
	counter.Set(s, n+1)
	return n + 1, s.Commit(ctx)
}

// byPlain counts in a session that is loaded, changed and saved as a whole.
func (d *demo) byPlain(s *session2.Session, _ context.Context, met func() error) (int, error) {
	values := d.plain.load(s.ID())
	if err := met(); err != nil {
		return 0, err
	}
	values.Counter++
	d.plain.save(s.ID(), values)
	return values.Counter, nil
}

func (d *demo) ways() map[string]way {
	return map[string]way{"commit": byCommit, "get-and-set": byGetAndSet, "plain": d.byPlain}
}

// count is each of the requests at once: it counts by the way that is asked for, and
// answers with the number.
func (d *demo) count(w http.ResponseWriter, r *http.Request) {
	m, by := d.experiments.of(r), d.ways()[r.FormValue("by")]
	if m == nil || by == nil {
		http.NotFound(w, r)
		return
	}
	s := d.m.Session(r)
	n, err := by(s, r.Context(), func() error { return m.join(r.Context()) })
	switch {
	case errors.Is(err, session2.ErrLostUpdate):
		s.Discard()
		http.Error(w, "others have counted since", http.StatusConflict)
	case err != nil:
		d.fail(w, r, err)
	default:
		fmt.Fprint(w, n)
	}
}

// tally is what came of the requests of one way.
type tally struct {
	Is                           string // the way
	Accepted, Refused            int    // requests
	Distinct                     int    // numbers that they were told
	Before, After, Counted, Lost int
}

// atOnce counts by each of the ways with 64 requests at once.
func (d *demo) atOnce(ctx context.Context, s *session2.Session, r *http.Request) (string, any, error) {
	id, token := s.ID(), s.Token()
	here := func() (int, error) { c, err := d.stored(ctx, token); return c.Counter, err }
	there := func() (int, error) { return d.plain.load(id).Counter, nil }
	before, err := here()
	if err != nil {
		return "", nil, err
	}
	d.plain.save(id, content{Counter: before})
	defer d.plain.delete(id)

	list := []*tally{{Is: "commit"}, {Is: "plain"}, {Is: "get-and-set"}}
	for _, t := range list {
		read := here
		if t.Is == "plain" {
			read = there
		}
		if err := d.tally(ctx, r, token, t, read); err != nil {
			return "", nil, err
		}
	}
	return "at-once", list, nil
}

// tally sends the requests of one way, and takes down what they are told. counted returns
// what is stored.
func (d *demo) tally(ctx context.Context, r *http.Request, token string, t *tally,
	counted func() (int, error)) (err error) {
	if t.Before, err = counted(); err != nil {
		return err
	}
	name, end := d.experiments.begin(crowd)
	defer end()
	told := map[string]bool{}
	for _, a := range sendCrowd(ctx, r, token, url.Values{"experiment": {name}, "by": {t.Is}}) {
		switch {
		case a.err != nil:
			return a.err
		case a.status == http.StatusOK:
			t.Accepted++
			told[a.text] = true
		case a.status == http.StatusConflict:
			t.Refused++
		default:
			return fmt.Errorf("a request of the crowd: status %d", a.status)
		}
	}
	if t.After, err = counted(); err != nil {
		return err
	}
	t.Distinct, t.Counted = len(told), t.After-t.Before
	t.Lost = t.Accepted - t.Counted
	return nil
}

type answer struct {
	status int
	text   string
	err    error
}

// sendCrowd sends all the requests at once. If one cannot be sent, the others need not wait for it.
func sendCrowd(ctx context.Context, r *http.Request, token string, query url.Values) []answer {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make([]answer, crowd)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() {
			a := &answers[i]
			if a.status, a.text, a.err = read(send(ctx, r, token, "/count", query)); a.err != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	return answers
}
