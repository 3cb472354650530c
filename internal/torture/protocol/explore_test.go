package protocol

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// stages are the bounds within which schedules are enumerated, one after another.
var stages = []limits{{0, 0}, {1, 1}, {2, 1}, {1, 2}, {2, 2}, {3, 2}, {3, 3}}

// wild are those of schedules drawn by a seed.
var wild = limits{switches: 1000, faults: 4}

// seconds returns how long a scenario is explored.
func seconds() time.Duration {
	n, err := strconv.ParseFloat(cmp.Or(os.Getenv("TORTURE_SECONDS"), "0.7"), 64)
	if err != nil {
		panic(err)
	}
	return time.Duration(n * float64(time.Second))
}

// firstSeed returns the seed of the first drawn schedule.
func firstSeed() uint64 {
	text := os.Getenv("TORTURE_SEED")
	if text == "" {
		return rand.Uint64()
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func TestScenarios(t *testing.T) {
	if text := os.Getenv("TORTURE_REPLAY"); text != "" {
		replay(t, text)
		return
	}
	for i := range scenarios {
		sc := &scenarios[i]
		t.Run(sc.name, func(t *testing.T) {
			x := &explorer{t: t, began: time.Now(), until: time.Now().Add(seconds()), seed: firstSeed()}
			for _, sc := range sc.ways() {
				x.ways = append(x.ways, &way{sc: sc, enumeration: enumeration{next: &choices{}}})
			}
			x.explore()
		})
	}
}

// ways returns the scenario as it is, and with sealed values. Where clocks differ the
// records' times are moved, to which sealed values are bound.
func (sc *scenario) ways() []*scenario {
	if sc.skew != 0 {
		return []*scenario{sc}
	}
	sealed := *sc
	sealed.name, sealed.cfg.Sealed = "sealed-"+sc.name, true
	return []*scenario{sc, &sealed}
}

// way is one of these, and how far its schedules are enumerated.
type way struct {
	enumeration
	sc    *scenario
	drawn int
}

// explorer runs schedules of one scenario until one fails or the time is up.
type explorer struct {
	t     *testing.T
	ways  []*way
	began time.Time
	until time.Time
	seed  uint64
	runs  int
	found bool
}

// explore runs schedules of an enumeration and drawn ones in turn, for a fault may be
// late in the one and rare among the others.
func (x *explorer) explore() {
	for i := 0; !x.found && time.Now().Before(x.until); i++ {
		w := x.ways[i%len(x.ways)]
		if w.more() {
			x.try(w.sc, w.next, stages[w.stage])
			w.advance()
		}
		if !x.found {
			x.try(w.sc, x.draw(), wild)
			w.drawn++
		}
	}
	for _, w := range x.ways {
		x.t.Logf("%s: %s; %d from seed %d", w.sc.name, w.String(), w.drawn, x.seed)
	}
	x.t.Logf("%d schedules", x.runs)
}

// enumeration goes through all schedules of one stage after another.
type enumeration struct {
	stage int
	next  *choices
	runs  [20]int
}

func (e *enumeration) more() bool { return e.stage < len(stages) }

// advance goes on to the schedule after next, which has run.
func (e *enumeration) advance() {
	e.runs[e.stage]++
	list, ok := e.next.next()
	if !ok {
		e.stage++
	}
	e.next = &choices{list: list}
}

func (e *enumeration) String() string {
	var parts []string
	for i, l := range stages[:min(e.stage+1, len(stages))] {
		all := ""
		if i < e.stage {
			all = ", all"
		}
		parts = append(parts, fmt.Sprintf("%d of %d switches and %d faults%s", e.runs[i], l.switches, l.faults, all))
	}
	return strings.Join(parts, "; ")
}

// draw returns the choices of the next schedule by seed.
func (x *explorer) draw() *choices {
	rng := rand.New(rand.NewPCG(x.seed, uint64(x.runs)))
	return &choices{rng: rng, rate: []float64{0, 0.05, 0.2, 0.5}[rng.IntN(4)]}
}

// try runs one schedule, and reports it if it fails.
func (x *explorer) try(sc *scenario, c *choices, l limits) {
	x.runs++
	if !x.fails(sc.run(x.t, c, l, false)) {
		return
	}
	x.found = true
	x.report(sc, schedule{sc.name, l, c.taken()})
}

// fails reports whether a run broke a promise: the one that TORTURE_BREAKS names,
// where that is set.
func (x *explorer) fails(w *world) bool {
	want := promise(os.Getenv("TORTURE_BREAKS"))
	return slices.ContainsFunc(w.failures, func(f failure) bool { return want == "" || f.of == want })
}

// report makes the schedule shorter and prints it with its trace.
func (x *explorer) report(sc *scenario, s schedule) {
	x.t.Logf("schedule %d fails after %v: %v", x.runs, time.Since(x.began).Round(time.Millisecond), s)
	if os.Getenv("TORTURE_BREAKS") != "" { // the core has a planted fault
		x.t.Fail()
		return
	}
	s.list = x.shrink(sc, s)
	w := sc.run(x.t, &choices{list: s.list}, s.limits, true)
	for _, f := range w.failures {
		x.t.Error(f)
	}
	x.t.Errorf("TORTURE_REPLAY=%v\n%s", s, strings.Join(w.trace, "\n"))
}

// shrink makes choices 0 and the list shorter as long as the run fails.
func (x *explorer) shrink(sc *scenario, s schedule) []int {
	list := s.list
	fails := func(try []int) bool {
		return len(sc.run(x.t, &choices{list: try}, s.limits, false).failures) > 0
	}
	until := time.Now().Add(5 * time.Second)
	for again := true; again; {
		again = false
		for i := len(list) - 1; i >= 0 && time.Now().Before(until); i-- {
			for _, try := range shorter(list, i) {
				if fails(try) {
					list, again = try, true
					break
				}
			}
			i = min(i, len(list))
		}
	}
	return list
}

// shorter returns simpler lists: without what is from i on, without i, and with 0 in
// its place.
func shorter(list []int, i int) [][]int {
	without := append(append([]int(nil), list[:i]...), list[i+1:]...)
	tries := [][]int{append([]int(nil), list[:i]...), without}
	if list[i] != 0 {
		zero := append([]int(nil), list...)
		zero[i] = 0
		tries = append(tries, zero)
	}
	return tries
}

// replay runs one schedule.
func replay(t *testing.T, text string) {
	s, err := parseSchedule(text)
	if err != nil {
		t.Fatal(err)
	}
	for i := range scenarios {
		for _, sc := range scenarios[i].ways() {
			if sc.name == s.scenario {
				sc.replay(t, s)
				return
			}
		}
	}
	t.Fatalf("no scenario %q", s.scenario)
}

func (sc *scenario) replay(t *testing.T, s schedule) {
	w := sc.run(t, &choices{list: s.list}, s.limits, true)
	t.Logf("%s", strings.Join(w.trace, "\n"))
	for _, f := range w.failures {
		t.Error(f)
	}
}

// TestRepeats runs schedules twice: with the same choices a run must come to the same
// questions, or no failure could be replayed.
func TestRepeats(t *testing.T) {
	for i := range scenarios {
		ways := scenarios[i].ways()
		for seed := range uint64(6) {
			sc := ways[int(seed)%len(ways)]
			first := &choices{rng: rand.New(rand.NewPCG(seed, 1)), rate: 0.2}
			sc.run(t, first, wild, false)
			again := &choices{list: first.taken()}
			sc.run(t, again, wild, false)
			if !slices.Equal(first.made, again.made) {
				t.Errorf("%s, seed %d: the choices were %v, and then %v", sc.name, seed, first.made, again.made)
			}
		}
	}
}
