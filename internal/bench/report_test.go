package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// aReport is small, and has one of each kind.
func aReport() *Report {
	return &Report{
		Date: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Command: "go run .", Machine: "a processor, 2 cores",
		Servers: []string{"PostgreSQL 15.1"}, Modules: []string{"example.com/m v1.2.3"},
		Rounds: 5, Round: time.Second, Within: 2 * time.Second,
		Trips: []TripTable{{"postgres", []TripRow{{"session2", map[Workload]float64{W1: 1, W2: 2.5}}}}},
		Growth: []Growth{{
			Store: "gob", Contender: "session2 gob", Sessions: 10, Time: map[Workload]float64{W1: 2000, W2: 4e6},
			Floor: map[Workload]float64{W1: 1000, W2: 2e6}, Ratios: map[Workload]Spread{W1: {2, 2, 2}, W2: {2, 2, 2}},
			Memory: 250, Open: time.Second,
		}},
		Tables: []Table{{Store: "memory", Clients: 1, Sessions: 100, Results: []Result{
			{Contender: "by hand", Kind: floor, Workload: W1, Nanos: Spread{900, 1000, 1100}, Allocs: 2, Bytes: 1032},
			{Contender: "session2", Kind: ours, Workload: W1, Nanos: Spread{1900, 2000, 2100},
				Ratios: []Spread{{1.9, 2, 2.1}}, Allocs: 14, Bytes: 3384},
			{Contender: "another <&>", Kind: rival, Workload: W1, Nanos: Spread{8e6, 9e6, 12e6},
				Ratios: []Spread{{7000, 9000, 12000}}, Allocs: 200, Bytes: 1e4},
			{Contender: "cannot", Kind: rival, Workload: W1, Missing: true},
		}}, {Store: "memory", Clients: 64, Loopback: true, Durable: true, Results: []Result{
			{Contender: "by hand", Kind: floor, Workload: W2, Nanos: Spread{900, 1000, 1100}},
			{Contender: "session2", Kind: ours, Workload: W2, Nanos: Spread{1900, 2000, 2100}, Ratios: []Spread{{1.9, 2, 2.1}}},
		}}},
	}
}

func TestReport(t *testing.T) {
	dir := t.TempDir()
	if err := aReport().save(dir); err != nil {
		t.Fatal(err)
	}
	md, err := os.ReadFile(filepath.Join(dir, "BENCHMARKS.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| date | 2026-03-04 |", "| machine | a processor, 2 cores |", "PostgreSQL 15.1", "example.com/m v1.2.3",
		"| 5 of 2s for each number in process and in the growth tables, 5 of 1s over loopback |",
		"#### memory: in process, one client,",
		"| W1 | by hand | 1.00 µs |  | 2 | 1032 |\n",
		"|  | session2 | 2.00 µs | **2.00** 1.90–2.10 | 14 | 3384 |\n",
		"|  | another <&> | 9.00 ms | (9000?) 7000–12000 | 200 | 10000 |\n",
		"|  | cannot | – | – | – | – |\n",
		"| postgres | W1 | W2 |\n", "| session2 | 1 | 2.5 |\n",
		"| session2 gob | 10 | 2.00 µs | 1.00 µs | **2.00** 2.00–2.00 | 4.00 ms | 2.00 ms | **2.00** 2.00–2.00 |" +
			" 250 B | 1000 ms | – | – |\n",
		"|  |  | W1 |\n| --- | --- | --- |\n| memory | session2 | 2.00 |\n| memory | another <&> | (9000?) |\n" +
			"| memory | cannot | – |\n",
		"|  |  | W2 |\n| --- | --- | --- |\n| memory | by hand | 1.00 µs |\n| memory | session2 | 2.00 µs |\n",
		"- **W3**: creates a session of ten keys\n",
	} {
		if !strings.Contains(string(md), want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", md)
	}
}

func TestChart(t *testing.T) {
	var b strings.Builder
	writeChart(&b, chartOf(aReport().Tables))
	var names, classes []string
	for d := xml.NewDecoder(strings.NewReader(b.String())); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not XML: %v\n%s", err, b.String())
		}
		switch e := token.(type) {
		case xml.CharData:
			names = append(names, string(e))
		case xml.StartElement:
			if e.Name.Local == "rect" {
				classes = append(classes, e.Attr[0].Value)
			}
		}
	}
	if got := strings.Join(classes, " "); got != "ours rival" {
		t.Errorf("got bars %q, want one of ours and one of a rival", got)
	}
	text := strings.Join(names, "")
	for _, want := range []string{"memory: reads one key", "another <&>", "9000×"} {
		if !strings.Contains(text, want) {
			t.Errorf("the chart lacks %q", want)
		}
	}
}

// The report names no place on the machine that it was made on.
func TestCommand(t *testing.T) {
	o, err := parse([]string{"-loopback", "", "-write", "/somewhere", "-rounds=3"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := o.command(), "go run . -loopback '' -rounds=3"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSpread(t *testing.T) {
	if got, want := spread([]float64{5, 1, 2, 4, 3}), (Spread{2, 3, 4}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := spread([]float64{7}), (Spread{7, 7, 7}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	for s, want := range map[Spread]bool{{1.9, 2, 2.1}: false, {1.5, 2, 2.1}: true} {
		if got := s.worthless(); got != want {
			t.Errorf("%v: got worthless %v, want %v", s, got, want)
		}
	}
}

// Each client has sessions of its own, and all of them come up.
func TestShares(t *testing.T) {
	m := &measured{cookies: strings.Split("abcdefghij", "")}
	owner := make(map[string]int)
	for i := range 3 {
		for p, n := m.share(i, 3, W1), 0; n < 1000; n++ {
			c := p.next()
			if o, ok := owner[c]; ok && o != i {
				t.Fatalf("session %s is used by clients %d and %d", c, o, i)
			}
			owner[c] = i
		}
	}
	if len(owner) != 10 {
		t.Errorf("got %d sessions in use, want 10", len(owner))
	}
}
