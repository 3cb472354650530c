package gobstore

import (
	"encoding/binary"
	"testing"
)

// Who lists all records lets a change through every now and then, and lists what stays.
func TestCollectLetsChangesThrough(t *testing.T) {
	const n = 3 * copySize
	s, l := new(Store), new(log)
	for i := range n {
		l.index.Put(numbered(i), entry{Accessed: 1, Expires: 1})
	}
	through, calls := make(chan int, 1), 0
	list := collect(s, l, func(id [16]byte, _ *entry) [16]byte {
		if calls++; calls == 1 {
			go func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				for i := range 4 * copySize { // more than there was room for
					l.index.Put(numbered(n+i), entry{Accessed: 1, Expires: 1})
				}
				through <- calls
			}()
			for s.mu.TryRLock() { // until the change waits
				s.mu.RUnlock()
			}
		}
		return id
	})
	if at := <-through; at != copySize {
		t.Errorf("the change came after %d records, want %d", at, copySize)
	}
	listed := make(map[[16]byte]int)
	for _, id := range list {
		listed[id]++
	}
	for i := range n {
		if listed[numbered(i)] != 1 {
			t.Fatalf("record %d is listed %d times", i, listed[numbered(i)])
		}
	}
}

func numbered(n int) (id [16]byte) {
	binary.BigEndian.PutUint64(id[:], uint64(n))
	return id
}
