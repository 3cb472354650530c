package sqlstore

import (
	"context"
	"database/sql/driver"
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

// BoundedConnector makes connections in time, or none. Those that a pool makes for callers
// who wait for one are made in nobody's time, one after the other: a server that accepts one
// and says nothing would have them all wait for good.
type BoundedConnector struct {
	driver.Connector
	Timeout time.Duration // for one; zero or less is none
}

// Connect implements [driver.Connector].
func (c BoundedConnector) Connect(ctx context.Context) (driver.Conn, error) {
	ctx, cancel := within(ctx, c.Timeout)
	defer cancel()
	return c.Connector.Connect(ctx)
}
