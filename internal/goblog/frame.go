package goblog

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The parts of a file; all numbers are little endian.
//
//	header   magic 8 | format 4 | generation 8 | checksum 4
//	frame    marker 3 | kind 1 | back 4 | length 4 | ID 16 | checksum 4 | payload | checksum 4
const (
	magic  = "s2goblog"
	format = 1

	// HeaderSize is the length of the file's header.
	HeaderSize = 24

	frameHead = 32
	frameTail = 4

	// MaxPayload is the most that one frame holds.
	MaxPayload = 256 << 20

	// MaxData is the most that the Data of an operation may have.
	MaxData = MaxPayload - 1<<20
)

var (
	marker     = []byte{0xf5, 's', '2'} // 0xf5 is in no UTF-8 text
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// Generation tells one file from every other that was or will be in its
// place. It is random and goes into every checksum together with the frame's
// offset, so that nothing but a frame that was written right there passes for
// one: neither what an earlier file left on the disk nor what a session's
// data, which a client may have chosen, imitate.
type Generation uint64

// NewGeneration draws a generation.
func NewGeneration() Generation {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return Generation(binary.LittleEndian.Uint64(b[:]))
}

// seed is where the checksums of the frame at off begin.
func (g Generation) seed(off int64) uint32 {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], uint64(g))
	binary.LittleEndian.PutUint64(b[8:], uint64(off))
	return crc32.Checksum(b[:], castagnoli)
}

// Header returns the header of a file of this generation.
func (g Generation) Header() []byte {
	b := make([]byte, 0, HeaderSize)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, format)
	b = binary.LittleEndian.AppendUint64(b, uint64(g))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// ParseHeader reads what Header returned. An error says what the file is
// instead.
func ParseHeader(b []byte) (Generation, error) {
	if len(b) < HeaderSize || string(b[:len(magic)]) != magic {
		return 0, errors.New("this is no log of sessions, or its header is damaged")
	}
	if sum := binary.LittleEndian.Uint32(b[20:]); sum != crc32.Checksum(b[:20], castagnoli) {
		return 0, errors.New("the header of the log is damaged")
	}
	if f := binary.LittleEndian.Uint32(b[8:]); f != format {
		return 0, fmt.Errorf("the log has format %d, of which only %d is known here", f, format)
	}
	return Generation(binary.LittleEndian.Uint64(b[12:])), nil
}

// head is a frame's header.
type head struct {
	kind Kind
	back uint32 // how far before this frame the file was known to be durable
	size int64  // of the payload
	id   [16]byte
}

// frameSize is the length of a whole frame.
func (h head) frameSize() int64 { return frameHead + h.size + frameTail }

// append appends the header of the frame at off to b.
func (h head) append(b []byte, g Generation, off int64) []byte {
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
func parseHead(b []byte, g Generation, off int64) (h head, ok bool) {
	if len(b) < frameHead || !bytes.HasPrefix(b, marker) {
		return head{}, false
	}
	sum := binary.LittleEndian.Uint32(b[frameHead-4:])
	if sum != crc32.Update(g.seed(off), castagnoli, b[:frameHead-4]) {
		return head{}, false
	}
	h.kind = Kind(b[3])
	h.back = binary.LittleEndian.Uint32(b[4:])
	h.size = int64(binary.LittleEndian.Uint32(b[8:]))
	copy(h.id[:], b[12:])
	return h, h.size <= MaxPayload
}

// payload returns the payload of the frame at off, which is all of b, if its
// checksum says that it is whole. It does not look at the frame's header.
func payload(b []byte, g Generation, off int64) (p []byte, ok bool) {
	if len(b) < frameHead+frameTail {
		return nil, false
	}
	p, sum := b[frameHead:len(b)-frameTail], binary.LittleEndian.Uint32(b[len(b)-frameTail:])
	return p, sum == crc32.Update(g.seed(off), castagnoli, p)
}
