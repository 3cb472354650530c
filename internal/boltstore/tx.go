package boltstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/session2/session2/internal/record"
)

// The buckets.
var (
	meta     = []byte("meta")
	sessions = []byte("sessions")
	accesses = []byte("access")
	byAccess = []byte("accessed")
	byExpiry = []byte("expires")
	byUser   = []byte("users")

	buckets   = [][]byte{meta, sessions, accesses, byAccess, byExpiry, byUser}
	formatKey = []byte("format")
)

const (
	timeSize = 8
	userSize = 16 // of a hash: users of any length, none the prefix of another
)

// tx is a transaction. Its slices are bbolt's memory and end with it.
type tx struct {
	tx    *bolt.Tx
	wrote bool
	err   error // of a write that failed, or damage: nothing may be committed
}

// head is what a touch changes, and where the index entries are.
type head struct{ now, filed record.Access }

func (t *tx) get(bucket, key []byte) []byte { return t.tx.Bucket(bucket).Get(key) }

func (t *tx) put(bucket, key, value []byte) {
	t.wrote = true
	if err := t.tx.Bucket(bucket).Put(key, value); t.err == nil {
		t.err = err
	}
}

func (t *tx) del(bucket, key []byte) {
	t.wrote = true
	if err := t.tx.Bucket(bucket).Delete(key); t.err == nil {
		t.err = err
	}
}

// record returns a copy of the record, or its ID and why there is none.
func (t *tx) record(id [16]byte) (record.Record, error) {
	r, found, err := t.body(id)
	if err == nil && !found {
		err = record.ErrNotFound
	}
	if err != nil {
		return record.Record{ID: id}, err
	}
	h, found, err := t.head(id)
	if err == nil && !found {
		err = record.Corrupt(errors.New("record access missing"))
	}
	if err != nil {
		return record.Record{ID: id}, err
	}
	r.Data, r.Access = bytes.Clone(r.Data), h.now
	return r, nil
}

// body reads a record but for its access.
func (t *tx) body(id [16]byte) (r record.Record, found bool, err error) {
	b := t.get(sessions, id[:])
	if b == nil {
		return r, false, nil
	}
	r, err = record.DecodeBody(b)
	if err == nil && r.ID != id {
		err = errors.New("record of another ID")
	}
	if err != nil {
		return r, true, record.Corrupt(err)
	}
	return r, true, nil
}

func (t *tx) head(id [16]byte) (h head, found bool, err error) {
	b := t.get(accesses, id[:])
	if b == nil {
		return h, false, nil
	}
	half := min(len(b), record.AccessSize)
	var err1, err2 error
	h.now, err1 = record.DecodeAccess(b[:half])
	h.filed, err2 = record.DecodeAccess(b[half:])
	if err := errors.Join(err1, err2); err != nil {
		return h, true, record.Corrupt(err)
	}
	return h, true, nil
}

// save is a Save, encoded before its turn comes.
type save struct {
	id         [16]byte
	next, prev uint64
	user       string
	access     record.Access
	body       []byte
}

func newSave(r record.Record, prev uint64) (*save, error) {
	body, err := record.AppendBody(nil, &r)
	if errors.Is(err, record.ErrTooLong) || len(body) > bolt.MaxValueSize {
		err = fmt.Errorf("%w: more than bbolt's 2 GiB", record.ErrTooLarge)
	}
	return &save{id: r.ID, next: r.Version, prev: prev, user: r.User, body: body, access: r.Access}, err
}

// save decides and makes a Save. With again it writes a record that landed
// before once more.
func (t *tx) save(s *save, again bool) error {
	stored, found, err := t.body(s.id)
	if err != nil {
		return err
	}
	write, err := record.Admit(found, stored.Version, s.next, s.prev)
	if err != nil || !write && !again {
		return err
	}
	if stored.User != s.user {
		t.fileUser(stored.User, s.user, s.id)
	}
	t.put(sessions, s.id[:], s.body)
	t.file(s.id, s.access, again)
	return nil
}

// touch moves the record's access forward.
func (t *tx) touch(id [16]byte, a record.Access) error {
	h, found, err := t.head(id)
	if err != nil || !found {
		return err
	}
	if next := h.now.Later(a); next != h.now {
		t.putHead(id, head{next, h.filed})
	}
	return nil
}

// remove removes the record, its index entries as far as it tells where they
// are, and reports whether it was there.
func (t *tx) remove(id [16]byte) bool {
	if h, found, err := t.head(id); found {
		if err == nil {
			t.del(byAccess, timeKey(h.filed.Accessed, id))
			t.del(byExpiry, timeKey(h.filed.Expires, id))
		}
		t.del(accesses, id[:])
	}
	r, found, err := t.body(id)
	if !found {
		return false
	}
	if err == nil {
		t.fileUser(r.User, "", id)
	}
	t.del(sessions, id[:])
	return true
}

// file sets the record's access and sees that its index entries are not late. An
// access that is there already is written with again only: most Saves move no time,
// and so write the pages of the session, and no others.
func (t *tx) file(id [16]byte, now record.Access, again bool) {
	h, found, err := t.head(id)
	known := found && err == nil
	next := head{now, record.Access{
		Accessed: t.fileTime(byAccess, id, now.Accessed, h.filed.Accessed, known),
		Expires:  t.fileTime(byExpiry, id, now.Expires, h.filed.Expires, known),
	}}
	if !known || again || next != h {
		t.putHead(id, next)
	}
}

// fileTime moves an index entry from time was, if that is known, to now, unless
// it is early enough, and returns where it is.
func (t *tx) fileTime(index []byte, id [16]byte, now, was int64, known bool) int64 {
	if known && was <= now {
		return was
	}
	if known {
		t.del(index, timeKey(was, id))
	}
	t.put(index, timeKey(now, id), []byte{})
	return now
}

// fileUser moves an index entry from one user to another.
func (t *tx) fileUser(from, to string, id [16]byte) {
	if from != "" {
		t.del(byUser, append(userPrefix(from), id[:]...))
	}
	if to != "" {
		t.put(byUser, append(userPrefix(to), id[:]...), []byte{})
	}
}

func (t *tx) putHead(id [16]byte, h head) {
	b := make([]byte, 0, 2*record.AccessSize)
	t.put(accesses, id[:], record.AppendAccess(record.AppendAccess(b, h.now), h.filed))
}

// userPrefix returns the key prefix of a user.
func userPrefix(user string) []byte {
	sum := sha256.Sum256([]byte(user))
	return sum[:userSize:userSize]
}

// timeKey returns the key of an index by time. With its sign flipped a time
// sorts as unsigned.
func timeKey(µs int64, id [16]byte) []byte {
	key := binary.BigEndian.AppendUint64(make([]byte, 0, timeSize+len(id)), uint64(µs)^1<<63)
	return append(key, id[:]...)
}

// keyID returns the ID that a key ends with.
func keyID(key []byte, prefix int) ([16]byte, bool) {
	if len(key) != prefix+16 {
		return [16]byte{}, false
	}
	return [16]byte(key[prefix:]), true
}
