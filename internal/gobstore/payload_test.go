package gobstore

import (
	"bytes"
	"encoding/gob"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/session2/session2/internal/record"
)

// byGob is the payload as package gob writes it, and as earlier releases did.
func byGob(t testing.TB, o *op) []byte {
	t.Helper()
	var buf bytes.Buffer
	enc := gob.NewEncoder(&buf)
	values := []any{uint(o.kind), o.ID[:], o.Accessed, o.Expires, o.Created, o.Version, o.User, o.Data}
	for _, v := range values[:fields(o.kind)] {
		if err := enc.Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	return buf.Bytes()
}

// Whatever the values, a payload is what package gob makes of them, and reads as that.
func TestPayloadIsGob(t *testing.T) {
	numbers := []int64{0, 1, -1, 63, 64, -64, -65, 127, 128, 255, 256, 1 << 31, -1 << 31, 1 << 55,
		math.MaxInt64, math.MinInt64}
	for range 200 {
		numbers = append(numbers, int64(rand.Uint64()>>rand.N(64))*(1-2*rand.Int64N(2)))
	}
	sizes := []int{0, 1, 123, 124, 125, 126, 127, 128, 129, 250, 255, 256, 70000}
	pick := func() int64 { return numbers[rand.N(len(numbers))] }
	for i := range 2000 {
		o := op{[]kind{put, touch, del, lost}[i%4], record.Record{ID: [16]byte{byte(i), 15: byte(i >> 8)}}}
		if o.kind == put || o.kind == touch {
			o.Access = record.Access{Accessed: pick(), Expires: pick()}
		}
		if o.kind == put {
			o.Created, o.Version = pick(), uint64(pick())
			o.User = strings.Repeat("u", sizes[i%len(sizes)])
			if n := sizes[rand.N(len(sizes))]; n > 0 {
				o.Data = bytes.Repeat([]byte{byte(i)}, n)
			}
		}
		want := byGob(t, &o)
		got := appendPayload(nil, &o)
		if !bytes.Equal(got, want) {
			t.Fatalf("payload of %+v:\n%x, want\n%x", o, got, want)
		}
		if room := payloadRoom + len(o.User) + len(o.Data); len(got) > room {
			t.Errorf("a payload of %d bytes, want at most %d", len(got), room)
		}
		var back op
		if !back.decode(want, true) || !reflect.DeepEqual(back, o) {
			t.Fatalf("decoded %+v, want %+v", back, o)
		}
		for n := range min(len(want), 150) { // no part of it is one
			if back := (op{}); back.decode(want[:n], true) {
				t.Fatalf("%d of %d bytes pass for a payload: %+v", n, len(want), back)
			}
		}
	}
}
