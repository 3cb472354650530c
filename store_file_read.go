package session2

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/record"
)

// lookup reads a record under its lock, which the caller holds, and sets a
// corrupt one aside: no writer can be at it. One in a later format stays.
func (s *FileStore) lookup(id ID) (r record.Record, found bool, err error) {
	r, found, err = s.read(id)
	if errors.Is(err, ErrCorrupt) && !errors.Is(err, record.ErrFormat) {
		if err := s.fs.Rename(s.file(id), s.path("corrupt", id.String())); err != nil {
			return record.Record{}, false, err
		}
		s.logger.Error("session2: file store: a damaged record is set aside", "path", s.path("corrupt", id.String()), "err", err)
	}
	return r, found, err
}

// lookupIntact is lookup for those to whom a corrupt record, once it is set
// aside, is one that was removed: aside reports that it was.
func (s *FileStore) lookupIntact(id ID) (r record.Record, found, aside bool, err error) {
	r, found, err = s.lookup(id)
	if errors.Is(err, ErrCorrupt) && !errors.Is(err, record.ErrFormat) {
		return record.Record{}, false, true, nil
	}
	return r, found, false, err
}

// read reads a record. Without the lock, an ErrCorrupt is no verdict yet: two
// touches may have gone by during the read.
func (s *FileStore) read(id ID) (r record.Record, found bool, err error) {
	f, err := s.fs.OpenFile(s.file(id), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return record.Record{}, false, nil
	}
	if err != nil {
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
		return record.Record{}, false, fmt.Errorf("%w: %w", ErrCorrupt, err)
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

func toFile(rec Record) record.Record {
	return record.Record{
		ID: rec.ID, Version: uint64(rec.Version), User: rec.User, Created: microTime(rec.Created), Data: rec.Data,
		Access: record.Access{Accessed: microTime(rec.Accessed), Expires: microTime(rec.Expires)},
	}
}

func fromFile(r record.Record) Record {
	return Record{
		ID: r.ID, Version: Version(r.Version), User: r.User, Created: timeMicro(r.Created),
		Accessed: timeMicro(r.Accessed), Expires: timeMicro(r.Expires), Data: r.Data,
	}
}
