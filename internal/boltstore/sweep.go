package boltstore

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/session2/session2/internal/record"
)

// keyRange is a walk through the keys of a bucket that have a prefix, up to
// last unless that is nil. It goes on in one transaction where it was in the
// one before, so that it ends, whatever comes, goes or cannot be deleted.
type keyRange struct {
	bucket, prefix, last []byte
	after                []byte // the last key seen
	done                 bool
}

// keys returns copies of the range's next keys, since bbolt's cursors do not
// survive changes.
func (t *tx) keys(r *keyRange, limit int) [][]byte {
	var keys [][]byte
	c := t.tx.Bucket(r.bucket).Cursor()
	k, _ := c.Seek(r.start())
	if r.after != nil && bytes.Equal(k, r.after) {
		k, _ = c.Next()
	}
	for ; r.has(k); k, _ = c.Next() {
		if len(keys) == limit {
			return keys
		}
		if bytes.Compare(k, r.after) <= 0 { // pages that form a ring, say
			t.err = cmp.Or(t.err, errors.New("bolt database damaged: keys out of order"))
			break
		}
		r.after = bytes.Clone(k)
		keys = append(keys, r.after)
	}
	r.done = true
	return keys
}

func (r *keyRange) start() []byte {
	if r.after != nil {
		return r.after
	}
	return r.prefix
}

func (r *keyRange) has(key []byte) bool {
	return key != nil && bytes.HasPrefix(key, r.prefix) && (r.last == nil || bytes.Compare(key, r.last) <= 0)
}

// hit is what a range leads to: a record, or an ID and why there is none.
type hit struct {
	rec record.Record
	err error
}

// page returns copies of the range's next records.
func (t *tx) page(r *keyRange) []hit {
	var page []hit
	for size := 0; size < pageMem && len(page) < pageMax && !r.done; {
		for _, key := range t.keys(r, 1) {
			h := t.hit(key, len(r.prefix))
			page, size = append(page, h), size+len(h.rec.Data)
		}
	}
	return page
}

// hit reads the record that a key names behind its prefix.
func (t *tx) hit(key []byte, prefix int) hit {
	id, ok := keyID(key, prefix)
	if !ok {
		return hit{err: record.Corrupt(fmt.Errorf("key of %d bytes", len(key)))}
	}
	rec, err := t.record(id)
	if err == record.ErrNotFound && prefix == 0 { // the key is the record's own
		err = record.Corrupt(errors.New("record out of place"))
	}
	return hit{rec, err}
}

// userSweep removes the records of a user but those to keep.
type userSweep struct {
	user string
	keep [][16]byte
	keyRange
}

func newUserSweep(user string, keep [][16]byte) *userSweep {
	return &userSweep{user, keep, keyRange{bucket: byUser, prefix: userPrefix(user)}}
}

// step looks at a bounded number of records. More says if that was not all.
func (s *userSweep) step(t *tx) (removed int, more bool) {
	for _, key := range t.keys(&s.keyRange, sweepMax) {
		id, ok := keyID(key, userSize)
		if ok && slices.Contains(s.keep, id) {
			continue
		}
		t.del(byUser, key)
		if !ok {
			continue
		}
		// One that cannot be read goes, one of another user does not.
		if r, found, err := t.body(id); found && (err != nil || r.User == s.user) {
			t.remove(id)
			removed++
		}
	}
	return removed, !s.done
}

// ageSweep removes the records that are due: last accessed or expiring at
// those times or before.
type ageSweep struct {
	accessed, expires int64
	indexes           [2]keyRange
}

func newAgeSweep(accessed, expires int64) *ageSweep {
	lastID := [16]byte(bytes.Repeat([]byte{0xff}, 16))
	return &ageSweep{accessed, expires, [2]keyRange{
		{bucket: byExpiry, last: timeKey(expires, lastID)},
		{bucket: byAccess, last: timeKey(accessed, lastID)},
	}}
}

// step looks at a bounded number of records. More says if that was not all.
func (s *ageSweep) step(t *tx) (removed int, more bool) {
	for i := range s.indexes {
		r := &s.indexes[i]
		if r.done {
			continue
		}
		for _, key := range t.keys(r, sweepMax) {
			if s.meet(t, r.bucket, key) {
				removed++
			}
		}
		return removed, true
	}
	t.sweepUp()
	return 0, false
}

// sweepUp deletes what is left in the indexes when there are no records. That is
// nothing, but for records that were damaged: they do not tell where their index
// entries are.
func (t *tx) sweepUp() {
	if k, _ := t.tx.Bucket(sessions).Cursor().First(); k != nil {
		return
	}
	for _, name := range [][]byte{accesses, byAccess, byExpiry, byUser} {
		if k, _ := t.tx.Bucket(name).Cursor().First(); k == nil {
			continue
		}
		t.wrote = true
		err := t.tx.DeleteBucket(name)
		if err == nil {
			_, err = t.tx.CreateBucket(name)
		}
		t.err = cmp.Or(t.err, err)
	}
}

// meet deals with an early index entry, which it deletes: it removes the
// record if that is due, and files it again if it is not.
func (s *ageSweep) meet(t *tx, index, key []byte) (removed bool) {
	t.del(index, key)
	id, ok := keyID(key, timeSize)
	if !ok {
		return false
	}
	h, found, err := t.head(id)
	if !found || err != nil || h.now.Accessed <= s.accessed || h.now.Expires <= s.expires {
		return t.remove(id) // or what is left of it
	}
	at, filed := h.now.Accessed, &h.filed.Accessed
	if bytes.Equal(index, byExpiry) {
		at, filed = h.now.Expires, &h.filed.Expires
	}
	t.del(index, timeKey(*filed, id)) // this key, unless the index is damaged
	t.put(index, timeKey(at, id), []byte{})
	*filed = at
	t.putHead(id, h)
	return false
}
