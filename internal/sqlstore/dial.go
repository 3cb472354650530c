package sqlstore

import (
	"context"
	"database/sql/driver"
	"net"
	"sync"
	"time"

	"github.com/lib/pq"
)

// PostgresConnector makes connections of lib/pq on which a call ends soon after its context.
// lib/pq itself waits for an answer even when the context is done, unless the server carries
// out its request to cancel.
type PostgresConnector struct {
	Config  pq.Config
	Timeout time.Duration // of a read, for what has no context; zero or less is none
}

// Connect implements [driver.Connector].
func (c PostgresConnector) Connect(ctx context.Context) (driver.Conn, error) {
	connector, err := pq.NewConnectorConfig(c.Config)
	if err != nil {
		return nil, err
	}
	d := &cancelDialer{timeout: max(c.Timeout, 0)}
	connector.Dialer(d)
	stop := context.AfterFunc(ctx, d.cut)
	conn, err := connector.Connect(ctx)
	d.connected()
	if !stop() && err == nil { // it may be cut by now
		conn.Close()
		return nil, ctx.Err()
	}
	return conn, err
}

// Driver implements [driver.Connector].
func (PostgresConnector) Driver() driver.Driver { return &pq.Driver{} }

// A cancelDialer makes the socket of one connection of lib/pq's, and then those by which
// the server is asked to cancel a call. There is such a request as soon as a call's context
// is done, and not otherwise; the connection is of no use any more. So that is when a server
// that does not answer has lost it.
type cancelDialer struct {
	timeout time.Duration

	mu   sync.Mutex
	sock net.Conn // the connection's own
	done bool     // and it is complete
}

// Dial implements [pq.Dialer].
func (d *cancelDialer) Dial(network, addr string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, addr)
}

// DialTimeout implements [pq.Dialer].
func (d *cancelDialer) DialTimeout(network, addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := within(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, addr)
}

// DialContext implements [pq.DialerContext].
func (d *cancelDialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	if d.isConnected() {
		time.AfterFunc(grace, d.cut)
	}
	dialer := net.Dialer{Timeout: d.timeout}
	c, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if d.timeout > 0 {
		c = &boundedConn{Conn: c, timeout: d.timeout}
	}
	d.keep(c)
	if err := ctx.Err(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// keep keeps the socket if it is the connection's own.
func (d *cancelDialer) keep(c net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.done {
		d.sock = c
	}
}

func (d *cancelDialer) connected() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.done = true
}

func (d *cancelDialer) isConnected() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}

// cut ends what waits for the connection's socket.
func (d *cancelDialer) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sock != nil {
		d.sock.Close()
	}
}

// boundedConn is a socket whose reads end in time: only this gives a pool its connection
// back that it uses by itself, without a context.
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
