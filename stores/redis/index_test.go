package redisstore_test

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
	redisstore "github.com/session2/session2/stores/redis"
)

// rig is a store beside a client that looks at its keys.
type rig struct {
	*testing.T
	c      *redis.Client
	prefix string
	store  *redisstore.Store
}

func newRig(t *testing.T) *rig {
	r := &rig{T: t, c: connect(t, testdb.Redis(t)), prefix: prefix(t.TempDir())}
	r.store = open(t, r.c, redisstore.Options{Prefix: r.prefix})
	return r
}

// keys returns the names of all keys.
func (r *rig) keys() []string {
	r.Helper()
	keys, err := r.c.Keys(r.Context(), r.prefix+"*").Result()
	testsite.Must(r, err)
	slices.Sort(keys)
	return keys
}

func (r *rig) index(id session2.ID, name string) string {
	return fmt.Sprintf("%s{%02x}:%s", r.prefix, id[0]%64, name)
}

func count(records iter.Seq2[session2.Record, error]) (n int, err error) {
	for _, e := range records {
		if err = e; err == nil {
			n++
		}
	}
	return n, err
}

// TestRecordIsTheTruth has indexes and records disagree, as if somebody had deleted keys by
// hand: each call believes the record, and puts the index right.
func TestRecordIsTheTruth(t *testing.T) {
	r := newRig(t)
	ctx, rec := t.Context(), record(1)
	lists := func(user string, want int) {
		t.Helper()
		if n, err := count(r.store.IterUser(ctx, user)); n != want || err != nil {
			t.Errorf("%s has %d sessions, %v, want %d", user, n, err, want)
		}
	}
	testsite.Must(t, r.store.Save(ctx, rec, 0))
	value, err := r.c.Get(ctx, key(r.prefix, rec.ID)).Result()
	testsite.Must(t, err)

	testsite.Must(t, r.c.Del(ctx, key(r.prefix, rec.ID)).Err())
	lists("alice", 0)
	if n, err := count(r.store.Iter(ctx)); n != 0 || err != nil {
		t.Errorf("Iter: got %d, %v, want nothing", n, err)
	}
	if n, err := r.store.DeleteOld(ctx, 0); n != 0 || err != nil {
		t.Errorf("DeleteOld: got %d, %v, want 0", n, err)
	}
	if keys := r.keys(); len(keys) > 0 {
		t.Errorf("of a record that is gone there are left %q", keys)
	}

	bob := next(rec, 9)
	bob.User = "bob"
	testsite.Must(t, r.store.Save(ctx, bob, 0))
	testsite.Must(t, r.c.ZAdd(ctx, r.index(rec.ID, "users"),
		redis.Z{Member: "\x00\x05alice" + string(rec.ID[:])}).Err())
	lists("alice", 0)
	if n := r.c.ZCard(ctx, r.index(rec.ID, "users")).Val(); n != 1 {
		t.Errorf("the index by user has %d entries, want bob's", n)
	}
	testsite.Must(t, r.c.ZAdd(ctx, r.index(rec.ID, "users"),
		redis.Z{Member: "\x00\x05alice" + string(rec.ID[:])}).Err())
	if n, err := r.store.DeleteUser(ctx, "alice"); n != 0 || err != nil {
		t.Errorf("DeleteUser: got %d, %v, want 0", n, err)
	}
	lists("bob", 1)

	for _, name := range []string{"users", "accessed", "expires"} {
		testsite.Must(t, r.c.Del(ctx, r.index(rec.ID, name)).Err())
	}
	testsite.Must(t, r.store.Save(ctx, next(bob, 10), 9)) // a save files it again
	lists("bob", 1)
	if n, err := count(r.store.Iter(ctx)); n != 1 || err != nil {
		t.Errorf("Iter: got %d, %v, want 1", n, err)
	}
	testsite.Must(t, r.c.Set(ctx, key(r.prefix, rec.ID), value, 0).Err())
	if n, err := r.store.DeleteOld(ctx, 0); n != 1 || err != nil {
		t.Errorf("DeleteOld: got %d, %v, want 1", n, err)
	}
}

// TestNothingStays ends sessions in every way, after which no key is left.
func TestNothingStays(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	for n := range byte(8) {
		rec := record(n)
		testsite.Must(t, r.store.Save(ctx, rec, 0))
		other := next(rec, 2)
		other.User = map[bool]string{true: "bob"}[n%2 == 0]
		testsite.Must(t, r.store.Save(ctx, other, rec.Version))
		testsite.Must(t, r.store.Touch(ctx, rec.ID, rec.Accessed.Add(time.Hour), rec.Expires.Add(time.Hour)))
		if n < 4 {
			testsite.Must(t, r.store.Delete(ctx, rec.ID))
		}
	}
	if n, err := r.store.DeleteUser(ctx, "bob"); n != 2 || err != nil {
		t.Errorf("DeleteUser: got %d, %v, want 2", n, err)
	}
	for n := range byte(8) {
		rec := next(record(n), 3)
		if rec.Expires = rec.Created; n%2 == 1 && n >= 4 {
			testsite.Must(t, r.store.Save(ctx, rec, 2))
		}
	}
	if n, err := r.store.DeleteOld(ctx, time.Hour); n != 2 || err != nil {
		t.Errorf("DeleteOld: got %d, %v, want 2", n, err)
	}
	if keys := r.keys(); len(keys) > 0 {
		t.Errorf("there are left %q", keys)
	}
}

// TestSweepPassesWhatIsHardlyYoung has more records than a batch filed under the last
// millisecond that is old, of which every other one is a microsecond younger.
func TestSweepPassesWhatIsHardlyYoung(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	limit := time.UnixMicro(1_700_000_000_123_456).UTC()
	pipe := r.store
	for i := range 3 * redisstore.Batch {
		rec := record(byte(i))
		rec.ID = redisstore.OneBucket(session2.ID{1: byte(i >> 8), 2: byte(i)})
		rec.Accessed = limit.Add(time.Duration(i%2) * time.Microsecond)
		testsite.Must(t, pipe.Save(ctx, rec, 0))
	}
	const half = 3 * redisstore.Batch / 2
	for _, want := range []int{half, 0} {
		if n, err := r.store.DeleteAccessed(ctx, limit); n != want || err != nil {
			t.Errorf("got %d, %v, want %d", n, err, want)
		}
	}
	if n, err := r.store.DeleteAccessed(ctx, limit.Add(time.Microsecond)); n != half || err != nil {
		t.Errorf("got %d, %v, want %d", n, err, half)
	}
}

// TestTouchWritesNoIndex finds that an index by time stays behind a touch, and that the sweep
// that meets the entry moves it.
func TestTouchWritesNoIndex(t *testing.T) {
	r := newRig(t)
	ctx, rec := t.Context(), record(1)
	rec.Accessed = rec.Accessed.Add(-2 * time.Hour)
	testsite.Must(t, r.store.Save(ctx, rec, 0))
	entry := func() float64 { return r.c.ZScore(ctx, r.index(rec.ID, "accessed"), string(rec.ID[:])).Val() }
	before := entry()
	later := rec.Accessed.Add(2 * time.Hour)
	testsite.Must(t, r.store.Touch(ctx, rec.ID, later, rec.Expires))
	if got := entry(); got != before || got != float64(rec.Accessed.UnixMilli()) {
		t.Errorf("got the entry %v, want %v", got, before)
	}
	if n, err := r.store.DeleteOld(ctx, time.Hour); n != 0 || err != nil {
		t.Errorf("DeleteOld: got %d, %v, want 0", n, err)
	}
	if got, want := entry(), float64(later.UnixMilli()); got > want || got < want-2 {
		t.Errorf("got the entry %v, want %v", got, want)
	}
}

// TestDamage has records that are no records.
func TestDamage(t *testing.T) {
	r := newRig(t)
	ctx, rec := t.Context(), record(1)
	at := key(r.prefix, rec.ID)
	testsite.Must(t, r.store.Save(ctx, rec, 0))
	whole := r.c.Get(ctx, at).Val()
	for what, damage := range map[string]func() error{
		"another type":    func() error { return r.c.RPush(ctx, at, "x").Err() },
		"nothing":         func() error { return r.c.Set(ctx, at, "", 0).Err() },
		"cut short":       func() error { return r.c.Set(ctx, at, whole[:30], 0).Err() },
		"another format":  func() error { return r.c.Set(ctx, at, "\x02"+whole[1:], 0).Err() },
		"a wrong user":    func() error { return r.c.Set(ctx, at, strings.Replace(whole, "alice", "alicf", 1), 0).Err() },
		"a cut-off end":   func() error { return r.c.Set(ctx, at, whole[:len(whole)-1], 0).Err() },
		"a long user":     func() error { return r.c.Set(ctx, at, whole[:37]+"\xff\xff"+whole[39:], 0).Err() },
		"another version": func() error { return r.c.Set(ctx, at, whole[:21]+"12345678"+whole[29:], 0).Err() },
	} {
		testsite.Must(t, r.c.Del(ctx, at).Err())
		testsite.Must(t, damage())
		if _, err := r.store.Load(ctx, rec.ID); !errors.Is(err, session2.ErrCorrupt) {
			t.Errorf("%s: load: got %v, want %v", what, err, session2.ErrCorrupt)
		}
		for _, records := range []iter.Seq2[session2.Record, error]{r.store.Iter(ctx), r.store.IterUser(ctx, "alice")} {
			if n, err := count(records); n != 0 || !errors.Is(err, session2.ErrCorrupt) {
				t.Errorf("%s: list: got %d, %v, want %v", what, n, err, session2.ErrCorrupt)
			}
		}
		if what != "a wrong user" && what != "a cut-off end" && what != "a long user" { // their version can be read
			err := r.store.Save(ctx, next(rec, 5), rec.Version)
			if !errors.Is(err, session2.ErrCorrupt) && !errors.Is(err, session2.ErrConflict) {
				t.Errorf("%s: save: got %v, want %v", what, err, session2.ErrCorrupt)
			}
		}
		testsite.Must(t, r.store.Touch(ctx, rec.ID, rec.Accessed, rec.Expires))
		_, err := r.store.DeleteOld(ctx, time.Hour)
		testsite.Must(t, err)
		testsite.Must(t, r.store.Delete(ctx, rec.ID))
		testsite.Must(t, r.store.Save(ctx, rec, 0))
		if n, err := r.store.DeleteUser(ctx, "alice"); n != 1 || err != nil {
			t.Errorf("%s: DeleteUser: got %d, %v, want 1", what, n, err)
		}
		testsite.Must(t, r.store.Save(ctx, rec, 0))
	}
}
