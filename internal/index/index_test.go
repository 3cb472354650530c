package index

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"
)

func testID(n uint64) (id [16]byte) {
	binary.BigEndian.PutUint64(id[8:], n)
	return id
}

func sorted(ids [][16]byte) [][16]byte {
	slices.SortFunc(ids, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	return ids
}

// model is the obvious index: a map, scanned.
type model map[[16]byte]Entry[uint64]

func (m model) where(is func(Entry[uint64]) bool) [][16]byte {
	var ids [][16]byte
	for id, e := range m {
		if is(e) {
			ids = append(ids, id)
		}
	}
	return sorted(ids)
}

func (m model) touch(id [16]byte, accessed, expires int64) {
	if e, ok := m[id]; ok {
		e.Accessed, e.Expires = max(e.Accessed, accessed), max(e.Expires, expires)
		m[id] = e
	}
}

// step does one random thing to both.
func step(t *testing.T, rnd *rand.Rand, x *Index[uint64], m model) {
	t.Helper()
	id := testID(rnd.Uint64N(200))
	e := Entry[uint64]{User: userName(rnd.IntN(6)), Accessed: rnd.Int64N(50), Expires: rnd.Int64N(50),
		Value: rnd.Uint64()}
	switch rnd.IntN(5) {
	case 0, 1:
		x.Put(id, e)
		m[id] = e
	case 2:
		_, want := m[id]
		if got := x.Delete(id); got != want {
			t.Fatalf("Delete(%x) = %v, want %v", id, got, want)
		}
		delete(m, id)
	default:
		x.Touch(id, e.Accessed, e.Expires)
		m.touch(id, e.Accessed, e.Expires)
	}
}

func userName(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint("user", n)
}

func compare(t *testing.T, rnd *rand.Rand, x *Index[uint64], m model) {
	t.Helper()
	if len(x.nodes) != len(m) {
		t.Fatalf("%d entries, want %d", len(x.nodes), len(m))
	}
	for n := range uint64(200) {
		id := testID(n)
		got, ok := x.Get(id)
		if want, found := m[id]; ok != found || got != want {
			t.Fatalf("Get(%x) = %+v, %v, want %+v, %v", id, got, ok, want, found)
		}
	}
	all := make(model)
	for id, e := range x.All() {
		all[id] = *e
	}
	if x.Len() != len(m) || !maps.Equal(all, m) {
		t.Fatalf("All yields %v, and Len is %d, want %v", all, x.Len(), m)
	}
	got, want := sorted(x.AppendIDs(nil)), m.where(func(Entry[uint64]) bool { return true })
	if !slices.Equal(got, want) {
		t.Fatalf("IDs() = %x, want %x", got, want)
	}
	for n := range 7 {
		user := userName(n)
		want := m.where(func(e Entry[uint64]) bool { return user != "" && e.User == user })
		if got := sorted(x.AppendUser(nil, user)); !slices.Equal(got, want) {
			t.Fatalf("User(%q) = %x, want %x", user, got, want)
		}
	}
	compareDue(t, rnd, x, m)
}

func compareDue(t *testing.T, rnd *rand.Rand, x *Index[uint64], m model) {
	t.Helper()
	now, cutoff, limit := rnd.Int64N(52)-1, rnd.Int64N(52)-1, rnd.IntN(250)
	want := m.where(func(e Entry[uint64]) bool { return e.Expires <= now || e.Accessed <= cutoff })
	got := sorted(x.Due(now, cutoff, limit))
	if len(got) != min(len(want), limit) {
		t.Fatalf("Due(%d, %d, %d) has %d IDs, want %d", now, cutoff, limit, len(got), min(len(want), limit))
	}
	if len(slices.Compact(got)) < min(len(want), limit) {
		t.Fatalf("Due(%d, %d, %d) names an ID twice: %x", now, cutoff, limit, got)
	}
	for _, id := range got {
		if _, ok := slices.BinarySearchFunc(want, id,
			func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) }); !ok {
			t.Fatalf("Due(%d, %d, %d) names %x, which is not due", now, cutoff, limit, id)
		}
	}
}

// An Index answers as a scanned map does, whatever was done before, and keeps
// its heaps in order and nothing of what was deleted.
func TestModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	var x Index[uint64]
	m := model{}
	for range 2000 {
		for range rnd.IntN(20) {
			step(t, rnd, &x, m)
		}
		compare(t, rnd, &x, m)
		checkHeaps(t, &x)
	}
	for _, id := range slices.Collect(maps.Keys(m)) {
		x.Delete(id)
	}
	checkHeaps(t, &x)
	if len(x.nodes) != 0 || len(x.users) != 0 {
		t.Errorf("after deleting all: %d entries, %d users; want none", len(x.nodes), len(x.users))
	}
}

func checkHeaps(t *testing.T, x *Index[uint64]) {
	t.Helper()
	for by, h := range x.heaps {
		if len(h) != len(x.nodes) {
			t.Fatalf("heap %d holds %d nodes, want %d", by, len(h), len(x.nodes))
		}
		for i, n := range h {
			if int(n.pos[by]) != i {
				t.Fatalf("heap %d: the node at %d believes to be at %d", by, i, n.pos[by])
			}
			if parent := h[max(0, i-1)/2]; parent.key(by) > n.key(by) {
				t.Fatalf("heap %d: node %d is earlier than its parent", by, i)
			}
		}
		for _, n := range h[len(h):cap(h)] {
			if n != nil {
				t.Fatalf("heap %d keeps a deleted node", by)
			}
		}
	}
}

func TestZeroValue(t *testing.T) {
	var x Index[int]
	id := testID(1)
	if _, ok := x.Get(id); ok || x.Delete(id) || len(x.nodes) != 0 {
		t.Error("an empty index claims to hold an entry")
	}
	x.Touch(id, 1, 1)
	ids := slices.Concat(x.AppendIDs(nil), x.AppendUser(nil, "a"), x.AppendUser(nil, ""), x.Due(1, 1, 10))
	if len(ids) != 0 {
		t.Errorf("an empty index lists %x", ids)
	}
}

// Due looks at a few nodes for each that it returns, not at all that are there.
func TestDueCost(t *testing.T) {
	var x Index[int]
	for n := range uint64(10_000) {
		x.Put(testID(n), Entry[int]{Accessed: int64(n), Expires: int64(n) + 1000})
	}
	visits := 0
	x.heaps[byAccessed].walk(byAccessed, 0, 9, func(*node[int]) bool { visits++; return true })
	if visits != 10 {
		t.Errorf("walk visits %d nodes, want 10", visits)
	}
	if got := len(x.Due(1004, 9, 100)); got != 10 {
		t.Errorf("Due returns %d IDs, want 10", got)
	}
	if got := x.Due(1004, 9, 0); len(got) != 0 {
		t.Errorf("Due with limit 0 returns %x", got)
	}
}

// filled returns an index of n entries, every second with a user of its own.
func filled(n int) *Index[[3]int64] {
	x := new(Index[[3]int64])
	for i := range uint64(n) {
		var user string
		if i%2 == 0 {
			user = fmt.Sprintf("user-%08d", i)
		}
		x.Put(testID(i*0x9e3779b97f4a7c15), Entry[[3]int64]{User: user, Accessed: int64(i), Expires: int64(i)})
	}
	return x
}

// A million entries with a Value of 24 bytes must stay affordable: the node,
// its map slot, two heap slots, and for every second one a user's name with a
// map slot of its own.
func TestMemory(t *testing.T) {
	const n = 100_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	x := filled(n)
	runtime.GC()
	runtime.ReadMemStats(&after)
	perEntry := float64(after.HeapAlloc-before.HeapAlloc) / n
	t.Logf("%.0f bytes per entry", perEntry)
	if perEntry > 300 {
		t.Errorf("an entry takes %.0f bytes, want at most 300", perEntry)
	}
	runtime.KeepAlive(x)
}

func BenchmarkPut(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				filled(n)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/entry")
		})
	}
}

func BenchmarkGet(b *testing.B) {
	const n = 1_000_000
	x := filled(n)
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		x.Get(testID(i * 7919 % n * 0x9e3779b97f4a7c15))
	}
}

func BenchmarkTouch(b *testing.B) {
	const n = 1_000_000
	x := filled(n)
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		x.Touch(testID(i*7919%n*0x9e3779b97f4a7c15), int64(n+i), int64(n+i))
	}
}

func BenchmarkDue(b *testing.B) {
	const n = 1_000_000
	x := filled(n)
	b.ReportAllocs()
	for b.Loop() {
		x.Due(50, 99, 1000)
	}
}

// When the last of many entries goes, the room for them goes, too.
func TestEmptyIndexKeepsNoRoom(t *testing.T) {
	var x Index[uint64]
	for range 2 {
		for i := range uint64(1000) {
			x.Put(testID(i), Entry[uint64]{User: userName(int(i % 6)), Accessed: int64(i)})
		}
		for i := range uint64(1000) {
			x.Delete(testID(i))
		}
		if n := cap(x.heaps[byAccessed]) + cap(x.heaps[byExpires]); n > 2*slots || x.nodes != nil || x.users != nil {
			t.Errorf("an empty index has room for %d, and its maps: %v, %v", n, x.nodes, x.users)
		}
	}
}
