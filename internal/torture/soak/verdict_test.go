package soak

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// rule says what is flat: the median of the last quarter is not above that of the second
// one by more than the share rel of it and abs. And no value is above most, if that is
// not zero.
type rule struct {
	name           string
	rel, abs, most float64
	best           bool // for the last quarter, the lowest value speaks, not the median
}

// minSamples is how many it takes to see a trend.
const minSamples = 24

// judge returns what is wrong with a series, "" if nothing is.
func (r rule) judge(values []float64) string {
	if most := slices.Max(values); r.most > 0 && most > r.most {
		return fmt.Sprintf("%s: up to %.0f, want %.0f at most", r.name, most, r.most)
	}
	n := len(values)
	if n < minSamples {
		return ""
	}
	before, after := median(values[n/4:n/2]), median(values[3*n/4:])
	if r.best {
		after = slices.Min(values[3*n/4:])
	}
	if limit := before*(1+r.rel) + r.abs; after > limit {
		return fmt.Sprintf("%s: grows from %.0f in the second quarter to %.0f in the last, want %.0f at most",
			r.name, before, after, limit)
	}
	return ""
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// The verdict tells what grows from what is noisy, or only has a beginning.
func TestVerdict(t *testing.T) {
	const n = 120
	rnd := rand.New(rand.NewPCG(1, 2))
	series := func(f func(i int) float64) (list []float64) {
		for i := range n {
			list = append(list, f(i))
		}
		return list
	}
	r := rule{name: "x", rel: 0.05, abs: 50, most: 2500}
	best := rule{name: "x", rel: 0.05, abs: 50, best: true}
	for _, test := range []struct {
		name   string
		values []float64
		bad    bool
	}{
		{"flat", series(func(int) float64 { return 1000 }), false},
		{"zero", series(func(int) float64 { return 0 }), false},
		{"noisy", series(func(int) float64 { return 1000 + 400*rnd.NormFloat64() }), false},
		{"a few high peaks", series(func(i int) float64 { return []float64{1000, 2400}[i%7/6] }), false},
		{"a saw", series(func(i int) float64 { return 1000 + float64(i*37%500) }), false},
		{"a step at the start", series(func(i int) float64 { return []float64{10, 1000}[min(i/5, 1)] }), false},
		{"shrinking", series(func(i int) float64 { return 2000 - 10*float64(i) }), false},
		{"too short to tell", []float64{1, 2, 4, 8, 16}, false},

		{"growing", series(func(i int) float64 { return 1000 + 2*float64(i) }), true},
		{"growing from nothing", series(func(i int) float64 { return float64(i) }), true},
		{"growing with noise", series(func(i int) float64 { return 1000 + 5*float64(i) + 100*rnd.NormFloat64() }), true},
		{"a growing saw", series(func(i int) float64 { return 1000 + float64(i*37%500) + 4*float64(i) }), true},
		{"a step in the midst", series(func(i int) float64 { return 1000 + 200*float64(i/70) }), true},
		{"growing ever more slowly", series(func(i int) float64 { return 8 * float64(2*n-i) * float64(i) / n }), true},
		{"too much for once", series(func(i int) float64 { return 1000 + 1501*float64(i/50%2*(i%2)) }), true},
		{"too much at once", []float64{1, 2, 2501}, true},
	} {
		if wrong := r.judge(test.values); (wrong != "") != test.bad {
			t.Errorf("%s: the verdict is %q", test.name, wrong)
		}
	}
	busy := series(func(i int) float64 { return []float64{1000, 1000 * float64(1+i%9)}[i/60] })
	slow := series(func(i int) float64 { return []float64{1000, 1200 + 1000*float64(i%9)}[i/60] })
	if wrong := best.judge(busy); wrong != "" {
		t.Errorf("busy at the end: the verdict is %q", wrong)
	}
	if wrong := best.judge(slow); wrong == "" {
		t.Error("slow at the end: no fault was found")
	}
}
