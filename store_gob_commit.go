package session2

import (
	"cmp"
	"context"
	"os"
	"slices"
	"sync/atomic"

	"github.com/session2/session2/internal/goblog"
)

const (
	// gobBatch is how many changes share one append at most.
	gobBatch = 256

	// gobSlack is how much of the file may be dead whatever lives.
	gobSlack = 1 << 20
)

// gobJob is one call's part of a commit.
type gobJob struct {
	ctx     context.Context
	durable bool // the answer must wait for the disk
	run     func(*gobPlan) error
}

// do has a change decided and made, together with those of other goroutines.
// A change is decided by what the file holds once this process has the lock.
func (s *GobStore) do(ctx context.Context, durable bool, run func(*gobPlan) error) error {
	return s.batch.Do(ctx, &gobJob{ctx, durable && !s.noSync, run})
}

// gobPlan is what a commit is going to append.
type gobPlan struct {
	s       *GobStore
	shelf   *gobShelf
	frames  []byte
	entries []goblog.Entry
	next    map[ID]gobNext // the index as it will be, where it will differ
}

type gobNext struct {
	entry gobEntry
	found bool
}

// get returns the entry of a record with all that was added to the plan.
func (p *gobPlan) get(id ID) (gobEntry, bool) {
	if n, ok := p.next[id]; ok {
		return n.entry, n.found
	}
	return p.shelf.index.Get(id)
}

// add appends a frame to the plan. Of a failing one nothing remains.
func (p *gobPlan) add(op *goblog.Op) error {
	log, from := p.shelf.log, len(p.frames)
	off := log.End() + int64(from)
	frames, err := p.s.enc.Append(p.frames, log.Generation(), off, log.Durable(), op)
	if err != nil {
		return err
	}
	p.frames = frames
	e := goblog.Entry{Op: *op, Off: off, Len: int64(len(frames) - from), Whole: true}
	p.entries = append(p.entries, e)
	switch op.Kind {
	case goblog.Put:
		p.next[op.ID] = gobNext{gobEntryOf(op, e.Off, e.Len), true}
	case goblog.Touch:
		n, found := p.get(op.ID)
		n.Accessed, n.Expires = max(n.Accessed, op.Accessed), max(n.Expires, op.Expires)
		p.next[op.ID] = gobNext{n, found}
	case goblog.Delete:
		p.next[op.ID] = gobNext{}
	}
	return nil
}

// commit decides and makes the changes of jobs with one append, and one sync if
// any of them needs it.
func (s *GobStore) commit(jobs []*gobJob) []error {
	errs := make([]error, len(jobs))
	if err := s.commitLocked(jobs, errs); err != nil {
		for i := range errs {
			errs[i] = err // what was decided may rest on what did not happen
		}
	}
	return errs
}

func (s *GobStore) commitLocked(jobs []*gobJob, errs []error) error {
	ctx, cancel := waiting(jobs)
	defer cancel()
	unlock, err := s.lock.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.tidy(); err != nil {
		return err
	}
	log, must, release, err := s.append(jobs, errs)
	if err != nil {
		return err
	}
	defer release()
	durable := slices.ContainsFunc(jobs, func(j *gobJob) bool { return j.durable })
	if durable && must > log.Durable() {
		return log.Sync()
	}
	return nil
}

// tidy brings the index up to date, and compacts the file if it is time. The
// caller has the lock on the file.
func (s *GobStore) tidy() error {
	if err := s.follow(true); err != nil {
		return err
	}
	if s.shelf.log.IsSuspect() {
		return s.rewrite()
	}
	if !s.shelf.wasteful(s.slack) {
		return nil
	}
	if err := s.rewrite(); err != nil {
		// Not a reason to refuse changes, as long as they can be appended. The
		// next attempt comes when as much again is dead.
		s.slack = max(2*s.shelf.log.End(), gobSlack)
		s.logger.Error("session2: gob store: cannot compact", "path", s.path, "err", err)
	}
	return nil
}

// append runs the jobs and appends what they plan. The index changes only after
// the file has. It returns the log, held, and up to where it must be durable.
func (s *GobStore) append(jobs []*gobJob, errs []error) (log *goblog.Log, must int64, release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.catchUp(true); err != nil { // has the store been closed?
		return nil, 0, nil, err
	}
	p := &gobPlan{s: s, shelf: s.shelf, next: make(map[ID]gobNext)}
	for i, j := range jobs {
		if errs[i] = j.ctx.Err(); errs[i] == nil {
			errs[i] = j.run(p)
		}
	}
	if err := s.carryOut(p); err != nil {
		return nil, 0, nil, err
	}
	_, release = p.shelf.log.Hold()
	return p.shelf.log, p.shelf.must, release, nil
}

// carryOut appends what is planned. The caller has s.mu.
func (s *GobStore) carryOut(p *gobPlan) error {
	if len(p.frames) == 0 {
		return nil
	}
	if err := p.shelf.log.Append(p.frames); err != nil {
		s.torn = true
		s.catchUp(true) // cuts off what is half written; or else the next commit does
		return err
	}
	for _, e := range p.entries {
		p.shelf.apply(e)
	}
	return nil
}

// waiting returns a context that ends when none of the jobs' is alive: then
// there is nobody left to wait for.
func waiting(jobs []*gobJob) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	alive := new(atomic.Int64)
	alive.Store(int64(len(jobs)))
	stops := make([]func() bool, len(jobs))
	for i, j := range jobs {
		stops[i] = context.AfterFunc(j.ctx, func() {
			if alive.Add(-1) == 0 {
				cancel()
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}

// rewrite replaces the file by one with what is alive. The caller has the lock
// on the file, and nobody's writing s.mu: readers go on, as until the new file
// has its name nobody changes the index. After an error the file may be the old
// one or the new.
func (s *GobStore) rewrite() error {
	s.mu.RLock()
	old, next := s.shelf, &gobShelf{replaced: make(map[ID]gobReplaced)}
	r, release := old.log.Hold()
	s.mu.RUnlock()
	defer func() { release() }()
	log, err := goblog.Rewrite(s.fs, s.path, !s.noSync, func(w *goblog.Writer) error {
		return s.copyLive(w, r, old, next)
	})
	if err != nil {
		return err
	}
	next.log, next.must = log, log.End()
	release() // or else replace would wait for it
	release = func() {}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		log.Close()
		return os.ErrClosed
	}
	s.replace(next)
	return nil
}

// copyLive writes every record of old to w, in the order of the file, and puts
// it into the index of next.
func (s *GobStore) copyLive(w *goblog.Writer, r goblog.Reader, old, next *gobShelf) error {
	ids := old.index.IDs()
	slices.SortFunc(ids, func(a, b [16]byte) int {
		x, _ := old.index.Get(a)
		y, _ := old.index.Get(b)
		return cmp.Compare(x.Value.off, y.Value.off)
	})
	for _, id := range ids {
		e, _ := old.index.Get(id)
		op, err := s.liveOp(r, id, e)
		if err != nil {
			return err
		}
		off, n, err := w.Write(&op)
		if err != nil {
			return err
		}
		next.put(id, gobEntryOf(&op, off, n))
	}
	return nil
}

// liveOp returns the operation that says all about a record: its Put, or that
// it is lost.
func (s *GobStore) liveOp(r goblog.Reader, id ID, e gobEntry) (goblog.Op, error) {
	op, err := readGob(r, id, e)
	if err == ErrCorrupt {
		if !e.Value.lost {
			s.reportDamage(goblog.Entry{Op: goblog.Op{Kind: goblog.Put, ID: id},
				Off: e.Value.off, Len: int64(e.Value.size), Damage: "damaged frame"})
		}
		return goblog.Op{Kind: goblog.Lost, ID: id, Accessed: e.Accessed, Expires: e.Expires, User: e.User}, nil
	}
	return op, err
}
