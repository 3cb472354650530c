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
	expiring http.Handler // makes a session as W3 does, which ends within shortLife
	sweep    func() error // removes what has ended
}

const shortLife = time.Second

// Sweep is what readers notice of a sweep.
type Sweep struct {
	Store, Contender string
	Sessions         int     // a tenth of them has ended
	Took             Spread  // nanoseconds
	Alone, Beside    Latency // of readers before the sweep, and during it
}

// Latency is of single requests, in nanoseconds; of each the median of the rounds.
type Latency struct{ P50, P99, Worst float64 }

// sweeps measures W5 on a store.
func sweeps(g group, o *options) (rows []Sweep, err error) {
	n := o.sweep
	if g.files {
		n = min(n, o.files)
	}
	if n == 0 {
		return nil, nil
	}
	for _, c := range g.contenders {
		if !c.sweeps {
			continue
		}
		row, err := sweepAlone(g, c, n, o)
		if err != nil {
			return nil, fmt.Errorf("%s: sweep: %w", c.name, err)
		}
		rows = append(rows, row)
		o.log("%s: %s: swept", g.store, c.name)
	}
	return rows, nil
}

// sweepAlone gives a contender a place of its own: all of them at once would not fit
// into memory.
func sweepAlone(g group, c contender, n int, o *options) (row Sweep, err error) {
	dir, err := o.mkdir(false)
	if err != nil {
		return row, err
	}
	defer os.RemoveAll(dir)
	p := place{dir: dir}
	if g.server != nil {
		server, stop, err := g.server(o.parent(false), false)
		if err != nil {
			return row, err
		}
		defer stop()
		p.dsn = server.DSN()
	}
	s, err := c.open(p)
	if err != nil {
		return row, err
	}
	row, err = sweepOf(g, &measured{contender: c, site: s}, n, o.rounds)
	return row, errors.Join(err, s.close())
}

func sweepOf(g group, m *measured, n, rounds int) (row Sweep, err error) {
	row = Sweep{Store: g.store, Contender: m.name, Sessions: n}
	if err := m.fill(n-n/10, 64); err != nil {
		return row, err
	}
	var took []float64
	var alone, beside []Latency
	for range rounds {
		if err := m.expire(n / 10); err != nil {
			return row, err
		}
		before, err := m.readBeside(func() error {
			time.Sleep(shortLife + shortLife/10)
			return nil
		})
		if err != nil {
			return row, err
		}
		start := time.Now()
		during, err := m.readBeside(m.sweeper.sweep)
		if err != nil {
			return row, err
		}
		took = append(took, float64(time.Since(start)))
		alone, beside = append(alone, before), append(beside, during)
	}
	row.Took, row.Alone, row.Beside = spread(took), medians(alone), medians(beside)
	return row, nil
}

// expire makes sessions that end soon.
func (m *measured) expire(n int) error {
	return together(8, func(i int) error {
		c := newInProcess(m.sweeper.expiring)
		for range (n - i + 7) / 8 {
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
	done := make(chan struct{})
	var all [readers][]float64
	var wg sync.WaitGroup
	errs := make([]error, readers+1)
	for i := range readers {
		wg.Go(func() { all[i], errs[i] = readUntil(done, t.clients[i], t.shares[i], every) })
	}
	errs[readers] = do()
	close(done)
	wg.Wait()
	list := slices.Concat(all[:]...)
	slices.Sort(list)
	return Latency{quantile(list, 0.5), quantile(list, 0.99), quantile(list, 1)}, errors.Join(errs...)
}

func readUntil(done <-chan struct{}, c client, sessions *picks, every time.Duration) (took []float64, err error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		start := time.Now()
		if err := c.get(sessions.next()); err != nil {
			return took, err
		}
		took = append(took, float64(time.Since(start)))
		select {
		case <-done:
			return took, nil
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
	return Latency{
		of(func(l Latency) float64 { return l.P50 }),
		of(func(l Latency) float64 { return l.P99 }),
		of(func(l Latency) float64 { return l.Worst }),
	}
}

func writeSweeps(w io.Writer, rows []Sweep) {
	if len(rows) == 0 {
		return
	}
	line(w, "", "", "sessions", "sweep takes", "reads: median", "99 %", "worst", "beside: median", "99 %", "worst")
	line(w, slices.Repeat([]string{"---"}, 10)...)
	for _, r := range rows {
		cells := []string{r.Store, r.Contender, fmt.Sprint(r.Sessions), duration(r.Took.Median)}
		for _, l := range []Latency{r.Alone, r.Beside} {
			cells = append(cells, duration(l.P50), duration(l.P99), duration(l.Worst))
		}
		line(w, cells...)
	}
}
