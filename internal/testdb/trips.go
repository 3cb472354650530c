package testdb

import (
	"net"
	"sync/atomic"
)

// Trips counts round trips: how often a client sends something and then waits.
type Trips struct{ n atomic.Int64 }

// Count returns their number so far, over all connections.
func (t *Trips) Count() int { return int(t.n.Load()) }

// Conn returns the connection, counted.
func (t *Trips) Conn(c net.Conn) net.Conn { return &tripConn{Conn: c, trips: t} }

// tripConn counts the writes that come after a read: each begins a round trip.
type tripConn struct {
	net.Conn
	trips *Trips
	sent  atomic.Bool
}

func (c *tripConn) Write(p []byte) (int, error) {
	if !c.sent.Swap(true) {
		c.trips.n.Add(1)
	}
	return c.Conn.Write(p)
}

func (c *tripConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.sent.Store(false)
	return n, err
}
