package main

import (
	"sync"

	"github.com/session2/session2"
)

// plain keeps sessions in the way that many programs do, for comparison: a request loads
// all of a session, changes its copy, and saves the whole of it. Each of the two steps is
// safe by itself. Nothing notices what others have saved, or deleted, between them.
type plain struct {
	mu       sync.Mutex
	sessions map[session2.ID]content
}

func (p *plain) load(id session2.ID) content {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sessions[id]
}

func (p *plain) save(id session2.ID, c content) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sessions == nil {
		p.sessions = map[session2.ID]content{}
	}
	p.sessions[id] = c
}

func (p *plain) delete(id session2.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sessions, id)
}
