package sqlstore

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestLeap leaps between random times: never back, never beyond the end, and
// with the way back noted where there was a leap at all.
func TestLeap(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 100000 {
		times := []int64{r.Int64() - r.Int64(), r.Int64N(1000), r.Int64() - r.Int64(), math.MinInt64, math.MaxInt64, 0}
		r.Shuffle(len(times), func(i, j int) { times[i], times[j] = times[j], times[i] })
		times = times[:3]
		slices.Sort(times)
		w := walk{from: place{filed: times[1]}, to: times[2], leaps: r.IntN(100)}
		w.leap(times[0])
		if w.from.filed < times[1] || w.from.filed > times[2] {
			t.Fatalf("seed %d: from %d, the batch begun at %d, up to %d: got to %d", seed, times[1], times[0],
				times[2], w.from.filed)
		}
		if away := w.from.filed != times[1]; away && (w.leapt == nil || w.leapt.filed != times[1]) {
			t.Fatalf("seed %d: leapt from %d to %d without a way back", seed, times[1], w.from.filed)
		}
	}
}
