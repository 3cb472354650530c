package session2

import (
	"sync"
	"sync/atomic"
)

// running counts for each session the requests under way that have looked at it. A
// session that merely came to hold nothing is ended by the last of them, for another
// one may be about to put something into it. Requests of other processes do not count.
type running struct {
	emptied atomic.Int64 // how many of the sessions hold nothing
	mu      sync.Mutex
	held    map[ID]holders
}

type holders struct {
	n      int
	empty  bool // it was saved with nothing in it
	ending bool // somebody ends it
	news   *news
}

// set notes what is known of a session. It is called with r.mu held.
func (r *running) set(id ID, h holders) {
	if r.held == nil {
		r.held = make(map[ID]holders)
	}
	if h.n > 0 || h.ending {
		r.held[id] = h
		return
	}
	delete(r.held, id)
	if h.empty {
		r.emptied.Add(-1)
	}
}

// enter notes a request, before it loads the session. It returns false if somebody
// ends the session: who comes now has one of its own.
func (r *running) enter(id ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.held[id]
	if h.ending {
		return false
	}
	h.n++
	r.set(id, h)
	return true
}

// leave notes that a request has ended. If it was the last one of a session that
// holds nothing, leave returns true, and the session is the caller's to end.
func (r *running) leave(id ID) (end bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.held[id]
	h.n--
	end = h.n == 0 && h.empty && !h.ending
	h.ending = h.ending || end
	r.set(id, h)
	return end
}

// end returns true if no request has the session, but the caller's own if that is
// one of them. The session is then the caller's to end.
func (r *running) end(id ID, own bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.held[id]
	if h.ending || h.n > 1 || h.n == 1 && !own {
		return false
	}
	h.ending = true
	r.set(id, h)
	return true
}

// ended must follow when leave or end has returned true, whatever has come of it.
func (r *running) ended(id ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.held[id]
	h.ending = false
	r.set(id, h)
}

// empty notes that a session was saved with nothing in it.
func (r *running) empty(id ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.held[id]; h.n > 0 && !h.empty {
		h.empty = true
		r.emptied.Add(1)
		r.set(id, h)
	}
}

// isEmpty returns whether it was.
func (r *running) isEmpty(id ID) bool {
	if r.emptied.Load() == 0 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held[id].empty
}

// tell notes what has become of a session, for those of its requests that ask later.
func (r *running) tell(id ID, n *news) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.held[id]; h.n > 0 && (h.news == nil || h.news.ended == nil) {
		h.news = n
		r.set(id, h)
	}
}

// latest returns that; nil if there is nothing to tell.
func (r *running) latest(id ID) *news {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held[id].news
}
