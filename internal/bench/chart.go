package main

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
)

// Bar is one contender's ratio to its floor.
type Bar struct {
	Name  string
	Ratio float64
	Ours  bool
}

// Panel is the bars of one store and one workload.
type Panel struct {
	Title string
	Bars  []Bar
}

// chartOf takes what a visitor wants to know: reading, and reading and writing, in
// process by one client in memory. With all sessions in turns, a cache has nothing to say.
func chartOf(tables []Table) (panels []Panel) {
	for _, t := range tables {
		if t.Loopback || t.Durable || t.Clients != 1 {
			continue
		}
		for _, w := range []Workload{W1, W2} {
			p := Panel{Title: fmt.Sprintf("%s: %s", t.Store, workloads[w].text)}
			for _, r := range t.Results {
				if r.Workload == w && r.Kind != floor && !r.Missing && !strings.HasSuffix(r.Contender, cacheSuffix) {
					p.Bars = append(p.Bars, Bar{r.Contender, r.Ratios[0].Median, r.Kind == ours})
				}
			}
			if len(p.Bars) > 0 {
				panels = append(panels, p)
			}
		}
	}
	return panels
}

// The chart's measures, in its own units.
const (
	chartWidth, labelWidth, barHeight, barStep, panelGap = 760, 260, 14, 20, 34
	barWidth                                             = chartWidth - labelWidth - 70
)

// writeChart draws the bars on a scale of logarithms, from 1, which is the floor. The
// colours go with light and dark.
func writeChart(w io.Writer, panels []Panel) {
	most, height := 10.0, 40
	for _, p := range panels {
		height += panelGap + barStep*len(p.Bars)
		for _, b := range p.Bars {
			most = max(most, b.Ratio)
		}
	}
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" `+
		`aria-label="Ratios to the floor" font-family="system-ui, sans-serif" font-size="12">
<style>
text { fill: #1f2328 } .note { fill: #59636e } .ours { fill: #1a7f5a } .rival { fill: #9aa4af }
.floor { stroke: #59636e }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .note { fill: #9198a1 } .ours { fill: #3fb984 } .rival { fill: #656c76 }
.floor { stroke: #9198a1 }
}
</style>
`, chartWidth, height)
	fmt.Fprintf(w, `<text class="note" x="0" y="14">Times the floor, the same work by hand. `+
		"Shorter is better; the scale is logarithmic.</text>\n")
	y := 20
	for _, p := range panels {
		y += panelGap
		fmt.Fprintf(w, `<text x="0" y="%d" font-weight="600">%s</text>`+"\n", y-10, html.EscapeString(p.Title))
		fmt.Fprintf(w, `<line class="floor" x1="%d" x2="%[1]d" y1="%d" y2="%d"/>`+"\n",
			labelWidth, y-4, y+barStep*len(p.Bars)-2)
		for _, b := range p.Bars {
			writeBar(w, b, y, most)
			y += barStep
		}
	}
	fmt.Fprintln(w, "</svg>")
}

func writeBar(w io.Writer, b Bar, y int, most float64) {
	class := "rival"
	if b.Ours {
		class = "ours"
	}
	length := barWidth * math.Log(max(b.Ratio, 1.005)) / math.Log(most)
	fmt.Fprintf(w, `<text x="%d" y="%d" text-anchor="end">%s</text>`, labelWidth-8, y+11, html.EscapeString(b.Name))
	fmt.Fprintf(w, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`,
		class, labelWidth, y, length, barHeight)
	fmt.Fprintf(w, `<text class="note" x="%.1f" y="%d">%s×</text>`+"\n", labelWidth+length+6, y+11, number(b.Ratio))
}
