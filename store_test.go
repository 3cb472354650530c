package session2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/session2/session2"
	progress "github.com/session2/session2/internal/tally"
	"github.com/session2/session2/internal/testsite"
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
				prefix := "session2: " + strings.TrimSuffix(what, ": ") + ": "
				if !errors.Is(err, want) {
					t.Errorf("%s, %s: got %v, want %v", what, when, err, want)
				} else if text := err.Error(); !strings.HasPrefix(text, prefix) ||
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
			func(dir string) (houseStore, error) { return session2.OpenBoltStore(filepath.Join(dir, "s"), nil) },
			func(dir string, id session2.ID) { corruptBolt(t, filepath.Join(dir, "s"), id) },
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

// corruptBolt flips a bit of a record in the file of a store, which is closed.
func corruptBolt(t *testing.T, path string, id session2.ID) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	testsite.Must(t, err)
	defer db.Close()
	testsite.Must(t, db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("sessions"))
		value := slices.Clone(b.Get(id[:]))
		value[len(value)/2] ^= 1
		return b.Put(id[:], value)
	}))
}

// placed opens the stores that are somewhere.
var placed = map[string]func(path string) (houseStore, error){
	"file": func(path string) (houseStore, error) { return session2.OpenFileStore(path, nil) },
	"bolt": func(path string) (houseStore, error) { return session2.OpenBoltStore(path, nil) },
	"gob":  func(path string) (houseStore, error) { return session2.OpenGobStore(path, nil) },
}

// A place that cannot be a store is an error that names it, and stays as it is.
func TestStoresRefuseWrongPlaces(t *testing.T) {
	for name, open := range placed {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			wrong := filepath.Join(dir, "wrong")
			if name == "file" {
				if err := os.WriteFile(wrong, []byte("keep me"), 0o600); err != nil {
					t.Fatal(err)
				}
			} else if err := os.Mkdir(wrong, 0o700); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadDir(dir)
			s, err := open(wrong)
			if err == nil {
				s.Close()
				t.Fatal("the wrong kind of file was opened")
			}
			text := err.Error()
			if !strings.HasPrefix(text, "session2: open "+name+" store") || !strings.Contains(text, wrong) {
				t.Errorf("got the error %q, want it to name the store and the path", text)
			}
			if b, err := os.ReadFile(wrong); name == "file" && (err != nil || string(b) != "keep me") {
				t.Errorf("the file holds %q, %v", b, err)
			}
			if after, _ := os.ReadDir(wrong); name != "file" && len(after) != 0 {
				t.Errorf("the directory holds %v, was %v", after, before)
			}
		})
	}
}

// A path may be relative, and the working directory change; its characters mean
// nothing.
func TestStoresTakeAnyPath(t *testing.T) {
	for name, open := range placed {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Chdir(dir)
			path := "ä b%2f#&*'[x]"
			if os.PathSeparator == '\\' {
				path = "ä b%2f#&'[x]"
			}
			s, err := open(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Chdir(t.TempDir())
			rec := houseRecord(1, "alice")
			if err := s.Save(t.Context(), rec, 0); err != nil {
				t.Fatal(err)
			}
			s.Close()
			if s, err = open(filepath.Join(dir, path)); err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if _, err := s.Load(t.Context(), rec.ID); err != nil {
				t.Errorf("Load: got %v, want the record", err)
			}
		})
	}
}

// An empty path is that of a variable that nobody has set.
func TestStoresRefuseAnEmptyPath(t *testing.T) {
	for name, open := range placed {
		dir := t.TempDir()
		t.Chdir(dir)
		if s, err := open(""); err == nil {
			s.Close()
			t.Errorf("%s: opened", name)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%s: left behind: %v", name, left)
		}
	}
}

// A mix is a random life of some stores over the same data.
type mix struct {
	rnd    *rand.Rand
	stores []houseStore
	now    time.Time
}

func (m *mix) store() houseStore { return m.stores[m.rnd.IntN(len(m.stores))] }

func (m *mix) record() session2.Record {
	n := m.rnd.IntN(1000)
	rec := session2.Record{
		ID:       session2.ID{byte(n), byte(n >> 8), 15: byte(n)},
		Version:  session2.Version(1 + m.rnd.Uint64N(math.MaxUint64)),
		Data:     make([]byte, m.rnd.IntN(1000)),
		Created:  m.now.Add(-24 * time.Hour),
		Accessed: m.now.Add(-time.Duration(m.rnd.IntN(7200)) * time.Second),
		Expires:  m.now.Add(time.Duration(m.rnd.IntN(7200)-600) * time.Second),
	}
	if user := m.rnd.IntN(50); user > 0 {
		rec.User = fmt.Sprint("user", user)
	}
	return rec
}

// age returns one that a sweep goes by: an hour or so, or none at all, as for
// Manager.Cleanup.
func (m *mix) age() time.Duration {
	if m.rnd.IntN(2) == 0 {
		return math.MaxInt64
	}
	return time.Hour + time.Duration(m.rnd.IntN(3600))*time.Second
}

func (m *mix) step(t *testing.T) {
	t.Helper()
	s, rec := m.store(), m.record()
	var err error
	switch m.rnd.IntN(40) {
	case 0:
		_, err = s.DeleteOld(t.Context(), m.age())
	case 1, 2:
		_, err = s.DeleteUser(t.Context(), rec.User)
	case 3, 4, 5, 6, 7, 8:
		err = s.Delete(t.Context(), rec.ID)
	case 9, 10, 11, 12, 13, 14, 15:
		err = s.Touch(t.Context(), rec.ID, rec.Accessed, rec.Expires)
	default:
		old, loadErr := s.Load(t.Context(), rec.ID)
		if loadErr != nil && !errors.Is(loadErr, session2.ErrNotFound) {
			t.Fatal(loadErr)
		}
		err = s.Save(t.Context(), rec, old.Version)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// end ends all sessions, each in some way, and sweeps as Manager.Cleanup does.
func (m *mix) end(t *testing.T) {
	t.Helper()
	for rec, err := range m.store().Iter(t.Context()) {
		testsite.Must(t, err)
		s := m.store()
		switch m.rnd.IntN(3) {
		case 0:
			testsite.Must(t, s.Delete(t.Context(), rec.ID))
		case 1:
			_, err = s.DeleteUser(t.Context(), rec.User) // not nobody's
			testsite.Must(t, err)
			fallthrough
		default:
			prev := rec.Version
			rec.Version, rec.Expires = prev+1|1, m.now
			if err := s.Save(t.Context(), rec, prev); !errors.Is(err, session2.ErrNotFound) {
				testsite.Must(t, err)
			}
		}
	}
	_, err := m.store().DeleteOld(t.Context(), math.MaxInt64)
	testsite.Must(t, err)
	for rec, err := range m.store().Iter(t.Context()) {
		t.Fatalf("a session is left: %v, %v", rec.ID, err)
	}
}

// openUnsynced opens a store that does not wait for the disk.
func openUnsynced(kind, path string) (houseStore, error) {
	switch kind {
	case "file":
		return session2.OpenFileStore(path, &session2.FileOptions{NoSync: true})
	case "bolt":
		return session2.OpenBoltStore(path, &session2.BoltOptions{NoSync: true})
	case "gob":
		return session2.OpenGobStore(path, &session2.GobOptions{NoSync: true, Logger: slog.New(slog.DiscardHandler)})
	}
	return session2.NewMemoryStore(), nil
}

// When all sessions are gone, whatever ended them, what is left of a store is what
// it was in the beginning. A bolt file does not shrink, but nothing is in it, and
// its pages are free.
func TestStoresAreAsEmptyAsNew(t *testing.T) {
	t.Parallel()
	for kind, check := range map[string]func(t *testing.T, path string){
		"memory": func(*testing.T, string) {}, // see the tests of the index
		"bolt":   wantEmptyBolt,
		"gob":    wantEmptyGob,
	} {
		t.Run(kind, func(t *testing.T) {
			m := mix{rnd: testsite.Seeded(t), now: time.Now()}
			path := filepath.Join(t.TempDir(), "sessions")
			for range map[bool]int{true: 2, false: 1}[kind == "gob"] { // two share the file
				s, err := openUnsynced(kind, path)
				testsite.Must(t, err)
				defer s.Close()
				m.stores = append(m.stores, s)
			}
			for range 3 {
				for range 2000 {
					m.step(t)
				}
				m.end(t)
			}
			check(t, path)
		})
	}
}

func wantEmptyGob(t *testing.T, path string) {
	info, err := os.Stat(path)
	testsite.Must(t, err)
	if info.Size() != 24 {
		t.Errorf("the file has %d bytes, want its header's 24", info.Size())
	}
	files, err := os.ReadDir(filepath.Dir(path))
	testsite.Must(t, err)
	if len(files) != 2 {
		t.Errorf("the directory holds %v, want the file and its lock", files)
	}
}

func openGob(t testing.TB, path string) *session2.GobStore {
	t.Helper()
	s, err := session2.OpenGobStore(path, &session2.GobOptions{Logger: slog.New(slog.DiscardHandler)})
	testsite.Must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// corruptGob flips the byte behind the last appearance of the ID, which is in
// the payload of the record's frame.
func corruptGob(t testing.TB, path string, id session2.ID) {
	t.Helper()
	b, err := os.ReadFile(path)
	testsite.Must(t, err)
	b[bytes.LastIndex(b, id[:])+len(id)] ^= 0x40
	testsite.Must(t, os.WriteFile(path, b, 0o600))
}

// wantEmptyBolt looks at a copy, as the store is open still.
func wantEmptyBolt(t *testing.T, path string) {
	data, err := os.ReadFile(path)
	testsite.Must(t, err)
	testsite.Must(t, os.WriteFile(path+".copy", data, 0o600))
	db, err := bolt.Open(path+".copy", 0o600, nil)
	testsite.Must(t, err)
	defer db.Close()
	testsite.Must(t, db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			stats, want := b.Stats(), 0
			if string(name) == "meta" {
				want = 1
			}
			if pages := stats.BranchPageN + stats.LeafPageN; stats.KeyN != want || pages > 1 {
				t.Errorf("bucket %s: %d entries on %d pages, want %d on one at most", name, stats.KeyN, pages, want)
			}
			return nil
		})
	}))
}

// A deletion of many that is called off in its midst says so, and how many it has
// deleted, exactly.
func TestDeletionsCalledOffCountExactly(t *testing.T) {
	for _, kind := range []string{"memory", "file", "bolt", "gob"} {
		t.Run(kind, func(t *testing.T) {
			s, err := openUnsynced(kind, filepath.Join(t.TempDir(), "sessions"))
			testsite.Must(t, err)
			defer s.Close()
			callOff(t, s, "DeleteUser", func(ctx context.Context) (int, error) { return s.DeleteUser(ctx, "alice") })
			callOff(t, s, "DeleteOld", func(ctx context.Context) (int, error) {
				return s.DeleteOld(ctx, math.MaxInt64)
			})
		})
	}
}

// callOff lets call delete more than a store does at once, and ends its context
// when it has deleted some.
func callOff(t *testing.T, s houseStore, name string, call func(ctx context.Context) (int, error)) {
	const all = 600
	for i := range all {
		rec := houseRecord(byte(i), "alice")
		rec.ID[1], rec.Expires = byte(i>>8), time.Now()
		testsite.Must(t, s.Save(t.Context(), rec, 0))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n, err := call(progress.With(ctx, func(int) { cancel() }))
	left := 0
	for _, err := range s.Iter(t.Context()) {
		testsite.Must(t, err)
		left++
	}
	if !errors.Is(err, context.Canceled) || n == 0 || n != all-left {
		t.Errorf("%s of %d: got %d, %v, with %d left; want their exact number and %v",
			name, all, n, err, left, context.Canceled)
	}
	_, err = s.DeleteUser(t.Context(), "alice")
	testsite.Must(t, err)
}

// A path is resolved once: a link on the way that is changed later leads nobody
// to half a store.
func TestStoresFollowLinksOnce(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("links need a privilege here")
		return
	}
	for name, open := range placed {
		t.Run(name, func(t *testing.T) {
			first, second, at := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(first, at); err != nil {
				t.Fatal(err)
			}
			path := at // a FileStore's directory is the link itself
			if name != "file" {
				path = filepath.Join(at, "s")
			}
			s, err := open(path)
			if err != nil {
				t.Fatal(err)
			}
			os.Remove(at)
			if err := os.Symlink(second, at); err != nil {
				t.Fatal(err)
			}
			rec := houseRecord(1, "alice")
			if err := s.Save(t.Context(), rec, 0); err != nil {
				t.Errorf("Save: %v", err)
			}
			s.Close()
			if names, _ := os.ReadDir(second); len(names) > 0 {
				t.Errorf("written to where the link leads now: %v", names)
			}
			if s, err = open(filepath.Join(first, strings.TrimPrefix(path, at))); err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if ok, err := s.Has(t.Context(), rec.ID); !ok || err != nil {
				t.Errorf("Has where the link led: got %v, %v, want true", ok, err)
			}
		})
	}
}

// FuzzParseID: an ID has one spelling, and nothing else is an ID.
func FuzzParseID(f *testing.F) {
	f.Add("", []byte{})
	f.Add(session2.ID{1, 15: 2}.String(), []byte("0123456789abcdef"))
	f.Add("ABCDEF00112233445566778899aabbcc", []byte{255})
	f.Fuzz(func(t *testing.T, text string, random []byte) {
		if id, err := session2.ParseID(text); err == nil && id.String() != text {
			t.Errorf("%q parses, and is spelled %q", text, id)
		} else if err != nil && id != (session2.ID{}) {
			t.Errorf("%q: %v beside %v", text, id, err)
		}
		var id session2.ID
		copy(id[:], random)
		if again, err := session2.ParseID(id.String()); err != nil || again != id {
			t.Errorf("%v does not parse back: %v, %v", id, again, err)
		}
	})
}

// FuzzOpen: no URL of a database panics, leaves anything open, or has its password in
// the error; an embedded store's path is what the URL says and never empty.
func FuzzOpen(f *testing.F) {
	const password = "mF3xPassw0rd"
	for _, seed := range [][2]string{
		{"user", "localhost:5432/db"}, {"", "/"}, {"u", "h/db?table=t&conns=3&connlife=1m&timeout=3s&noprepare=true"},
		{"u", "h/db?set.search_path=x&sslmode=disable"}, {"u", "[::1]:1/db?tls=true"}, {"u", "h/db?nosuch=1"},
		{"u", "h,i,j/db"}, {"u", "/db?socket=/run/s"}, {"u/?a=", "h"}, {"%41", "h:99999/%zz"}, {"u", "h/db#x"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, user, rest string) {
		for _, scheme := range []string{"postgres", "mysql", "memory"} {
			store, err := session2.Open(t.Context(), scheme+"://"+user+":"+password+"@"+rest)
			if err != nil && (store != nil || strings.Contains(err.Error(), password)) {
				t.Errorf("%s: user %q, rest %q: %v, %v", scheme, user, rest, store, err)
			}
			if err == nil {
				testsite.Must(t, session2.Close(store))
			}
		}
		for _, scheme := range []string{"file:", "bolt:", "gob:", "file://"} {
			path, err := session2.StorePath(scheme + rest)
			if (path == "") != (err != nil) {
				t.Errorf("%s%s: path %q, %v", scheme, rest, path, err)
			}
		}
	})
}
