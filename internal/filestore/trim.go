package filestore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/record"
)

// TrimIndexes drops from the index by user the entries that lead to no record, or to
// another user's: empty files, one of which a writer that is killed may leave. It
// reads the records that the index leads to, one after the other, and waits for
// writers only where it drops something.
func (s *Store) TrimIndexes(ctx context.Context) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	for i := range len(s.users) {
		tree := s.path("users", hexByte(byte(i)))
		err := s.eachEntry(ctx, tree, func(hash string) error {
			if b, err := hex.DecodeString(hash); err != nil || len(b) != sha256.Size {
				return nil // not ours
			}
			return s.trimUser(ctx, filepath.Join(tree, hash))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// trimUser drops a user's stray entries, and the directory if that leaves none.
func (s *Store) trimUser(ctx context.Context, dir string) error {
	empty := true
	err := s.eachEntry(ctx, dir, func(name string) error {
		if fsys.IsTemp(name) {
			s.fs.Remove(filepath.Join(dir, name)) // of a writer that was killed; a living one tries again
			return nil
		}
		id, ok := parseID(name)
		if !ok {
			empty = false
			return nil // not ours
		}
		stray, err := s.dropStray(ctx, dir, id)
		empty = empty && stray
		return err
	})
	if err == nil && empty {
		s.fs.Remove(dir) // fails unless it is empty
	}
	return err
}

// dropStray drops an entry in a user's directory unless the record is that user's,
// or cannot be read. It reports whether it did. Under the lock nobody is between the
// entry and the record.
func (s *Store) dropStray(ctx context.Context, dir string, id [16]byte) (stray bool, err error) {
	if stray, err = s.isStray(dir, id); !stray || err != nil {
		return false, err
	}
	err = s.locked(ctx, id, func() error {
		if stray, err = s.isStray(dir, id); !stray || err != nil {
			return err
		}
		if err := s.syncRecords(id); err != nil { // as endUser does
			return err
		}
		err := s.fs.Remove(filepath.Join(dir, hexID(id)))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return stray && err == nil, err
}

func (s *Store) isStray(dir string, id [16]byte) (bool, error) {
	r, found, err := s.read(id)
	if errors.Is(err, record.ErrCorrupt) { // whoever meets it sets it aside
		return false, nil
	}
	return err == nil && (!found || r.User == "" || s.userDir(r.User) != dir), err
}
