package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/session2/session2/internal/fsys"
)

// Setup makes the store's directories, as Open has done already, and checks those
// that are there. It rebuilds an index that has vanished; otherwise the next call
// that needs the index does.
func (s *Store) Setup(ctx context.Context) error {
	if err := s.setup(ctx); err != nil {
		return err
	}
	return s.complete(ctx, allIndexes...)
}

func (s *Store) setup(ctx context.Context) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	s.forget()
	if err := s.makeAll(s.dir); err != nil {
		return err
	}
	names := []string{".", "locks", "corrupt", "due", "due/new", "due/accessed", "due/expires", "sessions", "users"}
	for _, name := range names {
		if err := s.makeDir(s.path(filepath.FromSlash(name))); err != nil {
			return err
		}
	}
	for _, tree := range []string{"sessions", "users"} {
		if err := s.checkTree(ctx, s.path(tree)); err != nil {
			return err
		}
	}
	if err := s.syncMade(); err != nil {
		return err
	}
	return s.newLock("open").Probe() // fails where there are no locks, now and not at the first Save
}

// place makes the store's directory, and resolves its path, so that a later
// change of the working directory or of a link on the way moves nothing.
func (s *Store) place(dir string) error {
	own := s.fs
	if s.shared {
		s.fs = fsys.Share(own, nil)
	}
	if dir == "" { // of an unset variable, as likely as not
		return errors.New("no directory is named")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := s.makeAll(dir); err != nil {
		return err
	}
	if s.dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	info, err := s.fs.Lstat(s.dir)
	if err != nil {
		return err
	}
	if s.shared {
		s.fs = fsys.Share(own, info)
	}
	if err := s.check(s.dir, info); err != nil {
		return err
	}
	return s.checkParent()
}

// checkParent refuses a directory in which somebody else could put another one in the
// place of the store's.
func (s *Store) checkParent() error {
	parent := filepath.Dir(s.dir)
	info, err := s.fs.Lstat(parent)
	if err != nil {
		return err
	}
	if err := fsys.Holds(info, s.shared); err != nil {
		return fmt.Errorf("refusing %s, for it is in %s: %w", s.dir, parent, err)
	}
	return nil
}

// forget makes the next calls look for the directories xx again.
func (s *Store) forget() {
	for i := range s.sessions {
		s.sessions[i].Store(false)
		s.users[i].Store(false)
	}
}

// makeAll makes the directory dir, and those that it is in, durably.
func (s *Store) makeAll(dir string) error {
	err := s.fs.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir {
		if err := s.makeAll(filepath.Dir(dir)); err != nil {
			return err
		}
		err = s.fs.Mkdir(dir, 0o700)
	}
	switch {
	case err == nil:
		return s.syncDir(filepath.Dir(dir))
	case errors.Is(err, fs.ErrExist):
		return nil
	}
	return err
}

// makeDir makes a directory, or checks the one that is there.
func (s *Store) makeDir(dir string) error {
	err := s.fs.Mkdir(dir, 0o700)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := s.fs.Lstat(dir)
	if err != nil {
		return err
	}
	return s.check(dir, info)
}

// checkTree checks the directories xx that are there. Later calls rely on it.
func (s *Store) checkTree(ctx context.Context, tree string) error {
	return s.eachEntry(ctx, tree, func(name string) error {
		if len(name) != len("xx") {
			return nil
		}
		info, err := s.fs.Lstat(filepath.Join(tree, name))
		if err != nil {
			return err
		}
		return s.check(filepath.Join(tree, name), info)
	})
}

// check refuses a directory that somebody else may write to.
func (s *Store) check(dir string, info fs.FileInfo) error {
	if err := fsys.Private(info, s.shared); err != nil {
		return fmt.Errorf("refusing %s: %w", dir, err)
	}
	return nil
}

// syncMade makes the directories durable: whoever made them may not have come to
// that. The store's own may be in one that this process cannot open; then it is
// not the one that made it.
func (s *Store) syncMade() error {
	for _, dir := range []string{s.path("due"), s.dir} {
		if err := s.syncDir(dir); err != nil {
			return err
		}
	}
	if err := s.syncDir(filepath.Dir(s.dir)); !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}
