package session2

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"
)

// leaseTime is for how long a turn is good. A process that dies keeps others from
// the session for so long, and no longer.
const leaseTime = 10 * time.Second

// maxTurns bounds the turns of one record. Each is of another process: who finds no
// room asks again.
const maxTurns = 16

// turn is one request's place in the line for a session that one request at a time
// may have.
type turn struct {
	number uint64  // random; of the request
	until  instant // it is over then, unless it is renewed
}

// turns are a record's, in their order: the first one has the session, and the
// others wait. One that is over is passed over, and whoever goes ahead of it removes
// it. The slice is shared by states, and never changed.
type turns []turn

// over reports whether the time of the turn is over. It is, too, if it is so far ahead
// that only a wrong clock can have written it.
func (t turn) over(now instant) bool { return now >= t.until || t.until > now.add(2*leaseTime) }

// due reports whether it is time to renew the turn.
func (t turn) due(now instant) bool { return t.over(now) || t.until <= now.add(leaseTime*2/3) }

// take returns the turns as they are when number has, or waits for, the session: with
// its turn, as long as there is room, renewed if that is due, and without those that
// are over. It returns false if nothing needs to be stored for that.
func (q turns) take(number uint64, now instant) (next turns, save bool) {
	found := false
	for _, t := range q {
		if t.number == number {
			found = true
			if t.due(now) {
				t.until, save = now.add(leaseTime), true
			}
		} else if t.over(now) {
			continue
		}
		next = append(next, t)
	}
	if !found && len(next) < maxTurns {
		next, save = append(next, turn{number, now.add(leaseTime)}), true
	}
	return next, save || next.place(number) == 0 && q.place(number) != 0
}

// place returns how many are before number, -1 if it has no turn.
func (q turns) place(number uint64) int {
	return slices.IndexFunc(q, func(t turn) bool { return t.number == number })
}

// without returns the turns without that of number.
func (q turns) without(number uint64) turns {
	return slices.DeleteFunc(slices.Clone(q), func(t turn) bool { return t.number == number })
}

// only returns the turns without those of others than c.
func (q turns) only(c *claim) turns {
	return slices.DeleteFunc(slices.Clone(q), func(t turn) bool { return c == nil || t.number != c.number })
}

// awaited reports whether somebody else than c waits for the session or has it.
func (q turns) awaited(c *claim, now instant) bool {
	return slices.ContainsFunc(q, func(t turn) bool { return (c == nil || t.number != c.number) && !t.over(now) })
}

func (q turns) bytes() []byte {
	b := make([]byte, 0, 16*len(q))
	for _, t := range q {
		b = binary.BigEndian.AppendUint64(b, t.number)
		b = binary.BigEndian.AppendUint64(b, uint64(t.until))
	}
	return b
}

func (st *state) decodeTurns(b []byte) error {
	if len(b)%16 != 0 || len(b) > 16*maxTurns {
		return errFormat
	}
	for ; len(b) > 0; b = b[16:] {
		st.turns = append(st.turns, turn{binary.BigEndian.Uint64(b), bytesInstant(b[8:])})
	}
	return nil
}

// lines are where the requests of one manager wait for one another, each session's
// in the order of their coming. The first one of a line goes on to wait in the record,
// so that there is one turn of each process.
type lines struct {
	mu sync.Mutex
	of map[ID][]chan struct{}
}

// join returns what is closed when it is the request's turn here, nil if it is at once.
func (l *lines) join(id ID) (own chan struct{}, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = make(map[ID][]chan struct{})
	}
	own, first = make(chan struct{}), len(l.of[id]) == 0
	l.of[id] = append(l.of[id], own)
	return own, first
}

// leave must follow a join. The next one, if it was the first, goes on.
func (l *lines) leave(id ID, own chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := l.of[id]
	i := slices.Index(line, own)
	line = slices.Delete(line, i, i+1)
	switch {
	case len(line) == 0:
		delete(l.of, id)
		return
	case i == 0:
		close(line[0])
	}
	l.of[id] = line
}
