package sqltest

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// exclusively serves one request of b by a handler in Exclusive, and returns its status.
func exclusively(st *testsite.Site, b *testsite.Browser, f func(s *session2.Session)) int {
	r := httptest.NewRequest("GET", "https://example.com/", nil)
	b.Clone().Send(r)
	w := httptest.NewRecorder()
	st.M.Exclusive(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f(st.M.Session(r))
		fmt.Fprint(w, "done")
	})).ServeHTTP(w, r)
	return w.Code
}

// exclusiveLoad makes n naive increments at once.
func exclusiveLoad(t *testing.T, st *testsite.Site, b *testsite.Browser, n int) {
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if status := exclusively(st, b, naive); status != http.StatusOK {
				t.Errorf("status %d", status)
			}
		})
	}
	wg.Wait()
}

// eachURL runs a test over each store, with what two processes may share in pairs.
func eachURL(t *testing.T, test func(t *testing.T, url string, processes int)) {
	each := func(scheme string, processes int) {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			url := scheme + ":"
			if scheme != "memory" {
				url += filepath.Join(t.TempDir(), "s")
			}
			test(t, url, processes)
		})
	}
	each("memory", 1)
	each("file", 2)
	each("bolt", 1)
	each("gob", 2)
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		t.Parallel()
		u := sqlURL(t, sys.name, dsn)
		u.RawQuery += "&table=" + sqlTable(t.TempDir())
		test(t, u.String(), 2)
	})
}

const exclusiveEnv = "SESSION2_EXCLUSIVE" // what the other process is to do

// exclusiveProcess runs a test in another process, with what that is to do.
func exclusiveProcess(test, what, url, token string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), exclusiveEnv+"="+what, naiveEnv+"="+url, naiveToken+"="+token)
	cmd.Stderr = os.Stderr
	return cmd
}

// exclusiveElsewhere is the other process.
func exclusiveElsewhere(t *testing.T, what string) {
	st := testsite.NewSite(t, openAt(t, os.Getenv(naiveEnv)), session2.Config{CommitTimeout: time.Minute})
	b := &testsite.Browser{Cookie: &http.Cookie{Name: "__Host-session", Value: os.Getenv(naiveToken)}}
	switch what {
	case "increments":
		exclusiveLoad(t, st, b, 16)
	case "hold":
		exclusively(st, b, func(s *session2.Session) {
			naive(s)
			fmt.Println("held")
			select {}
		})
	}
	if t.Failed() {
		os.Exit(1)
	}
	os.Exit(0)
}

// Of 32 naive increments at once all count, on every store, and by two processes where
// they may share it.
func TestExclusiveIncrements(t *testing.T) {
	if what := os.Getenv(exclusiveEnv); what != "" {
		exclusiveElsewhere(t, what)
	}
	eachURL(t, func(t *testing.T, url string, processes int) {
		st := testsite.NewSite(t, openAt(t, url), session2.Config{CommitTimeout: time.Minute})
		b := st.Login("alice")
		if processes == 2 {
			cmd := exclusiveProcess("TestExclusiveIncrements", "increments", url, b.Token())
			cmd.Stdout = os.Stderr
			testsite.Must(t, cmd.Start())
			defer func() {
				if err := cmd.Wait(); err != nil {
					t.Errorf("the other process: %v", err)
				}
				if n := st.Stored(b, "n"); n != 32 {
					t.Errorf("n = %v, want 32", n)
				}
			}()
		}
		exclusiveLoad(t, st, b, 32/processes)
		if n := st.Stored(b, "n"); processes == 1 && n != 32 {
			t.Errorf("n = %v, want 32", n)
		}
	})
}

// A holder that is killed keeps others from the session for the lease, 10 s, and no
// longer.
func TestExclusiveKilledHolder(t *testing.T) {
	if what := os.Getenv(exclusiveEnv); what != "" {
		exclusiveElsewhere(t, what)
	}
	eachURL(t, func(t *testing.T, url string, processes int) {
		if processes == 1 {
			return
		}
		st := testsite.NewSite(t, openAt(t, url), session2.Config{CommitTimeout: time.Minute})
		b := st.Login("alice")
		cmd := exclusiveProcess("TestExclusiveKilledHolder", "hold", url, b.Token())
		out, err := cmd.StdoutPipe()
		testsite.Must(t, err)
		testsite.Must(t, cmd.Start())
		line, err := bufio.NewReader(out).ReadString('\n')
		cmd.Process.Kill()
		cmd.Wait()
		if err != nil || strings.TrimSpace(line) != "held" {
			t.Fatalf("the other process printed %q: %v", line, err)
		}
		start := time.Now()
		status := exclusively(st, b, naive)
		if n := st.Stored(b, "n"); status != http.StatusOK || n != 1 {
			t.Errorf("status %d, n = %v", status, n)
		}
		if d := time.Since(start); d > 40*time.Second { // much more than 10 s, for a busy machine
			t.Errorf("the next one has waited for %v", d)
		}
	})
}

// While a handler runs, the database has nothing to do for it: with one connection,
// other requests go through, of the same session and in Exclusive.
func TestExclusiveHoldsNoConnection(t *testing.T) {
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		u := sqlURL(t, sys.name, dsn)
		u.RawQuery += "&conns=1&table=" + sqlTable(t.TempDir())
		st := testsite.NewSite(t, openAt(t, u.String()), session2.Config{CommitTimeout: time.Minute})
		b, other := st.Login("alice"), st.Login("bob")
		status := exclusively(st, b, func(s *session2.Session) {
			naive(s)
			st.Do(b.Clone(), func(s *session2.Session) { s.Set("color", "green") })
			if status := exclusively(st, other, naive); status != http.StatusOK {
				t.Errorf("another session's status %d", status)
			}
		})
		if n, color := st.Stored(b, "n"), st.Stored(b, "color"); status != http.StatusOK || n != 1 || color != "green" {
			t.Errorf("status %d, n = %v, color = %v", status, n, color)
		}
	})
}
