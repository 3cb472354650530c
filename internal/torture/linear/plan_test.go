package linear

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/session2/session2"
)

// plan is what the clients of a history do. It goes to other processes as JSON.
type plan struct {
	Seed    uint64
	Base    int64 // now, in microseconds since 1970
	Keys    int   // how many records
	Clients int
	Calls   int // of each client
	First   int // the number of the first client

	// Cancel is the share, in percent, of calls with a context that ends.
	Cancel int

	// Retried is for stores that may carry out a call twice where answers are lost, as
	// the SQL stores do: nobody notices if no ID is used again, as nobody does (a manager
	// draws them), if no record comes back to a user, and if a Save moves no time back.
	// So first the records are created, and then the rest happens. It is also why
	// numbers may be wrong.
	Retried bool

	// Alone has each record created by one client, once, beside all else, and not by
	// several before all else. It is for Retried.
	Alone bool

	gate func() // called before each call; or nil
}

// newPlan draws a plan.
func newPlan(seed uint64) plan {
	rng := rand.New(rand.NewPCG(seed, 0))
	return plan{
		Seed: seed, Base: time.Now().UnixMicro(), Keys: 1 + rng.IntN(3), Clients: 3 + rng.IntN(3), Calls: 10 + rng.IntN(15),
	}
}

const (
	second = int64(1e6) // in microseconds
	hour   = 3600 * second
	age    = time.Hour // of DeleteOld
)

// id returns a record's ID: no two histories share one.
func (p *plan) id(key int) (id session2.ID) {
	binary.BigEndian.PutUint64(id[:], rand.New(rand.NewPCG(p.Seed, 1)).Uint64())
	id[len(id)-1] = byte(key)
	return id
}

func (p *plan) user(name string) string {
	if name == "" {
		return ""
	}
	id := p.id(0)
	return name + "-" + id.String()[:16]
}

// clients runs the clients over the stores, each over one of them.
func (p *plan) clients(stores []store, h *history) {
	clients := make([]*client, p.Clients)
	for i := range clients {
		clients[i] = p.client(p.First+i, stores[i%len(stores)], h)
	}
	phase := func(calls int) {
		var wg sync.WaitGroup
		for _, c := range clients {
			wg.Go(func() { c.run(calls) })
		}
		wg.Wait()
	}
	if p.Retried && !p.Alone {
		phase(3)
	}
	for i, c := range clients {
		c.created = p.Retried
		for key := i; key < p.Keys && p.Alone; key += p.Clients {
			c.toCreate = append(c.toCreate, key)
		}
	}
	phase(p.Calls)
}

// settle looks at all records through each of the stores when all clients are gone, and
// then ends those that are left. It reports a number that is wrong, "" if none is.
func (p *plan) settle(stores []store, h *history) (wrong string) {
	p.gate = nil
	for i, s := range stores {
		c := p.client(900+i, s, h)
		for key := range p.Keys {
			c.do(call{Op: opHas, Key: key})
			c.do(call{Op: opLoad, Key: key})
		}
		c.do(call{Op: opIter})
	}
	c := p.client(900, stores[0], h)
	sure := h.counts().unanswered == 0 && !p.Retried
	for _, user := range append(c.users, p.user("carol")) {
		seen := c.do(call{Op: opIterUser, User: user})
		gone := c.do(call{Op: opDeleteUser, User: user})
		if sure && gone.Status == done && len(seen.Seen) != gone.N {
			wrong = "DeleteUser returned another number than there were"
		}
	}
	for key := range p.Keys {
		c.do(call{Op: opDelete, Key: key})
		c.do(call{Op: opHas, Key: key})
	}
	for range 100 { // what is left for others to meet makes their numbers wrong
		clean := true
		for key := range p.Keys {
			clean = stores[0].Delete(context.Background(), p.id(key)) == nil && clean
		}
		if clean {
			return wrong
		}
		time.Sleep(50 * time.Millisecond)
	}
	return "the records of a history cannot be deleted"
}
