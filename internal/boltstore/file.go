package boltstore

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/lockfile"
)

// format is the layout that this release writes, and the only one that it takes.
const format = "1"

// openFile opens the database and sees to its buckets.
func openFile(path string, o Options) (db *bolt.DB, file *os.File, listed bool, err error) {
	path, fsy, err := fsys.Place(fsys.OS, path, o.SharedGroup)
	if err != nil {
		return nil, nil, false, err
	}
	db, file, listed, err = openDB(fsy, path, o)
	if err != nil {
		return nil, nil, false, err
	}
	damage := guard(func() { err = setup(db) })
	err = cmp.Or(damage, err)
	if err == nil && !o.NoSync {
		err = fsys.OS.SyncDir(filepath.Dir(path)) // the file's name must last, too
	}
	if err != nil {
		letGo(db, file, damage)
		return nil, nil, false, err
	}
	return db, file, listed, nil
}

// letGo closes a database. One that bbolt has panicked over may be locked
// in memory for ever, and closing it would wait for that. Of such a one the file
// is unlocked and closed, and its mapping remains: a goroutine of bbolt may be
// at it still.
func letGo(db *bolt.DB, file *os.File, damage error) error {
	if damage == nil {
		return db.Close()
	}
	return errors.Join(lockfile.Unflock(file), file.Close())
}

// openDB opens the database, whatever is in it.
//
// The list of free pages is a hash map in memory. In the file it is only after Close: see
// [Store.list]. Written with each commit, as bbolt has it by default, it makes a
// large file slow once much of it is free. Measured after a sweep of 80 % of
// the records, each way in a process of its own:
//
//	                           default    here
//	200,000 records of 4 KB, one Save after another    1.66 ms    0.41 ms
//	                         64 at a time, each        0.20 ms    0.09 ms
//	300,000 records of 300 bytes, one after another    0.87 ms    0.33 ms
//	                              64 at a time, each   0.09 ms    0.07 ms
//
// The price is that opening reads the tree's pages where the process before did not come to
// Close, and so does a commit that fails, and that bbolt does this in a goroutine of its
// own, where a damaged page ends the process. So [checkFile] reads them first.
func openDB(fsy fsys.FS, path string, o Options) (db *bolt.DB, file *os.File, listed bool, err error) {
	if listed, err = checkFile(fsy, path, o); err != nil {
		return nil, nil, false, err
	}
	db, file, err = openWith(fsy, path, &bolt.Options{
		Timeout: o.Timeout, NoSync: o.NoSync, NoFreelistSync: true, FreelistType: bolt.FreelistMapType,
	})
	return db, file, listed, err
}

// openWith opens the database with these options, and returns its file, too.
func openWith(fsy fsys.FS, path string, o *bolt.Options) (db *bolt.DB, file *os.File, err error) {
	o.OpenFile = func(name string, flag int, perm fs.FileMode) (f *os.File, err error) {
		file, err = openIfBolt(fsy, name, flag, perm)
		return file, err
	}
	damage := guard(func() { db, err = bolt.Open(path, 0o600, o) })
	switch {
	case damage != nil:
		letGo(nil, file, damage)
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
	if err := checkMagic(f); err != nil {
		f.Close()
		return nil, err
	}
	return f.(*os.File), nil // it is the system's
}

// checkMagic wants a file to be empty or to have bbolt's magic number, in
// whichever order its bytes are, on its first page or, in case that one is
// torn, on the second one. A page has 1 KiB to 64 KiB.
func checkMagic(f io.ReaderAt) error {
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

// setup creates the buckets if the database is empty, and otherwise checks
// that they are ours.
func setup(db *bolt.DB) error {
	empty := false
	err := db.View(func(btx *bolt.Tx) error {
		first, _ := btx.Cursor().First()
		if empty = first == nil; empty {
			return nil
		}
		return (&tx{tx: btx}).checkFormat()
	})
	if err != nil || !empty {
		return err
	}
	return db.Update(func(btx *bolt.Tx) error {
		for _, name := range buckets {
			if _, err := btx.CreateBucket(name); err != nil {
				return err
			}
		}
		return btx.Bucket(meta).Put(formatKey, []byte(format))
	})
}

// checkFormat refuses a database that another application or another release
// filled.
func (t *tx) checkFormat() error {
	bucket := t.tx.Bucket(meta)
	if bucket == nil {
		return errors.New("a bolt database of another application")
	}
	if found := bucket.Get(formatKey); string(found) != format {
		return fmt.Errorf("written in format %q, this release knows %q only", found, format)
	}
	for _, name := range buckets {
		if t.tx.Bucket(name) == nil {
			return fmt.Errorf("bucket %q is missing", name)
		}
	}
	return nil
}
