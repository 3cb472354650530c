package session2

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/session2/session2/internal/fsys"
)

// A FileStore's folder:
//
//	sessions/xx/ID           the records, by the ID's first byte
//	users/xx/HASH/ID         the index by user: empty files, by SHA-256 of the user
//	due/new, due/accessed, due/expires    the index by time
//	locks/xx, locks/sweep    never renamed or removed
//	corrupt/ID               files that were no record
//
// All names are made from IDs, hashes and numbers, never from what users say.

// Setup implements [SetupStore]. It creates the store's folders, as
// [OpenFileStore] has done already.
func (s *FileStore) Setup(ctx context.Context) error {
	if err := s.setup(ctx); err != nil {
		return fmt.Errorf("session2: set up: %w", err)
	}
	return nil
}

func (s *FileStore) setup(ctx context.Context) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	if err := s.makeRoot(); err != nil {
		return err
	}
	for _, name := range []string{"locks", "corrupt", "due", "due/new", "due/accessed", "due/expires", "sessions", "users"} {
		if err := s.makeDir(s.path(filepath.FromSlash(name))); err != nil {
			return err
		}
	}
	for _, dir := range []string{s.path("due"), s.dir, filepath.Dir(s.dir)} {
		if err := s.syncDir(dir); err != nil {
			return err
		}
	}
	return s.tryLocks(ctx)
}

// makeRoot creates the store's folder, which may be a link to one, and checks
// what is there.
func (s *FileStore) makeRoot() error {
	if err := s.makeAll(s.dir); err != nil {
		return err
	}
	f, err := s.fs.OpenFile(s.dir, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return checkFolder(s.dir, info)
}

// makeAll creates the folder dir, and those that it is in.
func (s *FileStore) makeAll(dir string) error {
	err := s.fs.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir {
		if err := s.makeAll(filepath.Dir(dir)); err != nil {
			return err
		}
		err = s.fs.Mkdir(dir, 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// makeDir creates a folder, or checks the one that is there.
func (s *FileStore) makeDir(dir string) error {
	err := s.fs.Mkdir(dir, 0o700)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := s.fs.Lstat(dir)
	if err != nil {
		return err
	}
	return checkFolder(dir, info)
}

// fanOut makes sure that the folder xx in a tree is there, durably; it asks the
// file system once. Whoever created the folder may not have come to syncing it.
func (s *FileStore) fanOut(tree string, known *atomic.Bool, xx string) error {
	if known.Load() {
		return nil
	}
	if err := s.makeDir(s.path(tree, xx)); err != nil {
		return err
	}
	if err := s.syncDir(s.path(tree)); err != nil {
		return err
	}
	known.Store(true)
	return nil
}

func checkFolder(dir string, info fs.FileInfo) error {
	if err := fsys.Private(info); err != nil {
		return fmt.Errorf("refusing %s: %w", dir, err)
	}
	return nil
}

// tryLocks fails where there are no locks, now rather than at the first Save.
// This lock is shared, so that nobody waits for it.
func (s *FileStore) tryLocks(ctx context.Context) error {
	unlock, err := s.newLock("open").RLock(ctx)
	if err == nil {
		unlock()
	}
	return err
}

func (s *FileStore) path(elem ...string) string {
	return filepath.Join(s.dir, filepath.Join(elem...))
}

// folder returns the folder of the record, and file its file in there.
func (s *FileStore) folder(id ID) string { return s.path("sessions", hexByte(id[0])) }
func (s *FileStore) file(id ID) string   { return filepath.Join(s.folder(id), id.String()) }

func hexByte(b byte) string { return hex.EncodeToString([]byte{b}) }

// syncDir makes the names in a folder durable, unless NoSync forgoes it.
func (s *FileStore) syncDir(dir string) error {
	if !s.sync {
		return nil
	}
	return s.fs.SyncDir(dir)
}

// syncFolder makes durable which files are in a record's folder.
func (s *FileStore) syncFolder(id ID) error {
	err := s.syncDir(s.folder(id))
	if errors.Is(err, fs.ErrNotExist) { // nor is there a file
		return nil
	}
	return err
}

// eachName calls fn for the names in a folder, a bounded number at a time; an
// absent folder has none.
func (s *FileStore) eachName(dir string, fn func(name string)) error {
	d, err := s.fs.OpenFile(dir, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		entries, err := d.ReadDir(512)
		for _, e := range entries {
			fn(e.Name())
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
