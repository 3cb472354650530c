package soak

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/session2/session2"
)

// notes are what has happened, counted by kind, so that they do not grow.
type notes struct {
	requests atomic.Int64
	mu       sync.Mutex
	counts   map[string]int
	faults   map[string]int // what must not happen
}

func newNotes() *notes { return &notes{counts: map[string]int{}, faults: map[string]int{}} }

func (n *notes) count(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.counts[fmt.Sprintf(format, args...)]++
}

// maxFaults is how many kinds of faults are told apart.
const maxFaults = 20

func (n *notes) fault(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	if len(n.faults) >= maxFaults && n.faults[text] == 0 {
		text = "and others"
	}
	n.faults[text]++
}

func (n *notes) served(status int) {
	n.requests.Add(1)
	switch {
	case status == -1:
		n.count("panic of the handler")
	default:
		n.count("status %d", status)
	}
}

// expected are the errors that a request may meet because of what others do.
var expected = []error{
	session2.ErrNotFound, session2.ErrStale, session2.ErrLostUpdate, session2.ErrTooManySessions,
}

// check counts an error, of which most must not be.
func (n *notes) check(what string, err error) {
	if err == nil {
		return
	}
	for _, e := range expected {
		if errors.Is(err, e) {
			n.count("%s: %v", what, e)
			return
		}
	}
	n.fault("%s: %v", what, err)
}

// checkIn is check for a call that was given a request's context: that ends with the
// session.
func (n *notes) checkIn(ctx context.Context, what string, err error) {
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	n.check(what, err)
}

// failed is an ErrorHandler.
func (n *notes) failed(w http.ResponseWriter, _ *http.Request, err error) {
	n.check("request", err)
	w.WriteHeader(http.StatusConflict)
}

// event is an OnEvent.
func (n *notes) event(_ context.Context, e session2.Event) {
	n.count("event %v", e.Kind)
	if e.Kind == session2.EventStoreError || e.Kind == session2.EventCorrupt || e.Kind == session2.EventAnomaly {
		n.fault("event %v: %v", e.Kind, e.Err)
	}
}

// streamed notes why a stream has ended.
func (n *notes) streamed(cause error) {
	switch {
	case errors.Is(cause, session2.ErrNotFound):
		n.count("stream: the session has ended")
	case errors.Is(cause, session2.ErrStale):
		n.count("stream: the token was replaced")
	case errors.Is(cause, context.Canceled):
		n.count("stream: the client has left")
	default:
		n.fault("stream: %v", cause)
	}
}

// String lists the counts.
func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(n.counts)) {
		fmt.Fprintf(&b, "\n%9d  %s", n.counts[k], k)
	}
	return b.String()
}

// complaints lists the faults.
func (n *notes) complaints() (list []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(n.faults)) {
		list = append(list, fmt.Sprintf("%d times: %s", n.faults[k], k))
	}
	return list
}

// histogram counts durations in buckets of which each ends 9 % above the one before,
// from a microsecond on. It takes the same memory for any number.
type histogram [256]atomic.Int64

const bucketsPerOctave = 8

func (h *histogram) add(d time.Duration) {
	i := int(math.Log2(float64(max(d.Microseconds(), 1))) * bucketsPerOctave)
	h[min(i, len(h)-1)].Add(1)
}

// spread is the number of durations, their median, and what all but a hundredth are below.
type spread struct {
	n        int64
	p50, p99 time.Duration
}

// take returns the spread of what was added since it was last called.
func (h *histogram) take() spread {
	var counts [len(h)]int64
	var s spread
	for i := range h {
		counts[i] = h[i].Swap(0)
		s.n += counts[i]
	}
	var seen int64
	for i, n := range counts {
		seen += n
		top := time.Duration(math.Exp2(float64(i+1)/bucketsPerOctave) * float64(time.Microsecond))
		if seen > 0 && 2*seen >= s.n {
			s.p50 = cmp.Or(s.p50, top)
		}
		if seen > 0 && 100*seen >= 99*s.n {
			s.p99 = cmp.Or(s.p99, top)
		}
	}
	return s
}
