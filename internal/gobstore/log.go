package gobstore

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/index"
	"github.com/session2/session2/internal/record"
)

// log is the file as it was last read, and the index of what is in it. It is not
// safe for concurrent use, but while it is held its file can be read and synced.
type log struct {
	fs      fsys.FS
	path    string
	info    fs.FileInfo
	file    fsys.File
	gen     generation
	users   atomic.Int64 // who hold the file; the log itself does until it is closed
	end     int64        // of what was read or written
	durable int64        // up to here a sync succeeded
	named   bool         // the name is durable, too
	suspect error        // why nothing in the file can be relied on to be durable

	index index.Index[place]
	base  *base // what the index does not have yet; nil if it has all
	fresh int   // changes that the file of the index does not have
	live  int64 // bytes of the frames that the index points to
	must  int64 // the end of the last frame that has to be durable: of all but touches

	// What an unreadable put replaced, by ID, for as long as nothing newer is
	// known of the record.
	replaced map[[16]byte]replaced

	copier *copier // that is to be told what changes
}

// place is where a record is, or was until it got lost.
type place struct {
	off     int64
	version uint64
	size    uint32
	lost    bool
}

type entry = index.Entry[place]

type replaced struct {
	by    int64 // the offset of the unreadable frame
	entry entry
}

func (s *Store) follow(locked bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.catchUp(locked)
}

// catchUp reads what is new in the file, or all of a new file. The caller has
// s.mu, and says whether it has the lock on the file, too.
func (s *Store) catchUp(locked bool) error {
	if s.closed {
		return fs.ErrClosed
	}
	info, err := s.fs.Lstat(s.path)
	if err != nil {
		return err
	}
	if s.log.covers(info) {
		return nil
	}
	if s.log.is(info) {
		return s.replay(s.log, locked)
	}
	if s.next != nil && s.next.is(info) {
		s.replace(s.next)
		s.next = nil
		return s.replay(s.log, locked)
	}
	fresh := newLog(s.fs, s.path)
	if err := fresh.open(); err != nil {
		return err
	}
	err = s.trust(fresh)
	if err == nil {
		fresh.readBase(s.shared)
		err = s.replay(fresh, locked)
	}
	if err != nil {
		fresh.close()
		return err
	}
	s.replace(fresh)
	return nil
}

// trust refuses a file that has taken the store's place and that somebody else may write
// to.
func (s *Store) trust(l *log) error {
	if err := fsys.PrivateFile(l.info, s.shared); err != nil {
		return fmt.Errorf("refusing %s: %w", l.path, err)
	}
	return nil
}

// replace puts l in the place of the present log. The caller has s.mu.
func (s *Store) replace(l *log) {
	s.log.close()
	s.log = l
}

func newLog(fsy fsys.FS, path string) *log {
	l := &log{fs: fsy, path: path, end: headerSize, replaced: make(map[[16]byte]replaced)}
	l.hold()
	return l
}

// open opens the file.
func (l *log) open() error {
	f, err := l.fs.OpenFile(l.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	l.file = f
	if err := l.readHeader(); err != nil {
		f.Close()
		return err
	}
	return nil
}

func (l *log) readHeader() (err error) {
	if l.info, err = l.file.Stat(); err != nil {
		return err
	}
	b := make([]byte, headerSize)
	n, err := l.file.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return err
	}
	if l.gen, err = parseHeader(b[:n]); err != nil {
		return fmt.Errorf("%s: %w", l.path, err)
	}
	return nil
}

// is reports whether info is that of this log's file. A file that has become
// shorter than what was read of it is another one.
func (l *log) is(info fs.FileInfo) bool {
	return os.SameFile(l.info, info) && info.Size() >= l.end
}

// covers reports whether all of the file with this info was read. More may
// have been read than info knows of.
func (l *log) covers(info fs.FileInfo) bool {
	return os.SameFile(l.info, info) && info.Size() == l.end
}

// append writes frames, which were made for the log's end, and brings the index up
// to date. After an error some of them may be in the file, where others can see
// them at once, and the last of them not as a whole: read then shows which, and cuts.
func (l *log) append(b []byte, frames []frame) error {
	if _, err := l.file.WriteAt(b, l.end); err != nil {
		return err
	}
	l.end += int64(len(b))
	for i := range frames {
		l.apply(&frames[i])
	}
	return nil
}

// apply brings the index up to date with a frame.
func (l *log) apply(f *frame) {
	l.pull(f.ID)
	l.fresh++
	l.note(f.ID)
	if f.kind != touch {
		l.must = f.off + f.len
	}
	switch {
	case f.kind == put && f.whole:
		l.put(f.ID, entryOf(&f.op, f.off, f.len))
	case f.kind == touch && f.whole:
		l.index.Touch(f.ID, f.Accessed, f.Expires)
	case f.kind == del:
		l.remove(f.ID)
	case f.kind == put, f.kind == lost:
		l.lose(f)
	}
}

// note tells a copy under way that a record has changed.
func (l *log) note(id [16]byte) {
	if l.copier != nil {
		l.copier.changed[id] = true
	}
}

func entryOf(o *op, off, n int64) entry {
	return entry{
		User: o.User, Accessed: o.Accessed, Expires: o.Expires,
		Value: place{off: off, size: uint32(n), version: o.Version, lost: o.kind == lost},
	}
}

func (l *log) put(id [16]byte, e entry) {
	delete(l.replaced, id)
	old, _ := l.index.Get(id)
	l.live += int64(e.Value.size) - int64(old.Value.size)
	l.index.Put(id, e)
}

func (l *log) remove(id [16]byte) {
	delete(l.replaced, id)
	old, _ := l.index.Get(id)
	l.live -= int64(old.Value.size)
	l.index.Delete(id)
}

// sync makes the file durable, and its name unless that is. Once syncing the file
// has failed, it is failed for ever, because the system may then have forgotten
// what it could not write, and would report success the next time: only a new file
// helps.
func (l *log) sync(named bool) (failed bool, err error) {
	if err := l.file.Sync(); err != nil {
		return true, err
	}
	if named {
		return false, nil
	}
	return false, l.fs.SyncDir(filepath.Dir(l.path))
}

// record reads the record with the entry e, with its latest times.
func (l *log) record(id [16]byte, e entry) (record.Record, error) {
	if e.Value.lost {
		return record.Record{}, record.ErrCorrupt
	}
	o, whole, err := l.readOp(e.Value.off, int64(e.Value.size))
	if err != nil {
		return record.Record{}, err
	}
	if !whole || o.kind != put || o.ID != id {
		return record.Record{}, record.ErrCorrupt
	}
	o.Accessed, o.Expires = e.Accessed, e.Expires
	return o.Record, nil
}

// readOp reads the frame of n bytes at off. It reports whether the frame is
// whole; an error means that the file could not be read.
func (l *log) readOp(off, n int64) (o op, whole bool, err error) {
	b := make([]byte, n)
	if _, err := l.file.ReadAt(b, off); err == io.EOF {
		return op{}, false, nil
	} else if err != nil {
		return op{}, false, err
	}
	whole = decodeFrame(b, l.gen, off, true, &o)
	return o, whole, nil
}

// hold keeps the file open until release, whatever becomes of the log. The caller
// sees to it that hold does not run beside close.
func (l *log) hold() { l.users.Add(1) }

// release closes the file if nobody holds it any more.
func (l *log) release() error {
	if l.users.Add(-1) > 0 {
		return nil
	}
	return l.file.Close()
}

// close closes the file as soon as nobody holds it any more.
func (l *log) close() error { return l.release() }
