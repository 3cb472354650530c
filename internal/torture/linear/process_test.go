package linear

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
)

// childEnv makes the test binary, run again, do a job.
const childEnv = "SESSION2_TORTURE_CHILD"

// job is what a child process does.
type job struct {
	Plan   plan
	URL    string
	Behind bool // break the store: see writeBehind
}

// child does a job: it runs clients, and writes their history to its standard output.
func child(text string) int {
	if err := runChild(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func runChild(text string) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	s, err := session2.Open(context.Background(), j.URL)
	if err != nil {
		return err
	}
	defer session2.Close(s)
	own := s.(store)
	if j.Behind {
		own = writeBehind(own)
	}
	j.Plan.clients([]store{own}, &history{out: os.Stdout})
	return nil
}

// fate is what happens to a child once it has written so many lines; 0: never.
type fate struct {
	kill  int // kill -9
	pause int // it is stopped for a while, whatever it holds
}

// children are processes that add to one history.
type children struct {
	t *testing.T
	h *history

	kills, pauses atomic.Int64
}

// run does a job in another process, and waits until that has ended.
func (c *children) run(j job, f fate) {
	text, err := json.Marshal(j)
	if err != nil {
		c.t.Error(err)
		return
	}
	var log bytes.Buffer
	cmd := exec.Command(os.Args[0]) // if this process dies, it cannot write any more
	cmd.Env = append(os.Environ(), childEnv+"="+string(text), "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		c.t.Error(err)
		return
	}
	killed := c.read(out, cmd.Process, f)
	if err := cmd.Wait(); err != nil && !killed {
		c.t.Errorf("a child process: %v\n%s", err, log.Bytes())
	}
}

// read takes the lines of a process, and does to it what its fate is.
func (c *children) read(out io.Reader, p *os.Process, f fate) (killed bool) {
	lines := bufio.NewReader(out)
	begun := make(map[int]*event)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return killed
		}
		e := new(event)
		if err := json.Unmarshal(line, e); err != nil {
			c.t.Errorf("%v in %q", err, line)
			continue
		}
		if b := begun[e.Num]; b != nil {
			c.h.ended(b, e.Answer, e.End)
		} else {
			begun[e.Num] = e
			c.h.add(e)
		}
		switch n {
		case f.kill:
			killed = true
			c.kills.Add(1)
			p.Kill()
		case f.pause:
			c.pauses.Add(1)
			p.Signal(syscall.SIGSTOP)
			time.AfterFunc(20*time.Millisecond, func() { p.Signal(syscall.SIGCONT) })
		}
	}
}

// counts sums up the history.
func (c *children) counts(n counts) counts {
	n.kills, n.faults = int(c.kills.Load()), int(c.pauses.Load())
	return n
}

// drawFate draws a fate for a process that writes so many lines.
func drawFate(rng *rand.Rand, lines int) (f fate) {
	if rng.IntN(3) > 0 {
		f.kill = 1 + rng.IntN(lines)
	}
	if rng.IntN(2) == 0 {
		f.pause = 1 + rng.IntN(lines)
	}
	return f
}

// newJob draws a job for one of several processes.
func newJob(p plan, url string, first int) job {
	p.Clients, p.Calls, p.First = 2, 8, first
	return job{Plan: p, URL: url}
}

func (j *job) lines() int { return 2 * j.Plan.Clients * j.Plan.Calls }

// Processes share a store, beside goroutines of this one; they are killed, others take
// their place, and some stand still in the midst of a call.
func TestProcesses(t *testing.T) {
	for _, test := range []struct {
		name  string
		url   func(t *testing.T) string
		n     int
		rules rules
	}{
		{"file", func(t *testing.T) string { return "file:" + t.TempDir() }, 6, rules{exact: true}},
		{"gob", func(t *testing.T) string { return "gob:" + t.TempDir() + "/g" }, 6, rules{exact: true}},
		{"mysql", func(t *testing.T) string { return with(mysqlURL(t), "table=p") }, 3, rules{skips: true}},
		{"postgres", func(t *testing.T) string { return with(testdb.Postgres(t), "table=p") }, 3, rules{skips: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			url := test.url(t)
			stores := open(t, url, 1)
			tries(t, test.n, func(seed uint64) counts {
				p := newPlan(seed)
				p.Clients, p.Calls = 1, 20
				c := &children{t: t, h: new(history)}
				c.beside(p, stores, url)
				return c.counts(finish(t, stores, c.h, p, test.rules))
			})
		})
	}
}

// beside runs children, and clients of this process beside them.
func (c *children) beside(p plan, stores []store, url string) {
	rng := rand.New(rand.NewPCG(p.Seed, 2))
	fates := []fate{drawFate(rng, 32), drawFate(rng, 32)}
	var wg sync.WaitGroup
	for i, f := range fates {
		wg.Go(func() {
			c.run(newJob(p, url, 100*(i+1)), f)
			if f.kill > 0 { // another one takes its place
				c.run(newJob(p, url, 100*(i+1)+50), fate{})
			}
		})
	}
	wg.Go(func() { p.clients(stores, c.h) })
	wg.Wait()
}

// A bolt store is one process's at a time: one after the other is killed.
func TestProcessesBolt(t *testing.T) {
	t.Parallel()
	url := "bolt:" + t.TempDir() + "/b?timeout=1m"
	tries(t, 5, func(seed uint64) counts {
		p := newPlan(seed)
		rng := rand.New(rand.NewPCG(seed, 2))
		c := &children{t: t, h: new(history)}
		for i := range 3 {
			j := newJob(p, url, 100*i)
			j.Plan.Clients = 4
			c.run(j, fate{kill: 1 + rng.IntN(j.lines())})
		}
		stores := open(t, url, 1)
		defer session2.Close(stores[0])
		return c.counts(finish(t, stores, c.h, p, rules{exact: true}))
	})
}
