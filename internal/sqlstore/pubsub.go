package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/lib/pq"
)

// channel is where the caches of a database's stores publish. IDs are random, so that
// several stores may share it.
const channel = "session2"

// PubSub is [session2.PubSub] by LISTEN and NOTIFY, over one connection of its own.
type PubSub struct {
	dsn string

	mu   sync.Mutex
	conn *pq.ListenerConn // nil while there is none
}

// NewPubSub returns a PubSub over connections that lib/pq makes by dsn, which should have
// a connect_timeout.
func NewPubSub(dsn string) *PubSub { return &PubSub{dsn: dsn} }

// errNotSubscribed says that there is no connection to publish over.
var errNotSubscribed = errors.New("not subscribed")

// Subscribe implements session2.PubSub.
func (p *PubSub) Subscribe(ctx context.Context, subscribed func(), receive func(message string)) error {
	notes := make(chan *pq.Notification, 64)
	conn, err := pq.NewListenerConn(p.dsn, notes)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	// Nothing of a message is kept, so that its sender need not wait for a disk.
	if _, err := conn.ExecSimpleQuery("SET synchronous_commit TO off"); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if _, err := conn.Listen(channel); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	p.use(conn)
	defer p.use(nil)
	subscribed()
	for note := range notes {
		if note != nil {
			receive(note.Extra)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return conn.Err()
}

func (p *PubSub) use(conn *pq.ListenerConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conn = conn
}

// Publish implements session2.PubSub. If ctx ends, the connection does.
func (p *PubSub) Publish(ctx context.Context, message string) error {
	p.mu.Lock()
	conn := p.conn
	p.mu.Unlock()
	if conn == nil {
		return errNotSubscribed
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	_, err := conn.ExecSimpleQuery("NOTIFY " + pq.QuoteIdentifier(channel) + ", " + pq.QuoteLiteral(message))
	return err
}
