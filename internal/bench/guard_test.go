//go:build !race

package main

import (
	"encoding/json"
	"maps"
	"math"
	"os"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/session2/session2/internal/testsite"
)

// kept is what a request costs that does not depend on the machine: how many pieces of
// memory it allocates, and how many round trips to a server it makes, by contender and
// workload.
type kept map[string]map[string]cost

type cost struct {
	Allocs float64 `json:"allocs"`
	Trips  float64 `json:"trips,omitempty"`
}

const keptFile = "testdata/kept.json"

// TestKept fails where session2 allocates more than it did, or makes more round trips.
// With KEEP=1 it writes down what it finds instead. The race detector allocates, too:
// make bench-once runs this test without it.
func TestKept(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	found := make(kept)
	for _, g := range groups() {
		t.Run(g.store, func(t *testing.T) {
			o := &options{}
			g, p := started(t, g, o)
			for i, c := range g.contenders {
				if c.kind == ours && !c.aging {
					p.number, p.dir = 300+i, t.TempDir()
					found[c.name] = costs(t, g, c, p)
				}
			}
		})
	}
	if os.Getenv("KEEP") != "" {
		text, err := json.MarshalIndent(found, "", "\t")
		testsite.Must(t, err)
		testsite.Must(t, os.WriteFile(keptFile, append(text, '\n'), 0o666))
		return
	}
	text, err := os.ReadFile(keptFile)
	testsite.Must(t, err)
	var before kept
	testsite.Must(t, json.Unmarshal(text, &before))
	for name, work := range found {
		compare(t, name, before[name], work)
	}
}

// compare allows for a piece of memory that something else has allocated meanwhile, such
// as a map that grows, and for how random IDs fill bbolt's pages.
func compare(t *testing.T, name string, before, now map[string]cost) {
	for _, w := range slices.Sorted(maps.Keys(now)) {
		was, is := before[w], now[w]
		if slack := max(1.5, was.Allocs/40); is.Allocs > was.Allocs+slack {
			t.Errorf("%s, %s: %.1f allocations a request, %.1f before", name, w, is.Allocs, was.Allocs)
		}
		if is.Trips > was.Trips {
			t.Errorf("%s, %s: %v round trips a request, %v before", name, w, is.Trips, was.Trips)
		}
	}
}

// costs measures one contender.
func costs(t *testing.T, g group, c contender, p place) map[string]cost {
	s, err := c.open(p)
	testsite.Must(t, err)
	defer s.close()
	m := &measured{contender: c, site: s}
	testsite.Must(t, m.fill(100, 1))
	all := make(map[string]cost)
	for w := range workloads {
		all[w.String()] = cost{Allocs: allocations(t, m, w)}
	}
	if g.server == nil {
		return all
	}
	server, _, err := g.server("", false)
	testsite.Must(t, err)
	p.number += 100
	row, err := countTripsOf(c, p, server, slices.Collect(maps.Keys(workloads)))
	testsite.Must(t, err)
	for w, trips := range row.Trips {
		all[w.String()] = cost{all[w.String()].Allocs, trips}
	}
	return all
}

// allocations returns how many a request makes: the fewest of several tries, after one
// that prepares statements and fills pools.
func allocations(t *testing.T, m *measured, w Workload) float64 {
	turn, err := m.turn(w, mode{clients: 1})
	testsite.Must(t, err)
	defer turn.close()
	fewest := math.Inf(1)
	for try := range 4 {
		turn.most = 50
		var sum tally
		testsite.Must(t, turn.slice(&sum, math.MaxInt64))
		if try > 0 {
			fewest = min(fewest, sum.sample(false).allocs)
		}
	}
	return math.Round(10*fewest) / 10
}

// A cost that rose is found, one that fell is not.
func TestCompare(t *testing.T) {
	before := map[string]cost{"W1": {10, 1}, "W2": {20, 2}}
	for _, test := range []struct {
		now   map[string]cost
		fails bool
	}{
		{map[string]cost{"W1": {10, 1}, "W2": {21, 2}}, false},
		{map[string]cost{"W1": {2, 0}}, false},
		{map[string]cost{"W1": {12, 1}}, true},
		{map[string]cost{"W2": {20, 2.1}}, true},
		{map[string]cost{"W3": {5, 0}}, true},
	} {
		r := &testing.T{}
		compare(r, "a store", before, test.now)
		if r.Failed() != test.fails {
			t.Errorf("%v: failed %v, want %v", test.now, r.Failed(), test.fails)
		}
	}
}
