package redisstore_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
	redisstore "github.com/session2/session2/stores/redis"
)

// record returns a record of alice's.
func record(n byte) session2.Record {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return session2.Record{
		ID: session2.ID{n, 15: n}, Version: 1<<63 + 1, User: "alice",
		Created: now, Accessed: now, Expires: now.Add(time.Hour), Data: []byte("data"),
	}
}

// TestGoldenValue reads and writes what the first release wrote.
func TestGoldenValue(t *testing.T) {
	const golden = "01" + "8006162f3d8ff001" + "800616300024ac01" + "3beb7de6" + "0123456789abcdef" +
		"8000000000000001" + "0005" + "616c696365" + "00ff"
	rec := session2.Record{
		ID: session2.ID{1}, Version: 0x0123456789abcdef, User: "alice", Created: time.UnixMicro(1).UTC(),
		Accessed: time.UnixMicro(0x6162f3d8ff001).UTC(), Expires: time.UnixMicro(0x616300024ac01).UTC(),
		Data: []byte{0, 0xff},
	}
	b, err := redisstore.Encode(&rec)
	testsite.Must(t, err)
	if got := hex.EncodeToString(b); got != golden {
		t.Errorf("got  %s\nwant %s", got, golden)
	}
	b, err = hex.DecodeString(golden)
	testsite.Must(t, err)
	if got, err := redisstore.Decode(rec.ID, b); err != nil || !reflect.DeepEqual(got, rec) {
		t.Errorf("got %+v, %v, want %+v", got, err, rec)
	}
}

// TestDamagedValue turns over each bit of a value, and cuts it short at each byte. What Touch
// writes has no checksum: a damaged time is a time.
func TestDamagedValue(t *testing.T) {
	rec := record(1)
	b, err := redisstore.Encode(&rec)
	testsite.Must(t, err)
	for i := range len(b) * 8 {
		if at := i / 8; at >= 1 && at < 17 {
			continue
		}
		damaged := bytes.Clone(b)
		damaged[i/8] ^= 1 << (i % 8)
		if _, err := redisstore.Decode(rec.ID, damaged); !errors.Is(err, session2.ErrCorrupt) {
			t.Errorf("bit %d turned over: got %v, want %v", i, err, session2.ErrCorrupt)
		}
	}
	for n := range b {
		if _, err := redisstore.Decode(rec.ID, b[:n]); !errors.Is(err, session2.ErrCorrupt) {
			t.Errorf("cut short to %d bytes: got %v, want %v", n, err, session2.ErrCorrupt)
		}
	}
}

func FuzzDecode(f *testing.F) {
	rec := record(1)
	b, err := redisstore.Encode(&rec)
	testsite.Must(f, err)
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := redisstore.Decode(session2.ID{}, b)
		if err != nil {
			return
		}
		if again, err := redisstore.Encode(&rec); err == nil && !bytes.Equal(again, b) {
			t.Errorf("got %x, want %x", again, b)
		}
	})
}
