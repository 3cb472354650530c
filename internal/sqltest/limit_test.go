package sqltest

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

const limitEnv, limitReject = "SESSION2_LIMIT_URL", "SESSION2_LIMIT_REJECT"

// Logins at once leave exactly as many sessions as one user may have, on every store,
// and from two processes where they may share it.
func TestMaxPerUserFromSeveralProcesses(t *testing.T) {
	if url := os.Getenv(limitEnv); url != "" {
		limitElsewhere(t, url)
	}
	const most, logins = 3, 6
	test := func(t *testing.T, url string, processes int) {
		store := openAt(t, url)
		for _, reject := range []bool{false, true} {
			st := limitSite(t, store, reject)
			for info, err := range st.M.Sessions(t.Context(), "alice") {
				testsite.Must(t, err)
				testsite.Must(t, st.M.Revoke(t.Context(), info.ID))
			}
			accepted := make(chan int, processes)
			for range processes - 1 {
				go func() { accepted <- limitProcess(t, url, reject) }()
			}
			accepted <- limitLogins(st, logins)
			got, live, want := 0, 0, processes*logins
			for range processes {
				got += <-accepted
			}
			for _, err := range st.M.Sessions(t.Context(), "alice") {
				testsite.Must(t, err)
				live++
			}
			if reject {
				want = most
			}
			if live != most || got != want {
				t.Errorf("reject %t: %d sessions after %d logins were accepted, want %d after %d",
					reject, live, got, most, want)
			}
		}
	}
	t.Run("memory", func(t *testing.T) { test(t, "memory:", 1) })
	t.Run("file", func(t *testing.T) { test(t, "file:"+filepath.Join(t.TempDir(), "s"), 2) })
	t.Run("bolt", func(t *testing.T) { test(t, "bolt:"+filepath.Join(t.TempDir(), "s"), 1) })
	t.Run("gob", func(t *testing.T) { test(t, "gob:"+filepath.Join(t.TempDir(), "s"), 2) })
	eachSQL(t, func(t *testing.T, sys sqlSystem, dsn string) {
		u := sqlURL(t, sys.name, dsn)
		u.RawQuery += "&table=" + sqlTable(t.TempDir())
		test(t, u.String(), 2)
	})
}

func limitSite(t *testing.T, store session2.Store, reject bool) *testsite.Site {
	return testsite.NewSite(t, store,
		session2.Config{MaxPerUser: 3, RejectLogin: reject, CommitTimeout: time.Minute})
}

// limitLogins signs alice in so often at once, and returns how often she was let in.
func limitLogins(st *testsite.Site, logins int) (accepted int) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range logins {
		wg.Go(func() {
			res := st.Visit(&testsite.Browser{}, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
				s.SetUser("alice")
				http.Redirect(w, r, "/", http.StatusSeeOther)
			})
			mu.Lock()
			defer mu.Unlock()
			switch res.StatusCode {
			case http.StatusSeeOther:
				accepted++
			case http.StatusConflict:
			default:
				st.T.Errorf("status %d", res.StatusCode)
			}
		})
	}
	wg.Wait()
	return accepted
}

// limitProcess is limitLogins in another process.
func limitProcess(t *testing.T, url string, reject bool) int {
	cmd := exec.Command(os.Args[0], "-test.run=^TestMaxPerUserFromSeveralProcesses$")
	cmd.Env = append(os.Environ(), limitEnv+"="+url, limitReject+"="+strconv.FormatBool(reject))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("the other process: %v\n%s", err, out)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Errorf("the other process printed %q", out)
	}
	return n
}

// limitElsewhere is the other process.
func limitElsewhere(t *testing.T, url string) {
	n := limitLogins(limitSite(t, openAt(t, url), os.Getenv(limitReject) == "true"), 6)
	if t.Failed() {
		os.Exit(1)
	}
	fmt.Println(n)
	os.Exit(0)
}
