package record_test

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"hash/crc32"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/session2/session2/internal/bounded"
	"github.com/session2/session2/internal/record"
)

func samples() []record.Record {
	return []record.Record{
		{ID: [16]byte{1, 2, 3}, Version: 4, Created: 5, User: "ada", Data: []byte("data"),
			Access: record.Access{Accessed: 6, Expires: 7}},
		{ID: [16]byte{15: 255}, Version: math.MaxUint64, Created: math.MinInt64, Data: []byte{},
			Access: record.Access{Accessed: -1, Expires: math.MaxInt64}},
		{User: strings.Repeat("ü\x00", 300), Data: make([]byte, 70000)},
	}
}

func encode(t testing.TB, r record.Record) []byte {
	t.Helper()
	b, err := record.Append([]byte("before"), &r)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(b), "before") {
		t.Fatal("Append did not append")
	}
	return b[len("before"):]
}

func TestRoundTrip(t *testing.T) {
	for _, want := range samples() {
		got, err := record.Decode(encode(t, want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Decode(Append(r)) = %+v, %v; want %+v", got, err, want)
		}
	}
}

// The form is stored: a change to it needs a new format number.
func TestFormatIsFixed(t *testing.T) {
	r := record.Record{ID: [16]byte{0: 0xaa, 15: 0xbb}, Version: 2, User: "u", Created: 3, Data: []byte("d"),
		Access: record.Access{Accessed: 4, Expires: 5}}
	access := "\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x05"
	body := "\x01\xaa\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xbb" +
		"\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x01u\x00\x00\x00\x01d"
	want := sum(access) + sum(access) + sum(body)
	if got := string(encode(t, r)); got != want {
		t.Errorf("encoding = %x, want %x", got, want)
	}
}

func sum(s string) string {
	return s + string(binary.BigEndian.AppendUint32(nil, crc32.Checksum([]byte(s), crc32.MakeTable(crc32.Castagnoli))))
}

func TestBodyDamageIsFound(t *testing.T) {
	b := encode(t, samples()[0])[record.HeadSize:]
	for i := range b {
		if _, err := record.DecodeBody(b[:i]); err == nil {
			t.Errorf("a body cut after %d of %d bytes is accepted", i, len(b))
		}
		for bit := range 8 {
			bad := append([]byte(nil), b...)
			bad[i] ^= 1 << bit
			_, err := record.DecodeBody(bad)
			if err == nil || errors.Is(err, record.ErrFormat) {
				t.Errorf("bit %d of byte %d flipped: error %v, want damage", bit, i, err)
			}
		}
	}
	if _, err := record.DecodeBody(append(b, 0)); err == nil {
		t.Error("a trailing byte is accepted")
	}
}

func TestLengthsAreChecked(t *testing.T) {
	fixed := "\x01" + strings.Repeat("x", 32)
	for name, body := range map[string]string{
		"user longer than input": fixed + "\xff\xff\xff\xff" + "\x00\x00\x00\x00",
		"user takes all":         fixed + "\x00\x00\x00\x04" + "\x00\x00\x00\x00",
		"data longer than input": fixed + "\x00\x00\x00\x00" + "\xff\xff\xff\xff",
		"data one too long":      fixed + "\x00\x00\x00\x00" + "\x00\x00\x00\x02d",
		"a byte after the data":  fixed + "\x00\x00\x00\x00" + "\x00\x00\x00\x01dd",
	} {
		if _, err := record.DecodeBody([]byte(sum(body))); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestUnknownFormat(t *testing.T) {
	body := sum("\x02 whatever a newer program writes, and long enough for a body")
	if _, err := record.DecodeBody([]byte(body)); !errors.Is(err, record.ErrFormat) {
		t.Errorf("format 2: error %v, want %v", err, record.ErrFormat)
	}
}

func TestTouch(t *testing.T) {
	r := record.Record{Access: record.Access{Accessed: 10, Expires: 100}}
	b := encode(t, r)
	for _, step := range []struct{ to, want record.Access }{
		{record.Access{Accessed: 11, Expires: 90}, record.Access{Accessed: 11, Expires: 100}},
		{record.Access{Accessed: 5, Expires: 101}, record.Access{Accessed: 11, Expires: 101}},
		{record.Access{Accessed: 12, Expires: 102}, record.Access{Accessed: 12, Expires: 102}},
	} {
		before, _ := record.DecodeHead(b)
		off, write, err := record.Touch(b[:record.HeadSize], step.to)
		if err != nil || len(write) != record.AccessSize {
			t.Fatalf("Touch(%v) = %d, %x, %v", step.to, off, write, err)
		}
		for n := range write { // torn after n bytes: the old access or the new one
			torn := append([]byte(nil), b...)
			copy(torn[off:], write[:n])
			if got, err := record.DecodeHead(torn); err != nil || got != before {
				t.Errorf("torn after %d bytes: %v, %v; want %v", n, got, err, before)
			}
		}
		copy(b[off:], write)
		if got, err := record.Decode(b); err != nil || got.Access != step.want {
			t.Errorf("after Touch(%v): %v, %v; want %v", step.to, got.Access, err, step.want)
		}
	}
	if _, write, err := record.Touch(b, record.Access{Accessed: 1, Expires: 1}); write != nil || err != nil {
		t.Errorf("Touch back writes %x, %v", write, err)
	}
}

func TestTouchRepairsATornAccess(t *testing.T) {
	for _, at := range []int{0, record.AccessSize} {
		b := encode(t, record.Record{Access: record.Access{Accessed: 10, Expires: 100}})
		b[at] ^= 1
		off, _, err := record.Touch(b, record.Access{Accessed: 11})
		if err != nil || off != int64(at) {
			t.Errorf("access at %d damaged: Touch writes at %d, %v", at, off, err)
		}
	}
}

func TestBothAccessesDamaged(t *testing.T) {
	b := encode(t, samples()[0])
	b[0] ^= 1
	b[record.AccessSize] ^= 1
	if _, err := record.Decode(b); err == nil {
		t.Error("a record without an intact access is accepted")
	}
	if _, _, err := record.Touch(b, record.Access{}); err == nil {
		t.Error("a record without an intact access is touched")
	}
}

func FuzzDecode(f *testing.F) {
	for _, r := range samples()[:2] {
		b := encode(f, r)
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r record.Record
		var err error
		bounded.Decode(t, len(b), func() { r, err = record.Decode(b) })
		if err != nil {
			return
		}
		again, err := record.Append(nil, &r)
		if err != nil {
			t.Fatal(err)
		}
		if string(again[record.HeadSize:]) != string(b[record.HeadSize:]) {
			t.Errorf("decoded body encodes as %x, was %x", again[record.HeadSize:], b[record.HeadSize:])
		}
		record.Touch(b, record.Access{Accessed: r.Accessed + 1})
	})
}

func FuzzDecodeBody(f *testing.F) {
	for _, r := range samples()[:2] {
		f.Add(encode(f, r)[record.HeadSize:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		// Most inputs die at the checksum: give them the right one as well.
		bounded.Decode(t, len(b), func() {
			record.DecodeBody(b)
			record.DecodeBody([]byte(sum(string(b))))
		})
	})
}

// A record says its size itself, and what is no record says none.
func TestSize(t *testing.T) {
	for _, r := range samples() {
		b := encode(t, r)
		for _, more := range []int{0, 1, 1 << 20} {
			long := append(b[:len(b):len(b)], make([]byte, more)...)
			if n, err := record.Size(bytes.NewReader(long), int64(len(long))); n != int64(len(b)) || err != nil {
				t.Errorf("a record of %d bytes, and %d more: Size returns %d, %v", len(b), more, n, err)
			}
		}
		later := append(b[:record.HeadSize:record.HeadSize], sum("\x02 whatever a newer program writes")...)
		if n, err := record.Size(bytes.NewReader(later), int64(len(later))); n != int64(len(later)) || err != nil {
			t.Errorf("format 2: Size returns %d, %v, want %d", n, err, len(later))
		}
		later = append(later, 0)
		if n, err := record.Size(bytes.NewReader(later), int64(len(later))); n != 0 || err != nil {
			t.Errorf("format 2, and one byte more: Size returns %d, %v, want 0", n, err)
		}
	}
	for _, none := range []int{0, record.HeadSize, record.HeadSize + 1, 1000} {
		if n, err := record.Size(bytes.NewReader(make([]byte, none)), int64(none)); n != 0 || err != nil {
			t.Errorf("%d zeros: Size returns %d, %v, want 0", none, n, err)
		}
	}
}

// What gob has written is whole, cut nowhere but between two messages, and nothing that
// claims more is.
func TestWholeGob(t *testing.T) {
	var b bytes.Buffer
	enc := gob.NewEncoder(&b)
	ends := map[int]bool{0: true}
	for _, v := range []any{1, strings.Repeat("x", 300), bytes.Repeat([]byte{1}, 70_000), map[string]int{"a": 1}} {
		before := b.Len()
		if err := enc.Encode(v); err != nil {
			t.Fatal(err)
		}
		if _, isMap := v.(map[string]int); !isMap { // whose type is a message of its own
			ends[b.Len()] = true
		} else if !record.WholeGob(b.Bytes()[:before]) {
			t.Error("not whole before the map")
		}
	}
	all := b.Bytes()
	if !record.WholeGob(all) {
		t.Error("what gob has written is not whole")
	}
	for n := range len(all) - 40 { // before the map
		if record.WholeGob(all[:n]) != ends[n] {
			t.Errorf("the first %d bytes of %d: whole %v", n, len(all), !ends[n])
		}
	}
	for _, claim := range []string{"\x05", "\xff", "\xfc\x00\xff\xff\xff", "\xf8\x7f\xff\xff\xff\xff\xff\xff\xff", "\x80", "\xf7"} {
		if record.WholeGob([]byte(claim)) {
			t.Errorf("%x is whole", claim)
		}
	}
}
