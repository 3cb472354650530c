package filestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/record"
)

// Load returns the record. It takes no lock unless the record cannot be read.
func (s *Store) Load(ctx context.Context, id [16]byte) (record.Record, error) {
	if err := s.ready(ctx); err != nil {
		return record.Record{}, err
	}
	r, found, err := s.read(id)
	if errors.Is(err, record.ErrCorrupt) {
		err = s.locked(ctx, id, func() (err error) {
			r, found, err = s.lookup(id)
			return err
		})
	}
	if err == nil && !found {
		err = record.ErrNotFound
	}
	return r, err
}

// Has reports whether there is a record. One counts even if it cannot be read.
func (s *Store) Has(ctx context.Context, id [16]byte) (bool, error) {
	if err := s.ready(ctx); err != nil {
		return false, err
	}
	_, err := s.fs.Lstat(s.file(id))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// lookup reads a record under its lock, which the caller holds, and sets a
// corrupt one aside: no writer can be at it. One in a later format stays.
func (s *Store) lookup(id [16]byte) (r record.Record, found bool, err error) {
	r, found, err = s.read(id)
	if errors.Is(err, record.ErrCorrupt) && !errors.Is(err, record.ErrFormat) {
		aside := s.path("corrupt", hexID(id))
		if err := s.fs.Rename(s.file(id), aside); err != nil {
			return record.Record{}, false, err
		}
		s.logger.Error("session2: file store: a damaged record is set aside", "path", aside, "err", err)
	}
	return r, found, err
}

// lookupIntact is lookup for those to whom a corrupt record, once it is set
// aside, is one that was removed: aside reports that it was.
func (s *Store) lookupIntact(id [16]byte) (r record.Record, found, aside bool, err error) {
	r, found, err = s.lookup(id)
	if errors.Is(err, record.ErrCorrupt) && !errors.Is(err, record.ErrFormat) {
		return record.Record{}, false, true, nil
	}
	return r, found, false, err
}

// read reads a record. Without the lock, an ErrCorrupt is no verdict yet: two
// touches may have gone by during the read.
func (s *Store) read(id [16]byte) (r record.Record, found bool, err error) {
	f, err := s.fs.OpenFile(s.file(id), os.O_RDONLY, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return record.Record{}, false, nil
	case errors.Is(err, fsys.ErrIrregular): // no record, as a directory is none
		return record.Record{}, false, fmt.Errorf("%w: %w", record.ErrCorrupt, err)
	case err != nil:
		return record.Record{}, false, err
	}
	defer f.Close()
	b, err := readRecord(f)
	if err != nil {
		return record.Record{}, false, err
	}
	r, err = record.Decode(b)
	if err == nil && r.ID != id {
		err = errors.New("record of another session")
	}
	if err != nil {
		return record.Record{}, false, fmt.Errorf("%w: %w", record.ErrCorrupt, err)
	}
	return r, true, nil
}

// trustedSize is up to how many bytes the size of a record's file is not checked
// before that is read. Most records are smaller.
const trustedSize = 1 << 20

// readRecord reads a record's file, which does not change its size. What is no
// file, or has another size than the record in it says, is no record: it returns
// nothing then, and so takes no memory for what somebody has made long.
func readRecord(f fsys.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, err
	}
	if info.Size() > trustedSize {
		n, err := record.Size(f, info.Size())
		if err != nil || n != info.Size() {
			return nil, err
		}
	}
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		return nil, err
	}
	return b, nil
}
