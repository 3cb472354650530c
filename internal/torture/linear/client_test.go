package linear

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io/fs"
	"iter"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/session2/session2"
)

// store is all that the stores of the library can do.
type store interface {
	session2.Store
	session2.DeleteOldStore
	session2.IterStore
	session2.TouchStore
	session2.UserStore
}

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
	if p.Retried {
		phase(3)
	}
	for _, c := range clients {
		c.created = p.Retried
	}
	phase(p.Calls)
}

// client makes calls, one after the other, by what it has learned from earlier ones.
type client struct {
	*plan
	num     int
	store   store
	history *history
	rng     *rand.Rand
	known   map[int]uint64   // the version of each record, as far as it knows
	former  map[int][]uint64 // earlier ones
	saves   []call           // its own
	created bool             // all records that there will be are created
	users   []string
}

func (p *plan) client(num int, s store, h *history) *client {
	return &client{
		plan: p, num: num, store: s, history: h, rng: rand.New(rand.NewPCG(p.Seed, uint64(num)+10)),
		known: make(map[int]uint64), former: make(map[int][]uint64),
		users: []string{p.user("alice"), p.user("bob")},
	}
}

func (c *client) run(calls int) {
	for range calls {
		if c.gate != nil {
			c.gate()
		}
		if c.history.enough() {
			return
		}
		c.do(c.next())
		for range c.rng.IntN(3) {
			runtime.Gosched()
		}
	}
}

// do makes a call and writes it down.
func (c *client) do(k call) answer {
	e := c.history.begin(c.num, k)
	a := perform(c.store, c.plan, k)
	c.history.end(e, a)
	c.learn(k, a)
	return a
}

func (c *client) learn(k call, a answer) {
	version := uint64(0)
	switch {
	case k.Op == opLoad && a.Status == done:
		version = a.Rec.Version
	case k.Op == opSave && (a.Status == done || a.Status == lost):
		version = k.Rec.Version
	case k.Op == opDelete || a.Status == absent:
	default:
		return
	}
	if old := c.known[k.Key]; old != 0 && old != version {
		c.former[k.Key] = append(c.former[k.Key], old)
	}
	c.known[k.Key] = version
}

// next draws a call.
func (c *client) next() call {
	k := c.draw()
	k.Within = c.within()
	return k
}

func (c *client) draw() call {
	k := c.drawAny()
	ends := k.Op == opDelete || k.Op == opDeleteUser || k.Op == opDeleteOld
	if ends && c.created && c.rng.IntN(4) > 0 { // there will be no other records
		return c.save(k.Key, c.known[k.Key])
	}
	return k
}

func (c *client) drawAny() call {
	key := c.rng.IntN(c.Keys)
	if c.Retried && !c.created {
		switch n := c.rng.IntN(10); {
		case n < 6:
			return c.save(key, 0)
		case n < 7:
			return c.repeat(key)
		}
		return call{Op: opLoad, Key: key}
	}
	switch n := c.rng.IntN(100); {
	case n < 20:
		return call{Op: opLoad, Key: key}
	case n < 26:
		return call{Op: opHas, Key: key}
	case n < 52:
		return c.save(key, c.known[key])
	case n < 58:
		return c.save(key, c.stale(key))
	case n < 68:
		return c.save(key, 0)
	case n < 76:
		return c.repeat(key)
	case n < 81:
		return call{Op: opDelete, Key: key}
	case n < 88:
		return call{Op: opTouch, Key: key, Accessed: c.accessed(), Expires: c.expires()}
	case n < 92:
		return c.deleteUser()
	case n < 95:
		return call{Op: opDeleteOld, Accessed: c.Base - hour, Expires: c.Base}
	case n < 97:
		return call{Op: opIter}
	}
	return call{Op: opIterUser, User: c.oneOf(c.users)}
}

func (c *client) save(key int, prev uint64) call {
	if c.created && prev == 0 {
		return call{Op: opLoad, Key: key}
	}
	version := c.rng.Uint64() | 1
	k := call{Op: opSave, Key: key, Prev: prev, Rec: state{
		Version: version, User: c.oneOf(append(c.users, "")), Created: c.Base,
		Accessed: c.accessed(), Expires: c.expires(), Data: hash(data(version)),
	}}
	if c.created { // see Retried
		k.Rec.User = c.oneOf([]string{"", c.user("carol")})
		k.Rec.Accessed, k.Rec.Expires = c.Base+2*hour+c.rng.Int64N(second), c.Base+48*hour+c.rng.Int64N(second)
	}
	c.saves = append(c.saves, k)
	return k
}

// repeat makes an earlier Save again.
func (c *client) repeat(key int) call {
	if len(c.saves) == 0 {
		return call{Op: opLoad, Key: key}
	}
	k := c.saves[len(c.saves)-1-c.rng.IntN(min(4, len(c.saves)))]
	if c.created && k.Prev == 0 {
		return call{Op: opLoad, Key: key}
	}
	return k
}

func (c *client) stale(key int) uint64 {
	if list := c.former[key]; len(list) > 0 {
		return list[c.rng.IntN(len(list))]
	}
	return c.rng.Uint64() | 1
}

func (c *client) deleteUser() call {
	k := call{Op: opDeleteUser, User: c.oneOf(c.users)}
	for key := range c.Keys {
		if c.rng.IntN(4) == 0 {
			k.Keep = append(k.Keep, key)
		}
	}
	return k
}

func (c *client) oneOf(list []string) string { return list[c.rng.IntN(len(list))] }

// accessed draws a time that is long ago, or will be soon: whether a record is old does
// not change while the history goes on.
func (c *client) accessed() int64 {
	if c.rng.IntN(4) == 0 {
		return c.Base - 5*hour + c.rng.Int64N(second)
	}
	return c.Base + hour + c.rng.Int64N(second)
}

func (c *client) expires() int64 {
	if c.rng.IntN(6) == 0 {
		return c.Base - 2*hour + c.rng.Int64N(second)
	}
	return c.Base + 24*hour + c.rng.Int64N(second)
}

// within draws when the call's context ends: for a few calls at once, or soon.
func (c *client) within() time.Duration {
	switch {
	case c.rng.IntN(100) >= c.Cancel:
		return 0
	case c.rng.IntN(3) == 0:
		return -1
	}
	return time.Duration(1 + c.rng.Int64N(int64(10*time.Microsecond)<<c.rng.IntN(10)))
}

// data returns the data of the record with that version.
func data(version uint64) []byte {
	n := version % 300
	if version%29 == 0 {
		n += 20000
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(version >> (i % 57))
	}
	return b
}

func hash(b []byte) uint64 {
	h := fnv.New64a()
	h.Write(b)
	return h.Sum64()
}

// perform makes a call.
func perform(s store, p *plan, k call) (a answer) {
	ctx := context.Background()
	if k.Within != 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, k.Within)
		defer cancel()
	}
	ended := ctx.Err() != nil
	var err error
	switch id := p.id(k.Key); k.Op {
	case opLoad:
		var rec session2.Record
		if rec, err = s.Load(ctx, id); err == nil {
			a.Rec = stateOf(rec)
		}
	case opHas:
		a.Found, err = s.Has(ctx, id)
	case opSave:
		err = s.Save(ctx, p.record(id, k.Rec), session2.Version(k.Prev))
	case opDelete:
		err = s.Delete(ctx, id)
	case opTouch:
		err = s.Touch(ctx, id, time.UnixMicro(k.Accessed), time.UnixMicro(k.Expires))
	case opDeleteUser:
		var keep []session2.ID
		for _, key := range k.Keep {
			keep = append(keep, p.id(key))
		}
		a.N, err = s.DeleteUser(ctx, k.User, keep...)
	case opDeleteOld:
		a.N, err = s.DeleteOld(ctx, age)
	case opIter:
		a.Seen, err = p.list(s.Iter(ctx))
	case opIterUser:
		a.Seen, err = p.list(s.IterUser(ctx, k.User))
	}
	if a.Status = statusOf(err); err != nil {
		a.Err = err.Error()
		a.Err = a.Err[:min(len(a.Err), 300)] // a line of a child process is one write
	}
	if ended && a.Status == lost && errors.Is(err, context.DeadlineExceeded) {
		a.Status = refused
	}
	if k.Op == opLoad && a.Status == absent {
		a.Status = done
	}
	return a
}

// list returns the records of this history.
func (p *plan) list(records iter.Seq2[session2.Record, error]) (list []seen, err error) {
	for rec, err := range records {
		if err != nil {
			return nil, err
		}
		if key := int(rec.ID[len(rec.ID)-1]); rec.ID == p.id(key) {
			list = append(list, seen{key, stateOf(rec)})
		}
	}
	return list, nil
}

func (p *plan) record(id session2.ID, s state) session2.Record {
	return session2.Record{
		ID: id, Version: session2.Version(s.Version), User: s.User, Data: data(s.Version),
		Created: time.UnixMicro(s.Created), Accessed: time.UnixMicro(s.Accessed), Expires: time.UnixMicro(s.Expires),
	}
}

func stateOf(rec session2.Record) state {
	return state{
		Version: uint64(rec.Version), User: rec.User, Created: rec.Created.UnixMicro(),
		Accessed: rec.Accessed.UnixMicro(), Expires: rec.Expires.UnixMicro(), Data: hash(rec.Data),
	}
}

func statusOf(err error) status {
	is := func(target error) bool { return errors.Is(err, target) }
	switch {
	case err == nil:
		return done
	case is(session2.ErrUncertain):
		return lost
	case is(session2.ErrNotFound):
		return absent
	case is(session2.ErrConflict):
		return conflict
	case is(session2.ErrCorrupt):
		return corrupt
	case is(session2.ErrTooLarge), is(session2.ErrNotSetUp), is(fs.ErrClosed), is(fs.ErrPermission):
		return refused
	}
	return lost
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
