package gobstore

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"

	"github.com/session2/session2/internal/record"
)

const (
	magic  = "s2goblog"
	format = 1

	headerSize = 24 // of the file
	frameHead  = 32
	frameTail  = 4

	maxPayload = 256 << 20
	maxData    = maxPayload - 1<<20 // leaves room for the other values
)

var (
	marker     = []byte{0xf5, 's', '2'} // 0xf5 is in no UTF-8 text
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// generation tells one file from every other that was or will be in its
// place. It is random and goes into every checksum together with the frame's
// offset, so that nothing but a frame that was written right there passes for
// one: neither what an earlier file left on the disk nor what a session's
// data, which a client may have chosen, imitate.
type generation uint64

func newGeneration() generation {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return generation(binary.LittleEndian.Uint64(b[:]))
}

// seed is where the checksums of the frame at off begin.
func (g generation) seed(off int64) uint32 {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], uint64(g))
	binary.LittleEndian.PutUint64(b[8:], uint64(off))
	sum := ^uint32(0)
	for _, x := range b { // crc32.Checksum, which would have b on the heap
		sum = castagnoli[byte(sum)^x] ^ sum>>8
	}
	return ^sum
}

// header returns the header of a file of this generation.
func (g generation) header() []byte {
	b := make([]byte, 0, headerSize)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, format)
	b = binary.LittleEndian.AppendUint64(b, uint64(g))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// parseHeader reads what header returned. An error says what the file is
// instead.
func parseHeader(b []byte) (generation, error) {
	if len(b) < headerSize || string(b[:len(magic)]) != magic {
		return 0, errors.New("this is no log of sessions, or its header is damaged")
	}
	if sum := binary.LittleEndian.Uint32(b[20:]); sum != crc32.Checksum(b[:20], castagnoli) {
		return 0, errors.New("the header of the log is damaged")
	}
	if f := binary.LittleEndian.Uint32(b[8:]); f != format {
		return 0, fmt.Errorf("the log has format %d, of which only %d is known here", f, format)
	}
	return generation(binary.LittleEndian.Uint64(b[12:])), nil
}

// kind says what an operation does.
type kind uint8

// The kinds of operations, as they are in files.
const (
	put   kind = 1 // sets the record
	touch kind = 2 // moves its times forward
	del   kind = 3 // removes it
	lost  kind = 4 // says that there is a record which cannot be read any more
)

// op is an operation on the record of its ID. Only a put has all of the record's
// fields; a touch has the times but Created, too.
type op struct {
	kind kind
	record.Record
}

// appendFrame appends the frame of o to b, for the offset off of a file of
// generation g that was known to be durable up to the offset durable.
func appendFrame(b []byte, g generation, off, durable int64, o *op) []byte {
	from := len(b)
	b = slices.Grow(b, frameHead+payloadRoom+len(o.User)+len(o.Data)+frameTail)
	b = appendPayload(b[:from+frameHead], o)
	payload := b[from+frameHead:]
	h := head{kind: o.kind, id: o.ID, size: int64(len(payload)), back: uint32(min(off-durable, math.MaxUint32))}
	h.append(b[:from], g, off)
	return binary.LittleEndian.AppendUint32(b, crc32.Update(g.seed(off), castagnoli, payload))
}

// head is a frame's header.
type head struct {
	kind kind
	back uint32 // how far before this frame the file was known to be durable
	size int64  // of the payload
	id   [16]byte
}

// frameSize is the length of a whole frame.
func (h head) frameSize() int64 { return frameHead + h.size + frameTail }

// append appends the header of the frame at off to b.
func (h head) append(b []byte, g generation, off int64) []byte {
	from := len(b)
	b = append(b, marker...)
	b = append(b, byte(h.kind))
	b = binary.LittleEndian.AppendUint32(b, h.back)
	b = binary.LittleEndian.AppendUint32(b, uint32(h.size))
	b = append(b, h.id[:]...)
	return binary.LittleEndian.AppendUint32(b, crc32.Update(g.seed(off), castagnoli, b[from:]))
}

// parseHead reads the header of the frame at off, the beginning of b, and
// reports whether there is one.
func parseHead(b []byte, g generation, off int64) (h head, ok bool) {
	if len(b) < frameHead || !bytes.HasPrefix(b, marker) {
		return head{}, false
	}
	sum := binary.LittleEndian.Uint32(b[frameHead-4:])
	if sum != crc32.Update(g.seed(off), castagnoli, b[:frameHead-4]) {
		return head{}, false
	}
	h.kind = kind(b[3])
	h.back = binary.LittleEndian.Uint32(b[4:])
	h.size = int64(binary.LittleEndian.Uint32(b[8:]))
	copy(h.id[:], b[12:])
	return h, h.size <= maxPayload
}

// payload returns the payload of the frame at off, which is all of b, if its
// checksum says that it is whole. It does not look at the frame's header.
func payload(b []byte, g generation, off int64) (p []byte, ok bool) {
	if len(b) < frameHead+frameTail {
		return nil, false
	}
	p, sum := b[frameHead:len(b)-frameTail], binary.LittleEndian.Uint32(b[len(b)-frameTail:])
	return p, sum == crc32.Update(g.seed(off), castagnoli, p)
}

// decodeFrame reads the frame at off of a file of generation g, which is all of b,
// and reports whether its payload is whole. The Data are part of b, and without data
// they are left out.
func decodeFrame(b []byte, g generation, off int64, data bool, o *op) bool {
	*o = op{}
	p, ok := payload(b, g, off)
	if ok && o.decode(p, data) {
		return true
	}
	*o = op{}
	return false
}
