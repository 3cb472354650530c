package goblog

import (
	"bytes"
	"errors"
	"io"
)

// ErrTorn says that a file ends within a frame: its writer is still at it, or
// was killed. Whatever is there was never acknowledged.
var ErrTorn = errors.New("the last frame is incomplete")

// Entry is a frame that was found, or a stretch of the file where one should be.
type Entry struct {
	Op       // without Data; of a damaged frame Kind and ID, or neither if they are lost, too
	Off, Len int64
	Durable  int64  // how far the file was durable before this frame was written; 0 if unknown
	Damage   string // what is wrong; "" if all is well
	Whole    bool   // the operation is complete, be there some damage or not
}

// Scanner reads the frames of a part of a file.
//
// Every frame says twice what it is about: once in its header, which has a
// checksum of its own, and once in its payload. So damage in one of them costs
// neither the ID nor the frames behind: past a bad payload the header's length
// leads to the next frame, and past a bad header the scanner looks for the
// next good one, which shows where the payload ends.
type Scanner struct {
	win window
	gen Generation
	off int64 // of the next frame
	dec Decoder
}

// NewScanner returns a Scanner for the frames of r from off, where one begins,
// to end. It takes no more memory than the largest frame, and never more than
// there is to read.
func NewScanner(r io.ReaderAt, g Generation, off, end int64) *Scanner {
	return &Scanner{win: window{r: r, end: end}, gen: g, off: off}
}

// Next returns the next frame. Its errors are io.EOF at the end, ErrTorn if
// what is left cannot be a whole frame, and those of reading.
func (s *Scanner) Next() (Entry, error) {
	left := s.win.end - s.off
	if left == 0 {
		return Entry{}, io.EOF
	}
	if left < frameHead+frameTail {
		return Entry{}, ErrTorn
	}
	b, err := s.win.view(s.off, frameHead)
	if err != nil {
		return Entry{}, err
	}
	h, ok := parseHead(b, s.gen, s.off)
	if !ok {
		return s.headless()
	}
	if h.frameSize() > left {
		return Entry{}, ErrTorn
	}
	return s.frame(h)
}

// frame reads the frame with the header h.
func (s *Scanner) frame(h head) (Entry, error) {
	e := Entry{Off: s.off, Len: h.frameSize(), Durable: max(0, s.off-int64(h.back))}
	b, err := s.win.view(e.Off, e.Len)
	if err != nil {
		return Entry{}, err
	}
	s.off += e.Len
	p, ok := payload(b, s.gen, e.Off)
	if ok && s.dec.Decode(p, false, &e.Op) == nil && e.Kind == h.kind && e.ID == h.id {
		e.Whole = true
		return e, nil
	}
	e.Op = Op{Kind: h.kind, ID: h.id}
	e.Damage = "damaged frame"
	e.Whole = h.kind == Delete || h.kind == Lost // the header says it all
	return e, nil
}

// headless deals with what follows up to the next good header, or to the end.
func (s *Scanner) headless() (Entry, error) {
	next, err := s.search(s.off + 1)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Off: s.off, Len: next - s.off, Damage: "damaged frame of an unknown record"}
	s.off = next
	if e.Len > frameHead+MaxPayload+frameTail {
		return e, nil
	}
	b, err := s.win.view(e.Off, e.Len)
	if err != nil {
		return Entry{}, err
	}
	if p, ok := payload(b, s.gen, e.Off); ok && s.dec.Decode(p, false, &e.Op) == nil {
		e.Damage, e.Whole = "damaged frame header", true
		return e, nil
	}
	e.Op = Op{}
	return e, nil
}

// search returns the offset of the first good header from off on, or the end.
func (s *Scanner) search(off int64) (int64, error) {
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
