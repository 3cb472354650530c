package redisstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/session2/session2"
)

// A record is one string:
//
//	format    1 byte, 1
//	accessed  8 bytes, an instant
//	expires   8 bytes, likewise
//	CRC-32C   4 bytes, of the format and of all that follows
//	version   8 bytes
//	created   8 bytes, an instant
//	user      2 bytes of length, then that many
//	data      the rest
//
// Numbers are big-endian. An instant is the microseconds since 1970 with the sign bit turned
// over, so that instants compare as bytes do. A Touch writes the two instants at the beginning,
// which the checksum leaves out, and nothing else.
const (
	format    = 1
	atSum     = 1 + 8 + 8
	atVersion = atSum + 4
	atUser    = atVersion + 8 + 8
	fixedSize = atUser + 2

	maxUser  = 1024
	maxValue = 512 << 20 // what a string of Redis can hold
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode returns a record's value, which shares no memory with it.
func encode(rec *session2.Record) ([]byte, error) {
	switch {
	case rec.Version == 0:
		return nil, errors.New("a stored record's version is never zero")
	case len(rec.User) > maxUser:
		return nil, fmt.Errorf("%w: the user's name exceeds %d bytes", session2.ErrTooLarge, maxUser)
	case len(rec.Data) > maxValue-fixedSize-maxUser:
		return nil, fmt.Errorf("%w: a value of Redis has at most %d bytes", session2.ErrTooLarge, maxValue)
	}
	b := make([]byte, 0, fixedSize+len(rec.User)+len(rec.Data))
	b = append(b, format)
	b = append(b, instant(rec.Accessed)...)
	b = append(b, instant(rec.Expires)...)
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(rec.Version))
	b = append(b, instant(rec.Created)...)
	b = append(b, owner(rec.User)...)
	b = append(b, rec.Data...)
	binary.BigEndian.PutUint32(b[atSum:], checksum(b))
	return b, nil
}

// decode reads a value. The record's Data are a copy.
func decode(id session2.ID, b []byte) (session2.Record, error) {
	switch {
	case len(b) < fixedSize:
		return session2.Record{}, corrupt("it is too short")
	case binary.BigEndian.Uint32(b[atSum:]) != checksum(b):
		return session2.Record{}, corrupt("its checksum is wrong")
	case b[0] != format:
		return session2.Record{}, corrupt(fmt.Sprintf("its format is %d", b[0]))
	}
	rest := b[fixedSize:]
	size := int(binary.BigEndian.Uint16(b[atUser:]))
	version := session2.Version(binary.BigEndian.Uint64(b[atVersion:]))
	if size > len(rest) || version == 0 {
		return session2.Record{}, corrupt("its fields are wrong")
	}
	return session2.Record{
		ID: id, Version: version, User: string(rest[:size]), Created: timeOf(b[atVersion+8:]),
		Accessed: timeOf(b[1:]), Expires: timeOf(b[9:]), Data: append([]byte{}, rest[size:]...),
	}, nil
}

func corrupt(why string) error { return fmt.Errorf("%w: %s", session2.ErrCorrupt, why) }

// checksum is of all but the instants that a Touch writes, and itself.
func checksum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:1], castagnoli), castagnoli, b[atVersion:])
}

// owner is a user as values and the index by user have it.
func owner(user string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(user))), user...)
}

func bigEndian(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// instant is a time as values have it.
func instant(t time.Time) []byte { return bigEndian(uint64(t.UnixMicro()) ^ 1<<63) }

func timeOf(b []byte) time.Time {
	return time.UnixMicro(int64(binary.BigEndian.Uint64(b) ^ 1<<63)).UTC()
}

// score is where an index by time has a record: its time in milliseconds, rounded down. A
// score is a double, which does not hold the microseconds of far years.
func score(t time.Time) int64 { return t.UnixMilli() }
