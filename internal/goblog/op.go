package goblog

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

// Kind says what an operation does.
type Kind uint8

// The kinds of operations, as they are in files.
const (
	Put    Kind = 1 // sets the record
	Touch  Kind = 2 // moves its times forward
	Delete Kind = 3 // removes it
	Lost   Kind = 4 // says that there is a record which cannot be read any more
)

// Op is one operation on the record ID. All fields but Kind and ID belong to
// Put, and the times but Created to Touch, too.
type Op struct {
	Kind                       Kind
	ID                         [16]byte
	Version                    uint64
	User                       string
	Created, Accessed, Expires int64 // microseconds since 1970
	Data                       []byte
}

var errNoOp = errors.New("not an operation")

// Encoder writes frames. Its zero value is ready to use, by one goroutine.
type Encoder struct {
	buf bytes.Buffer
	gob *gob.Encoder
}

// Append appends the frame of op to b, for the offset off of a file of
// generation g that was known to be durable up to the offset durable.
func (e *Encoder) Append(b []byte, g Generation, off, durable int64, op *Op) ([]byte, error) {
	if err := e.encode(op); err != nil {
		return b, err
	}
	h := head{kind: op.Kind, id: op.ID, size: int64(e.buf.Len())}
	h.back = uint32(min(off-durable, math.MaxUint32))
	if h.size > MaxPayload {
		return b, fmt.Errorf("%d bytes are more than a frame holds", h.size)
	}
	b = h.append(b, g, off)
	b = append(b, e.buf.Bytes()...)
	sum := crc32.Update(g.seed(off), castagnoli, e.buf.Bytes())
	return binary.LittleEndian.AppendUint32(b, sum), nil
}

// encode puts the payload of op into the buffer.
func (e *Encoder) encode(op *Op) error {
	if e.gob == nil || e.buf.Cap() > 1<<20 { // one huge record's buffer is not kept for ever
		e.buf = bytes.Buffer{}
		e.gob = gob.NewEncoder(&e.buf)
	}
	e.buf.Reset()
	values := [...]any{uint(op.Kind), op.ID[:], op.Accessed, op.Expires, op.Created, op.Version, op.User, op.Data}
	n, err := fields(op.Kind)
	for _, v := range values[:n] {
		if err == nil {
			err = e.gob.Encode(v)
		}
	}
	return err
}

// fields returns how many values an operation of this kind has, in the order
// in which encode writes them.
func fields(k Kind) (int, error) {
	switch k {
	case Put:
		return 8, nil
	case Touch:
		return 4, nil
	case Delete, Lost:
		return 2, nil
	}
	return 0, errNoOp
}

// Decoder reads payloads. Its zero value is ready to use, by one goroutine.
//
// All values are of gob's basic types, whose descriptions are built in: so no
// frame carries any, none leaves anything behind in the gob decoder that
// the next would need, and one decoder serves all of them.
type Decoder struct {
	r    bytes.Reader
	gob  *gob.Decoder
	kind uint
	id   []byte
}

// Decode reads a payload into op, which owns what it gets. Without data, the
// Data are left out.
func (d *Decoder) Decode(payload []byte, data bool, op *Op) error {
	if d.gob == nil {
		d.gob = gob.NewDecoder(&d.r)
	}
	d.r.Reset(payload)
	err := d.decode(data, op)
	if err != nil {
		d.gob = nil // whatever state it is in
	}
	d.r.Reset(nil)
	return err
}

func (d *Decoder) decode(data bool, op *Op) error {
	*op = Op{}
	if err := d.values(&d.kind, &d.id); err != nil {
		return err
	}
	n, err := fields(Kind(d.kind))
	if err != nil || d.kind > math.MaxUint8 || len(d.id) != len(op.ID) {
		return errNoOp
	}
	op.Kind, op.ID = Kind(d.kind), [16]byte(d.id)
	if n == 8 && !data {
		n = 7
	}
	rest := [...]any{&op.Accessed, &op.Expires, &op.Created, &op.Version, &op.User, &op.Data}
	return d.values(rest[:n-2]...)
}

func (d *Decoder) values(into ...any) error {
	for _, v := range into {
		if err := d.gob.Decode(v); err != nil {
			return err
		}
	}
	return nil
}

// DecodeFrame reads the frame at off of a file of generation g, which is all
// of b, and reports whether it is whole.
func (d *Decoder) DecodeFrame(b []byte, g Generation, off int64, op *Op) bool {
	p, ok := payload(b, g, off)
	return ok && d.Decode(p, true, op) == nil
}
