package session2

import (
	"bytes"
	"slices"
	"strings"
)

// values are a session's keys with their encoded values: those of the record, in
// order and shared by all states that come from it, and the edits made since. So
// a change costs the same however many there are.
type values struct {
	base  []value // ordered by key; never changed
	edits table[edit]
	added int // keys that the edits have added, less those that they have deleted
}

// value is one key of the session, followed by its data, which are decoded when
// asked for: of a record that is loaded, nothing is copied.
type value struct {
	both []byte
	n    int // the key's length
}

func newValue(key string, data []byte) value {
	return value{slices.Concat([]byte(key), data), len(key)}
}

func (v value) key() string  { return string(v.both[:v.n]) }
func (v value) data() []byte { return v.both[v.n:] }

// compare compares the value's key with another.
func (v value) compare(key string) int {
	switch own := v.both[:v.n]; {
	case string(own) < key:
		return -1
	case string(own) == key:
		return 0
	}
	return 1
}

// edit is what became of a key: a value, or none.
type edit struct {
	data []byte
	ok   bool
}

func (e edit) equal(other edit) bool { return e.ok == other.ok && bytes.Equal(e.data, other.data) }

// get returns what is under key.
func (v *values) get(key string) edit {
	if e := v.edits.find(key); e != nil {
		return *e
	}
	return v.inBase(key)
}

// inBase returns what was under key before the edits.
func (v *values) inBase(key string) edit {
	i, ok := slices.BinarySearchFunc(v.base, key, value.compare)
	if !ok {
		return edit{}
	}
	return edit{v.base[i].data(), true}
}

func (v *values) put(key string, e edit) {
	old := v.edits.find(key)
	if old == nil {
		old = v.edits.add(key, v.inBase(key))
	}
	switch {
	case e.ok && !old.ok:
		v.added++
	case old.ok && !e.ok:
		v.added--
	}
	*old = e
}

func (v *values) set(key string, data []byte) { v.put(key, edit{data, true}) }
func (v *values) delete(key string)           { v.put(key, edit{}) }

// list returns all keys in order. The slice is shared: it must not be changed.
func (v *values) list() []value {
	if len(v.edits.rows) == 0 {
		return v.base
	}
	edits := v.edits.rows
	if len(edits) > 1 {
		edits = slices.Clone(edits)
		slices.SortFunc(edits, func(a, b row[edit]) int { return strings.Compare(a.key, b.key) })
	}
	list := make([]value, 0, len(v.base)+len(edits))
	rest := v.base
	for _, e := range edits {
		for len(rest) > 0 && rest[0].compare(e.key) < 0 {
			list, rest = append(list, rest[0]), rest[1:]
		}
		if len(rest) > 0 && rest[0].compare(e.key) == 0 {
			rest = rest[1:]
		}
		if e.of.ok {
			list = append(list, newValue(e.key, e.of.data))
		}
	}
	return append(list, rest...)
}

// any reports whether there is a key.
func (v *values) any() bool { return len(v.base)+v.added > 0 }

// settle makes the edits part of the base.
func (v *values) settle() { *v = values{base: v.list()} }

// clone returns a copy that can be edited by itself.
func (v *values) clone() values { return values{v.base, v.edits.clone(), v.added} }

func equalValues(a, b []value) bool {
	return slices.EqualFunc(a, b, func(x, y value) bool { return x.n == y.n && bytes.Equal(x.both, y.both) })
}

// table is a map from keys that costs no more than a slice while it is small.
type table[T any] struct {
	rows  []row[T]
	index map[string]int // of rows; nil while there are few, and in a copy
}

type row[T any] struct {
	key string
	of  T
}

const smallTable = 12

// find returns what is under key, nil if nothing is. The pointer is good until
// the next add.
func (t *table[T]) find(key string) *T {
	if len(t.rows) > smallTable {
		if i, ok := t.indexed()[key]; ok {
			return &t.rows[i].of
		}
		return nil
	}
	for i := range t.rows {
		if t.rows[i].key == key {
			return &t.rows[i].of
		}
	}
	return nil
}

func (t *table[T]) indexed() map[string]int {
	if t.index == nil {
		t.index = make(map[string]int, 2*len(t.rows))
		for i, r := range t.rows {
			t.index[r.key] = i
		}
	}
	return t.index
}

// add puts something under a key that has nothing yet.
func (t *table[T]) add(key string, of T) *T {
	t.rows = append(t.rows, row[T]{key, of})
	if t.index != nil {
		t.index[key] = len(t.rows) - 1
	}
	return &t.rows[len(t.rows)-1].of
}

func (t *table[T]) clone() table[T] {
	return table[T]{rows: slices.Clone(t.rows)}
}
