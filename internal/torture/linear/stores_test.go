package linear

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		os.Exit(child(text))
	}
	testdb.Main(m)
}

// tries runs histories with seeds of their own: n of them, or for TORTURE_SECONDS.
func tries(t *testing.T, n int, try func(seed uint64) counts) {
	t.Helper()
	seed := rand.Uint64() >> 12
	if text := os.Getenv("TORTURE_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	seconds, _ := strconv.Atoi(os.Getenv("TORTURE_SECONDS"))
	var sum counts
	start := time.Now()
	for i := 0; i < n || time.Since(start) < time.Duration(seconds)*time.Second; i++ {
		sum.add(try(seed + uint64(i)))
		if t.Failed() {
			break
		}
	}
	t.Logf("%v, in %v, from TORTURE_SEED=%d on", sum, time.Since(start).Round(time.Millisecond), seed)
}

// open opens a store several times, over the same data.
func open(t testing.TB, url string, times int) (stores []store) {
	t.Helper()
	for range times {
		s := connect(t, url)
		if err := session2.Setup(context.Background(), s); err != nil {
			t.Fatal(err)
		}
		stores = append(stores, s)
	}
	return stores
}

// connect opens a store that is set up already.
func connect(t testing.TB, url string) store {
	t.Helper()
	s, err := session2.Open(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session2.Close(s) })
	return s.(store)
}

// with adds an option to a URL.
func with(url, option string) string {
	if strings.Contains(url, "?") {
		return url + "&" + option
	}
	return url + "?" + option
}

func mysqlURL(t testing.TB) string { return testdb.MySQLURL(t, testdb.MySQL(t)) }

// try runs one history of goroutines over the stores, and checks it.
func try(t testing.TB, stores []store, p plan, r rules) counts {
	t.Helper()
	h := new(history)
	p.clients(stores, h)
	return finish(t, stores, h, p, r)
}

// finish ends a history, and checks it.
func finish(t testing.TB, stores []store, h *history, p plan, r rules) counts {
	t.Helper()
	if wrong := p.settle(stores, h); wrong != "" {
		t.Errorf("TORTURE_SEED=%d: %s", p.Seed, wrong)
	}
	r.keys = p.Keys
	h.must(t, p.Seed, r)
	return h.counts()
}

// Goroutines share a store, and openings of the same data in one process.
func TestGoroutines(t *testing.T) {
	for _, test := range []struct {
		name   string
		url    func(t *testing.T) string
		opened int
		n      int
		rules  rules
	}{
		{"memory", func(*testing.T) string { return "memory:" }, 1, 200, rules{exact: true}},
		{"cached", func(*testing.T) string { return "memory:" }, 1, 100, rules{exact: true}},
		{"file", func(t *testing.T) string { return "file:" + t.TempDir() }, 2, 30, rules{exact: true}},
		{"bolt", func(t *testing.T) string { return "bolt:" + t.TempDir() + "/b" }, 1, 20, rules{exact: true}},
		{"gob", func(t *testing.T) string { return "gob:" + t.TempDir() + "/g" }, 2, 30, rules{exact: true}},
		{"mysql", func(t *testing.T) string { return with(mysqlURL(t), "table=g") }, 2, 20, rules{skips: true}},
		{"postgres", func(t *testing.T) string { return with(testdb.Postgres(t), "table=g") }, 2, 20, rules{skips: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			stores := open(t, test.url(t), test.opened)
			if test.name == "cached" {
				stores = []store{cached(stores[0])}
			}
			tries(t, test.n, func(seed uint64) counts {
				p := newPlan(seed)
				r := test.rules
				if seed%2 == 0 {
					p.Cancel = 15
					r.exact = false
				}
				return try(t, stores, p, r)
			})
		})
	}
}
