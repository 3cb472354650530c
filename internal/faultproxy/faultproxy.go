// Package faultproxy is a TCP proxy for tests: it passes bytes between clients
// and one server until a test tells it to lose them. It knows no protocol, but
// that a client asks and a server answers.
package faultproxy

import (
	"io"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy listens on loopback. Goroutines may share it.
type Proxy struct {
	target   string
	listener net.Listener
	wg       sync.WaitGroup // of all its goroutines
	done     chan struct{}  // closed when the proxy is

	mu     sync.Mutex
	links  map[*link]bool // those that are open; nil when the proxy is closed
	refuse bool
	again  chan struct{} // closed when the listener listens again; nil: it does
	hang   bool
	delay  time.Duration
	drop   chan struct{} // closed once the answer to the next request is lost; nil: none is to be
	hold   bool          // the connection of that answer is to be silent, and not reset
}

// link is one client's connection and the proxy's own to the server. Its fields
// belong to the proxy's mutex.
type link struct {
	client, server *net.TCPConn
	hung           bool          // silent for good
	drop           chan struct{} // as the proxy's, for the request under way
	hold           bool          // likewise
}

// New starts a proxy to the server at target. It ends with the test, and all
// its connections with it.
func New(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{target: target, listener: l, done: make(chan struct{}), links: make(map[*link]bool)}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// listen listens on a port that is asked for by its number: Linux keeps no other while it
// refuses connections.
func listen() (l net.Listener, err error) {
	for range 10 {
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, err
		}
		addr := l.Addr().String()
		l.Close()
		if l, err = net.Listen("tcp", addr); err == nil { // or somebody else was faster
			return l, nil
		}
	}
	return nil, err
}

// Addr returns the host and the port that clients connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Refuse has new connections refused, or lets them through again. Where the system cannot
// do so and keep the port, they are taken, and end at once.
func (p *Proxy) Refuse(on bool) {
	p.set(func() {
		if p.refuse == on {
			return
		}
		p.refuse = on
		if !setListening(p.listener, !on) {
			return
		}
		if on {
			p.again = make(chan struct{})
		} else if p.again != nil {
			close(p.again)
			p.again = nil
		}
	})
}

// Delay makes each piece of data wait before it is passed on, either way.
func (p *Proxy) Delay(d time.Duration) { p.set(func() { p.delay = d }) }

// Hang swallows whatever is sent either way and keeps the connections open, new
// ones too, as a network does that has lost a host. Hang(false) lets new
// connections through; those that were open stay silent.
func (p *Proxy) Hang(on bool) {
	p.set(func() {
		p.hang = on
		for l := range p.links {
			l.hung = true
		}
	})
}

// DropAnswer makes the proxy swallow the answer to the next request on any
// connection, and reset that connection: the server has done what it was asked
// and the client does not know. The channel is closed once that has happened.
func (p *Proxy) DropAnswer() <-chan struct{} {
	dropped := make(chan struct{})
	p.set(func() { p.drop, p.hold = dropped, false })
	return dropped
}

// HoldAnswer is DropAnswer, but the connection stays open and is silent from then
// on: the client waits for an answer that the server has given.
func (p *Proxy) HoldAnswer() <-chan struct{} {
	held := make(chan struct{})
	p.set(func() { p.drop, p.hold = held, true })
	return held
}

// Cut resets all connections and returns their number.
func (p *Proxy) Cut() int { return p.end(math.MaxInt, true) }

// Finish ends all connections in good order, in between what is being said, and
// returns their number.
func (p *Proxy) Finish() int { return p.end(math.MaxInt, false) }

// CutAtRandom cuts connections and drops answers every so often, on average,
// until stop is called, which returns how often it did.
func (p *Proxy) CutAtRandom(rng *rand.Rand, every time.Duration) (stop func() int) {
	stopped, faults := make(chan struct{}), make(chan int, 1)
	p.wg.Go(func() {
		n := 0
		defer func() { faults <- n }()
		for {
			select {
			case <-p.done:
				return
			case <-stopped:
				return
			case <-time.After(time.Duration(rng.Int64N(2 * int64(every)))):
				n += p.fault(rng)
			}
		}
	})
	return func() int {
		close(stopped)
		return <-faults
	}
}

// fault does one thing of those that break connections and returns how many it
// breaks.
func (p *Proxy) fault(rng *rand.Rand) int {
	switch rng.IntN(8) {
	case 0:
		return p.Cut()
	case 1, 2:
		return p.end(1, true)
	case 3:
		return p.end(1, false)
	default:
		p.DropAnswer()
		return 1
	}
}

func (p *Proxy) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// end ends so many connections, whichever, and returns how many there were.
func (p *Proxy) end(most int, reset bool) (n int) {
	p.set(func() { n = p.endLinks(most, reset) })
	return n
}

// endLinks is end for a caller who holds the mutex.
func (p *Proxy) endLinks(most int, reset bool) (n int) {
	for l := range p.links {
		if n == most {
			return n
		}
		p.endLink(l, reset)
		n++
	}
	return n
}

// endLink ends one connection on both sides, once. The caller holds the mutex.
func (p *Proxy) endLink(l *link, reset bool) {
	if p.links[l] {
		delete(p.links, l)
		l.end(reset)
	}
}

func (l *link) end(reset bool) {
	for _, c := range []*net.TCPConn{l.client, l.server} {
		if reset {
			c.SetLinger(0)
		}
		c.Close()
	}
}

func (p *Proxy) close() {
	close(p.done)
	p.listener.Close()
	p.set(func() { // at once: a link that came in between would never end
		p.endLinks(math.MaxInt, true)
		p.links = nil
	})
	p.wg.Wait()
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil && p.listensAgain() {
			continue
		}
		if err != nil {
			return
		}
		p.wg.Go(func() { p.connect(c.(*net.TCPConn)) })
	}
}

// listensAgain waits for the end of a refusal, and reports that it was one.
func (p *Proxy) listensAgain() bool {
	p.mu.Lock()
	again := p.again
	p.mu.Unlock()
	if again != nil {
		select {
		case <-again:
		case <-p.done:
		}
	}
	select {
	case <-p.done:
		return false
	default: // it may have been over before it was noticed
		return true
	}
}

// connect connects a client to the server, if it may be.
func (p *Proxy) connect(client *net.TCPConn) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		client.SetLinger(0)
		client.Close()
		return
	}
	l := &link{client: client, server: server.(*net.TCPConn)}
	p.set(func() {
		if p.refuse || p.links == nil {
			l.end(true)
			return
		}
		p.links[l] = true
		l.hung = p.hang
		p.wg.Go(func() { p.pump(l, l.server, l.client, p.asks) })
		p.wg.Go(func() { p.pump(l, l.client, l.server, p.answers) })
	})
}

// pump passes on what src sends, if may says so, until one side ends.
func (p *Proxy) pump(l *link, dst io.Writer, src io.Reader, may func(*link) bool) {
	defer p.set(func() {
		if !l.hung { // else the other side does not hear of it
			p.endLink(l, false)
		}
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if err != nil {
			return
		}
		p.wait()
		if !may(l) {
			continue
		}
		if _, err := dst.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (p *Proxy) wait() {
	p.mu.Lock()
	d := p.delay
	p.mu.Unlock()
	time.Sleep(d)
}

// asks notes that a client asks something, and reports whether it may.
func (p *Proxy) asks(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.hung {
		return false
	}
	if l.drop == nil {
		l.drop, l.hold, p.drop = p.drop, p.hold, nil
	}
	return true
}

// answers notes that the server answers, and reports whether it may.
func (p *Proxy) answers(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.drop != nil {
		close(l.drop)
		l.drop = nil
		if l.hung = l.hold; !l.hung {
			p.endLink(l, true)
		}
		return false
	}
	return !l.hung
}
