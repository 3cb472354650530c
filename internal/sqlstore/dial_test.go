package sqlstore

import (
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/lib/pq"
)

// TestCancelDialer finds that no socket is left behind: lib/pq forgets one where a server has
// no TLS, and one may come when the call is over.
func TestCancelDialer(t *testing.T) {
	d := new(cancelDialer)
	closed := func(c net.Conn) bool {
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		_, err := c.Read(make([]byte, 1))
		return err == io.EOF
	}
	var far []net.Conn
	dial := func() error {
		near, peer := net.Pipe()
		far = append(far, peer)
		return d.keep(near, 20*time.Millisecond)
	}
	for range 2 {
		if own, err := d.asks(), dial(); err != nil || own != nil {
			t.Fatalf("while it connects: got %v, and it asks %v", err, own)
		}
	}
	d.connected()
	for range 2 { // one for a statement that was prepared too late, and one for it
		if own, err := d.asks(), dial(); err != nil || own == nil || !d.isOver() {
			t.Fatalf("once it has connected: got %v, and it asks %v", err, own)
		}
	}
	if left := d.left(); left != 200*time.Millisecond {
		t.Errorf("a request to cancel has %v, want 200 ms", left)
	}
	d.cut()
	if err := dial(); err == nil {
		t.Error("a socket once it is cut: got no error")
	}
	for i, c := range far {
		if !closed(c) {
			t.Errorf("socket %d is not closed", i)
		}
	}
}

// TestConnectFails finds that no socket is left behind by a connection that comes to nothing.
func TestConnectFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := pq.NewConfig("postgres://" + l.Addr().String() + "/x?sslmode=prefer")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		l.Close() // lib/pq's second attempt, without TLS, finds nobody
		if err == nil {
			io.ReadFull(c, make([]byte, 8)) // may I speak TLS?
			c.Write([]byte("N"))
			_, err = c.Read(make([]byte, 1))
		}
		ended <- err
	}()
	if _, err := (PostgresConnector{Config: cfg}).Connect(t.Context()); err == nil {
		t.Error("got a connection to nobody")
	}
	if err := <-ended; err == nil {
		t.Error("the first socket says more, and is to be closed")
	}
}

// TestPromptOnlyInTime finds that without a timeout no call of lib/pq's is its caller's: to
// close a statement, database/sql waits for the server, and no context ends that.
func TestPromptOnlyInTime(t *testing.T) {
	for _, timeout := range []time.Duration{0, time.Second} {
		if got := isPrompt(&postgresConn{dialer: &cancelDialer{timeout: timeout}}); got != (timeout > 0) {
			t.Errorf("with a read bound of %v: got %v", timeout, got)
		}
	}
}

// TestCutOff finds that what several servers have said is not taken for silence.
func TestCutOff(t *testing.T) {
	cut := fmt.Errorf("read: %w", net.ErrClosed)
	if !cutOff(cut) || cutOff(errors.Join(errors.New("connection refused"), cut)) || cutOff(nil) {
		t.Error("an error of a socket that was closed, one of two hosts, or none, is taken for another")
	}
}
