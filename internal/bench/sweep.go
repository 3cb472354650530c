package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

// sweeper is for W5.
type sweeper struct {
	expiring http.Handler // makes a session as W3 does, which ends within shortLife; not used where there are rows
	ways     []way
}

// way removes what has ended.
type way struct {
	name  string // "" where there is but one
	sweep func() error
}

const shortLife = time.Second

// Setting is where and how much is swept.
type Setting struct {
	Durable bool // and the server's cache is smaller than the table
	Percent int  // of the sessions that have ended
}

// sizes returns how many sessions live and how many have ended, where a large store has n.
// Where all have ended but those that are read, a tenth is enough to say what each costs;
// and on a disk, to be more than the cache holds.
func (s Setting) sizes(n int) (living, ended int) {
	if s.Percent == 100 || s.Durable {
		n /= 10
	}
	if s.Percent == 100 {
		return min(n, readSessions), n
	}
	return n, n * s.Percent / 100
}

// Sweep is what readers notice of a sweep.
type Sweep struct {
	Store, Contender string
	Setting          Setting
	Sessions, Ended  int
	Took             Spread  // nanoseconds
	Alone, Beside    Latency // of readers before the sweep, and during it
	Floor            string  // the contender whose worst read it is compared with
}

// Latency is of single requests, in nanoseconds: the median of the rounds, but for Short,
// which is the worst of each stretch of so many, whatever the round. Of a longer time the
// worst is worse whatever it was that went on meanwhile.
type Latency struct {
	P50, P99, Worst float64
	Short           Spread

	worsts []float64
}

const stretch = 250 * time.Millisecond

// read is one request: when it was answered, after so long.
type read struct{ at, took time.Duration }

// latency sums up what was read within a time.
func latency(reads []read, in time.Duration) Latency {
	var l Latency
	var all []float64
	l.worsts = make([]float64, max(1, in/stretch)) // the last one may be longer
	for _, r := range reads {
		took := float64(r.took)
		all = append(all, took)
		worst := &l.worsts[min(int(r.at/stretch), len(l.worsts)-1)]
		*worst = max(*worst, took)
	}
	slices.Sort(all)
	l.P50, l.P99, l.Worst = quantile(all, 0.5), quantile(all, 0.99), quantile(all, 1)
	return l
}

// sweeps measures W5 on a store: with more and fewer sessions that have ended, and with a
// cache that is smaller than the table.
func sweeps(g group, o *options) (rows []Sweep, err error) {
	n := o.sweep
	if g.files {
		n = min(n, o.files)
	}
	if n == 0 {
		return nil, nil
	}
	for _, c := range sweepers(g) {
		for _, settings := range [][]Setting{{{false, 1}, {false, 10}}, {{false, 100}}, {{true, 10}}} {
			if settings[0].Durable && g.server == nil {
				continue
			}
			more, err := sweepAlone(g, c, n, settings, o)
			if err != nil {
				return nil, fmt.Errorf("%s: sweep: %w", c.name, err)
			}
			rows = append(rows, more...)
		}
	}
	return rows, nil
}

// sweepers returns who sweeps: on one server the first of each kind, for a driver makes no
// difference to it.
func sweepers(g group) (list []contender) {
	for _, c := range g.contenders {
		again := slices.ContainsFunc(list, func(x contender) bool { return x.kind == c.kind })
		if c.sweeps && !(again && g.server != nil) {
			list = append(list, c)
		}
	}
	return list
}

// sweepAlone gives a contender a place of its own: all of them at once would not fit
// into memory.
func sweepAlone(g group, c contender, n int, settings []Setting, o *options) (rows []Sweep, err error) {
	durable := settings[0].Durable
	dir, err := o.mkdir(durable)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	p := place{dir: dir, durable: durable}
	if g.server != nil {
		start := g.server
		if durable {
			start = g.cramped
		}
		server, stop, err := start(o.parent(durable), durable)
		if err != nil {
			return nil, err
		}
		defer stop()
		p.dsn = server.DSN()
	}
	s, err := c.open(p)
	if err != nil {
		return nil, err
	}
	m := &measured{contender: c, site: s}
	living, _ := settings[0].sizes(n)
	err = m.populate(living, min(living, readSessions))
	for _, set := range settings {
		if err != nil {
			break
		}
		var more []Sweep
		more, err = sweepOf(g, m, n, set, o.rounds)
		rows = append(rows, more...)
		o.log("%s: %s: %d %% swept", g.store, c.name, set.Percent)
	}
	return rows, errors.Join(err, s.close())
}

func sweepOf(g group, m *measured, n int, set Setting, rounds int) (rows []Sweep, err error) {
	floor := ""
	if len(m.floors) > 0 {
		floor = m.floors[0] + inBatches
	}
	living, ended := set.sizes(n)
	for _, way := range m.sweeper.ways {
		row := Sweep{
			Store: g.store, Contender: m.name + way.name, Setting: set, Sessions: living + ended, Ended: ended, Floor: floor,
		}
		if err := m.sweepBy(way, &row, rounds); err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// sweepBy does the rounds of one row.
func (m *measured) sweepBy(w way, row *Sweep, rounds int) error {
	var took []float64
	var alone, beside []Latency
	for range rounds {
		if err := m.expire(row.Ended); err != nil {
			return err
		}
		before, err := m.readBeside(func() error {
			time.Sleep(shortLife + shortLife/10)
			return nil
		})
		if err != nil {
			return err
		}
		start := time.Now()
		during, err := m.readBeside(w.sweep)
		if err != nil {
			return err
		}
		took = append(took, float64(time.Since(start)))
		alone, beside = append(alone, before), append(beside, during)
	}
	row.Took, row.Alone, row.Beside = spread(took), medians(alone), medians(beside)
	return nil
}

// readSessions is how many sessions the readers of a large table use.
const readSessions = 10_000

// populate makes n sessions: so many by requests, and the others as rows, if there are
// rows.
func (m *measured) populate(n, asked int) error {
	clients := 64
	if m.shy {
		clients = 2
	}
	if m.rows == nil {
		return m.fill(n, clients)
	}
	if err := m.fill(asked, clients); err != nil {
		return err
	}
	return m.rows.add(n-asked, time.Now().Add(24*time.Hour))
}

// expire makes sessions that end soon, or have ended.
func (m *measured) expire(n int) error {
	if m.rows != nil {
		return m.rows.add(n, time.Now())
	}
	const clients = 64
	return together(clients, func(i int) error {
		c := newInProcess(m.sweeper.expiring)
		for range (n - i + clients - 1) / clients {
			if err := c.get(""); err != nil {
				return err
			}
		}
		return nil
	})
}

// readBeside has four readers read 500 times a second each while something is done, and
// returns how long they took.
func (m *measured) readBeside(do func() error) (Latency, error) {
	const readers, every = 4, 2 * time.Millisecond
	t, err := m.turn(W1, mode{clients: readers})
	if err != nil {
		return Latency{}, err
	}
	defer t.close()
	done, begun := make(chan struct{}), time.Now()
	var all [readers][]read
	var wg sync.WaitGroup
	errs := make([]error, readers+1)
	for i := range readers {
		wg.Go(func() { all[i], errs[i] = readUntil(done, begun, t.clients[i], t.shares[i], every) })
	}
	errs[readers] = do()
	took := time.Since(begun)
	close(done)
	wg.Wait()
	return latency(slices.Concat(all[:]...), took), errors.Join(errs...)
}

func readUntil(done <-chan struct{}, begun time.Time, c client, sessions *picks, every time.Duration,
) (reads []read, err error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		start := time.Now()
		if err := c.get(sessions.next()); err != nil {
			return reads, err
		}
		reads = append(reads, read{time.Since(begun), time.Since(start)})
		select {
		case <-done:
			return reads, nil
		case <-tick.C:
		}
	}
}

func medians(list []Latency) Latency {
	of := func(f func(Latency) float64) float64 {
		var values []float64
		for _, l := range list {
			values = append(values, f(l))
		}
		return spread(values).Median
	}
	var worsts []float64
	for _, l := range list {
		worsts = append(worsts, l.worsts...)
	}
	return Latency{
		P50:   of(func(l Latency) float64 { return l.P50 }),
		P99:   of(func(l Latency) float64 { return l.P99 }),
		Worst: of(func(l Latency) float64 { return l.Worst }),
		Short: spread(worsts),
	}
}

func writeSweeps(w io.Writer, rows []Sweep) {
	if len(rows) == 0 {
		return
	}
	line(w, "", "", "", "sessions", "ended", "sweep takes", "for each", "reads: median", "99 %", "worst", "of ¼ s",
		"beside: median", "99 %", "worst", "of ¼ s", "× floor's")
	line(w, slices.Repeat([]string{"---"}, 16)...)
	for _, r := range rows {
		where := "in memory"
		if r.Setting.Durable {
			where = "on a disk, small cache"
		}
		cells := []string{r.Store, r.Contender, where, fmt.Sprint(r.Sessions), fmt.Sprint(r.Ended),
			duration(r.Took.Median), duration(r.Took.Median / float64(max(1, r.Ended)))}
		for _, l := range []Latency{r.Alone, r.Beside} {
			cells = append(cells, duration(l.P50), duration(l.P99), duration(l.Worst), duration(l.Short.Median))
		}
		line(w, append(cells, r.againstFloor(rows))...)
	}
}

// againstFloor returns the worst read of a stretch as a multiple of that beside the floor's
// sweep.
func (r Sweep) againstFloor(rows []Sweep) string {
	for _, f := range rows {
		if f.Store == r.Store && f.Contender == r.Floor && f.Setting == r.Setting {
			short, floor := r.Beside.Short, f.Beside.Short.Median
			return Spread{short.Low / floor, short.Median / floor, short.High / floor}.String()
		}
	}
	return "–"
}
