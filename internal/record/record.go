// Package record is the binary form of a session record.
//
// What an access changes stands apart from the rest, so that it can be written
// again without it. A body is, in big-endian order:
//
//	format   1 byte, 1
//	ID      16 bytes
//	version  8 bytes
//	created  8 bytes, microseconds since 1970
//	user     4 bytes of length, then that many
//	data     4 bytes of length, then that many
//	CRC-32C  4 bytes, of all before
//
// and an access is
//
//	accessed 8 bytes, microseconds since 1970
//	expires  8 bytes, likewise
//	CRC-32C  4 bytes, of both
//
// A record as a whole is two accesses and the body. [Record.Touch] writes one
// of the accesses, so that the other one holds whatever becomes of that write.
package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
)

// Record is a session's record; times are microseconds since 1970.
type Record struct {
	ID      [16]byte
	Version uint64
	User    string
	Created int64
	Data    []byte
	Access
}

// Access is the part of a record that Touch moves.
type Access struct {
	Accessed int64
	Expires  int64
}

// ErrFormat says that a body is intact, but written in a format that this
// package does not know, most likely by a newer one.
var ErrFormat = errors.New("unknown record format")

// ErrTooLong says that a record's user or data do not fit the format.
var ErrTooLong = errors.New("record exceeds 4 GiB")

var (
	errAccess = errors.New("record access damaged")
	errBody   = errors.New("record body damaged")
)

const (
	format      = 1
	sumSize     = 4
	fixedSize   = 1 + 16 + 8 + 8 // what stands before the user
	minBodySize = fixedSize + 4 + 4 + sumSize

	// AccessSize is the length of an access.
	AccessSize = 8 + 8 + sumSize

	// HeadSize is the length of what stands before a whole record's body.
	HeadSize = 2 * AccessSize
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Later returns the later of each of the two times.
func (a Access) Later(b Access) Access {
	return Access{max(a.Accessed, b.Accessed), max(a.Expires, b.Expires)}
}

// Earlier returns the earlier of each of the two times.
func (a Access) Earlier(b Access) Access {
	return Access{min(a.Accessed, b.Accessed), min(a.Expires, b.Expires)}
}

// Append appends the whole record to dst.
func Append(dst []byte, r *Record) ([]byte, error) {
	dst = slices.Grow(dst, HeadSize+minBodySize+len(r.User)+len(r.Data))
	dst = AppendAccess(AppendAccess(dst, r.Access), r.Access)
	return AppendBody(dst, r)
}

// Decode reads a whole record. Its Data are part of b.
func Decode(b []byte) (Record, error) {
	a, err := DecodeHead(b)
	if err != nil {
		return Record{}, err
	}
	r, err := DecodeBody(b[HeadSize:])
	r.Access = a
	return r, err
}

// AppendAccess appends a to dst.
func AppendAccess(dst []byte, a Access) []byte {
	start := len(dst)
	dst = binary.BigEndian.AppendUint64(dst, uint64(a.Accessed))
	dst = binary.BigEndian.AppendUint64(dst, uint64(a.Expires))
	return appendSum(dst, start)
}

// DecodeAccess reads an access, which must be all of b.
func DecodeAccess(b []byte) (Access, error) {
	if len(b) != AccessSize {
		return Access{}, errAccess
	}
	b, ok := checkSum(b)
	if !ok {
		return Access{}, errAccess
	}
	return Access{
		Accessed: int64(binary.BigEndian.Uint64(b)),
		Expires:  int64(binary.BigEndian.Uint64(b[8:])),
	}, nil
}

// DecodeHead reads the access of the whole record that b begins with: the
// later times, since they move forward only, of what is intact.
func DecodeHead(b []byte) (Access, error) {
	if len(b) < HeadSize {
		return Access{}, errAccess
	}
	first, err1 := DecodeAccess(b[:AccessSize])
	second, err2 := DecodeAccess(b[AccessSize:HeadSize])
	switch {
	case err1 != nil:
		return second, err2
	case err2 != nil:
		return first, nil
	}
	return first.Later(second), nil
}

// Touch returns what to write, and at which offset, to move the access of the
// whole record that begins with head forward to a. Nothing moves back; write
// is nil if nothing moves at all.
func Touch(head []byte, a Access) (offset int64, write []byte, err error) {
	now, err := DecodeHead(head)
	if err != nil {
		return 0, nil, err
	}
	next := now.Later(a)
	if next == now {
		return 0, nil, nil
	}
	// The one to keep is the one that says it all; there is one, because each
	// write said it all at its time.
	if first, err := DecodeAccess(head[:AccessSize]); err == nil && first == now {
		offset = AccessSize
	}
	return offset, AppendAccess(nil, next), nil
}

// User returns the user of the whole record that b begins with, without a look at
// the checksum; or "" if b is too short to hold it, or in another format.
func User(b []byte) string {
	if len(b) < HeadSize+fixedSize || b[HeadSize] != format {
		return ""
	}
	user, _, _ := cutSized(b[HeadSize+fixedSize:])
	return string(user)
}

// Size returns how long the whole record is that r begins with, as its own
// lengths say, so that whoever reads it need not trust the size that a file has. It
// is 0 if the lengths are not there, or if the format is none. For another format,
// which lays out the body otherwise, it is the given size of r if the checksum of
// all the body is right.
func Size(r io.ReaderAt, size int64) (int64, error) {
	b := make([]byte, 4)
	n := int64(HeadSize)
	if ok, err := readFull(r, b[:1], n); !ok || b[0] == 0 {
		return 0, err
	}
	if b[0] != format {
		return sumSized(r, size)
	}
	n += fixedSize
	for range 2 { // the user and the data
		if ok, err := readFull(r, b[:4], n); !ok {
			return 0, err
		}
		n += 4 + int64(binary.BigEndian.Uint32(b))
	}
	return n + sumSize, nil
}

// sumSized returns size if the body of what r holds has the right checksum, and
// else 0. It keeps a piece of it in memory.
func sumSized(r io.ReaderAt, size int64) (int64, error) {
	body := size - HeadSize - sumSize
	if body < 0 {
		return 0, nil
	}
	h := crc32.New(castagnoli)
	if n, err := io.Copy(h, io.NewSectionReader(r, HeadSize, body)); n < body || err != nil {
		return 0, err
	}
	sum := make([]byte, sumSize)
	if ok, err := readFull(r, sum, HeadSize+body); !ok || h.Sum32() != binary.BigEndian.Uint32(sum) {
		return 0, err
	}
	return size, nil
}

// readFull fills b from off on, and reports whether there was enough.
func readFull(r io.ReaderAt, b []byte, off int64) (ok bool, err error) {
	n, err := r.ReadAt(b, off)
	if n == len(b) || err == io.EOF {
		return n == len(b), nil
	}
	return false, err
}

// AppendBody appends to dst all of r but the access.
func AppendBody(dst []byte, r *Record) ([]byte, error) {
	if uint64(len(r.User)) > math.MaxUint32 || uint64(len(r.Data)) > math.MaxUint32 {
		return dst, ErrTooLong
	}
	start := len(dst)
	dst = append(dst, format)
	dst = append(dst, r.ID[:]...)
	dst = binary.BigEndian.AppendUint64(dst, r.Version)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Created))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(r.User)))
	dst = append(dst, r.User...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(r.Data)))
	dst = append(dst, r.Data...)
	return appendSum(dst, start), nil
}

// DecodeBody reads a body, which must be all of b. The record's Data are part
// of b, not a copy; its Access is zero.
func DecodeBody(b []byte) (Record, error) {
	if len(b) < minBodySize {
		return Record{}, errBody
	}
	// The sum goes first: a damaged format byte is damage, no other format.
	rest, ok := checkSum(b)
	if !ok {
		return Record{}, errBody
	}
	if rest[0] != format {
		return Record{}, fmt.Errorf("%w %d", ErrFormat, rest[0])
	}
	r := Record{
		ID:      [16]byte(rest[1:17]),
		Version: binary.BigEndian.Uint64(rest[17:]),
		Created: int64(binary.BigEndian.Uint64(rest[25:])),
	}
	user, rest, ok := cutSized(rest[fixedSize:])
	if !ok {
		return Record{}, errBody
	}
	data, rest, ok := cutSized(rest)
	if !ok || len(rest) != 0 {
		return Record{}, errBody
	}
	r.User, r.Data = string(user), data
	return r, nil
}

// cutSized cuts off a length and as many bytes.
func cutSized(b []byte) (cut, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n, b := uint64(binary.BigEndian.Uint32(b)), b[4:]
	if n > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:n:n], b[n:], true
}

// appendSum appends the checksum of what dst holds from start on.
func appendSum(dst []byte, start int) []byte {
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// checkSum cuts the checksum off and reports whether it is right. A checksum
// alone is not enough: that of no bytes is zero, so callers look at the length.
func checkSum(b []byte) (rest []byte, ok bool) {
	rest, sum := b[:len(b)-sumSize], b[len(b)-sumSize:]
	return rest, crc32.Checksum(rest, castagnoli) == binary.BigEndian.Uint32(sum)
}
