package main

import (
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"text/template"
	"time"
)

// Report is all that docs/BENCHMARKS.md says.
type Report struct {
	Date    time.Time
	Command string
	Machine string // the processor, cores, system, Go
	Servers []string
	Modules []string // what was measured, with its versions
	Rounds  int
	Round   time.Duration
	Within  time.Duration // a round in which the handler is called
	Trips   []TripTable
	Growth  []Growth
	Sweeps  []Sweep
	Tables  []Table
}

//go:embed report.md
var reportText string

// write writes the report as Markdown.
func (r *Report) write(w io.Writer) error {
	t := template.New("report").Funcs(template.FuncMap{
		"join":      func(list []string) string { return strings.Join(list, ", ") },
		"date":      func(t time.Time) string { return t.UTC().Format(time.DateOnly) },
		"workloads": workloadList,
		"summary":   func(tables []Table) string { return text(func(w io.Writer) { writeSummary(w, tables) }) },
		"tables":    func(tables []Table) string { return text(func(w io.Writer) { writeTables(w, tables) }) },
		"growth":    func(rows []Growth) string { return text(func(w io.Writer) { writeGrowth(w, rows) }) },
		"sweeps":    func(rows []Sweep) string { return text(func(w io.Writer) { writeSweeps(w, rows) }) },
		"trips":     func(tables []TripTable) string { return text(func(w io.Writer) { writeTrips(w, tables) }) },
	})
	if _, err := t.Parse(reportText); err != nil {
		return err
	}
	return t.Execute(w, r)
}

func text(write func(io.Writer)) string {
	var b strings.Builder
	write(&b)
	return strings.TrimRight(b.String(), "\n")
}

func workloadList() string {
	return text(func(w io.Writer) {
		for _, work := range []Workload{W0, W0b, W1, W2, W3, W4} {
			fmt.Fprintf(w, "- **%v**: %s\n", work, workloads[work].text)
		}
	})
}

// save writes the report and the chart into a directory.
func (r *Report) save(dir string) error {
	var md, svg strings.Builder
	if err := r.write(&md); err != nil {
		return err
	}
	writeChart(&svg, chartOf(r.Tables))
	if err := os.WriteFile(filepath.Join(dir, "BENCHMARKS.md"), []byte(md.String()), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "benchmarks.svg"), []byte(svg.String()), 0o644)
}

// machine says what this is, and nothing that names it.
func machine() string {
	return fmt.Sprintf("%s, %d cores, %s/%s, %s", processor(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH,
		runtime.Version())
}

// processor returns the model, where the system says it as Linux does.
func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for _, line := range strings.Split(string(b), "\n") {
		if name, model, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(model)
		}
	}
	return runtime.GOARCH
}

// modules returns the versions of what is measured.
func modules() (list []string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	for _, m := range info.Deps {
		for _, about := range []string{
			"alexedwards/scs", "gorilla/sessions", "go-chi/session", "lib/pq", "jackc/pgx", "go-sql-driver", "etcd.io/bbolt",
		} {
			if strings.Contains(m.Path, about) {
				list = append(list, m.Path+" "+m.Version)
			}
		}
	}
	return list
}
