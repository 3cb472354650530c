package main

import (
	"fmt"
	"io"
	"slices"
)

// brief is a short table: a line for each contender.
type brief struct {
	title   string
	durable bool // on a disk, where the floors have a line, too
	mode    mode
	cell    func(r *Result) string // of a result that is not missing
}

// briefs are what a reader wants first: what requests cost one after the other, and how many
// are answered for 64 clients, each beside the barest floor; and then what users get.
var briefs = []brief{
	{
		title: "In process, one client: how many times as long as the barest floor's a request takes (less is better)",
		mode:  mode{clients: 1},
		cell:  func(r *Result) string { return r.besideBarest(func(ratio float64) float64 { return ratio }) },
	},
	{
		title: "Over loopback, 64 clients: how many requests are answered while the barest floor answers one " +
			"(more is better; by processor time, the clients' included, where there is no server)",
		mode: mode{loopback: true, clients: 64},
		cell: func(r *Result) string { return r.besideBarest(func(ratio float64) float64 { return 1 / ratio }) },
	},
	{
		title:   "On a disk, all durable, over loopback, one client: how long a request takes",
		durable: true,
		mode:    mode{loopback: true, clients: 1},
		cell:    (*Result).time,
	},
	{
		title:   "The same with 64 clients: the time that passes for each request, of which 64 are under way",
		durable: true,
		mode:    mode{loopback: true, clients: 64},
		cell:    (*Result).time,
	},
}

// writeSummary writes the short tables.
func writeSummary(w io.Writer, tables []Table) {
	for _, b := range briefs {
		b.write(w, tables)
	}
}

func (b *brief) write(w io.Writer, tables []Table) {
	var works []Workload
	var lines [][]string
	for _, t := range tables {
		if t.Durable != b.durable || t.Loopback != b.mode.loopback || t.Clients != b.mode.clients {
			continue
		}
		for _, r := range t.Results {
			if !slices.Contains(works, r.Workload) {
				works = append(works, r.Workload)
			}
		}
		lines = append(lines, b.lines(&t)...)
	}
	if len(lines) == 0 {
		return
	}
	head := []string{"", ""}
	for _, work := range works {
		head = append(head, work.String())
	}
	fmt.Fprintf(w, "%s:\n\n", b.title)
	line(w, head...)
	line(w, slices.Repeat([]string{"---"}, len(head))...)
	for _, cells := range lines {
		line(w, cells...)
	}
	fmt.Fprintln(w)
}

// lines are what it says of a table.
func (b *brief) lines(t *Table) (lines [][]string) {
	at := make(map[string]int)
	for _, r := range t.Results {
		if r.Kind == floor && !b.durable {
			continue
		}
		i, found := at[r.Contender]
		if !found {
			i = len(lines)
			at[r.Contender] = i
			lines = append(lines, []string{t.Store, r.Contender})
		}
		cell := "–"
		if !r.Missing {
			cell = b.cell(&r)
		}
		lines[i] = append(lines[i], cell)
	}
	return lines
}

// besideBarest is what comes of the ratio to the barest floor, marked where that is worthless.
func (r *Result) besideBarest(of func(ratio float64) float64) string {
	barest := r.Ratios[len(r.Ratios)-1]
	text := number(of(barest.Median))
	if barest.worthless() {
		return "(" + text + "?)"
	}
	return text
}
