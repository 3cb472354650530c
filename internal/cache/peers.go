package cache

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// patience is how long a cache with peers is used without a sign that it would hear
	// them.
	patience = 3 * time.Second

	// beat is how often it asks for one.
	beat = time.Second

	// connecting is how long a subscription may take to begin: there may be several servers
	// to try.
	connecting = time.Minute

	// linger is how long a message waits for more to tell, and retry how long a lost
	// subscription is left alone.
	linger = 2 * time.Millisecond
	retry  = time.Second

	// maxTold bounds what one message tells of, so that it has less than 8,000 bytes, and
	// maxPending what waits to be told: instead of more, everything is.
	maxTold    = 300
	maxPending = 100 * maxTold

	everything = "*"
)

// PubSub is session2.PubSub.
type PubSub interface {
	Publish(ctx context.Context, message string) error
	Subscribe(ctx context.Context, subscribed func(), receive func(message string)) error
}

// Peers are the caches of the same store in other processes. They are told what is
// changed here, and what they tell is dropped from the cache here.
//
// A message is the sender's name, when it was sent by the sender's own clock, and the IDs
// of what has changed. Each cache receives its own messages as well: that proves that
// until it sent them nothing was missed. Until patience after the latest of them, the
// cache is used.
type Peers[V any] struct {
	cache   *Cache[V]
	pubsub  PubSub
	works   func(error)
	changed func(ID)
	name    string
	wake    chan struct{}

	mu      sync.Mutex
	pending map[ID]struct{} // to tell
	all     bool            // to tell that anything may have changed
	current int             // counts the subscriptions
	heard   bool            // the current one has brought a message of our own
	sending bool            // a message is on its way
}

// NewPeers returns the peers of a cache, which is not used until Run can hear them. Run
// calls works when that begins and ends, and changed for each value that a peer has
// changed, when it is not cached any more.
func NewPeers[V any](c *Cache[V], pubsub PubSub, works func(error), changed func(ID)) *Peers[V] {
	c.usedUntil(0)
	return &Peers[V]{cache: c, pubsub: pubsub, works: works, changed: changed,
		name: rand.Text(), wake: make(chan struct{}, 1)}
}

// Changed tells the peers, soon, that a value has changed.
func (p *Peers[V]) Changed(id ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending == nil {
		p.pending = make(map[ID]struct{})
	}
	p.pending[id] = struct{}{}
	p.due()
}

// ChangedAll tells them, soon, that any value may have changed.
func (p *Peers[V]) ChangedAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = true
	p.due()
}

// due has what is pending told. It is called with p.mu held.
func (p *Peers[V]) due() {
	if len(p.pending) > maxPending {
		p.pending, p.all = nil, true
	}
	signal(p.wake)
}

// signal has the one who waits for c go on, or whoever waits next.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Flush returns when all is told that there is to tell, or ctx ends.
func (p *Peers[V]) Flush(ctx context.Context) {
	for p.owes() && ctx.Err() == nil {
		rest(ctx, linger)
	}
}

func (p *Peers[V]) owes() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all || len(p.pending) > 0 || p.sending
}

// Run tells and listens until ctx ends.
func (p *Peers[V]) Run(ctx context.Context) {
	for ctx.Err() == nil {
		err := p.subscribe(ctx)
		if ctx.Err() == nil {
			p.works(err)
		}
		rest(ctx, retry)
	}
}

var errNotHeard = errors.New("what was published did not come back")

// subscribe is one subscription, from its beginning until it is lost.
func (p *Peers[V]) subscribe(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p.mu.Lock()
	p.current++
	n := p.current
	p.heard = false
	p.mu.Unlock()
	defer p.lose(n)

	alive, subscribed := make(chan struct{}, 1), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		subscribed := sync.OnceFunc(func() {
			close(subscribed)
			go p.publish(ctx, cancel)
		})
		ended <- p.pubsub.Subscribe(ctx, subscribed, func(message string) {
			if p.receive(n, message) {
				signal(alive)
			}
		})
	}()
	silence := time.NewTimer(connecting)
	defer silence.Stop()
	for works := false; ; {
		select {
		case <-subscribed:
			subscribed = nil
			silence.Reset(patience)
		case <-alive:
			silence.Reset(patience)
			if !works {
				works = true
				p.works(nil)
			}
		case err := <-ended:
			return fmt.Errorf("subscription lost: %w", err)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-silence.C:
			return errNotHeard
		}
	}
}

// lose ends the use of the cache, for what the peers tell from now on is missed.
func (p *Peers[V]) lose(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current = n + 1
	p.cache.usedUntil(0)
}

// publish tells what there is to tell, and at least a beat, until ctx ends.
func (p *Peers[V]) publish(ctx context.Context, lost context.CancelCauseFunc) {
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for {
		if err := p.publishOne(ctx); err != nil {
			lost(fmt.Errorf("publish: %w", err))
			return
		}
		rest(ctx, linger)
		select {
		case <-p.wake:
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// publishOne publishes one message. Where nobody knows whether it was sent, everything
// is to be told the next time.
func (p *Peers[V]) publishOne(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := p.pubsub.Publish(ctx, p.next())
	if err != nil {
		p.ChangedAll()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sending = false
	return err
}

// next takes the next message.
func (p *Peers[V]) next() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sending = true
	var b strings.Builder
	b.WriteString(p.name)
	b.WriteByte(' ')
	b.WriteString(strconv.FormatInt(int64(time.Since(p.cache.start)), 36))
	if p.all {
		p.all = false
		b.WriteString(" " + everything)
	}
	left := maxTold
	for id := range p.pending {
		if left--; left < 0 {
			p.due()
			break
		}
		delete(p.pending, id)
		b.WriteByte(' ')
		b.WriteString(base64.RawURLEncoding.EncodeToString(id[:]))
	}
	if len(p.pending) == 0 {
		p.pending = nil // a map does not shrink
	}
	return b.String()
}

// receive takes a message in, and reports whether it is one's own. What it does not
// understand may tell of anything.
func (p *Peers[V]) receive(n int, message string) (own bool) {
	name, text, _ := strings.Cut(message, " ")
	sent, told, _ := strings.Cut(text, " ")
	if name == p.name {
		at, err := strconv.ParseInt(sent, 36, 64)
		return err == nil && p.prove(n, time.Duration(at))
	}
	for item := range strings.FieldsSeq(told) {
		var id ID
		if !decodeID(&id, item) {
			p.cache.DropAll()
			continue
		}
		p.cache.Drop(id)
		p.changed(id)
	}
	return false
}

func decodeID(id *ID, text string) bool {
	if len(text) != base64.RawURLEncoding.EncodedLen(len(id)) {
		return false
	}
	_, err := base64.RawURLEncoding.Decode(id[:], []byte(text))
	return err == nil
}

// prove notes that subscription n has brought a message that was sent at a time. What the
// cache held before the subscription is of no use.
func (p *Peers[V]) prove(n int, sent time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n != p.current {
		return false
	}
	if !p.heard {
		p.heard = true
		p.cache.DropAll()
	}
	p.cache.usedUntil(sent + patience)
	return true
}

// rest waits for d, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
