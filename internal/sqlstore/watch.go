package sqlstore

import (
	"context"
	"slices"
	"sync"
	"time"
)

// unwatched is how long a call goes on at most before anybody looks if its context is done.
const unwatched = 20 * time.Millisecond

// A watch is the context of one call. It is done with its parent, at its deadline, and when the
// call is over. One of [context.WithDeadline] has its parent and the clock tell it so from the
// first moment, by a timer, and six or seven more pieces of memory; and most calls are over at
// once. A watch begins to watch them if the call lasts: it may be done that much later than they
// are, unless somebody asks by Err.
type watch struct {
	context.Context // its parent
	all             *watches
	deadline        time.Time // zero if its parent has an earlier one, or there is none
	done            chan struct{}

	// all.mu guards these.
	err    error
	young  int // its place in all.young, or -1
	unsee  func()
	ending []*ending
	room   [1]*ending
}

// An ending is what is to be done when a watch is done. It may serve one after another.
type ending struct {
	f func()
	w *watch
}

// watches are those of a store. Goroutines may share them.
type watches struct {
	mu    sync.Mutex
	young []*watch    // that watch nothing yet
	timer *time.Timer // for look
	timed bool        // it is yet to fire: nobody stops it, as to start it may wake a thread
}

// begin begins a call that may take the timeout; zero or less is none. The call must end with
// [watch.over].
func (all *watches) begin(parent context.Context, timeout time.Duration) *watch {
	w := &watch{Context: parent, all: all, done: make(chan struct{})}
	w.ending = w.room[:0]
	own := time.Now().Add(timeout)
	if end, ok := parent.Deadline(); timeout > 0 && (!ok || own.Before(end)) {
		w.deadline = own
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	w.young = len(all.young)
	all.young = append(all.young, w)
	if !all.timed {
		all.timed = true
		all.start()
	}
	return w
}

func (all *watches) start() {
	if all.timer == nil {
		all.timer = time.AfterFunc(unwatched, all.look)
		return
	}
	all.timer.Reset(unwatched)
}

// look has all calls that are under way watched.
func (all *watches) look() {
	for _, w := range all.grown() {
		w.see()
	}
}

// grown returns the young ones, which are no longer.
func (all *watches) grown() []*watch {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.timed = false
	list := slices.Clone(all.young)
	for _, w := range list {
		w.young = -1
	}
	clear(all.young)
	all.young = all.young[:0]
	return list
}

// see begins to watch. It asks contexts that are not ours, which may be a watch as well: the
// lock is not held.
func (w *watch) see() {
	ctx, cancel := w.Context, func() {}
	if !w.deadline.IsZero() {
		ctx, cancel = context.WithDeadline(w.Context, w.deadline)
	}
	stop := context.AfterFunc(ctx, func() { w.end(ctx.Err()) })
	unsee := func() {
		stop()
		cancel()
	}
	if !w.sees(unsee) {
		unsee()
	}
}

// sees notes how to stop watching. It reports whether there is anything to watch for.
func (w *watch) sees(unsee func()) bool {
	w.all.mu.Lock()
	defer w.all.mu.Unlock()
	w.unsee = unsee
	return w.err == nil
}

// over ends the call's context.
func (w *watch) over() { w.end(context.Canceled) }

func (w *watch) end(err error) {
	unsee, ending := w.ended(err)
	if unsee != nil {
		unsee()
	}
	for _, e := range ending {
		go e.f()
	}
}

// ended notes that the watch is done, and returns what there is to do then.
func (w *watch) ended(err error) (unsee func(), ending []*ending) {
	w.all.mu.Lock()
	defer w.all.mu.Unlock()
	if w.err != nil {
		return nil, nil
	}
	w.err = err
	close(w.done)
	if w.young >= 0 {
		w.all.forget(w.young)
	}
	unsee, ending = w.unsee, w.ending
	w.unsee, w.ending = nil, nil
	return unsee, ending
}

func (all *watches) forget(i int) {
	last := len(all.young) - 1
	all.young[i] = all.young[last]
	all.young[i].young = i
	all.young[last] = nil
	all.young = all.young[:last]
}

// Deadline implements [context.Context].
func (w *watch) Deadline() (time.Time, bool) {
	if w.deadline.IsZero() {
		return w.Context.Deadline()
	}
	return w.deadline, true
}

// Done implements [context.Context].
func (w *watch) Done() <-chan struct{} { return w.done }

// Err implements [context.Context]. It looks at the parent and the clock.
func (w *watch) Err() error {
	if err := w.known(); err != nil {
		return err
	}
	err := w.Context.Err()
	if err == nil && !w.deadline.IsZero() && !time.Now().Before(w.deadline) {
		err = context.DeadlineExceeded
	}
	if err == nil {
		return nil
	}
	w.end(err)
	return w.known() // somebody may have been faster
}

func (w *watch) known() error {
	w.all.mu.Lock()
	defer w.all.mu.Unlock()
	return w.err
}

// AfterFunc has f called in a goroutine of its own when the watch is done, unless stop is called
// before, which says if it was. This is what [context.AfterFunc], and by it the contexts that
// come of this one, ask for.
func (w *watch) AfterFunc(f func()) (stop func() bool) {
	e := &ending{f: f}
	e.at(w)
	return e.stop
}

// at has the ending done at the end of w.
func (e *ending) at(w *watch) {
	w.all.mu.Lock()
	defer w.all.mu.Unlock()
	e.w = w
	if w.err != nil {
		go e.f()
		return
	}
	w.ending = append(w.ending, e)
}

// stop has it not done. It reports whether it was in time.
func (e *ending) stop() bool {
	w := e.w
	w.all.mu.Lock()
	defer w.all.mu.Unlock()
	i := slices.Index(w.ending, e)
	if i >= 0 {
		w.ending = slices.Delete(w.ending, i, i+1)
	}
	return i >= 0
}
