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

	"github.com/session2/session2/internal/tally"
)

// The index by user is a folder for each, which holds an empty file for each
// of the user's sessions. An entry is durable before a record that needs it
// can be seen, and is removed after the record's change or end is durable. So
// "log out everywhere" misses no session, wherever a crash comes:
//
//   - before the record is renamed in place: the entry leads to no record, or
//     to one of another user;
//   - before the old user's entry is removed: likewise.
//
// Such an entry is dropped when somebody next lists the user's sessions, under
// the record's lock, which a writer holds from the entry to the end. Until
// then it costs an empty file.

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
func (s *FileStore) DeleteUser(ctx context.Context, user string, keep ...ID) (int, error) {
	ids, err := s.userIDs(ctx, user)
	n, errs := 0, []error{err}
	for _, id := range ids {
		if slices.Contains(keep, id) {
			continue
		}
		deleted, err := s.deleteOfUser(ctx, user, id)
		if deleted {
			n++
			tally.Add(ctx, 1)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%v: %w", id, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	if err := errors.Join(errs...); err != nil {
		return n, fmt.Errorf("session2: delete user: %w", err)
	}
	return n, nil
}

// deleteOfUser removes the record if it is the user's, and the entry anyway.
func (s *FileStore) deleteOfUser(ctx context.Context, user string, id ID) (deleted bool, err error) {
	err = s.locked(ctx, id, func() error {
		r, found, aside, err := s.lookupIntact(id)
		deleted = aside
		if err == nil && found && r.User == user {
			err = s.remove(id)
			deleted = err == nil
		}
		if err != nil {
			return err
		}
		return s.endUser(user, id)
	})
	return deleted, err
}

// checkUser drops the user's entry for a record that is gone or another's.
func (s *FileStore) checkUser(ctx context.Context, user string, id ID) error {
	return s.locked(ctx, id, func() error {
		r, found, _, err := s.lookupIntact(id)
		if err != nil || found && r.User == user {
			return err
		}
		return s.endUser(user, id)
	})
}

// userIDs returns the IDs that the index has for a user.
func (s *FileStore) userIDs(ctx context.Context, user string) ([]ID, error) {
	if err := s.begin(ctx); err != nil || user == "" {
		return nil, err
	}
	return s.listIDs(s.userFolder(user), func(string) {})
}

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
	sum := sha256.Sum256([]byte(user))
	if err := s.fanOut("users", &s.users[sum[0]], hexByte(sum[0])); err != nil {
		return err
	}
	dir := s.userFolder(user)
	err := s.createUser(dir, id)
	for try := 0; try < 100 && errors.Is(err, fs.ErrNotExist); try++ {
		err = s.createUser(dir, id) // somebody removed the folder, empty as it was
	}
	if err != nil {
		return err
	}
	if err := s.syncDir(dir); err != nil {
		return err
	}
	return s.syncDir(filepath.Dir(dir)) // who created the folder may not have come to that yet
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

// endUser makes a record's change or end durable, for it may be somebody
// else's who got no further, and then drops the entry.
func (s *FileStore) endUser(user string, id ID) error {
	if err := s.syncFolder(id); err != nil {
		return err
	}
	s.dropUser(user, id)
	return nil
}

// dropUser removes an entry, and the user's folder unless it holds others. It
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
