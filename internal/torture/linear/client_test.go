package linear

import (
	"math/rand/v2"
	"runtime"
	"time"
)

// client makes calls, one after the other, by what it has learned from earlier ones.
type client struct {
	*plan
	num      int
	store    store
	history  *history
	rng      *rand.Rand
	known    map[int]uint64   // the version of each record, as far as it knows
	former   map[int][]uint64 // earlier ones
	saves    []call           // its own
	created  bool             // it creates no records but
	toCreate []int            // these
	users    []string
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
		k := c.next()
		if len(c.toCreate) > 0 && c.rng.IntN(2) == 0 {
			k = c.create()
		}
		if k.Op == opSave && k.Prev != 0 && c.rng.IntN(2) == 0 { // look first: most of the others come too late
			c.do(call{Op: opLoad, Key: k.Key})
			k = c.save(k.Key, c.known[k.Key])
		}
		c.do(k)
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
	if ends && c.created && !c.Alone && c.rng.IntN(8) > 0 { // there will be no other records
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

// create creates the next record of those that are its own.
func (c *client) create() call {
	key := c.toCreate[0]
	c.toCreate = c.toCreate[1:]
	c.created = false
	defer func() { c.created = true }()
	return c.save(key, 0)
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
