package gobstore

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// A payload is gob values of basic types, byte for byte as package encoding/gob
// writes them one after the other, each in a message of its own:
//
//	length of what follows | type | 0 | value
//
// The descriptions of these types are built into gob, so no payload carries any and
// none depends on another. Reading and writing them here takes a tenth of the time,
// and no memory. Lengths and numbers are gob's unsigned integers: a byte up to 127, or
// else the negated number of bytes that follow, the first of them the highest.

// The types, as gob numbers and encodes them.
const (
	gobInt    = 2 << 1
	gobUint   = 3 << 1
	gobBytes  = 5 << 1
	gobString = 6 << 1
)

const typeSize = 2 // of a type, and the 0 behind it

// fields returns how many values an operation of this kind has, in the order
// in which appendPayload writes them, or 0 if there is no such kind.
func fields(k kind) int {
	switch k {
	case put:
		return 8
	case touch:
		return 4
	case del, lost:
		return 2
	}
	return 0
}

// appendPayload appends the payload of o to b.
func appendPayload(b []byte, o *op) []byte {
	n := fields(o.kind)
	b = appendNumber(b, gobUint, uint64(o.kind))
	b = appendText(b, gobBytes, o.ID[:])
	if n > 2 {
		b = appendNumber(b, gobInt, fromInt(o.Accessed))
		b = appendNumber(b, gobInt, fromInt(o.Expires))
	}
	if n > 4 {
		b = appendNumber(b, gobInt, fromInt(o.Created))
		b = appendNumber(b, gobUint, o.Version)
		b = appendText(b, gobString, o.User)
		b = appendText(b, gobBytes, o.Data)
	}
	return b
}

// payloadRoom is more than what a payload takes beside the user and the data.
const payloadRoom = 128

func appendNumber(b []byte, typ byte, x uint64) []byte {
	b = append(b, byte(typeSize+uintSize(x)), typ, 0)
	return appendUint(b, x)
}

func appendText[T string | []byte](b []byte, typ byte, text T) []byte {
	n := uint64(len(text))
	b = appendUint(b, typeSize+uint64(uintSize(n))+n)
	b = append(b, typ, 0)
	return append(appendUint(b, n), text...)
}

func uintSize(x uint64) int {
	if x <= math.MaxInt8 {
		return 1
	}
	return 1 + (bits.Len64(x)+7)/8
}

func appendUint(b []byte, x uint64) []byte {
	n := uintSize(x) - 1
	if n == 0 {
		return append(b, byte(x))
	}
	b = append(b, byte(-n))
	var all [8]byte
	binary.BigEndian.PutUint64(all[:], x)
	return append(b, all[8-n:]...)
}

// fromInt returns gob's unsigned form of a number, and toInt is its inverse.
func fromInt(i int64) uint64 { return uint64(i<<1 ^ i>>63) }
func toInt(x uint64) int64   { return int64(x>>1) ^ -int64(x&1) }

// decode reads a payload and reports whether it is one. The Data are part of p, and
// without data they are left out.
func (o *op) decode(p []byte, data bool) bool {
	v := values{rest: p}
	k, id := v.number(gobUint), v.text(gobBytes)
	if v.bad || k > math.MaxUint8 || len(id) != len(o.ID) {
		return false
	}
	o.kind, o.ID = kind(k), [16]byte(id)
	n := fields(o.kind)
	if n > 2 {
		o.Accessed, o.Expires = toInt(v.number(gobInt)), toInt(v.number(gobInt))
	}
	if n > 4 {
		o.Created, o.Version = toInt(v.number(gobInt)), v.number(gobUint)
		o.User = string(v.text(gobString))
		if data {
			o.Data = v.text(gobBytes)
		}
	}
	return n > 0 && !v.bad
}

// values reads a payload, one value after the other. Once one is bad, all are zero.
type values struct {
	rest []byte
	bad  bool
}

func (v *values) number(typ byte) uint64 {
	m := values{rest: v.message(typ)}
	x := m.uint()
	v.bad = v.bad || m.bad || len(m.rest) > 0
	return x
}

// text returns a part of the payload, or nil if there are no bytes.
func (v *values) text(typ byte) []byte {
	m := values{rest: v.message(typ)}
	n := m.uint()
	if v.bad = v.bad || m.bad || n != uint64(len(m.rest)); v.bad || n == 0 {
		return nil
	}
	return m.rest[:n:n]
}

// message cuts off a message and returns its value.
func (v *values) message(typ byte) []byte {
	n := v.uint()
	if v.bad = v.bad || n < typeSize || n > uint64(len(v.rest)); v.bad {
		return nil
	}
	m := v.rest[:n]
	v.rest = v.rest[n:]
	v.bad = m[0] != typ || m[1] != 0
	return m[typeSize:]
}

func (v *values) uint() (x uint64) {
	if v.bad = v.bad || len(v.rest) == 0; v.bad {
		return 0
	}
	first := v.rest[0]
	v.rest = v.rest[1:]
	if first <= math.MaxInt8 {
		return uint64(first)
	}
	n := -int(int8(first))
	if v.bad = n > 8 || n > len(v.rest); v.bad {
		return 0
	}
	for _, b := range v.rest[:n] {
		x = x<<8 | uint64(b)
	}
	v.rest = v.rest[n:]
	return x
}
