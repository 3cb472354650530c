package gobstore

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"

	"github.com/session2/session2/internal/record"
)

// WriteLog writes a log of n records with so many bytes of data, each of a user of its
// own, and as many bytes again of what they were before, less one record.
func WriteLog(path string, n, size int) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	g, end := newGeneration(), int64(headerSize)
	w.Write(g.header())
	o := op{kind: put, Record: record.Record{Data: make([]byte, size)}}
	var b []byte
	for i := 1; i < 2*n; i++ {
		o.Record.ID = BenchID(i % n)
		o.User, o.Version = fmt.Sprint("user", i%n), uint64(i/n+1)
		o.Accessed, o.Expires = 1e15+int64(i), 2e15+int64(i)
		b = appendFrame(b[:0], g, end, end, &o)
		end += int64(len(b))
		w.Write(b)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Sync() // or the first Save would have to
}

// BenchID returns the ID of the nth record of WriteLog.
func BenchID(n int) (id [16]byte) {
	binary.BigEndian.PutUint64(id[:], uint64(n)*0x9e3779b97f4a7c15)
	return id
}

// HeaderSize is the length of a file that holds nothing.
const HeaderSize = headerSize

// SetSmall sets how many live bytes a commit copies itself.
func (s *Store) SetSmall(n int64) { s.small = n }

// SetFew sets how many records are worth no file for the index.
func (s *Store) SetFew(n int) { s.few = n }

// Whole reports whether all records are in the index.
func (s *Store) Whole() bool { s.mu.RLock(); defer s.mu.RUnlock(); return s.log.base == nil }

// AwaitCopy waits for a compaction beside changes.
func (s *Store) AwaitCopy() { s.copies.Wait() }

// SetSlack sets how many dead bytes in the file do not matter.
func (s *Store) SetSlack(n int64) { s.slack = n }
