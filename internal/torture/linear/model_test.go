package linear

import (
	"fmt"
	"hash/maphash"

	"github.com/anishathalye/porcupine"
)

// state is a record as the model keeps it. A zero Version is no record.
type state struct {
	Version  uint64
	User     string
	Created  int64 // microseconds since 1970, as the other times
	Accessed int64
	Expires  int64
	Data     uint64 // a hash
}

func (s state) String() string {
	if s.Version == 0 {
		return "absent"
	}
	return fmt.Sprintf("{%x %q accessed %d expires %d data %x}",
		s.Version>>40, s.User, s.Accessed, s.Expires, s.Data>>40)
}

// kind is a kind of step.
type kind string

const (
	load    kind = "load"    // or what an iteration saw: the state is Rec
	has     kind = "has"     // there is a record, as Found says
	others  kind = "others"  // the record is not the user's
	save    kind = "save"    //
	remove  kind = "delete"  // Delete
	touch   kind = "touch"   //
	byUser  kind = "by user" // a part of DeleteUser
	byAge   kind = "by age"  // a part of DeleteOld
	crashed kind = "crash"   // the server lost what was not safe
)

// step is what a call does to one record, and how it ended.
type step struct {
	Kind kind
	call
	answer

	count count // of a part of DeleteUser or DeleteOld
	may   bool  // it may have had no effect even where it would have one
}

// count is what the number that a deletion returned says of one record.
type count int

const (
	anyCount  count = iota
	matched         // it was deleted
	unmatched       // it was not
)

// world is what the model knows of one record. Safe is the state that a crash of the
// server leaves, for a server that shows changes before they are safe; else it is zero.
type world struct{ Now, Safe state }

// model is the contract. forgets is for servers that show changes before they are safe.
func model(forgets bool) porcupine.Model {
	seed := maphash.MakeSeed()
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{world{}} },
		Step: func(w, in, _ any) []any { return worlds(w.(world), in.(step), forgets) },
		Hash: func(w any) uint64 { return maphash.Comparable(seed, w.(world)) },
	}
	return m.ToModel()
}

// worlds returns what may be after a step.
func worlds(w world, s step, forgets bool) (list []any) {
	switch {
	case s.Kind == crashed && forgets:
		return []any{world{w.Safe, w.Safe}}
	case s.Kind == crashed:
		return []any{w}
	}
	for _, next := range s.apply(w.Now) {
		switch {
		case !forgets:
			list = append(list, world{Now: next})
		case s.safe(w.Now, next):
			list = append(list, world{next, next})
		default: // it becomes safe some time
			list = append(list, world{next, w.Safe}, world{next, next})
		}
	}
	return list
}

// safe reports whether the state after the step survives a crash for sure.
func (s step) safe(before, after state) bool {
	switch s.Kind {
	case save, remove:
		return s.Status == done
	case byUser, byAge:
		return s.Status == done && before != after
	}
	return false
}

// apply returns the states that the step may lead to: none if it cannot have ended as
// it did, and more than one where that is open.
func (s step) apply(now state) []state {
	next, ok := s.next(now)
	switch {
	case !ok:
		return nil
	case s.may && next != now:
		return []state{next, now}
	}
	return []state{next}
}

func (s step) next(now state) (next state, ok bool) {
	switch s.Kind {
	case load:
		return now, now == s.answer.Rec
	case has:
		return now, (now.Version != 0) == s.Found
	case others:
		return now, now.Version == 0 || now.User != s.User
	case save:
		return s.save(now)
	case remove:
		return state{}, true
	case touch:
		if now.Version != 0 {
			now.Accessed, now.Expires = max(now.Accessed, s.Accessed), max(now.Expires, s.Expires)
		}
		return now, true
	case byUser:
		return s.delete(now, now.User == s.User)
	case byAge:
		return s.delete(now, now.Accessed <= s.Accessed || now.Expires <= s.Expires)
	}
	panic("no such step: " + s.Kind)
}

// save is Save's contract.
func (s step) save(now state) (next state, ok bool) {
	next, want := now, done
	switch {
	case now.Version == s.call.Rec.Version: // it landed before
	case now.Version == 0 && s.Prev != 0:
		want = absent
	case now.Version != s.Prev:
		want = conflict
	default:
		next = s.call.Rec
	}
	return next, s.Status == want || s.Status == lost
}

// delete is the part of DeleteUser or DeleteOld on one record.
func (s step) delete(now state, match bool) (next state, ok bool) {
	if match = match && now.Version != 0; match {
		return state{}, s.count != unmatched
	}
	return now, s.count != matched
}
