package gobstore

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"hash/fnv"
	"io"
	"os"
	"slices"
	"sort"

	"github.com/session2/session2/internal/fsys"
)

// Beside a log of many records lies its index as it was at some time, so that whoever
// opens the log reads no more of it than what came later:
//
//	header   magic 8 | records 8 | bytes of users 8 | generation 8 | from 8 | end 8 | mark 8
//	record   ID 16 | offset 8 | version 8 | accessed 8 | expires 8 | size 4 | user at 4 | its length 4 | lost 1 | 0, 3
//	users    the names, one after the other
//	         CRC-32C of all 4
//
// Records are in the order of their IDs. The log has to be read from the offset from on: what
// changed behind that while the index was written, the index may have or not. It speaks
// of nothing behind end, and up to there the log was durable by then. So the index stays
// true as long as the log has its generation. The mark is the FNV-1a hash of the log's last
// 4 KiB before end, by which an index does not pass for that of a log that was replaced
// by an earlier copy. (A CRC-32C of frames is no such mark: they end with their own, so
// that it does not depend on what is in them.) One that is damaged, or another log's, is none.

const (
	baseMagic  = "s2gobidx"
	baseHead   = 56
	markSize   = 4 << 10
	baseRecord = 64

	maxUsers = 1 << 31 // bytes, in an index that is written

	// minRecords is how many records make an index worth a file. Fewer are read in a tenth
	// of a second.
	minRecords = 20_000

	// tailPart is the part of the records, as a divisor, that may change before the index
	// is written again.
	tailPart     = 4
	lastTailPart = 64 // when the store is closed

	fillSize = 2048 // records that are taken over at once: how long a call waits for that
)

// base is an index as it was read. Its records are taken over one by one when somebody
// asks for them, and the rest of them in their order.
type base struct {
	records []byte
	users   []byte
	next    int // where the rest begins
}

func (b *base) len() int            { return len(b.records) / baseRecord }
func (b *base) record(i int) []byte { return b.records[i*baseRecord : (i+1)*baseRecord] }

const baseTaken = baseRecord - 1 // the byte that says, in memory, that a record was taken over

// take returns the record at i, unless somebody has taken it.
func (b *base) take(i int) (id [16]byte, e entry, ok bool) {
	r := b.record(i)
	if r[baseTaken] != 0 {
		return id, e, false
	}
	r[baseTaken] = 1
	num := binary.LittleEndian.Uint64
	at, n := binary.LittleEndian.Uint32(r[52:]), binary.LittleEndian.Uint32(r[56:])
	e = entry{
		User: string(b.users[at:][:n]), Accessed: int64(num(r[32:])), Expires: int64(num(r[40:])),
		Value: place{
			off: int64(num(r[16:])), version: num(r[24:]),
			size: binary.LittleEndian.Uint32(r[48:]), lost: r[60] != 0,
		},
	}
	return [16]byte(r), e, true
}

// pull has the index know all of a record that it will know.
func (l *log) pull(id [16]byte) {
	b := l.base
	if b == nil {
		return
	}
	i := sort.Search(b.len(), func(i int) bool { return bytes.Compare(b.record(i)[:16], id[:]) >= 0 })
	if i == b.len() || [16]byte(b.record(i)) != id {
		return
	}
	if id, e, ok := b.take(i); ok {
		l.index.Put(id, e)
	}
}

// fill takes over the next n records, and reports whether there are more.
func (l *log) fill(n int) (more bool) {
	b := l.base
	if b == nil {
		return false
	}
	for range n {
		if b.next == b.len() {
			l.base = nil
			return false
		}
		if id, e, ok := b.take(b.next); ok {
			l.index.Put(id, e)
		}
		b.next++
	}
	return true
}

// fillAll is fill for all that is left.
func (l *log) fillAll() {
	for l.fill(fillSize) {
	}
}

// whole takes over all records, and lets others have their turn in between.
func (s *Store) whole(ctx context.Context) error {
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.mu.Lock()
		more = s.log.fill(fillSize)
		s.mu.Unlock()
	}
	return nil
}

// wholeBeside starts a goroutine that takes over all records. Close ends it.
func (s *Store) wholeBeside() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.filling || s.log.base == nil {
		return
	}
	s.filling = true
	s.copies.Go(func() {
		s.whole(s.ctx) // ends early if the store is closed
		s.mu.Lock()
		defer s.mu.Unlock()
		s.filling = false
	})
}

func basePath(path string) string { return path + ".index" }

// readBase reads the index beside the log, if there is a good one.
func (l *log) readBase(shared bool) {
	f, err := l.fs.OpenFile(basePath(l.path), os.O_RDONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() < baseHead+4 || fsys.PrivateFile(info, shared) != nil {
		return
	}
	head := make([]byte, baseHead)
	if _, err := f.ReadAt(head, 0); err != nil || string(head[:8]) != baseMagic {
		return
	}
	num := func(i int) uint64 { return binary.LittleEndian.Uint64(head[8*i:]) }
	n, users, from, end := num(1), num(2), int64(num(4)), int64(num(5))
	size := uint64(info.Size()) - baseHead - 4
	if generation(num(3)) != l.gen || end > l.info.Size() || from < headerSize || from > end ||
		users > size || (size-users)/baseRecord != n || (size-users)%baseRecord != 0 {
		return
	}
	if mark, err := l.mark(end); err != nil || mark != num(6) {
		return
	}
	all := make([]byte, info.Size())
	if _, err := f.ReadAt(all, 0); err != nil && err != io.EOF {
		return
	}
	body := all[:len(all)-4]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(all[len(body):]) {
		return
	}
	l.base = &base{records: body[baseHead:][:n*baseRecord], users: body[baseHead+n*baseRecord:]}
	l.end, l.must, l.durable = from, from, end
	for i := range l.base.len() {
		l.live += int64(binary.LittleEndian.Uint32(l.base.record(i)[48:]))
	}
}

// mark returns a hash of what the log has right before an offset.
func (l *log) mark(end int64) (uint64, error) {
	b := make([]byte, min(end, markSize))
	if _, err := l.file.ReadAt(b, end-int64(len(b))); err != nil && err != io.EOF {
		return 0, err
	}
	h := fnv.New64a()
	h.Write(b)
	return h.Sum64(), nil
}

// isIndexWorthwhile reports whether so much has changed since the index was last written that
// it should be written again.
func (l *log) isIndexWorthwhile(min, part int) bool {
	return l.base == nil && l.suspect == nil && l.index.Len() >= min && l.fresh > l.index.Len()/part
}

// writeBase writes the index of l beside it. The caller holds s.copying. Changes may go
// on meanwhile.
func (s *Store) writeBase(l *log) error {
	s.mu.Lock()
	from := l.end
	l.fresh = 0
	s.mu.Unlock()
	records, users := s.encode(l)
	slices.SortFunc(records, func(a, b [baseRecord]byte) int { return bytes.Compare(a[:16], b[:16]) })
	s.mu.RLock()
	end, suspect := l.end, l.suspect
	s.mu.RUnlock()
	if suspect != nil || users.n > maxUsers {
		return suspect
	}
	if failed, err := l.sync(true); failed {
		s.mu.Lock()
		l.suspect = err
		s.mu.Unlock()
		return err
	}
	mark, err := l.mark(end)
	if err != nil {
		return err
	}
	return fsys.WriteFile(s.fs, basePath(s.path), false, func(f io.Writer) error {
		if !s.noSync {
			f = &paced{File: f.(fsys.File)}
		}
		w, sum := bufio.NewWriterSize(f, windowSize), crc32.New(castagnoli)
		to := io.MultiWriter(w, sum)
		head := append(make([]byte, 0, baseHead), baseMagic...)
		for _, n := range []uint64{
			uint64(len(records)), uint64(users.n), uint64(l.gen), uint64(from), uint64(end), mark,
		} {
			head = binary.LittleEndian.AppendUint64(head, n)
		}
		to.Write(head) // the errors of all come again from Flush
		for i := range records {
			to.Write(records[i][:])
		}
		users.writeTo(to)
		w.Write(binary.LittleEndian.AppendUint32(nil, sum.Sum32()))
		return w.Flush()
	})
}

// paced is a file that is synced every now and then while it is written. Else a file
// system may have the next sync of the log, which a change waits for, write all of it.
type paced struct {
	fsys.File
	dirty int
}

func (p *paced) Write(b []byte) (n int, err error) {
	n, err = p.File.Write(b)
	if p.dirty += n; err == nil && p.dirty > syncSize {
		p.dirty = 0
		err = p.File.Sync()
	}
	return n, err
}

// collect returns what of makes of each record of l. Now and then it lets go of s.mu, and
// it makes room for more only then: who asks for much memory at once may have to work for
// the garbage collector, for longer than a change may wait.
func collect[T any](s *Store, l *log, of func(id [16]byte, e *entry) T) []T {
	s.mu.RLock()
	n := l.index.Len()
	s.mu.RUnlock()
	list := make([]T, 0, n+copySize)
	s.mu.RLock()
	defer s.mu.RUnlock()
	for id, e := range l.index.All() {
		list = append(list, of(id, e))
		if len(list)%copySize == 0 {
			s.mu.RUnlock()
			list = slices.Grow(list, copySize)
			s.mu.RLock()
		}
	}
	return list
}

// encode returns the records and users of an index.
func (s *Store) encode(l *log) (records [][baseRecord]byte, users *names) {
	users = new(names)
	return collect(s, l, func(id [16]byte, e *entry) (r [baseRecord]byte) {
		copy(r[:], id[:])
		for i, n := range []uint64{uint64(e.Value.off), e.Value.version, uint64(e.Accessed), uint64(e.Expires)} {
			binary.LittleEndian.PutUint64(r[16+8*i:], n)
		}
		binary.LittleEndian.PutUint32(r[48:], e.Value.size)
		binary.LittleEndian.PutUint32(r[52:], uint32(users.n))
		binary.LittleEndian.PutUint32(r[56:], uint32(len(e.User)))
		if e.Value.lost {
			r[60] = 1
		}
		users.add(e.User)
		return r
	}), users
}

// names are the users of an index, in pieces: see collect.
type names struct {
	pieces [][]byte
	last   []byte
	n      int // bytes
}

func (l *names) add(user string) {
	if l.n += len(user); len(user) > cap(l.last)-len(l.last) {
		l.pieces = append(l.pieces, l.last)
		l.last = make([]byte, 0, max(windowSize, len(user)))
	}
	l.last = append(l.last, user...)
}

func (l *names) writeTo(w io.Writer) {
	for _, p := range l.pieces {
		w.Write(p)
	}
	w.Write(l.last)
}

// indexBeside starts a goroutine that writes the index while changes go on. Close waits
// for it.
func (s *Store) indexBeside() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.copied {
		return
	}
	s.copied = true
	l := s.log
	l.hold()
	s.copies.Go(func() {
		s.saveBase(l)
		l.release()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.copied = false
	})
}

// saveBase writes the index, unless somebody else does or compacts. Without it, the store is
// slower to open, and that is all.
func (s *Store) saveBase(l *log) {
	unlock, ok := s.copying.TryLock()
	if !ok {
		return
	}
	defer unlock()
	if err := s.writeBase(l); err != nil {
		s.logger.Warn("session2: gob store: cannot write the index", "path", basePath(s.path), "err", err)
	}
}
