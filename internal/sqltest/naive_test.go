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

// naive is the handler of everybody's first day.
func naive(s *session2.Session) {
	n, _ := s.Get("n").(int)
	s.Set("n", n+1)
}

// Of naive increments at once exactly the acknowledged ones count, on every
// store, and by two processes where they may share it.
func TestNaiveIncrements(t *testing.T) {
	if url := os.Getenv(naiveEnv); url != "" {
		naiveElsewhere(t, url)
	}
	test := func(t *testing.T, url string, processes int) {
		store := openAt(t, url)
		st := testsite.NewSite(t, store, session2.Config{CommitTimeout: time.Minute})
		b := st.Login("alice")
		st.Do(b, func(s *session2.Session) { s.Set("n", 0) })
		results := make(chan [2]int, 2)
		for range processes - 1 {
			go func() { results <- naiveProcess(t, url, b.Token()) }()
		}
		ok, refused := naiveLoad(t, st, b)
		for range processes - 1 {
			r := <-results
			ok, refused = ok+r[0], refused+r[1]
		}
		if got := st.Stored(b, "n"); got != ok {
			t.Errorf("n = %v after %d acknowledged and %d refused increments", got, ok, refused)
		}
		if ok == 0 || ok+refused != 64*processes {
			t.Errorf("%d acknowledged and %d refused of %d", ok, refused, 64*processes)
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

// openAt opens the store of a URL and sets it up.
func openAt(t *testing.T, url string) session2.Store {
	t.Helper()
	store, err := session2.Open(t.Context(), url)
	testsite.Must(t, err)
	t.Cleanup(func() { session2.Close(store) })
	testsite.Must(t, session2.Setup(t.Context(), store))
	return store
}

// naiveLoad makes 64 requests at once, and counts those that were acknowledged
// and those that were refused.
func naiveLoad(t *testing.T, st *testsite.Site, b *testsite.Browser) (ok, refused int) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			res := st.Visit(b.Clone(), func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
				naive(s)
				fmt.Fprint(w, "done")
			})
			mu.Lock()
			defer mu.Unlock()
			switch res.StatusCode {
			case http.StatusOK:
				ok++
			case http.StatusConflict:
				refused++
			default:
				t.Errorf("status %d", res.StatusCode)
			}
		})
	}
	wg.Wait()
	return ok, refused
}

const naiveEnv, naiveToken = "SESSION2_NAIVE_URL", "SESSION2_NAIVE_TOKEN"

// naiveProcess is naiveLoad in another process.
func naiveProcess(t *testing.T, url, token string) (counts [2]int) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestNaiveIncrements$")
	cmd.Env = append(os.Environ(), naiveEnv+"="+url, naiveToken+"="+token)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("the other process: %v\n%s", err, out)
		return counts
	}
	for i, field := range strings.Fields(string(out)) {
		if i < len(counts) {
			counts[i], err = strconv.Atoi(field)
			if err != nil {
				t.Errorf("the other process printed %q", out)
			}
		}
	}
	return counts
}

// naiveElsewhere is the other process.
func naiveElsewhere(t *testing.T, url string) {
	store := openAt(t, url)
	st := testsite.NewSite(t, store, session2.Config{CommitTimeout: time.Minute})
	b := &testsite.Browser{Cookie: &http.Cookie{Name: "__Host-session", Value: os.Getenv(naiveToken)}}
	ok, refused := naiveLoad(t, st, b)
	if t.Failed() {
		os.Exit(1)
	}
	fmt.Println(ok, refused)
	os.Exit(0)
}
