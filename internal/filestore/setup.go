package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/session2/session2/internal/fsys"
)

// directories are those of a store, but for the directories xx.
var directories = []string{"locks", "corrupt", "due", "due/new", "due/accessed", "due/expires", "sessions", "users"}

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
	for _, name := range append([]string{"."}, directories...) {
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
func (s *Store) place(dir string) (err error) {
	if dir == "" { // of an unset variable, as likely as not
		return errors.New("no directory is named")
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if s.dir, err = s.resolve(dir); err != nil {
		return err
	}
	above, err := s.above() // before anything is made
	if err != nil {
		return err
	}
	own := s.fs
	if s.shared {
		s.fs = fsys.ShareBelow(own, above)
	}
	if err := s.makeAll(s.dir); err != nil {
		return err
	}
	if above, err = s.above(); err != nil { // also if somebody else has made it meanwhile
		return err
	}
	info, err := s.fs.Lstat(s.dir)
	if err != nil {
		return err
	}
	if err := fsys.Private(info, s.shared); err != nil {
		return refusing(s.dir, err)
	}
	if s.shared {
		s.fs, err = s.share(own, info, above)
	}
	return err
}

// resolve returns the path without symbolic links of a directory that need not be there.
// A link to nowhere is an error.
func (s *Store) resolve(dir string) (string, error) {
	path, err := filepath.EvalSymlinks(dir)
	if !errors.Is(err, fs.ErrNotExist) || filepath.Dir(dir) == dir {
		return path, err
	}
	if _, linked := s.fs.Lstat(dir); linked == nil {
		return "", err
	}
	parent, err := s.resolve(filepath.Dir(dir))
	return filepath.Join(parent, filepath.Base(dir)), err
}

// above returns the info of the directory that the store's is in, or is to be made in:
// the next one that is there. It refuses a parent in which somebody else could put another
// directory in the place of the store's.
func (s *Store) above() (info fs.FileInfo, err error) {
	parent := filepath.Dir(s.dir)
	if info, err = s.fs.Lstat(parent); err == nil {
		if err := fsys.Holds(info, s.shared); err != nil {
			return nil, fmt.Errorf("refusing %s, for it is in %s: %w", s.dir, parent, err)
		}
	}
	for errors.Is(err, fs.ErrNotExist) && parent != filepath.Dir(parent) {
		parent = filepath.Dir(parent)
		info, err = s.fs.Lstat(parent)
	}
	return info, err
}

// share opens the store's directory to its group, if a private store is not in the way,
// and returns the file system that leaves to the group what it creates.
func (s *Store) share(own fsys.FS, info, above fs.FileInfo) (fsys.FS, error) {
	for _, name := range directories {
		switch info, err := own.Lstat(s.path(filepath.FromSlash(name))); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		default:
			if err := fsys.Closed(info); err != nil {
				return nil, refusing(s.path(filepath.FromSlash(name)), err)
			}
		}
	}
	info, err := fsys.OpenDir(own, s.dir, info, above)
	if err != nil {
		return nil, refusing(s.dir, err)
	}
	return fsys.Share(own, info), nil
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

// check refuses a directory that somebody else may write to, and one that is closed to the
// group that shares the store.
func (s *Store) check(dir string, info fs.FileInfo) error {
	err := fsys.Private(info, s.shared)
	if err == nil && s.shared {
		err = fsys.Closed(info)
	}
	if err != nil {
		return refusing(dir, err)
	}
	return nil
}

func refusing(dir string, err error) error { return fmt.Errorf("refusing %s: %w", dir, err) }

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
