package sqlstore

import (
	"context"
	"database/sql/driver"
	"net"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"
)

// MySQLConnector makes connections of go-sql-driver whose calls the store ends itself. It makes
// them in time, or none: those that a pool makes for callers who wait for one are made in
// nobody's time, one after the other, and a server that accepts one and says nothing would have
// them all wait for good.
type MySQLConnector struct {
	Config  *mysql.Config
	Timeout time.Duration // for one; zero or less is none
}

// Connect implements [driver.Connector].
func (c MySQLConnector) Connect(ctx context.Context) (driver.Conn, error) {
	ctx, cancel := within(ctx, c.Timeout)
	defer cancel()
	own := new(mysqlConn)
	cfg := c.Config.Clone()
	cfg.DialFunc = own.dial
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	conn, err := connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	own.fullConn = conn.(fullConn)
	return own, nil
}

// Driver implements [driver.Connector].
func (MySQLConnector) Driver() driver.Driver { return mysql.MySQLDriver{} }

// mysqlConn is used no more once a call of it was ended.
type mysqlConn struct {
	fullConn
	socket net.Conn
	ended  atomic.Bool
}

func (c *mysqlConn) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	socket, err := d.DialContext(ctx, network, addr)
	c.socket = socket
	return socket, err
}

// IsValid implements [driver.Validator].
func (c *mysqlConn) IsValid() bool { return !c.ended.Load() && c.fullConn.IsValid() }

// end implements [ender], as the driver itself ends a call.
func (c *mysqlConn) end(driver.Stmt) {
	c.ended.Store(true)
	c.socket.Close()
}
