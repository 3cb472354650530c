package sqlstore

import (
	"net"
	"time"
)

// BoundedDialer makes connections whose reads end in time. lib/pq waits for an
// answer even when its context is done, unless the server carries out its
// request to cancel. The store gives up on such a call, and only this gives the
// pool its connection back where the server hangs.
type BoundedDialer struct {
	Timeout time.Duration // of a read; zero or less is none
}

// Dial implements [pq.Dialer].
func (d BoundedDialer) Dial(network, addr string) (net.Conn, error) {
	return d.DialTimeout(network, addr, max(d.Timeout, 0))
}

// DialTimeout implements [pq.Dialer].
func (d BoundedDialer) DialTimeout(network, addr string, timeout time.Duration) (net.Conn, error) {
	c, err := net.DialTimeout(network, addr, timeout)
	if err != nil || d.Timeout <= 0 {
		return c, err
	}
	return &boundedConn{Conn: c, timeout: d.Timeout}, nil
}

type boundedConn struct {
	net.Conn
	timeout  time.Duration
	deadline time.Time // that the driver set, for its connect_timeout
}

// SetDeadline implements [net.Conn].
func (c *boundedConn) SetDeadline(t time.Time) error {
	c.deadline = t
	return c.Conn.SetDeadline(t)
}

// Read implements [io.Reader].
func (c *boundedConn) Read(p []byte) (int, error) {
	end := time.Now().Add(c.timeout)
	if !c.deadline.IsZero() && c.deadline.Before(end) {
		end = c.deadline
	}
	if err := c.SetReadDeadline(end); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}
