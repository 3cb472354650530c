package sqlstore

import (
	"io"
	"net"
	"testing"
	"time"
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
		_, asks := d.asks()
		if err := dial(); err != nil || asks {
			t.Fatalf("while it connects: got %v, or it asks already", err)
		}
	}
	d.connected()
	if left, asks := d.asks(); left != 200*time.Millisecond || !asks || !d.hasAsked() || dial() != nil {
		t.Fatalf("a socket after that is not for a request to cancel, or has %v, want 200 ms", left)
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
