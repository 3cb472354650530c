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
	connector driver.Connector
	timeout   time.Duration // for one; zero or less is none
}

// NewMySQLConnector returns one. It changes the configuration, which is its own from then on.
func NewMySQLConnector(cfg *mysql.Config, timeout time.Duration) (MySQLConnector, error) {
	cfg.DialFunc = dialMySQL
	connector, err := mysql.NewConnector(cfg)
	return MySQLConnector{connector, timeout}, err
}

// Connect implements [driver.Connector].
func (c MySQLConnector) Connect(ctx context.Context) (driver.Conn, error) {
	ctx, cancel := within(ctx, c.timeout)
	defer cancel()
	own := new(mysqlConn)
	conn, err := c.connector.Connect(context.WithValue(ctx, dialed{}, own))
	if err != nil {
		return nil, err
	}
	own.fullConn = conn.(fullConn)
	return own, nil
}

// Driver implements [driver.Connector].
func (c MySQLConnector) Driver() driver.Driver { return c.connector.Driver() }

// dialed is the key of the connection that is being made, in the context of its making.
type dialed struct{}

func dialMySQL(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	socket, err := d.DialContext(ctx, network, addr)
	ctx.Value(dialed{}).(*mysqlConn).socket = socket
	return socket, err
}

// mysqlConn is used no more once a call of it was ended.
type mysqlConn struct {
	fullConn
	socket net.Conn
	ended  atomic.Bool
}

// IsValid implements [driver.Validator].
func (c *mysqlConn) IsValid() bool { return !c.ended.Load() && c.fullConn.IsValid() }

// end implements [ender], as the driver itself ends a call.
func (c *mysqlConn) end(driver.Stmt) {
	c.ended.Store(true)
	c.socket.Close()
}
