package session2_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
	"github.com/session2/session2/storetest"
)

// A store that moves sessions is a store, in each of its phases, and with processes in
// different ones.
func TestMigratingConformance(t *testing.T) {
	over := func(old, next session2.Store, hold bool) *session2.Migrating {
		m := session2.NewMigrating(old, next)
		m.Hold(hold)
		return m
	}
	inMemory := func(hold bool) func(testing.TB, string) session2.Store {
		return func(testing.TB, string) session2.Store {
			return over(session2.NewMemoryStore(), session2.NewMemoryStore(), hold)
		}
	}
	for name, opened := range map[string]func(t testing.TB, dir string) session2.Store{
		"moves": inMemory(false),
		"holds": inMemory(true),
		"mixed": func(t testing.TB, dir string) session2.Store { // opened again, and by several processes
			old, next := openFile(t, filepath.Join(dir, "old"), nil), openFile(t, filepath.Join(dir, "new"), nil)
			return &mixed{over(old, next, false), over(old, next, true)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, opened, nil)
		})
	}
}

// mixed makes each Save by one of two stores, of which one holds.
type mixed struct {
	*session2.Migrating
	holding *session2.Migrating
}

func (m *mixed) Close() error { return errors.Join(m.Migrating.Close(), m.holding.Close()) }

func (m *mixed) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	if rand.IntN(2) == 0 {
		return m.holding.Save(ctx, rec, prev)
	}
	return m.Migrating.Save(ctx, rec, prev)
}

// An application moves to another store in the steps of the documentation, while it is
// used: everybody stays signed in, no count is lost, and who logs out is out.
func TestMigratingAnApplication(t *testing.T) {
	old, next := session2.NewMemoryStore(), session2.NewMemoryStore()
	migrating := func(hold bool) *session2.Migrating {
		m := session2.NewMigrating(old, next)
		m.Hold(hold)
		return m
	}
	moves := migrating(false)
	count := func(s *session2.Session) { migrated.Update(s, func(n int) int { return n + 1 }) }
	// Of each deployment, the new release beside the one before.
	steps := [][]session2.Store{
		{old},
		{old, migrating(true)},
		{migrating(true), moves},
		{moves, next},
	}
	idle := testsite.NewSite(t, old, session2.Config{}).Login("erin") // comes back at the end
	var browsers []*testsite.Browser
	users := func() []string { return []string{"alice", "bob", "carol", "dave"}[:len(browsers)] }
	for step, stores := range steps {
		var sites []*testsite.Site
		for _, store := range stores {
			sites = append(sites, testsite.NewSite(t, store, session2.Config{}))
		}
		if step == 3 {
			if n, err := moves.Copy(t.Context(), nil); n == 0 || err != nil {
				t.Fatalf("Copy: moved %d, %v", n, err)
			}
			if n, err := moves.Left(t.Context()); n != 0 || err != nil {
				t.Fatalf("Left: %d, %v", n, err)
			}
		}
		browsers = append(browsers, sites[0].Login([]string{"alice", "bob", "carol", "dave"}[step]))
		for i, b := range browsers {
			for _, site := range sites {
				site.Do(b, count)
				if got, want := site.UserOf(b), users()[i]; got != want {
					t.Errorf("step %d: got user %q, want %q", step, got, want)
				}
			}
		}
	}
	last := testsite.NewSite(t, next, session2.Config{})
	if got := last.UserOf(idle); got != "erin" {
		t.Errorf("who was away is %q", got)
	}
	for i, b := range browsers {
		want := 0
		for _, stores := range steps[i:] {
			want += len(stores)
		}
		last.Do(b, func(s *session2.Session) {
			if n, _ := migrated.Get(s); n != want {
				t.Errorf("%s: counted %d, want %d", s.User(), n, want)
			}
		})
	}
}

var migrated = session2.NewKey[int]("count")

// A session that ended stays ended, also for a process that stood still at any step of
// moving it.
func TestMigratingSlowly(t *testing.T) {
	for name, end := range map[string]func(ctx context.Context, m *session2.Migrating, rec session2.Record) (int, error){
		"Delete": func(ctx context.Context, m *session2.Migrating, rec session2.Record) (int, error) {
			return 1, m.Delete(ctx, rec.ID)
		},
		"DeleteUser": func(ctx context.Context, m *session2.Migrating, rec session2.Record) (int, error) {
			return m.DeleteUser(ctx, rec.User)
		},
	} {
		t.Run(name, func(t *testing.T) {
			const saves = 4
			for pause := range saves {
				old, next := session2.NewMemoryStore(), session2.NewMemoryStore()
				rec := houseRecord(1, "alice")
				testsite.Must(t, old.Save(t.Context(), rec, 0))
				m := session2.NewMigrating(old, next)
				slow, made := pausing(old, next, pause+1, func() {
					if n, err := end(t.Context(), m, rec); n != 1 || err != nil {
						t.Errorf("pause %d: deleted %d, %v", pause, n, err)
					}
				})
				if _, err := slow.Copy(t.Context(), nil); err != nil {
					t.Errorf("pause %d: Copy: %v", pause, err)
				}
				if *made <= pause {
					t.Errorf("a move makes %d saves", *made)
				}
				if _, err := m.Load(t.Context(), rec.ID); !errors.Is(err, session2.ErrNotFound) {
					t.Errorf("pause %d: Load: got %v, want %v", pause, err, session2.ErrNotFound)
				}
				if n, err := m.Left(t.Context()); n != 0 || err != nil {
					t.Errorf("pause %d: Left: %d, %v", pause, n, err)
				}
				testsite.Must(t, m.Save(t.Context(), rec, 0)) // an ID may be used again
				if got, err := m.Load(t.Context(), rec.ID); err != nil || got.User != rec.User {
					t.Errorf("pause %d: Load of a record that began anew: got %v, %v", pause, got.User, err)
				}
			}
		})
	}
}

// Who deletes a user's records in each store by itself, as the command line does, begins with the
// old store, and ends with the new one once more, for what has stood still in its move meanwhile.
func TestMigratingDeletedInEachStore(t *testing.T) {
	const saves = 4
	for pause := range saves {
		for _, moving := range []bool{false, true} { // it moves until both are done, or between the two
			old, next := session2.NewMemoryStore(), session2.NewMemoryStore()
			rec := houseRecord(1, "alice")
			testsite.Must(t, old.Save(t.Context(), rec, 0))
			end := func(store session2.UserStore) {
				_, err := store.DeleteUser(t.Context(), rec.User)
				testsite.Must(t, err)
			}
			slow, _ := pausing(old, next, pause+1, func() {
				end(old)
				if moving {
					end(next)
				}
			})
			if _, err := slow.Copy(t.Context(), nil); err != nil {
				t.Errorf("pause %d: Copy: %v", pause, err)
			}
			end(next)
			if _, err := session2.NewMigrating(old, next).Load(t.Context(), rec.ID); !errors.Is(err, session2.ErrNotFound) {
				t.Errorf("pause %d, moving %v: got %v, want %v", pause, moving, err, session2.ErrNotFound)
			}
		}
	}
}

// What is being created has nothing left to move, whichever step it is at.
func TestMigratingLeftBesideLogins(t *testing.T) {
	for pause := range 4 {
		old, next := session2.NewMemoryStore(), session2.NewMemoryStore()
		m := session2.NewMigrating(old, next)
		slow, made := pausing(old, next, pause+1, func() {
			n, err := m.Left(t.Context())
			moved, copyErr := m.Copy(t.Context(), nil)
			if n != 0 || moved != 0 || err != nil || copyErr != nil {
				t.Errorf("pause %d: %d left, %v; moved %d, %v", pause, n, err, moved, copyErr)
			}
		})
		rec := houseRecord(1, "alice")
		testsite.Must(t, slow.Save(t.Context(), rec, 0))
		if got, err := next.Load(t.Context(), rec.ID); err != nil || got.Version != rec.Version || *made <= pause {
			t.Errorf("pause %d of %d: version %d, %v", pause, *made, got.Version, err)
		}
	}
}

// pausing moves sessions, and calls meanwhile before its nth Save in either store. It counts
// them in made.
func pausing(old, next *session2.MemoryStore, n int, meanwhile func()) (m *session2.Migrating, made *int) {
	made = new(int)
	counted := func(store *session2.MemoryStore) session2.Store {
		h := hooked(store)
		h.onSave = func(_ session2.Record, _ session2.Version, save func() error) error {
			if *made++; *made == n {
				meanwhile()
			}
			return save()
		}
		return h
	}
	return session2.NewMigrating(counted(old), counted(next)), made
}

// Whatever call fails in the middle of a move, the session is as it was, and moves when it
// is asked for again.
func TestMigratingBesideFailures(t *testing.T) {
	for n := range 20 {
		old, next := session2.NewMemoryStore(), session2.NewMemoryStore()
		rec := houseRecord(1, "alice")
		testsite.Must(t, old.Save(t.Context(), rec, 0))
		left := n // calls until one fails
		fail := func(session2.ID) error {
			if left--; left == -1 {
				return testsite.ErrDown
			}
			return nil
		}
		m := session2.NewMigrating(failingBy(old, fail), failingBy(next, fail))
		later := rec
		later.Version, later.Data = 77, []byte("later")
		first := m.Save(t.Context(), later, rec.Version)
		failed := left < 0
		left = 1000
		if err := m.Save(t.Context(), later, rec.Version); err != nil {
			t.Errorf("call %d: Save again: %v", n, err)
		}
		got, err := m.Load(t.Context(), rec.ID)
		if err != nil || got.Version != later.Version || string(got.Data) != "later" {
			t.Errorf("call %d: got version %d, %v", n, got.Version, err)
		}
		if alone, err := next.Load(t.Context(), rec.ID); err != nil || alone.Version != later.Version {
			t.Errorf("call %d: what was acknowledged is not in the new store alone: version %d, %v", n, alone.Version, err)
		}
		if failed != (first != nil) || n == 0 && !failed {
			t.Errorf("call %d: failed %v, and Save returned %v", n, failed, first)
		}
		if !failed {
			return
		}
	}
	t.Error("a Save makes more than 20 calls")
}

// Wherever a Delete is broken off, what is listed is what is there.
func TestMigratingDeleteIsBrokenOff(t *testing.T) {
	for n := range 20 {
		old, next := session2.NewMemoryStore(), session2.NewMemoryStore()
		rec := houseRecord(1, "alice")
		testsite.Must(t, old.Save(t.Context(), rec, 0))
		left := n // calls until all fail
		fail := func(session2.ID) error {
			if left--; left < 0 {
				return testsite.ErrDown
			}
			return nil
		}
		err := session2.NewMigrating(failingBy(old, fail), failingBy(next, fail)).Delete(t.Context(), rec.ID)
		after := session2.NewMigrating(old, next)
		listed := len(testsite.RecordsOf(t, after))
		there, _ := after.Has(t.Context(), rec.ID)
		if there != (listed == 1) || err == nil && there {
			t.Errorf("after %d calls, and %v: %d records are listed, and it is there: %v", n, err, listed, there)
		}
		if err == nil {
			return
		}
	}
	t.Error("a Delete makes more than 20 calls")
}

// failingBy has fail decide on each Load, Save and Delete before it is made.
func failingBy(store *session2.MemoryStore, fail func(session2.ID) error) *hookStore {
	h := hooked(store)
	h.onLoad, h.onDel = fail, fail
	h.onSave = func(rec session2.Record, _ session2.Version, save func() error) error {
		if err := fail(rec.ID); err != nil {
			return err
		}
		return save()
	}
	return h
}

// Whoever uses one of the stores alone takes the markers in it for nobody's sessions.
func TestMigratingLeavesNothingCorrupt(t *testing.T) {
	old, next := session2.NewMemoryStore(), session2.NewMemoryStore()
	m := session2.NewMigrating(old, next)
	before := testsite.NewSite(t, old, session2.Config{})
	b, torn := before.Login("alice"), before.Login("bob")
	during := testsite.NewSite(t, m, session2.Config{})
	during.Do(b.Clone(), func(s *session2.Session) { s.Destroy() })
	failing := hooked(old)
	failing.onSave = func(session2.Record, session2.Version, func() error) error { return testsite.ErrDown }
	if _, err := session2.NewMigrating(failing, next).Copy(t.Context(), nil); !errors.Is(err, testsite.ErrDown) {
		t.Fatalf("Copy: got %v, want %v", err, testsite.ErrDown)
	}
	for name, store := range map[string]*session2.MemoryStore{"old": old, "new": next} {
		after := testsite.NewSite(t, store, session2.Config{})
		for user, b := range map[string]*testsite.Browser{"alice": b.Clone(), "bob": torn.Clone()} {
			got, corrupt := after.UserOf(b), after.Events.Count(session2.EventCorrupt)
			if got != "" && (name != "old" || user != "bob") || corrupt != 0 {
				t.Errorf("%s store: %s is %q, and %d records are corrupt", name, user, got, corrupt)
			}
		}
		marked := 0
		for _, rec := range testsite.RecordsOf(t, store) {
			c, err := session2.Inspect(rec)
			testsite.Must(t, err)
			if strings.HasPrefix(c.Realm, "session2: ") {
				marked++
			}
		}
		if marked == 0 {
			t.Errorf("%s store: there is no marker", name)
		}
	}
}

// A store of nil is told at once, and not by the first request. What one store cannot do is
// said, and the other is swept all the same.
func TestMigratingNeedsTwoStores(t *testing.T) {
	for _, pair := range [][2]session2.Store{{nil, session2.NewMemoryStore()}, {session2.NewMemoryStore(), nil}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("NewMigrating(%v, %v) returns a store", pair[0], pair[1])
				}
			}()
			session2.NewMigrating(pair[0], pair[1])
		}()
	}
	next := session2.NewMemoryStore()
	over := houseRecord(1, "alice")
	over.Expires = over.Created
	testsite.Must(t, next.Save(t.Context(), over, 0))
	m := session2.NewMigrating(struct{ session2.Store }{session2.NewMemoryStore()}, next)
	if n, err := m.DeleteOld(t.Context(), time.Hour); n != 1 || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("DeleteOld: got %d, %v, want 1 and %v", n, err, errors.ErrUnsupported)
	}
	for _, err := range m.IterUser(t.Context(), "alice") {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("IterUser: got %v, want %v", err, errors.ErrUnsupported)
		}
	}
	if _, err := m.Copy(t.Context(), nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Copy: got %v, want %v", err, errors.ErrUnsupported)
	}
}

// What moves is created and read before it is removed.
func TestMigratingToAStoreThatForgets(t *testing.T) {
	old, next := session2.NewMemoryStore(), session2.NewMemoryStore()
	rec := houseRecord(1, "alice")
	testsite.Must(t, old.Save(t.Context(), rec, 0))
	cutting := hooked(next)
	cutting.onSave = func(rec session2.Record, prev session2.Version, _ func() error) error {
		rec.Data = rec.Data[:len(rec.Data)/2]
		return next.Save(t.Context(), rec, prev)
	}
	m := session2.NewMigrating(old, cutting)
	if _, err := m.Copy(t.Context(), nil); err == nil || !strings.Contains(err.Error(), rec.ID.String()) {
		t.Errorf("Copy: got %v, want an error that names %v", err, rec.ID)
	}
	if n, err := m.Left(t.Context()); n != 1 || err != nil {
		t.Errorf("Left: got %d, %v, want the record", n, err)
	}
}

// Sessions move to another store; the application uses the migrating one meanwhile.
func ExampleNewMigrating() {
	ctx := context.Background()
	old, next := session2.NewMemoryStore(), session2.NewMemoryStore()
	rec := session2.Record{ID: session2.ID{1}, Version: 1, User: "alice", Expires: time.Now().Add(time.Hour)}
	if err := old.Save(ctx, rec, 0); err != nil {
		panic(err)
	}

	store := session2.NewMigrating(old, next)
	if err := session2.Setup(ctx, store); err != nil { // of both, before the first request
		panic(err)
	}
	log.SetFlags(0)
	log.SetOutput(os.Stdout)
	defer log.SetOutput(os.Stderr)

	moved, err := store.Copy(ctx, func(moved int) { log.Print(moved, " moved") })
	if err != nil {
		panic(err)
	}

	left, err := store.Left(ctx) // 0: from the next start on, the new store alone is enough
	fmt.Println(moved, left, err)
	// Output:
	// 1 moved
	// 1 0 <nil>
}
