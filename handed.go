package session2

import "sync"

// handed knows the tokens that running handlers were given by Session.Token.
type handed struct {
	mu     sync.Mutex
	hashes map[hash]int
}

func (t *handed) add(h hash) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.hashes == nil {
		t.hashes = make(map[hash]int)
	}
	t.hashes[h]++
}

func (t *handed) remove(h hash) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.hashes[h]--; t.hashes[h] <= 0 {
		delete(t.hashes, h)
	}
}

func (t *handed) has(h hash) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.hashes[h] > 0
}
