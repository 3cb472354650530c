package gobstore

import (
	"bufio"
	"cmp"
	"errors"
	"io"
	"io/fs"
	"slices"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/record"
)

const (
	// maxDead is how much of the file may be dead whatever lives, and maxRest how
	// much if nothing does. A DeleteOld that leaves no record leaves none of
	// the file either.
	maxDead = 1 << 20
	maxRest = 64 << 10
)

// wasteful reports whether more is dead than live, and more than slack.
func (l *log) wasteful(slack int64) bool { return l.dead() > max(l.live, slack) }

// deserted reports whether there is no record and so much of the file that it
// should be made anew: any at all for a sweep, and more than slack in any case.
func (l *log) deserted(sweeps bool, slack int64) bool {
	if !sweeps {
		slack = max(slack, maxRest)
	}
	return l.live == 0 && l.dead() > slack
}

func (l *log) dead() int64 { return l.end - headerSize - l.live }

// compact rewrites the file to save space. A failure is no reason to refuse
// changes, as long as they can be appended; the next attempt comes when as much
// again is dead.
func (s *Store) compact() {
	err := s.rewrite()
	if err == nil || errors.Is(err, fs.ErrClosed) {
		s.patience = 0
		return
	}
	s.mu.RLock()
	s.patience = 2 * s.log.end
	s.mu.RUnlock()
	s.logger.Error("session2: gob store: cannot compact", "path", s.path, "err", err)
}

// rewrite replaces the file by one with what is alive. The caller has the lock
// on the file, and nobody's writing s.mu: readers go on, as until the new file
// has its name nobody changes the index. After an error the file may be the old
// one or the new.
func (s *Store) rewrite() error {
	s.mu.RLock()
	old, err := s.held()
	s.mu.RUnlock()
	if err != nil {
		return err
	}
	fresh, err := create(s.fs, s.path, !s.noSync, func(add func(*op) error) error { return s.copyLive(old, add) })
	old.release() // or else replace would wait for it
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		fresh.close()
		return fs.ErrClosed
	}
	s.replace(fresh)
	return nil
}

// copyLive adds every record of old, in the order of the file.
func (s *Store) copyLive(old *log, add func(*op) error) error {
	all := make([]live, 0, old.index.Len())
	for id, e := range old.index.All() {
		all = append(all, live{id, e})
	}
	slices.SortFunc(all, func(a, b live) int { return cmp.Compare(a.Value.off, b.Value.off) })
	win := window{r: old.file, end: old.end}
	for _, l := range all {
		o, err := l.read(&win, old.gen)
		if err == record.ErrCorrupt {
			if !l.Value.lost {
				s.reportDamage(&frame{op: op{put, record.Record{ID: l.id}},
					off: l.Value.off, len: int64(l.Value.size), damage: "damaged frame"})
			}
			access := record.Access{Accessed: l.Accessed, Expires: l.Expires}
			o = op{lost, record.Record{ID: l.id, User: l.User, Access: access}}
		} else if err != nil {
			return err
		}
		if err := add(&o); err != nil {
			return err
		}
	}
	return nil
}

// live is a record that a compaction copies.
type live struct {
	id [16]byte
	*entry
}

// read returns the record with its latest times. Its Data are the window's.
func (l *live) read(win *window, g generation) (o op, err error) {
	if l.Value.lost {
		return op{}, record.ErrCorrupt
	}
	b, err := win.view(l.Value.off, int64(l.Value.size))
	if err == io.ErrUnexpectedEOF { // the file has become shorter
		return op{}, record.ErrCorrupt
	}
	if err != nil {
		return op{}, err
	}
	whole := decodeFrame(b, g, l.Value.off, true, &o)
	if !whole || o.kind != put || o.ID != l.id {
		return op{}, record.ErrCorrupt
	}
	o.Accessed, o.Expires = l.Accessed, l.Expires
	return o, nil
}

// create puts a new log, with what fill adds, in the place of the one at path, if
// there is one, and opens it. The caller holds the lock. It can be killed at any
// time: there is all of the old log or all of the new one. After an error, too, it
// may be either.
func create(fsy fsys.FS, path string, sync bool, fill func(add func(*op) error) error) (*log, error) {
	l := newLog(fsy, path)
	l.gen = newGeneration()
	err := fsys.WriteFile(fsy, path, sync, func(f io.Writer) error {
		w := bufio.NewWriterSize(f, windowSize)
		w.Write(l.gen.header()) // its error comes again from Flush
		var b []byte
		add := func(o *op) error {
			b = appendFrame(b[:0], l.gen, l.end, l.end, o) // it is durable before it gets its name
			l.put(o.ID, entryOf(o, l.end, int64(len(b))))
			l.end += int64(len(b))
			_, err := w.Write(b)
			return err
		}
		if err := fill(add); err != nil {
			return err
		}
		return w.Flush()
	})
	if err == nil {
		err = l.open()
	}
	if err != nil {
		return nil, err
	}
	if sync {
		l.durable, l.named = l.end, true
	}
	return l, nil
}
