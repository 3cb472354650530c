package faultproxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// server answers each line by itself and counts them.
func server(t *testing.T) (addr string, lines *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	lines = new(atomic.Int64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for in := bufio.NewScanner(c); in.Scan(); {
					lines.Add(1)
					fmt.Fprintln(c, in.Text())
				}
			}()
		}
	}()
	return l.Addr().String(), lines
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type client struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, p *Proxy) *client {
	t.Helper()
	c, err := tryDial(t, p)
	must(t, err)
	return c
}

// tryDial is dial where the proxy may be so fast that connecting fails.
func tryDial(t *testing.T, p *Proxy) (*client, error) {
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	return &client{t, c, bufio.NewReader(c)}, nil
}

// ask sends a line and returns the answer.
func (c *client) ask(line string) (string, error) {
	c.t.Helper()
	if _, err := fmt.Fprintln(c, line); err != nil {
		return "", err
	}
	return c.in.ReadString('\n')
}

// echoed checks that the connection works.
func (c *client) echoed(line string) {
	c.t.Helper()
	if got, err := c.ask(line); got != line+"\n" || err != nil {
		c.t.Errorf("asked %q: got %q, %v", line, got, err)
	}
}

// setUp returns a proxy, and a client that is through.
func setUp(t *testing.T) (*Proxy, *client, *atomic.Int64) {
	t.Helper()
	addr, lines := server(t)
	p := New(t, addr)
	c := dial(t, p)
	c.echoed("hello")
	return p, c, lines
}

func TestCut(t *testing.T) {
	p, c, _ := setUp(t)
	dial(t, p).echoed("another")
	if got := p.Cut(); got != 2 {
		t.Errorf("cut %d connections, want 2", got)
	}
	if _, err := c.ask("lost"); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("got %v, want a reset", err)
	}
	dial(t, p).echoed("again")
}

func TestFinish(t *testing.T) {
	p, c, _ := setUp(t)
	if got := p.Finish(); got != 1 {
		t.Errorf("ended %d connections, want 1", got)
	}
	if _, err := c.in.ReadByte(); err != io.EOF {
		t.Errorf("got %v, want %v", err, io.EOF)
	}
	dial(t, p).echoed("again")
}

func TestRefuse(t *testing.T) {
	p, c, lines := setUp(t)
	for range 3 {
		p.Refuse(true)
		c, err := tryDial(t, p)
		if err == nil {
			if got, err := c.ask("may I?"); err == nil {
				t.Errorf("refused, and got %q", got)
			}
		}
		if runtime.GOOS == "linux" && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got %v, want %v", err, syscall.ECONNREFUSED)
		}
		p.Refuse(false)
		dial(t, p).echoed("there again")
	}
	p.Refuse(true)
	c.echoed("still here")
	p.Refuse(false)
	dial(t, p).echoed("again")
	if got := lines.Load(); got != 6 {
		t.Errorf("the server got %d lines, want 6", got)
	}
}

func TestDelay(t *testing.T) {
	p, c, _ := setUp(t)
	const d = 20 * time.Millisecond
	p.Delay(d)
	start := time.Now()
	c.echoed("slow")
	if got := time.Since(start); got < 2*d {
		t.Errorf("got an answer after %v, want %v", got, 2*d)
	}
}

func TestDropAnswer(t *testing.T) {
	p, c, lines := setUp(t)
	dropped := p.DropAnswer()
	if got, err := c.ask("do it"); err == nil {
		t.Errorf("got the answer %q", got)
	}
	<-dropped
	if got := lines.Load(); got != 2 {
		t.Errorf("the server got %d lines, want 2", got)
	}
	dial(t, p).echoed("again")
}

func TestHang(t *testing.T) {
	p, c, lines := setUp(t)
	p.Hang(true)
	for _, c := range []*client{c, dial(t, p)} {
		must(t, c.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
		if got, err := c.ask("anybody?"); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %q, %v, want %v", got, err, os.ErrDeadlineExceeded)
		}
	}
	p.Hang(false)
	dial(t, p).echoed("again")
	if got := lines.Load(); got != 2 {
		t.Errorf("the server got %d lines, want 2", got)
	}
}

func TestCutAtRandom(t *testing.T) {
	p, c, _ := setUp(t)
	seed := rand.Uint64()
	stop := p.CutAtRandom(rand.New(rand.NewPCG(seed, 0)), time.Millisecond)
	broken := 0
	for broken < 5 {
		if _, err := c.ask("on and on"); err == nil {
			continue
		}
		broken++
		for again, err := tryDial(t, p); ; again, err = tryDial(t, p) {
			if err == nil {
				c = again
				break
			}
		}
	}
	if got := stop(); got < broken {
		t.Errorf("seed %d: %d connections broke, and it says %d", seed, broken, got)
	}
}

// TestServerGone finds that a client is not left waiting for a server that is
// not there.
func TestServerGone(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := New(t, l.Addr().String())
	l.Close()
	c, err := tryDial(t, p)
	if err == nil {
		_, err = c.in.ReadByte()
	}
	if err == nil {
		t.Error("got an answer, and there is no server")
	}
}

// TestCloseBesideConnections closes proxies while clients come: close ends all that
// have come, and so returns.
func TestCloseBesideConnections(t *testing.T) {
	addr, _ := server(t)
	for range 500 {
		t.Run("proxy", func(t *testing.T) {
			var clients sync.WaitGroup
			t.Cleanup(clients.Wait) // after the proxy is closed
			p := New(t, addr)
			for range 16 {
				clients.Go(func() {
					if c, err := net.Dial("tcp", p.Addr()); err == nil {
						c.Close()
					}
				})
			}
		})
	}
}
