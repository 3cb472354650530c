package linear

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// rules are what a checker must know of a store.
type rules struct {
	keys  int
	exact bool // nobody else's records are there, and nothing is done twice: numbers are exact
	skips bool // DeleteOld passes over records that others are at

	// A server shows changes before they are safe from its crash. MariaDB without a binary
	// log does: the changes are in memory and not yet in the file of the log. Whoever waits
	// for an answer waits until they are there, but others see them before.
	forgets bool
}

// steps returns what the history did to one record.
func (h *history) steps(key int, r rules) (list []porcupine.Operation) {
	for _, e := range h.events {
		list = append(list, h.parts(e, key, r)...)
	}
	return list
}

// parts returns what a call did to one record: none if it had nothing to do with it.
func (h *history) parts(e *event, key int, r rules) (list []porcupine.Operation) {
	if e.Answer.Status == refused || e.lost() && !e.Call.writes() {
		return nil
	}
	s := step{call: e.Call, answer: e.Answer}
	times := 1
	if e.lost() {
		s.Status = lost
	}
	switch e.Call.Op {
	case opCrash:
		s.Kind = crashed
	case opIter, opIterUser:
		s.Kind, s.answer.Rec = load, state{}
		if i := slices.IndexFunc(s.Seen, func(s seen) bool { return s.Key == key }); i >= 0 {
			s.answer.Rec = s.Seen[i].Rec
		} else if e.Call.Op == opIterUser {
			s.Kind = others
		}
	case opDeleteUser:
		if slices.Contains(s.Keep, key) {
			return nil
		}
		s.Kind = byUser
		times = s.counted(r, r.keys == 1)
	case opDeleteOld:
		s.Kind = byAge
		times = s.counted(r, r.keys == 1 && r.exact)
		s.may = r.skips && h.contended(e, key)
		if s.may && s.count != matched {
			s.count = anyCount
		}
	default:
		if e.Call.Key != key {
			return nil
		}
		s.Kind = map[op]kind{opLoad: load, opHas: has, opSave: save, opDelete: remove, opTouch: touch}[e.Call.Op]
	}
	if r.forgets && e.Call.writes() && s.Kind != crashed {
		list = h.undone(e, s)
	}
	for range times {
		list = append(list, operation(e, s, e.End))
	}
	return list
}

// counted notes what the number says that a deletion returned, and returns how many
// times it may have deleted the record: it may have been created anew meanwhile.
func (s *step) counted(r rules, alone bool) (times int) {
	switch {
	case s.Status == lost:
		return 2
	case s.N == 0:
		s.count = unmatched
		return 1
	case alone:
		s.count = matched
	}
	return s.N
}

// contended reports whether another call on the record was under way beside e.
func (h *history) contended(e *event, key int) bool {
	for _, o := range h.events {
		over := !o.lost() && o.End < e.Start || !e.lost() && o.Start > e.End
		many := o.Call.Op == opDeleteUser || o.Call.Op == opDeleteOld
		if o != e && !over && (many || o.Call.Key == key) {
			return true
		}
	}
	return false
}

// undone returns the step that a call under way at a crash may have made before it, and
// that the crash may have undone: the store asks again.
func (h *history) undone(e *event, s step) (list []porcupine.Operation) {
	for _, crash := range h.events {
		if crash.Call.Op == opCrash && e.Start < crash.End && (e.End == 0 || e.End > crash.Start) {
			s.Status, s.may, s.count = lost, true, anyCount
			o := operation(e, s, crash.End)
			o.Return = crash.End
			list = append(list, o)
		}
	}
	return list
}

// operation is a step as the checker has it. One without a definite result may have
// happened until the end, and at the end is as good as never.
func operation(e *event, s step, end int64) porcupine.Operation {
	if s.Status == lost {
		end = math.MaxInt64
	}
	return porcupine.Operation{ClientId: e.Client, Input: s, Call: e.Start, Return: end, Metadata: e}
}

// checkTime is how long the checker may think about the calls on one record.
const checkTime = 2 * time.Minute

// violation is why a history is none of a linearizable store.
type violation struct {
	key     int
	result  porcupine.CheckResult
	history []porcupine.Operation
	best    int // of them can be put in order
}

// check looks for an order of the calls on each record; nil means there is one.
func (h *history) check(r rules) *violation {
	slices.SortStableFunc(h.events, func(a, b *event) int { return int(min(1, max(-1, a.Start-b.Start))) })
	m := model(r.forgets)
	for key := range r.keys {
		list := h.steps(key, r)
		result, info := porcupine.CheckOperationsVerbose(m, list, checkTime)
		if result == porcupine.Ok {
			continue
		}
		v := &violation{key: key, result: result, history: list}
		if result == porcupine.Illegal {
			v.shorten(m)
		}
		for _, order := range info.PartialLinearizations()[0] {
			v.best = max(v.best, len(order))
		}
		return v
	}
	return nil
}

// shorten leaves out of the history what changes nothing and is not needed to see that
// something is wrong.
func (v *violation) shorten(m porcupine.Model) {
	start := time.Now()
	for i := len(v.history) - 1; i >= 0 && time.Since(start) < 10*time.Second; i-- {
		s := v.history[i].Input.(step)
		if s.writes() && s.Status != conflict && s.Status != absent {
			continue
		}
		less := slices.Delete(slices.Clone(v.history), i, i+1)
		if porcupine.CheckOperationsTimeout(m, less, time.Second) == porcupine.Illegal {
			v.history = less
		}
	}
}

func (v *violation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "record %d: %s; of its steps %d could be put in order. Those that matter:\n",
		v.key, v.result, v.best)
	first := int64(math.MaxInt64)
	for _, o := range v.history {
		first = min(first, o.Call)
	}
	for _, o := range v.history {
		end := "end"
		if o.Return != math.MaxInt64 {
			end = fmt.Sprintf("%d", (o.Return-first)/1000)
		}
		fmt.Fprintf(&b, "  %8d - %8s µs  client %3d  %v\n", (o.Call-first)/1000, end, o.ClientId, o.Input)
	}
	return b.String()
}

func (s step) String() string {
	text := fmt.Sprintf("%s (%s)", s.Op, s.Kind)
	switch s.Kind {
	case load:
		text += " " + s.answer.Rec.String()
	case has:
		text += fmt.Sprintf(" %v", s.Found)
	case save:
		text += fmt.Sprintf(" %v over %x", s.call.Rec, s.Prev>>40)
	case touch:
		text += fmt.Sprintf(" accessed %d expires %d", s.Accessed, s.Expires)
	case byUser:
		text += fmt.Sprintf(" %q, %d deleted", s.User, s.N)
	case byAge:
		text += fmt.Sprintf(" %d deleted", s.N)
	}
	if s.may {
		text += ", perhaps"
	}
	return text + ": " + string(s.Status) + " " + s.Err
}

// must fails the test if the history is none of a linearizable store.
func (h *history) must(t testing.TB, seed uint64, r rules) {
	t.Helper()
	for _, e := range h.events {
		if odd := e.odd(); odd != "" {
			t.Errorf("TORTURE_SEED=%d: %s: %s", seed, e.Call.Op, odd)
		}
	}
	if v := h.check(r); v != nil {
		t.Errorf("TORTURE_SEED=%d: the store is not linearizable\n%v", seed, v)
	}
}

// odd says what is wrong with an answer by itself.
func (e *event) odd() string {
	if e.Answer.Status == corrupt {
		return e.Answer.Err
	}
	keys := make(map[int]bool)
	for _, s := range e.Answer.Seen {
		if keys[s.Key] {
			return fmt.Sprintf("record %d was seen twice", s.Key)
		}
		if e.Call.Op == opIterUser && s.Rec.User != e.Call.User {
			return fmt.Sprintf("record %d was seen, which is %q's", s.Key, s.Rec.User)
		}
		keys[s.Key] = true
	}
	return ""
}
