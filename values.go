package session2

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
)

// values are a session's keys with their encoded values: those of the record, in
// order and shared by all states that come from it, and the edits made since. So
// a change costs the same however many there are.
type values struct {
	base  []value      // ordered by key; never changed
	edits table[value] // the zero value: deleted
	added int          // keys that the edits have added, less those that they have deleted
}

// value is one key of the session, followed by its data, which are decoded when
// asked for: of a record that is loaded, nothing is copied. Data have a byte at least,
// so the zero value is none.
type value struct {
	both []byte
	n    int // the key's length
}

func (v value) ok() bool     { return v.both != nil }
func (v value) key() string  { return string(v.both[:v.n]) }
func (v value) data() []byte { return v.both[v.n:] }

func (v value) equal(other value) bool { return v.n == other.n && bytes.Equal(v.both, other.both) }

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

// get returns what is under key, the zero value if nothing is.
func (v *values) get(key string) value {
	if e := v.edits.find(key); e != nil {
		return *e
	}
	return v.inBase(key)
}

// inBase returns what was under key before the edits.
func (v *values) inBase(key string) value {
	i, ok := slices.BinarySearchFunc(v.base, key, value.compare)
	if !ok {
		return value{}
	}
	return v.base[i]
}

func (v *values) put(key string, e value) {
	old := v.edits.find(key)
	if old == nil {
		old = v.edits.add(key, v.inBase(key))
	}
	switch {
	case e.ok() && !old.ok():
		v.added++
	case old.ok() && !e.ok():
		v.added--
	}
	*old = e
}

func (v *values) set(e value)       { v.put(e.key(), e) }
func (v *values) delete(key string) { v.put(key, value{}) }

// list returns all keys in order. The slice is shared: it must not be changed.
func (v *values) list() []value {
	if len(v.edits.rows) == 0 {
		return v.base
	}
	v.edits.sort()
	list := make([]value, 0, len(v.base)+len(v.edits.rows))
	rest := v.base
	for _, e := range v.edits.rows {
		for len(rest) > 0 && rest[0].compare(e.key) < 0 {
			list, rest = append(list, rest[0]), rest[1:]
		}
		if len(rest) > 0 && rest[0].compare(e.key) == 0 {
			rest = rest[1:]
		}
		if e.of.ok() {
			list = append(list, e.of)
		}
	}
	return append(list, rest...)
}

// any reports whether there is a key.
func (v *values) any() bool { return len(v.base)+v.added > 0 }

// settle makes the edits part of the base.
func (v *values) settle() { *v = values{base: v.list()} }

// cloneTo returns a copy that can be edited by itself, its edits in room if that suffices.
func (v *values) cloneTo(room []row[value]) values {
	return values{v.base, table[value]{rows: append(room, v.edits.rows...)}, v.added}
}

func equalValues(a, b []value) bool {
	return slices.EqualFunc(a, b, value.equal)
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

// sort orders the rows by key.
func (t *table[T]) sort() {
	byKey := func(a, b row[T]) int { return strings.Compare(a.key, b.key) }
	if !slices.IsSortedFunc(t.rows, byKey) {
		slices.SortFunc(t.rows, byKey)
		t.index = nil
	}
}

// roomy returns list with room for one more, and for many more when there were some:
// most requests change one key, and others ten.
func roomy[T any](list []T) []T {
	switch {
	case len(list) < cap(list):
		return list
	case len(list) == 0:
		return make([]T, 0, 1)
	}
	return slices.Grow(list, 2*len(list)+9)
}

// add puts something under a key that has nothing yet.
func (t *table[T]) add(key string, of T) *T {
	t.rows = append(roomy(t.rows), row[T]{key, of})
	if t.index != nil {
		t.index[key] = len(t.rows) - 1
	}
	return &t.rows[len(t.rows)-1].of
}

func (t *table[T]) clone() table[T] {
	return table[T]{rows: slices.Clone(t.rows)}
}

// looks is what a request has looked at of its session, and what it has changed
// of that since: a change to a key that the request had looked at must not undo
// what others did to it in between. What is compared is the stored value.
type looks struct {
	keys    table[look]
	all     *state // what Keys or Dump showed, if one was called
	cleared *state // Clear came after that: what had been shown
	clear   int32  // when, by Session.gen
	blank   bool   // all keys are gone by Clear: what is seen of them now is the request's own doing
}

// look is one key.
type look struct {
	at      *state // as which the session was stored when the request looked at the key; nil: it did not
	changed int32  // when the request last changed it, by Session.gen; 0: it did not
	blind   bool   // set or deleted before any look
	guarded bool   // set or deleted after a look
}

// saw notes that the request looks at key, in a session that is stored as base.
func (l *looks) saw(key string, base *state) {
	k := l.keys.find(key)
	switch {
	case k == nil && l.blank:
	case k == nil:
		if rows := l.keys.rows; len(rows) == cap(rows) {
			l.compact(base)
		}
		l.keys.add(key, look{at: base})
	case k.changed == 0: // looked at again, after a commit
		k.at = base
	case k.at == nil && !k.blind: // Update made it of what is stored
		k.at = base
	}
}

// sawAll notes that it looks at all keys.
func (l *looks) sawAll(base *state) {
	if l.blank {
		return
	}
	l.all = base
	for i := range l.keys.rows {
		l.saw(l.keys.rows[i].key, base)
	}
}

// row returns what is known of key.
func (l *looks) row(key string) *look {
	if k := l.keys.find(key); k != nil {
		return k
	}
	var at *state
	if !l.blank {
		at = l.all
	}
	return l.keys.add(key, look{at: at})
}

// wrote notes that key was set or deleted.
func (l *looks) wrote(key string, gen int32) { l.row(key).write(gen) }

func (k *look) write(gen int32) {
	k.changed = gen
	k.blind = k.blind || k.at == nil
	k.guarded = !k.blind
}

// updated notes an Update, which loses nothing: it runs again.
func (l *looks) updated(key string, gen int32) { l.row(key).changed = gen }

// wroteAll notes that all keys were deleted.
func (l *looks) wroteAll(gen int32) {
	for i := range l.keys.rows {
		l.keys.rows[i].of.write(gen)
	}
	l.cleared, l.blank, l.clear = l.all, true, gen
}

// former notes that all keys are gone with the user whose they were. What the request has
// seen of them matters again only if that is discarded.
func (l *looks) former(gen int32) {
	for i := range l.keys.rows {
		k := &l.keys.rows[i].of
		k.changed, k.blind = gen, true
	}
	l.blank, l.clear = true, gen
}

// compact has the request count as one that has looked at all keys, where it has looked at
// very many: it may be a stream, which looks at another one again and again.
func (l *looks) compact(base *state) {
	if len(l.keys.rows) < manyLooks || l.blank {
		return
	}
	l.all = cmp.Or(l.all, base)
	l.keys = table[look]{rows: slices.DeleteFunc(l.keys.rows, func(r row[look]) bool {
		return r.of.changed == 0 && !changed(r.key, r.of.at, l.all)
	})}
}

const manyLooks = 1000

// clone returns a copy that changes by itself.
func (l *looks) clone() looks {
	c := *l
	c.keys = l.keys.clone()
	return c
}

// guarded is what a commit must find as it was: a copy, for the request may go on.
type guarded struct {
	keys    []row[look]
	cleared *state
	except  table[look] // of cleared: they are judged by themselves
}

// guards returns that, in room if that suffices.
func (l *looks) guards(room []row[look]) guarded {
	g := guarded{keys: room}
	for _, r := range l.keys.rows {
		if r.of.guarded {
			g.keys = append(g.keys, r)
		}
	}
	if g.cleared = l.cleared; g.cleared != nil {
		g.except = l.keys.clone()
	}
	return g
}

// lost returns a key that the request changes although it is no longer stored as
// it was when the request looked at it. That the request sets it to what is stored
// by now is no excuse: of two increments at once, both would write the same.
func (g *guarded) lost(base *state) (key string, lost bool) {
	for _, r := range g.keys {
		if changed(r.key, r.of.at, base) {
			return r.key, true
		}
	}
	if g.cleared == nil {
		return "", false
	}
	for _, list := range [][]value{base.values.list(), g.cleared.values.list()} {
		for _, v := range list {
			if key := v.key(); g.except.find(key) == nil && changed(key, g.cleared, base) {
				return key, true
			}
		}
	}
	return "", false
}

// changed reports whether key has become another between two states.
func changed(key string, from, to *state) bool {
	return from != to && !from.values.get(key).equal(to.values.get(key))
}

// committed notes that the changes until gen are stored, as the request sees them
// in view: that is what it knows from now on.
func (l *looks) committed(gen int32, view *state) {
	old := l.keys.rows
	l.keys = table[look]{rows: old[:0]}
	for _, r := range old {
		k := r.of
		if k.changed > 0 && (k.at != nil || l.all != nil) {
			k.at, k.blind = view, false
		}
		if k.changed <= gen {
			k.changed, k.guarded, k.blind = 0, false, false
		}
		if k.changed == 0 && k.at != nil && !changed(r.key, k.at, view) { // an older state need not be kept for it
			k.at = view
		}
		if k.at != nil || k.changed > 0 {
			l.keys.add(r.key, k)
		}
	}
	if l.blank && l.clear <= gen {
		l.blank, l.cleared = false, nil
		if l.all != nil {
			l.all = view
		}
	}
	l.compact(view)
}

// storedAfterAll notes that changes which were dropped in the meantime are
// stored after all: base became view.
func (l *looks) storedAfterAll(base, view *state) {
	for i := range l.keys.rows {
		if k := &l.keys.rows[i].of; k.at != nil && changed(l.keys.rows[i].key, base, view) {
			k.at = view
		}
	}
}

// discarded notes that all changes were dropped.
func (l *looks) discarded() {
	old := l.keys.rows
	l.keys, l.blank, l.cleared = table[look]{}, false, nil
	for _, r := range old {
		if r.of.at != nil {
			l.keys.add(r.key, look{at: r.of.at})
		}
	}
}
