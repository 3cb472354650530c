package session2_test

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/session2/session2"
)

// A houseStore is what every store of this package offers.
type houseStore interface {
	session2.Store
	session2.DeleteOldStore
	session2.IterStore
	session2.TouchStore
	session2.UserStore
	session2.CapableStore
	Close() error
}

// inEachStore runs a test over every store that needs no server.
func inEachStore(t *testing.T, test func(t *testing.T, s houseStore)) {
	open := map[string]func(dir string) (houseStore, error){
		"memory": func(string) (houseStore, error) { return session2.NewMemoryStore(), nil },
		"file":   func(dir string) (houseStore, error) { return session2.OpenFileStore(filepath.Join(dir, "s"), nil) },
		"bolt":   func(dir string) (houseStore, error) { return session2.OpenBoltStore(filepath.Join(dir, "s"), nil) },
		"gob":    func(dir string) (houseStore, error) { return session2.OpenGobStore(filepath.Join(dir, "s"), nil) },
	}
	for name, open := range open {
		t.Run(name, func(t *testing.T) {
			s, err := open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			test(t, s)
		})
	}
}

// houseRecord returns a record that is neither old nor expired.
func houseRecord(n byte, user string) session2.Record {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return session2.Record{ID: session2.ID{n, 15: n}, Version: session2.Version(n) + 1, User: user,
		Created: now, Accessed: now, Expires: now.Add(time.Hour), Data: []byte("data")}
}

// calls makes every call there is and returns its errors by what they must
// begin with.
func (h houseCalls) calls(ctx context.Context) map[string]error {
	last := func(seq iter.Seq2[session2.Record, error]) (err error) {
		for _, err = range seq {
		}
		return err
	}
	s, id := h.houseStore, h.rec.ID
	loaded, load := s.Load(ctx, id)
	if loaded.ID != (session2.ID{}) {
		h.t.Errorf("Load: got a record of %v beside the error", loaded.ID)
	}
	_, has := s.Has(ctx, id)
	_, old := s.DeleteOld(ctx, time.Hour)
	_, user := s.DeleteUser(ctx, "alice")
	_, nobody := s.DeleteUser(ctx, "")
	return map[string]error{
		"load " + id.String():   load,
		"has " + id.String():    has,
		"save " + id.String():   s.Save(ctx, h.rec, 0),
		"delete " + id.String(): s.Delete(ctx, id),
		"touch " + id.String():  s.Touch(ctx, id, h.rec.Accessed, h.rec.Expires),
		"delete old":            old,
		"delete user":           user,
		"iter":                  last(s.Iter(ctx)),
		"iter user":             last(s.IterUser(ctx, "alice")),
		"delete user: ":         nobody,
		"iter user: ":           last(s.IterUser(ctx, "")),
	}
}

type houseCalls struct {
	houseStore
	t   *testing.T
	rec session2.Record
}

// All stores say alike what was asked, once, and why it failed.
func TestStoresFailAlike(t *testing.T) {
	done, cancel := context.WithCancel(t.Context())
	cancel()
	inEachStore(t, func(t *testing.T, s houseStore) {
		h := houseCalls{s, t, houseRecord(1, "alice")}
		if err := s.Save(t.Context(), h.rec, 0); err != nil {
			t.Fatal(err)
		}
		check := func(ctx context.Context, when string, want error) {
			for what, err := range h.calls(ctx) {
				if !errors.Is(err, want) {
					t.Errorf("%s, %s: got %v, want %v", what, when, err, want)
				} else if text := err.Error(); !strings.HasPrefix(text, "session2: "+strings.TrimSuffix(what, ": ")+": ") ||
					strings.Count(text, "session2: ") != 1 {
					t.Errorf("%s, %s: got the text %q", what, when, text)
				}
			}
		}
		check(done, "a context done", context.Canceled)
		s.Close()
		check(t.Context(), "closed", fs.ErrClosed)
		check(done, "closed, and a context done", context.Canceled)
	})
}

// What is unusual comes back, is listed and is removed like the rest.
func TestStoresTakeUnusualRecords(t *testing.T) {
	users := []string{"\x00", "\xff\xfe", strings.Repeat("u", 1024), "../../x", "a\nb"}
	inEachStore(t, func(t *testing.T, s houseStore) {
		ctx := t.Context()
		for i, user := range users { // the first has the zero ID
			rec := houseRecord(byte(i), user)
			if err := s.Save(ctx, rec, 0); err != nil {
				t.Fatalf("Save for user %.10q: %v", user, err)
			}
			if got, err := s.Load(ctx, rec.ID); err != nil || got.User != user || got.ID != rec.ID {
				t.Errorf("Load: got %v of %.10q, %v, want %v of %.10q", got.ID, got.User, err, rec.ID, user)
			}
			if n, err := s.DeleteUser(ctx, user[:len(user)-1]); n != 0 || err != nil {
				t.Errorf("DeleteUser of a shorter user: got %d, %v, want 0", n, err)
			}
			if n, err := s.DeleteUser(ctx, user); n != 1 || err != nil {
				t.Errorf("DeleteUser(%.10q): got %d, %v, want 1", user, n, err)
			}
		}
	})
}

// A record that cannot be read is told by Save, is removed and counted by what
// it is due for, and then leaves its ID free.
func TestStoresTreatCorruptRecordsAlike(t *testing.T) {
	stores := map[string]struct {
		open   func(dir string) (houseStore, error)
		damage func(dir string, id session2.ID)
	}{
		"file": {
			func(dir string) (houseStore, error) { return session2.OpenFileStore(filepath.Join(dir, "s"), nil) },
			func(dir string, id session2.ID) { flip(t, sessionFile(filepath.Join(dir, "s"), id), -1) },
		},
		"bolt": {
			func(dir string) (houseStore, error) { return openBolt(t, dir), nil },
			func(dir string, id session2.ID) {
				editBolt(t, dir, func(tx *bolt.Tx) error { return damageBolt(tx, "sessions", id[:]) })
			},
		},
		"gob": {
			func(dir string) (houseStore, error) { return openGob(t, filepath.Join(dir, "s")), nil },
			func(dir string, id session2.ID) { corruptGob(t, filepath.Join(dir, "s"), id) },
		},
	}
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			damaged := func(check func(s houseStore, bad session2.Record)) {
				dir := t.TempDir()
				s, err := store.open(dir)
				if err != nil {
					t.Fatal(err)
				}
				bad, last := houseRecord(1, "alice"), houseRecord(2, "bob")
				bad.Expires = bad.Created.Add(-time.Minute)
				for _, rec := range []session2.Record{bad, last} {
					if err := s.Save(ctx, rec, 0); err != nil {
						t.Fatal(err)
					}
				}
				s.Close()
				store.damage(dir, bad.ID)
				if s, err = store.open(dir); err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				check(s, bad)
				if err := s.Save(ctx, bad, 0); err != nil {
					t.Errorf("Save under the ID of a removed corrupt record: got %v, want nil", err)
				}
				if _, err := s.Load(ctx, last.ID); err != nil {
					t.Errorf("Load of the other record: got %v, want nil", err)
				}
			}
			damaged(func(s houseStore, bad session2.Record) {
				next := bad
				next.Version = 99
				err := s.Save(ctx, next, bad.Version)
				if !errors.Is(err, session2.ErrCorrupt) || strings.Count(err.Error(), bad.ID.String()) != 1 {
					t.Errorf("Save: got %v, want ErrCorrupt with the ID, once", err)
				}
				if err := s.Delete(ctx, bad.ID); err != nil {
					t.Errorf("Delete: got %v, want nil", err)
				}
			})
			damaged(func(s houseStore, bad session2.Record) {
				if n, err := s.DeleteOld(ctx, time.Hour); n != 1 || err != nil {
					t.Errorf("DeleteOld: got %d, %v, want 1", n, err)
				}
			})
		})
	}
}
