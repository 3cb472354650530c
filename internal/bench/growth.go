package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"time"
)

// Growth is what one store costs with so many sessions.
type Growth struct {
	Store, Contender string
	Sessions         int
	Floor, Time      map[Workload]float64 // nanoseconds for each request
	Ratios           map[Workload]Spread
	Memory           float64 // bytes of heap for each session
	Open             time.Duration
	Alone, Beside    time.Duration // the longest request without a compaction, and with one beside
}

// growth measures W1 and W2 of session2 and of its floor, at each size.
func growth(g group, o *options) (rows []Growth, err error) {
	sizes := o.growth
	if g.store == "postgres" && o.giant > 0 {
		sizes = append(slices.Clip(sizes), o.giant)
	}
	for _, n := range sizes {
		if g.files && n > 10*o.files {
			continue
		}
		for _, c := range grown(g) {
			row, err := growthOf(g, c, n, o)
			if err != nil {
				return nil, err
			}
			o.log("%s: %s: %d sessions: done", g.store, c.name, n)
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// grown returns what grows: of those on one server the first.
func grown(g group) (list []contender) {
	for _, c := range g.contenders {
		if c.kind == ours && (g.server == nil || len(list) == 0) {
			list = append(list, c)
		}
	}
	return list
}

func growthOf(g group, c contender, n int, o *options) (row Growth, err error) {
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
	c.floors = c.floors[:1]
	two := g
	two.shares = g.store == "postgres" // where the floor's table is session2's
	two.contenders = []contender{g.contenders[slices.IndexFunc(g.contenders, func(x contender) bool {
		return x.name == c.floors[0]
	})], c}
	all, done, err := openAll(two, p, dir, n, o)
	if err != nil {
		done()
		return row, err
	}
	if err := g.settled(p.dsn); err != nil {
		done()
		return row, err
	}
	row = Growth{
		Store: g.store, Contender: c.name, Sessions: n,
		Floor: map[Workload]float64{}, Time: map[Workload]float64{}, Ratios: map[Workload]Spread{},
	}
	for _, w := range []Workload{W1, W2} {
		r, err := runWorkload(all, w, mode{clients: 1}, o, g.server == nil)
		if err != nil {
			done()
			return row, err
		}
		row.Floor[w], row.Time[w], row.Ratios[w] = r[0].Nanos.Median, r[1].Nanos.Median, r[1].Ratios[0]
	}
	mine := all[1]
	if g.store == "gob" {
		row.Alone, err = longest(mine, n/2) // until as much is dead as is alive, nothing is compacted
		if err == nil {
			row.Beside, err = longest(mine, n)
		}
		if err != nil {
			done()
			return row, err
		}
	}
	if g.server != nil {
		done()
		return row, nil
	}
	err = row.closeAndOpen(g, mine, filepath.Join(dir, "1"))
	return row, errors.Join(err, all[0].close())
}

// closeAndOpen finds what closing a store frees, and how long it takes to open.
func (row *Growth) closeAndOpen(g group, m *measured, dir string) error {
	before := heap()
	if err := m.close(); err != nil {
		return err
	}
	open := m.contender.open
	m.site = nil // its cookies stay, and so do not count
	row.Memory = max(0, float64(before)-float64(heap())) / float64(row.Sessions)
	runtime.KeepAlive(m.cookies)
	if g.volatile {
		return nil
	}
	start := time.Now()
	s, err := open(place{number: 1, dir: dir})
	if err != nil {
		return err
	}
	err = newInProcess(s.handler(W1)).get(m.cookies[0])
	row.Open = time.Since(start)
	return errors.Join(err, s.close())
}

func heap() uint64 {
	runtime.GC()
	runtime.GC() // the first one finishes what was being swept, and empties pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// longest writes so often, by eight clients, and returns how long the longest request took.
func longest(m *measured, requests int) (time.Duration, error) {
	t, err := m.turn(W2, mode{clients: 8})
	if err != nil {
		return 0, err
	}
	defer t.close()
	var most atomic.Int64
	err = together(len(t.clients), func(i int) error {
		for range requests / len(t.clients) {
			start := time.Now()
			if err := t.clients[i].get(t.shares[i].next()); err != nil {
				return err
			}
			took := int64(time.Since(start))
			for old := most.Load(); took > old && !most.CompareAndSwap(old, took); old = most.Load() {
			}
		}
		return nil
	})
	return time.Duration(most.Load()), err
}

func writeGrowth(w io.Writer, rows []Growth) {
	if len(rows) == 0 {
		return
	}
	line(w, "", "sessions", "W1", "its floor", "×", "W2", "its floor", "×", "memory of each", "first answer", "longest W2", "beside")
	line(w, slices.Repeat([]string{"---"}, 12)...)
	for _, r := range rows {
		cells := []string{r.Contender, fmt.Sprint(r.Sessions)}
		for _, x := range []Workload{W1, W2} {
			cells = append(cells, duration(r.Time[x]), duration(r.Floor[x]), r.Ratios[x].String())
		}
		memory := "–"
		if r.Memory > 0 {
			memory = fmt.Sprintf("%.0f B", r.Memory)
		}
		cells = append(cells, memory, orDash(r.Open), orDash(r.Alone), orDash(r.Beside))
		line(w, cells...)
	}
}

func orDash(d time.Duration) string {
	if d == 0 {
		return "–"
	}
	return duration(float64(d))
}
