package session2

import (
	"slices"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/goblog"
)

// gobPlan is what a commit is going to append.
type gobPlan struct {
	s       *GobStore
	shelf   *gobShelf
	frames  []byte
	entries []goblog.Entry
	next    map[ID]gobNext // the index as it will be, where it will differ
	ends    []int          // by job: how many entries there are with its own
}

type gobNext struct {
	entry gobEntry
	found bool
}

func (s *GobStore) newPlan() *gobPlan {
	return &gobPlan{s: s, shelf: s.shelf, next: make(map[ID]gobNext)}
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

// append runs the jobs and appends what they plan. The index changes only after
// the file has. If it returns an error, nothing was changed; what becomes of single
// jobs is in errs.
func (s *GobStore) append(jobs []*gobJob, errs []error) (gobMade, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.catchUp(true); err != nil { // has the store been closed?
		return gobMade{}, err
	}
	p := s.newPlan()
	durable, sweeps := false, false
	for i, j := range jobs {
		if errs[i] = j.ctx.Err(); errs[i] == nil {
			durable, sweeps = durable || j.durable, sweeps || j.sweeps
			errs[i] = j.run(p)
		}
		p.ends = append(p.ends, len(p.entries))
	}
	refused := make([]bool, len(jobs))
	if err := s.carryOut(p); err == nil {
		p.count(jobs, len(p.entries))
	} else {
		s.refuse(p, jobs, errs, refused, err)
	}
	log := s.shelf.log
	_, release := log.Hold()
	return gobMade{
		log: log, release: release, flush: log.Flush(), refused: refused,
		needed: durable && s.shelf.must > log.Durable() && slices.Contains(refused, false),
		gone:   s.shelf.deserted(sweeps, s.patience),
	}, nil
}

// count notes how much of each job is in the file, in which so many entries are.
func (p *gobPlan) count(jobs []*gobJob, landed int) {
	from := 0
	for i, to := range p.ends {
		jobs[i].made = max(0, min(to, landed)-from)
		from = to
	}
}

// carryOut appends what is planned. The caller has s.mu.
func (s *GobStore) carryOut(p *gobPlan) error {
	if len(p.frames) == 0 {
		return nil
	}
	if err := p.shelf.log.Append(p.frames); err != nil {
		return err
	}
	for _, e := range p.entries {
		p.shelf.apply(e)
	}
	return nil
}

// refuse sets errs, and refused, after an append that failed with err. It may have
// got so far that the changes of the first jobs are in the file. Other processes
// may have seen them there and gone on from them, so they stay, and are no failure.
// The rest is refused, but for a job that turns out to need no change.
func (s *GobStore) refuse(p *gobPlan, jobs []*gobJob, errs []error, refused []bool, err error) {
	landed, sure := s.landed(p)
	p.count(jobs, landed)
	from := 0
	for i, to := range p.ends {
		switch {
		case to <= landed: // and so is all that was decided before
		case !sure || from < landed:
			errs[i], refused[i], jobs[i].unsure = fsys.Partly(err), true, !sure
		default:
			again := s.newPlan()
			if errs[i] = jobs[i].run(again); len(again.entries) > 0 {
				errs[i], refused[i] = err, true
			}
		}
		from = to
	}
}

// landed returns how many entries of a plan are in the file and in the index after
// an append that failed, and cuts off what is half written. It is sure if nothing
// of the others is in the file, and so never will be.
func (s *GobStore) landed(p *gobPlan) (n int, sure bool) {
	s.torn = true
	err := s.catchUp(true)
	s.torn = err != nil // the next commit cuts
	log := p.shelf.log
	if s.shelf != p.shelf { // somebody has put another file in the place
		return 0, false
	}
	r, release := log.Hold()
	defer release()
	for ; n < len(p.entries) && p.entries[n].Off < log.End(); n++ {
		e := p.entries[n]
		if _, whole, err := r.ReadOp(e.Off, e.Len); err != nil || !whole {
			return n, false
		}
	}
	return n, err == nil
}
