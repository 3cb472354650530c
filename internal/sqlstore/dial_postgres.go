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
		err = ctx.Err()
	}
	if err != nil {
		d.cut() // lib/pq forgets a socket that it has tried TLS on
		return nil, err
	}
	return &postgresConn{conn.(fullConn), d}, nil // as it is, it would be used again once it is cut
}

// Driver implements [driver.Connector].
func (PostgresConnector) Driver() driver.Driver { return &pq.Driver{} }

// postgresConn is used no more once a call of it was to be cancelled, which lib/pq does where
// the server carries that out.
type postgresConn struct {
	fullConn
	dialer *cancelDialer
}

// IsValid implements [driver.Validator]. lib/pq's calls end after their requests to cancel.
func (c *postgresConn) IsValid() bool { return !c.dialer.isOver() && c.fullConn.IsValid() }

// tooMany are more arguments than any statement of ours has.
var tooMany = make([]driver.NamedValue, ManyIDs+2)

// end implements [ender]. lib/pq alone can ask the server to cancel what a connection does. It
// asks for a call whose context is done, at once, and beside another one. This call has too many
// arguments, so that it is over before anything is sent; where lib/pq notices that first, which
// happens half the time, it does not ask.
func (c *postgresConn) end(stmt driver.Stmt) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	call, ok := stmt.(driver.StmtExecContext)
	for try := 0; ok && try < 64 && !c.dialer.isOver(); try++ {
		call.ExecContext(ctx, tooMany)
	}
	if !c.dialer.isOver() {
		c.dialer.cut()
	}
}

// A cancelDialer makes the socket of one connection of lib/pq's, and then that by which the
// server is asked to cancel a call. There is such a request as soon as a call's context is
// done, and not otherwise. lib/pq waits for both: so soon after that, both are closed.
type cancelDialer struct {
	timeout time.Duration

	mu     sync.Mutex
	own    net.Conn      // the connection's
	took   time.Duration // to dial it
	done   bool          // it is complete
	asked  bool          // for a call to be cancelled,
	asking net.Conn      // by this
	isCut  bool
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
	dialer := net.Dialer{Timeout: d.timeout}
	if own := d.asks(); own != nil {
		network, addr = own.Network(), own.String() // not by name: that may be another server's by now
		dialer.Timeout = d.left()
		time.AfterFunc(dialer.Timeout, d.cut)
	}
	start := time.Now()
	c, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if d.timeout > 0 {
		c = &boundedConn{Conn: c, timeout: d.timeout}
	}
	return c, d.keep(c, time.Since(start))
}

// keep keeps a socket, to be cut, or closes it if that has been.
func (d *cancelDialer) keep(c net.Conn, took time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.isCut:
		c.Close()
		return net.ErrClosed
	case d.done:
		d.asking = inPlaceOf(d.asking, c)
	default: // of another host, or without TLS
		d.own, d.took = inPlaceOf(d.own, c), took
	}
	return nil
}

// inPlaceOf returns the new one of two sockets, and closes the old one.
func inPlaceOf(old, c net.Conn) net.Conn {
	if old != nil {
		old.Close()
	}
	return c
}

func (d *cancelDialer) connected() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.done = true
}

// asks notes if the next socket is for a request to cancel, and then returns whom to ask.
func (d *cancelDialer) asks() net.Addr {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.asked = d.done; d.asked {
		return d.own.RemoteAddr()
	}
	return nil
}

// left returns how long a request to cancel may take: if the server is far away, a few ways
// there and back, of which TLS alone needs three. A call waits for it.
func (d *cancelDialer) left() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return max(grace, min(10*d.took, 3*grace))
}

// isOver reports whether the connection is of no more use.
func (d *cancelDialer) isOver() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked || d.isCut
}

// cut ends what waits for the sockets.
func (d *cancelDialer) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.isCut = true
	for _, c := range []net.Conn{d.own, d.asking} {
		if c != nil {
			c.Close()
		}
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
