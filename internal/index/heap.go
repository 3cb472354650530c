package index

// The two orders of entries, which number Index.heaps and node.pos.
const (
	byAccessed = iota
	byExpires
)

// key returns the time that counts in the order by.
func (n *node[V]) key(by int) int64 {
	if by == byAccessed {
		return n.Accessed
	}
	return n.Expires
}

// heap is a binary heap with the earliest node on top. Its nodes know their
// positions, so that any of them can be moved or removed.
type heap[V any] []*node[V]

func (h *heap[V]) push(by int, n *node[V]) {
	n.pos[by] = int32(len(*h))
	*h = append(*h, n)
	h.fix(by, n)
}

func (h *heap[V]) remove(by int, n *node[V]) {
	last := len(*h) - 1
	moved := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	if moved != n {
		h.set(by, int(n.pos[by]), moved)
		h.fix(by, moved)
	}
}

func (h heap[V]) set(by, i int, n *node[V]) {
	h[i] = n
	n.pos[by] = int32(i)
}

// fix brings n, whose key may have changed, to where it belongs.
func (h heap[V]) fix(by int, n *node[V]) {
	i := int(n.pos[by])
	if j := h.up(by, i, n.key(by)); j < i {
		h.set(by, j, n)
		return
	}
	h.set(by, h.down(by, i, n.key(by)), n)
}

// up makes room for a node with this key at i or above it, and returns where.
func (h heap[V]) up(by, i int, key int64) int {
	for i > 0 {
		parent := (i - 1) / 2
		if h[parent].key(by) <= key {
			break
		}
		h.set(by, i, h[parent])
		i = parent
	}
	return i
}

// down makes room for a node with this key at i or below it, and returns where.
func (h heap[V]) down(by, i int, key int64) int {
	for {
		child := 2*i + 1
		if child >= len(h) {
			return i
		}
		if right := child + 1; right < len(h) && h[right].key(by) < h[child].key(by) {
			child = right
		}
		if key <= h[child].key(by) {
			return i
		}
		h.set(by, i, h[child])
		i = child
	}
}

// walk calls visit for the nodes at or below i in the tree whose key is at
// most bound, and reports whether visit always asked for more. It looks at no
// more than two nodes for each that it visits, and one.
func (h heap[V]) walk(by, i int, bound int64, visit func(*node[V]) bool) bool {
	if i >= len(h) || h[i].key(by) > bound {
		return true
	}
	return visit(h[i]) &&
		h.walk(by, 2*i+1, bound, visit) &&
		h.walk(by, 2*i+2, bound, visit)
}
