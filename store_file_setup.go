package session2

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/session2/session2/internal/fsys"
)

// A FileStore's directory:
//
//	sessions/xx/ID           the records, by the ID's first byte
//	users/xx/HASH/ID         the index by user: empty files, by SHA-256 of the user
//	due/new, due/accessed, due/expires    the index by time
//	users/complete, due/new/complete, ...    say that no entry was lost
//	locks/xx, locks/sweep    never renamed or removed
//	corrupt/ID               files that were no record
//
// All names are made from IDs, hashes and numbers, never from what users say.

// Setup implements [SetupStore]. It makes the store's directories, as
// [OpenFileStore] has done already, and checks those that are there. It rebuilds
// an index that has vanished, which else the next call that needs it does.
func (s *FileStore) Setup(ctx context.Context) error {
	err := s.setup(ctx)
	if err == nil {
		err = s.complete(ctx, fileIndexes...)
	}
	if err != nil {
		return fmt.Errorf("session2: set up: %w", err)
	}
	return nil
}

func (s *FileStore) setup(ctx context.Context) error {
	if err := s.begin(ctx); err != nil {
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
func (s *FileStore) place(dir string) error {
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
	return s.check(s.dir, info)
}

// forget makes the next calls look for the directories xx again.
func (s *FileStore) forget() {
	for i := range s.sessions {
		s.sessions[i].Store(false)
		s.users[i].Store(false)
	}
}

// makeAll makes the directory dir, and those that it is in, durably.
func (s *FileStore) makeAll(dir string) error {
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
func (s *FileStore) makeDir(dir string) error {
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
func (s *FileStore) checkTree(ctx context.Context, tree string) error {
	var names []string
	err := s.eachName(ctx, tree, func(name string) {
		if len(name) == 2 {
			names = append(names, name)
		}
	})
	for _, name := range names {
		if err != nil {
			break
		}
		var info fs.FileInfo
		if info, err = s.fs.Lstat(filepath.Join(tree, name)); err == nil {
			err = s.check(filepath.Join(tree, name), info)
		}
	}
	return err
}

// check refuses a directory that somebody else may write to.
func (s *FileStore) check(dir string, info fs.FileInfo) error {
	if err := fsys.Private(info, s.shared); err != nil {
		return fmt.Errorf("refusing %s: %w", dir, err)
	}
	return nil
}

// syncMade makes the directories durable: whoever made them may not have come to
// that. The store's own may be in one that this process cannot open; then it is
// not the one that made it.
func (s *FileStore) syncMade() error {
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

// fanOut makes sure that the directory xx in a tree is there, durably; it asks
// the file system once. Whoever made it may not have come to syncing it.
func (s *FileStore) fanOut(tree string, known *atomic.Bool, xx string) error {
	if known.Load() {
		return nil
	}
	if err := s.fs.Mkdir(s.path(tree, xx), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := s.syncDir(s.path(tree)); err != nil {
		return err
	}
	known.Store(true)
	return nil
}

const separator = string(filepath.Separator)

// path returns the place of something in the store.
func (s *FileStore) path(elem ...string) string {
	return s.dir + separator + strings.Join(elem, separator)
}

// folder returns the directory of the record, and file its file in there.
func (s *FileStore) folder(id ID) string { return s.path("sessions", hexByte(id[0])) }
func (s *FileStore) file(id ID) string   { return s.path("sessions", hexByte(id[0]), id.String()) }

func hexByte(b byte) string { return hex.EncodeToString([]byte{b}) }

// syncDir makes the names in a directory durable, unless NoSync forgoes it.
func (s *FileStore) syncDir(dir string) error {
	if !s.sync {
		return nil
	}
	return s.fs.SyncDir(dir)
}

// syncFolder makes durable which files are in a record's directory. What changed
// there has changed, whatever becomes of this.
func (s *FileStore) syncFolder(id ID) error {
	err := s.syncDir(s.folder(id))
	if errors.Is(err, fs.ErrNotExist) { // nor is there a file
		return nil
	}
	return fsys.Late(err)
}

// eachName calls fn for the names in a directory, a bounded number at a time; an
// absent directory has none.
func (s *FileStore) eachName(ctx context.Context, dir string, fn func(name string)) error {
	d, err := s.fs.OpenFile(dir, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		entries, err := d.ReadDir(512)
		for _, e := range entries {
			fn(e.Name())
		}
		if err == io.EOF || errors.Is(err, fs.ErrNotExist) { // it was removed meanwhile, empty as it was
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// eachEntry is eachName with an fn that may fail, after which it is called no more.
func (s *FileStore) eachEntry(ctx context.Context, dir string, fn func(name string) error) (failed error) {
	err := s.eachName(ctx, dir, func(name string) {
		if failed == nil {
			failed = fn(name)
		}
	})
	return cmp.Or(failed, err)
}

// isEmpty reports whether a directory is there and holds nothing.
func (s *FileStore) isEmpty(dir string) bool {
	d, err := s.fs.OpenFile(dir, os.O_RDONLY, 0)
	if err != nil {
		return false
	}
	defer d.Close()
	_, err = d.ReadDir(1)
	return err == io.EOF
}
