package main

import (
	"fmt"
	"io"
	"slices"
)

// writeSummary writes one line for each contender: what its requests cost one after the
// other, and how many it answers for 64 clients, each beside the barest floor.
func writeSummary(w io.Writer, tables []Table) {
	writeLines(w, tables, mode{clients: 1}, func(ratio float64) float64 { return ratio })
	writeLines(w, tables, mode{loopback: true, clients: 64}, func(ratio float64) float64 { return 1 / ratio })
}

// writeLines writes what a mode's tables say, in memory.
func writeLines(w io.Writer, tables []Table, md mode, of func(ratio float64) float64) {
	var works []Workload
	var lines [][]string
	for _, t := range tables {
		if t.Durable || t.Loopback != md.loopback || t.Clients != md.clients {
			continue
		}
		for _, r := range t.Results {
			if !slices.Contains(works, r.Workload) {
				works = append(works, r.Workload)
			}
		}
		lines = append(lines, t.lines(of)...)
	}
	if len(lines) == 0 {
		return
	}
	head := []string{"", ""}
	for _, work := range works {
		head = append(head, work.String())
	}
	fmt.Fprintf(w, "%s:\n\n", map[bool]string{
		false: "In process, one client: how many times as long as the barest floor's a request takes (less is better)",
		true: "Over loopback, 64 clients: how many requests are answered while the barest floor answers one (more is better; " +
			"by processor time, the clients' included, where there is no server)",
	}[md.loopback])
	line(w, head...)
	line(w, slices.Repeat([]string{"---"}, len(head))...)
	for _, cells := range lines {
		line(w, cells...)
	}
	fmt.Fprintln(w)
}

// lines are a table's, one for each contender that is no floor.
func (t *Table) lines(of func(ratio float64) float64) (lines [][]string) {
	at := make(map[string]int)
	for _, r := range t.Results {
		if r.Kind == floor {
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
			barest := r.Ratios[len(r.Ratios)-1]
			cell = number(of(barest.Median))
			if barest.worthless() {
				cell = "(" + cell + "?)"
			}
		}
		lines[i] = append(lines[i], cell)
	}
	return lines
}
