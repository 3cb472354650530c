package boltstore

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	bolt "go.etcd.io/bbolt"

	"github.com/session2/session2/internal/fsys"
)

// checkFile goes through all pages of a database file, without a look at what
// the values say, and fails where bbolt would panic over one of them. Without a list of
// free pages, bbolt goes through them in a goroutine of its own, whose panic ends the
// process; and when it finds damage without one, it panics in ours and pulls the
// transaction from under the other. With a list, which bbolt believes, the list must be
// right. It reports whether there is one.
func checkFile(fsy fsys.FS, path string, o Options) (listed bool, err error) {
	info, err := os.Stat(path)
	if err != nil || info.Size() == 0 {
		return false, nil // new; or else opening it for writing will say what is wrong
	}
	db, file, err := openWith(fsy, path, &bolt.Options{Timeout: o.Timeout, ReadOnly: true})
	if err != nil {
		return false, err
	}
	damage := guard(func() {
		err = db.View(func(btx *bolt.Tx) (err error) {
			if btx.Size() > info.Size() { // bbolt makes room before it uses it, and takes it for granted after that
				return fmt.Errorf("bolt database damaged: it was cut off after %d bytes of %d", info.Size(), btx.Size())
			}
			size := db.Info().PageSize
			w := pages{file: file, size: size, seen: make([]bool, btx.Size()/int64(size))}
			if err := w.check(uint64(btx.Cursor().Bucket().Root()), nil, nil); err != nil {
				return err
			}
			listed, err = w.checkList(uint64(btx.ID()))
			return err
		})
	})
	return listed, errors.Join(cmp.Or(damage, err), letGo(db, file, nil)) // a reader's panic locks nothing
}

// pages walks through the pages of a database as bbolt lays them out, which is
// in the byte order of the machine:
//
//	page     number 8, flags 2, count 2, further pages 4, then count elements
//	branch   position 4, key's length 4, page's number 8
//	leaf     flags 4, position 4, key's length 4, value's length 4
//	bucket   root page's number 8, sequence 8; without a root, a page follows
//
// Keys and values are at their position, from the element's beginning. The first two pages
// say in turn what the latest transactions made of it, the page of the list among it.
//
//	list     8 for each free page's number; the first is their number where count is 65,535
type pages struct {
	file io.ReaderAt
	size int
	seen []bool   // by a page's number
	bufs [][]byte // to be used again, one for each page on the way to the present one
}

const (
	pageHeader   = 16
	elementSize  = 16
	bucketHeader = 16

	branchPage = 1
	leafPage   = 2
	listPage   = 16

	metaPages = 2
	metaList  = pageHeader + 32
	metaTx    = pageHeader + 48
	noList    = 1<<64 - 1

	bucketValue = 1 // the flag of a leaf's element
)

// check wants a page and all below it to be well formed, to be met for the first
// time, and to have their keys in ascending order, from first on and before end.
// Nil sets no bound.
func (w *pages) check(number uint64, first, end []byte) error {
	page, err := w.read(number)
	if err != nil {
		return err
	}
	err = w.elements(number, page, first, end)
	w.bufs = append(w.bufs, page)
	return err
}

// checkList wants the list of free pages, if the transaction has left one, to name pages
// that are nowhere else, each once.
func (w *pages) checkList(tx uint64) (listed bool, err error) {
	meta := w.buffer()
	if _, err := w.file.ReadAt(meta, int64(tx%metaPages)*int64(w.size)); err != nil {
		return false, fmt.Errorf("page %d: %w", tx%metaPages, err)
	}
	if binary.NativeEndian.Uint64(meta[metaTx:]) != tx {
		return false, w.damaged(tx%metaPages, "is of another transaction")
	}
	number := binary.NativeEndian.Uint64(meta[metaList:])
	if number == noList {
		return false, nil
	}
	w.seen[0], w.seen[1] = true, true
	page, err := w.read(number)
	if err != nil {
		return false, err
	}
	if binary.NativeEndian.Uint16(page[8:]) != listPage {
		return false, w.damaged(number, "is of the wrong kind")
	}
	count, free := uint64(binary.NativeEndian.Uint16(page[10:])), page[pageHeader:]
	if count == 1<<16-1 {
		count, free = binary.NativeEndian.Uint64(free), free[8:]
	}
	if count > uint64(len(free)/8) {
		return false, w.damaged(number, "is too short")
	}
	for ; count > 0; count, free = count-1, free[8:] {
		n := binary.NativeEndian.Uint64(free)
		if n >= uint64(len(w.seen)) || w.seen[n] {
			return false, w.damaged(number, "takes a page for free that is not")
		}
		w.seen[n] = true
	}
	return true, nil
}

// buffer returns room for a page.
func (w *pages) buffer() []byte {
	n := len(w.bufs) - 1
	if n < 0 {
		return make([]byte, w.size)
	}
	b := w.bufs[n]
	w.bufs = w.bufs[:n]
	return b[:w.size]
}

// read returns a page with those that belong to it.
func (w *pages) read(number uint64) ([]byte, error) {
	if number >= uint64(len(w.seen)) {
		return nil, w.damaged(number, "does not exist")
	}
	head := w.buffer()
	if _, err := w.file.ReadAt(head, int64(number)*int64(w.size)); err != nil {
		return nil, fmt.Errorf("page %d: %w", number, err)
	}
	further := uint64(binary.NativeEndian.Uint32(head[12:]))
	switch {
	case binary.NativeEndian.Uint64(head) != number:
		return nil, w.damaged(number, "has another's number")
	case further >= uint64(len(w.seen))-number:
		return nil, w.damaged(number, "reaches beyond the end")
	}
	for i := number; i <= number+further; i++ {
		if w.seen[i] {
			return nil, w.damaged(i, "is in use twice")
		}
		w.seen[i] = true
	}
	if further == 0 {
		return head, nil
	}
	page := append(head, make([]byte, further*uint64(w.size))...)
	if _, err := w.file.ReadAt(page[w.size:], int64(number+1)*int64(w.size)); err != nil {
		return nil, fmt.Errorf("page %d: %w", number, err)
	}
	return page, nil
}

// elements checks what is on a page, and below it.
func (w *pages) elements(number uint64, page, first, end []byte) error {
	flags, count := binary.NativeEndian.Uint16(page[8:]), int(binary.NativeEndian.Uint16(page[10:]))
	if flags != branchPage && flags != leafPage {
		return w.damaged(number, "is of the wrong kind")
	}
	if pageHeader+count*elementSize > len(page) {
		return w.damaged(number, "is too short")
	}
	var last []byte
	for i := range count {
		element := page[pageHeader+i*elementSize:]
		key, value, ok := item(element, flags)
		switch {
		case !ok:
			return w.damaged(number, "is too short")
		case i == 0 && bytes.Compare(key, first) < 0,
			i > 0 && bytes.Compare(key, last) <= 0,
			end != nil && bytes.Compare(key, end) >= 0:
			return w.damaged(number, "has keys out of order")
		}
		last = key
		var err error
		switch {
		case flags == branchPage:
			next := end
			if i+1 < count {
				next, _, _ = item(element[elementSize:], flags)
			}
			err = w.check(binary.NativeEndian.Uint64(element[8:]), key, next)
		case binary.NativeEndian.Uint32(element)&bucketValue != 0:
			err = w.bucket(number, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bucket checks the bucket that a leaf's value says.
func (w *pages) bucket(number uint64, value []byte) error {
	if len(value) < bucketHeader {
		return w.damaged(number, "has a bucket cut short")
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return w.check(root, nil, nil)
	}
	page := value[bucketHeader:]
	if len(page) < pageHeader {
		return w.damaged(number, "has a bucket cut short")
	}
	return w.elements(number, page, nil, nil)
}

// item returns the key and, on a leaf, the value of the element that comes
// first in what is left of its page, and whether it has room for them.
func item(element []byte, flags uint16) (key, value []byte, ok bool) {
	field := func(i int) uint64 { return uint64(binary.NativeEndian.Uint32(element[4*i:])) }
	begin, keyLen, valueLen := field(0), field(1), uint64(0)
	if flags == leafPage {
		begin, keyLen, valueLen = field(1), field(2), field(3)
	}
	if begin+keyLen+valueLen > uint64(len(element)) {
		return nil, nil, false
	}
	rest := element[begin:]
	return rest[:keyLen], rest[keyLen : keyLen+valueLen], true
}

func (w *pages) damaged(number uint64, how string) error {
	return fmt.Errorf("bolt database damaged: page %d %s", number, how)
}
