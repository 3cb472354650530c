package gobstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"reflect"
	"testing"

	"github.com/session2/session2/internal/bounded"
	"github.com/session2/session2/internal/record"
)

var testOps = []op{
	{put, record.Record{ID: [16]byte{1}, Version: 1 << 63, User: "ada", Created: 1, Data: []byte("data"),
		Access: record.Access{Accessed: -2, Expires: 1 << 60}}},
	{touch, record.Record{ID: [16]byte{1}, Access: record.Access{Accessed: 5, Expires: 6}}},
	{put, record.Record{ID: [16]byte{2}, Version: 3}},
	{lost, record.Record{ID: [16]byte{3}}},
	{del, record.Record{ID: [16]byte{2}}},
}

// testLog returns a log with ops, and where its frames begin.
func testLog(t testing.TB, g generation, ops []op) (b []byte, offs []int64) {
	t.Helper()
	b = g.header()
	for i := range ops {
		off := int64(len(b))
		offs = append(offs, off)
		b = appendFrame(b, g, off, off, &ops[i])
	}
	return b, offs
}

// scan returns what is found in a log, and the error at its end.
func scan(b []byte, g generation) (all []frame, err error) {
	s := newScanner(bytes.NewReader(b), g, headerSize, int64(len(b)))
	for {
		e, err := s.next()
		if err != nil {
			return all, err
		}
		all = append(all, e)
	}
}

func TestRoundTrip(t *testing.T) {
	g := newGeneration()
	b, offs := testLog(t, g, testOps)
	if got, err := parseHeader(b); err != nil || got != g {
		t.Fatalf("parseHeader: %x, %v, want %x", got, err, g)
	}
	all, err := scan(b, g)
	if err != io.EOF || len(all) != len(testOps) {
		t.Fatalf("found %d frames, %v, want %d", len(all), err, len(testOps))
	}
	for i, e := range all {
		var o op
		whole := decodeFrame(b[e.off:e.off+e.len], g, e.off, true, &o)
		if !whole || e.off != offs[i] || e.damage != "" || !e.whole || !reflect.DeepEqual(o, testOps[i]) {
			t.Errorf("frame %d: %+v at %d, %v, want %+v at %d", i, o, e.off, whole, testOps[i], offs[i])
		}
	}
}

// What a client puts into its session must never pass for a frame.
func TestImitatedFrame(t *testing.T) {
	g := newGeneration()
	forged, _ := testLog(t, newGeneration(), []op{{del, record.Record{ID: [16]byte{9}}}})
	b, offs := testLog(t, g, []op{
		{put, record.Record{ID: [16]byte{1}, Version: 1, Data: forged}},
		{lost, record.Record{ID: [16]byte{2}}},
	})
	b[offs[0]+5] ^= 1 // so that the scanner searches through the data
	all, err := scan(b, g)
	if err != io.EOF || len(all) != 2 || all[0].ID != [16]byte{1} || !all[0].whole || all[1].ID != [16]byte{2} {
		t.Errorf("found %+v, %v, want records 1 and 2", all, err)
	}
}

func TestParseHeaderOfAnotherFormat(t *testing.T) {
	b := newGeneration().header()
	b[8] = 2
	binary.LittleEndian.PutUint32(b[20:], crc32.Checksum(b[:20], castagnoli))
	if _, err := parseHeader(b); err == nil {
		t.Error("a format of the future was accepted")
	}
}

// FuzzGobLog puts any bytes behind a good log, as they are and as the payload
// of a frame with good checksums: what was good before is still found.
func FuzzGobLog(f *testing.F) {
	const g = generation(0x1122334455667788)
	good, offs := testLog(f, g, testOps)
	f.Add([]byte{})
	f.Add(good)
	f.Add(good[:offs[1]+7])
	f.Add(good[offs[0]+frameHead : offs[1]-frameTail])
	damaged := bytes.Clone(good)
	damaged[offs[2]+1] ^= 1
	f.Add(damaged)
	f.Fuzz(func(t *testing.T, junk []byte) {
		check := func(b []byte) {
			var all []frame
			var err error
			bounded.Decode(t, len(b), func() { all, err = scan(b, g) })
			if err != io.EOF && !errors.Is(err, errTorn) {
				t.Fatalf("the scan ended with %v", err)
			}
			if len(all) < len(testOps) {
				t.Fatalf("found %d frames, want at least %d", len(all), len(testOps))
			}
			for i := range testOps {
				if e := all[i]; e.damage != "" || e.off != offs[i] || e.ID != testOps[i].ID {
					t.Fatalf("frame %d is %+v", i, e)
				}
			}
		}
		check(append(bytes.Clone(good), junk...))
		off := int64(len(good))
		b := head{kind: put, size: int64(len(junk))}.append(bytes.Clone(good), g, off)
		b = append(b, junk...)
		b = binary.LittleEndian.AppendUint32(b, crc32.Update(g.seed(off), castagnoli, junk))
		frame := b[off:]
		check(b)
		bounded.Decode(t, len(frame), func() { decodeFrame(frame, g, off, true, new(op)) })
	})
}
