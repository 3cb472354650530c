package session2

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/tally"
)

// The index by user is a directory for each, which holds an empty file for each
// of the user's sessions. An entry is durable before a record that needs it
// can be seen, and is removed after the record's change or end is durable. So
// "log out everywhere" misses no session, wherever a crash comes:
//
//   - before the record is renamed in place: the entry leads to no record, or
//     to one of another user;
//   - before the old user's entry is removed: likewise.
//
// Such an entry is dropped when somebody next lists the user's sessions, or by
// [FileStore.TrimIndexes], under the record's lock, which a writer holds from the
// entry to the end. Until then it costs an empty file.

// IterUser implements [UserStore].
func (s *FileStore) IterUser(ctx context.Context, user string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		ids, err := s.userIDs(ctx, user)
		if err != nil {
			yield(Record{}, fmt.Errorf("session2: iter user: %w", err))
			return
		}
		for _, id := range ids {
			rec, err := s.load(ctx, id)
			if errors.Is(err, ErrNotFound) || err == nil && rec.User != user {
				if err = s.checkUser(ctx, user, id); err == nil {
					continue
				}
			}
			if !yieldLoaded(yield, "iter user", id, rec, err) {
				return
			}
		}
	}
}

// DeleteUser implements [UserStore]. A record that cannot be deleted does not
// save the others.
func (s *FileStore) DeleteUser(ctx context.Context, user string, keep ...ID) (n int, err error) {
	ids, err := s.userIDs(ctx, user)
	errs := []error{err}
	ids = slices.DeleteFunc(ids, func(id ID) bool { return slices.Contains(keep, id) })
	for group := range fileGroups(ids, func(id ID) ID { return id }) {
		if err := ctx.Err(); err != nil {
			errs = append(errs, err)
			break
		}
		deleted, err := s.deleteOfUser(ctx, user, group)
		n += deleted
		tally.Add(ctx, deleted)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return n, fmt.Errorf("session2: delete user: %w", err)
	}
	return n, nil
}

// deleteOfUser removes those of a group of records that are the user's, and the
// entries anyway, with one sync for all of them. It returns the number of records.
func (s *FileStore) deleteOfUser(ctx context.Context, user string, group []ID) (n int, err error) {
	err = s.locked(ctx, group[0], func() error {
		var errs []error
		var ended []ID
		for _, id := range group {
			r, found, aside, err := s.lookupIntact(id)
			remove := err == nil && found && r.User == user
			if remove {
				err = s.remove(id)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%v: %w", id, err))
				continue
			}
			if remove || aside {
				n++
			}
			ended = append(ended, id)
		}
		if err := s.endUser(user, ended...); err != nil {
			return errors.Join(append(errs, err)...)
		}
		return errors.Join(append(errs, s.forgetNew(group[0]))...)
	})
	return n, err
}

// fileGroups cuts what is sorted by ID into groups of records that share a lock
// and a directory. They are small, so that nobody waits for long.
func fileGroups[E any](list []E, id func(E) ID) iter.Seq[[]E] {
	return func(yield func([]E) bool) {
		for len(list) > 0 {
			n := 1
			for n < len(list) && n < dueGroup && id(list[n])[0] == id(list[0])[0] {
				n++
			}
			if !yield(list[:n]) {
				return
			}
			list = list[n:]
		}
	}
}

// checkUser drops the user's entry for a record that is gone or another's.
func (s *FileStore) checkUser(ctx context.Context, user string, id ID) error {
	return s.locked(ctx, id, func() error { return s.checkEntry(user, id) })
}

// checkEntry does so for a caller who holds the record's lock.
func (s *FileStore) checkEntry(user string, id ID) error {
	r, found, _, err := s.lookupIntact(id)
	if err != nil || found && r.User == user {
		return err
	}
	return s.endUser(user, id)
}

// userIDs returns the IDs that the index has for a user. Temporaries, which there
// are in a shared directory alone, it removes: a writer who is not dead tries again.
func (s *FileStore) userIDs(ctx context.Context, user string) ([]ID, error) {
	if err := s.begin(ctx); err != nil || user == "" {
		return nil, err
	}
	if err := s.complete(ctx, userIndex); err != nil {
		return nil, err
	}
	dir, left := s.userFolder(user), false
	ids, err := s.listIDs(ctx, dir, func(name string) {
		if fsys.IsTemp(name) {
			s.fs.Remove(filepath.Join(dir, name))
			left = true
		}
	})
	if left {
		s.fs.Remove(dir) // fails unless it is empty
	}
	return ids, err
}

const userHashSize = sha256.Size

func (s *FileStore) userFolder(user string) string {
	sum := sha256.Sum256([]byte(user))
	return s.path("users", hexByte(sum[0]), hex.EncodeToString(sum[:]))
}

// addUser makes a durable entry; nobody has none. The caller holds the
// record's lock.
func (s *FileStore) addUser(user string, id ID) error {
	if user == "" {
		return nil
	}
	dir, err := s.makeUser(user, id)
	if err != nil {
		return err
	}
	if err := s.syncDir(dir); err != nil {
		return err
	}
	return s.syncDir(filepath.Dir(dir)) // who made the directory may not have come to that yet
}

// enterUser makes the entry of a record that lacks it. The caller holds the
// record's lock.
func (s *FileStore) enterUser(id ID) error {
	r, found, err := s.lookup(id)
	if err != nil || !found {
		return err
	}
	return s.addUser(r.User, id)
}

// makeUser makes an entry. The directory that it returns, and the one that this
// is in, are still to be synced. The caller holds the record's lock.
func (s *FileStore) makeUser(user string, id ID) (dir string, err error) {
	sum := sha256.Sum256([]byte(user))
	if err := s.fanOut("users", &s.users[sum[0]], hexByte(sum[0])); err != nil {
		return "", err
	}
	dir = s.userFolder(user)
	err = s.createUser(dir, id)
	for try := 0; try < 100 && errors.Is(err, fs.ErrNotExist); try++ {
		err = s.createUser(dir, id) // somebody removed the directory, empty as it was
	}
	return dir, err
}

func (s *FileStore) createUser(dir string, id ID) error {
	if err := s.fs.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := s.fs.OpenFile(filepath.Join(dir, id.String()), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// endUser makes the change or end of records durable, for it may be somebody
// else's who got no further, and then drops the entries. The records are in one
// directory.
func (s *FileStore) endUser(user string, ids ...ID) error {
	if len(ids) == 0 {
		return nil
	}
	if err := s.syncFolder(ids[0]); err != nil {
		return err
	}
	for _, id := range ids {
		s.dropUser(user, id)
	}
	return nil
}

// dropUser removes an entry, and the user's directory unless it holds others. It
// need not succeed. The caller holds the record's lock and has made durable
// that the record does not need the entry.
func (s *FileStore) dropUser(user string, id ID) {
	if user == "" {
		return
	}
	dir := s.userFolder(user)
	s.fs.Remove(filepath.Join(dir, id.String()))
	s.fs.Remove(dir) // fails unless it is empty
}
