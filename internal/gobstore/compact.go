package gobstore

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"github.com/session2/session2/internal/fsys"
)

const (
	// maxDead is how much of the file may be dead whatever lives, and maxRest how
	// much if nothing does. A DeleteOld that leaves no record leaves none of
	// the file either.
	maxDead = 1 << 20
	maxRest = 64 << 10

	// maxSmall is how much may live for a commit to copy it itself, before its changes.
	maxSmall = 1 << 20
)

// isWasteful reports whether it is time for a compaction. The caller has s.mu.
func (s *Store) isWasteful() bool { return s.log.wasteful(max(s.slack, s.patience)) }

// wasteful reports whether more is dead than live, and more than slack.
func (l *log) wasteful(slack int64) bool { return l.dead() > max(l.live, slack) }

// deserted reports whether there is no record and so much of the file that it
// should be made anew: any at all for a sweep, and more than slack in any case.
func (l *log) deserted(sweeps bool, slack int64) bool {
	if !sweeps {
		slack = max(slack, maxRest)
	}
	return l.live == 0 && l.dead() > slack
}

func (l *log) dead() int64 { return l.end - headerSize - l.live }

// compact rewrites the file to save space. The caller has the lock on the file.
func (s *Store) compact() { s.compacted(s.rewrite()) }

// compacted takes down how a compaction ended. A failure is no reason to refuse
// changes, as long as they can be appended; the next attempt comes when as much
// again is dead.
func (s *Store) compacted(err error) {
	failed := err != nil && !errors.Is(err, fs.ErrClosed)
	s.mu.Lock()
	s.patience = 0
	if failed {
		s.patience = 2 * s.log.end
	}
	s.mu.Unlock()
	if !failed {
		return
	}
	s.logger.Error("session2: gob store: cannot compact", "path", s.path, "err", err)
}

// rewrite replaces the file by one with what is alive. The caller has the lock
// on the file, and nobody's writing s.mu: readers go on, as until the new file
// has its name nobody changes the index. After an error the file may be the old
// one or the new.
func (s *Store) rewrite() error {
	s.whole(context.Background())
	c, err := s.newCopier(fsys.Temp(s.path))
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.copy(context.Background(), c.all()); err != nil {
		return err
	}
	if err := c.finish(); err != nil {
		return err
	}
	s.fs.Remove(basePath(s.path)) // another log's by now
	return nil
}

// create puts an empty log at path, and opens it. The caller holds the lock.
func create(fsy fsys.FS, path string, sync bool) (*log, error) {
	l := newLog(fsy, path)
	l.gen = newGeneration()
	err := fsys.WriteFile(fsy, path, sync, func(f io.Writer) error {
		_, err := f.Write(l.gen.header())
		return err
	})
	if err == nil {
		err = l.open()
	}
	if err != nil {
		return nil, err
	}
	if sync {
		l.durable, l.named = l.end, true
	}
	return l, nil
}
