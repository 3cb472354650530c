package session2

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/lockfile"
)

// boltFormat is the layout of the buckets that this release writes, and the
// only one that it takes. See [boltTx].
const boltFormat = "1"

// errBoltNothing ends a transaction that has nothing to commit.
var errBoltNothing = errors.New("nothing to commit")

// openBoltFile opens the database and sees to its buckets.
func openBoltFile(path string, o BoltOptions) (*bolt.DB, *os.File, error) {
	path, fsy, err := fsys.Place(fsys.OS, path, o.SharedGroup)
	if err != nil {
		return nil, nil, err
	}
	db, file, err := openBoltDB(fsy, path, o)
	if err != nil {
		return nil, nil, err
	}
	damage := guardBolt(func() { err = setupBolt(db) })
	err = cmp.Or(damage, err)
	if err == nil && !o.NoSync {
		err = fsys.OS.SyncDir(filepath.Dir(path)) // the file's name must last, too
	}
	if err != nil {
		letGoOfBolt(db, file, damage)
		return nil, nil, err
	}
	return db, file, nil
}

// letGoOfBolt closes a database. One that bbolt has panicked over may be locked
// in memory for ever, and closing it would wait for that. Of such a one the file
// is unlocked and closed, and its mapping remains: a goroutine of bbolt may be
// at it still.
func letGoOfBolt(db *bolt.DB, file *os.File, damage error) error {
	if damage == nil {
		return db.Close()
	}
	return errors.Join(lockfile.Unflock(file), file.Close())
}

// openBoltDB opens the database, whatever is in it.
//
// The list of free pages is not in the file but made at opening, and a hash map
// in memory. Written with each commit, as bbolt has it by default, it makes a
// large file slow once much of it is free. Measured after a sweep of 80 % of
// the records, each way in a process of its own:
//
//	                           default    here
//	200,000 records of 4 KB, one Save after another    1.66 ms    0.41 ms
//	                         64 at a time, each        0.20 ms    0.09 ms
//	300,000 records of 300 bytes, one after another    0.87 ms    0.33 ms
//	                              64 at a time, each   0.09 ms    0.07 ms
//
// The price is that opening reads the tree's pages, and so does a commit that
// fails, and that bbolt does this in a goroutine of its own, where a damaged
// page ends the process. So [checkBolt] reads them first.
func openBoltDB(fsy fsys.FS, path string, o BoltOptions) (*bolt.DB, *os.File, error) {
	if err := checkBolt(fsy, path, o); err != nil {
		return nil, nil, err
	}
	return openBoltWith(fsy, path, &bolt.Options{
		Timeout: o.Timeout, NoSync: o.NoSync, NoFreelistSync: true, FreelistType: bolt.FreelistMapType,
	})
}

// openBoltWith opens the database with these options, and returns its file, too.
func openBoltWith(fsy fsys.FS, path string, o *bolt.Options) (db *bolt.DB, file *os.File, err error) {
	o.OpenFile = func(name string, flag int, perm fs.FileMode) (f *os.File, err error) {
		file, err = openIfBolt(fsy, name, flag, perm)
		return file, err
	}
	damage := guardBolt(func() { db, err = bolt.Open(path, 0o600, o) })
	switch {
	case damage != nil:
		letGoOfBolt(nil, file, damage)
		return nil, nil, damage
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, nil, fmt.Errorf("in use by another process or store: %w", err)
	}
	return db, file, err
}

// openIfBolt opens a database file or an empty one. It looks before bbolt does,
// because on Windows bbolt makes the file larger before it looks.
func openIfBolt(fsy fsys.FS, name string, flag int, perm fs.FileMode) (*os.File, error) {
	f, err := fsy.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	if err := checkBoltMagic(f); err != nil {
		f.Close()
		return nil, err
	}
	return f.(*os.File), nil // it is the system's
}

// checkBoltMagic wants a file to be empty or to have bbolt's magic number, in
// whichever order its bytes are, on its first page or, in case that one is
// torn, on the second one. A page has 1 KiB to 64 KiB.
func checkBoltMagic(f io.ReaderAt) error {
	const pageHeader, magic = 16, 0xED0CDAED
	head := make([]byte, 64<<10+pageHeader+4)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return err
	}
	if n == 0 {
		return nil
	}
	for page := 0; page <= 64<<10; page = max(1<<10, 2*page) {
		b := head[page+pageHeader:]
		if binary.LittleEndian.Uint32(b) == magic || binary.BigEndian.Uint32(b) == magic {
			return nil
		}
	}
	return errors.New("not a bolt database")
}

// setupBolt creates the buckets if the database is empty, and otherwise checks
// that they are ours.
func setupBolt(db *bolt.DB) error {
	empty := false
	err := db.View(func(tx *bolt.Tx) error {
		first, _ := tx.Cursor().First()
		if empty = first == nil; empty {
			return nil
		}
		return (&boltTx{tx: tx}).checkFormat()
	})
	if err != nil || !empty {
		return err
	}
	return db.Update(func(tx *bolt.Tx) error {
		for _, name := range boltBuckets {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return tx.Bucket(boltMeta).Put(boltFormatKey, []byte(boltFormat))
	})
}

// checkFormat refuses a database that another application or another release
// filled.
func (t *boltTx) checkFormat() error {
	meta := t.tx.Bucket(boltMeta)
	if meta == nil {
		return errors.New("a bolt database of another application")
	}
	if format := meta.Get(boltFormatKey); string(format) != boltFormat {
		return fmt.Errorf("written in format %q, this release knows %q only", format, boltFormat)
	}
	for _, name := range boltBuckets {
		if t.tx.Bucket(name) == nil {
			return fmt.Errorf("bucket %q is missing", name)
		}
	}
	return nil
}

// view lets f read. All that f keeps it must copy: what a transaction shows is
// mapped memory, and after the transaction touching it may end the process.
func (b *boltBack) view(ctx context.Context, f func(t *boltTx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.closed.Load() {
		return fs.ErrClosed
	}
	if stuck := b.stuck.Load(); stuck != nil {
		return boltForGood(*stuck)
	}
	var err error
	t := &boltTx{}
	damage := guardBolt(func() {
		err = b.db.View(func(tx *bolt.Tx) error {
			t.tx = tx
			return cmp.Or(f(t), t.err)
		})
	})
	if damage != nil && t.tx == nil { // bbolt still holds its lock
		broken := damage
		b.broken.CompareAndSwap(nil, &broken)
		b.stuck.CompareAndSwap(nil, &broken)
	}
	return cmp.Or(damage, boltError(err))
}

// boltForGood is the error of each call after a panic that the store does not outlive.
func boltForGood(cause error) error {
	return fmt.Errorf("%w, for good, since this: %v", fs.ErrClosed, cause)
}

// commit makes the changes in one transaction. If that fails, it fails for all:
// even a refusal was decided by what never came to be.
func (b *boltBack) commit(changes []boltChange) []error {
	errs := make([]error, len(changes))
	err := b.transact(func(t *boltTx) {
		for i, change := range changes {
			errs[i] = change(t)
		}
	})
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
	}
	return errs
}

// transact commits what f writes, if anything.
func (b *boltBack) transact(f func(t *boltTx)) error {
	if broken := b.broken.Load(); broken != nil {
		return boltForGood(*broken)
	}
	var err error
	applied := errBoltNothing // until a transaction began
	var id int
	broken := guardBolt(func() {
		err = b.update(func(tx *bolt.Tx) error {
			id, applied = tx.ID(), applyBolt(tx, f)
			return applied
		})
	})
	if broken != nil {
		b.broken.Store(&broken)
		if applied == errBoltNothing && id == 0 { // no transaction began
			b.stuck.CompareAndSwap(nil, &broken)
		}
		return broken
	}
	if err == errBoltNothing {
		return nil
	}
	if applied == nil && err != nil {
		b.doubt = true
		if b.shows(id) {
			return fsys.Late(err)
		}
	}
	return boltError(err)
}

// shows reports whether a commit that failed is visible all the same.
func (b *boltBack) shows(id int) bool {
	last := id
	err := guardBolt(func() {
		b.db.View(func(tx *bolt.Tx) error {
			last = tx.ID()
			return nil
		})
	})
	return err != nil || last >= id
}

// applyBolt lets f write and reports whether the transaction may be committed.
func applyBolt(tx *bolt.Tx, f func(t *boltTx)) error {
	t := &boltTx{tx: tx}
	if err := guardBolt(func() { f(t) }); err != nil {
		return err
	}
	if t.err == nil && !t.wrote {
		return errBoltNothing
	}
	return t.err
}

// guardBolt returns the panic of f as an error. bbolt panics over a damaged
// page, and reading beyond the end of a truncated file is a fault, which ends
// the process unless the goroutine asks for a panic instead.
func guardBolt(f func()) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("bolt database damaged: %v", p)
		}
	}()
	f()
	return nil
}

// boltError gives errors of bbolt's their usual names: that of a call after Close,
// and that of a file which cannot grow, of which bbolt keeps only the text.
func boltError(err error) error {
	switch {
	case errors.Is(err, bolterrors.ErrDatabaseNotOpen):
		return fs.ErrClosed
	case err != nil && strings.HasPrefix(err.Error(), "file resize error: "):
		return fsys.Recognized(err)
	}
	return err
}
