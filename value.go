package session2

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/session2/session2/internal/record"
)

// Codec encodes the values that are of no basic kind (see [Session.Set]).
// Implementations must be safe for concurrent use. Marshal is given an *any with what
// came to Session.Set or Session.Flash, and a T with what came to a [Key]; Unmarshal is
// given an *any or a *T to decode into. It must not keep data, and must return an error
// for data it did not write: what Gob and JSON wrote never comes to another codec, but
// what one codec of the application wrote may come to the next.
type Codec interface {
	Marshal(v any) ([]byte, error)
	Unmarshal(data []byte, v any) error
}

// Gob is the default codec, encoding/gob. A value given to [Session.Set] must have its
// type registered with [gob.Register]; one set through a [Key] need not. After such a
// type was renamed, [gob.RegisterName] under its former name lets the values that are
// stored be read.
type Gob struct{}

// Marshal implements Codec.
func (Gob) Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(v)
	return b.Bytes(), err
}

// Unmarshal implements Codec.
func (Gob) Unmarshal(data []byte, v any) error {
	if !record.WholeGob(data) {
		return errValue
	}
	return gob.NewDecoder(bytes.NewReader(data)).Decode(v)
}

// JSON is the codec encoding/json: readable by other languages, and without
// registration. What [Session.Set] was given, if it is of no basic kind, comes back from
// [Session.Get] as JSON's own types (map[string]any, []any, float64); a [Key] keeps the
// type.
type JSON struct{}

// Marshal implements Codec.
func (JSON) Marshal(v any) ([]byte, error) { return json.Marshal(v) }

// Unmarshal implements Codec.
func (JSON) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

// An encoded value starts with its kind. Basic kinds have an encoding of their
// own; the two others are followed by the codec's mark and what it wrote.
const (
	kindNil byte = iota
	kindFalse
	kindTrue
	kindString
	kindBytes
	kindTime
	kindDuration
	kindInt
	kindInt8
	kindInt16
	kindInt32
	kindInt64
	kindUint
	kindUint8
	kindUint16
	kindUint32
	kindUint64
	kindFloat32
	kindFloat64
	kindAny   // from Set: the codec wrote the type with the value, if it can
	kindTyped // from a Key: whoever reads it names the type
)

// codecMark tells codecs apart, so that no codec reads what another wrote.
func codecMark(c Codec) byte {
	switch c.(type) {
	case Gob, *Gob:
		return 'g'
	case JSON, *JSON:
		return 'j'
	}
	return 'c'
}

// appendBasic appends the encoding of a value of a basic kind.
func appendBasic(b []byte, v any) ([]byte, bool) {
	switch v := v.(type) {
	case nil:
		return append(b, kindNil), true
	case bool:
		return append(b, kindFalse+boolByte(v)), true
	case string:
		return append(append(b, kindString), v...), true
	case []byte:
		return append(append(b, kindBytes), v...), true
	case time.Time:
		with, err := v.AppendBinary(append(b, kindTime))
		return with, err == nil
	case time.Duration:
		return appendInt(b, kindDuration, int64(v)), true
	case float32:
		return binary.BigEndian.AppendUint32(append(b, kindFloat32), math.Float32bits(v)), true
	case float64:
		return binary.BigEndian.AppendUint64(append(b, kindFloat64), math.Float64bits(v)), true
	}
	return appendInteger(b, v)
}

func appendInteger(b []byte, v any) ([]byte, bool) {
	switch v := v.(type) {
	case int:
		return appendInt(b, kindInt, int64(v)), true
	case int8:
		return appendInt(b, kindInt8, int64(v)), true
	case int16:
		return appendInt(b, kindInt16, int64(v)), true
	case int32:
		return appendInt(b, kindInt32, int64(v)), true
	case int64:
		return appendInt(b, kindInt64, v), true
	case uint:
		return appendUint(b, kindUint, uint64(v)), true
	case uint8:
		return appendUint(b, kindUint8, uint64(v)), true
	case uint16:
		return appendUint(b, kindUint16, uint64(v)), true
	case uint32:
		return appendUint(b, kindUint32, uint64(v)), true
	case uint64:
		return appendUint(b, kindUint64, v), true
	}
	return b, false
}

func appendInt(b []byte, kind byte, v int64) []byte { return binary.AppendVarint(append(b, kind), v) }
func appendUint(b []byte, kind byte, v uint64) []byte {
	return binary.AppendUvarint(append(b, kind), v)
}

// basicSize is how much room the encoding of most values takes, if they are of a basic
// kind.
func basicSize(v any) int {
	switch v := v.(type) {
	case string:
		return 1 + len(v)
	case []byte:
		return 1 + len(v)
	}
	return 16
}

// keyed returns a value whose key is written, and that has room for size bytes more.
func keyed(key string, size int) value {
	return value{append(make([]byte, 0, len(key)+size), key...), len(key)}
}

// encodeBasic encodes a value of a basic kind.
func encodeBasic(key string, v any) (e value, ok bool) {
	e = keyed(key, basicSize(v))
	e.both, ok = appendBasic(e.both, v)
	return e, ok
}

// encodeAny encodes what Set was given.
func encodeAny(c Codec, key string, v any) (value, error) {
	if e, ok := encodeBasic(key, v); ok {
		return e, nil
	}
	b, err := marshal(c, v)
	if err != nil {
		return value{}, encodeError(c, v, err, "gob.Register its type; a Key of that type itself needs no registration")
	}
	return tagged(key, kindAny, c, b), nil
}

// marshal gives c a pointer to the interface: gob then writes the type's name. It is by
// itself so that the basic kinds do not pay for a v whose address is taken.
func marshal(c Codec, v any) ([]byte, error) { return c.Marshal(&v) }

// encodeError says which type could not be encoded, and what gob would need.
func encodeError(c Codec, v any, err error, hint string) error {
	what := fmt.Sprintf("a %T cannot be encoded", v)
	if codecMark(c) == 'g' {
		what += ": " + gobNeeds(strings.TrimPrefix(fmt.Sprintf("%T", v), "*"), err, hint)
	}
	return &valueError{what, err}
}

// gobNeeds explains an error of gob for a value of a type: hint, if it is that type which is
// not registered.
func gobNeeds(typ string, err error, hint string) string {
	_, missing, unregistered := strings.Cut(err.Error(), "type not registered for interface: ")
	switch {
	case !unregistered, strings.HasPrefix(missing, "func("), strings.HasPrefix(missing, "chan "),
		strings.HasPrefix(missing, "<-chan "):
		return "gob takes no type without exported fields, no func or chan, " +
			"and no nil pointer by itself or in a slice or map"
	case missing != typ:
		return "it holds a " + missing + " in an interface: gob.Register that type"
	}
	return hint
}

// encodeTyped encodes what a Key was given: by its type alone, which the
// reader will name again.
func encodeTyped[T any](c Codec, key string, v T) (value, error) {
	if e, ok := encodeBasic(key, any(v)); ok {
		return e, nil
	}
	switch r := reflect.ValueOf(&v).Elem(); {
	case r.Kind() == reflect.Interface:
		return encodeAny(c, key, v)
	case nilable(r.Kind()) && r.IsNil():
		return encodeAny(c, key, nil) // which gob has no way to say
	}
	b, err := c.Marshal(v)
	if err != nil {
		return value{}, encodeError(c, v, err,
			"it needs exported fields, and gob.Register for what an interface in it holds")
	}
	return tagged(key, kindTyped, c, b), nil
}

// nilable reports whether a nil of that kind is stored as nil.
func nilable(k reflect.Kind) bool {
	return k == reflect.Pointer || k == reflect.Map || k == reflect.Slice || k == reflect.Interface
}

func tagged(key string, kind byte, c Codec, b []byte) value {
	e := keyed(key, 2+len(b))
	e.both = append(append(e.both, kind, codecMark(c)), b...)
	return e
}

// badValue says why a value cannot be decoded, and shows nothing of it.
type badValue string

func (e badValue) Error() string { return string(e) }

const errValue badValue = "it is malformed"

// untag returns a copy of what codec c wrote into an encoded value: the value itself may
// be the store's, and codecs are the application's.
func untag(c Codec, b []byte) ([]byte, error) {
	if len(b) < 2 {
		return nil, errValue
	}
	if b[1] != codecMark(c) {
		return nil, badValue("another Config.Codec wrote it")
	}
	return bytes.Clone(b[2:]), nil
}

// decodeAny decodes a value whose reader does not name a type.
func decodeAny(c Codec, b []byte) (any, error) {
	if len(b) == 0 {
		return nil, errValue
	}
	if b[0] < kindAny {
		v, err := decodeBasic(b[0], b[1:])
		if err != nil {
			return nil, err
		}
		return v, nil
	}
	if b[0] > kindTyped {
		return nil, badValue(fmt.Sprintf("its kind %d is unknown", b[0]))
	}
	data, err := untag(c, b)
	if err != nil {
		return nil, err
	}
	var v any
	if err := c.Unmarshal(data, &v); err != nil {
		return nil, err
	}
	return v, nil
}

// decodeTyped decodes a value whose reader expects a T.
func decodeTyped[T any](c Codec, b []byte) (v T, err error) {
	self := len(b) > 1 && b[0] == kindAny && b[1] != 'g' // of these, gob alone wrote the type as well
	if len(b) > 0 && b[0] == kindTyped || self {
		return unmarshalTyped[T](c, b)
	}
	got, err := decodeAny(c, b)
	if err != nil {
		return v, err
	}
	if v, ok := got.(T); ok || got == nil && nilable(reflect.TypeFor[T]().Kind()) {
		return v, nil
	}
	return v, badValue(fmt.Sprintf("its type is %T", got))
}

// unmarshalTyped is by itself so that the basic kinds do not pay for a T whose
// address is taken.
func unmarshalTyped[T any](c Codec, b []byte) (v T, err error) {
	data, err := untag(c, b)
	if err != nil {
		return v, err
	}
	err = c.Unmarshal(data, &v)
	return v, err
}

func decodeBasic(kind byte, b []byte) (any, error) {
	switch kind {
	case kindNil, kindFalse, kindTrue:
		if len(b) != 0 {
			return nil, errValue
		}
		if kind == kindNil {
			return nil, nil
		}
		return kind == kindTrue, nil
	case kindString:
		return string(b), nil
	case kindBytes:
		return bytes.Clone(b), nil
	case kindTime:
		var t time.Time
		err := t.UnmarshalBinary(b)
		return t, err
	case kindFloat32, kindFloat64:
		return decodeFloat(kind, b)
	case kindUint, kindUint8, kindUint16, kindUint32, kindUint64:
		return decodeUint(kind, b)
	}
	return decodeInt(kind, b)
}

func decodeFloat(kind byte, b []byte) (any, error) {
	switch {
	case kind == kindFloat32 && len(b) == 4:
		return math.Float32frombits(binary.BigEndian.Uint32(b)), nil
	case kind == kindFloat64 && len(b) == 8:
		return math.Float64frombits(binary.BigEndian.Uint64(b)), nil
	}
	return nil, errValue
}

func decodeInt(kind byte, b []byte) (any, error) {
	v, n := binary.Varint(b)
	if n != len(b) || n <= 0 {
		return nil, errValue
	}
	switch kind {
	case kindDuration:
		return time.Duration(v), nil
	case kindInt:
		return int(v), fits(int64(int(v)) == v)
	case kindInt8:
		return int8(v), fits(int64(int8(v)) == v)
	case kindInt16:
		return int16(v), fits(int64(int16(v)) == v)
	case kindInt32:
		return int32(v), fits(int64(int32(v)) == v)
	}
	return v, nil
}

func decodeUint(kind byte, b []byte) (any, error) {
	v, n := binary.Uvarint(b)
	if n != len(b) || n <= 0 {
		return nil, errValue
	}
	switch kind {
	case kindUint:
		return uint(v), fits(uint64(uint(v)) == v)
	case kindUint8:
		return uint8(v), fits(uint64(uint8(v)) == v)
	case kindUint16:
		return uint16(v), fits(uint64(uint16(v)) == v)
	case kindUint32:
		return uint32(v), fits(uint64(uint32(v)) == v)
	}
	return v, nil
}

// fits is the answer to a number that its type cannot hold, such as an int
// written by a 64-bit machine and read by a 32-bit one.
func fits(ok bool) error {
	if ok {
		return nil
	}
	return errValue
}
