package linear

import (
	"context"
	"errors"
	"hash/fnv"
	"io/fs"
	"iter"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/record"
)

// store is all that the stores of the library can do.
type store interface {
	session2.Store
	session2.DeleteOldStore
	session2.IterStore
	session2.TouchStore
	session2.UserStore
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
	case record.NotDone(err): // to a manager
		return refused
	}
	return lost
}
