package gobstore

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
)

var (
	// errTorn says that a file ends within a frame: its writer is still at it, or
	// was killed. Whatever is there was never acknowledged.
	errTorn = errors.New("the last frame is incomplete")

	// errUnsure says that what was read without the lock looks damaged. It may
	// just be in the making: only who holds the lock can tell.
	errUnsure = errors.New("cannot tell damage from a write under way")

	errRevived = errors.New("the log holds changes that were not durable when the machine went down")
)

// replay brings l up to date with its file. Damage is believed, and cut, only with
// the lock on the file.
func (s *Store) replay(l *log, locked bool) error {
	cut, err := l.read(locked, s.reportDamage)
	if err != nil {
		return err
	}
	if cut > 0 && !s.torn {
		s.logger.Warn("session2: gob store: cut off an incomplete change, which was not acknowledged",
			"path", s.path, "offset", l.end, "bytes", cut)
	}
	s.torn = s.torn && !locked
	return nil
}

func (s *Store) reportDamage(f *frame) {
	id := "unknown"
	if f.kind != 0 {
		id = hex.EncodeToString(f.ID[:])
	}
	s.logger.Error("session2: gob store: "+f.damage, "path", s.path,
		"offset", f.off, "bytes", f.len, "id", id, "recovered", f.whole)
}

// read applies the frames behind what was read, up to the present end of the file,
// and reports damage. With the lock, it cuts a torn tail off and returns its
// length. Without, it leaves such a tail alone, and returns errUnsure before it
// comes to something that looks damaged.
func (l *log) read(locked bool, report func(*frame)) (cut int64, err error) {
	info, err := l.file.Stat()
	if err != nil {
		return 0, err
	}
	s := newScanner(l.file, l.gen, l.end, info.Size())
	var f frame
	for {
		if f, err = s.next(); err != nil {
			break
		}
		if !locked && f.damage != "" {
			return 0, errUnsure
		}
		l.apply(&f)
		l.end = f.off + f.len
		l.durable = max(l.durable, f.durable)
		if f.damage != "" {
			report(&f)
		}
	}
	switch {
	case err == errTorn && locked:
		cut, err = info.Size()-l.end, l.file.Truncate(l.end)
	case err == errTorn, err == io.EOF:
		err = nil
	case !locked && err == io.ErrUnexpectedEOF:
		err = errUnsure
	}
	if err == nil {
		l.judge()
	}
	return cut, err
}

// lose notes that the record cannot be read. It keeps the times that are known
// of it; without any it is the first that DeleteOld removes.
func (l *log) lose(f *frame) {
	old, found := l.index.Get(f.ID)
	was, twice := l.replaced[f.ID]
	e := old
	e.Value = place{off: f.off, size: uint32(f.len), lost: true}
	l.put(f.ID, e)
	switch {
	case twice:
		l.replaced[f.ID] = was
	case found && f.kind == put:
		l.replaced[f.ID] = replaced{by: f.off, entry: old}
	}
}

// judge decides about the records that an unreadable put has replaced. A put that
// was durable was acknowledged, and its record is lost. One for which no later
// frame says so may be the trace of a machine that went down in the middle of a
// write, and then the earlier state is what was acknowledged. The log has to be
// rewritten after that, or it would be judged otherwise one day.
func (l *log) judge() {
	for id, r := range l.replaced {
		if r.by >= l.durable {
			l.note(id)
			l.put(id, r.entry)
			l.suspect = errRevived
		}
	}
	clear(l.replaced)
}

// frame is a frame that was found, or a stretch of the file where one should be.
type frame struct {
	op       // without Data; of a damaged frame kind and ID, or neither if they are lost, too
	off, len int64
	durable  int64  // how far the file was durable before this frame was written; 0 if unknown
	damage   string // what is wrong; "" if all is well
	whole    bool   // the operation is complete, be there some damage or not
}

// scanner reads the frames of a part of a file.
//
// Every frame says twice what it is about: once in its header, which has a
// checksum of its own, and once in its payload. So damage in one of them costs
// neither the ID nor the frames behind: past a bad payload the header's length
// leads to the next frame, and past a bad header the scanner looks for the
// next good one, which shows where the payload ends.
//
// It takes no more memory than the largest frame, and never more than there is to
// read.
type scanner struct {
	win window
	gen generation
	off int64 // of the next frame
}

// newScanner returns a scanner for the frames of r from off, where one begins,
// to end.
func newScanner(r io.ReaderAt, g generation, off, end int64) *scanner {
	return &scanner{win: window{r: r, end: end}, gen: g, off: off}
}

// next returns the next frame. Its errors are io.EOF at the end, errTorn if
// what is left cannot be a whole frame, and those of reading.
func (s *scanner) next() (frame, error) {
	left := s.win.end - s.off
	if left == 0 {
		return frame{}, io.EOF
	}
	if left < frameHead+frameTail {
		return frame{}, errTorn
	}
	b, err := s.win.view(s.off, frameHead)
	if err != nil {
		return frame{}, err
	}
	h, ok := parseHead(b, s.gen, s.off)
	if !ok {
		return s.headless()
	}
	if h.frameSize() > left {
		return frame{}, errTorn
	}
	return s.headed(h)
}

// headed reads the frame with the header h.
func (s *scanner) headed(h head) (frame, error) {
	f := frame{off: s.off, len: h.frameSize(), durable: max(0, s.off-int64(h.back))}
	b, err := s.win.view(f.off, f.len)
	if err != nil {
		return frame{}, err
	}
	s.off += f.len
	if decodeFrame(b, s.gen, f.off, false, &f.op) && f.kind == h.kind && f.ID == h.id {
		f.whole = true
		return f, nil
	}
	f.op = op{kind: h.kind}
	f.ID, f.damage = h.id, "damaged frame"
	f.whole = h.kind == del || h.kind == lost // the header says it all
	return f, nil
}

// headless deals with what follows up to the next good header, or to the end.
func (s *scanner) headless() (frame, error) {
	next, err := s.search(s.off + 1)
	if err != nil {
		return frame{}, err
	}
	f := frame{off: s.off, len: next - s.off, damage: "damaged frame of an unknown record"}
	s.off = next
	if f.len > frameHead+maxPayload+frameTail {
		return f, nil
	}
	b, err := s.win.view(f.off, f.len)
	if err != nil {
		return frame{}, err
	}
	if decodeFrame(b, s.gen, f.off, false, &f.op) {
		f.damage, f.whole = "damaged frame header", true
	}
	return f, nil
}

// search returns the offset of the first good header from off on, or the end.
func (s *scanner) search(off int64) (int64, error) {
	for s.win.end-off >= frameHead {
		b, err := s.win.ahead(off, frameHead)
		if err != nil {
			return 0, err
		}
		i := bytes.Index(b, marker)
		switch {
		case i < 0:
			off += int64(len(b) - len(marker) + 1)
			continue
		case len(b)-i < frameHead: // look again when all of it is there
			off += int64(i)
			continue
		}
		off += int64(i)
		if _, ok := parseHead(b[i:], s.gen, off); ok {
			return off, nil
		}
		off++
	}
	return s.win.end, nil
}

// windowSize is how much a window reads at once.
const windowSize = 1 << 18

// window shows parts of a file, which should be asked for in ascending order.
type window struct {
	r   io.ReaderAt
	end int64
	buf []byte // of off
	off int64
}

// view returns the n bytes at off, which end before w.end. They are valid until
// the next call.
func (w *window) view(off, n int64) ([]byte, error) {
	if from := off - w.off; from >= 0 && from+n <= int64(len(w.buf)) {
		return w.buf[from : from+n], nil
	}
	size := min(max(n, windowSize), w.end-off)
	if int64(cap(w.buf)) < size {
		w.buf = make([]byte, size)
	}
	w.buf, w.off = w.buf[:size], off
	got, err := w.r.ReadAt(w.buf, off)
	if int64(got) >= n { // a file that was cut meanwhile may end early
		w.buf = w.buf[:got]
		return w.buf[:n], nil
	}
	w.buf = w.buf[:0]
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return nil, err
}

// ahead returns at least n bytes from off on, and more if they are at hand.
func (w *window) ahead(off, n int64) ([]byte, error) {
	if _, err := w.view(off, n); err != nil {
		return nil, err
	}
	return w.buf[off-w.off:], nil
}
