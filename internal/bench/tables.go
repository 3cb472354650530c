package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// writeTables writes the results as Markdown.
func writeTables(w io.Writer, tables []Table) {
	for _, t := range tables {
		writeTable(w, &t)
	}
}

func (t *Table) title() string {
	place, how := "in memory, nothing waits for a disk", "in process"
	if t.Durable {
		place = "on a disk, durable"
	}
	if t.Loopback {
		how = "over loopback"
	}
	clients := "one client"
	if t.Clients > 1 {
		clients = fmt.Sprint(t.Clients, " clients")
	}
	return fmt.Sprintf("%s: %s, %s, %s", t.Store, how, clients, place)
}

func writeTable(w io.Writer, t *Table) {
	floors := 0
	for _, r := range t.Results {
		floors = max(floors, len(r.Ratios))
	}
	head := []string{"", "", "time", "× floor"}
	if t.Processor {
		head[2] = "processor"
	}
	if floors > 1 {
		head = append(head, "× barest floor")
	}
	if memory := !t.Loopback && t.Clients == 1; memory {
		head = append(head, "allocs", "bytes")
	}
	fmt.Fprintf(w, "#### %s; %d sessions\n\n", t.title(), t.Sessions)
	line(w, head...)
	line(w, slices.Repeat([]string{"---"}, len(head))...)
	last := Workload(-1)
	for _, r := range t.Results {
		work := ""
		if r.Workload != last {
			work, last = r.Workload.String(), r.Workload
		}
		line(w, append([]string{work, r.Contender}, r.cells(len(head)-2, floors)...)...)
	}
	fmt.Fprintln(w)
}

// cells are a result's, so many of them.
func (r *Result) cells(n, floors int) []string {
	if r.Missing {
		return slices.Repeat([]string{"–"}, n)
	}
	cells := []string{r.time()}
	for i := range max(1, floors) {
		if i < len(r.Ratios) {
			cells = append(cells, r.Ratios[i].String())
		} else {
			cells = append(cells, "")
		}
	}
	if len(cells) < n {
		cells = append(cells, fmt.Sprintf("%.0f", r.Allocs), fmt.Sprintf("%.0f", r.Bytes))
	}
	return cells
}

// time is the median.
func (r *Result) time() string { return duration(r.Nanos.Median) }

// String is the median with the quartiles. What they make worthless is in parentheses
// and has a question mark.
func (s Spread) String() string {
	if s.worthless() {
		return fmt.Sprintf("(%s?) %s–%s", number(s.Median), number(s.Low), number(s.High))
	}
	return fmt.Sprintf("**%s** %s–%s", number(s.Median), number(s.Low), number(s.High))
}

// number has three digits.
func number(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

func duration(nanos float64) string {
	switch d := time.Duration(nanos); {
	case d < time.Microsecond:
		return fmt.Sprintf("%.0f ns", nanos)
	case d < time.Millisecond:
		return number(nanos/1e3) + " µs"
	}
	return number(nanos/1e6) + " ms"
}

func line(w io.Writer, cells ...string) {
	fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
}
