//go:build linux

package session2_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// openFair opens one of the stores that processes of one machine share.
func openFair(t testing.TB, kind, dir string) session2.Store {
	t.Helper()
	if kind == "file" {
		return openFile(t, filepath.Join(dir, "sessions"), nil)
	}
	return openGob(t, filepath.Join(dir, "sessions"))
}

// busyRecord is what the busy process saves, and otherRecord what the one saves
// that waits. In a FileStore they have the same lock.
func busyRecord() session2.Record { return houseRecord(1, "") }

func otherRecord() session2.Record {
	rec := houseRecord(1, "")
	rec.ID[8] = 2
	return rec
}

// startBusy starts the test again in a process that saves for ever.
func startBusy(t testing.TB, test, kind, dir string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^"+test+"$")
	cmd.Env = append(os.Environ(), "SESSION2_TEST_BUSY="+kind, "SESSION2_TEST_BUSY_DIR="+dir)
	out, err := cmd.StdoutPipe()
	testsite.Must(t, err)
	testsite.Must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "busy\n" {
		t.Fatalf("the busy process says %q", line)
	}
}

// beBusy does not return in a process that startBusy started: it saves one
// record until it is killed, and counts in the version.
func beBusy(t testing.TB) {
	kind := os.Getenv("SESSION2_TEST_BUSY")
	if kind == "" {
		return
	}
	s := openFair(t, kind, os.Getenv("SESSION2_TEST_BUSY_DIR"))
	rec := busyRecord()
	for rec.Version = 1; ; rec.Version++ {
		testsite.Must(t, s.Save(t.Context(), rec, rec.Version-1))
		if rec.Version == 1 {
			os.Stdout.WriteString("busy\n")
		}
	}
}

// savesBesideBusy saves n times beside a busy process, and returns, sorted, how
// many saves of the busy process fell into each of those, and how long each took.
func savesBesideBusy(t testing.TB, s session2.Store, n int) (turns []int, took []time.Duration) {
	t.Helper()
	count := func() session2.Version {
		rec, err := s.Load(t.Context(), busyRecord().ID)
		testsite.Must(t, err)
		return rec.Version
	}
	rec := otherRecord()
	for rec.Version = 1; len(turns) < n; rec.Version++ {
		for busy := count() + 3; count() < busy; { // until the other one is at it again
			time.Sleep(time.Millisecond)
		}
		before, start := count(), time.Now()
		testsite.Must(t, s.Save(t.Context(), rec, rec.Version-1))
		took = append(took, time.Since(start))
		turns = append(turns, int(count()-before))
	}
	slices.Sort(turns)
	slices.Sort(took)
	return turns, took
}

// Beside a process that saves all the time, another one's save waits for its
// turn and no longer. The busy process's saves are counted from before the save
// to after it: so one is under way at the beginning, and another at the end.
func TestSavesBesideBusyProcess(t *testing.T) {
	beBusy(t)
	for _, kind := range []string{"file", "gob"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			s := openFair(t, kind, dir)
			startBusy(t, "TestSavesBesideBusyProcess", kind, dir)
			turns, _ := savesBesideBusy(t, s, 51)
			if median := turns[len(turns)/2]; median > 4 {
				t.Errorf("while one save waited, the busy process had %d in the median, want 4 at most; all: %v", median, turns)
			}
		})
	}
}

// BenchmarkSaveBesideBusyProcess measures how long a save waits.
func BenchmarkSaveBesideBusyProcess(b *testing.B) {
	for _, kind := range []string{"file", "gob"} {
		b.Run(kind, func(b *testing.B) {
			dir := b.TempDir()
			s := openFair(b, kind, dir)
			startBusy(b, "TestSavesBesideBusyProcess", kind, dir)
			b.ResetTimer()
			turns, took := savesBesideBusy(b, s, b.N)
			b.ReportMetric(float64(turns[len(turns)/2]), "turns-median")
			b.ReportMetric(float64(turns[len(turns)-1]), "turns-max")
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
			b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "ms-max")
		})
	}
}
