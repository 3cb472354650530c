package sqltest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/faultproxy"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
)

// crashEnv makes the test binary, run again, do the other half of a crashJob.
const crashEnv = "SESSION2_TEST_SQL_CRASH"

const (
	crashTotal   = 1000
	crashWorkers = 4 // in each of two processes

	// crashPace is how often each worker asks. A record remembers its latest 16
	// versions. Where more come while a request whose answer was lost waits for
	// its next attempt, that request remains uncertain: few at this pace, unless
	// the machine is busy with other things.
	crashPace  = 120 * time.Millisecond
	crashFault = 80 * time.Millisecond // how often connections break, beside the crash
	crashLimit = 8 * time.Minute       // after which a process gives up
)

// asked is a session's list of the requests that were carried out on it.
var asked = session2.NewKey[[]int]("asked")

// crashJob is the increments that one process asks for, each again and again
// until it is acknowledged. Each request has a number of its own, from First on.
type crashJob struct {
	URL          string
	Cookie       http.Cookie
	Count, First int
}

// tally is what became of each request of a job.
type tally struct {
	mu                               sync.Mutex
	Acknowledged, Refused, Uncertain []int
	Causes                           []string // of the uncertain ones
}

// run does the job, and calls progress after each acknowledged increment.
func (j crashJob) run(t *testing.T, progress func(acknowledged int)) *tally {
	store, err := session2.Open(t.Context(), j.URL)
	testsite.Must(t, err)
	defer store.(sqlStore).Close()
	st := testsite.NewSite(t, store, session2.Config{CommitTimeout: time.Minute, ErrorHandler: tellUncertain})
	var (
		wg        sync.WaitGroup
		sum       tally
		todo, num atomic.Int64
	)
	num.Store(int64(j.First))
	start := time.Now()
	for range crashWorkers {
		wg.Go(func() {
			b := &testsite.Browser{Cookie: &j.Cookie}
			pace := time.NewTicker(crashPace)
			defer pace.Stop()
			for todo.Add(1) <= int64(j.Count) {
				for done := false; !done && time.Since(start) < crashLimit; <-pace.C {
					done = sum.ask(st, b.Clone(), int(num.Add(1)), progress)
				}
			}
		})
	}
	wg.Wait()
	return &sum
}

// ask asks for one increment and reports whether it was acknowledged.
func (sum *tally) ask(st *testsite.Site, b *testsite.Browser, num int, progress func(int)) bool {
	res := st.Do(b, func(s *session2.Session) {
		increment(s)
		asked.Update(s, func(list []int) []int { return append(list, num) })
	})
	sum.mu.Lock()
	defer sum.mu.Unlock()
	switch cause := res.Header.Get("Uncertain"); {
	case res.StatusCode == http.StatusOK:
		sum.Acknowledged = append(sum.Acknowledged, num)
		progress(len(sum.Acknowledged))
		return true
	case cause != "":
		sum.Uncertain = append(sum.Uncertain, num)
		sum.Causes = append(sum.Causes, cause)
	default:
		sum.Refused = append(sum.Refused, num)
	}
	return false
}

// add adds what another process did.
func (sum *tally) add(o *tally) {
	sum.Acknowledged = append(sum.Acknowledged, o.Acknowledged...)
	sum.Refused = append(sum.Refused, o.Refused...)
	sum.Uncertain = append(sum.Uncertain, o.Uncertain...)
	sum.Causes = append(sum.Causes, o.Causes...)
}

// check compares what clients were told with what is stored: the count, and the
// requests that were carried out.
func (sum *tally) check(t *testing.T, n int, done []int) {
	t.Helper()
	times := make(map[int]int)
	for _, num := range done {
		times[num]++
	}
	landed := 0
	for _, num := range sum.Uncertain {
		landed += min(times[num], 1)
	}
	for _, num := range sum.Acknowledged {
		if times[num] != 1 {
			t.Errorf("request %d was acknowledged, and is there %d times", num, times[num])
		}
	}
	for _, num := range sum.Refused {
		if times[num] != 0 {
			t.Errorf("request %d was refused, and is there", num)
		}
	}
	if want := crashTotal + landed; n != want || len(done) != want || len(sum.Acknowledged) != crashTotal {
		t.Errorf("%d counted, %d there; want %d acknowledged and %d that were uncertain",
			n, len(done), crashTotal, landed)
	}
	if len(sum.Uncertain) > crashTotal {
		t.Errorf("%d requests were uncertain, the last by %q", len(sum.Uncertain), sum.Causes[len(sum.Causes)-1])
	}
}

// tellUncertain is an ErrorHandler for clients that want to know whether to
// repeat a request.
func tellUncertain(w http.ResponseWriter, _ *http.Request, err error) {
	if errors.Is(err, session2.ErrUncertain) {
		w.Header().Set("Uncertain", err.Error())
	}
	w.WriteHeader(http.StatusServiceUnavailable)
}

// TestSQLCrash counts to a thousand, in two processes, while connections break
// at random and after the server was killed and started again: each increment
// that was acknowledged is there once.
func TestSQLCrash(t *testing.T) {
	if text := os.Getenv(crashEnv); text != "" {
		var job crashJob
		testsite.Must(t, json.Unmarshal([]byte(text), &job))
		testsite.Must(t, json.NewEncoder(os.Stdout).Encode(job.run(t, func(int) {})))
		return
	}
	t.Parallel()
	for _, sys := range sqlSystems {
		t.Run(sys.name, func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			srv := sys.private(t)
			p := faultproxy.New(t, srv.Addr())
			countAcrossCrash(t, sys, srv, p, rand.New(rand.NewPCG(seed, 0)))
		})
	}
}

func countAcrossCrash(t *testing.T, sys sqlSystem, srv *testdb.Server, p *faultproxy.Proxy, rng *rand.Rand) {
	table := sqlTable(t.TempDir())
	store := sys.store(t, openSQL(t, sys.driver, srv.DSN()), session2.SQLOptions{Table: table})
	testsite.Must(t, store.Setup(t.Context()))
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")

	u := sqlURL(t, sys.name, strings.Replace(srv.DSN(), srv.Addr(), p.Addr(), 1))
	u.RawQuery += "&table=" + table
	job := crashJob{URL: u.String(), Cookie: *b.Cookie, Count: crashTotal / 2}
	stop := p.CutAtRandom(rng, crashFault)
	theirs := job.elsewhere(t)
	half, crashNow := context.WithCancel(t.Context())
	ours := make(chan *tally, 1)
	job.First = 1e6
	go func() {
		defer crashNow()
		ours <- job.run(t, func(acknowledged int) {
			if acknowledged == crashTotal/4 {
				crashNow()
			}
		})
	}()
	<-half.Done()
	srv.Kill()
	time.Sleep(time.Second) // longer than a call tries: it refuses connections meanwhile
	srv.Start()
	sum := <-ours
	sum.add(<-theirs)
	faults := stop()
	n, done := counted(st, b)
	t.Logf("%d acknowledged, %d refused, %d uncertain, %d counted; %d connections broken beside the crash",
		len(sum.Acknowledged), len(sum.Refused), len(sum.Uncertain), n, faults)
	sum.check(t, n, done)
	if faults == 0 {
		t.Error("no connection was broken: nothing was tested")
	}
}

var counter = session2.NewKey[int]("counter")

// counted returns what the session counted and which requests say so, once the
// pool has got rid of its broken connections.
func counted(st *testsite.Site, b *testsite.Browser) (n int, done []int) {
	st.T.Helper()
	if err := until(func() (bool, error) {
		res := st.Do(b, func(s *session2.Session) {
			n, _ = counter.Get(s)
			done, _ = asked.Get(s)
		})
		return res.StatusCode == http.StatusOK, nil
	}); err != nil {
		st.T.Errorf("the counter cannot be read: %v", err)
	}
	return n, done
}

// elsewhere does the job in another process.
func (j crashJob) elsewhere(t *testing.T) <-chan *tally {
	t.Helper()
	text, err := json.Marshal(j)
	testsite.Must(t, err)
	var out, log bytes.Buffer
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSQLCrash$")
	cmd.Env = append(os.Environ(), crashEnv+"="+string(text))
	cmd.Stdout, cmd.Stderr = &out, &log
	testsite.Must(t, cmd.Start())
	result := make(chan *tally, 1)
	go func() {
		var sum tally
		err := cmd.Wait()
		if err == nil {
			err = json.NewDecoder(&out).Decode(&sum)
		}
		if err != nil {
			t.Errorf("the other process: %v\n%s%s", err, out.Bytes(), log.Bytes())
		}
		result <- &sum
	}()
	return result
}
