package gobstore

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/record"
)

const (
	copySize  = 512     // records that are looked up at once: how long a change waits for that
	syncSize  = 4 << 20 // bytes that are synced at once: more would hold up the syncs of changes
	copyRest  = 512     // changes that are left for the end, when others wait
	copyTries = 10      // rounds in which a copy tries to come so close to the changes
)

// errOvertaken says that another file has taken the place of the one that was copied.
var errOvertaken = errors.New("the file was replaced while it was copied")

// compactBeside starts a goroutine that compacts the file while changes go on. Close
// ends it.
func (s *Store) compactBeside() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.copied {
		return
	}
	s.copied = true
	s.copies.Go(func() {
		err := s.rewriteBeside(s.ctx)
		if err == errOvertaken || s.ctx.Err() != nil {
			err = nil
		}
		s.compacted(err)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.copied = false
	})
}

// rewriteBeside is rewrite for a caller without the lock on the file. It copies what is
// alive, and then what has changed meanwhile, round by round. Only for the last few
// changes, and the new file's name, does it take the lock.
func (s *Store) rewriteBeside(ctx context.Context) error {
	unlock, err := s.copying.Lock(ctx) // another process may be at it
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.refresh(ctx); err != nil {
		return err
	}
	s.mu.RLock()
	wasteful := s.isWasteful()
	s.mu.RUnlock()
	if !wasteful { // that process was
		return nil
	}
	if err := s.whole(ctx); err != nil {
		return err
	}
	c, err := s.newCopier(s.copyName())
	if err != nil {
		return err
	}
	defer c.close() // after the lock on the file is given up: to free a large file takes a while
	if err := c.copyMost(ctx); err != nil {
		return err
	}
	leave, err := s.lock.Lock(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if err := s.follow(true); err != nil {
		return err
	}
	return c.finish()
}

// copyName returns the name of the file that a copy beside changes goes to. It is not
// that of rewrite, which another process may use meanwhile.
func (s *Store) copyName() string { return fsys.Temp(s.path + ".compact") }

// removeCopy removes what a process left that was killed while it copied, unless
// another one copies.
func (s *Store) removeCopy() {
	if _, err := s.fs.Lstat(s.copyName()); err != nil {
		return
	}
	if unlock, ok := s.copying.TryLock(); ok {
		s.fs.Remove(s.copyName())
		unlock()
	}
}

// copier copies what is alive in a log to another one.
type copier struct {
	s       *Store
	old     *log              // held
	changed map[[16]byte]bool // records of old, since they were last asked for; guarded by s.mu
	win     window
	fresh   *log
	temp    string // the name of fresh's file
	kept    bool   // the file has got its real name
	w       *bufio.Writer
	b       []byte // a frame
	dirty   int64  // bytes since the last sync
	indexed bool   // the new index is in a file, too
}

// spot is a record, and where it was, or 0.
type spot struct {
	id  [16]byte
	off int64
}

// newCopier begins a copy of the present log: from now on, the log notes what changes.
func (s *Store) newCopier(temp string) (*copier, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, err := s.held()
	if err != nil {
		return nil, err
	}
	old.fillAll() // what is left if another file has taken the place just now
	c := &copier{
		s: s, old: old, changed: make(map[[16]byte]bool), win: window{r: old.file},
		fresh: newLog(s.fs, s.path), temp: temp,
	}
	if c.fresh.file, err = s.fs.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
		old.release()
		return nil, err
	}
	c.fresh.gen = newGeneration()
	c.w = bufio.NewWriterSize(c.fresh.file, windowSize)
	c.w.Write(c.fresh.gen.header()) // its error comes again from Flush
	old.copier = c                  // in place of one that will find itself overtaken
	return c, nil
}

// close ends a copy, and leaves nothing of one that failed.
func (c *copier) close() {
	c.s.mu.Lock()
	if c.old.copier == c {
		c.old.copier = nil
	}
	used := c.kept && c.s.next != c.fresh
	if c.s.next == c.fresh {
		c.s.next = nil
	}
	c.s.mu.Unlock()
	c.old.release()
	if !used {
		c.fresh.close()
	}
	if !c.kept {
		c.s.fs.Remove(c.temp)
	}
}

// copyMost copies all that is alive, and then what has changed meanwhile, until little
// is left.
func (c *copier) copyMost(ctx context.Context) error {
	spots := c.all()
	for round := range copyTries {
		if err := c.copy(ctx, spots); err != nil {
			return err
		}
		if err := c.sync(); err != nil {
			return err
		}
		if round == 0 && c.fresh.index.Len() >= c.s.few {
			if err := c.s.writeBase(c.fresh); err != nil {
				return err
			}
			c.indexed = true
		}
		if spots = c.changes(); len(spots) < copyRest {
			break
		}
	}
	return c.copy(ctx, spots)
}

// all returns where all records are. What changes meanwhile is noted.
func (c *copier) all() []spot {
	return collect(c.s, c.old, func(id [16]byte, e *entry) spot { return spot{id, e.Value.off} })
}

// changes returns where the records are that have changed since it was last called. It
// lets go of s.mu as collect does: while many were copied, many have changed.
func (c *copier) changes() []spot {
	c.s.mu.Lock()
	changed := c.changed
	c.changed = make(map[[16]byte]bool)
	c.s.mu.Unlock()
	spots := make([]spot, 0, len(changed))
	c.s.mu.RLock()
	defer c.s.mu.RUnlock()
	for id := range changed {
		e, _ := c.old.index.Get(id)
		spots = append(spots, spot{id, e.Value.off})
		if len(spots)%copySize == 0 {
			c.s.mu.RUnlock()
			c.s.mu.RLock()
		}
	}
	return spots
}

// copy copies the records at the spots, in the order of the file. What has changed since
// they were found is left to the next round.
func (c *copier) copy(ctx context.Context, spots []spot) error {
	slices.SortFunc(spots, func(a, b spot) int { return cmp.Compare(a.off, b.off) })
	var found []live
	for some := range slices.Chunk(spots, copySize) {
		if err := ctx.Err(); err != nil {
			return err
		}
		found = c.look(found[:0], some)
		for i := range found {
			o, err := c.op(&found[i])
			if err == nil {
				err = c.add(&o)
			}
			if err != nil {
				return err
			}
		}
		if c.dirty > syncSize {
			if err := c.sync(); err != nil {
				return err
			}
		}
	}
	return nil
}

// look appends what the records at the spots are by now. One that is gone has a zero
// entry.
func (c *copier) look(found []live, spots []spot) []live {
	c.s.mu.RLock()
	defer c.s.mu.RUnlock()
	c.win.end = c.old.end
	for _, at := range spots {
		e, ok := c.old.index.Get(at.id)
		if _, copied := c.fresh.index.Get(at.id); e.Value.off == at.off && (ok || copied) {
			found = append(found, live{at.id, e})
		}
	}
	return found
}

// op returns the operation that makes a record in the new file what it is.
func (c *copier) op(l *live) (o op, err error) {
	if l.entry == (entry{}) {
		return op{del, record.Record{ID: l.id}}, nil
	}
	o, err = l.read(&c.win, c.old.gen)
	if err != record.ErrCorrupt {
		return o, err
	}
	if !l.Value.lost {
		c.s.reportDamage(&frame{op: op{put, record.Record{ID: l.id}},
			off: l.Value.off, len: int64(l.Value.size), damage: "damaged frame"})
	}
	access := record.Access{Accessed: l.Accessed, Expires: l.Expires}
	return op{lost, record.Record{ID: l.id, User: l.User, Access: access}}, nil
}

// add appends an operation to the new file.
func (c *copier) add(o *op) error {
	l := c.fresh
	c.b = appendFrame(c.b[:0], l.gen, l.end, l.end, o) // it is durable before the file gets its name
	n := int64(len(c.b))
	if o.kind == del {
		l.remove(o.ID)
	} else {
		l.put(o.ID, entryOf(o, l.end, n))
	}
	l.end += n
	c.dirty += n
	_, err := c.w.Write(c.b)
	return err
}

// sync writes what is in the buffer, and makes the new file durable.
func (c *copier) sync() error {
	c.dirty = 0
	if err := c.w.Flush(); err != nil || c.s.noSync {
		return err
	}
	return c.fresh.file.Sync()
}

// finish copies the last changes, and puts the new file in the place of the old one. The
// caller has the lock on the file, and the index is up to date. It can be killed at any
// time: there is all of the old file or all of the new one.
func (c *copier) finish() error {
	err := c.copy(context.Background(), c.changes())
	if err == nil {
		err = c.sync()
	}
	if err == nil {
		err = c.offer()
	}
	if err == nil {
		err = c.s.fs.Rename(c.temp, c.s.path)
	}
	if err != nil {
		return err
	}
	c.kept = true
	if !c.s.noSync {
		err = fsys.Late(c.s.fs.SyncDir(filepath.Dir(c.s.path)))
	}
	return errors.Join(err, c.take(err == nil))
}

// offer tells the store of the new log, so that who meets its file need not read it.
func (c *copier) offer() (err error) {
	if c.fresh.info, err = c.fresh.file.Stat(); err != nil {
		return err
	}
	if !c.s.noSync {
		c.fresh.durable = c.fresh.end
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	switch {
	case c.s.closed:
		return fs.ErrClosed
	case c.s.log != c.old, c.old.copier != c:
		return errOvertaken
	}
	c.s.next = c.fresh
	return nil
}

// take has the store use the new log, unless a reader has done so already.
func (c *copier) take(named bool) error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.fresh.named = named && !c.s.noSync; !c.fresh.named {
		c.fresh.durable, c.fresh.must = 0, c.fresh.end // the next change that must be durable sees to all
	}
	if !c.indexed {
		c.fresh.fresh = c.fresh.index.Len()
	}
	return c.s.catchUp(true)
}

// live is a record that a compaction copies.
type live struct {
	id [16]byte
	entry
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
