package gobstore

import (
	"context"
	"io/fs"
	"slices"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/record"
)

const batchSize = 256 // changes that share one append, at most

// Save appends the record, and waits for the disk.
func (s *Store) Save(ctx context.Context, r record.Record, prev uint64) error {
	if len(r.Data)+len(r.User) > maxData {
		return record.ErrTooLarge
	}
	return s.do(ctx, &job{durable: true, run: func(p *plan) error {
		e, found := p.get(r.ID)
		if e.Value.lost {
			return record.ErrCorrupt
		}
		write, err := record.Admit(found, e.Value.version, r.Version, prev)
		if write {
			p.add(&op{put, r})
		}
		return err
	}})
}

// Delete appends that the record is gone, if it is there.
func (s *Store) Delete(ctx context.Context, id [16]byte) error {
	return s.do(ctx, &job{durable: true, run: func(p *plan) error {
		if _, found := p.get(id); found {
			p.add(&op{del, record.Record{ID: id}})
		}
		return nil
	}})
}

// Touch appends the times without the data, and does not wait for the disk. It
// writes nothing if the times do not move.
func (s *Store) Touch(ctx context.Context, id [16]byte, to record.Access) error {
	return s.do(ctx, &job{run: func(p *plan) error {
		e, found := p.get(id)
		if e.Value.lost {
			return record.ErrCorrupt
		}
		if found && (to.Accessed > e.Accessed || to.Expires > e.Expires) {
			p.add(&op{touch, record.Record{ID: id, Access: to}})
		}
		return nil
	}})
}

// job is one call's part of a commit.
type job struct {
	ctx     context.Context
	durable bool              // the call must not return before the disk has it
	sweeps  bool              // if nothing is left, nothing of the file shall be
	run     func(*plan) error // decides, and plans what is to be appended

	// What came of it. After an error, too, some of its frames may be in the file.
	err     error
	refused bool // the change was decided, and is not in the file
	end     int  // of its frames in the plan
	made    int  // how many of them are in the file
	unsure  bool // there may be more
}

// do has a change decided and made, together with those of other goroutines.
// A change is decided by what the file holds once this process has the lock.
func (s *Store) do(ctx context.Context, j *job) error {
	j.ctx, j.durable = ctx, j.durable && !s.noSync
	return s.batch.Do(ctx, j)
}

// commit decides and makes the changes of jobs with one append, and one sync if
// any of them needs it. The caller has the lock on the file.
func (s *Store) commit(jobs []*job) []error {
	large, err := s.tidy()
	if large {
		s.compactBeside()
	}
	s.keepIndex()
	var w written
	if err == nil {
		w, err = s.write(jobs)
	}
	if err == nil {
		if err = s.flush(w); err == nil && w.deserted {
			s.compact()
		}
	}
	errs := make([]error, len(jobs))
	for i, j := range jobs {
		if errs[i] = j.err; err != nil && !j.refused {
			errs[i] = err // what was decided may rest on what is not durable
		}
	}
	return errs
}

// tidy brings the index up to date, and compacts the file if it is time. If that is
// large, it says so instead. The caller has the lock on the file.
func (s *Store) tidy() (large bool, err error) {
	if err := s.follow(true); err != nil {
		return false, err
	}
	s.mu.RLock()
	suspect, wasteful := s.log.suspect != nil, s.isWasteful()
	large, copied := s.log.live > s.small, s.copied
	s.mu.RUnlock()
	switch {
	case suspect:
		return false, fsys.Late(s.rewrite()) // a change that failed to become durable may be asked for again
	case copied || !wasteful:
		return false, nil
	case large:
		return true, nil
	}
	s.compact()
	return false, nil
}

// keepIndex sees that the index gets whole, and that its file gets not too old.
func (s *Store) keepIndex() {
	s.mu.RLock()
	whole, worthwhile := s.log.base == nil, s.log.isIndexWorthwhile(s.few, tailPart) && !s.copied
	s.mu.RUnlock()
	if !whole {
		s.wholeBeside()
	}
	if worthwhile {
		s.indexBeside()
	}
}

// written is what a commit has put into the file and has not made durable yet.
type written struct {
	log      *log // held
	end      int64
	named    bool
	suspect  error
	needed   bool // somebody waits for it to be durable
	deserted bool
}

// write runs the jobs and appends what they plan. The index changes only after
// the file has. If it returns an error, nothing was changed; what becomes of single
// jobs is in them.
func (s *Store) write(jobs []*job) (written, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return written{}, fs.ErrClosed
	}
	p := s.firstPlan()
	defer p.clear()
	durable, sweeps := false, false
	for _, j := range jobs {
		if j.err = j.ctx.Err(); j.err == nil {
			durable, sweeps = durable || j.durable, sweeps || j.sweeps
			j.err = j.run(p)
		}
		j.end = len(p.frames)
	}
	s.carryOut(p, jobs)
	l := s.log
	l.hold()
	return written{
		log: l, end: l.end, named: l.named, suspect: l.suspect,
		needed: durable && l.must > l.durable &&
			slices.ContainsFunc(jobs, func(j *job) bool { return !j.refused }),
		deserted: l.deserted(sweeps, s.patience),
	}, nil
}

// plan is what a commit is going to append.
type plan struct {
	log    *log
	b      []byte
	frames []frame            // which are in b
	next   map[[16]byte]entry // the index as it will be, where it will differ; a zero entry is none
}

func (s *Store) newPlan() *plan { return &plan{log: s.log, next: make(map[[16]byte]entry)} }

// firstPlan is newPlan for the one plan of a commit, the memory of which the next
// commit uses again.
func (s *Store) firstPlan() *plan {
	if s.spare == nil || cap(s.spare.b) > 1<<20 { // one huge record's memory is not kept for ever
		s.spare = s.newPlan()
	}
	s.spare.log = s.log
	return s.spare
}

// clear leaves nothing of the plan but its memory.
func (p *plan) clear() {
	clear(p.frames)
	clear(p.next)
	p.log, p.b, p.frames = nil, p.b[:0], p.frames[:0]
}

// get returns the entry of a record with all that was added to the plan.
func (p *plan) get(id [16]byte) (entry, bool) {
	if e, ok := p.next[id]; ok {
		return e, e != entry{}
	}
	p.log.pull(id)
	return p.log.index.Get(id)
}

// add appends a frame to the plan.
func (p *plan) add(o *op) {
	from := len(p.b)
	f := frame{op: *o, off: p.log.end + int64(from), whole: true}
	p.b = appendFrame(p.b, p.log.gen, f.off, p.log.durable, o)
	f.len = int64(len(p.b) - from)
	p.frames = append(p.frames, f)
	switch o.kind {
	case put:
		p.next[o.ID] = entryOf(o, f.off, f.len)
	case touch:
		e, _ := p.get(o.ID)
		e.Accessed, e.Expires = max(e.Accessed, o.Accessed), max(e.Expires, o.Expires)
		p.next[o.ID] = e
	case del:
		p.next[o.ID] = entry{}
	}
}

// carryOut appends what the jobs planned. The caller has s.mu.
func (s *Store) carryOut(p *plan, jobs []*job) {
	var err error
	if len(p.frames) > 0 {
		err = p.log.append(p.b, p.frames)
	}
	landed, sure := len(p.frames), true
	if err != nil {
		landed, sure = s.landed(p)
	}
	s.settle(jobs, landed, sure, err)
}

// landed returns how many frames of a plan are in the file and in the index after
// an append that failed, and cuts off what is half written. It is sure if nothing
// of the others is in the file, and so never will be.
func (s *Store) landed(p *plan) (n int, sure bool) {
	s.torn = true
	err := s.catchUp(true)
	s.torn = err != nil // the next commit cuts
	if s.log != p.log { // somebody has put another file in the place
		return 0, false
	}
	for ; n < len(p.frames) && p.frames[n].off < p.log.end; n++ {
		f := p.frames[n]
		if _, whole, err := p.log.readOp(f.off, f.len); err != nil || !whole {
			return n, false
		}
	}
	return n, err == nil
}

// settle says what became of the jobs whose first frames, landed of them, are in the
// file; err is why not all are, and sure that no more are. Other processes may have
// seen these frames and gone on from them, so they stay, and are no failure. The rest
// is refused, but for a job that turns out to need no change.
func (s *Store) settle(jobs []*job, landed int, sure bool, err error) {
	from := 0
	for _, j := range jobs {
		j.made = max(0, min(j.end, landed)-from)
		switch {
		case j.end <= landed: // and so is all that was decided before
		case !sure || from < landed:
			j.err, j.refused, j.unsure = fsys.Partly(err), true, !sure
		default:
			again := s.newPlan()
			if j.err = j.run(again); len(again.frames) > 0 {
				j.err, j.refused = err, true
			}
		}
		from = j.end
	}
}

// flush makes durable what was written, if somebody waits for that. It does so
// without s.mu, so that readers go on. Its error does not pass for a refusal: the
// changes are in the file.
func (s *Store) flush(w written) error {
	if !w.needed {
		w.log.release()
		return nil
	}
	failed, err := w.suspect != nil, w.suspect
	if !failed {
		failed, err = w.log.sync(w.named)
	}
	w.log.release() // before s.mu: who has that may wait for this
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case failed:
		w.log.suspect = err
	case err == nil:
		w.log.named, w.log.durable = true, max(w.log.durable, w.end)
	}
	return fsys.Late(err)
}
