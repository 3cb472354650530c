package session2

import "sync"

// running knows the sessions that requests under way have loaded, so that one that
// merely came to hold nothing is not deleted under them: see [txn.remove]. Requests
// of other processes are not among them.
type running struct {
	mu   sync.Mutex
	held map[ID]holders
}

// holders are the requests that have loaded a session.
type holders struct {
	n     int
	empty Version // of the record that was left to them, saved as expired; zero: none was
}

// add notes a request, before it loads the session.
func (r *running) add(id ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == nil {
		r.held = make(map[ID]holders)
	}
	h := r.held[id]
	h.n++
	r.held[id] = h
}

// remove notes that a request has ended. It reports whether it was the last one of a
// session that was left to it.
func (r *running) remove(id ID) (left bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.held[id]
	h.n--
	if h.n > 0 {
		r.held[id] = h
		return false
	}
	delete(r.held, id)
	return h.empty != 0
}

// leave leaves an emptied session to the requests that have loaded it. It reports
// false if there are none, but the caller's own if that is one of them.
func (r *running) leave(id ID, v Version, own bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.held[id]
	if h.n == 0 || own && h.n == 1 {
		return false
	}
	h.empty = v
	r.held[id] = h
	return true
}

// left reports whether the record of that version was left to those who have loaded
// its session.
func (r *running) left(id ID, v Version) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.held[id]
	return h.empty == v && v != 0
}

// taken notes that one of them has stored something over the record of that version.
func (r *running) taken(id ID, v Version) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h, ok := r.held[id]; ok && h.empty == v {
		h.empty = 0
		r.held[id] = h
	}
}
