package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/session2/session2"
)

const maxEvents = 100 // that are remembered

// events remembers what happened to sessions. It is Config.OnEvent's.
type events struct {
	mu   sync.Mutex
	seen int
	list []happened // the latest last
}

// happened is an event, or several in a row that are alike. No event holds a secret.
type happened struct {
	at    time.Time
	Event session2.Event
	Times int
	When  string
	last  int // its number, or that of the last of several
}

func (e *events) add(_ context.Context, ev session2.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen++
	now := happened{at: time.Now(), Event: ev, Times: 1, last: e.seen}
	if n := len(e.list); n > 0 && alike(e.list[n-1].Event, ev) {
		now.Times += e.list[n-1].Times
		e.list = e.list[:n-1]
	} else if n == maxEvents {
		e.list = slices.Delete(e.list, 0, 1)
	}
	e.list = append(e.list, now)
}

func alike(a, b session2.Event) bool {
	return a.Kind == b.Kind && a.ID == b.ID && a.User == b.User && fmt.Sprint(a.Err) == fmt.Sprint(b.Err)
}

// mark returns where the list ends now, for since.
func (e *events) mark() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen
}

// since returns what happened to a session after mark, or to any if id is zero; the latest first.
func (e *events) since(mark int, id session2.ID) (list []happened) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, h := range slices.Backward(e.list) {
		if h.last > mark && (id == session2.ID{} || h.Event.ID == id) {
			h.When = when(time.Now(), h.at)
			list = append(list, h)
		}
	}
	return list
}

// Who returns who is concerned.
func (h happened) Who() string { return cmp.Or(h.Event.User, "nobody") }
