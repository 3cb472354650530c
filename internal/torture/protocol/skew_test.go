package protocol

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/session2/session2"
)

// skewed is the store of a manager whose clock is ahead. Under synctest there is one
// clock, so it is the times of records that move: back as that manager reads them,
// and ahead as others read what it has written. Those inside of Data move, too.
type skewed struct {
	*store
	ahead time.Duration
}

func (s *skewed) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	rec, err := s.store.Load(ctx, id)
	return moved(rec, -s.ahead), err
}

func (s *skewed) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	return s.store.Save(ctx, moved(rec, s.ahead), prev)
}

func (s *skewed) Touch(ctx context.Context, id session2.ID, accessed, expires time.Time) error {
	return s.store.Touch(ctx, id, accessed.Add(s.ahead), expires.Add(s.ahead))
}

func (s *skewed) IterUser(ctx context.Context, user string) iter.Seq2[session2.Record, error] {
	return func(yield func(session2.Record, error) bool) {
		for rec, err := range s.store.IterUser(ctx, user) {
			if !yield(moved(rec, -s.ahead), err) {
				return
			}
		}
	}
}

// moved returns the record with its times moved.
func moved(rec session2.Record, by time.Duration) session2.Record {
	if rec.ID == (session2.ID{}) {
		return rec
	}
	rec.Created, rec.Accessed, rec.Expires = rec.Created.Add(by), rec.Accessed.Add(by), rec.Expires.Add(by)
	rec.Data = movedData(rec.Data, by)
	return rec
}

// times are the sections of a record's Data, by their tags in data.go, and how many
// times each ends in: eight bytes, in microseconds, 0 for none.
var times = map[byte]int{
	1:  1, // tagIdentity
	2:  2, // tagRetired
	14: 1, // tagLogin
}

// timeless are the tags of those that hold none.
const timeless = "\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d"

// movedData returns a record's Data with its times moved.
func movedData(data []byte, by time.Duration) []byte {
	data = bytes.Clone(data)
	for at := 1; at < len(data); {
		tag := data[at]
		n, width := binary.Uvarint(data[at+1:])
		at += 1 + width + int(n)
		if times[tag] == 0 && !bytes.ContainsRune([]byte(timeless), rune(tag)) {
			panic(fmt.Sprintf("does section %d of a record's data hold times? say so in times or timeless", tag))
		}
		for i := range times[tag] {
			b := data[at-8*(i+1):][:8]
			if t := binary.BigEndian.Uint64(b); t != 0 {
				binary.BigEndian.PutUint64(b, t+uint64(by.Microseconds()))
			}
		}
	}
	return data
}

// TestMoved checks that moving a record's times leaves the rest of it alone: moved by
// the clock's own pace it is the record of a session that was begun later.
func TestMoved(t *testing.T) {
	sc := scenario{cfg: session2.Config{RenewEvery: renewEvery}, play: func(w *world) {
		b := w.session("alice")
		w.wait(renewEvery + time.Minute)
		for range 2 { // the second one presents the successor
			w.alone("a", b, body.wrap(func(v *visit, s *session2.Session) { login("alice")(v, s); s.CSRFToken() }, nil))
		}
		rec, _ := w.record(b.token)
		later := moved(rec, time.Hour)
		if bytes.Equal(rec.Data, later.Data) || !bytes.Equal(rec.Data, moved(later, -time.Hour).Data) {
			t.Error("times were not moved, or not moved back")
		}
		at := rec.Accessed.UnixMicro()
		if n := bytes.Count(rec.Data, binary.BigEndian.AppendUint64(nil, uint64(at))); n < 2 {
			t.Errorf("the time of the latest access is in the data %d times", n)
		}
		if i := bytes.Index(later.Data, binary.BigEndian.AppendUint64(nil, uint64(at))); i >= 0 {
			t.Errorf("a time at %d was not moved", i)
		}
		one, err := session2.Inspect(rec)
		other, err2 := session2.Inspect(later)
		if err != nil || err2 != nil || w.valueOf(rec) != w.valueOf(later) || len(one.Values) != len(other.Values) {
			t.Errorf("the record is another: %v, %v", err, err2)
		}
	}}
	if w := sc.run(t, &choices{}, limits{}, false); !slices.Equal(w.failures, nil) {
		t.Error(w.failures)
	}
}
