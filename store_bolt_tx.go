package session2

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/session2/session2/internal/record"
)

// The buckets; ID stands for the 16 bytes, a time for microseconds since 1970
// in 8 bytes that sort.
var (
	boltMeta     = []byte("meta")     // "format": boltFormat
	boltSessions = []byte("sessions") // ID: a record's body
	boltAccess   = []byte("access")   // ID: its access, and that of its index entries
	boltByAccess = []byte("accessed") // time, ID: nothing
	boltByExpiry = []byte("expires")  // time, ID: nothing
	boltByUser   = []byte("users")    // hash of the user, ID: nothing

	boltBuckets   = [][]byte{boltMeta, boltSessions, boltAccess, boltByAccess, boltByExpiry, boltByUser}
	boltFormatKey = []byte("format")
)

const (
	boltTimeSize = 8
	boltUserSize = 16 // of a hash: users of any length, none the prefix of another
)

// boltTx is a transaction. Its slices are bbolt's memory and end with it.
//
// The indexes by time are lazy: a record has one entry in each, at its time or
// earlier. Touch and Save leave an entry where it is if it is early enough, and
// a sweep that meets an early entry moves it to the record's time. So what
// requests write does not grow by index pages, and a sweep looks at a record
// that is in use about once in the age that it sweeps by. Whatever an index
// says, the record has the last word.
type boltTx struct {
	tx    *bolt.Tx
	wrote bool
	err   error // of a write that failed, or damage: nothing may be committed
}

// boltHead is what a touch changes, and where the index entries are.
type boltHead struct{ now, filed record.Access }

func (t *boltTx) get(bucket, key []byte) []byte { return t.tx.Bucket(bucket).Get(key) }

func (t *boltTx) put(bucket, key, value []byte) {
	t.wrote = true
	if err := t.tx.Bucket(bucket).Put(key, value); t.err == nil {
		t.err = err
	}
}

func (t *boltTx) del(bucket, key []byte) {
	t.wrote = true
	if err := t.tx.Bucket(bucket).Delete(key); t.err == nil {
		t.err = err
	}
}

// record returns a copy of the record, or its ID and why there is none.
func (t *boltTx) record(id ID) (record.Record, error) {
	r, found, err := t.body(id)
	if err == nil && !found {
		err = ErrNotFound
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
func (t *boltTx) body(id ID) (r record.Record, found bool, err error) {
	b := t.get(boltSessions, id[:])
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

func (t *boltTx) head(id ID) (h boltHead, found bool, err error) {
	b := t.get(boltAccess, id[:])
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

// boltSave is a Save, encoded before its turn comes.
type boltSave struct {
	id         ID
	next, prev uint64
	user       string
	access     record.Access
	body       []byte
}

func newBoltSave(r record.Record, prev uint64) (*boltSave, error) {
	body, err := record.AppendBody(nil, &r)
	if errors.Is(err, record.ErrTooLong) || len(body) > bolt.MaxValueSize {
		err = fmt.Errorf("%w: more than bbolt's 2 GiB", ErrTooLarge)
	}
	return &boltSave{id: r.ID, next: r.Version, prev: prev, user: r.User, body: body, access: r.Access}, err
}

// save decides and makes a Save. With again it writes a record that landed
// before once more.
func (t *boltTx) save(s *boltSave, again bool) error {
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
	t.put(boltSessions, s.id[:], s.body)
	t.file(s.id, s.access)
	return nil
}

// touch moves the record's access forward.
func (t *boltTx) touch(id ID, a record.Access) error {
	h, found, err := t.head(id)
	if err != nil || !found {
		return err
	}
	if next := h.now.Later(a); next != h.now {
		t.putHead(id, boltHead{next, h.filed})
	}
	return nil
}

// remove removes the record, its index entries as far as it tells where they
// are, and reports whether it was there.
func (t *boltTx) remove(id ID) bool {
	if h, found, err := t.head(id); found {
		if err == nil {
			t.del(boltByAccess, boltTimeKey(h.filed.Accessed, id))
			t.del(boltByExpiry, boltTimeKey(h.filed.Expires, id))
		}
		t.del(boltAccess, id[:])
	}
	r, found, err := t.body(id)
	if !found {
		return false
	}
	if err == nil {
		t.fileUser(r.User, "", id)
	}
	t.del(boltSessions, id[:])
	return true
}

// file sets the record's access and sees that its index entries are not late.
func (t *boltTx) file(id ID, now record.Access) {
	h, found, err := t.head(id)
	known := found && err == nil
	t.putHead(id, boltHead{now, record.Access{
		Accessed: t.fileTime(boltByAccess, id, now.Accessed, h.filed.Accessed, known),
		Expires:  t.fileTime(boltByExpiry, id, now.Expires, h.filed.Expires, known),
	}})
}

// fileTime moves an index entry from time was, if that is known, to now, unless
// it is early enough, and returns where it is.
func (t *boltTx) fileTime(index []byte, id ID, now, was int64, known bool) int64 {
	if known && was <= now {
		return was
	}
	if known {
		t.del(index, boltTimeKey(was, id))
	}
	t.put(index, boltTimeKey(now, id), []byte{})
	return now
}

// fileUser moves an index entry from one user to another.
func (t *boltTx) fileUser(from, to string, id ID) {
	if from != "" {
		t.del(boltByUser, append(boltUser(from), id[:]...))
	}
	if to != "" {
		t.put(boltByUser, append(boltUser(to), id[:]...), []byte{})
	}
}

func (t *boltTx) putHead(id ID, h boltHead) {
	b := make([]byte, 0, 2*record.AccessSize)
	t.put(boltAccess, id[:], record.AppendAccess(record.AppendAccess(b, h.now), h.filed))
}

// boltUser returns the key prefix of a user.
func boltUser(user string) []byte {
	sum := sha256.Sum256([]byte(user))
	return sum[:boltUserSize:boltUserSize]
}

var boltLastID = ID(bytes.Repeat([]byte{0xff}, len(ID{})))

// boltTimeKey returns the key of an index by time. With its sign flipped a time
// sorts as unsigned.
func boltTimeKey(µs int64, id ID) []byte {
	key := binary.BigEndian.AppendUint64(make([]byte, 0, boltTimeSize+len(id)), uint64(µs)^1<<63)
	return append(key, id[:]...)
}

// boltKeyID returns the ID that a key ends with.
func boltKeyID(key []byte, prefix int) (ID, bool) {
	if len(key) != prefix+len(ID{}) {
		return ID{}, false
	}
	return ID(key[prefix:]), true
}
