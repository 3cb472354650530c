package session2_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/bounded"
	"github.com/session2/session2/internal/testsite"
)

// custom is a codec that an application might bring.
type custom struct{}

func (custom) Marshal(v any) ([]byte, error)      { return session2.JSON{}.Marshal(v) }
func (custom) Unmarshal(data []byte, v any) error { return session2.JSON{}.Unmarshal(data, v) }

var codecs = map[string]session2.Codec{"gob": session2.Gob{}, "json": session2.JSON{}, "custom": custom{}}

type (
	userID  int
	profile struct {
		Name string
		Tags []string
		Next *profile
		When time.Time
	}
	unregistered struct{ X int }
)

func init() { gob.Register(profile{}) }

// roundTrip stores v by one request and reads it by the next.
func roundTrip(t *testing.T, c session2.Codec, v any) any {
	t.Helper()
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Codec: c})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.Set("v", v); s.Set("other", 1) })
	var got any
	st.Do(b, func(s *session2.Session) {
		if got = s.Get("v"); !s.Has("v") || s.Err() != nil {
			t.Errorf("%T %v: Has = %v, Err = %v", v, v, s.Has("v"), s.Err())
		}
	})
	return got
}

func TestBasicKindsKeepTheirType(t *testing.T) {
	values := []any{nil, true, false, "", "text\x00\xff", []byte{}, []byte("bytes"),
		int(math.MinInt), int(math.MaxInt), int(0), int8(math.MinInt8), int8(math.MaxInt8),
		int16(math.MinInt16), int16(math.MaxInt16), int32(math.MinInt32), int32(math.MaxInt32),
		int64(math.MinInt64), int64(math.MaxInt64), int64(-1),
		uint(0), uint(math.MaxUint), uint8(math.MaxUint8), uint16(math.MaxUint16),
		uint32(math.MaxUint32), uint64(math.MaxUint64),
		float32(math.SmallestNonzeroFloat32), float32(math.MaxFloat32),
		math.Inf(-1), math.MaxFloat64, math.Copysign(0, -1),
		time.Duration(math.MinInt64), time.Duration(math.MaxInt64), time.Second,
		time.Date(2024, 2, 29, 23, 59, 59, 999999999, time.UTC), time.Time{}}
	for name, c := range codecs {
		for _, v := range values {
			if got := roundTrip(t, c, v); !reflect.DeepEqual(got, v) {
				t.Errorf("%s: %T %v came back as %T %v", name, v, v, got, got)
			}
		}
	}
	if got, ok := roundTrip(t, session2.Gob{}, math.NaN()).(float64); !ok || !math.IsNaN(got) {
		t.Errorf("NaN came back as %v", got)
	}
	zone := time.Date(2024, 2, 29, 1, 2, 3, 4, time.FixedZone("X", -3*3600-1800))
	got, _ := roundTrip(t, session2.Gob{}, zone).(time.Time)
	if _, offset := got.Zone(); !got.Equal(zone) || offset != -3*3600-1800 {
		t.Errorf("%v came back as %v", zone, got)
	}
}

func TestGetHandsOutCopies(t *testing.T) {
	for name, c := range codecs {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Codec: c})
		tags := session2.NewKey[map[string]int]("tags")
		check := func(s *session2.Session) {
			t.Helper()
			b, _ := s.Get("bytes").([]byte)
			m, _ := tags.Get(s)
			if string(b) != "abc" || len(m) != 1 || m["a"] != 1 {
				t.Errorf("%s: %q and %v, want abc and a=1", name, b, m)
			}
			b[0] = 'X'
			m["b"] = 2
		}
		b := &testsite.Browser{}
		st.Do(b, func(s *session2.Session) {
			raw, m := []byte("abc"), map[string]int{"a": 1}
			s.Set("bytes", raw)
			tags.Set(s, m)
			raw[0], m["c"] = 'Y', 3 // Set encoded at once
			check(s)
			check(s)
		})
		st.Do(b, check)
		st.Do(b, check)
	}
}

// keyTrip stores v by a typed key and reads it with the next request.
func keyTrip[T any](t *testing.T, codec string, v T) {
	t.Helper()
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Codec: codecs[codec]})
	k, b := session2.NewKey[T]("k"), &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { k.Set(s, v) })
	st.Do(b, func(s *session2.Session) {
		if got, ok := k.Get(s); !ok || !reflect.DeepEqual(got, v) || s.Err() != nil {
			t.Errorf("%s: Key[%T] %#v came back as %#v, %v; Err = %v", codec, v, v, got, ok, s.Err())
		}
		k.Delete(s)
		if _, ok := k.Get(s); ok {
			t.Errorf("%s: Key[%T] is there after Delete", codec, v)
		}
	})
}

func TestTypedKeys(t *testing.T) {
	for name := range codecs {
		when := time.Date(2024, 1, 2, 3, 4, 5, 6, time.UTC)
		full := profile{Name: "n", Tags: []string{"a", "b"}, Next: &profile{Name: "m"}, When: when}
		keyTrip(t, name, full)
		keyTrip(t, name, profile{})
		keyTrip(t, name, &full)
		keyTrip(t, name, (*profile)(nil))
		keyTrip(t, name, map[string][]int{"a": {1}, "b": {2, 3}})
		keyTrip(t, name, map[string]int(nil))
		keyTrip(t, name, map[string]int{})
		keyTrip(t, name, []profile{full, {Name: "other"}})
		keyTrip(t, name, []string(nil))
		if name != "gob" { // which does not tell an empty slice from none
			keyTrip(t, name, []string{})
		}
		keyTrip(t, name, [3]int{1, 2, 3})
		keyTrip(t, name, userID(7))
		keyTrip(t, name, userID(0))
		keyTrip(t, name, unregistered{X: 1}) // a Key needs no registration
		keyTrip(t, name, when)
		keyTrip(t, name, "text")
		keyTrip(t, name, []byte("bytes"))
		keyTrip(t, name, 42)
		keyTrip[any](t, name, "in an interface")
		keyTrip[any](t, name, nil)
		keyTrip[fmt.Stringer](t, name, time.Second)
		keyTrip[fmt.Stringer](t, name, nil)
	}
	keyTrip[any](t, "gob", profile{Name: "n"})
}

// secretText must not be in any error.
const secretText = "s3cr3t-value"

// loud is a type whose encoder tells what it was given.
type loud struct{ Text string }

func (l loud) MarshalText() ([]byte, error) { return nil, errors.New("cannot encode " + l.Text) }

// What cannot be encoded is known at once, and nobody is told of a success.
func TestUnencodable(t *testing.T) {
	key := session2.NewKey[chan int]("chan")
	set := func(v any) func(*session2.Session) { return func(s *session2.Session) { s.Set("k", v) } }
	tests := map[string]struct {
		codec session2.Codec
		set   func(*session2.Session)
		says  string
	}{
		"unregistered": {session2.Gob{}, set(unregistered{1}),
			"session2_test.unregistered cannot be encoded: gob.Register"},
		"nil in interface": {session2.Gob{}, set((*profile)(nil)), "*session2_test.profile"},
		"channel":          {session2.Gob{}, func(s *session2.Session) { key.Set(s, make(chan int)) }, "chan int"},
		"json channel":     {session2.JSON{}, set(make(chan int)), "chan int"},
		"json number":      {session2.JSON{}, set(json.Number(secretText)), "json.Number"},
		"marshaler":        {session2.JSON{}, set(loud{secretText}), "loud"},
		"flash":            {session2.JSON{}, func(s *session2.Session) { s.Flash(loud{secretText}) }, "loud"},
		"update": {session2.JSON{}, func(s *session2.Session) {
			session2.NewKey[loud]("k").Update(s, func(loud) loud { return loud{secretText} })
		}, "loud"},
	}
	for name, c := range tests {
		store, book := testsite.NewBrittle(), &testsite.Log{}
		st := testsite.NewSite(t, store, session2.Config{Codec: c.codec, Logger: book.Logger()})
		res := st.Do(&testsite.Browser{}, func(s *session2.Session) {
			s.Set("color", "green")
			c.set(s)
			err := s.Err()
			leaks := strings.Contains(fmt.Sprintf("%v%+v%#v", err, err, err), secretText)
			if err == nil || !strings.Contains(err.Error(), c.says) || leaks {
				t.Errorf("%s: Err = %v, want %q in it and no value", name, err, c.says)
			}
		})
		if res.StatusCode != 500 || len(testsite.RecordsOf(t, store)) != 0 || len(res.Cookies()) != 0 {
			t.Errorf("%s: status %d, %d records, cookies %v",
				name, res.StatusCode, len(testsite.RecordsOf(t, store)), res.Cookies())
		}
		if strings.Contains(book.String(), secretText) {
			t.Errorf("%s: the log shows the value", name)
		}
	}
}

// A value that cannot be read is told of, reads as zero, and harms nothing else.
func TestUndecodable(t *testing.T) {
	tests := map[string]struct {
		wrote, reads session2.Codec
		set, get     func(*session2.Session)
	}{
		"another type": {session2.Gob{}, session2.Gob{}, func(s *session2.Session) {
			s.Set("k", secretText)
		}, readAs[int]},
		"nil as int": {session2.Gob{}, session2.Gob{}, func(s *session2.Session) { s.Set("k", nil) }, readAs[int]},
		"another struct": {session2.JSON{}, session2.JSON{}, func(s *session2.Session) {
			session2.NewKey[map[string]any]("k").Set(s, map[string]any{"X": secretText})
		}, readAs[unregistered]},
		"another gob type": {session2.Gob{}, session2.Gob{}, func(s *session2.Session) {
			session2.NewKey[profile]("k").Set(s, profile{Name: secretText})
		}, readAs[map[string]int]},
		"another codec": {session2.Gob{}, session2.JSON{}, func(s *session2.Session) {
			session2.NewKey[profile]("k").Set(s, profile{Name: secretText})
		}, readAs[profile]},
		"a codec of one's own": {session2.JSON{}, custom{}, func(s *session2.Session) {
			session2.NewKey[profile]("k").Set(s, profile{Name: secretText})
		}, readAs[profile]},
		"by Get": {session2.Gob{}, session2.JSON{}, func(s *session2.Session) { s.Set("k", profile{Name: secretText}) },
			func(s *session2.Session) {
				if v := s.Get("k"); v != nil {
					panic(fmt.Sprintf("Get = %v, want nil", v))
				}
			}},
		"by Get, set by a Key": {session2.Gob{}, session2.Gob{}, func(s *session2.Session) {
			session2.NewKey[profile]("k").Set(s, profile{Name: secretText}) // registered, too
		}, func(s *session2.Session) {
			if v := s.Get("k"); v != nil {
				panic(fmt.Sprintf("Get = %v, want nil", v))
			}
		}},
		"by Pop": {session2.Gob{}, session2.JSON{}, func(s *session2.Session) { s.Set("k", profile{Name: secretText}) },
			func(s *session2.Session) {
				if v := s.Pop("k"); v != nil {
					panic(fmt.Sprintf("Pop = %v, want nil", v))
				}
			}},
	}
	for name, c := range tests {
		store, book, b := testsite.NewBrittle(), &testsite.Log{}, &testsite.Browser{}
		site := testsite.NewSite(t, store, session2.Config{Codec: c.wrote})
		site.Do(b, func(s *session2.Session) { c.set(s); s.Set("color", "green") })
		st := testsite.NewSite(t, store, session2.Config{Codec: c.reads, Logger: book.Logger()})
		res := st.Do(b, func(s *session2.Session) {
			c.get(s)
			err := s.Err()
			if err == nil || s.Get("color") != "green" {
				t.Errorf("%s: Err = %v, color = %v", name, err, s.Get("color"))
			}
			if strings.Contains(fmt.Sprintf("%v%+v%#v", err, err, err)+book.String(), secretText) {
				t.Errorf("%s: the value is shown", name)
			}
			s.Set("size", "large")
		})
		if res.StatusCode != 200 || st.Events.Count(session2.EventCorrupt) != 1 || st.Stored(b, "size") != "large" {
			t.Errorf("%s: status %d, %d EventCorrupt", name, res.StatusCode, st.Events.Count(session2.EventCorrupt))
		}
	}
}

func readAs[T any](s *session2.Session) {
	if v, ok := session2.NewKey[T]("k").Get(s); ok || !reflect.ValueOf(&v).Elem().IsZero() {
		panic(fmt.Sprintf("Get = %v, %v, want zero and false", v, ok))
	}
}

// One unreadable row must not answer 500 for ever, nor be written over by a
// release that does not understand it.
func TestUnreadableRecord(t *testing.T) {
	damages := map[string]func([]byte) []byte{
		"a later format":  func(b []byte) []byte { return append([]byte{2}, b[1:]...) },
		"a later section": func(b []byte) []byte { return append(b, 200, 1, 0) },
		"cut off":         func(b []byte) []byte { return b[:len(b)-1] },
		"empty":           func([]byte) []byte { return nil },
		"text":            func([]byte) []byte { return []byte("hello") },
		"huge length":     func(b []byte) []byte { return append(b, 11, 255, 255, 255, 255, 255, 255, 255, 255, 127) },
	}
	for name, damage := range damages {
		store, book := testsite.NewBrittle(), &testsite.Log{}
		st := testsite.NewSite(t, store, session2.Config{Logger: book.Logger()})
		b := &testsite.Browser{}
		st.Begin(b)
		rec := testsite.RecordsOf(t, store)[0]
		prev := rec.Version
		rec.Version, rec.Data = 7, damage(bytes.Clone(rec.Data))
		if err := store.MemoryStore.Save(t.Context(), rec, prev); err != nil {
			t.Fatal(err)
		}
		old := b.Token()
		res := st.Do(b, func(s *session2.Session) {
			if s.User() != "" || !s.IsNew() {
				t.Errorf("%s: User() = %q, IsNew() = %v", name, s.User(), s.IsNew())
			}
			s.Set("fresh", true)
		})
		if res.StatusCode != 200 || b.Token() == old || st.Stored(b, "fresh") != true {
			t.Errorf("%s: status %d; no fresh session", name, res.StatusCode)
		}
		if n := st.Events.Count(session2.EventCorrupt); n != 1 {
			t.Errorf("%s: %d EventCorrupt, want 1", name, n)
		}
		got, err := store.MemoryStore.Load(t.Context(), rec.ID)
		if err != nil || got.Version != 7 || !bytes.Equal(got.Data, rec.Data) {
			t.Errorf("%s: the unreadable record was touched: %v", name, err)
		}
	}
}

// Reading a basic kind costs its value and nothing else.
func TestReadingAllocates(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b, n, on := &testsite.Browser{}, session2.NewKey[int]("n"), session2.NewKey[bool]("on")
	st.Do(b, func(s *session2.Session) { n.Set(s, 5); on.Set(s, true); s.Set("text", "some text") })
	st.Do(b, func(s *session2.Session) {
		reads := map[string]struct {
			f   func()
			max float64
		}{
			"int":  {func() { n.Get(s) }, 0}, // small integers need no memory in an interface
			"bool": {func() { on.Get(s) }, 0},
			"text": {func() { s.Get("text") }, 2}, // the string and its header in an interface
			"Has":  {func() { s.Has("text") }, 0},
			"User": {func() { s.User() }, 0},
		}
		for name, r := range reads {
			if got := testing.AllocsPerRun(100, r.f); got > r.max {
				t.Errorf("reading %s: %v allocations, want at most %v", name, got, r.max)
			}
		}
	})
}

// FuzzDecodeValue: no encoded value panics, and a basic one that decodes
// encodes to one that decodes to the same.
func FuzzDecodeValue(f *testing.F) {
	for _, c := range codecs {
		for _, v := range []any{
			nil, true, "text", []byte("b"), 1, int8(-1), uint64(1 << 63), 1.5, float32(2), time.Second,
			time.Unix(1, 2).UTC(), profile{Name: "n", Tags: []string{"t"}},
		} {
			if b, err := session2.EncodeValue(c, v); err == nil {
				f.Add(b)
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, c := range codecs {
			var v any
			var err error
			bounded.Decode(t, len(b), func() {
				session2.DecodeValueAs[profile](c, b)
				session2.DecodeValueAs[[]string](c, b)
				session2.DecodeValueAs[userID](c, b)
				v, err = session2.DecodeValue(c, b)
			})
			if err != nil {
				if v != nil {
					t.Errorf("%x: %v beside an error", b, v)
				}
				continue
			}
			again, err := session2.EncodeValue(c, v)
			if err != nil {
				continue // such as a gob type of a name alone
			}
			w, err := session2.DecodeValue(c, again)
			if err != nil || !same(v, w) {
				t.Errorf("%x is %T %v, which comes back as %T %v (%v)", b, v, v, w, w, err)
			}
		}
	})
}

// same is equality where NaN equals itself and a time every other of its instant.
func same(v, w any) bool {
	if a, ok := v.(time.Time); ok {
		b, ok := w.(time.Time)
		return ok && a.Equal(b)
	}
	return reflect.DeepEqual(v, w) || fmt.Sprintf("%T %#v", v, v) == fmt.Sprintf("%T %#v", w, w)
}

// FuzzDecodeData: no record's Data panics, and what decodes encodes to what
// decodes to the same.
func FuzzDecodeData(f *testing.F) {
	for _, on := range []bool{false, true} {
		store := testsite.NewBrittle()
		seedData(f, testsite.NewSite(f, store, session2.Config{Sealed: on}), store)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var st *session2.State
		var err error
		bounded.Decode(t, len(data), func() { st, err = session2.DecodeState(data) })
		if err != nil {
			return
		}
		again := session2.EncodeState(st)
		st2, err := session2.DecodeState(again)
		if err != nil || !bytes.Equal(session2.EncodeState(st2), again) {
			t.Errorf("%x decodes, encodes to %x, which decodes to another (%v)", data, again, err)
		}
		if len(again) > len(data)+16 {
			t.Errorf("%d bytes grew to %d", len(data), len(again))
		}
	})
}

// seedData has a session written in several states.
func seedData(f *testing.F, st *testsite.Site, store session2.IterStore) {
	b := &testsite.Browser{}
	for _, change := range []func(*session2.Session){
		func(s *session2.Session) { s.SetUser("alice") },
		func(s *session2.Session) { s.Set("color", "green"); s.Set("n", 1); s.Flash("hello"); s.Flash("again") },
		func(s *session2.Session) { s.CSRFToken(); s.FormToken(); s.FormToken() },
		func(s *session2.Session) { s.SetLifetime(time.Hour); s.SetPersistent(true); s.Renew() },
	} {
		if res := st.Do(b, change); res.StatusCode != http.StatusOK {
			f.Fatal(res.Status)
		}
		for _, rec := range testsite.RecordsOf(f, store) {
			f.Add(rec.Data)
		}
	}
}

// What may change of a type between two releases, and what the second one reads.
func TestTypesThatChangeBetweenReleases(t *testing.T) {
	type Item struct{ Name string }
	type Article struct { // renamed, with a field more
		Name  string
		Count int
	}
	type Broken struct{ Name int }
	for name, codec := range map[string]session2.Codec{"gob": session2.Gob{}, "json": session2.JSON{}} {
		t.Run(name, func(t *testing.T) {
			st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Codec: codec})
			b := &testsite.Browser{}
			st.Do(b, func(s *session2.Session) { session2.NewKey[Item]("item").Set(s, Item{"pen"}) })
			st.Do(b, func(s *session2.Session) {
				if a, ok := session2.NewKey[Article]("item").Get(s); !ok || a != (Article{Name: "pen"}) {
					t.Errorf("a renamed type with a field more reads %+v, %t", a, ok)
				}
				if v, ok := session2.NewKey[Broken]("item").Get(s); ok || v != (Broken{}) {
					t.Errorf("a type with another field reads %+v, %t", v, ok)
				}
			})
			if n := st.Events.Count(session2.EventCorrupt); n != 1 {
				t.Errorf("%d corrupt events, want 1", n)
			}
		})
	}
}

func TestUpdateOfAValueThatCannotBeRead(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.Set("counter", "not a number") })
	res := st.Do(b, func(s *session2.Session) {
		if n, ok := counter.Get(s); n != 0 || ok {
			t.Errorf("Get = %d, %v, want none", n, ok)
		}
		counter.Update(s, func(n int) int { return n + 1 })
	})
	if res.StatusCode != 200 || st.Events.Count(session2.EventCorrupt) == 0 {
		t.Errorf("status %d, %d corrupt events; want 200 and one at least",
			res.StatusCode, st.Events.Count(session2.EventCorrupt))
	}
	if got := st.Stored(b, "counter"); got != 1 {
		t.Errorf("counter = %v, want 1: Update starts from zero", got)
	}
}

// parcel is of a type that gob knows by name only where it is registered.
type parcel struct{ Weight int }

func TestInspect(t *testing.T) {
	for name, codec := range map[string]session2.Codec{"gob": nil, "json": session2.JSON{}} {
		t.Run(name, func(t *testing.T) {
			store := session2.NewMemoryStore()
			m, err := session2.NewManager(store, session2.Config{Codec: codec})
			testsite.Must(t, err)
			s, err := m.Open(t.Context(), "")
			testsite.Must(t, err)
			s.Set("color", "the color")
			s.Set("age", 3*time.Second)
			session2.NewKey[parcel]("parcel").Set(s, parcel{7})
			s.Flash("the flash")
			s.FormToken()
			testsite.Must(t, s.Commit(t.Context()))
			rec, err := store.Load(t.Context(), s.ID())
			testsite.Must(t, err)

			c, err := session2.Inspect(rec)
			testsite.Must(t, err)
			if len(c.Flashes) != 1 || len(c.Values) != 3 || c.FormTokens != 1 ||
				c.Versions[len(c.Versions)-1] != rec.Version {
				t.Errorf("got %+v, want one flash, three values, one form token and the version %v", c, rec.Version)
			}
			shown := fmt.Sprintf("%v %+v %#v", c, c, c)
			if strings.Contains(shown, "the color") || strings.Contains(shown, "the flash") {
				t.Errorf("printing the contents shows values: %s", shown)
			}
			wantItem(t, c.Values[0], "age", 3*time.Second)
			wantItem(t, c.Values[1], "color", "the color")
			wantItem(t, c.Flashes[0], "", "the flash")
			v, err := c.Values[2].Value()
			if name == "json" && fmt.Sprint(v) != "map[Weight:7]" || name == "gob" && err == nil {
				t.Errorf("parcel: got %v, %v", v, err)
			}
		})
	}
}

func wantItem(t *testing.T, item session2.Item, key string, want any) {
	t.Helper()
	if v, err := item.Value(); item.Key != key || v != want || err != nil {
		t.Errorf("got %q = %v, %v, want %q = %v", item.Key, v, err, key, want)
	}
}

func TestInspectCorrupt(t *testing.T) {
	rec := houseRecord(1, "alice")
	rec.Data = []byte("scrambled")
	_, err := session2.Inspect(rec)
	if !errors.Is(err, session2.ErrCorrupt) ||
		!strings.Contains(err.Error(), rec.ID.String()) || strings.Contains(err.Error(), "scrambled") {
		t.Errorf("got %v, want %v with the ID and no data", err, session2.ErrCorrupt)
	}
}

type inner struct{ N int }

type outer struct{ V any }

// What gob does not say plainly is said: which type is missing, and what no registration
// helps.
func TestWhatGobNeeds(t *testing.T) {
	gob.Register(outer{})
	gob.Register(map[string]any{})
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	for _, c := range []struct {
		v    any
		want string
	}{
		{func() {}, "no func or chan"},
		{make(chan int), "no func or chan"},
		{inner{1}, "gob.Register its type; a Key"},
		{&inner{1}, "gob.Register its type; a Key"},
		{outer{inner{1}}, "it holds a session2_test.inner in an interface: gob.Register that type"},
		{map[string]any{"a": inner{1}}, "it holds a session2_test.inner in an interface: gob.Register that type"},
	} {
		var err error
		st.Do(&testsite.Browser{}, func(s *session2.Session) { s.Set("k", c.v); err = s.Err() })
		if !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%T: %v, want %q", c.v, err, c.want)
		}
	}
}

// An error about a value says which type is there, and nothing of the value.
func TestUndecodableSaysTheType(t *testing.T) {
	book := &testsite.Log{}
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Logger: book.Logger()})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.Set("n", "secret value") })
	st.Do(b, func(s *session2.Session) {
		session2.NewKey[int]("n").Get(s)
		const want = `session2: get "n": the value cannot be decoded as int: its type is string`
		if err := s.Err(); err == nil || err.Error() != want {
			t.Errorf("Err() = %v, want %s", err, want)
		}
	})
	if !strings.Contains(book.String(), "its type is string") || strings.Contains(book.String(), "secret") {
		t.Errorf("the log: %s", book)
	}
}

// What NewManager has not made says so, and not where a pointer was nil.
func TestZeroManagerAndSession(t *testing.T) {
	for name, use := range map[string]func(){
		"a Session that no Manager has made":     func() { new(session2.Session).Get("k") },
		"a Manager that NewManager has not made": func() { new(session2.Manager).Wrap(http.NotFoundHandler()) },
	} {
		func() {
			defer func() {
				if text := fmt.Sprint(recover()); !strings.Contains(text, name) {
					t.Errorf("the panic says %q, want %q", text, name)
				}
			}()
			use()
		}()
	}
}
