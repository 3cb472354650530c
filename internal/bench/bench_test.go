package main

import (
	"os"
	"strings"
	"testing"

	"github.com/session2/session2/internal/testdb"
)

func TestMain(m *testing.M) { os.Exit(testdb.Run(m)) }

// TestEverything runs all of it with numbers that measure nothing, so that it cannot
// rot: each handler of each contender finds what it is to find.
func TestEverything(t *testing.T) {
	for _, g := range groups() {
		t.Run(g.store, func(t *testing.T) {
			if g.server != nil && testing.Short() {
				t.Skip("no database server is started under -short")
			}
			o, err := parse([]string{
				"-rounds", "1", "-seconds", "0.002", "-sessions", "130", "-files", "130", "-loopback", "2", "-growth", "100", "-sweep", "100",
			})
			if err != nil {
				t.Fatal(err)
			}
			o.quiet = true
			var report Report
			if err := runGroup(g, o, false, &report); err != nil {
				t.Fatal(err)
			}
			if _, err := growth(g, o); err != nil {
				t.Fatal(err)
			}
			if _, err := sweeps(g, o); err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			writeTables(&b, report.Tables)
			for _, c := range g.contenders {
				if got, want := strings.Count(b.String(), "| "+c.name+" |"), 2*len(workloads); got != want {
					t.Errorf("%s: got %d rows, want %d", c.name, got, want)
				}
			}
		})
	}
}
