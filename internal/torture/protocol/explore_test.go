package protocol

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
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
	n, err := strconv.ParseFloat(cmp.Or(os.Getenv("TORTURE_SECONDS"), "2"), 64)
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
	if os.Getenv("TORTURE_REPLAY") != "" {
		t.Skip("TORTURE_REPLAY is set: TestReplay runs")
	}
	for i := range scenarios {
		sc := &scenarios[i]
		t.Run(sc.name, func(t *testing.T) {
			x := &explorer{t: t, sc: sc, until: time.Now().Add(seconds()), seed: firstSeed()}
			x.explore()
		})
	}
}

// explorer runs schedules of one scenario until one fails or the time is up.
type explorer struct {
	t     *testing.T
	sc    *scenario
	until time.Time
	seed  uint64
	runs  int
	found bool
}

func (x *explorer) explore() {
	half := time.Now().Add(time.Until(x.until) / 2)
	var done []string
	for _, l := range stages {
		before := x.runs
		whole := x.enumerate(l, half)
		done = append(done, fmt.Sprintf("%d of %d switches and %d faults%s",
			x.runs-before, l.switches, l.faults, map[bool]string{true: ", all"}[whole]))
		if x.found || !whole {
			break
		}
	}
	drawn := x.runs
	for !x.found && time.Now().Before(x.until) {
		x.try(x.draw(), wild)
	}
	x.t.Logf("%d schedules: %s; %d from seed %d", x.runs, strings.Join(done, "; "), x.runs-drawn, x.seed)
}

// enumerate runs all schedules within the limits, if there is time.
func (x *explorer) enumerate(l limits, until time.Time) (whole bool) {
	c := &choices{}
	for ok := true; ok; {
		if x.try(c, l); x.found || time.Now().After(until) {
			return false
		}
		var list []int
		list, ok = c.next()
		c = &choices{list: list}
	}
	return true
}

// draw returns the choices of the next schedule by seed.
func (x *explorer) draw() *choices {
	rng := rand.New(rand.NewPCG(x.seed, uint64(x.runs)))
	return &choices{rng: rng, rate: []float64{0, 0.05, 0.2, 0.5}[rng.IntN(4)]}
}

// try runs one schedule, and reports it if it fails.
func (x *explorer) try(c *choices, l limits) {
	x.runs++
	if len(x.sc.run(x.t, c, l, false).failures) == 0 {
		return
	}
	x.found = true
	x.report(schedule{x.sc.name, l, c.taken()})
}

// report makes the schedule shorter and prints it with its trace.
func (x *explorer) report(s schedule) {
	x.t.Logf("schedule %d fails: %v", x.runs, s)
	s.list = x.shrink(s)
	w := x.sc.run(x.t, &choices{list: s.list}, s.limits, true)
	x.t.Errorf("%s\nTORTURE_REPLAY=%v\n%s", strings.Join(w.failures, "\n"), s, strings.Join(w.trace, "\n"))
}

// shrink makes choices 0 and the list shorter as long as the run fails.
func (x *explorer) shrink(s schedule) []int {
	list := s.list
	fails := func(try []int) bool {
		return len(x.sc.run(x.t, &choices{list: try}, s.limits, false).failures) > 0
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

// TestReplay runs the one schedule that TORTURE_REPLAY names.
func TestReplay(t *testing.T) {
	text := os.Getenv("TORTURE_REPLAY")
	if text == "" {
		t.Skip("no schedule to replay")
	}
	s, err := parseSchedule(text)
	if err != nil {
		t.Fatal(err)
	}
	for i := range scenarios {
		if scenarios[i].name != s.scenario {
			continue
		}
		w := scenarios[i].run(t, &choices{list: s.list}, s.limits, true)
		t.Logf("%s", strings.Join(w.trace, "\n"))
		for _, f := range w.failures {
			t.Error(f)
		}
		return
	}
	t.Fatalf("no scenario %q", s.scenario)
}
