package protocol

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// choices answers the questions of one run: by a list, and after its end by a
// source of randomness or, without one, with 0.
type choices struct {
	list []int
	rng  *rand.Rand
	rate float64 // of faults, where rng draws
	made []choice
}

// choice is one answer, and how many there were to choose from.
type choice struct{ took, of int }

// pick returns a number below n.
func (c *choices) pick(n int) int { return c.pickFaulty(n, n) }

// pickFaulty returns a number below n, where those from plain on are faults.
func (c *choices) pickFaulty(plain, n int) int {
	if n <= 1 {
		return 0
	}
	took := 0
	switch k := len(c.made); {
	case k < len(c.list):
		took = c.list[k] % n
	case c.rng == nil:
	case plain == 0 || plain < n && c.rng.Float64() < c.rate:
		took = plain + c.rng.IntN(n-plain)
	default:
		took = c.rng.IntN(plain)
	}
	c.made = append(c.made, choice{took, n})
	return took
}

// taken returns the answers as a list for another run.
func (c *choices) taken() []int {
	list := make([]int, len(c.made))
	for i, m := range c.made {
		list[i] = m.took
	}
	for len(list) > 0 && list[len(list)-1] == 0 {
		list = list[:len(list)-1]
	}
	return list
}

// next returns the list of the next run in the order of an enumeration, false
// after the last one.
func (c *choices) next() ([]int, bool) {
	for i := len(c.made) - 1; i >= 0; i-- {
		if m := c.made[i]; m.took+1 < m.of {
			list := make([]int, i+1)
			for k := range i {
				list[k] = c.made[k].took
			}
			list[i] = m.took + 1
			return list, true
		}
	}
	return nil, false
}

// limits bound what may go wrong in one run.
type limits struct {
	switches int // from an actor that could go on to another
	faults   int
}

// schedule is one run of a scenario, in a form that can be printed.
type schedule struct {
	scenario string
	limits   limits
	list     []int
}

func (s schedule) String() string {
	return fmt.Sprintf("%s/%d/%d/%s", s.scenario, s.limits.switches, s.limits.faults,
		strings.Trim(strings.ReplaceAll(fmt.Sprint(s.list), " ", ","), "[]"))
}

// parseSchedule is the inverse of String.
func parseSchedule(text string) (s schedule, err error) {
	part := strings.Split(text, "/")
	if len(part) != 4 {
		return s, fmt.Errorf("%q is no schedule", text)
	}
	s.scenario = part[0]
	if s.limits.switches, err = strconv.Atoi(part[1]); err != nil {
		return s, err
	}
	if s.limits.faults, err = strconv.Atoi(part[2]); err != nil {
		return s, err
	}
	for _, n := range strings.FieldsFunc(part[3], func(r rune) bool { return r == ',' }) {
		k, err := strconv.Atoi(n)
		if err != nil {
			return s, err
		}
		s.list = append(s.list, k)
	}
	return s, nil
}
