package linear

import (
	"testing"
)

// entry is a call of a history that is written by hand.
type entry struct {
	start, end int64 // no end: no definite result
	call       call
	answer     answer
}

func written(entries ...entry) *history {
	h := new(history)
	for i, e := range entries {
		h.events = append(h.events, &event{Client: i, Call: e.call, Answer: e.answer, Start: e.start, End: e.end})
	}
	return h
}

var (
	v1, v2, v3 = state{Version: 1, User: "alice"}, state{Version: 2, User: "bob"}, state{Version: 3, User: "alice"}

	ok = answer{Status: done}
)

func saving(rec state, prev uint64) call { return call{Op: opSave, Rec: rec, Prev: prev} }
func loaded(rec state) answer            { return answer{Status: done, Rec: rec} }
func ended(s status) answer              { return answer{Status: s} }
func counted(n int) answer               { return answer{Status: done, N: n} }

// The checker admits what may be and finds what may not.
func TestChecker(t *testing.T) {
	var (
		create  = entry{1, 2, saving(v1, 0), ok}
		looking = call{Op: opLoad}
		alice   = call{Op: opDeleteUser, User: "alice"}
		old     = call{Op: opDeleteOld, Accessed: 100, Expires: 100}
		crash   = entry{10, 11, call{Op: opCrash}, ok}
	)
	for _, test := range []struct {
		name  string
		rules rules
		legal bool
		h     *history
	}{
		{"one after the other", rules{}, true, written(create,
			entry{3, 4, saving(v2, 1), ok}, entry{5, 6, looking, loaded(v2)})},
		{"a lost update", rules{}, false, written(create,
			entry{3, 9, saving(v2, 1), ok}, entry{3, 9, saving(v3, 1), ok})},
		{"one of two at once", rules{}, true, written(create,
			entry{3, 9, saving(v2, 1), ok}, entry{3, 9, saving(v3, 1), ended(conflict)})},
		{"a repeated Save", rules{}, true, written(create,
			entry{3, 4, saving(v1, 0), ok}, entry{5, 6, saving(v2, 1), ok}, entry{7, 8, saving(v1, 0), ended(conflict)})},
		{"a repeated Save over another's", rules{}, false, written(create,
			entry{3, 4, saving(v2, 1), ok}, entry{5, 6, saving(v1, 0), ok})},
		{"a Save that finds nothing", rules{}, true, written(entry{3, 4, saving(v2, 1), ended(absent)})},
		{"a Save that finds nothing, in vain", rules{}, false, written(create, entry{3, 4, saving(v2, 1), ended(absent)})},
		{"a stale Load", rules{}, false, written(create, entry{3, 4, saving(v2, 1), ok}, entry{5, 6, looking, loaded(v1)})},
		{"an unanswered Save that happened at once", rules{}, true, written(create,
			entry{3, 0, saving(v2, 1), answer{}}, entry{5, 6, looking, loaded(v2)})},
		{"an unanswered Save that happens late", rules{}, true, written(create,
			entry{3, 4, saving(v2, 1), ended(lost)}, entry{5, 6, looking, loaded(v1)}, entry{7, 8, looking, loaded(v2)})},
		{"an unanswered Save that never happens", rules{}, true, written(create,
			entry{3, 4, saving(v2, 1), ended(lost)}, entry{5, 6, looking, loaded(v1)})},
		{"an unanswered Save that happens twice", rules{}, false, written(create,
			entry{3, 4, saving(v2, 1), ended(lost)}, entry{5, 6, looking, loaded(v2)}, entry{7, 8, call{Op: opDelete}, ok},
			entry{9, 10, saving(v1, 0), ok}, entry{11, 12, looking, loaded(v2)})},
		{"a refused Save that happened", rules{}, false, written(create,
			entry{3, 4, saving(v2, 1), ended(refused)}, entry{5, 6, looking, loaded(v2)})},
		{"DeleteUser", rules{}, true, written(create,
			entry{3, 4, alice, counted(1)}, entry{5, 6, looking, loaded(state{})})},
		{"DeleteUser of another's", rules{}, false, written(create, entry{3, 4, saving(v2, 1), ok},
			entry{5, 6, alice, counted(0)}, entry{7, 8, looking, loaded(state{})})},
		{"DeleteUser that leaves one", rules{keys: 2}, false, written(create,
			entry{3, 4, alice, counted(1)}, entry{5, 6, looking, loaded(v1)})},
		{"a wrong number", rules{}, false, written(create, entry{3, 4, alice, counted(2)})},
		{"a number of two records", rules{keys: 2}, true, written(create, entry{3, 4, alice, counted(2)})},
		{"DeleteOld", rules{exact: true}, true, written(create, entry{3, 4, old, counted(1)})},
		{"DeleteOld that leaves one", rules{exact: true}, false, written(create, entry{3, 4, old, counted(0)})},
		{"DeleteOld that passes over one", rules{skips: true}, true, written(create,
			entry{3, 4, old, counted(0)}, entry{4, 5, looking, loaded(v1)})},
		{"DeleteOld that passes over one that nobody is at", rules{skips: true}, false, written(create,
			entry{3, 4, old, counted(0)}, entry{5, 6, looking, loaded(v1)})},
		{"a crash", rules{}, true, written(create, crash, entry{12, 13, looking, loaded(v1)})},
		{"a crash that takes back what was acknowledged", rules{forgets: true}, false, written(create, crash,
			entry{12, 13, looking, loaded(state{})})},
		{"a crash that takes back what was seen", rules{forgets: true}, true, written(create,
			entry{3, 10, saving(v2, 1), ended(lost)}, entry{4, 5, looking, loaded(v2)}, crash,
			entry{12, 13, looking, loaded(v1)})},
		{"that of a server that shows only what is safe", rules{}, false, written(create,
			entry{3, 10, saving(v2, 1), ended(lost)}, entry{4, 5, looking, loaded(v2)}, crash,
			entry{12, 13, looking, loaded(v1)})},
		{"a Save before a crash and again after it", rules{forgets: true}, true, written(create,
			entry{3, 20, saving(v2, 1), ok}, entry{4, 5, looking, loaded(v2)}, crash,
			entry{12, 13, looking, loaded(v1)}, entry{21, 22, looking, loaded(v2)})},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.rules.keys = max(1, test.rules.keys)
			if v := test.h.check(test.rules); (v == nil) != test.legal {
				t.Errorf("legal is %v, want %v: %v", v == nil, test.legal, v)
			}
		})
	}
}
