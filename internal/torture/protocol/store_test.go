package protocol

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strings"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/record"
)

// fault is what happens to a call or to a response.
type fault string

const (
	fine          fault = ""
	lostQuestion  fault = "the question is lost"
	lostAnswer    fault = "the answer is lost"
	arrivesLate   fault = "it fails, and may land later"
	hangs         fault = "it hangs, and may land later"
	uncertain     fault = "ErrUncertain, not done"
	uncertainDone fault = "ErrUncertain, done"
	refused       fault = "it is refused"
	notSent       fault = "it is not sent"
	lostResponse  fault = "the response is lost"
	tooSlow       fault = "its time is over, and it may land later" // not chosen: it happens as time passes
)

func (f fault) note() string {
	if f == fine {
		return ""
	}
	return " -- " + string(f)
}

var errLost = errors.New("connection lost")

// store is the world's store as a manager has it.
type store struct {
	*session2.MemoryStore
	w     *world
	looks *actor // for calls of no request: a manager looks after its streams
}

// store returns a store for one more manager.
func (w *world) store() *store {
	a := &actor{w: w, name: fmt.Sprint("looks-", len(w.looks))}
	w.looks = append(w.looks, a)
	return &store{w.disk, w, a}
}

// actorKey finds the actor in the context of a call.
type actorKey struct{}

// call is one call of the store: apply does it.
func (s *store) call(ctx context.Context, label string, apply func() error, faults ...fault) error {
	a, _ := ctx.Value(actorKey{}).(*actor)
	if a == nil {
		a = s.looks
	}
	if s.w.calm.Load() {
		return s.told(label, apply())
	}
	if a.away.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	if end, ends := ctx.Deadline(); ends && time.Until(end) < maxTicks*tick {
		faults = append(faults, hangs)
	}
	if err := ctx.Err(); err != nil {
		return s.told(label, err)
	}
	f := a.point(ctx, label, faults...)
	return s.told(label, s.meet(ctx, f, label, apply))
}

func (s *store) told(label string, err error) error {
	s.w.tell("    %s: %v", label, err)
	return err
}

// meet does a call as the fault says.
func (s *store) meet(ctx context.Context, f fault, label string, apply func() error) error {
	switch f {
	case lostQuestion:
		return errLost
	case lostAnswer:
		apply()
		return errLost
	case arrivesLate:
		s.later(label, apply)
		return errLost
	case hangs, tooSlow:
		s.w.mu.Lock()
		s.w.slow = true
		s.w.mu.Unlock()
		if !strings.HasPrefix(label, "Load") && !strings.HasPrefix(label, "IterUser") {
			s.later(label, apply)
		}
		<-ctx.Done()
		return ctx.Err()
	case uncertain:
		return session2.ErrUncertain
	case uncertainDone:
		if err := apply(); err != nil {
			return err
		}
		return session2.ErrUncertain
	case refused:
		return fs.ErrPermission
	case notSent:
		return record.ErrNotDone
	}
	return apply()
}

// later keeps a call that may still land.
func (s *store) later(label string, apply func() error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.late = append(s.w.late, lateCall{label, func() { apply() }})
}

func (s *store) Load(ctx context.Context, id session2.ID) (rec session2.Record, err error) {
	label := "Load " + s.w.name("S", id)
	err = s.call(ctx, label, func() error {
		rec, err = s.w.disk.Load(context.Background(), id)
		return err
	}, lostAnswer)
	if err != nil {
		rec = session2.Record{}
	}
	return rec, err
}

func (s *store) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	rec.Data = bytes.Clone(rec.Data)
	issued := time.Now()
	label := s.w.describe(rec, prev)
	return s.call(ctx, label, func() error { return s.w.save(rec, prev, issued) },
		lostQuestion, lostAnswer, arrivesLate, uncertain, uncertainDone, refused, notSent)
}

func (s *store) Delete(ctx context.Context, id session2.ID) error {
	label := "Delete " + s.w.name("S", id)
	return s.call(ctx, label, func() error { return s.w.delete(id) }, lostQuestion, lostAnswer, arrivesLate,
		refused, notSent)
}

func (s *store) Touch(ctx context.Context, id session2.ID, accessed, expires time.Time) error {
	label := "Touch " + s.w.name("S", id)
	issued := time.Now()
	return s.call(ctx, label, func() error { return s.w.touch(id, accessed, expires, issued) },
		lostQuestion, lostAnswer, arrivesLate)
}

func (s *store) IterUser(ctx context.Context, user string) iter.Seq2[session2.Record, error] {
	return func(yield func(session2.Record, error) bool) {
		var list []session2.Record
		err := s.call(ctx, "IterUser "+user, func() error {
			for rec := range s.w.disk.IterUser(context.Background(), user) {
				list = append(list, rec)
			}
			return nil
		}, lostAnswer)
		if err != nil {
			yield(session2.Record{}, err)
			return
		}
		for _, rec := range list {
			if !yield(rec, nil) {
				return
			}
		}
	}
}

func (s *store) DeleteUser(ctx context.Context, user string, keep ...session2.ID) (n int, err error) {
	err = s.call(ctx, "DeleteUser "+user, func() error {
		n, err = s.w.deleteUser(user, keep...)
		return err
	}, lostQuestion, lostAnswer, arrivesLate)
	return n, err
}

// describe spells a Save for the trace.
func (w *world) describe(rec session2.Record, prev session2.Version) string {
	if !w.tracing {
		return "Save"
	}
	over := "new"
	if prev != 0 {
		over = "over " + w.name("v", prev)
	}
	return fmt.Sprintf("Save %s as %s %s: user %q, %s=%q, expires in %v", w.name("S", rec.ID),
		w.name("v", rec.Version), over, rec.User, key, w.valueOf(rec), time.Until(rec.Expires))
}

// save is Save on the disk. It fails the run if a session is revived.
func (w *world) save(rec session2.Record, prev session2.Version, issued time.Time) error {
	ctx := context.Background()
	before, missing := w.disk.Load(ctx, rec.ID)
	err := w.disk.Save(ctx, rec, prev)
	switch {
	case err != nil || missing == nil && before.Version == rec.Version:
	case isTurn(rec): // it comes and goes
	case prev == 0 && w.gone[rec.ID]:
		w.fail(ended, "%s is created again after it was deleted", w.name("S", rec.ID))
	case prev != 0 && !before.Expires.After(issued.Add(-w.skew)):
		w.fail(ended, "%s is saved after it had expired", w.name("S", rec.ID))
	case prev != 0 && !before.Expires.After(time.Now()):
		w.inFlight = true
	}
	return err
}

// delete is Delete on the disk.
func (w *world) delete(id session2.ID) error {
	if there, _ := w.disk.Has(context.Background(), id); there {
		w.gone[id] = true
	}
	return w.disk.Delete(context.Background(), id)
}

// touch is Touch on the disk. It fails the run if a session is revived.
func (w *world) touch(id session2.ID, accessed, expires, issued time.Time) error {
	before, missing := w.disk.Load(context.Background(), id)
	if missing == nil && !before.Expires.After(issued.Add(-w.skew)) && expires.After(issued) {
		w.fail(ended, "%s is touched after it had expired", w.name("S", id))
	}
	return w.disk.Touch(context.Background(), id, accessed, expires)
}

// deleteUser is DeleteUser on the disk.
func (w *world) deleteUser(user string, keep ...session2.ID) (int, error) {
	for rec := range w.disk.IterUser(context.Background(), user) {
		w.gone[rec.ID] = true
	}
	return w.disk.DeleteUser(context.Background(), user, keep...)
}

// frozen is a store that shows what another one holds, and changes nothing.
type frozen struct{ *session2.MemoryStore }

func (frozen) Save(context.Context, session2.Record, session2.Version) error { return nil }
func (frozen) Delete(context.Context, session2.ID) error                     { return nil }
func (frozen) Touch(context.Context, session2.ID, time.Time, time.Time) error {
	return nil
}
