package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2/internal/testdb"
)

func TestMain(m *testing.M) { os.Exit(testdb.Run(m)) }

// TestEverything runs all of it with numbers that measure nothing, so that it cannot
// rot: each handler of each contender finds what it is to find.
func TestEverything(t *testing.T) {
	o, err := parse([]string{
		"-rounds", "1", "-seconds", "0.002", "-sessions", "66", "-files", "66", "-loopback", "2", "-growth", "66",
	})
	if err != nil {
		t.Fatal(err)
	}
	o.quiet = true
	for _, g := range groups() {
		t.Run(g.store, func(t *testing.T) {
			g, p := started(t, g, o)
			t.Run("workloads", func(t *testing.T) { testWorkloads(t, g, o) })
			for i, c := range g.contenders {
				if !c.sweeps {
					continue
				}
				p := p
				p.number = 200 + i
				t.Run("sweep by "+c.name, func(t *testing.T) {
					t.Parallel()
					p.dir = t.TempDir()
					testSweep(t, g, c, p)
				})
			}
		})
	}
}

// started starts the group's server, if it has one, for all of its tests.
func started(t *testing.T, g group, o *options) (group, place) {
	t.Helper()
	if g.server == nil {
		return g, place{}
	}
	if testing.Short() {
		t.Skip("no database server is started under -short")
	}
	server, stop, err := g.server(o.parent(false), false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	g.server = func(string, bool) (*testdb.Server, func(), error) { return server, func() {}, nil }
	return g, place{dsn: server.DSN()}
}

func testWorkloads(t *testing.T, g group, o *options) {
	var report Report
	if err := runGroup(g, o, false, &report); err != nil {
		t.Fatal(err)
	}
	if _, err := growth(g, o); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	writeTables(&b, report.Tables)
	for _, c := range g.contenders {
		if got, want := strings.Count(b.String(), "| "+c.name+" |"), 2*len(workloads); got != want {
			t.Errorf("%s: got %d rows, want %d", c.name, got, want)
		}
	}
}

func testSweep(t *testing.T, g group, c contender, p place) {
	s, err := c.open(p)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	m := &measured{contender: c, site: s}
	if err := m.populate(50, 50); err != nil {
		t.Fatal(err)
	}
	rows, err := sweepOf(g, m, 50, Setting{Percent: 10}, 1)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	writeSweeps(&b, rows)
	for _, way := range s.sweeper.ways {
		if !strings.Contains(b.String(), "| "+c.name+way.name+" | in memory | 55 | 5 |") {
			t.Errorf("got %s", b.String())
		}
	}
}

// TestLatency finds that a longer sweep has no worse reads of a stretch for being longer.
func TestLatency(t *testing.T) {
	var reads []read
	for i := range 40 { // four in each quarter of a second, the last of which is a slow one
		took := time.Millisecond
		if i%4 == 3 {
			took = time.Duration(i) * time.Millisecond
		}
		reads = append(reads, read{time.Duration(i) * stretch / 4, took})
	}
	short, long := latency(reads[:8], 2*stretch), latency(reads, 10*stretch)
	if short.Worst != 7e6 || long.Worst != 39e6 || long.P50 != 1e6 {
		t.Errorf("got %v and %v", short, long)
	}
	got := medians([]Latency{short, long}).Short
	if want := (Spread{7e6, 17e6, 28e6}); got.Median != want.Median || got.Low >= got.Median || got.High <= got.Median {
		t.Errorf("got %v, want about %v", got, want)
	}
}
