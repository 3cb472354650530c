package filestore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/lockfile"
	"github.com/session2/session2/internal/record"
)

// Save replaces the record if its version still is prev, or creates it for a zero
// prev. What it does stands below in the order in which it is done; only the look at
// what is stored is in load.go. The last step, the sync of the record's directory, needs
// no lock: whoever changes the record meanwhile syncs the directory, too.
func (s *Store) Save(ctx context.Context, r record.Record, prev uint64) error {
	var synced bool
	err := s.locked(ctx, r.ID, func() (err error) {
		synced, err = s.save(ctx, &r, prev)
		return err
	})
	if err != nil || synced || !s.sync {
		return err
	}
	return fsys.Late(s.syncs[r.ID[0]].Do(context.Background(), struct{}{})) // not ctx: the change is made
}

// save is Save but for the last step, and reports whether that was done on the way. The
// caller holds the lock.
func (s *Store) save(ctx context.Context, r *record.Record, prev uint64) (synced bool, err error) {
	old, found, err := s.lookup(r.ID)
	if err != nil {
		return false, err
	}
	write, err := record.Admit(found, old.Version, r.Version, prev)
	if err != nil || !write { // not to write: it landed before, perhaps without its last step
		return false, err
	}
	if err := s.replace(ctx, &old, found, r); err != nil || old.User == "" || old.User == r.User {
		return false, err
	}
	return true, s.endUser(old.User, r.ID)
}

// locked calls do while no other writer, here or in another process, is at the
// record.
func (s *Store) locked(ctx context.Context, id [16]byte, do func() error) error {
	return s.withLock(ctx, s.locks[id[0]], do)
}

// withLock calls do with the lock held, and again once the store's directories are
// made anew if one of them turned out to be missing: somebody removed it since it
// was made, and entries of the indexes may have been in it.
func (s *Store) withLock(ctx context.Context, lock *lockfile.Mutex, do func() error) error {
	err := s.withLockOnce(ctx, lock, do)
	for try := 0; try < 3 && errors.Is(err, fs.ErrNotExist); try++ {
		if err := s.setup(ctx); err != nil {
			return err
		}
		s.unmark(allIndexes) // it need not succeed
		err = s.withLockOnce(ctx, lock, do)
	}
	return err
}

func (s *Store) withLockOnce(ctx context.Context, lock *lockfile.Mutex, do func() error) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	unlock, err := lock.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return do()
}

// replace writes r in place of old, which is what is stored if found. The
// record is the truth and the two indexes follow it: what leads to r is made
// durable before r is, and what led to old alone is removed after that is
// durable, too. So a crash between any two steps leaves entries too many,
// which are checked against the record whenever they are read, and never one
// too few. The caller holds the lock.
func (s *Store) replace(ctx context.Context, old *record.Record, found bool, r *record.Record) (err error) {
	buf, err := record.Append(nil, r)
	if err != nil {
		return fmt.Errorf("%w: %w", record.ErrTooLarge, err)
	}
	if err := s.fanOut("sessions", &s.sessions[r.ID[0]], hexByte(r.ID[0])); err != nil {
		return err
	}
	// While no write moves its times back, the record's first entry stays good.
	if !found || r.Accessed < old.Accessed || r.Expires < old.Expires {
		if err := s.announce(r.ID, r.Access); err != nil {
			return err
		}
	}
	if r.User != "" && (r.User != old.User || s.lacksUser(r.User, r.ID)) { // somebody removed the entry
		defer func() {
			if err != nil {
				s.checkEntry(r.User, r.ID) // it would be dropped when next met: here it need not succeed
			}
		}()
		if err := s.addUser(r.User, r.ID); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err = fsys.Replace(s.fs, s.file(r.ID), s.sync, func(w io.Writer) error {
		_, err := w.Write(buf)
		return err
	})
	if errors.Is(err, syscall.EFBIG) {
		err = fmt.Errorf("%w: %w", record.ErrTooLarge, err)
	}
	return err
}

// fanOut makes sure that the directory xx in a tree is there, durably; it asks
// the file system once. Whoever made it may not have come to syncing it.
func (s *Store) fanOut(tree string, known *atomic.Bool, xx string) error {
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

// announce makes a durable entry for a record that is about to be written. The
// caller holds the record's lock.
func (s *Store) announce(id [16]byte, a record.Access) error {
	return s.appendEntries(s.path("due", "new"), hexByte(id[0]), []entry{{id, a}})
}

// appendEntries makes entries durable at the end of a file. It writes over an
// entry that a crash tore: all of them have one size. The caller keeps others
// away from the file.
func (s *Store) appendEntries(dir, name string, entries []entry) error {
	f, err := s.fs.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	end := info.Size() - info.Size()%int64(entrySize)
	if end == 0 { // the file may be new: with an entry in it, it has a durable name
		if err := s.syncDir(dir); err != nil {
			return err
		}
	}
	if _, err := f.WriteAt(encodeEntries(entries), end); err != nil || !s.sync {
		return err
	}
	return f.Sync()
}

func encodeEntries(entries []entry) []byte {
	b := make([]byte, 0, len(entries)*entrySize)
	for _, e := range entries {
		b = record.AppendAccess(append(b, e.id[:]...), e.Access)
	}
	return b
}

// lacksUser reports whether the index by user has no entry for a record.
func (s *Store) lacksUser(user string, id [16]byte) bool {
	if user == "" {
		return false
	}
	_, err := s.fs.Lstat(s.userDir(user) + separator + hexID(id))
	return errors.Is(err, fs.ErrNotExist)
}

// addUser makes a durable entry. The caller holds the record's lock.
func (s *Store) addUser(user string, id [16]byte) error {
	dir, err := s.makeUser(user, id)
	if err != nil {
		return err
	}
	if err := s.syncDir(dir); err != nil {
		return err
	}
	return s.syncDir(filepath.Dir(dir)) // who made the directory may not have come to that yet
}

// makeUser makes an entry. The directory that it returns, and the one that this
// is in, are still to be synced. The caller holds the record's lock.
func (s *Store) makeUser(user string, id [16]byte) (dir string, err error) {
	sum := sha256.Sum256([]byte(user))
	if err := s.fanOut("users", &s.users[sum[0]], hexByte(sum[0])); err != nil {
		return "", err
	}
	dir = s.userDir(user)
	err = s.createUser(dir, id)
	for try := 0; try < 100 && errors.Is(err, fs.ErrNotExist); try++ {
		err = s.createUser(dir, id) // somebody removed the directory, empty as it was
	}
	return dir, err
}

func (s *Store) createUser(dir string, id [16]byte) error {
	if err := s.fs.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := s.fs.OpenFile(filepath.Join(dir, hexID(id)), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// dropUser removes an entry, and the user's directory unless it holds others. It
// need not succeed. The caller holds the record's lock and has made durable
// that the record does not need the entry.
func (s *Store) dropUser(user string, id [16]byte) {
	if user == "" {
		return
	}
	dir := s.userDir(user)
	s.fs.Remove(filepath.Join(dir, hexID(id)))
	s.fs.Remove(dir) // fails unless it is empty
}

// syncRecords makes durable which files are in a record's directory. What changed
// there has changed, whatever becomes of this.
func (s *Store) syncRecords(id [16]byte) error {
	err := s.syncDir(s.dirOf(id))
	if errors.Is(err, fs.ErrNotExist) { // nor is there a file
		return nil
	}
	return fsys.Late(err)
}
