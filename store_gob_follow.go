package session2

import (
	"context"
	"errors"
	"os"

	"github.com/session2/session2/internal/goblog"
)

// refresh brings the index up to date with what other processes have done.
func (s *GobStore) refresh(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if fresh, err := s.isFresh(); fresh || err != nil {
		return err
	}
	err := s.follow(false)
	if !errors.Is(err, goblog.ErrUnsure) {
		return err
	}
	unlock, err := s.lock.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return s.follow(true)
}

// isFresh reports whether everything in the file is in the index.
func (s *GobStore) isFresh() (bool, error) {
	info, err := s.fs.Lstat(s.path)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return false, os.ErrClosed
	}
	if err != nil {
		return false, err
	}
	return s.shelf.log.Covers(info), nil
}

func (s *GobStore) follow(locked bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.catchUp(locked)
}

// catchUp reads what is new in the file, or all of a new file. The caller has
// s.mu, and says whether it has the lock on the file, too.
func (s *GobStore) catchUp(locked bool) error {
	if s.closed {
		return os.ErrClosed
	}
	info, err := s.fs.Lstat(s.path)
	if err != nil {
		return err
	}
	if !s.shelf.log.Is(info) {
		return s.reload(locked)
	}
	if s.shelf.log.Covers(info) {
		return nil
	}
	return s.replay(s.shelf, locked)
}

// reload opens and reads the file that is at the path now. The caller has s.mu.
func (s *GobStore) reload(locked bool) error {
	shelf, err := openGobShelf(s.fs, s.path)
	if err != nil {
		return err
	}
	if err := s.replay(shelf, locked); err != nil {
		shelf.log.Close()
		return err
	}
	s.replace(shelf)
	return nil
}

// replace puts shelf in the place of the present one. The caller has s.mu.
func (s *GobStore) replace(shelf *gobShelf) {
	old := s.shelf
	s.shelf = shelf
	if old != nil {
		old.log.Close()
	}
}

// replay brings shelf up to date with its log. Damage is believed, and cut,
// only with the lock on the file.
func (s *GobStore) replay(shelf *gobShelf, locked bool) error {
	cut, err := shelf.log.Read(locked, func(e goblog.Entry) {
		shelf.apply(e)
		if e.Damage != "" {
			s.reportDamage(e)
		}
	})
	if err != nil {
		return err
	}
	if cut > 0 && !s.torn {
		s.logger.Warn("session2: gob store: cut off an incomplete change, which was not acknowledged",
			"path", s.path, "offset", shelf.log.End(), "bytes", cut)
	}
	s.torn = s.torn && !locked
	if shelf.judge() {
		shelf.log.Suspect(errGobRevived)
	}
	return nil
}

var errGobRevived = errors.New("the log holds changes that were not durable when the machine went down")

func (s *GobStore) reportDamage(e goblog.Entry) {
	id := "unknown"
	if e.Kind != 0 {
		id = ID(e.ID).String()
	}
	s.logger.Error("session2: gob store: "+e.Damage, "path", s.path,
		"offset", e.Off, "bytes", e.Len, "id", id, "recovered", e.Whole)
}
