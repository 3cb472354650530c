package session2_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// once makes the next Save be answered by f, and those after it by the store.
func (h *hookStore) once(f func(rec session2.Record, prev session2.Version, save func() error) error) {
	h.set(func() {
		h.onSave = func(rec session2.Record, prev session2.Version, save func() error) error {
			h.set(func() { h.onSave = nil })
			return f(rec, prev, save)
		}
	})
}

func uncertain() error { return fmt.Errorf("save: %w", session2.ErrUncertain) }

func TestLogoutBesideACreateThatIsUncertain(t *testing.T) {
	for _, landed := range []bool{true, false} {
		t.Run(fmt.Sprint("landed ", landed), func(t *testing.T) {
			store := newHookStore()
			st := testsite.NewSite(t, store, session2.Config{})
			b := st.Login("alice")
			old := b.Clone()
			store.once(func(_ session2.Record, _ session2.Version, save func() error) error {
				if landed {
					if err := save(); err != nil {
						t.Error(err)
					}
				}
				return uncertain()
			})
			res := st.Do(b, func(s *session2.Session) { s.Destroy(); s.Flash("bye") })
			if res.StatusCode != 200 {
				t.Fatalf("status %d", res.StatusCode)
			}
			if user := st.UserOf(old); user != "" {
				t.Errorf("a logout was acknowledged, and the old token is still %s", user)
			}
			if n := st.Events.Count(session2.EventDestroyed); n != 1 {
				t.Errorf("%d destroyed events, want 1", n)
			}
			st.Do(b, func(s *session2.Session) {
				if f := s.Flashes(); len(f) != 1 || f[0] != "bye" {
					t.Errorf("Flashes() = %v in the session that was begun after the logout", f)
				}
			})
		})
	}
}

func TestCreateThatIsUncertainIsNeverAFalseSuccess(t *testing.T) {
	for _, landed := range []bool{true, false} {
		t.Run(fmt.Sprint("landed ", landed), func(t *testing.T) {
			store := newHookStore()
			st := testsite.NewSite(t, store, session2.Config{})
			store.once(func(_ session2.Record, _ session2.Version, save func() error) error {
				if landed {
					if err := save(); err != nil {
						t.Error(err)
					}
				}
				return uncertain()
			})
			b := &testsite.Browser{}
			res := st.Do(b, func(s *session2.Session) { s.Set("cart", "book") })
			if res.StatusCode != 200 {
				t.Fatalf("status %d", res.StatusCode)
			}
			st.Do(b, func(s *session2.Session) {
				if s.Get("cart") != "book" {
					t.Error("the client was told of a success, and nothing is stored")
				}
			})
			if n := records(t, store); n != 1 {
				t.Errorf("%d records, want 1", n)
			}
		})
	}
}

func TestNobodyReadsOnInASessionThatAnotherUserTookOver(t *testing.T) {
	for _, rotated := range []bool{false, true} {
		t.Run(fmt.Sprint("rotated ", rotated), func(t *testing.T) {
			store := newHookStore()
			st := testsite.NewSite(t, store, session2.Config{})
			b := st.Login("alice")
			old := b.Clone()
			store.once(func(_ session2.Record, _ session2.Version, save func() error) error {
				if err := save(); err != nil {
					t.Error(err)
				}
				if rotated { // a twin of the login has the new token, and hands it on
					st.Do(b, func(s *session2.Session) { s.SetUser("alice") })
				}
				st.Do(b, func(s *session2.Session) { s.SetUser("bob"); s.Set("secret", "bob's") })
				return uncertain()
			})
			res := st.Do(old, func(s *session2.Session) {
				s.Set("k", 1)
				if rotated {
					s.SetUser("alice")
				}
				if err := s.Commit(t.Context()); err != nil {
					t.Errorf("Commit = %v for what has landed", err)
				}
				if s.User() == "bob" || s.Has("secret") {
					t.Errorf("alice's request goes on as %q with keys %v", s.User(), s.Keys())
				}
			})
			if len(res.Cookies()) != 0 || st.UserOf(b) != "bob" {
				t.Errorf("%d cookies for the loser, and the winner is %q", len(res.Cookies()), st.UserOf(b))
			}
		})
	}
}

func TestChangeAfterAnEmptyingIsNotDeletedWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{})
		b := &testsite.Browser{}
		st.Do(b, func(s *session2.Session) { s.Set("k", 1) })
		other := b.Clone()
		elsewhere := testsite.NewSite(t, store, session2.Config{}) // as of another process
		time.Sleep(time.Second)
		// other has loaded; b empties; a third request's Touch comes between b's
		// Save and its Delete; then other commits.
		_, dropped := elsewhere.During(other, func(s *session2.Session) { s.Set("mine", 1) }, func() {
			store.onDel = func(id session2.ID) error {
				store.MemoryStore.Touch(t.Context(), id, time.Now(), time.Now().Add(time.Hour))
				return errors.New("slow, or crashed")
			}
			st.Do(b, func(s *session2.Session) { s.Delete("k") })
		}, func(*session2.Session) {})
		if !errors.Is(dropped, session2.ErrNotFound) {
			t.Errorf("Err() = %v for a change to a session that was emptied and touched; "+
				"its Delete would have taken it along", dropped)
		}
	})
}

// TestOneVersionIsOneContent is about a Save that lands between the look that
// found it missing and the Save asked again: the store then takes the second
// for the first, so both must say the same.
func TestOneVersionIsOneContent(t *testing.T) {
	store := newHookStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	store.once(func(_ session2.Record, _ session2.Version, save func() error) error {
		loads := store.count("load")
		store.set(func() {
			store.onSave = func(_ session2.Record, _ session2.Version, again func() error) error {
				store.set(func() { store.onSave = nil })
				if store.count("load") == loads {
					t.Error("an uncertain Save was asked again without a look")
				}
				if err := save(); err != nil { // the first one, at last
					t.Error(err)
				}
				return again()
			}
		})
		return uncertain()
	})
	if res := st.Do(b, func(s *session2.Session) { s.Renew() }); res.StatusCode != 200 {
		t.Fatalf("status %d", res.StatusCode)
	}
	if user := st.UserOf(b); user != "alice" {
		t.Errorf("the cookie that was sent is %q", user)
	}
}

func TestEmptyingThatSomebodyElseMayHaveEndedLeavesTheCookie(t *testing.T) {
	store := newHookStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.Set("k", 1) })
	other := b.Clone()
	store.once(func(session2.Record, session2.Version, func() error) error {
		st.Do(other, func(s *session2.Session) { s.Destroy() })
		return uncertain()
	})
	res := st.Do(b, func(s *session2.Session) { s.Delete("k") })
	if res.StatusCode != 200 || len(res.Cookies()) != 0 {
		t.Errorf("status %d, %d cookies; want 200 and none: the browser may hold a newer one",
			res.StatusCode, len(res.Cookies()))
	}
}

func TestSpendingBesideALostSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{RenewEvery: 10 * time.Minute})
		b := st.Login("alice")
		var form string
		st.Do(b, func(s *session2.Session) { form = s.FormToken() })
		time.Sleep(11 * time.Minute)
		st.UserOf(b.Clone()) // rotates, and the answer is lost
		old := b.Token()
		st.Do(b, func(s *session2.Session) {
			if ok, err := s.UseFormToken(t.Context(), form); !ok || err != nil {
				t.Errorf("UseFormToken = %t, %v", ok, err)
			}
		})
		if b.Token() == old {
			t.Error("the successor was not sent again")
		}
	})
}

// Where the answer to a Save was lost, the record must be looked at, however
// often that fails at first.
func TestLookingWhetherASaveLandedIsRetried(t *testing.T) {
	store := newHookStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	failures := 3
	store.once(func(_ session2.Record, _ session2.Version, save func() error) error {
		if err := save(); err != nil {
			t.Error(err)
		}
		store.set(func() {
			store.onLoad = func(session2.ID) error {
				if failures--; failures >= 0 {
					return testsite.ErrDown
				}
				return nil
			}
		})
		return uncertain()
	})
	res := st.Do(b, func(s *session2.Session) { counter.Update(s, func(n int) int { return n + 1 }) })
	n := 0
	st.Do(b, func(s *session2.Session) { n, _ = counter.Get(s) })
	if res.StatusCode != 200 || n != 1 || failures >= 0 {
		t.Errorf("status %d, counted %d, %d failures left; want 200, 1 and none", res.StatusCode, n, failures)
	}
}

// A definite no is an answer: the store is not asked again, and nobody is told
// that the outcome is unknown.
func TestARefusalIsSaidAtOnce(t *testing.T) {
	for name, no := range map[string]error{
		"no right": fs.ErrPermission, "closed": fs.ErrClosed, "read-only": syscall.EROFS,
		"not set up": session2.ErrNotSetUp, "unsupported": errors.ErrUnsupported,
	} {
		no := fmt.Errorf("store: %w", no)
		for what, c := range map[string]struct {
			break_ func(h *hookStore)
			do     func(s *session2.Session)
			calls  string
		}{
			"create": {func(h *hookStore) {
				h.onSave = func(session2.Record, session2.Version, func() error) error { return no }
			}, func(s *session2.Session) { s.Destroy(); s.SetUser("bob") }, "save"},
			"save": {func(h *hookStore) {
				h.onSave = func(session2.Record, session2.Version, func() error) error { return no }
			}, func(s *session2.Session) { s.Set("k", 1) }, "save"},
			"delete": {func(h *hookStore) {
				h.onDel = func(session2.ID) error { return no }
			}, (*session2.Session).Destroy, "delete"},
			"reload": {func(h *hookStore) {
				h.onSave = func(session2.Record, session2.Version, func() error) error {
					h.set(func() { h.onLoad = func(session2.ID) error { return no } })
					return session2.ErrConflict
				}
			}, func(s *session2.Session) { s.Set("k", 1) }, "save"},
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := newHookStore()
					st := testsite.NewSite(t, store, session2.Config{})
					b := st.Login("alice")
					before, start := store.count(c.calls), time.Now()
					var err error
					res := st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
						s.User()
						store.set(func() { c.break_(store) })
						c.do(s)
						err = s.Commit(r.Context())
					})
					if res.StatusCode != 503 || !errors.Is(err, no) || errors.Is(err, session2.ErrUncertain) {
						t.Errorf("status %d, Commit = %v", res.StatusCode, err)
					}
					if n := store.count(c.calls) - before; n != 1 || time.Since(start) > 0 {
						t.Errorf("%d calls in %v, want 1 at once", n, time.Since(start))
					}
				})
			})
		}
	}
}

// Others who are faster each time are no failure of the store's.
func TestEndlessConflictsAreNoFailureOfTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{})
		b := st.Login("alice")
		store.set(func() {
			store.onSave = func(session2.Record, session2.Version, func() error) error { return session2.ErrConflict }
		})
		res := st.Do(b, func(s *session2.Session) { s.Set("k", 1) })
		if res.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("status %d, want 503", res.StatusCode)
		}
		if st.Events.Count(session2.EventDropped) != 1 || st.Events.Count(session2.EventStoreError) != 0 {
			t.Errorf("events %v, want one that the changes were dropped, and none of the store", st.Events.List)
		}
	})
}

// A logout after the first byte ends the session, says of which one the cookie
// stays, and loses nothing else.
func TestALogoutThatComesTooLateForTheCookie(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	var id session2.ID
	var err error
	res := st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		id = s.ID()
		w.(http.Flusher).Flush()
		s.Destroy()
		if err := s.Commit(r.Context()); err != nil {
			t.Errorf("Commit = %v", err)
		}
		err = s.Err()
	})
	if res.StatusCode != 200 || len(res.Cookies()) != 0 || records(t, store) != 0 {
		t.Errorf("status %d, cookies %v, %d records", res.StatusCode, res.Cookies(), records(t, store))
	}
	if err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("Err() = %v, want that the cookie is not revoked", err)
	}
	for _, e := range st.Events.List {
		if e.Kind == session2.EventDropped && (e.ID != id || e.User != "alice") {
			t.Errorf("the event is of session %v, user %q", e.ID, e.User)
		}
	}
}

// A failed commit is one event, of the session that it was about, whatever the store
// said in its course.
func TestAFailedCommitIsOneEvent(t *testing.T) {
	refusal := fmt.Errorf("delete: %w", fs.ErrPermission)
	for name, c := range map[string]struct {
		err error
		do  func(*session2.Session)
	}{
		"a refused logout": {refusal, (*session2.Session).Destroy},
		"a failed logout":  {testsite.ErrDown, (*session2.Session).Destroy},
		"a refused save":   {refusal, func(s *session2.Session) { s.Set("k", 1) }},
		"a failed save":    {testsite.ErrDown, func(s *session2.Session) { s.Set("k", 1) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newHookStore()
				st := testsite.NewSite(t, store, session2.Config{})
				b := st.Login("alice")
				store.set(func() {
					store.onSave = func(session2.Record, session2.Version, func() error) error { return c.err }
					store.onDel = func(session2.ID) error { return c.err }
				})
				st.Events.List = nil
				var id session2.ID
				st.Do(b, func(s *session2.Session) { id = s.ID(); c.do(s) })
				if n := len(st.Events.List); n != 1 {
					t.Fatalf("events %v, want one", st.Events.List)
				}
				e := st.Events.List[0]
				if e.Kind != session2.EventStoreError || e.ID != id || e.User != "alice" || !errors.Is(e.Err, c.err) {
					t.Errorf("event %v of session %v, user %q: %v; want a store error of %v",
						e.Kind, e.ID, e.User, e.Err, id)
				}
			})
		})
	}
}

// Housekeeping that the store refuses is left to another request, and not tried
// again at the end of this one.
func TestRefusedHousekeepingIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{})
		b := st.Login("alice")
		time.Sleep(2 * time.Minute)
		touches := 0
		store.set(func() {
			store.onTouch = func() error { touches++; return fs.ErrPermission }
		})
		res := st.Visit(b, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, s.User())
		})
		if n := st.Events.Count(session2.EventStoreError); res.StatusCode != 200 || touches != 1 || n != 1 {
			t.Errorf("status %d, %d touches, %d events; want 200, 1 and 1", res.StatusCode, touches, n)
		}
	})
}

// A logout that the store refused is one that changed nothing. If the answer to an
// earlier try was lost, or another session was ended before, it is uncertain.
func TestALogoutThatMayHaveLandedIsNoRefusal(t *testing.T) {
	refusal := fmt.Errorf("delete: %w", fs.ErrPermission)
	for name, c := range map[string]struct {
		answers   []error // of Delete; nil: it is done
		uncertain bool
	}{
		"refused":                          {[]error{refusal}, false},
		"refused when asked again":         {[]error{testsite.ErrDown, refusal}, true},
		"the second of two is refused":     {[]error{nil, refusal}, true},
		"failed, and the first of two did": {[]error{testsite.ErrDown, nil, refusal}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newHookStore()
				st := testsite.NewSite(t, store, session2.Config{})
				tokens := []string{st.Login("alice").Token(), st.Login("bob").Token()}
				answers := c.answers
				store.set(func() {
					store.onDel = func(session2.ID) error {
						err := answers[0]
						answers = answers[1:]
						return err
					}
				})
				st.Cookies(tokens, func(s *session2.Session) {
					s.Destroy()
					err := s.Commit(t.Context())
					if !errors.Is(err, fs.ErrPermission) || errors.Is(err, session2.ErrUncertain) != c.uncertain {
						t.Errorf("Commit = %v; uncertain: %t, want %t", err, !c.uncertain, c.uncertain)
					}
				})
			})
		})
	}
}

// An error handler that writes nothing, or panics inside the handler's recover.
// A goroutine's Commit between the last commit and the header.
func TestCommitBetweenCommitAndHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		var inReport func()
		m, err := session2.NewManager(store, session2.Config{Logger: slog.New(slog.DiscardHandler),
			OnEvent: func(context.Context, session2.Event) {
				if f := inReport; f != nil {
					inReport = nil
					f()
				}
			}})
		testsite.Must(t, err)
		st := &testsite.Site{T: t, M: m, Store: store, Events: &testsite.EventLog{}}
		b := st.Login("alice")
		old := b.Token()
		var cerr, serr error
		st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			s.Set("k", 1)
			var wg sync.WaitGroup
			// conflict: an event that is reported by this commit
			st.Do(b.Clone(), func(s *session2.Session) { s.Set("other", 1) })
			inReport = func() { // a slow logger, e.g.
				wg.Go(func() {
					store.set(func() {
						store.onSave = func(_ session2.Record, _ session2.Version, save func() error) error {
							time.Sleep(time.Second)
							return save()
						}
					})
					s.Renew()
					cerr = s.Commit(context.Background())
				})
				time.Sleep(time.Millisecond)
			}
			w.WriteHeader(200)
			wg.Wait()
			serr = s.Err()
		})
		store.set(func() { store.onSave = nil })
		if b.Token() == old && st.UserOf(b) != "alice" && cerr == nil && serr == nil {
			t.Error("the token was replaced, no cookie was sent, and neither Commit nor Err says so: " +
				"the client is locked out")
		}
	})
}

// The same with a status of 500 beside a goroutine's Commit.
func TestCommitBeside500(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{})
		b := st.Login("alice")
		old := b.Token()
		var cerr, serr error
		st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			var wg sync.WaitGroup
			store.once(func(_ session2.Record, _ session2.Version, save func() error) error {
				time.Sleep(time.Second)
				return save()
			})
			wg.Go(func() { s.Renew(); cerr = s.Commit(context.Background()) })
			time.Sleep(time.Millisecond)
			w.WriteHeader(500)
			wg.Wait()
			serr = s.Err()
		})
		if b.Token() == old && st.UserOf(b) != "alice" && cerr == nil && serr == nil {
			t.Error("the token was replaced, no cookie was sent, and neither Commit nor Err says so")
		}
	})
}

// A late answer takes the browser back to a token; the honest client is locked out.
// A Commit after the handler.
func TestCommitAfterTheHandler(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	var kept *session2.Session
	st.Do(b, func(s *session2.Session) { kept = s; s.User() })
	kept.Set("late", 1)
	err := kept.Commit(t.Context())
	if err == nil && st.Stored(b, "late") != nil && st.Events.Count(session2.EventDropped) > 0 {
		t.Errorf("event Dropped and Err = %v, and it was stored all the same", kept.Err())
	}
}

type touchFails struct{ *session2.MemoryStore }

func (touchFails) Touch(context.Context, session2.ID, time.Time, time.Time) error {
	return testsite.ErrDown
}

// A change that changes nothing, and a Touch that fails.
func TestTouchFailsBesideANoOp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, touchFails{session2.NewMemoryStore()}, session2.Config{})
		b := st.Login("alice")
		st.Do(b, func(s *session2.Session) { s.Set("k", 1) })
		time.Sleep(2 * time.Minute)
		if res := st.Do(b, func(s *session2.Session) { s.Set("k", 1) }); res.StatusCode != 200 {
			t.Errorf("status %d because an access could not be noted", res.StatusCode)
		}
	})
}

// A page that has begun before its handler looks at the session can no longer be a
// 503: it is cut off, and not passed off as a page for nobody.
func TestALateLookAtAFailingStoreCutsTheResponseOff(t *testing.T) {
	store := testsite.NewBrittle()
	log := &testsite.Log{}
	st := testsite.NewSite(t, store, session2.Config{Logger: log.Logger()})
	b := &testsite.Browser{}
	st.Begin(b)
	srv := testsite.Serve(t, st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "you are ")
		io.WriteString(w, s.User())
	}), false)
	for _, fails := range []bool{false, true} {
		store.FailLoad.Store(fails)
		r, err := http.NewRequest("GET", srv.URL, nil)
		testsite.Must(t, err)
		b.Send(r)
		var body []byte
		res, err := srv.Client().Do(r)
		if err == nil {
			body, err = io.ReadAll(res.Body)
			res.Body.Close()
		}
		if fails != (err != nil) || !fails && string(body) != "you are alice" {
			t.Errorf("store failing %t: %q, %v", fails, body, err)
		}
	}
	if n := strings.Count(log.String(), "Vary"); n != 1 {
		t.Errorf("%d warnings of a late look, want 1 for the manager's life:\n%s", n, log)
	}
}

func TestEmptyingWhoseAnswerIsLost(t *testing.T) {
	for _, landed := range []bool{true, false} {
		t.Run(fmt.Sprint("landed ", landed), func(t *testing.T) {
			store := newHookStore()
			st := testsite.NewSite(t, store, session2.Config{})
			b := &testsite.Browser{}
			st.Do(b, func(s *session2.Session) { s.Set("k", 1) })
			store.onSave = func(rec session2.Record, prev session2.Version, save func() error) error {
				store.set(func() { store.onSave = nil })
				if landed {
					if err := save(); err != nil {
						t.Error(err)
					}
				}
				return fmt.Errorf("save: %w", session2.ErrUncertain)
			}
			res := st.Do(b, func(s *session2.Session) { s.Delete("k") })
			if res.StatusCode != 200 || b.Token() != "" {
				t.Errorf("status %d, cookie %t", res.StatusCode, b.Token() != "")
			}
			for rec := range store.Iter(t.Context()) {
				if rec.Expires.After(time.Now()) {
					t.Error("the emptied session lives")
				}
			}
		})
	}
}

func TestConcurrentTouchDoesNotReviveWhatWasEmptied(t *testing.T) {
	store := newHookStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, func(s *session2.Session) { s.Set("k", 1) })
	store.onDel = func(id session2.ID) error { // between the Save and the Delete, which then fails
		store.MemoryStore.Touch(t.Context(), id, time.Now(), time.Now().Add(time.Hour))
		return errors.New("disk on fire")
	}
	old := b.Clone()
	st.Do(b, func(s *session2.Session) { s.Delete("k") })
	store.onDel = nil
	st.Do(old, func(s *session2.Session) {
		if s.HasInfo() || s.User() != "" {
			t.Errorf("the emptied session holds %v", s.Keys())
		}
	})
}

func TestIDThatIsTaken(t *testing.T) {
	store := newHookStore()
	st := testsite.NewSite(t, store, session2.Config{})
	store.onSave = func(rec session2.Record, prev session2.Version, save func() error) error {
		store.set(func() { store.onSave = nil })
		foreign := rec
		foreign.Version, foreign.User = 1, "mallory"
		if err := store.MemoryStore.Save(t.Context(), foreign, 0); err != nil {
			t.Error(err)
		}
		return save()
	}
	b := st.Login("alice")
	if st.UserOf(b) != "alice" || records(t, store) != 2 {
		t.Errorf("user %q, %d records", st.UserOf(b), records(t, store))
	}
}

func TestCommitThenLoseTheRace(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	before := b.Clone()
	res, _ := st.During(b, func(s *session2.Session) {
		s.Renew()
		if err := s.Commit(t.Context()); err != nil { // the new token is in the response to come
			t.Error(err)
		}
	}, func() {
		for rec := range store.Iter(t.Context()) {
			st.M.Revoke(t.Context(), rec.ID)
		}
	}, func(s *session2.Session) { s.Set("k", 1) })
	if len(res.Cookies()) != 0 || records(t, store) != 0 {
		t.Errorf("%d cookies, %d records after a revocation", len(res.Cookies()), records(t, store))
	}
	if st.UserOf(before) != "" {
		t.Error("the old token opens something")
	}
}

func TestHangingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{CommitTimeout: time.Second})
		b := st.Login("alice")
		store.onSave = func(_ session2.Record, _ session2.Version, _ func() error) error {
			time.Sleep(2 * time.Second)
			return context.DeadlineExceeded
		}
		start := time.Now()
		if res := st.Do(b, func(s *session2.Session) { s.Set("k", 1) }); res.StatusCode != 503 {
			t.Errorf("status %d", res.StatusCode)
		}
		if d := time.Since(start); d > 3*time.Second {
			t.Errorf("the request took %v", d)
		}
	})
}

// A client that is told of a failure can be told, too, whether to repeat what it
// asked.
func TestFailureSaysWhetherItIsCertain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := func(s *session2.Session) { s.Set("k", 1) }
		for _, c := range []struct {
			name      string
			uncertain bool
			fail      func(b *testsite.Brittle) *atomic.Bool
			ask       func(s *session2.Session)
		}{
			{"load", false, func(b *testsite.Brittle) *atomic.Bool { return &b.FailLoad }, set},
			{"save", true, func(b *testsite.Brittle) *atomic.Bool { return &b.FailSave }, set},
			{"logout", true, func(b *testsite.Brittle) *atomic.Bool { return &b.FailDelete }, (*session2.Session).Destroy},
		} {
			store := testsite.NewBrittle()
			var failed error
			st := testsite.NewSite(t, store, session2.Config{
				CommitTimeout: testsite.TinyTimeout,
				ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
					failed = err
					w.WriteHeader(http.StatusServiceUnavailable)
				},
			})
			b := st.Login("alice")
			c.fail(store).Store(true)
			res := st.Do(b, c.ask)
			uncertain := errors.Is(failed, session2.ErrUncertain)
			if res.StatusCode != 503 || !errors.Is(failed, testsite.ErrDown) || uncertain != c.uncertain {
				t.Errorf("%s: status %d, %v; want 503, %v, and ErrUncertain %t",
					c.name, res.StatusCode, failed, testsite.ErrDown, c.uncertain)
			}
		}
	})
}

func TestHousekeepingThatFailsDoesNotFailTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{RenewEvery: 10 * time.Minute})
		b := st.Login("alice")
		time.Sleep(11 * time.Minute)
		store.onSave = func(session2.Record, session2.Version, func() error) error {
			return errors.New("disk on fire")
		}
		res := st.Do(b, func(s *session2.Session) { s.User() })
		if res.StatusCode != 200 || len(res.Cookies()) != 0 || st.Events.Count(session2.EventStoreError) == 0 {
			t.Errorf("status %d, %d cookies", res.StatusCode, len(res.Cookies()))
		}
		store.onSave = nil
		if st.UserOf(b) != "alice" {
			t.Error("a rotation that failed cost the session")
		}
	})
}

// A store may ask by itself again after its first Save has landed, and say in the end that
// nobody could be connected to. What has landed is not done a second time, whoever writes
// meanwhile.
func TestAStoreThatSaysOfALandedSaveThatNobodyWasThere(t *testing.T) {
	for name, others := range map[string]int{"alone": 0, "beside another": 1, "beside many": 20} {
		for _, created := range []bool{true, false} {
			store := newHookStore()
			st := testsite.NewSite(t, store, session2.Config{})
			b := &testsite.Browser{}
			if !created {
				st.Do(b, func(s *session2.Session) { counter.Update(s, inc) })
			}
			once := true
			store.set(func() {
				store.onSave = func(rec session2.Record, _ session2.Version, save func() error) error {
					if err := save(); err != nil || !once {
						return err
					}
					once = false
					for range others {
						if !created { // else nobody knows the session's token yet
							st.Do(b.Clone(), func(s *session2.Session) { counter.Update(s, inc) })
						}
					}
					return &net.OpError{Op: "dial", Net: "tcp", Err: testsite.ErrDown}
				}
			})
			want := others + 2
			if created {
				want = 1
			}
			res := st.Do(b, func(s *session2.Session) { counter.Update(s, inc) })
			got, count := 0, records(t, store)
			st.Do(b, func(s *session2.Session) { got, _ = counter.Get(s) })
			status := 200
			if others == 20 && !created { // the record remembers only the latest versions: nobody can tell
				status = 503
			}
			if res.StatusCode != status || got != want || count != 1 {
				t.Errorf("%s, created %t: status %d, counted %d, want %d; %d records", name, created, res.StatusCode, got, want, count)
			}
		}
	}
}

// Where nobody could be connected to, nothing can be stored: that is no uncertain
// outcome, and a create, too, is asked again until the store is there.
func TestAnUnreachableStoreStoresNothing(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: testsite.ErrDown}
	for name, do := range map[string]func(*session2.Session){
		"create": func(s *session2.Session) { s.Set("k", 1) },
		"save":   func(s *session2.Session) { s.Set("k", 1) },
		"logout": (*session2.Session).Destroy,
	} {
		for _, down := range []int{3, 1000} {
			t.Run(fmt.Sprint(name, " ", down), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := newHookStore()
					st := testsite.NewSite(t, store, session2.Config{})
					b := &testsite.Browser{}
					if name != "create" {
						b = st.Login("alice")
					}
					tries := 0
					answer := func(ask func() error) error {
						if tries++; tries <= down {
							return fmt.Errorf("connect: %w", refused)
						}
						return ask()
					}
					store.set(func() {
						store.onSave = func(_ session2.Record, _ session2.Version, save func() error) error {
							return answer(save)
						}
						store.onDel = func(session2.ID) error { return answer(func() error { return nil }) }
					})
					st.Do(b, func(s *session2.Session) {
						do(s)
						err := s.Commit(t.Context())
						if (err == nil) != (down == 3) || errors.Is(err, session2.ErrUncertain) ||
							err != nil && !errors.Is(err, testsite.ErrDown) {
							t.Errorf("Commit = %v after %d tries", err, tries)
						}
					})
				})
			})
		}
	}
}

func TestAnUnreachableDatabaseStoresNothing(t *testing.T) {
	for _, url := range []string{"postgres://app@127.0.0.1:1/app?sslmode=disable", "mysql://app@127.0.0.1:1/app"} {
		store, err := session2.Open(t.Context(), url)
		testsite.Must(t, err)
		defer closeStore(t, store)
		st := testsite.NewSite(t, store, session2.Config{CommitTimeout: 200 * time.Millisecond})
		s, err := st.M.Open(t.Context(), "")
		testsite.Must(t, err)
		s.Set("k", 1)
		if err := s.Commit(t.Context()); err == nil || errors.Is(err, session2.ErrUncertain) {
			t.Errorf("%s: Commit = %v, want an error that is not uncertain", url, err)
		}
	}
}

// unsent is a commit's surroundings.
type unsent struct {
	st    *testsite.Site
	store *hookStore
	b     *testsite.Browser
	s     *session2.Session
}

// A commit of which nothing that may still land was sent is not uncertain, whatever ends it.
func TestWhatWasNotSentIsNotUncertain(t *testing.T) {
	slow := func(n int) (int, error) { time.Sleep(10 * time.Second); return n + 1, nil }
	for name, c := range map[string]struct {
		cfg session2.Config
		do  func(u unsent)
	}{
		"a function that panics in a later call": {do: func(u unsent) {
			counter.Get(u.s)
			u.st.Do(u.b.Clone(), func(s *session2.Session) { counter.Set(s, 5) })
			defer func() { recover() }()
			counter.Commit(u.st.T.Context(), u.s, func(n int) (int, error) {
				if n == 5 {
					panic("oh")
				}
				return n + 1, nil
			})
		}},
		"an Update that panics in a later call": {do: func(u unsent) {
			counter.Update(u.s, func(n int) int {
				if n == 5 {
					panic("oh")
				}
				return n + 1
			})
			u.st.Do(u.b.Clone(), func(s *session2.Session) { counter.Set(s, 5) })
			defer func() { recover() }()
			u.s.Commit(u.st.T.Context())
		}},
		"a function that outlives the commit": {do: func(u unsent) {
			counter.Commit(u.st.T.Context(), u.s, slow)
		}},
		"one that does so in a new session": {do: func(u unsent) {
			u.s.Destroy()
			counter.Commit(u.st.T.Context(), u.s, slow)
		}},
		"a session that expires while the store is out of reach": {
			cfg: session2.Config{IdleTimeout: 3 * time.Second},
			do: func(u unsent) {
				u.s.Set("k", 1)
				down := &net.OpError{Op: "dial", Net: "tcp", Err: testsite.ErrDown}
				u.store.set(func() {
					u.store.onSave = func(session2.Record, session2.Version, func() error) error { return down }
					u.store.onLoad = func(session2.ID) error { return down }
				})
				u.s.Commit(u.st.T.Context())
			},
		},
		"a logout after a Save that took all the time": {
			do: func(u unsent) {
				u.s.Destroy()
				u.s.Set("k", 1)
				u.store.set(func() {
					u.store.onSave = func(_ session2.Record, _ session2.Version, save func() error) error {
						defer time.Sleep(10 * time.Second)
						return save()
					}
				})
				u.s.Commit(u.st.T.Context())
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var handled error
				c.cfg.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, err error) {
					handled = err
					w.WriteHeader(500)
				}
				store := newHookStore()
				st := testsite.NewSite(t, store, c.cfg)
				b := st.Login("alice")
				saves := store.count("save")
				var err error
				res := st.Visit(b.Clone(), func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
					c.do(unsent{st, store, b, s})
					err = s.Err()
				})
				if err == nil || handled == nil || res.StatusCode != 500 {
					t.Fatalf("status %d, Err() = %v, handled %v after %d Saves: nothing has failed",
						res.StatusCode, err, handled, store.count("save")-saves)
				}
				if errors.Is(err, session2.ErrUncertain) || errors.Is(handled, session2.ErrUncertain) {
					t.Errorf("Err() = %v, handled %v; want neither to be uncertain", err, handled)
				}
			})
		})
	}
}

// Where an answer was lost before the panic, the changes may be stored.
func TestAPanicAfterALostAnswerIsUncertain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{})
		b := st.Login("alice")
		st.Visit(b.Clone(), func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
			counter.Get(s)
			store.set(func() {
				store.onSave = func(_ session2.Record, _ session2.Version, save func() error) error {
					store.set(func() { store.onSave = nil })
					st.Do(b.Clone(), func(s *session2.Session) { counter.Set(s, 5) })
					return errors.New("no answer")
				}
			})
			func() {
				defer func() { recover() }()
				counter.Commit(t.Context(), s, func(n int) (int, error) {
					if n == 5 {
						panic("oh")
					}
					return n + 1, nil
				})
			}()
			if err := s.Err(); !errors.Is(err, session2.ErrUncertain) {
				t.Errorf("Err() = %v, want it to be uncertain", err)
			}
		})
	})
}
