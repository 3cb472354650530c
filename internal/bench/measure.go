package main

import (
	"errors"
	"fmt"
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
	nanos  float64 // of time for each request: with more than one client, less than a request takes
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

// round makes requests for so long, and at most so many.
func (m *measured) round(w Workload, md mode, d time.Duration, most int) (s sample, err error) {
	clients, done, err := m.clients(w, md)
	defer done()
	if err != nil {
		return s, err
	}
	runtime.GC() // nobody pays for what another one left
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	n, err := m.work(clients, w, start.Add(d), most)
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	if err != nil {
		return s, fmt.Errorf("%s: %v: %w", m.name, w, err)
	}
	return sample{
		nanos:  float64(took.Nanoseconds()) / float64(n),
		allocs: float64(after.Mallocs-before.Mallocs) / float64(n),
		bytes:  float64(after.TotalAlloc-before.TotalAlloc) / float64(n),
	}, nil
}

// clients returns as many as the mode has, and what ends them.
func (m *measured) clients(w Workload, md mode) (list []client, done func(), err error) {
	h := m.handler(w)
	if !md.loopback {
		for range md.clients {
			list = append(list, newInProcess(h))
		}
		return list, func() {}, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, func() {}, err
	}
	server := &http.Server{Handler: h}
	ended := make(chan struct{})
	go func() {
		server.Serve(l)
		close(ended)
	}()
	done = func() {
		for _, c := range list {
			c.close()
		}
		server.Close()
		<-ended
	}
	for range md.clients {
		c, err := dial(l.Addr().String())
		if err != nil {
			return nil, done, err
		}
		list = append(list, c)
	}
	return list, done, nil
}

// work has the clients make their requests, and returns how many they made. Each
// client has sessions of its own.
func (m *measured) work(clients []client, w Workload, until time.Time, most int) (int, error) {
	var all atomic.Int64
	err := together(len(clients), func(i int) error {
		mine := m.share(i, len(clients), w)
		c, n := clients[i], 0
		defer func() { all.Add(int64(n)) }()
		for batch := 1; n < most/len(clients); {
			start := time.Now()
			for range min(batch, most/len(clients)-n) {
				cookie := ""
				if w.signedIn() {
					cookie = mine.next()
				}
				if err := c.get(cookie); err != nil {
					return err
				}
				n++
			}
			now := time.Now()
			if !now.Before(until) {
				return nil
			}
			if now.Sub(start) < time.Millisecond { // to look at the clock costs as much as some requests
				batch *= 2
			}
		}
		return nil
	})
	return int(all.Load()), err
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
	k := int(uint64(p.at) * uint64(p.n) >> 32)
	return p.cookies[p.first+k*p.step]
}
