package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"
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
	Store    string
	Durable  bool
	Loopback bool
	Clients  int
	Sessions int
	Results  []Result
}

// group is the contenders that keep their sessions in the same kind of place.
type group struct {
	store      string
	contenders []contender
	files      bool // a file for each session: there are fewer
	server     startServer
	volatile   bool // nothing of it can be durable
}

// runGroup measures one store: all its contenders are open at once, and take turns.
func runGroup(g group, o *options, durable bool) (tables []Table, err error) {
	dir, err := os.MkdirTemp(o.parent(durable), "session2-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	p := place{durable: durable}
	if g.server != nil {
		server, stop, err := g.server(o.parent(durable), durable)
		if err != nil {
			return nil, err
		}
		defer stop()
		p.dsn = server.DSN()
	}
	n := o.sessions
	if g.files {
		n = min(n, o.files)
	}
	var all []*measured
	defer func() {
		for _, m := range all {
			m.close()
		}
	}()
	for i, c := range g.contenders {
		p.number, p.dir = i, filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(p.dir, 0o700); err != nil {
			return nil, err
		}
		s, err := c.open(p)
		if err != nil {
			return nil, fmt.Errorf("%s: open: %w", c.name, err)
		}
		m := &measured{contender: c, site: s}
		all = append(all, m)
		start := time.Now()
		if err := m.fill(n, 64); err != nil {
			return nil, err
		}
		o.log("%s: %s: %d sessions in %v", g.store, c.name, n, time.Since(start).Round(time.Millisecond))
	}
	for _, md := range o.modes() {
		t := Table{Store: g.store, Durable: durable, Loopback: md.loopback, Clients: md.clients, Sessions: n}
		for _, w := range o.work {
			r, err := runWorkload(all, w, md, o, n)
			if err != nil {
				return nil, err
			}
			t.Results = append(t.Results, r...)
		}
		tables = append(tables, t)
	}
	return tables, nil
}

// runWorkload has the contenders take turns, after one round that does not count: what
// slows the machine down for a while slows all of them down.
func runWorkload(all []*measured, w Workload, md mode, o *options, sessions int) ([]Result, error) {
	samples := make(map[string][]sample)
	for round := range o.rounds + 1 {
		d := o.duration
		if round == 0 {
			d /= 4
		}
		for i := range all {
			m := all[(i+round)%len(all)]
			if m.handler(w) == nil {
				continue
			}
			s, err := m.round(w, md, d, m.most(w, md, sessions))
			if err != nil {
				return nil, err
			}
			if round > 0 {
				samples[m.name] = append(samples[m.name], s)
			}
		}
	}
	var results []Result
	for _, m := range all {
		results = append(results, result(m.contender, w, samples))
	}
	o.log("%v, %d clients: done", w, md.clients)
	return results, nil
}

// most returns how many requests a round has at most: where each may make a session, the
// store must not become another one.
func (m *measured) most(w Workload, md mode, sessions int) int {
	switch {
	case w == W3:
		return max(sessions/10, md.clients)
	case w == W0 && m.kind == rival:
		return max(sessions, md.clients)
	}
	return math.MaxInt
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
