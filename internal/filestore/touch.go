package filestore

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/session2/session2/internal/record"
)

// touchSize is how much of a record Touch reads: more than enough for the user,
// unless the name is very long.
const touchSize = 512

// Touch moves the access of the record forward. It writes 20 bytes in place, without
// a sync.
func (s *Store) Touch(ctx context.Context, id [16]byte, to record.Access) error {
	return s.locked(ctx, id, func() error { return s.touch(id, to) })
}

func (s *Store) touch(id [16]byte, to record.Access) error {
	f, err := s.fs.OpenFile(s.file(id), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, touchSize)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return err
	}
	head = head[:n]
	offset, write, err := record.Touch(head[:min(n, record.HeadSize)], to)
	if err != nil {
		_, _, err = s.lookup(id) // sets it aside
		return err
	}
	if write != nil {
		_, err = f.WriteAt(write, offset)
	}
	if err == nil && s.lacksUser(record.User(head), id) {
		err = s.enterUser(id)
	}
	return err
}

// enterUser makes the entry of a record that lacks it. The caller holds the
// record's lock.
func (s *Store) enterUser(id [16]byte) error {
	r, found, err := s.lookup(id)
	if err != nil || !found {
		return err
	}
	return s.addUser(r.User, id)
}
