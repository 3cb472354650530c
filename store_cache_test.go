package session2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
	"github.com/session2/session2/storetest"
)

// nearStore is a cache whose Load may be old, as a request's first look is. Other openings
// of the same data do not see what it saves at once, and it does not say that they would.
type nearStore struct{ houseStore }

func newNearStore(store session2.Store) nearStore {
	return nearStore{session2.NewCache(store, nil).(houseStore)}
}

func (s nearStore) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	rec, _, err := s.houseStore.(interface {
		LoadCached(ctx context.Context, id session2.ID) (session2.Record, bool, error)
	}).LoadCached(ctx, id)
	return rec, err
}

func (s nearStore) Capabilities() session2.Capabilities {
	caps := s.houseStore.Capabilities()
	caps.MultiprocessSafe, caps.MultihostSafe = false, false
	return caps
}

// A cache keeps the contract of stores with all that its store promises. Within one
// process what it has cached keeps it, too.
func TestCacheConformance(t *testing.T) {
	t.Run("file", func(t *testing.T) {
		storetest.Run(t, func(t testing.TB, dir string) session2.Store {
			return session2.NewCache(openFile(t, dir, nil), nil)
		}, nil)
	})
	t.Run("memory, cached", func(t *testing.T) {
		storetest.Run(t, func(testing.TB, string) session2.Store { return newNearStore(session2.NewMemoryStore()) }, nil)
	})
}

// The manager's own tests pass with a cache that never forgets in front of each manager's
// store, but for those that count loads, need one to fail, or read by one manager at once
// what another has written.
func TestCachedSuites(t *testing.T) {
	runAgain(t, testsite.CacheEnv, "^TestALateLookAtAFailingStoreCutsTheResponseOff$|^TestPresentedCookies$|"+
		"^TestEveryCallCanFail$|^TestExclusiveEmptying$|Conformance|^TestMemoryStore$|^TestCache",
		"LoginClickedTwice", "PeriodicRotation", "LostUpdates", "RandomHistories", "LostAnswerOfASave")
}

// pair is two processes that share a store, each with a cache in front of it.
func pair(t *testing.T) (here, there *testsite.Site, store *testsite.Brittle) {
	store = testsite.NewBrittle()
	return testsite.NewSite(t, session2.NewCache(store, nil), session2.Config{}),
		testsite.NewSite(t, session2.NewCache(store, nil), session2.Config{}), store
}

// besideAnother is a process with a cache, and one that has none, on the store.
func besideAnother(t *testing.T, cfg session2.Config) (here, elsewhere *testsite.Site, store *session2.MemoryStore) {
	store = session2.NewMemoryStore()
	return testsite.NewSite(t, session2.NewCache(store, nil), cfg), testsite.NewSite(t, store, cfg), store
}

// reads has the session in the site's cache, and returns what it reads.
func reads(st *testsite.Site, b *testsite.Browser) any { return st.Stored(b, "color") }

// post is Site.Do with a request that may change something.
func post(st *testsite.Site, b *testsite.Browser, f func(s *session2.Session)) *http.Response {
	r := httptest.NewRequest("POST", "/", nil)
	b.Send(r)
	w := httptest.NewRecorder()
	st.Handler(func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) { f(s) }).ServeHTTP(w, r)
	res := w.Result()
	b.Receive(res)
	return res
}

// Requests that only read ask the store once a second.
func TestCacheSavesLoads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, _, store := pair(t)
		b := &testsite.Browser{}
		here.Begin(b)
		calls := store.Calls()
		for range 100 {
			if got := reads(here, b); got != "green" {
				t.Fatalf("color = %v", got)
			}
		}
		time.Sleep(time.Second)
		reads(here, b)
		if n := store.Calls() - calls; n != 2 {
			t.Errorf("%d calls, want 2", n)
		}
	})
}

// What this process changes it sees at once.
func TestCacheIsCoherentInOneProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, _, _ := pair(t)
		b := &testsite.Browser{}
		here.Begin(b)
		for _, color := range []string{"red", "blue"} {
			reads(here, b)
			here.Do(b, func(s *session2.Session) { s.Set("color", color) })
			if got := reads(here, b); got != color {
				t.Errorf("color = %v, want %v", got, color)
			}
		}
		old := b.Clone()
		here.Do(b, func(s *session2.Session) { s.Renew() })
		if got := reads(here, old); got != nil {
			t.Errorf("the replaced token reads %v", got)
		}
		for name, end := range map[string]func(b *testsite.Browser, id session2.ID) error{
			"Destroy": func(b *testsite.Browser, _ session2.ID) error {
				here.Do(b.Clone(), func(s *session2.Session) { s.Destroy() })
				return nil
			},
			"Revoke": func(_ *testsite.Browser, id session2.ID) error { return here.M.Revoke(t.Context(), id) },
			"RevokeUser": func(*testsite.Browser, session2.ID) error {
				_, err := here.M.RevokeUser(t.Context(), "alice")
				return err
			},
			"DeleteOld": func(*testsite.Browser, session2.ID) error {
				_, err := here.Store.(session2.DeleteOldStore).DeleteOld(t.Context(), 0)
				return err
			},
		} {
			b := &testsite.Browser{}
			here.Begin(b)
			var id session2.ID
			here.Do(b, func(s *session2.Session) { id = s.ID() })
			testsite.Must(t, end(b, id))
			if got := reads(here, b); got != nil {
				t.Errorf("after %s, color = %v", name, got)
			}
		}
	})
}

// What another process changes is seen after MaxAge by requests that only read, and at
// once by all else.
func TestCacheIsOldForMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there, _ := pair(t)
		b := &testsite.Browser{}
		here.Begin(b)
		reads(here, b)
		there.Do(b.Clone(), func(s *session2.Session) { s.Destroy() })
		time.Sleep(time.Second - 1)
		here.Do(b, func(s *session2.Session) {
			if s.Get("color") != "green" {
				t.Error("the session that has ended is not read: no cache?")
			}
			if err := s.Check(t.Context()); !errors.Is(err, session2.ErrNotFound) {
				t.Errorf("Check: %v, want ErrNotFound", err)
			}
		})
		if got := reads(here, b); got != nil { // Check has met its end
			t.Errorf("color = %v after Check", got)
		}

		here.Begin(b)
		reads(here, b)
		there.Do(b.Clone(), func(s *session2.Session) { s.Destroy() })
		post(here, b.Clone(), func(s *session2.Session) {
			if got := s.Get("color"); got != nil {
				t.Errorf("color = %v in a POST", got)
			}
		})

		here.Begin(b)
		reads(here, b)
		there.Do(b.Clone(), func(s *session2.Session) { s.Destroy() })
		time.Sleep(time.Second)
		if got := reads(here, b); got != nil {
			t.Errorf("color = %v a second later", got)
		}
	})
}

// A login by another process is good here at once, and what it replaced stays so for
// MaxAge.
func TestCacheKnowsALoginElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there, _ := pair(t)
		b := &testsite.Browser{}
		here.Do(b, func(s *session2.Session) { s.Set("color", "green") })
		reads(here, b)
		old := b.Clone()
		there.Do(b, func(s *session2.Session) { s.SetUser("alice") })
		if got := reads(here, old); got != "green" {
			t.Errorf("the replaced token reads %v: no cache?", got)
		}
		here.Do(b, func(s *session2.Session) {
			if s.User() != "alice" || s.Get("color") != "green" {
				t.Errorf("user %q, color %v", s.User(), s.Get("color"))
			}
		})
		if got := reads(here, old); got != nil { // the new one was loaded
			t.Errorf("the replaced token reads %v", got)
		}
	})
}

// A session that another process has used is not idle here.
func TestCacheKnowsAUseElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there, store := pair(t)
		b := &testsite.Browser{}
		here.Begin(b)
		time.Sleep(30*time.Minute - time.Millisecond)
		here.Do(b, func(s *session2.Session) { s.Passive(); s.Get("color") })
		reads(there, b)
		time.Sleep(time.Millisecond)
		if got := reads(here, b); got != "green" {
			t.Errorf("color = %v", got)
		}
		touches := store.Touches.Load()
		if reads(here, b); store.Touches.Load() != touches {
			t.Error("a use is noted that another process has noted")
		}
	})
}

// A change by a request that saw an old record is made to the one that is stored, and is
// no conflict.
func TestCacheLosesNoChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there, store := pair(t)
		b := &testsite.Browser{}
		here.Begin(b)
		reads(here, b)
		there.Do(b, func(s *session2.Session) { s.Set("color", "red"); s.Set("n", 1) })
		saves := store.Saves.Load()
		here.Do(b, func(s *session2.Session) { s.Set("color", "green") }) // no change, by what is cached
		there.Do(b, func(s *session2.Session) {
			if s.Get("color") != "green" || s.Get("n") != 1 {
				t.Errorf("color = %v, n = %v", s.Get("color"), s.Get("n"))
			}
		})
		if n := store.Saves.Load() - saves; n != 1 || here.Events.Count(session2.EventConflict) != 0 {
			t.Errorf("%d saves, and %d conflicts", n, here.Events.Count(session2.EventConflict))
		}

		reads(here, b)
		there.Do(b, func(s *session2.Session) { s.Set("n", 2) })
		naive := func(s *session2.Session) { n, _ := s.Get("n").(int); s.Set("n", n+1) }
		if res := here.Do(b, naive); res.StatusCode != http.StatusConflict {
			t.Errorf("a change of what was old: %s", res.Status)
		}
		if res := here.Do(b, naive); res.StatusCode >= 400 { // what it met is not old any more
			t.Errorf("the same again: %s", res.Status)
		}
		reads(here, b)
		there.Do(b, func(s *session2.Session) { s.Set("n", 9) })
		if res := post(here, b, naive); res.StatusCode >= 400 || there.Stored(b.Clone(), "n") != 10 {
			t.Errorf("a POST: %s", res.Status)
		}
	})
}

// A form token of another process is known, and Exclusive finds what is stored.
func TestCacheIsNotAskedForTurnsAndTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there, store := pair(t)
		b := &testsite.Browser{}
		here.Begin(b)
		reads(here, b)
		var token string
		there.Do(b, func(s *session2.Session) { token = s.FormToken() })
		here.Do(b, func(s *session2.Session) {
			if ok, err := s.UseFormToken(t.Context(), token); !ok || err != nil {
				t.Errorf("UseFormToken: %v, %v", ok, err)
			}
		})
		reads(here, b)
		there.Do(b, func(s *session2.Session) { s.Set("color", "red") })
		saves := store.Saves.Load()
		exclusive(here, b, func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
			if got := s.Get("color"); got != "red" {
				t.Errorf("color = %v in Exclusive", got)
			}
			s.Set("color", "blue")
		})
		if n := store.Saves.Load() - saves; n != 2 {
			t.Errorf("%d saves, want 2", n)
		}
	})
}

// A store that is not thread-safe is lent a lock; what a store cannot do the cache cannot.
func TestCacheOfASmallStore(t *testing.T) {
	small := struct{ session2.Store }{session2.NewMemoryStore()}
	c := session2.NewCache(small, nil).(houseStore)
	if caps := c.Capabilities(); caps != (session2.Capabilities{ThreadSafe: true}) {
		t.Errorf("capabilities %+v", caps)
	}
	ctx := t.Context()
	_, deleteOld := c.DeleteOld(ctx, 0)
	_, deleteUser := c.DeleteUser(ctx, "alice")
	errs := []error{deleteOld, deleteUser, c.Touch(ctx, session2.ID{}, time.Time{}, time.Time{})}
	for _, err := range c.Iter(ctx) {
		errs = append(errs, err)
	}
	for _, err := range c.IterUser(ctx, "alice") {
		errs = append(errs, err)
	}
	if len(errs) != 5 {
		t.Errorf("%d errors, want 5", len(errs))
	}
	for _, err := range errs {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("got %v, want errors.ErrUnsupported", err)
		}
	}
	testsite.Must(t, session2.Setup(ctx, c))
	testsite.Must(t, c.Close())
	if _, err := session2.NewManager(c, session2.Config{MaxPerUser: 1}); err == nil {
		t.Error("MaxPerUser is not refused")
	}
}

// A Touch is seen at once.
func TestCacheSeesATouch(t *testing.T) {
	s := newNearStore(session2.NewMemoryStore())
	rec := fileRecord(1, "alice")
	rec.Accessed = rec.Accessed.Truncate(time.Microsecond)
	testsite.Must(t, s.Save(t.Context(), rec, 0))
	for range 3 {
		got, err := s.Load(t.Context(), rec.ID)
		if err != nil || !got.Accessed.Equal(rec.Accessed) {
			t.Fatalf("accessed %v, %v; want %v", got.Accessed, err, rec.Accessed)
		}
		rec.Accessed = rec.Accessed.Add(time.Minute)
		testsite.Must(t, s.Touch(t.Context(), rec.ID, rec.Accessed, rec.Expires))
	}
}

// When Close has returned, nothing is read any more.
func TestCacheCloses(t *testing.T) {
	s := newNearStore(session2.NewMemoryStore())
	rec := fileRecord(1, "alice")
	testsite.Must(t, s.Save(t.Context(), rec, 0))
	for range 2 {
		_, err := s.Load(t.Context(), rec.ID)
		testsite.Must(t, err)
	}
	testsite.Must(t, s.Close())
	if _, err := s.Load(t.Context(), rec.ID); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("got %v, want fs.ErrClosed", err)
	}
}

// What is loaded is the caller's, and nobody meets what he has done to it.
func TestCacheHandsOutCopies(t *testing.T) {
	cache := session2.NewCache(session2.NewMemoryStore(), nil)
	near := newNearStore(session2.NewMemoryStore())
	for _, s := range []session2.Store{cache, near} {
		rec := fileRecord(1, "alice")
		testsite.Must(t, s.Save(t.Context(), rec, 0))
		for range 3 {
			got, err := s.Load(t.Context(), rec.ID)
			if err != nil || !bytes.Equal(got.Data, rec.Data) {
				t.Fatalf("loaded %q, %v", got.Data, err)
			}
			clear(got.Data)
		}
	}
}

// Requests share what a cached record says, and none sees what another one does to it.
func TestCacheIsShared(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		store := session2.NewCache(session2.NewMemoryStore(), &session2.CacheOptions{MaxAge: time.Hour})
		st := testsite.NewSite(t, store, session2.Config{Sealed: sealed})
		b := &testsite.Browser{}
		fill := func(s *session2.Session) {
			s.SetUser("alice")
			s.Set("bytes", []byte("bytes"))
			s.Set("list", []string{"a", "b"})
			s.Flash("flash")
		}
		st.Do(b, fill)
		reads(st, b)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 200 {
					st.Do(b.Clone(), func(s *session2.Session) {
						data, _ := s.Get("bytes").([]byte)
						list, _ := s.Get("list").([]string)
						if string(data) != "bytes" || len(list) != 2 || list[0] != "a" || s.User() != "alice" {
							t.Errorf("%q, %q, %q", data, list, s.User())
						}
						clear(data)
						clear(list)
						s.Set("own", 1)
						s.Delete("list")
						s.Set("a", "b")
						s.Flash("another")
						s.FormToken()
						if f := s.Flashes(); len(f) != 2 {
							t.Errorf("flashes %v", f)
						}
						s.Clear()
						s.Discard()
					})
				}
			})
		}
		wg.Wait()
	}
}

// A cache takes no more memory than it may, with all that belongs to a session.
func TestCacheMemory(t *testing.T) {
	const most, n = 16 << 20, 20_000
	store := session2.NewMemoryStore()
	cache := session2.NewCache(store, &session2.CacheOptions{MaxAge: time.Hour, MaxBytes: most})
	near := nearStore{cache.(houseStore)}
	st := testsite.NewSite(t, store, session2.Config{})
	ids := make([]session2.ID, n)
	for i := range ids {
		st.Do(&testsite.Browser{}, func(s *session2.Session) {
			for k := range 10 {
				s.Set(fmt.Sprint(k), "short")
			}
			ids[i] = s.ID()
		})
	}
	before := heap()
	for _, id := range ids {
		_, err := near.Load(t.Context(), id)
		testsite.Must(t, err)
	}
	if taken := heap() - before; taken > most*11/10 || taken < most/2 {
		t.Errorf("%d bytes taken, want %d at most", taken, most)
	}
	runtime.KeepAlive(cache)
}

func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func ExampleNewCache() {
	store := session2.NewCache(session2.NewMemoryStore(), &session2.CacheOptions{MaxAge: 2 * time.Second})
	defer session2.Close(store)
	m, err := session2.NewManager(store, session2.Config{})
	fmt.Println(m != nil, err)
	// Output: true <nil>
}

// A logout by a GET that a cache has shown its session ends what the request's token opens by
// now, and not what it has opened a moment ago: a login in another process has replaced it.
func TestCacheLetsNoOldTokenEndALogin(t *testing.T) {
	for name, c := range map[string]struct {
		before string // who is signed in first
		do     func(*session2.Session)
		lives  bool
	}{
		"a login of a visitor":    {"", func(s *session2.Session) { s.SetUser("victim") }, true},
		"a login of another user": {"alice", func(s *session2.Session) { s.SetUser("victim") }, true},
		"a login of the same one": {"alice", func(s *session2.Session) { s.SetUser("alice") }, false},
		"Renew":                   {"alice", (*session2.Session).Renew, false},
		"another value":           {"alice", func(s *session2.Session) { s.Set("k", 2) }, false},
		"its end":                 {"alice", (*session2.Session).Destroy, false},
	} {
		for what, after := range map[string]func(*session2.Session){
			"a logout":                   func(*session2.Session) {},
			"a logout, then a message":   func(s *session2.Session) { s.Flash("bye") },
			"a logout, then a login":     func(s *session2.Session) { s.SetUser("mallory") },
			"a logout that is no logout": (*session2.Session).Discard,
		} {
			here, elsewhere, store := besideAnother(t, session2.Config{})
			b := &testsite.Browser{}
			elsewhere.Do(b, func(s *session2.Session) {
				s.Set("k", 1)
				s.SetUser(c.before)
			})
			var id session2.ID
			elsewhere.Do(b, func(s *session2.Session) { id = s.ID() })
			old := b.Clone()
			here.Do(old.Clone(), func(s *session2.Session) { s.Get("k") }) // fills the cache
			elsewhere.Do(b, c.do)
			here.Do(old, func(s *session2.Session) {
				s.Destroy()
				after(s)
			})
			has, err := store.Has(t.Context(), id)
			testsite.Must(t, err)
			want := c.lives || what == "a logout that is no logout" && name != "its end"
			if has != want {
				t.Errorf("%s, and %s by the token from before it: the session is there: %t, want %t", name, what, has, want)
			}
		}
	}
}

// Nor are sessions of a user ended by a token whose session is another user's by now.
func TestCacheRevokesNobodysOthers(t *testing.T) {
	here, elsewhere, _ := besideAnother(t, session2.Config{})
	b, other := elsewhere.Login("alice"), elsewhere.Login("alice")
	old := b.Clone()
	here.Do(old, func(s *session2.Session) { s.Get("k") })
	elsewhere.Do(b, func(s *session2.Session) { s.SetUser("bob") })
	here.Visit(old, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		if n, err := here.M.RevokeOthers(r.Context(), s); n != 0 || err == nil {
			t.Errorf("RevokeOthers = %d, %v", n, err)
		}
	})
	if elsewhere.UserOf(other) != "alice" {
		t.Error("another session was ended")
	}
	here.Do(other, func(s *session2.Session) { s.Get("k") })
	here.Visit(other, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		if n, err := here.M.RevokeOthers(r.Context(), s); n != 0 || err != nil {
			t.Errorf("RevokeOthers by a token that is good = %d, %v", n, err)
		}
	})
}

// Destroy looks past the cache, and Discard takes it back whatever was seen: what the request
// has read it has read, and what others have changed since is not overwritten.
func TestCacheDestroyAndDiscard(t *testing.T) {
	for name, c := range map[string]struct {
		sealed bool
		do     func(*session2.Session) // elsewhere
		kept   bool                    // the change after Discard lands
	}{
		"nothing":         {false, nil, true},
		"sealed":          {true, nil, true},
		"another value":   {false, func(s *session2.Session) { s.Set("n", 100) }, false},
		"its end":         {false, (*session2.Session).Destroy, false},
		"another's login": {false, func(s *session2.Session) { s.SetUser("bob") }, false},
	} {
		here, elsewhere, store := besideAnother(t, session2.Config{Sealed: c.sealed})
		b := elsewhere.Login("alice")
		elsewhere.Do(b, func(s *session2.Session) { s.Set("n", 1) })
		old := b.Clone()
		here.Do(old, func(s *session2.Session) { s.Get("n") })
		here.Do(old, func(s *session2.Session) {
			n, _ := s.Get("n").(int)
			if c.do != nil {
				elsewhere.Do(b, c.do)
			}
			s.Destroy()
			s.Discard()
			if n != 1 || s.Get("n") != 1 || s.User() != "alice" {
				t.Errorf("%s: n = %d and then %v, user %q", name, n, s.Get("n"), s.User())
			}
			s.Set("n", n+1)
		})
		got, count := elsewhere.Stored(b, "n"), records(t, store)
		if (got == 2) != c.kept || count > 1 {
			t.Errorf("%s: n = %v, kept %t; %d records", name, got, c.kept, count)
		}
	}
}

// A request that signs somebody in goes by that one, whatever the cache has shown before.
func TestCacheRevokesOthersAtALogin(t *testing.T) {
	here, elsewhere, _ := besideAnother(t, session2.Config{})
	b, other := elsewhere.Login("alice"), elsewhere.Login("bob")
	old := b.Clone()
	here.Do(old, func(s *session2.Session) { s.User() })
	elsewhere.Do(b, (*session2.Session).Destroy)
	here.Visit(old, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		s.SetUser("bob")
		if n, err := here.M.RevokeOthers(r.Context(), s); n != 1 || err != nil {
			t.Errorf("RevokeOthers = %d, %v", n, err)
		}
	})
	if elsewhere.UserOf(other) != "" {
		t.Error("the other session goes on")
	}
}

// Where the store fails, nobody knows whom a logout by a cached session would end: it fails.
func TestCacheDestroyWhereTheStoreFails(t *testing.T) {
	store := testsite.NewBrittle()
	cfg := session2.Config{CommitTimeout: 50 * time.Millisecond}
	here := testsite.NewSite(t, session2.NewCache(store, &session2.CacheOptions{MaxAge: time.Hour}), cfg)
	there := testsite.NewSite(t, store, session2.Config{})
	b := there.Login("alice")
	reads(here, b)
	store.FailLoad.Store(true) // and Delete would work
	res := here.Do(b.Clone(), (*session2.Session).Destroy)
	store.FailLoad.Store(false)
	if res.StatusCode != 503 || there.UserOf(b) != "alice" {
		t.Errorf("status %d, user %q", res.StatusCode, there.UserOf(b))
	}
}
