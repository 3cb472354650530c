package storetest

import (
	"github.com/session2/session2"
)

// capable holds the clauses on Capabilities that hold without other processes.
var capable = []clause{
	{says: "Capabilities are the same at every call and every opening", check: capsAreSteady},
	{says: "A store that machines may share can be shared by processes too", check: capsAreOrdered},
}

func capsAreSteady(e *exam) {
	want := capabilities(e.store)
	e.save(e.record(), 0)
	if got := capabilities(e.store); got != want {
		e.Fatalf("after a Save: got %+v, want %+v", got, want)
	}
	e.close()
	e.store = e.another()
	if got := capabilities(e.store); got != want {
		e.Fatalf("opened again: got %+v, want %+v", got, want)
	}
}

func capsAreOrdered(e *exam) {
	if caps := capabilities(e.store); caps.MultihostSafe && !caps.MultiprocessSafe {
		e.Errorf("got %+v", caps)
	}
}

// settingUp holds the clauses on Setup.
var settingUp = []clause{
	{says: "Setup may be called any number of times and never drops data", needs: setsUp, check: setupKeepsData},
	{says: "Setup may be called by several goroutines at once and never drops data",
		needs: setsUp | threads, check: setupAtOnce},
	{says: "Setup after a new opening never drops data", needs: setsUp | reopens, check: setupReopened},
}

func (e *exam) setup() {
	e.Helper()
	if err := e.store.(session2.SetupStore).Setup(e.ctx()); err != nil {
		e.Fatalf("Setup: got %v, want nil", err)
	}
}

func setupKeepsData(e *exam) {
	e.setup()
	recs := e.recordsOf("alice", 3)
	e.create(recs...)
	e.setup()
	e.setup()
	e.holds(recs...)
}

func setupAtOnce(e *exam) {
	recs := e.recordsOf("alice", 3)
	e.create(recs...)
	e.together(4, func(int) error { return e.store.(session2.SetupStore).Setup(e.ctx()) })
	e.holds(recs...)
}

func setupReopened(e *exam) {
	e.setup()
	recs := e.recordsOf("alice", 3)
	e.create(recs...)
	e.reopen()
	e.setup()
	e.holds(recs...)
}
