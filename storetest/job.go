package storetest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/session2/session2"
)

// jobVariable is the environment variable that makes a test binary do a job.
const jobVariable = "SESSION2_STORETEST_JOB"

// A job is what another process does to the data under Dir.
type job struct {
	Test string // the test whose Run is to do it
	Work string // a key of works
	Dir  string
	ID   session2.ID
	Seed uint64
	N    int
}

// works are the jobs there are.
var works = map[string]func(e *exam, j job) error{
	"count":  countJob,
	"create": createJob,
	"setup":  setupJob,
	"write":  writeJob,
	"change": changeJob,
}

// serve does the job that this process was started for, if there is one, and
// ends the process. It reports whether this Run has to keep out of the way of
// another one's job.
func (s *suite) serve(t testing.TB) bool {
	text := os.Getenv(jobVariable)
	if text == "" {
		return false
	}
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		t.Fatalf("storetest: %s: %v", jobVariable, err)
	}
	if j.Test != t.Name() {
		return true
	}
	if err := s.perform(t, j); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0) // past package testing, whose output is no report
	return true
}

// perform opens the store, waits for the start signal and works. The process
// does not outlive the one that started it, which holds its standard input.
func (s *suite) perform(t testing.TB, j job) error {
	e := &exam{TB: t, suite: s, rand: rand.New(rand.NewPCG(s.Seed, j.Seed)), dir: j.Dir}
	e.store = e.another()
	report("ready", 0)
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("waiting for the start: %w", err)
	}
	joined := make(chan struct{})
	e.joined = joined
	go func() {
		if _, err := os.Stdin.Read(make([]byte, 1)); err == nil {
			close(joined)
			io.Copy(io.Discard, os.Stdin)
		}
		os.Exit(2)
	}()
	if err := works[j.Work](e, j); err != nil {
		return err
	}
	return closeStore(e.store)
}

// rounds calls f until every process of the job has called it, and once more then:
// there is a time at which all are at work, however late one of them is started.
func (e *exam) rounds(f func() error) error {
	for round, last := 0, false; !last; round++ {
		select {
		case <-e.joined:
			last = true
		default:
		}
		if err := f(); err != nil {
			return err
		}
		if round == 0 {
			report(joins, 0)
		}
	}
	return nil
}

const (
	reportPrefix = "storetest: "
	joins        = "joins" // what a process reports after its first round
)

// report tells the process that waits something, in one write.
func report(word string, n int) {
	os.Stdout.WriteString(fmt.Sprintf("%s%s %d\n", reportPrefix, word, n))
}

// A process is a job that is being done.
type process struct {
	*exam
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	output *bufio.Scanner
	errors bytes.Buffer
}

// start starts a process that opens the store and waits for its signal.
func (e *exam) start(j job) *process {
	e.Helper()
	j.Test, j.Dir, j.Seed = e.suite.test, e.dir, e.rand.Uint64()
	text, err := json.Marshal(j)
	if err != nil {
		e.Fatalf("%v", err)
	}
	binary, err := os.Executable()
	if err != nil {
		e.Fatalf("%v", err)
	}
	p := &process{exam: e, cmd: exec.CommandContext(e.ctx(), binary, "-test.run="+only(j.Test))}
	p.cmd.Env = append(os.Environ(), jobVariable+"="+string(text),
		"GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE")) // or the race detector sleeps a second at each exit
	p.cmd.Stderr = &p.errors
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		e.Fatalf("%v", err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		e.Fatalf("%v", err)
	}
	p.output = bufio.NewScanner(stdout)
	if err := p.cmd.Start(); err != nil {
		e.Fatalf("%v", err)
	}
	e.Cleanup(func() { // a process still at work must be gone before its directory goes
		p.kill()
		p.cmd.Wait()
	})
	return p
}

// only is the pattern that runs one test and no other.
func only(test string) string {
	parts := strings.Split(test, "/")
	for i, part := range parts {
		parts[i] = "^" + regexp.QuoteMeta(part) + "$"
	}
	return strings.Join(parts, "/")
}

// next returns the next report of the process; ok is false at the end.
func (p *process) next() (word string, n int, ok bool) {
	for p.output.Scan() {
		line, ours := strings.CutPrefix(p.output.Text(), reportPrefix)
		if _, err := fmt.Sscan(line, &word, &n); ours && err == nil {
			return word, n, true
		}
	}
	return "", 0, false
}

// signal lets the processes begin at once when all have opened the store.
func (e *exam) signal(all ...*process) {
	e.Helper()
	for _, p := range all {
		if word, _, _ := p.next(); word != "ready" {
			p.cmd.Wait()
			e.Fatalf("another process could not open the store: %s", p.errors.String())
		}
	}
	for _, p := range all {
		if _, err := p.stdin.Write([]byte("\n")); err != nil {
			e.Fatalf("%v", err)
		}
	}
}

// reports collects the numbers that the process reports until the word, or its end.
func (p *process) reports(until string) (all []int) {
	for {
		word, n, ok := p.next()
		if !ok || word == until {
			return all
		}
		all = append(all, n)
	}
}

// finish collects the numbers that the process reports until its end, and wants
// the job done.
func (p *process) finish() []int {
	p.Helper()
	reports := p.reports("")
	if err := p.cmd.Wait(); err != nil {
		p.Fatalf("another process: %v: %s", err, p.errors.String())
	}
	return reports
}

// kill ends the process as kill -9 does. Its reports so far can still be read.
func (p *process) kill() { p.cmd.Process.Kill() }

// parallel runs n processes of one job, in rounds or not, and returns what each
// reported.
func (e *exam) parallel(n int, j job) [][]int {
	e.Helper()
	all := make([]*process, n)
	for i := range all {
		all[i] = e.start(j)
	}
	e.signal(all...)
	reports := make([][]int, n)
	for i, p := range all {
		reports[i] = p.reports(joins)
	}
	for _, p := range all {
		p.stdin.Write([]byte("\n")) // finish says why one has ended
	}
	for i, p := range all {
		reports[i] = append(reports[i], p.finish()...)
	}
	return reports
}
