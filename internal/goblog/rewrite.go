package goblog

import (
	"bufio"
	"io"

	"github.com/session2/session2/internal/fsys"
)

// Writer fills a new log.
type Writer struct {
	w   *bufio.Writer
	gen Generation
	off int64
	enc Encoder
	buf []byte
}

// Write appends the frame of op and returns where it is.
func (w *Writer) Write(op *Op) (off, n int64, err error) {
	// The whole file is durable before it gets its name.
	w.buf, err = w.enc.Append(w.buf[:0], w.gen, w.off, w.off, op)
	if err != nil {
		return 0, 0, err
	}
	off, n = w.off, int64(len(w.buf))
	w.off += n
	_, err = w.w.Write(w.buf)
	return off, n, err
}

// Rewrite puts a new log, with what fill writes, in the place of the one at
// path, if there is one, and opens it. The caller holds the lock. It can be
// killed at any time: there is all of the old log or all of the new one. After
// an error, too, it may be either.
func Rewrite(fsy fsys.FS, path string, sync bool, fill func(*Writer) error) (*Log, error) {
	w := &Writer{gen: NewGeneration(), off: HeaderSize}
	err := fsys.WriteFile(fsy, path, sync, func(f io.Writer) error {
		w.w = bufio.NewWriterSize(f, windowSize)
		w.w.Write(w.gen.Header()) // its error comes again from Flush
		if err := fill(w); err != nil {
			return err
		}
		return w.w.Flush()
	})
	if err != nil {
		return nil, err
	}
	l, err := Open(fsy, path)
	if err != nil {
		return nil, err
	}
	l.end = w.off
	if sync {
		l.durable, l.named = w.off, true
	}
	return l, nil
}
