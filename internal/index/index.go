// Package index finds session records in memory: by ID, by user, and by when
// they are due to be swept. It holds small entries; what an entry's Value says
// about the record is the caller's affair.
package index

import (
	"iter"
	"slices"
	"strings"
)

// Entry is what an Index keeps for one ID.
type Entry[V any] struct {
	User              string // indexed, unless it is empty
	Accessed, Expires int64  // microseconds since 1970
	Value             V
}

// slots is how many an empty index keeps, about.
const slots = 64

// Index maps IDs to entries. Its zero value is empty and ready to use. It is
// not safe for concurrent use: the caller locks. Get, Due and what appends
// only read, so that callers of these may share a lock.
//
// Get costs one map look-up. The times are kept in two heaps, where a new
// entry belongs at the end and is put in a few steps; moving the oldest there,
// the worst case of Put and Touch, takes log n. A deleted entry is gone at
// once; only its slot in the map stays, for the next one. The last one's
// deletion frees the slots, too, but for a few.
type Index[V any] struct {
	nodes map[[16]byte]*node[V]
	users map[string]*node[V] // the first of each user's nodes
	heaps [2]heap[V]          // by Accessed, by Expires
}

// node is an entry with its place in every structure. An index holds fewer
// than 2^31 of them.
type node[V any] struct {
	Entry[V]
	id         [16]byte
	pos        [2]int32 // in heaps
	prev, next *node[V] // of the same user
}

// Get returns the entry of id.
func (x *Index[V]) Get(id [16]byte) (Entry[V], bool) {
	n, ok := x.nodes[id]
	if !ok {
		return Entry[V]{}, false
	}
	return n.Entry, true
}

// Find is Get without a copy: it returns the entry itself, which is not to be
// changed, nor used when the caller's lock is gone; or nil.
func (x *Index[V]) Find(id [16]byte) *Entry[V] {
	if n, ok := x.nodes[id]; ok {
		return &n.Entry
	}
	return nil
}

// Put sets the entry of id, in place of any earlier one. It copies e.User
// where it must keep it, so that no larger string is kept alive with it.
func (x *Index[V]) Put(id [16]byte, e Entry[V]) {
	n, ok := x.nodes[id]
	if !ok {
		x.insert(id, e)
		return
	}
	if n.User != e.User {
		x.unlink(n)
		n.User = e.User
		x.link(n)
	}
	n.Value = e.Value
	x.move(n, e.Accessed, e.Expires)
}

func (x *Index[V]) insert(id [16]byte, e Entry[V]) {
	if x.nodes == nil {
		x.nodes = make(map[[16]byte]*node[V])
		x.users = make(map[string]*node[V])
	}
	n := &node[V]{Entry: e, id: id}
	x.nodes[id] = n
	x.link(n)
	for by := range x.heaps {
		x.heaps[by].push(by, n)
	}
}

// Delete removes the entry of id and reports whether there was one.
func (x *Index[V]) Delete(id [16]byte) bool {
	n, ok := x.nodes[id]
	if !ok {
		return false
	}
	delete(x.nodes, id)
	x.unlink(n)
	for by := range x.heaps {
		x.heaps[by].remove(by, n)
	}
	if len(x.nodes) == 0 && cap(x.heaps[byAccessed]) > slots {
		*x = Index[V]{}
	}
	return true
}

// Touch moves the times of id's entry forward, each by itself and never back.
// Without an entry it does nothing.
func (x *Index[V]) Touch(id [16]byte, accessed, expires int64) {
	if n, ok := x.nodes[id]; ok {
		x.move(n, max(n.Accessed, accessed), max(n.Expires, expires))
	}
}

// move sets the times of n.
func (x *Index[V]) move(n *node[V], accessed, expires int64) {
	if n.Accessed != accessed {
		n.Accessed = accessed
		x.heaps[byAccessed].fix(byAccessed, n)
	}
	if n.Expires != expires {
		n.Expires = expires
		x.heaps[byExpires].fix(byExpires, n)
	}
}

// AppendIDs appends to ids those of all entries, in no particular order.
func (x *Index[V]) AppendIDs(ids [][16]byte) [][16]byte {
	ids = slices.Grow(ids, len(x.nodes))
	for _, n := range x.heaps[byAccessed] {
		ids = append(ids, n.id)
	}
	return ids
}

// Len returns the number of entries.
func (x *Index[V]) Len() int { return len(x.nodes) }

// All yields all entries, in no particular order. They are not to be changed, nor
// used when the caller's lock is gone. The loop's body may give that up and take it
// again: an entry that stays is yielded once, and one that comes or goes meanwhile once
// or not at all.
func (x *Index[V]) All() iter.Seq2[[16]byte, *Entry[V]] {
	return func(yield func([16]byte, *Entry[V]) bool) {
		for id, n := range x.nodes {
			if !yield(id, &n.Entry) {
				return
			}
		}
	}
}

// AppendUser appends to ids those of the user's entries, in no particular order;
// none for the empty user. It costs what it appends.
func (x *Index[V]) AppendUser(ids [][16]byte, user string) [][16]byte {
	for n := x.users[user]; n != nil; n = n.next {
		ids = append(ids, n.id)
	}
	return ids
}

// Due returns up to limit IDs of entries that have Expires at or before now or
// Accessed at or before cutoff, each once and in no particular order, and
// leaves the entries where they are. Fewer than limit are all there are. It
// costs what it returns. The caller owns the slice.
func (x *Index[V]) Due(now, cutoff int64, limit int) [][16]byte {
	var ids [][16]byte
	x.heaps[byExpires].walk(byExpires, 0, now, func(n *node[V]) bool {
		if len(ids) < limit {
			ids = append(ids, n.id)
		}
		return len(ids) < limit
	})
	x.heaps[byAccessed].walk(byAccessed, 0, cutoff, func(n *node[V]) bool {
		if len(ids) < limit && n.Expires > now { // else the first walk had it
			ids = append(ids, n.id)
		}
		return len(ids) < limit
	})
	return ids
}

// link adds n to its user's nodes. The user's name is stored once for all of
// them.
func (x *Index[V]) link(n *node[V]) {
	if n.User == "" {
		return
	}
	first := x.users[n.User]
	if first == nil {
		n.User = strings.Clone(n.User)
		x.users[n.User] = n
		return
	}
	// The new node becomes the second, which spares the map a write.
	n.User, n.prev, n.next = first.User, first, first.next
	if n.next != nil {
		n.next.prev = n
	}
	first.next = n
}

// unlink takes n from its user's nodes.
func (x *Index[V]) unlink(n *node[V]) {
	switch {
	case n.User == "":
		return
	case n.prev != nil:
		n.prev.next = n.next
	case n.next != nil:
		x.users[n.User] = n.next
	default:
		delete(x.users, n.User)
	}
	if n.next != nil {
		n.next.prev = n.prev
	}
	n.prev, n.next = nil, nil
}
