package linear

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// op is a method of a store.
type op string

const (
	opLoad       op = "Load"
	opHas        op = "Has"
	opSave       op = "Save"
	opDelete     op = "Delete"
	opTouch      op = "Touch"
	opDeleteUser op = "DeleteUser"
	opDeleteOld  op = "DeleteOld"
	opIter       op = "Iter"
	opIterUser   op = "IterUser"
	opCrash      op = "crash" // of the server: no call
)

// call is a call of a store's method, with its arguments.
type call struct {
	Op       op
	Key      int           // which record, of those on one
	Rec      state         // to save
	Prev     uint64        // likewise
	User     string        // of DeleteUser and IterUser
	Keep     []int         // of DeleteUser
	Accessed int64         // of Touch; for DeleteOld the latest that is old
	Expires  int64         // likewise
	Within   time.Duration // when the context ends; 0: never; negative: it is done on entry
}

// status is how a call ended.
type status string

const (
	done     status = "done"
	absent   status = "not found"
	conflict status = "conflict"
	refused  status = "refused" // for sure nothing was changed
	lost     status = "lost"    // it may have been carried out, or may be later
	corrupt  status = "corrupt"
)

// answer is what a call returned.
type answer struct {
	Status status
	Err    string
	Rec    state // of Load
	Found  bool  // of Has
	N      int   // of DeleteUser and DeleteOld
	Seen   []seen
}

// seen is a record that an iteration yielded.
type seen struct {
	Key int
	Rec state
}

// event is a call with its answer. Times are the machine's monotonic clock, the same
// for all processes. One that has no end has not returned.
type event struct {
	Num        int
	Client     int
	Call       call
	Answer     answer
	Start, End int64
}

func (e *event) lost() bool { return e.End == 0 || e.Answer.Status == lost }

func now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}

// history is the calls of all clients. Goroutines may share it.
type history struct {
	out io.Writer // of a child process: where each start and each end is written at once; or nil

	mu     sync.Mutex
	events []*event
	missed int    // writes without a definite result
	added  func() // called after each event that starts or ends, without the lock; or nil
}

func (h *history) begin(client int, c call) *event {
	h.mu.Lock()
	e := &event{Num: len(h.events), Client: client, Call: c, Start: now()}
	h.events = append(h.events, e)
	h.mu.Unlock()
	h.tell(e)
	return e
}

func (h *history) end(e *event, a answer) { h.ended(e, a, now()) }

func (h *history) ended(e *event, a answer, end int64) {
	h.mu.Lock()
	e.Answer, e.End = a, end
	if e.lost() && e.Call.writes() {
		h.missed++
	}
	h.mu.Unlock()
	h.tell(e)
}

// tell writes down an event, before anything else happens: the process may be killed.
func (h *history) tell(e *event) {
	if h.out != nil {
		line, err := json.Marshal(e)
		if err == nil {
			_, err = h.out.Write(append(line, '\n'))
		}
		if err != nil {
			panic(err)
		}
	}
	if h.added != nil {
		h.added()
	}
}

// add adds an event of another process.
func (h *history) add(e *event) {
	h.mu.Lock()
	h.events = append(h.events, e)
	h.mu.Unlock()
	h.tell(e)
}

// enough reports whether so many calls got no definite result that more would be too
// many for the checker.
func (h *history) enough() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.missed >= 8
}

func (c *call) writes() bool {
	switch c.Op {
	case opLoad, opHas, opIter, opIterUser:
		return false
	}
	return true
}

// counts sums up a history.
type counts struct{ histories, calls, unanswered, kills, faults int }

func (h *history) counts() (n counts) {
	n.histories, n.calls = 1, len(h.events)
	for _, e := range h.events {
		if e.lost() {
			n.unanswered++
		}
	}
	return n
}

func (n *counts) add(o counts) {
	n.histories += o.histories
	n.calls += o.calls
	n.unanswered += o.unanswered
	n.kills += o.kills
	n.faults += o.faults
}

func (n counts) String() string {
	return fmt.Sprintf("%d histories, %d calls, %d unanswered, %d kills, %d other faults",
		n.histories, n.calls, n.unanswered, n.kills, n.faults)
}
