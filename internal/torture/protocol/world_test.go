package protocol

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
)

// tick is by how much the clock moves where the scheduler lets time pass: longer
// than any wait of the manager between two tries, so that the randomness of those
// waits does not decide who is next.
const tick = time.Second

// commitTimeout is no multiple of a tick.
const commitTimeout = 3500 * time.Millisecond

// maxTicks is how long a run may wait without anybody asking for anything.
const maxTicks = 60

// world is one run of a scenario: a store, managers over it, the actors, and what
// has happened.
type world struct {
	choices  *choices
	left     limits
	disk     *session2.MemoryStore // what is stored
	cfg      session2.Config
	managers []*session2.Manager
	actors   []*actor
	looks    []*actor      // each manager's, for what it does beside all requests
	last     *actor        // who went on last
	late     []lateCall    // calls that may still land
	calm     atomic.Bool   // nothing waits and nothing fails
	jump     time.Duration // by which the clock may jump once; 0: not
	jumped   bool
	faults   int           // that have happened
	slow     bool          // a call has run out of time
	starved  bool          // time has passed while somebody could go on
	inFlight bool          // a session's time was over while a Save of it was under way
	skew     time.Duration // by which the last manager's clock is ahead
	steps    int           // that the scheduler has taken
	started  time.Time
	tracing  bool

	mu       sync.Mutex
	trace    []string
	failures []failure
	names    map[any]string // of IDs, versions and tokens, for the trace
	gone     map[session2.ID]bool
	revoked  map[session2.ID]*visit // by which request each was, that another one has ended
	ids      map[session2.ID]bool   // sessions whose tokens were issued or presented
	issued   []string               // tokens, each once
	changes  []*change
	visits   []*visit
	events   []session2.Event
	said     []string // by errors
}

// failure is a promise that a run broke.
type failure struct {
	of   promise
	text string
}

func (f failure) String() string { return fmt.Sprintf("%s: %s", f.of, f.text) }

// lateCall is a call whose caller no longer waits for it.
type lateCall struct {
	label string
	land  func()
}

// newWorld returns a world that is calm.
func newWorld(c *choices, left limits, tracing bool, sc *scenario) *world {
	w := &world{
		choices: c, left: left, disk: session2.NewMemoryStore(), tracing: tracing, started: time.Now(),
		skew:  sc.skew,
		names: make(map[any]string), gone: make(map[session2.ID]bool), ids: make(map[session2.ID]bool),
		revoked: make(map[session2.ID]*visit),
	}
	w.calm.Store(true)
	cfg := sc.cfg
	if cfg.CommitTimeout == 0 {
		cfg.CommitTimeout = commitTimeout
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	cfg.ErrorHandler = failVisit
	cfg.OnEvent = w.heard
	w.cfg = cfg
	for range max(1, sc.managers) {
		w.managers = append(w.managers, w.manager(w.store()))
	}
	if w.skew != 0 {
		w.managers[len(w.managers)-1] = w.manager(&skewed{w.store(), w.skew})
	}
	return w
}

// manager returns a manager of the world's configuration.
func (w *world) manager(s session2.Store) *session2.Manager {
	m, err := session2.NewManager(s, w.cfg)
	if err != nil {
		panic(err)
	}
	return m
}

// heard is the managers' OnEvent.
func (w *world) heard(ctx context.Context, e session2.Event) {
	v, _ := ctx.Value(visitKey{}).(*visit)
	if v == nil {
		return
	}
	w.mu.Lock()
	w.events = append(w.events, e)
	w.mu.Unlock()
	w.say(e.Err)
	if e.Kind == session2.EventDropped {
		v.dropped = e.Err
	}
	if e.Kind == session2.EventRevoked {
		w.mu.Lock()
		w.revoked[e.ID] = v
		w.mu.Unlock()
	}
	v.stale = v.stale || e.Kind == session2.EventConflict && errors.Is(e.Err, session2.ErrStale)
	w.tell("%s: event %v of %s: %v", v.a.name, e.Kind, w.name("S", e.ID), e.Err)
}

// heardOf returns how many events of a kind there were.
func (w *world) heardOf(kind session2.EventKind) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// say keeps what an error says.
func (w *world) say(err error) {
	if err == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, err.Error())
}

// fail notes that the run broke a promise.
func (w *world) fail(of promise, format string, args ...any) {
	f := failure{of, fmt.Sprintf(format, args...)}
	w.mu.Lock()
	w.failures = append(w.failures, f)
	w.mu.Unlock()
	w.tell("FAILURE: %v", f)
}

// tell adds a line to the trace.
func (w *world) tell(format string, args ...any) {
	if !w.tracing {
		return
	}
	line := fmt.Sprintf("%8v  %s", time.Since(w.started).Round(time.Millisecond), fmt.Sprintf(format, args...))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trace = append(w.trace, strings.ReplaceAll(line, "\n", " "))
}

// name returns a short name for an ID, a version or a token: a letter and the
// order in which it came up.
func (w *world) name(letter string, of any) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, ok := w.names[of]
	if !ok {
		s = fmt.Sprint(letter, len(w.names))
		w.names[of] = s
	}
	return s
}

// actor is a goroutine that the scheduler lets go on from point to point.
type actor struct {
	w      *world
	name   string
	points []*waiting  // where it waits, and what it has begun beside; none: it sleeps, or has ended
	away   atomic.Bool // its process stands still, or is dead: its calls come to nothing
	ended  bool

	wasAway bool
}

// waiting is a point where an actor waits, and the faults that may happen there.
type waiting struct {
	label  string
	faults []fault
	goOn   chan fault
}

// point waits for the scheduler, or for ctx to end, and returns what is to happen.
func (a *actor) point(ctx context.Context, label string, faults ...fault) fault {
	if a.w.calm.Load() {
		return fine
	}
	p := &waiting{label, faults, make(chan fault)}
	a.wait(p)
	select {
	case f := <-p.goOn:
		return f
	case <-ctx.Done():
		a.goesOn(p)
		return tooSlow
	}
}

// wait notes where the actor waits. What is due at one instant may come in any order.
func (a *actor) wait(p *waiting) {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	a.points = append(a.points, p)
	slices.SortStableFunc(a.points, func(p, q *waiting) int { return strings.Compare(p.kind(), q.kind()) })
}

// kind returns the first word of the label, which is the same with a trace and without.
func (p *waiting) kind() string {
	kind, _, _ := strings.Cut(p.label, " ")
	return kind
}

// goesOn is the end of wait.
func (a *actor) goesOn(p *waiting) {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	a.points = slices.DeleteFunc(a.points, func(q *waiting) bool { return q == p })
}

// end notes that the actor has ended.
func (a *actor) end() {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	a.ended = true
}

// part is what one actor does.
type part struct {
	name string
	do   func(a *actor)
}

// together runs the parts side by side, in an order that the choices say.
func (w *world) together(parts ...part) {
	w.actors, w.last = nil, nil
	w.calm.Store(false)
	for _, p := range parts {
		w.join(p.name)
	}
	for i, a := range slices.Clone(w.actors) { // those that join later stand behind these
		go func() {
			defer a.end()
			parts[i].do(a)
		}()
	}
	w.schedule()
	w.calm.Store(true)
	for _, a := range w.looks {
		for _, p := range slices.Clone(a.points) {
			a.goesOn(p)
			p.goOn <- fine
		}
	}
	synctest.Wait()
}

// join adds an actor.
func (w *world) join(name string) *actor {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := &actor{w: w, name: name}
	w.actors = append(w.actors, a)
	return a
}

// schedule lets one actor go on at a time until all have ended.
func (w *world) schedule() {
	for ticks, all := 0, 0; ; {
		synctest.Wait()
		if all == patience {
			all = 0
			w.giveUp()
			synctest.Wait()
		}
		if w.over() {
			return
		}
		plain, faulty := w.moves()
		if len(plain) == 1 && plain[0].tick {
			ticks++
		} else {
			ticks = 0
		}
		if ticks > maxTicks {
			panic(fmt.Sprint("a run does not end: ", w.choices.taken()))
		}
		moves := append(plain, faulty...)
		m := moves[w.choices.pickFaulty(len(plain), len(moves))]
		if m.switches {
			w.left.switches--
		}
		if m.tick {
			all++
			w.starved = w.starved || m.switches
		}
		m.make()
	}
}

// patience is how many ticks requests may take that wait for one another.
const patience = 300

// giveUp fails the run, and has all clients go away.
func (w *world) giveUp() {
	w.fail(staysIn, "requests wait without an end")
	for _, v := range w.visits {
		v.cancel()
	}
}

// over reports whether all actors have ended.
func (w *world) over() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps++
	return !slices.ContainsFunc(w.actors, func(a *actor) bool { return !a.ended })
}

// step returns how many steps the scheduler has taken, for an actor, whom the clock may
// have woken beside it.
func (w *world) step() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.steps
}

// move is one of the things that may happen next.
type move struct {
	make     func()
	switches bool
	tick     bool
}

// moves returns what may happen next: what is no fault, then what is one.
func (w *world) moves() (plain, faulty []move) {
	w.mu.Lock() // what sleeps is woken by the clock, and would race
	defer w.mu.Unlock()
	ready, asleep := w.ready()
	mayGoOn := len(ready) > 0 && ready[0].a == w.last
	allowed := func(switches bool) bool { return !switches || w.left.switches > 0 }
	for _, r := range ready {
		switches := mayGoOn && r.a != w.last
		if !allowed(switches) {
			continue
		}
		plain = append(plain, move{make: func() { w.goOn(r, fine) }, switches: switches})
		for _, f := range r.p.faults {
			if w.left.faults > 0 {
				faulty = append(faulty, move{make: func() { w.goOn(r, f) }, switches: switches})
			}
		}
	}
	if waits := len(ready) > 0; asleep && allowed(waits) {
		plain = append(plain, move{make: func() { time.Sleep(tick) }, switches: waits, tick: true})
	}
	if allowed(len(ready) > 0) {
		for i := range w.late {
			plain = append(plain, move{make: func() { w.land(i) }, switches: len(ready) > 0})
		}
	}
	if w.jump > 0 && !w.jumped {
		plain = append(plain, move{make: w.jumpNow})
	}
	return plain, faulty
}

// ready is a point where an actor may go on.
type ready struct {
	a *actor
	p *waiting
}

// ready returns the points where actors wait, of the one that went on last before all
// others, and whether another one sleeps.
func (w *world) ready() (list []ready, asleep bool) {
	for _, a := range slices.Concat(w.actors, w.looks) {
		var own []ready
		for _, p := range a.points {
			own = append(own, ready{a, p})
		}
		switch {
		case len(own) == 0:
			asleep = asleep || !a.ended && !slices.Contains(w.looks, a)
		case a == w.last:
			list = append(own, list...)
		default:
			list = append(list, own...)
		}
	}
	return list, asleep
}

// goOn lets an actor go on.
func (w *world) goOn(r ready, f fault) {
	a, p := r.a, r.p
	a.goesOn(p)
	w.last = a
	if f != fine {
		w.left.faults--
		w.faults++
	}
	w.tell("%s: %s%s", a.name, p.label, f.note())
	p.goOn <- f
}

// land has a late call happen.
func (w *world) land(i int) {
	w.mu.Lock()
	c := w.late[i]
	w.late = slices.Delete(w.late, i, i+1)
	w.mu.Unlock()
	w.tell("late: %s", c.label)
	c.land()
}

// landAll has the late calls happen, or never.
func (w *world) landAll() {
	for len(w.late) > 0 {
		if w.choices.pick(2) == 1 {
			w.late = w.late[1:]
			continue
		}
		w.land(0)
	}
}

// jumpNow lets so much time pass that sessions end.
func (w *world) jumpNow() {
	w.jumped = true
	w.tell("the clock jumps by %v", w.jump)
	time.Sleep(w.jump)
}

// wait lets time pass between two parts of a scenario.
func (w *world) wait(d time.Duration) {
	w.tell("%v pass", d)
	time.Sleep(d)
}

// outwait lets more time pass than a replaced token is good for.
func (w *world) outwait() { w.wait(max(w.cfg.RenewGrace, 30*time.Second) + 30*time.Second + w.skew) }

// failVisit is the managers' ErrorHandler.
func failVisit(rw http.ResponseWriter, r *http.Request, err error) {
	if v, _ := r.Context().Value(visitKey{}).(*visit); v != nil {
		v.err = err
		v.a.w.say(err)
	}
	rw.WriteHeader(statusOf(err))
}

// run runs a scenario once.
func (sc *scenario) run(t *testing.T, c *choices, l limits, tracing bool) *world {
	var w *world
	synctest.Test(t, func(*testing.T) {
		w = newWorld(c, l, tracing, sc)
		sc.play(w)
		w.checkAlways(sc)
	})
	return w
}
