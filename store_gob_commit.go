package session2

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/goblog"
)

const (
	// gobBatch is how many changes share one append at most.
	gobBatch = 256

	// gobSlack is how much of the file may be dead whatever lives, and gobRest
	// how much if nothing does. A DeleteOld that leaves no record leaves none of
	// the file either.
	gobSlack = 1 << 20
	gobRest  = 64 << 10
)

// gobJob is one call's part of a commit.
type gobJob struct {
	ctx     context.Context
	durable bool // the call must not return before the disk has it
	sweeps  bool // if nothing is left, nothing of the file shall be
	run     func(*gobPlan) error

	// What came of it. After an error, too, some of a job's frames may be in the file.
	made   int  // how many
	unsure bool // there may be more
}

// do has a change decided and made, together with those of other goroutines.
// A change is decided by what the file holds once this process has the lock.
func (s *GobStore) do(ctx context.Context, j *gobJob) error {
	j.ctx, j.durable = ctx, j.durable && !s.noSync
	return s.batch.Do(ctx, j)
}

// commit decides and makes the changes of jobs with one append, and one sync if
// any of them needs it. The caller has the lock on the file.
func (s *GobStore) commit(jobs []*gobJob) []error {
	errs := make([]error, len(jobs))
	made, err := s.make(jobs, errs)
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	err = s.flush(made)
	for i := range errs {
		if err != nil && !made.refused[i] {
			errs[i] = err // what was decided may rest on what is not durable
		}
	}
	if err == nil && made.gone {
		s.compact()
	}
	return errs
}

// make makes the changes of jobs, but does not flush them. If it returns an error,
// nothing was changed.
func (s *GobStore) make(jobs []*gobJob, errs []error) (gobMade, error) {
	if err := s.tidy(); err != nil {
		return gobMade{}, err
	}
	return s.append(jobs, errs)
}

// tidy brings the index up to date, and compacts the file if it is time. The
// caller has the lock on the file.
func (s *GobStore) tidy() error {
	if err := s.follow(true); err != nil {
		return err
	}
	s.mu.RLock()
	suspect, wasteful := s.shelf.log.IsSuspect(), s.shelf.wasteful(max(s.slack, s.patience))
	s.mu.RUnlock()
	if suspect {
		return fsys.Late(s.rewrite()) // a change that failed to become durable may be asked for again
	}
	if wasteful {
		s.compact()
	}
	return nil
}

// compact rewrites the file to save space. A failure is no reason to refuse
// changes, as long as they can be appended; the next attempt comes when as much
// again is dead.
func (s *GobStore) compact() {
	err := s.rewrite()
	if err == nil || errors.Is(err, os.ErrClosed) {
		s.patience = 0
		return
	}
	s.mu.RLock()
	s.patience = 2 * s.shelf.log.End()
	s.mu.RUnlock()
	s.logger.Error("session2: gob store: cannot compact", "path", s.path, "err", err)
}

// gobMade is what a commit has put into the file and has not made durable yet.
type gobMade struct {
	log     *goblog.Log
	release func() // what holds the log
	flush   goblog.Flush
	needed  bool   // somebody waits for the flush
	gone    bool   // no record is left, and too much of the file is
	refused []bool // whose change is not in the file, by job
}

// flush makes durable what was made, if somebody waits for that. It does so
// without s.mu, so that readers go on.
func (s *GobStore) flush(m gobMade) error {
	if !m.needed {
		m.release()
		return nil
	}
	err := m.flush.Run()
	m.release() // before s.mu: who has that may wait for this
	s.mu.Lock()
	defer s.mu.Unlock()
	return m.log.Flushed(m.flush, err)
}

// rewrite replaces the file by one with what is alive. The caller has the lock
// on the file, and nobody's writing s.mu: readers go on, as until the new file
// has its name nobody changes the index. After an error the file may be the old
// one or the new.
func (s *GobStore) rewrite() error {
	old, r, release, err := s.hold()
	if err != nil {
		return err
	}
	next := &gobShelf{replaced: make(map[ID]gobReplaced)}
	log, err := goblog.Rewrite(s.fs, s.path, !s.noSync, func(w *goblog.Writer) error {
		return s.copyLive(w, r, old, next)
	})
	release() // or else replace would wait for it
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		return err
	}
	if s.closed {
		log.Close()
		return os.ErrClosed
	}
	next.log, next.must = log, log.End()
	s.replace(next)
	return nil
}

// hold returns the present shelf and a reader of its log.
func (s *GobStore) hold() (*gobShelf, goblog.Reader, func(), error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, goblog.Reader{}, nil, os.ErrClosed
	}
	r, release := s.shelf.log.Hold()
	return s.shelf, r, release, nil
}

// copyLive writes every record of old to w, in the order of the file, and puts
// it into the index of next.
func (s *GobStore) copyLive(w *goblog.Writer, r goblog.Reader, old, next *gobShelf) error {
	ids := old.index.AppendIDs(nil)
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
