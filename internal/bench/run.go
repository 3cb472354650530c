package main

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/session2/session2/internal/testdb"
)

// Result is what a contender took for a workload.
type Result struct {
	Contender string
	Kind      kind
	Workload  Workload
	Missing   bool     // it has no such thing
	Nanos     Spread   // for each request
	Ratios    []Spread // to its floors, in their order; none for a floor
	Allocs    float64  // for each request
	Bytes     float64  // allocated for each request
}

// Table is the results of all contenders on one store.
type Table struct {
	Store     string
	Durable   bool
	Loopback  bool
	Clients   int
	Sessions  int
	Processor bool // times are the process's processor time, and no wall time
	Results   []Result
}

// group is the contenders that keep their sessions in the same kind of place.
type group struct {
	store      string
	contenders []contender
	files      bool // a file for each session: there are fewer
	server     startServer
	cramped    startServer // with a cache that is smaller than a large table
	volatile   bool        // nothing of it can be durable
	shares     bool        // its contenders have one table
	settle     []string    // what a server would do by itself after so many creations, and while others are measured
}

// runGroup measures one store: all its contenders are open at once, and take turns.
func runGroup(g group, o *options, durable bool, report *Report) error {
	dir, err := o.mkdir(durable)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p := place{durable: durable}
	if g.server != nil {
		server, stop, err := g.server(o.parent(durable), durable)
		if err != nil {
			return err
		}
		defer stop()
		p.dsn = server.DSN()
		if !durable {
			if err := report.ask(g, p, server, dir, o); err != nil {
				return err
			}
		}
	}
	n := o.sessions
	if g.files || durable {
		n = min(n, o.files)
	}
	all, done, err := openAll(g, p, dir, n, o)
	defer done()
	if err != nil {
		return err
	}
	if err := g.settled(p.dsn); err != nil {
		return err
	}
	for _, md := range o.modes() {
		t := Table{
			Store: g.store, Durable: durable, Loopback: md.loopback, Clients: md.clients, Sessions: n,
			Processor: !durable && g.server == nil, // then nobody waits for anything else
		}
		for _, w := range o.work {
			if durable && (w == W0 || w == W0b) {
				continue // nothing is written
			}
			r, err := runWorkload(all, w, md, o, t.Processor)
			if err != nil {
				return err
			}
			t.Results = append(t.Results, r...)
		}
		report.Tables = append(report.Tables, t)
	}
	return nil
}

// settled has the server do what is to be done before anything is measured.
func (g group) settled(dsn string) error {
	if len(g.settle) == 0 {
		return nil
	}
	db, err := openDB(g.store, dsn, g.settle...)
	if err != nil {
		return err
	}
	return db.Close()
}

// openAll opens a group's contenders, and makes the sessions of each.
func openAll(g group, p place, dir string, n int, o *options) (all []*measured, done func(), err error) {
	done = func() {
		for _, m := range all {
			m.close()
		}
	}
	for i, c := range g.contenders {
		p.number, p.dir = i, filepath.Join(dir, fmt.Sprint(i))
		if g.shares && i > 0 {
			p.number, n = 0, min(n, o.sessions)
		}
		if err := os.Mkdir(p.dir, 0o700); err != nil {
			return all, done, err
		}
		s, err := c.open(p)
		if err != nil {
			return all, done, fmt.Errorf("%s: open: %w", c.name, err)
		}
		m := &measured{contender: c, site: s}
		all = append(all, m)
		start := time.Now()
		if err := m.populate(n, min(n, o.sessions)); err != nil {
			return all, done, err
		}
		o.log("%s: %s: %d sessions in %v", g.store, c.name, n, time.Since(start).Round(time.Millisecond))
	}
	return all, done, nil
}

// ask has a server say its version, and counts the round trips to it.
func (r *Report) ask(g group, p place, server *testdb.Server, dir string, o *options) error {
	db, err := sql.Open(g.store, p.dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	var version string
	if err := db.QueryRow("SELECT version()").Scan(&version); err != nil {
		return err
	}
	version, _, _ = strings.Cut(version, " on ") // where PostgreSQL was built
	r.Servers = append(r.Servers, version)
	trips, err := countTrips(g, p, server, dir, o)
	if err != nil {
		return err
	}
	r.Trips = append(r.Trips, trips)
	return nil
}

// A round is made of slices of a tenth of a second, in which the contenders take turns:
// what slows the machine down for a while slows all of them down.
const slice = 100 * time.Millisecond

// runWorkload measures round by round, after half a slice each that does not count.
func runWorkload(all []*measured, w Workload, md mode, o *options, processor bool) ([]Result, error) {
	var turns []*turn
	for _, m := range all {
		if m.handler(w) == nil {
			continue
		}
		t, err := m.turn(w, md)
		if t != nil {
			defer t.close()
		}
		if err != nil {
			return nil, err
		}
		turns = append(turns, t)
	}
	if w == W4 {
		for _, t := range turns {
			if err := t.useAll(); err != nil {
				return nil, err
			}
		}
	}
	if _, err := runRound(turns, min(o.round(md), slice/2)); err != nil {
		return nil, err
	}
	samples := make(map[string][]sample)
	for range o.rounds {
		tallies, err := runRound(turns, o.round(md))
		if err != nil {
			return nil, err
		}
		for i, t := range turns {
			samples[t.name] = append(samples[t.name], tallies[i].sample(processor))
		}
	}
	var results []Result
	for _, m := range all {
		results = append(results, result(m.contender, w, samples))
	}
	o.log("%v, %d clients: done", w, md.clients)
	return results, nil
}

func runRound(turns []*turn, d time.Duration) ([]tally, error) {
	runtime.GC() // what was left before is nobody's of this round
	tallies := make([]tally, len(turns))
	for ; d > 0; d -= slice {
		for _, i := range rand.Perm(len(turns)) {
			if err := turns[i].slice(&tallies[i], min(d, slice)); err != nil {
				return nil, err
			}
		}
	}
	return tallies, nil
}

func result(c contender, w Workload, samples map[string][]sample) Result {
	mine := samples[c.name]
	r := Result{Contender: c.name, Kind: c.kind, Workload: w, Missing: len(mine) == 0}
	if r.Missing {
		return r
	}
	nanos := column(mine, func(s sample) float64 { return s.nanos })
	r.Nanos = spread(nanos)
	r.Allocs = slices.Min(column(mine, func(s sample) float64 { return s.allocs }))
	r.Bytes = slices.Min(column(mine, func(s sample) float64 { return s.bytes }))
	for _, f := range c.floors {
		floor := column(samples[f], func(s sample) float64 { return s.nanos })
		r.Ratios = append(r.Ratios, spread(ratios(nanos, floor)))
	}
	return r
}

func column(list []sample, f func(sample) float64) []float64 {
	out := make([]float64, len(list))
	for i, s := range list {
		out[i] = f(s)
	}
	return out
}
