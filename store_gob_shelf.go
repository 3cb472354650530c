package session2

import (
	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/goblog"
	"github.com/session2/session2/internal/index"
)

// gobShelf is a log and the index of what is in it.
type gobShelf struct {
	log   *goblog.Log
	index index.Index[gobPlace]
	live  int64 // bytes of the frames that the index points to
	must  int64 // the end of the last frame that has to be durable: of all but touches

	// What an unreadable Put replaced, by ID, for as long as nothing newer is
	// known of the record.
	replaced map[ID]gobReplaced
}

// gobPlace is where a record is, or was until it got lost.
type gobPlace struct {
	off     int64
	version uint64
	size    uint32
	lost    bool
}

type gobEntry = index.Entry[gobPlace]

type gobReplaced struct {
	by    int64 // the offset of the unreadable frame
	entry gobEntry
}

// openGobShelf opens the log at path, of which nothing has been read yet.
func openGobShelf(fsy fsys.FS, path string) (*gobShelf, error) {
	log, err := goblog.Open(fsy, path)
	if err != nil {
		return nil, err
	}
	return &gobShelf{log: log, replaced: make(map[ID]gobReplaced)}, nil
}

// wasteful reports whether more is dead than live, and more than slack.
func (f *gobShelf) wasteful(slack int64) bool { return f.dead() > max(f.live, slack) }

// deserted reports whether there is no record and so much of the file that it
// should be made anew: any at all for a sweep, and more than slack in any case.
func (f *gobShelf) deserted(sweeps bool, slack int64) bool {
	if !sweeps {
		slack = max(slack, gobRest)
	}
	return f.index.Len() == 0 && f.dead() > slack
}

func (f *gobShelf) dead() int64 { return f.log.End() - goblog.HeaderSize - f.live }

// apply brings the index up to date with a frame.
func (f *gobShelf) apply(e goblog.Entry) {
	if e.Kind != goblog.Touch {
		f.must = e.Off + e.Len
	}
	switch {
	case e.Kind == goblog.Put && e.Whole:
		f.put(e.ID, gobEntryOf(&e.Op, e.Off, e.Len))
	case e.Kind == goblog.Touch && e.Whole:
		f.index.Touch(e.ID, e.Accessed, e.Expires)
	case e.Kind == goblog.Delete:
		f.remove(e.ID)
	case e.Kind == goblog.Put, e.Kind == goblog.Lost:
		f.lose(e)
	}
}

func gobEntryOf(op *goblog.Op, off, n int64) gobEntry {
	return gobEntry{
		User: op.User, Accessed: op.Accessed, Expires: op.Expires,
		Value: gobPlace{off: off, size: uint32(n), version: op.Version, lost: op.Kind == goblog.Lost},
	}
}

func (f *gobShelf) put(id ID, e gobEntry) {
	delete(f.replaced, id)
	old, _ := f.index.Get(id)
	f.live += int64(e.Value.size) - int64(old.Value.size)
	f.index.Put(id, e)
}

func (f *gobShelf) remove(id ID) {
	delete(f.replaced, id)
	if old, found := f.index.Get(id); found {
		f.live -= int64(old.Value.size)
		f.index.Delete(id)
	}
}

// lose notes that the record cannot be read. It keeps the times that are known
// of it; without any it is the first that DeleteOld removes.
func (f *gobShelf) lose(e goblog.Entry) {
	old, found := f.index.Get(e.ID)
	was, twice := f.replaced[e.ID]
	lost := old
	lost.Value = gobPlace{off: e.Off, size: uint32(e.Len), lost: true}
	f.put(e.ID, lost)
	switch {
	case twice:
		f.replaced[e.ID] = was
	case found && e.Kind == goblog.Put:
		f.replaced[e.ID] = gobReplaced{by: e.Off, entry: old}
	}
}

// judge decides about the records that an unreadable Put has replaced, and
// reports whether it gave any its earlier state back. A Put that was durable
// was acknowledged, and its record is lost. One for which no later frame says
// so may be the trace of a machine that went down in the middle of a write,
// and then the earlier state is what was acknowledged. The log has to be
// rewritten after that, or it would be judged otherwise one day.
func (f *gobShelf) judge() (revived bool) {
	for id, r := range f.replaced {
		if r.by >= f.log.Durable() {
			f.put(id, r.entry)
			revived = true
		}
	}
	clear(f.replaced)
	return revived
}

// readGob reads the Put of the record whose entry is e, with its latest times.
func readGob(r goblog.Reader, id ID, e gobEntry) (goblog.Op, error) {
	if e.Value.lost {
		return goblog.Op{}, ErrCorrupt
	}
	op, whole, err := r.ReadOp(e.Value.off, int64(e.Value.size))
	if err != nil {
		return goblog.Op{}, err
	}
	if !whole || op.Kind != goblog.Put || op.ID != id {
		return goblog.Op{}, ErrCorrupt
	}
	op.Accessed, op.Expires = e.Accessed, e.Expires
	return op, nil
}
