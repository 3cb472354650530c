package session2_test

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// sealed is a configuration.
var sealed = session2.Config{Sealed: true}

// TestSealedSuites runs the tests of the manager a second time, with the sessions of
// all sites sealed: whatever holds for sessions holds for sealed ones.
func TestSealedSuites(t *testing.T) {
	runAgain(t, testsite.SealEnv, "^TestTurnsInARecord$|^TestGolden|"+ // these know what is sealed, or where
		"^TestSessionsOfAUser$|^TestASVS_7_5_2", // want the remote address
		"LoginClickedTwice", "ThreeLoginsAtOnce", "PeriodicRotation", "RotationsFollowOneAnother", "LostAnswerOfASave",
		"LostAnswerOfACreate", "LostUpdates", "IncrementsOnAnUnreliableStore", "RandomHistories", "FormTokenIsUsedOnce",
		"CSRFTokensOfManyFirstRequests", "EmptyingASessionLosesNothing", "PlainStore", "CheckIsAUse",
		"RevokeUserWithoutAnIndexOfUsers", "Realms", "TheLibrarysOwnBytesDoNotCount", "HeaderRotation")
}

// runAgain runs the tests of the manager a second time, in a process with env set, but
// for those that skip names, and those of stores. The named ones must be among them: one
// that no longer is would not be missed.
func runAgain(t *testing.T, env, skip string, names ...string) {
	t.Helper()
	binary, err := os.Executable()
	testsite.Must(t, err)
	cmd := exec.CommandContext(t.Context(), binary, "-test.short", "-test.v", "-test.run=^Test", "-test.skip="+skip+
		"|^TestSealed|^TestHeaderSuites$|^TestCachedSuites$|"+
		"^TestStores|Conformance$|^TestFileStore|^TestOpen|^TestSavesBeside|^TestDeletionsCalledOff|^TestPitfallsAre|^TestTexts")
	cmd.Env = append(os.Environ(), env+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range names {
		if !bytes.Contains(out, []byte("--- PASS: Test"+name+" ")) {
			t.Errorf("Test%s did not run", name)
		}
	}
	t.Logf("%d tests passed again", bytes.Count(out, []byte("\n--- PASS")))
}

// fill gives b a session with all that can be secret in one, and returns its
// tokens against forgery, as a store would hold them.
func fill(st *testsite.Site, b *testsite.Browser) (marks []string) {
	st.T.Helper()
	serve := func(f func(s *session2.Session)) {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = "203.0.113.7:4711"
		r.Header.Set("User-Agent", "secret-agent")
		b.Send(r)
		w := httptest.NewRecorder()
		st.Handler(func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			f(s)
			fmt.Fprint(w, "a page")
		}).ServeHTTP(w, r)
		b.Receive(w.Result())
	}
	var form, csrf string
	serve(func(s *session2.Session) {
		s.SetUser("alice")
		s.Set("the-secret-key", "the-secret-value")
		s.Flash("the-secret-flash")
		form = s.FormToken()
	})
	serve(func(s *session2.Session) {
		s.SetLifetime(3 * time.Hour)
		s.SetPersistent(true)
		csrf = s.CSRFToken()
	})
	m, err := base64.RawURLEncoding.DecodeString(form)
	testsite.Must(st.T, err)
	masked, err := base64.RawURLEncoding.DecodeString(csrf)
	testsite.Must(st.T, err)
	for i := range masked[:16] {
		masked[i] ^= masked[16+i]
	}
	return []string{string(m), string(masked[:16])}
}

// wantFilled checks what a session of fill holds.
func wantFilled(st *testsite.Site, b *testsite.Browser) {
	st.T.Helper()
	st.Do(b, func(s *session2.Session) {
		if s.User() != "alice" || s.Get("the-secret-key") != "the-secret-value" || s.UserAgent() != "secret-agent" ||
			s.RemoteAddr() != "203.0.113.7:4711" || s.Err() != nil {
			st.T.Errorf("user %q, value %v, agent %q, address %q, %v: want what the session holds",
				s.User(), s.Get("the-secret-key"), s.UserAgent(), s.RemoteAddr(), s.Err())
		}
	})
}

// What a store does not show (command: TestNoSecretIsPrinted), a thief cannot
// compute either: a CSRF token is derived, for
// sessions that are not sealed from what the record has in the clear.
func TestSealedCSRFTokenIsNotDerivedFromTheRecord(t *testing.T) {
	for _, on := range []bool{true, false} {
		store := session2.NewMemoryStore()
		st := testsite.NewSite(t, store, session2.Config{Sealed: on})
		csrf := fill(st, &testsite.Browser{})[1]
		rec := testsite.RecordsOf(t, store)[0]
		guessed := false
		for i := 0; i+32 <= len(rec.Data); i++ {
			guess, err := hkdf.Key(sha256.New, rec.Data[i:i+32], rec.ID[:], "session2 csrf v1", 16)
			testsite.Must(t, err)
			guessed = guessed || string(guess) == csrf
		}
		if guessed == on {
			t.Errorf("sealed %t: the token can be computed: %t", on, guessed)
		}
	}
}

// What a tool sees of a sealed session is what is about it.
func TestSealedMetadata(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, sealed)
	fill(st, &testsite.Browser{})
	rec := testsite.RecordsOf(t, store)[0]
	c, err := session2.Inspect(rec)
	testsite.Must(t, err)
	if !c.Sealed || c.User != "alice" || c.Lifetime != 3*time.Hour || c.Versions[len(c.Versions)-1] != rec.Version ||
		c.RemoteAddr+c.UserAgent != "" || c.FormTokens+len(c.Flashes)+len(c.Values) != 0 {
		t.Errorf("Inspect: %+v", c)
	}
	n := 0
	for info, err := range st.M.Sessions(t.Context(), "alice") {
		testsite.Must(t, err)
		n++
		if !info.Sealed || info.ID != rec.ID || info.Created.IsZero() || info.RemoteAddr+info.UserAgent != "" {
			t.Errorf("Sessions: %+v", info)
		}
	}
	if n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
	if n := st.Events.Count(session2.EventCorrupt); n != 0 {
		t.Errorf("%d corrupt events", n)
	}
}

// replace puts a record into a store as whoever can write to it would.
func replace(t testing.TB, store session2.Store, rec session2.Record) {
	t.Helper()
	testsite.Must(t, store.Delete(context.Background(), rec.ID))
	testsite.Must(t, store.Save(context.Background(), rec, 0))
}

// wantShut checks that a browser's cookie opens nothing, and returns by which event.
func wantShut(st *testsite.Site, b *testsite.Browser, what string) session2.EventKind {
	st.T.Helper()
	before := len(st.Events.List)
	st.Do(b.Clone(), func(s *session2.Session) {
		if s.User() != "" || len(s.Keys()) > 0 || s.UserAgent() == "secret-agent" || !s.IsNew() {
			st.T.Errorf("%s: opened: user %q, keys %q", what, s.User(), s.Keys())
		}
	})
	events := st.Events.List[before:]
	if len(events) == 0 {
		st.T.Errorf("%s: no event", what)
		return 0
	}
	if err := events[0].Err; events[0].Kind == session2.EventCorrupt && !errors.Is(err, session2.ErrCorrupt) {
		st.T.Errorf("%s: %v, want ErrCorrupt", what, err)
	}
	return events[0].Kind
}

// rotated returns a site in a realm, over store, and a browser whose session was
// begun, logged in to and replaced periodically, with one that has not been told yet.
func rotated(t *testing.T, store session2.Store) (st *testsite.Site, b, late *testsite.Browser) {
	st = testsite.NewSite(t, store, session2.Config{Sealed: true, RenewEvery: time.Minute, Realm: "shop"})
	b = &testsite.Browser{}
	fill(st, b)
	st.Do(b, (*session2.Session).Renew)
	st.Do(b, func(s *session2.Session) { s.SetIdleTimeout(time.Hour) })
	time.Sleep(2 * time.Minute)
	late = b.Clone()
	wantFilled(st, b)
	wantFilled(st, late)
	return st, b, late
}

// Each bit of a record counts: whichever is changed, the session does not open, not
// even as one that holds nothing.
func TestSealedEveryBit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session2.NewMemoryStore()
		st, b, late := rotated(t, store)
		good := testsite.RecordsOf(t, store)[0]
		kinds := map[session2.EventKind]int{}
		try := func(what string, rec session2.Record) {
			for _, browser := range []*testsite.Browser{b, late} {
				replace(t, store, rec)
				kinds[wantShut(st, browser, what)]++
			}
		}
		for i := range good.Data {
			for bit := range 8 {
				rec := good
				rec.Data = bytes.Clone(good.Data)
				rec.Data[i] ^= 1 << bit
				try(fmt.Sprintf("byte %d, bit %d", i, bit), rec)
			}
			rec := good
			rec.Data = good.Data[:i]
			try(fmt.Sprintf("cut after %d bytes", i), rec)
		}
		for bit := range 64 {
			rec := good
			if rec.Version ^= 1 << bit; rec.Version != 0 {
				try(fmt.Sprintf("version, bit %d", bit), rec)
			}
		}
		for _, d := range []time.Duration{time.Microsecond, -time.Microsecond, time.Hour, -time.Second} {
			rec := good
			rec.Created = good.Created.Add(d)
			try(fmt.Sprintf("created %v later", d), rec)
		}
		for _, user := range []string{"", "alice", "bob", good.User + "x", strings.Replace(good.User, "alice", "carol", 1)} {
			rec := good
			rec.User = user
			try(fmt.Sprintf("of the user %q", user), rec)
		}
		for kind := range kinds {
			if !slices.Contains([]session2.EventKind{session2.EventCorrupt, session2.EventUnknown, session2.EventExpired,
				session2.EventReuse}, kind) {
				t.Errorf("shut by %v", kind)
			}
		}
		if kinds[session2.EventCorrupt] < 8*len(good.Data) {
			t.Errorf("events %v: most of %d bytes were to be ErrCorrupt", kinds, len(good.Data))
		}
		replace(t, store, good)
		wantFilled(st, b)
		wantFilled(st, late)
	})
}

// Parts of two records, or of two states of one, never make up a session.
func TestSealedExchanges(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, sealed)
	a, b := &testsite.Browser{}, &testsite.Browser{}
	fill(st, a)
	early := testsite.RecordsOf(t, store)[0]
	st.Do(a, func(s *session2.Session) { s.Set("more", 1) })
	alice := testsite.RecordsOf(t, store)[0]
	st.Do(b, func(s *session2.Session) { s.SetUser("carol"); s.Set("color", "green") })
	var carol session2.Record
	for _, rec := range testsite.RecordsOf(t, store) {
		if rec.User == "carol" {
			carol = rec
		}
	}
	for _, pair := range [][2]session2.Record{{alice, carol}, {carol, alice}, {alice, early}, {early, alice}} {
		mine, other := pair[0], pair[1]
		head, section := session2.SplitSealed(mine)
		otherHead, otherSection := session2.SplitSealed(other)
		for what, change := range map[string]func(rec *session2.Record){
			"another's sealed section": func(rec *session2.Record) { rec.Data = slices.Concat(head, otherSection) },
			"another's clear sections": func(rec *session2.Record) { rec.Data = slices.Concat(otherHead, section) },
			"another's data":           func(rec *session2.Record) { rec.Data = other.Data },
			"no sealed section":        func(rec *session2.Record) { rec.Data = head },
			"the sealed section twice": func(rec *session2.Record) { rec.Data = slices.Concat(rec.Data, section) },
			"the sealed section first": func(rec *session2.Record) { rec.Data = slices.Concat(head[:1], section, head[1:]) },
			"both sealed sections":     func(rec *session2.Record) { rec.Data = slices.Concat(rec.Data, otherSection) },
			"a clear value before it": func(rec *session2.Record) {
				rec.Data = slices.Concat(head, []byte{11, 2, 1, 'k'}, section)
			},
			"a clear value after it": func(rec *session2.Record) { rec.Data = append(bytes.Clone(rec.Data), 11, 2, 1, 'k') },
			"another's version":      func(rec *session2.Record) { rec.Version = other.Version },
			"another's ID":           func(rec *session2.Record) { rec.ID = other.ID },
			"all of another but the ID": func(rec *session2.Record) {
				id := rec.ID
				*rec = other
				rec.ID = id
			},
			"another's user":  func(rec *session2.Record) { rec.User = other.User },
			"another's birth": func(rec *session2.Record) { rec.Created = other.Created },
		} {
			rec := mine
			change(&rec)
			if sameRecord(rec, mine) || sameRecord(rec, early) || sameRecord(rec, alice) {
				continue // two states of one session have these in common, or it is put back whole
			}
			replace(t, store, rec)
			for _, from := range []*testsite.Browser{a, b} { // a thief tries the secret of one under the ID of the other
				_, secret, _ := strings.Cut(from.Token(), ".")
				wantShut(st, withToken(rec.ID.String()+"."+secret), what)
			}
		}
		replace(t, store, mine)
	}
	replace(t, store, alice)
	wantFilled(st, a)
	if got := st.Stored(b, "color"); got != "green" {
		t.Errorf("carol's color = %v after all that", got)
	}
}

// withToken returns a browser whose cookie is the token.
func withToken(token string) *testsite.Browser {
	return &testsite.Browser{Cookie: &http.Cookie{Name: "__Host-session", Value: token}}
}

func sameRecord(a, b session2.Record) bool {
	return a.ID == b.ID && a.Version == b.Version && a.User == b.User && a.Created.Equal(b.Created) &&
		bytes.Equal(a.Data, b.Data)
}

// What is left to whoever can write to the database: an earlier state of a record,
// whole, and the time of the last access.
func TestSealedLeavesToWhoCanWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session2.NewMemoryStore()
		st := testsite.NewSite(t, store, session2.Config{Sealed: true, Lifetime: 2 * time.Hour, IdleTimeout: time.Hour})
		b := &testsite.Browser{}
		st.Do(b, func(s *session2.Session) { s.Set("n", 1) })
		early := testsite.RecordsOf(t, store)[0]
		st.Do(b, func(s *session2.Session) { s.Set("n", 2) })
		replace(t, store, early)
		if got := st.Stored(b, "n"); got != 1 {
			t.Errorf("an earlier record, put back whole, holds %v, want 1", got)
		}
		stretch := func() {
			rec := testsite.RecordsOf(t, store)[0]
			rec.Accessed, rec.Expires = time.Now(), time.Now().Add(1000*time.Hour)
			replace(t, store, rec)
		}
		time.Sleep(61 * time.Minute)
		stretch()
		if got := st.Stored(b, "n"); got != 1 {
			t.Errorf("a session whose last access was moved holds %v, want 1", got)
		}
		time.Sleep(time.Hour)
		stretch()
		if kind := wantShut(st, b, "after its absolute limit"); kind != session2.EventExpired {
			t.Errorf("it was shut by %v", kind)
		}
	})
}

// Each rotation seals anew: what the former token's verifier yields opens the record
// no more, and the new one's nothing of before.
func TestSealedRotationReseals(t *testing.T) {
	for name, rotate := range map[string]func(s *session2.Session){
		"login":    func(s *session2.Session) { s.SetUser("alice") },
		"renew":    (*session2.Session).Renew,
		"periodic": func(s *session2.Session) { s.Keys() },
		"twin":     nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := session2.NewMemoryStore()
				st := testsite.NewSite(t, store, session2.Config{Sealed: true, RenewEvery: time.Minute})
				b := &testsite.Browser{}
				fill(st, b)
				old, before := b.Token(), testsite.RecordsOf(t, store)[0]
				time.Sleep(2 * time.Minute)
				if rotate != nil {
					st.Do(b, rotate)
				} else {
					twin := b.Clone()
					st.During(b, func(s *session2.Session) { s.Keys() }, func() {
						st.Do(twin, func(s *session2.Session) { s.SetUser("alice"); s.Set("first", 1) })
					}, func(s *session2.Session) { s.SetUser("alice"); s.Set("second", 2) })
					if b.Token() != twin.Token() || st.Stored(b, "first") != 1 || st.Stored(b, "second") != 2 {
						t.Error("the login's twin has not joined it")
					}
				}
				now, after := b.Token(), testsite.RecordsOf(t, store)[0]
				if now == old {
					t.Fatal("the token is the same")
				}
				for what, c := range map[string]struct {
					rec   session2.Record
					token string
					want  bool
				}{
					"before, old": {before, old, true}, "before, new": {before, now, false},
					"after, old": {after, old, false}, "after, new": {after, now, true},
				} {
					if got := session2.OpensSealed(c.rec, c.token); got != c.want {
						t.Errorf("%s token: opens: %t, want %t", what, got, c.want)
					}
				}
				wantFilled(st, b)
			})
		})
	}
}

// Each Save has a nonce of its own, and the same contents never look alike.
func TestSealedNonces(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, sealed)
	b := &testsite.Browser{}
	seen := map[string]bool{}
	for n := range 50 {
		st.Do(b, func(s *session2.Session) { s.Set("n", n%2) })
		_, section := session2.SplitSealed(testsite.RecordsOf(t, store)[0])
		nonce := string(section[3:15])
		if seen[nonce] {
			t.Fatal("a nonce comes twice")
		}
		seen[nonce] = true
	}
}

// To set the option, or to unset it, ends the sessions: neither manager takes the
// other's records, and none falls back to anything.
func TestSealedSwitch(t *testing.T) {
	for _, on := range []bool{true, false} {
		t.Run(fmt.Sprint("sealed before: ", on), func(t *testing.T) {
			store := session2.NewMemoryStore()
			before := testsite.NewSite(t, store, session2.Config{Sealed: on})
			b := &testsite.Browser{}
			fill(before, b)
			rec := testsite.RecordsOf(t, store)[0]
			after := testsite.NewSite(t, store, session2.Config{Sealed: !on})
			if kind := wantShut(after, b, "by a manager of the other kind"); kind != session2.EventCorrupt {
				t.Errorf("shut by %v", kind)
			}
			if _, err := after.M.Open(t.Context(), b.Token()); !errors.Is(err, session2.ErrNotFound) {
				t.Errorf("Open = %v, want ErrNotFound", err)
			}
			fresh := b.Clone()
			after.Do(fresh, func(s *session2.Session) { s.Set("color", "green") })
			if fresh.Token() == b.Token() || after.Stored(fresh, "color") != "green" {
				t.Error("the client has no fresh session")
			}
			if now, err := store.Load(t.Context(), rec.ID); err != nil || !sameRecord(now, rec) {
				t.Errorf("the other's record was changed: %v", err)
			}
			wantFilled(before, b)
		})
	}
}

// A request that has the session while another kind of manager, or whoever can write
// to the database, replaces its record is not fooled by it either.
func TestSealedCommitOverWhatWasReplaced(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, rec *session2.Record){
		"a clear record": func(t *testing.T, rec *session2.Record) {
			head, _ := session2.SplitSealed(*rec)
			rec.Data = slices.Concat(head, []byte{11, 2, 1, 'k'})
		},
		"a record without contents": func(t *testing.T, rec *session2.Record) { rec.Data, _ = session2.SplitSealed(*rec) },
		"a damaged record":          func(t *testing.T, rec *session2.Record) { rec.Data[len(rec.Data)-1] ^= 1 },
		"the same anew":             func(t *testing.T, rec *session2.Record) {},
	} {
		for what, second := range map[string]func(s *session2.Session){
			"changes": func(s *session2.Session) { s.Set("late", 1) },
			"a login": func(s *session2.Session) { s.SetUser("alice"); s.Set("late", 1) },
		} {
			store := session2.NewMemoryStore()
			st := testsite.NewSite(t, store, sealed)
			b := &testsite.Browser{}
			fill(st, b)
			id := testsite.RecordsOf(t, store)[0].ID
			var planted session2.Record
			res, err := st.During(b, func(s *session2.Session) { s.Keys() }, func() {
				rec, err := store.Load(t.Context(), id)
				testsite.Must(t, err)
				change(t, &rec)
				rec.Version++
				replace(t, store, rec)
				planted = rec
			}, second)
			if login := what == "a login"; login && (err != nil || st.Stored(b, "late") != 1 ||
				st.Stored(b, "the-secret-key") != nil) {
				t.Errorf("%s, %s: %v, and the session is not one of its own", name, what, err)
			} else if !login && (!errors.Is(err, session2.ErrNotFound) || res.StatusCode != 200) {
				t.Errorf("%s, %s: status %d, %v; want 200 and ErrNotFound", name, what, res.StatusCode, err)
			}
			if n := st.Events.Count(session2.EventCorrupt); n != 1 {
				t.Errorf("%s, %s: %d corrupt events, want 1", name, what, n)
			}
			if now, err := store.Load(t.Context(), id); err != nil || !sameRecord(now, planted) {
				t.Errorf("%s, %s: the record was written to: %v", name, what, err)
			}
		}
	}
}

// A Save that landed, and whose answer was lost, has its record opened as well, if
// nobody has damaged it in between.
func TestSealedSaveThatLanded(t *testing.T) {
	for _, damaged := range []bool{false, true} {
		store := newHookStore()
		st := testsite.NewSite(t, store, sealed)
		b := &testsite.Browser{}
		fill(st, b)
		store.set(func() {
			store.onSave = func(rec session2.Record, prev session2.Version, save func() error) error {
				store.set(func() { store.onSave = nil })
				testsite.Must(t, save())
				if damaged {
					rec.Data = bytes.Clone(rec.Data)
					rec.Data[len(rec.Data)-1] ^= 1
					replace(t, store.MemoryStore, rec)
				}
				return session2.ErrUncertain
			}
		})
		var err error
		var later any
		st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			s.Set("n", 1)
			err = s.Commit(r.Context())
			later = s.Get("the-secret-key")
			s.Set("m", 2)
			fmt.Fprint(w, "a page")
		})
		switch {
		case damaged && (!errors.Is(err, session2.ErrNotFound) || later != nil ||
			st.Events.Count(session2.EventCorrupt) == 0):
			t.Errorf("damaged meanwhile: %v, the value %v", err, later)
		case !damaged && (err != nil || later != "the-secret-value" || st.Stored(b, "n") != 1 || st.Stored(b, "m") != 2):
			t.Errorf("landed: %v, the values %v, %v, %v", err, later, st.Stored(b, "n"), st.Stored(b, "m"))
		}
	}
}

// Sessions are ended by those who have no key to them, and a record that has ended is
// never opened, whatever its times are made to say.
func TestSealedEnds(t *testing.T) {
	for name, end := range map[string]func(st *testsite.Site, b *testsite.Browser) error{
		"Revoke": func(st *testsite.Site, b *testsite.Browser) error {
			id, err := session2.ParseID(b.Token()[:32])
			return errors.Join(err, st.M.Revoke(st.T.Context(), id))
		},
		"RevokeUser": func(st *testsite.Site, b *testsite.Browser) error {
			n, err := st.M.RevokeUser(st.T.Context(), "alice")
			if n != 1 {
				return fmt.Errorf("%d sessions ended: %w", n, err)
			}
			return err
		},
		"RevokeOthers": func(st *testsite.Site, b *testsite.Browser) (err error) {
			st.Do(st.Login("alice"), func(s *session2.Session) { _, err = st.M.RevokeOthers(st.T.Context(), s) })
			return err
		},
		"Destroy": func(st *testsite.Site, b *testsite.Browser) error {
			st.Do(b.Clone(), (*session2.Session).Destroy)
			return nil
		},
		"Destroy with another": func(st *testsite.Site, b *testsite.Browser) error {
			other := st.Login("bob")
			st.Cookies([]string{b.Token(), other.Token()}, (*session2.Session).Destroy)
			return nil
		},
		"emptying": func(st *testsite.Site, b *testsite.Browser) error {
			st.Do(b.Clone(), func(s *session2.Session) { s.Clear(); s.SetUser("") })
			return nil
		},
		"another request's emptying": func(st *testsite.Site, b *testsite.Browser) error {
			st.During(b.Clone(), func(s *session2.Session) { s.Keys() }, func() {
				st.Do(b.Clone(), func(s *session2.Session) { s.Clear(); s.SetUser("") })
			}, func(*session2.Session) {})
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := newHookStore()
			st := testsite.NewSite(t, listed{store, store}, sealed)
			b := &testsite.Browser{}
			fill(st, b)
			id, err := session2.ParseID(b.Token()[:32])
			testsite.Must(t, err)
			var ended []session2.Record // as a Save left it, just before the Delete
			store.set(func() {
				store.onDel = func(of session2.ID) error {
					if rec, err := store.MemoryStore.Load(t.Context(), of); err == nil && of == id {
						ended = append(ended, rec)
					}
					return nil
				}
			})
			testsite.Must(t, end(st, b))
			if len(ended) == 0 {
				t.Fatal("the session was not ended")
			}
			wantShut(st, b, "ended")
			for _, rec := range ended {
				if rec.Expires.After(time.Now()) {
					continue // deleted as it was: a backup of it opens, as any does
				}
				rec.Accessed, rec.Expires = time.Now(), time.Now().Add(time.Hour)
				replace(t, store.MemoryStore, rec)
				wantShut(st, b, "put back")
				if _, section := session2.SplitSealed(rec); section != nil || bytes.Contains(rec.Data, []byte("secret")) {
					t.Error("the record of an ended session has contents")
				}
			}
		})
	}
}

// The last request of a session that came to hold nothing ends it without its token,
// but not if another process has put something into it by then.
func TestSealedEndOfAnEmptiedSession(t *testing.T) {
	for _, refilled := range []bool{false, true} {
		store := session2.NewMemoryStore()
		st, elsewhere := testsite.NewSite(t, store, sealed), testsite.NewSite(t, store, sealed)
		b := &testsite.Browser{}
		st.Do(b, func(s *session2.Session) { s.Set("n", 1) })
		st.Visit(b, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			s.Keys()
			fmt.Fprint(w, "a stream begins")
			st.Do(b.Clone(), (*session2.Session).Clear)
			if n := records(t, store); n != 1 {
				t.Fatalf("%d records while a request has the session, want 1", n)
			}
			if refilled {
				elsewhere.Do(b.Clone(), func(s *session2.Session) { s.Set("n", 2) })
			}
		})
		switch {
		case refilled && st.Stored(b, "n") != 2:
			t.Errorf("what another process has put into the session is gone")
		case !refilled && records(t, store) != 0:
			t.Errorf("%d records after the last request, want 0", records(t, store))
		}
	}
}

// listed is a store without Touch and without an index of users.
type listed struct {
	session2.Store
	session2.IterStore
}

// RevokeUser ends the sessions that a manager of the other kind has begun as well.
func TestSealedRevokeUserOfBothKinds(t *testing.T) {
	for _, on := range []bool{true, false} {
		store := session2.NewMemoryStore()
		st := testsite.NewSite(t, store, session2.Config{Sealed: on})
		st.Begin(&testsite.Browser{})
		m, err := session2.NewManager(listed{store, store}, session2.Config{Sealed: !on})
		testsite.Must(t, err)
		if n, err := m.RevokeUser(t.Context(), "alice"); n != 1 || err != nil || records(t, store) != 0 {
			t.Errorf("sealed %t: RevokeUser = %d, %v; %d records are left", on, n, err, records(t, store))
		}
	}
}

// A handler that runs for long looks after its session in a store without Touch: the
// access is a Save, which seals anew although the token has been replaced meanwhile.
func TestSealedCheckWithoutTouch(t *testing.T) {
	for name, meanwhile := range map[string]func(s *session2.Session){
		"nothing":       nil,
		"renewed":       (*session2.Session).Renew,
		"another login": func(s *session2.Session) { s.SetUser("alice") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := session2.NewMemoryStore()
				st := testsite.NewSite(t, listed{store, store}, session2.Config{Sealed: true, IdleTimeout: 30 * time.Minute})
				b := &testsite.Browser{}
				fill(st, b)
				first := b.Clone()
				st.Do(first, func(s *session2.Session) {
					s.Keys()
					if meanwhile != nil {
						st.Do(b, meanwhile)
					}
					for range 4 {
						time.Sleep(20 * time.Minute)
						if err := s.Check(t.Context()); err != nil {
							t.Errorf("Check = %v", err)
						}
					}
				})
				wantFilled(st, b)
			})
		})
	}
}

// Check tells of a record that was tampered with.
func TestSealedCheckOfADamagedRecord(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, sealed)
	b := &testsite.Browser{}
	fill(st, b)
	st.Do(b, func(s *session2.Session) {
		s.Keys()
		good := testsite.RecordsOf(t, store)[0]
		for _, change := range []func(rec *session2.Record){
			func(rec *session2.Record) { rec.Data[len(rec.Data)-1] ^= 1 },
			func(rec *session2.Record) { rec.Data, _ = session2.SplitSealed(*rec) },
		} {
			rec := good
			rec.Data = bytes.Clone(good.Data)
			change(&rec)
			replace(t, store, rec)
			if err := s.Check(t.Context()); !errors.Is(err, session2.ErrNotFound) || !errors.Is(err, session2.ErrCorrupt) {
				t.Errorf("Check = %v, want ErrNotFound and ErrCorrupt", err)
			}
		}
		replace(t, store, good)
		if err := s.Check(t.Context()); err != nil {
			t.Errorf("Check = %v", err)
		}
	})
}

// What sealing adds does not count against MaxBytes.
func TestSealedMaxBytes(t *testing.T) {
	for _, on := range []bool{true, false} {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Sealed: on, MaxBytes: 1000})
		largest := 0
		for n := 900; n < 1000; n++ {
			res := st.Do(&testsite.Browser{}, func(s *session2.Session) { s.Set("key", strings.Repeat("x", n)) })
			if res.StatusCode == 200 {
				largest = n
			}
		}
		if largest != 992 {
			t.Errorf("sealed %t: %d bytes fit", on, largest)
		}
	}
}

// TestSealedGolden reads what the first release with Sealed wrote.
func TestSealedGolden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it is the year 2000
		const token = "b16d048de2b5c3cdaf3adaad5d962f62.EzkJ3md8RsGyMEQFqFK5t0j0wfLOh6yNBspyoPyhMr4"
		data, err := hex.DecodeString("" +
			"010128c327a982421f16f2eb7a69a0d4751b8cee339873f2b00d580cb9ecfe98c2b94500035d013b37e000031028b8f7cff6" +
			"c273773a14a38b8370a02f0408000009d29229e000050101119f010113873bd2dd051d23dbc58b41da3760fdd14179ef2295" +
			"e481b377c07519fe85252acfbcbdd1fad2ab3b50916f729e99f4ca2c9aeac3f5d8e6a1047d1e7abc17664d3230f62e1dc21a" +
			"a7757ab7a1926f06f76e9f6da64b3cdb1f9c489d58f596ac7e8e9262f827a5ecefc1ad1db590905a40b6180604be24e3dc75" +
			"c4524a0f096557c709b37d60fa5753c5e4e76cd234193b85c79e83ff05ec8e8e9535fc05")
		testsite.Must(t, err)
		id, err := session2.ParseID(token[:32])
		testsite.Must(t, err)
		now := time.Now()
		store := session2.NewMemoryStore()
		replace(t, store, session2.Record{ID: id, Version: 0x3a14a38b8370a02f, User: "alice", Created: now, Accessed: now,
			Expires: now.Add(30 * time.Minute), Data: data})
		st := testsite.NewSite(t, store, sealed)
		b := withToken(token)
		wantFilled(st, b)
		st.Do(b, func(s *session2.Session) { s.Set("more", 1) })
		wantFilled(st, b)
	})
}
