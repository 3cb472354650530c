// Package goblog is an append-only file of operations on session records, each
// of them a frame with checksums and a payload of gob values, that several
// processes read and write.
//
// Whoever writes holds a lock, which is the caller's affair. The file grows by
// whole frames, and only what is provably half a frame is ever cut off, by one
// who holds the lock: so what was once read as a frame stays one, and readers
// need no lock. [Rewrite] puts a new file with a new [Generation] in the place
// of the old one, which those who have it open can go on reading.
package goblog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/session2/session2/internal/fsys"
)

// ErrUnsure says that what was read without the lock looks damaged. It may
// just be in the making: only who holds the lock can tell.
var ErrUnsure = errors.New("cannot tell damage from a write under way")

// Log is the log file as it was last read. It is not safe for concurrent use,
// but what [Log.Hold] and [Log.Flush] return does not need the Log.
type Log struct {
	fs      fsys.FS
	path    string
	info    fs.FileInfo
	file    fsys.File
	gen     Generation
	users   sync.WaitGroup // who read the file
	end     int64          // of what was read or written
	durable int64          // up to here a flush succeeded
	named   bool           // the name is durable, too
	suspect error          // why nothing in the file can be relied on to be durable
}

// Open opens the log, of which nothing has been read yet.
func Open(fsy fsys.FS, path string) (*Log, error) {
	f, err := fsy.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	l := &Log{fs: fsy, path: path, file: f, end: HeaderSize}
	if err := l.readHeader(); err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

func (l *Log) readHeader() (err error) {
	if l.info, err = l.file.Stat(); err != nil {
		return err
	}
	b := make([]byte, HeaderSize)
	n, err := l.file.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return err
	}
	if l.gen, err = ParseHeader(b[:n]); err != nil {
		return fmt.Errorf("%s: %w", l.path, err)
	}
	return nil
}

// End returns how far the log was read or written.
func (l *Log) End() int64 { return l.end }

// Generation returns the generation of the file.
func (l *Log) Generation() Generation { return l.gen }

// Is reports whether info is that of this log's file. A file that has become
// shorter than what was read of it is another one.
func (l *Log) Is(info fs.FileInfo) bool {
	return os.SameFile(l.info, info) && info.Size() >= l.end
}

// Covers reports whether all of the file with this info was read. More may
// have been read than info knows of.
func (l *Log) Covers(info fs.FileInfo) bool {
	return os.SameFile(l.info, info) && info.Size() == l.end
}

// Read calls visit for the frames behind what was read, up to the present end
// of the file. With the lock, it cuts a torn tail off and returns its length.
// Without, it leaves such a tail alone, and answers ErrUnsure before it comes
// to something that looks damaged.
func (l *Log) Read(locked bool, visit func(Entry)) (cut int64, err error) {
	info, err := l.file.Stat()
	if err != nil {
		return 0, err
	}
	s := NewScanner(l.file, l.gen, l.end, info.Size())
	for {
		e, err := s.Next()
		switch {
		case err == io.EOF:
			return 0, nil
		case errors.Is(err, ErrTorn) && locked:
			return info.Size() - l.end, l.file.Truncate(l.end)
		case errors.Is(err, ErrTorn):
			return 0, nil
		case !locked && (e.Damage != "" || err == io.ErrUnexpectedEOF):
			return 0, ErrUnsure
		case err != nil:
			return 0, err
		}
		visit(e)
		l.end = e.Off + e.Len
		l.durable = max(l.durable, e.Durable)
	}
}

// Append writes frames, which were made for [Log.End] and [Log.Durable]. After
// an error some of them may be in the file, where others can see them at once, and
// the last of them not as a whole: Read then shows which, and cuts.
func (l *Log) Append(frames []byte) error {
	if _, err := l.file.WriteAt(frames, l.end); err != nil {
		return err
	}
	l.end += int64(len(frames))
	return nil
}

// Durable returns up to where the file is known to be durable.
func (l *Log) Durable() int64 { return l.durable }

// A Flush makes durable what a log had when [Log.Flush] returned it, and the
// file's name.
type Flush struct {
	fs      fsys.FS
	file    fsys.File
	dir     string
	end     int64
	named   bool
	suspect error
}

// Flush returns what is to be done to make durable what was read or appended.
func (l *Log) Flush() Flush {
	return Flush{fs: l.fs, file: l.file, dir: filepath.Dir(l.path), end: l.end, named: l.named, suspect: l.suspect}
}

// Run does it. The caller holds the log, see [Log.Hold], and reports the result
// to it by [Log.Flushed]; meanwhile others may use the log.
func (f *Flush) Run() (err error) {
	if f.suspect != nil {
		return f.suspect
	}
	if err := f.file.Sync(); err != nil {
		f.suspect = err
		return err
	}
	if !f.named {
		err = f.fs.SyncDir(f.dir)
		f.named = err == nil
	}
	return err
}

// Flushed notes the result of a flush of this log, and returns its error as one
// that does not pass for a refusal: the changes are in the file. Once syncing
// the file has failed, it fails for ever, because the system may then have
// forgotten what it could not write, and would report success the next time:
// only a Rewrite helps.
func (l *Log) Flushed(f Flush, err error) error {
	if f.suspect != nil {
		l.Suspect(f.suspect)
	}
	if err == nil {
		l.named = true
		l.durable = max(l.durable, f.end)
	}
	return fsys.Late(err)
}

// Suspect makes every flush from now on fail for this reason.
func (l *Log) Suspect(reason error) { l.suspect = reason }

// IsSuspect reports whether the log needs a Rewrite.
func (l *Log) IsSuspect() bool { return l.suspect != nil }

// Hold returns a reader of the log's frames, which is good until release is
// called, whatever becomes of the log. The caller sees to it that Hold does
// not run beside Close.
func (l *Log) Hold() (r Reader, release func()) {
	l.users.Add(1)
	return Reader{l.file, l.gen}, l.users.Done
}

// Close closes the file when nobody holds it any more.
func (l *Log) Close() error {
	l.users.Wait()
	return l.file.Close()
}

// Reader reads single frames.
type Reader struct {
	file fsys.File
	gen  Generation
}

var decoders = sync.Pool{New: func() any { return new(Decoder) }}

// ReadOp reads the frame of n bytes at off. It reports whether the frame is
// whole; an error means that the file could not be read.
func (r Reader) ReadOp(off, n int64) (op Op, whole bool, err error) {
	b := make([]byte, n)
	if _, err := r.file.ReadAt(b, off); err == io.EOF {
		return Op{}, false, nil
	} else if err != nil {
		return Op{}, false, err
	}
	d := decoders.Get().(*Decoder)
	defer decoders.Put(d)
	whole = d.DecodeFrame(b, r.gen, off, &op)
	return op, whole, nil
}
