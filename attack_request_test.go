package session2_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

func csrfReq(tok string) *http.Request {
	r := httptest.NewRequest("POST", "/", nil)
	r.Header.Set("X-CSRF-Token", tok)
	return r
}

// A CSRF token from before the login is valid after it.
func TestCSRFTokenSurvivesLogin(t *testing.T) {
	for _, renew := range []bool{false, true} {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		b := &testsite.Browser{}
		st.Do(b, func(s *session2.Session) { s.Set("cart", 1) }) // an anonymous session
		var before string
		st.Do(b, func(s *session2.Session) { before = s.CSRFToken() }) // known to whoever knew it
		st.Do(b, func(s *session2.Session) {
			if renew {
				s.Renew()
			} else {
				s.SetUser("alice")
			}
			s.CSRFToken() // the answer to the login carries a new token
		})
		st.Do(b, func(s *session2.Session) {
			if s.ValidCSRFToken(csrfReq(before)) {
				t.Errorf("renew=%t: the CSRF token from before the change of privileges is valid after it", renew)
			}
		})
	}
}

// A passive request's Save takes back the accesses of others.
func TestPassiveSaveMovesAccessBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{}) // idle 30 min
		b := st.Login("alice")
		st.Visit(b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) { // a stream
			s.Passive()
			s.User()
			time.Sleep(20 * time.Minute)
			if st.UserOf(b) != "alice" { // the user clicks in another tab
				t.Error("expired before")
			}
			s.Set("progress", 1)
			if err := s.Commit(r.Context()); err != nil {
				t.Errorf("Commit = %v", err)
			}
			time.Sleep(11 * time.Minute)
			if user := st.UserOf(b); user != "alice" {
				t.Errorf("11 minutes after its last use the session, of 30 idle minutes, reads as %q", user)
			}
		})
	})
}

// A Save asked again after the session's time is over revives it.
func TestRetryRevivesExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{IdleTimeout: 10 * time.Minute})
		b := st.Login("alice")
		start := time.Now()
		deadline := start.Add(10 * time.Minute)
		var wg sync.WaitGroup
		n := 0
		var late time.Time
		store.set(func() {
			store.onSave = func(_ session2.Record, _ session2.Version, save func() error) error {
				if n++; n < 6 {
					if n == 5 {
						// answer just before the end
						time.Sleep(time.Until(deadline.Add(-time.Millisecond)))
					}
					return errors.New("connection reset")
				}
				late = time.Now()
				return save()
			}
		})
		wg.Go(func() { // is told that it has expired
			time.Sleep(time.Until(deadline))
			r := httptest.NewRequest("GET", "/", nil)
			b.Send(r)
			if u := st.UserOf(b.Clone()); u != "" {
				t.Errorf("not expired: %q", u)
			}
		})
		time.Sleep(time.Until(deadline.Add(-3 * time.Second)))
		res := st.Do(b.Clone(), func(s *session2.Session) { s.Set("k", 1) })
		wg.Wait()
		time.Sleep(time.Second)
		if u := st.UserOf(b.Clone()); u != "" {
			t.Errorf("status %d; a Save that began %v after the end revived the session of %q", res.StatusCode, late.Sub(deadline), u)
		}
	})
}

// An Update that runs again for long: its Save begins after the end.
func TestSlowUpdateRevivesExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{IdleTimeout: 10 * time.Minute})
		b := st.Login("alice")
		deadline := time.Now().Add(10 * time.Minute)
		var wg sync.WaitGroup
		wg.Go(func() {
			time.Sleep(time.Until(deadline))
			if u := st.UserOf(b.Clone()); u != "" {
				t.Errorf("not expired: %q", u)
			}
		})
		store.set(func() {
			store.onSave = func(_ session2.Record, _ session2.Version, save func() error) error {
				store.set(func() { store.onSave = nil })
				return session2.ErrConflict
			}
		})
		time.Sleep(time.Until(deadline.Add(-time.Second)))
		calls := 0
		res := st.Do(b.Clone(), func(s *session2.Session) {
			counter.Update(s, func(n int) int {
				if calls++; calls > 1 {
					time.Sleep(2 * time.Second)
				}
				return n + 1
			})
		})
		wg.Wait()
		if u := st.UserOf(b.Clone()); u != "" {
			t.Errorf("status %d: revived: %q", res.StatusCode, u)
		}
	})
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
			t.Error("the token was replaced, no cookie was sent, and neither Commit nor Err says so: the client is locked out")
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

// The next user inherits "remember me".
func TestRememberIsInherited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		b := &testsite.Browser{}
		st.Do(b, func(s *session2.Session) { s.SetUser("alice"); s.Remember(30 * 24 * time.Hour) })
		st.Do(b, func(s *session2.Session) { s.SetUser("bob") }) // without "remember me"
		if b.Cookie.MaxAge > 0 {
			t.Errorf("bob's cookie stays for %ds", b.Cookie.MaxAge)
		}
		time.Sleep(48 * time.Hour)
		if u := st.UserOf(b); u != "" {
			t.Errorf("%s is signed in after two idle days, for somebody else's Remember", u)
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

type touchFails struct{ *session2.MemoryStore }

func (touchFails) Touch(context.Context, session2.ID, time.Time, time.Time) error {
	return testsite.ErrDown
}

// What was set before SetUser, in another user's session, lands in the new user's session.
func TestOwnSessionHoldsAnotherUsersValues(t *testing.T) {
	for name, meanwhile := range map[string]func(s *session2.Session){
		"logout":        func(s *session2.Session) { s.Destroy() },
		"another login": func(s *session2.Session) { s.SetUser("carol") },
		"renew":         func(s *session2.Session) { s.Renew() },
		"twin":          func(s *session2.Session) { s.SetUser("bob") },
	} {
		t.Run(name, func(t *testing.T) {
			st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
			b := st.Login("alice")
			other := b.Clone()
			st.During(b, func(s *session2.Session) {
				s.Set("last", s.User()+"'s secret")
				s.Flash("Good bye, " + s.User())
			}, func() { st.Do(other, meanwhile) }, func(s *session2.Session) {
				s.SetUser("bob")
				if s.Has("last") {
					t.Error("in the request")
				}
			})
			st.Do(b, func(s *session2.Session) {
				if v := s.Get("last"); s.User() == "bob" && v != nil {
					t.Errorf("bob reads %v", v)
				}
				if f := s.Flashes(); s.User() == "bob" && len(f) > 0 {
					t.Errorf("bob reads %v", f)
				}
			})
		})
	}
}

// A token in a response that says public.
func TestPublicCacheControl(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	res := st.Visit(&testsite.Browser{}, func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=3600")
		s.SetUser("alice")
	})
	if c := res.Header.Get("Cache-Control"); len(res.Cookies()) > 0 && c == "public, max-age=3600" {
		t.Errorf("Set-Cookie with Cache-Control %q", c)
	}
}

// Forgotten retired tokens.
