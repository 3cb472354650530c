package linear

import (
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/session2/session2/internal/faultproxy"
	"github.com/session2/session2/internal/testdb"
)

// servers are the kinds of database servers. Each test has one of its own.
var servers = []struct {
	name    string
	start   func(t testing.TB, conf ...string) *testdb.Server
	url     func(t testing.TB, dsn string) string
	forgets bool // see rules
}{
	{"mysql", func(t testing.TB, conf ...string) *testdb.Server {
		return testdb.NewMySQL(t, append(conf, "log-bin = binlog", "sync-binlog = 1")...)
	}, testdb.MySQLURL, false},
	{"mysql without a binary log", testdb.NewMySQL, testdb.MySQLURL, true}, // see docs/STORES.md
	{"postgres", testdb.NewPostgres, func(_ testing.TB, dsn string) string { return dsn }, false},
}

// TestServers has the network between the stores and their server lose answers and break
// connections, and then kills the server.
func TestServers(t *testing.T) {
	for _, sys := range servers {
		t.Run(sys.name, func(t *testing.T) {
			t.Parallel()
			srv := sys.start(t)
			stores := open(t, with(sys.url(t, srv.DSN()), "timeout=10s"), 2)
			t.Run("network", func(t *testing.T) {
				proxy := faultproxy.New(t, srv.Addr())
				url := with(sys.url(t, strings.Replace(srv.DSN(), srv.Addr(), proxy.Addr(), 1)), "timeout=500ms")
				stores := []store{connect(t, url), connect(t, with(url, "noprepare=true"))}
				tries(t, 6, func(seed uint64) counts { return overNetwork(t, stores, proxy, newPlan(seed)) })
			})
			t.Run("killed", func(t *testing.T) {
				r := rules{skips: true, forgets: sys.forgets}
				tries(t, 2, func(seed uint64) counts { return killing(t, stores, srv, newPlan(seed), r) })
			})
		})
	}
}

// overNetwork runs a history while the network is in trouble.
func overNetwork(t *testing.T, stores []store, proxy *faultproxy.Proxy, p plan) counts {
	p.Retried, p.Alone = true, p.Seed%2 == 0
	if p.Alone {
		p.Keys += 4
	}
	h := new(history)
	n := troubled(h, proxy, rand.New(rand.NewPCG(p.Seed, 2)))
	p.clients(stores, h)
	h.added = nil
	proxy.Delay(0)
	c := finish(t, stores, h, p, rules{skips: true})
	c.faults = *n
	return c
}

// troubled has the network do something every few calls, and returns how often it has.
func troubled(h *history, proxy *faultproxy.Proxy, rng *rand.Rand) *int {
	var mu sync.Mutex
	events, next, n := 0, 10, 0
	h.added = func() {
		mu.Lock()
		defer mu.Unlock()
		if events++; events < next {
			return
		}
		next = events + 3 + rng.IntN(12)
		n++
		trouble(proxy, rng)
	}
	return &n
}

func trouble(proxy *faultproxy.Proxy, rng *rand.Rand) {
	switch rng.IntN(40) {
	case 0, 1, 2:
		proxy.Cut()
	case 3, 4:
		proxy.Finish()
	case 5, 6, 7:
		proxy.Delay(time.Duration(rng.IntN(5)) * time.Millisecond)
	case 8: // costs each a timeout
		proxy.HoldAnswer()
	case 9, 10: // for about as long as a call tries
		proxy.DropAnswer()
		proxy.Refuse(true)
		time.Sleep(time.Duration(300+rng.IntN(300)) * time.Millisecond)
		proxy.Refuse(false)
	case 11:
		proxy.Hang(true)
		time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
		proxy.Hang(false)
	default:
		proxy.DropAnswer()
	}
}

// killing runs a history while the server is killed and started again.
func killing(t *testing.T, stores []store, srv *testdb.Server, p plan, r rules) counts {
	p.Retried, p.Clients, p.Calls = true, 5, 12
	h := new(history)
	k := newKiller(h, 2, rand.New(rand.NewPCG(p.Seed, 2)))
	p.gate = k.gate
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.clients(stores, h)
	}()
	k.kill(srv, ended)
	h.added = nil
	c := finish(t, stores, h, p, r)
	c.kills = k.kills
	return c
}

// killer kills a server a few times, each after so many calls. While the server is
// down, no call begins: one that does would get no definite result.
type killer struct {
	h     *history
	rng   *rand.Rand
	due   chan struct{} // has an element when the server is to be killed
	kills int

	down sync.RWMutex // held while the server is down

	mu     sync.Mutex
	events int
	next   int
	left   int
}

func newKiller(h *history, kills int, rng *rand.Rand) *killer {
	k := &killer{h: h, rng: rng, due: make(chan struct{}, kills), next: 20 + rng.IntN(40), left: kills}
	h.added = k.added
	return k
}

func (k *killer) added() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.events++; k.events >= k.next && k.left > 0 {
		k.left--
		k.next = k.events + 10 + k.rng.IntN(50)
		k.due <- struct{}{}
	}
}

func (k *killer) gate() {
	k.down.RLock()
	defer k.down.RUnlock()
}

// kill kills the server whenever that is due, until the clients have ended.
func (k *killer) kill(srv *testdb.Server, ended <-chan struct{}) {
	for {
		select {
		case <-ended:
			return
		case <-k.due:
		}
		k.killNow(srv)
	}
}

func (k *killer) killNow(srv *testdb.Server) {
	k.down.Lock()
	defer k.down.Unlock()
	crash := k.h.begin(999, call{Op: opCrash})
	srv.Kill()
	k.h.end(crash, answer{Status: done})
	srv.Start()
	k.kills++
}
