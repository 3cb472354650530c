package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// mode is how requests come.
type mode struct {
	loopback bool // over TCP, or by calling the handler
	clients  int
}

// sample is what one round found.
type sample struct {
	nanos  float64 // for each request: with more than one client, less than a request takes
	allocs float64
	bytes  float64
}

// hotSessions is how many sessions are used where there is an idle timeout: few, so
// that each is used more than once a minute, as by somebody who is there.
const hotSessions = 1000

// measured is a contender that is open, and the cookies of its sessions.
type measured struct {
	contender
	*site
	cookies []string
}

// fill makes the contender's sessions by its own handler.
func (m *measured) fill(n, goroutines int) error {
	h := m.handler(W3)
	m.cookies = make([]string, n)
	var at atomic.Int64
	return together(goroutines, func(int) error {
		for c := newInProcess(h); ; {
			i := int(at.Add(1)) - 1
			if i >= n {
				return nil
			}
			if err := c.get(""); err != nil {
				return fmt.Errorf("%s: make sessions: %w", m.name, err)
			}
			if m.cookies[i] = c.cookie(); m.cookies[i] == "" {
				return fmt.Errorf("%s: make sessions: no cookie", m.name)
			}
		}
	})
}

// together calls f in so many goroutines.
func together(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// turn is a contender with what asks it for one workload.
type turn struct {
	*measured
	work    Workload
	clients []client
	shares  []*picks
	most    int // requests in a round
	close   func()
}

// tally is what the slices of a round add up to.
type tally struct {
	took          time.Duration
	processor     time.Duration
	requests      int
	allocs, bytes uint64
}

func (t *tally) sample(processor bool) sample {
	n, took := float64(t.requests), t.took
	if processor {
		took = t.processor
	}
	return sample{float64(took.Nanoseconds()) / n, float64(t.allocs) / n, float64(t.bytes) / n}
}

// slice makes requests for so long, or until the round has had its most.
func (t *turn) slice(sum *tally, d time.Duration) error {
	if sum.requests >= t.most {
		return nil
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start, busy := time.Now(), processorTime()
	n, err := t.ask(start.Add(d), t.most-sum.requests)
	sum.took += time.Since(start)
	sum.processor += processorTime() - busy
	runtime.ReadMemStats(&after)
	sum.requests += n
	sum.allocs += after.Mallocs - before.Mallocs
	sum.bytes += after.TotalAlloc - before.TotalAlloc
	if err != nil {
		return fmt.Errorf("%s: %v: %w", t.name, t.work, err)
	}
	return nil
}

// turn makes the clients for a workload, as many as the mode has.
func (m *measured) turn(w Workload, md mode) (*turn, error) {
	t := &turn{measured: m, work: w, most: m.most(w, md), close: func() {}}
	for i := range md.clients {
		t.shares = append(t.shares, m.share(i, md.clients, w))
	}
	h := m.handler(w)
	if md.loopback {
		return t, t.listen(h, md.clients)
	}
	for range md.clients {
		t.clients = append(t.clients, newInProcess(h))
	}
	return t, nil
}

// listen starts a server, and connects clients to it.
func (t *turn) listen(h http.Handler, clients int) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: h}
	ended := make(chan struct{})
	go func() {
		server.Serve(l)
		close(ended)
	}()
	t.close = func() {
		for _, c := range t.clients {
			c.close()
		}
		server.Close()
		<-ended
	}
	for range clients {
		c, err := dial(l.Addr().String())
		if err != nil {
			return err
		}
		t.clients = append(t.clients, c)
	}
	return nil
}

// most returns how many requests a round has at most: where each may make a session, the
// store must not become another one.
func (m *measured) most(w Workload, md mode) int {
	switch {
	case w == W3:
		return max(len(m.cookies)/10, md.clients)
	case w == W0 && m.kind == rival:
		return max(len(m.cookies), md.clients)
	}
	return math.MaxInt
}

// ask has the clients make their requests, and returns how many they made. Each client
// has sessions of its own.
func (t *turn) ask(until time.Time, most int) (int, error) {
	var all atomic.Int64
	err := together(len(t.clients), func(i int) error {
		n, err := t.askBy(t.clients[i], t.shares[i], until, max(1, most/len(t.clients)))
		all.Add(int64(n))
		return err
	})
	return int(all.Load()), err
}

// useAll has each session used once, so that what follows within a minute finds its access
// noted already.
func (t *turn) useAll() error {
	return together(len(t.clients), func(i int) error {
		for k := range t.shares[i].n {
			if err := t.clients[i].get(t.shares[i].cookie(int(k))); err != nil {
				return err
			}
		}
		return nil
	})
}

func (t *turn) askBy(c client, sessions *picks, until time.Time, most int) (n int, err error) {
	for batch := 1; n < most; {
		start := time.Now()
		for range min(batch, most-n) {
			cookie := ""
			if t.work.signedIn() {
				cookie = sessions.next()
			}
			if err := c.get(cookie); err != nil {
				return n, err
			}
			n++
		}
		now := time.Now()
		if !now.Before(until) {
			return n, nil
		}
		if now.Sub(start) < time.Millisecond { // to look at the clock costs as much as some requests
			batch *= 2
		}
	}
	return n, nil
}

// picks is a client's sessions, in an order that no cache likes.
type picks struct {
	cookies     []string
	first, step int
	n, at       uint32
}

func (m *measured) share(i, of int, w Workload) *picks {
	n := len(m.cookies)
	if w == W4 {
		n = min(n, hotSessions)
	}
	return &picks{cookies: m.cookies, first: i, step: of, n: uint32((n - i + of - 1) / of), at: uint32(i)}
}

func (p *picks) next() string {
	p.at = p.at*1664525 + 1013904223
	return p.cookie(int(uint64(p.at) * uint64(p.n) >> 32))
}

func (p *picks) cookie(k int) string { return p.cookies[p.first+k*p.step] }
