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

const maxEvents = 5000 // that are remembered

// events remembers what happened to sessions. It is Config.OnEvent's.
type events struct {
	mu   sync.Mutex
	seen int        // events since the demo was started
	list []happened // the last of them, in their order
}

// happened is an event, or several that are alike. No event holds a secret.
type happened struct {
	Event session2.Event
	Times int
	When  string
	at    time.Time
}

func (e *events) add(_ context.Context, ev session2.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen++
	e.list = append(e.list, happened{Event: ev, at: time.Now()})
	e.list = e.list[max(0, len(e.list)-maxEvents):]
}

// mark returns where the list ends now, for since.
func (e *events) mark() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen
}

// since returns what happened to a session after mark, or to any if id is zero; the latest
// first. Where events of one kind follow one another, those that are alike become one.
func (e *events) since(mark int, id session2.ID) (list []happened) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now, run := time.Now(), 0 // where in list the latest run of one kind begins
	for _, h := range slices.Backward(e.list[max(0, len(e.list)-(e.seen-mark)):]) {
		if id != (session2.ID{}) && h.Event.ID != id {
			continue
		}
		if len(list) > 0 && list[run].Event.Kind != h.Event.Kind {
			run = len(list)
		}
		i := slices.IndexFunc(list[run:], h.alike)
		if i < 0 {
			i, list = len(list)-run, append(list, h)
			list[run+i].When = when(now, h.at)
		}
		list[run+i].Times++
	}
	return list[:min(len(list), maxRows)]
}

func (h happened) alike(other happened) bool {
	a, b := h.Event, other.Event
	return a.Kind == b.Kind && a.ID == b.ID && a.User == b.User && fmt.Sprint(a.Err) == fmt.Sprint(b.Err)
}

// Who returns who is concerned.
func (h happened) Who() string { return cmp.Or(h.Event.User, "nobody") }
