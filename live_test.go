package session2_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// stream is a request that has begun its response and waits for its context.
type stream struct {
	t     testing.TB
	ctx   context.Context
	s     *session2.Session
	leave chan struct{}
	gone  chan struct{} // the handler has returned
	cause error         // why it did: nil if it was told to
}

// openStream opens one as b. first is what its handler does before it begins.
func openStream(
	st *testsite.Site, b *testsite.Browser, first func(*session2.Session, http.ResponseWriter, *http.Request),
) *stream {
	x := &stream{t: st.T, leave: make(chan struct{}), gone: make(chan struct{})}
	open := make(chan struct{})
	go func() {
		defer close(x.gone)
		st.Visit(b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			x.ctx, x.s = r.Context(), s
			first(s, w, r)
			done := r.Context().Done()
			close(open)
			select {
			case <-done:
				x.cause = context.Cause(r.Context())
			case <-x.leave:
			}
		})
	}()
	<-open
	return x
}

// sse is what most streams begin with.
func sse(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
	s.User()
	w.Header().Set("Content-Type", "text/event-stream")
	w.(http.Flusher).Flush()
}

// mustEnd checks that the stream's context has ended, by now, with a cause.
func (x *stream) mustEnd(want error) {
	x.t.Helper()
	if err, cause := x.ctx.Err(), context.Cause(x.ctx); err != context.Canceled || !errors.Is(cause, want) {
		x.t.Errorf("Err = %v, Cause = %v; want one that matches %v", err, cause, want)
		close(x.leave)
	}
	<-x.gone
}

// mustGoOn checks that it has not, and has the handler return.
func (x *stream) mustGoOn() {
	x.t.Helper()
	if err := x.ctx.Err(); err != nil {
		x.t.Errorf("Err = %v, Cause = %v; want none", err, context.Cause(x.ctx))
	} else if err := context.Cause(x.ctx); err != nil {
		x.t.Errorf("Cause = %v, and no Err", err)
	}
	close(x.leave)
	<-x.gone
}

// ending is a way in which a session ends, or does not.
type ending struct {
	do   func(st *testsite.Site, b *testsite.Browser, id session2.ID)
	want error // that a stream's cause matches; nil: it goes on
}

func asOther(f func(s *session2.Session)) func(*testsite.Site, *testsite.Browser, session2.ID) {
	return func(st *testsite.Site, b *testsite.Browser, _ session2.ID) { st.Do(b, f) }
}

// endings are those by requests and calls of a manager. They take two hours at most.
var endings = map[string]ending{
	"Revoke": {func(st *testsite.Site, _ *testsite.Browser, id session2.ID) {
		testsite.Must(st.T, st.M.Revoke(st.T.Context(), id))
	}, session2.ErrNotFound},
	"RevokeUser": {func(st *testsite.Site, _ *testsite.Browser, _ session2.ID) {
		_, err := st.M.RevokeUser(st.T.Context(), "alice")
		testsite.Must(st.T, err)
	}, session2.ErrNotFound},
	"RevokeOthers": {func(st *testsite.Site, _ *testsite.Browser, _ session2.ID) {
		st.Visit(st.Login("alice"), func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
			_, err := st.M.RevokeOthers(r.Context(), s)
			testsite.Must(st.T, err)
		})
	}, session2.ErrNotFound},
	"Destroy":           {asOther((*session2.Session).Destroy), session2.ErrNotFound},
	"a login again":     {asOther(func(s *session2.Session) { s.SetUser("alice") }), session2.ErrStale},
	"another user":      {asOther(func(s *session2.Session) { s.SetUser("bob") }), session2.ErrStale},
	"nobody":            {asOther(func(s *session2.Session) { s.SetUser(""); s.Set("k", 1) }), session2.ErrStale},
	"nobody, no values": {asOther(func(s *session2.Session) { s.Clear(); s.SetUser("") }), session2.ErrNotFound},
	"Renew":             {asOther((*session2.Session).Renew), session2.ErrStale},
	"SetLevel":          {asOther(func(s *session2.Session) { s.SetLevel(2) }), session2.ErrStale},
	"both of two cookies": {func(st *testsite.Site, b *testsite.Browser, _ session2.ID) {
		st.Cookies([]string{b.Token(), st.Login("bob").Token()}, func(s *session2.Session) { s.SetUser("eve") })
	}, session2.ErrNotFound},
	"the idle limit, met by a request": {func(st *testsite.Site, b *testsite.Browser, _ session2.ID) {
		time.Sleep(31 * time.Minute)
		st.UserOf(b)
	}, session2.ErrNotFound},
	"a reused token": {func(st *testsite.Site, b *testsite.Browser, _ session2.ID) {
		thief := b.Clone()
		rotations(st, b, 4)
		st.UserOf(thief)
	}, session2.ErrNotFound},

	"nothing":              {asOther(func(*session2.Session) {}), nil},
	"a change":             {asOther(func(s *session2.Session) { s.Set("color", "red"); s.Delete("k") }), nil},
	"its limits":           {asOther(func(s *session2.Session) { s.Remember(time.Hour) }), nil},
	"a logout that failed": {asOther(func(s *session2.Session) { s.Destroy(); s.Discard() }), nil},
	"a login that failed":  {asOther(func(s *session2.Session) { s.SetUser("bob"); s.Discard() }), nil},
	"rotation":             {func(st *testsite.Site, b *testsite.Browser, _ session2.ID) { rotations(st, b, 4) }, nil},
	"another session of hers": {func(st *testsite.Site, _ *testsite.Browser, _ session2.ID) {
		st.Do(st.Login("alice"), (*session2.Session).Destroy)
	}, nil},
	"another user's end": {func(st *testsite.Site, _ *testsite.Browser, _ session2.ID) {
		st.Login("bob")
		st.M.RevokeUser(st.T.Context(), "bob")
	}, nil},
	"somebody who knows the ID": {func(st *testsite.Site, _ *testsite.Browser, id session2.ID) {
		st.Cookies([]string{session2.EncodeToken(id, [32]byte{1})}, (*session2.Session).Destroy)
	}, nil},
	"RevokeOthers by the session itself": {func(st *testsite.Site, b *testsite.Browser, _ session2.ID) {
		st.Visit(b, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
			_, err := st.M.RevokeOthers(r.Context(), s)
			testsite.Must(st.T, err)
		})
	}, nil},
}

// A stream's context ends at once when this manager ends its session, or replaces its
// token by a login: whenever the stream's handler has asked for Done.
func TestStreamEndsWithItsSession(t *testing.T) {
	asks := map[string]func(*session2.Session, http.ResponseWriter, *http.Request){
		"asked last": sse,
		"asked first": func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			r.Context().Done()
			sse(s, w, r)
		},
		"asked by a derived context": func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			s.User()
			_, cancel := context.WithTimeout(r.Context(), time.Hour)
			cancel()
			sse(s, w, r)
		},
		"stored something": func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			r.Context().Done()
			s.Set("stream", "open")
			sse(s, w, r)
		},
	}
	for name, e := range endings {
		for how, first := range asks {
			t.Run(name+"/"+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					st := testsite.NewSite(t, session2.NewMemoryStore(),
						session2.Config{RenewEvery: 10 * time.Minute, WatchEvery: -1})
					b := &testsite.Browser{}
					st.Begin(b)
					x := openStream(st, b, first)
					e.do(st, b, x.s.ID())
					if e.want != nil {
						x.mustEnd(e.want)
					} else {
						x.mustGoOn()
					}
				})
			})
		}
	}
}

// The application's OnEvent panics at the first session that ends: the streams of the
// others end as well, and each is an event.
func TestStreamsEndThoughOnEventPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := 0
		cfg := session2.Config{WatchEvery: -1, Logger: slog.New(slog.DiscardHandler)}
		cfg.OnEvent = func(_ context.Context, e session2.Event) {
			if e.Kind == session2.EventRevoked {
				events++
				panic("OnEvent")
			}
		}
		m, err := session2.NewManager(session2.NewMemoryStore(), cfg)
		testsite.Must(t, err)
		st := &testsite.Site{T: t, M: m}
		var streams []*stream
		for range 3 {
			streams = append(streams, openStream(st, st.Login("alice"), sse))
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("OnEvent's panic is hidden")
				}
			}()
			m.RevokeUser(t.Context(), "alice")
		}()
		for _, x := range streams {
			x.mustEnd(session2.ErrNotFound)
		}
		if events != 3 {
			t.Errorf("%d events, want 3", events)
		}
	})
}

// Also what happened after the handler's look and before it asked for Done.
func TestStreamThatAsksLate(t *testing.T) {
	for name, e := range endings {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := testsite.NewSite(t, session2.NewMemoryStore(),
					session2.Config{RenewEvery: 10 * time.Minute, WatchEvery: -1})
				b := &testsite.Browser{}
				st.Begin(b)
				x := openStream(st, b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					sse(s, w, r)
					e.do(st, b, s.ID())
				})
				if e.want != nil {
					x.mustEnd(e.want)
				} else {
					x.mustGoOn()
				}
			})
		})
	}
}

// What another manager over the same store does ends it within WatchEvery, whenever it
// is done; and so do the session's limits.
func TestStreamEndsByAnotherManager(t *testing.T) {
	const every = 5 * time.Second // the default
	limits := map[string]ending{
		"the idle limit": {func(*testsite.Site, *testsite.Browser, session2.ID) {
			time.Sleep(30 * time.Minute)
		}, session2.ErrNotFound},
		"the absolute limit": {func(st *testsite.Site, b *testsite.Browser, _ session2.ID) {
			st.Do(b, func(s *session2.Session) { s.SetLifetime(time.Minute) })
			time.Sleep(time.Minute)
		}, session2.ErrNotFound},
		"emptied": {asOther(func(s *session2.Session) { s.Clear(); s.SetUser("") }), session2.ErrNotFound},
		"many rotations": {func(st *testsite.Site, b *testsite.Browser, _ session2.ID) {
			rotations(st, b, 40) // more than a record remembers
		}, nil},
		"a login after many rotations": {func(st *testsite.Site, b *testsite.Browser, _ session2.ID) {
			rotations(st, b, 40)
			st.Do(b, func(s *session2.Session) { s.SetUser("alice") })
			rotations(st, b, 1)
		}, session2.ErrStale},
	}
	for name, e := range endings {
		limits[name] = e
	}
	for name, e := range limits {
		for _, after := range []time.Duration{0, 1, every - 1, every, every + 1, time.Minute + 777} {
			if strings.Contains(name, "many") && after > 0 {
				break
			}
			t.Run(fmt.Sprintf("%s after %v", name, after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := session2.NewMemoryStore()
					cfg := session2.Config{RenewEvery: 10 * time.Minute, Lifetime: 48 * time.Hour}
					st, other := testsite.NewSite(t, store, cfg), testsite.NewSite(t, store, cfg)
					b := &testsite.Browser{}
					st.Begin(b)
					x := openStream(st, b, sse)
					time.Sleep(after)
					e.do(other, b, x.s.ID())
					time.Sleep(every)
					synctest.Wait()
					if e.want != nil {
						x.mustEnd(e.want)
					} else {
						x.mustGoOn()
					}
				})
			})
		}
	}
}

// What a request does itself ends the others' contexts and not its own.
func TestOwnDoingDoesNotEndTheContext(t *testing.T) {
	own := map[string]func(m *session2.Manager, s *session2.Session, ctx context.Context){
		"Destroy":    func(_ *session2.Manager, s *session2.Session, _ context.Context) { s.Destroy() },
		"SetUser":    func(_ *session2.Manager, s *session2.Session, _ context.Context) { s.SetUser("alice") },
		"other user": func(_ *session2.Manager, s *session2.Session, _ context.Context) { s.SetUser("bob") },
		"Renew":      func(_ *session2.Manager, s *session2.Session, _ context.Context) { s.Renew() },
		"emptied":    func(_ *session2.Manager, s *session2.Session, _ context.Context) { s.Clear(); s.SetUser("") },
		"Destroy and a new one": func(_ *session2.Manager, s *session2.Session, _ context.Context) {
			s.Destroy()
			s.Set("k", 1)
		},
		"Revoke":     func(m *session2.Manager, s *session2.Session, ctx context.Context) { m.Revoke(ctx, s.ID()) },
		"RevokeUser": func(m *session2.Manager, _ *session2.Session, ctx context.Context) { m.RevokeUser(ctx, "alice") },
		"RevokeUser and Destroy": func(m *session2.Manager, s *session2.Session, ctx context.Context) {
			m.RevokeUser(ctx, "alice")
			s.Destroy()
		},
	}
	for name, do := range own {
		for _, early := range []bool{true, false} {
			for _, commits := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, early %t, commits %t", name, early, commits), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
						b := &testsite.Browser{}
						st.Begin(b)
						other := openStream(st, b, sse)
						x := openStream(st, b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
							if early {
								r.Context().Done()
							}
							do(st.M, s, context.WithoutCancel(r.Context()))
							if commits {
								s.Commit(r.Context())
								s.Set("after", 1)
							}
							sse(s, w, r)
						})
						if other.ctx.Err() == nil {
							t.Error("the other stream goes on")
							close(other.leave)
						}
						time.Sleep(time.Minute)
						synctest.Wait()
						x.mustGoOn()
					})
				})
			}
		}
	}
}

// lagStore returns what a record was some time ago.
type lagStore struct {
	*session2.MemoryStore
	lag atomic.Int64
}

func (l *lagStore) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	rec, err := l.MemoryStore.Load(ctx, id)
	time.Sleep(time.Duration(l.lag.Load()))
	return rec, err
}

// A look that is under way while the request itself changes its token, or ends its
// session, does not take that for another's doing.
func TestLookBesideAnOwnCommit(t *testing.T) {
	for name, renew := range map[string]func(*session2.Session){
		"Renew":   (*session2.Session).Renew,
		"SetUser": func(s *session2.Session) { s.SetUser("alice") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &lagStore{MemoryStore: session2.NewMemoryStore()}
				st := testsite.NewSite(t, store, session2.Config{})
				x := openStream(st, st.Login("alice"), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					s.User()
					r.Context().Done()
					store.lag.Store(int64(3 * time.Second))
					time.Sleep(6 * time.Second) // the look has begun
					renew(s)
					sse(s, w, r)
				})
				time.Sleep(4 * time.Second) // it has ended
				x.mustGoOn()
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		store.onDel = func(session2.ID) error { time.Sleep(20 * time.Second); return nil }
		st := testsite.NewSite(t, store, session2.Config{CommitTimeout: time.Minute})
		x := openStream(st, st.Login("alice"), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			r.Context().Done()
			s.SetUser("") // and nothing is left of it
			sse(s, w, r)
		})
		x.mustGoOn()
	})
}

// A stream of the session that its own request has made, or logged in to, ends as well.
func TestStreamOfItsOwnSession(t *testing.T) {
	begins := map[string]func(s *session2.Session){
		"a new session":     func(s *session2.Session) { s.Set("k", 1) },
		"a login":           func(s *session2.Session) { s.SetUser("alice") },
		"after a logout":    func(s *session2.Session) { s.Destroy(); s.SetUser("carol") },
		"by another commit": func(s *session2.Session) { s.Set("k", 1); s.Commit(context.Background()); s.Renew() },
	}
	for name, begin := range begins {
		for _, again := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, a known browser %t", name, again), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := session2.NewMemoryStore()
					st, other := testsite.NewSite(t, store, session2.Config{}), testsite.NewSite(t, store, session2.Config{})
					for _, by := range []*testsite.Site{st, other} {
						b := &testsite.Browser{}
						if again {
							st.Begin(b)
						}
						x := openStream(st, b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
							begin(s)
							sse(s, w, r)
						})
						testsite.Must(t, by.M.Revoke(t.Context(), x.s.ID()))
						if by == other {
							time.Sleep(5 * time.Second)
							synctest.Wait()
						}
						x.mustEnd(session2.ErrNotFound)
					}
				})
			})
		}
	}
}

// A stream whose own Save has landed, and was found to have landed only after another
// process had replaced the token, has a dead token like any other.
func TestStreamThatLearnsLateOfItsSave(t *testing.T) {
	for name, begun := range map[string]bool{"before the response begins": false, "after that": true} {
		for what, do := range map[string]func(*session2.Session){
			"Renew":   (*session2.Session).Renew,
			"a login": func(s *session2.Session) { s.SetUser("alice") },
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := newHookStore()
					st, other := testsite.NewSite(t, store, session2.Config{}), testsite.NewSite(t, store, session2.Config{})
					b := st.Login("alice")
					tab := b.Clone()
					x := openStream(st, b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
						r.Context().Done()
						if begun {
							sse(s, w, r)
						}
						store.set(func() {
							store.onSave = func(_ session2.Record, _ session2.Version, save func() error) error {
								store.set(func() { store.onSave = nil })
								testsite.Must(t, save())
								other.Do(tab, do)
								return session2.ErrUncertain
							}
						})
						s.Set("step", 1)
						testsite.Must(t, s.Commit(r.Context())) // it has landed
						if !begun {
							sse(s, w, r)
						}
					})
					time.Sleep(30 * time.Second)
					synctest.Wait()
					x.mustEnd(session2.ErrStale)
					if got := other.Stored(tab, "step"); got != 1 {
						t.Errorf("step = %v; want what the stream has committed", got)
					}
				})
			})
		}
	}
}

// A login that was sent twice and asks a database by its context: both are answered.
// What streams on with the token from before the login ends.
func TestLoginBesideALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		b := &testsite.Browser{}
		st.Do(b, func(s *session2.Session) { s.Set("color", "green") })
		first := b.Clone()
		st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			s.User()
			query, cancel := context.WithTimeout(r.Context(), time.Hour)
			defer cancel()
			st.Do(first, func(s *session2.Session) { s.SetUser("alice") })
			if err := query.Err(); err != nil {
				t.Errorf("the second login's query: %v, %v", err, context.Cause(query))
			}
			s.SetUser("alice")
			w.WriteHeader(http.StatusOK)
			if err := r.Context().Err(); err != nil {
				t.Errorf("after the second login: %v", context.Cause(r.Context()))
			}
		})
		if st.UserOf(b) != "alice" || b.Token() != first.Token() {
			t.Error("the browser is not signed in")
		}
		x := openStream(st, b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			s.User()
			r.Context().Done()
			st.Do(b, func(s *session2.Session) { s.SetUser("alice") })
			if err := r.Context().Err(); err != nil {
				t.Errorf("before the response began: %v", context.Cause(r.Context()))
			}
			w.(http.Flusher).Flush()
		})
		x.mustEnd(session2.ErrStale)
	})
}

// One Load for each session and interval, however many streams it has; none for
// requests that are over by then, or have not asked for Done, or have no session.
func TestWatchingIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{})
		b, b2 := st.Login("alice"), st.Login("bob")
		var list []*stream
		for range 1000 {
			list = append(list, openStream(st, b, sse))
		}
		list = append(list, openStream(st, b2, sse))
		list = append(list, openStream(st, &testsite.Browser{}, sse))
		list = append(list, openStream(st, st.Login("carol"), func(*session2.Session, http.ResponseWriter, *http.Request) {}))
		before := store.count("load")
		for range 60 {
			time.Sleep(time.Second)
			st.Visit(st.Login("dan"), func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
				s.User()
				r.Context().Done()
				time.Sleep(5*time.Second - 1)
			})
		}
		synctest.Wait()
		// 60 requests took nearly 6 s each, and look once themselves.
		if n := store.count("load") - before - 60; n != 2*71 {
			t.Errorf("%d loads in six minutes, want %d", n, 2*71)
		}
		if n := store.count("touch", "save", "delete"); n != 63 { // the logins
			t.Errorf("%d writes", n)
		}
		for _, x := range list {
			x.mustGoOn()
		}
		before = store.count("load")
		time.Sleep(time.Hour)
		if n := store.count("load") - before; n != 0 {
			t.Errorf("%d loads after the last stream has gone", n)
		}
	})
}

// A store that fails, hangs or panics ends nothing. It is one event, and when it is
// back the end is noticed.
func TestStreamOutlivesAFailingStore(t *testing.T) {
	fails := map[string]func(session2.ID) error{
		"fails":  func(session2.ID) error { return testsite.ErrDown },
		"hangs":  func(session2.ID) error { time.Sleep(time.Minute); return context.DeadlineExceeded },
		"panics": func(session2.ID) error { panic("the store") },
	}
	for name, fail := range fails {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newHookStore()
				st := testsite.NewSite(t, store, session2.Config{IdleTimeout: -1})
				other := testsite.NewSite(t, store.MemoryStore, session2.Config{})
				var list []*stream
				for range 20 {
					list = append(list, openStream(st, st.Login("alice"), sse))
				}
				store.set(func() { store.onLoad = fail })
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				want := 1
				if name == "panics" {
					want = 0
				}
				if n := st.Events.Count(session2.EventStoreError); n != want {
					t.Errorf("%d events, want %d", n, want)
				}
				for _, x := range list {
					if x.ctx.Err() != nil {
						t.Fatalf("it has ended: %v", context.Cause(x.ctx))
					}
				}
				other.M.RevokeUser(t.Context(), "alice")
				store.set(func() { store.onLoad = nil })
				time.Sleep(2 * time.Minute) // what hangs must come back first
				synctest.Wait()
				for _, x := range list {
					x.mustEnd(session2.ErrNotFound)
				}
			})
		})
	}
}

// A record that nobody can read is no session any more, as for Check.
func TestStreamOfACorruptRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session2.NewMemoryStore()
		st := testsite.NewSite(t, store, session2.Config{})
		b := st.Login("alice")
		x := openStream(st, b, sse)
		rec := testsite.RecordsOf(t, store)[0]
		prev := rec.Version
		rec.Version, rec.Data = prev+1, []byte("?")
		testsite.Must(t, store.Save(t.Context(), rec, prev))
		time.Sleep(5 * time.Second)
		synctest.Wait()
		x.mustEnd(session2.ErrNotFound)
		x.mustEnd(session2.ErrCorrupt)
	})
}

// What the request's own commit finds ends its context too, and what the handler does
// then is as before: changes of an ended session are dropped, and Check says so.
func TestEndedStreamGoesOnUsingItsSession(t *testing.T) {
	for _, every := range []time.Duration{-1, time.Second} {
		t.Run(every.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := session2.NewMemoryStore()
				st := testsite.NewSite(t, store, session2.Config{WatchEvery: every})
				other := testsite.NewSite(t, store, session2.Config{})
				b := st.Login("alice")
				var list [4]error
				x := openStream(st, b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					sse(s, w, r)
					r.Context().Done()
					testsite.Must(t, other.M.Revoke(t.Context(), s.ID()))
					time.Sleep(time.Minute)
					list[0] = s.Check(r.Context())
					_, list[1] = s.UseFormToken(r.Context(), strings.Repeat("A", 22))
					s.Set("k", 1)
					list[2] = s.Commit(r.Context())
					list[3] = s.Err()
				})
				x.mustEnd(session2.ErrNotFound)
				for i, err := range list {
					if i != 1 && !errors.Is(err, session2.ErrNotFound) || i == 1 && err != nil {
						t.Errorf("%d: %v", i, err)
					}
				}
			})
		})
	}
}

// The end of a long request is a use of the session, unless a login or Renew has replaced
// the request's token, whether the handler was told so or not.
func TestEndOfALongRequestIsAUseOfItsOwnSession(t *testing.T) {
	login := func(user string) func(*session2.Session) { return func(s *session2.Session) { s.SetUser(user) } }
	for _, test := range []struct {
		name  string
		other func(s *session2.Session) // what another request does meanwhile
		used  bool
	}{
		{"nothing else", nil, true},
		{"a write", func(s *session2.Session) { s.Set("color", "red") }, true},
		{"a rotation", func(s *session2.Session) { s.User() }, true},
		{"another user's login", login("bob"), false},
		{"the user's login", login("alice"), false},
		{"Renew", (*session2.Session).Renew, false},
		{"a logout by SetUser", func(s *session2.Session) {
			s.SetUser("")
			s.Set("color", "grey")
		}, false},
	} {
		for _, by := range []string{"this manager", "another one"} {
			for _, told := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s by %s, told: %v", test.name, by, told), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { longRequest(t, test.other, by == "another one", told, test.used) })
				})
			}
		}
	}
}

func longRequest(t *testing.T, other func(*session2.Session), elsewhere, told, used bool) {
	store := session2.NewMemoryStore()
	cfg := session2.Config{RenewEvery: 5 * time.Minute}
	st := testsite.NewSite(t, store, cfg)
	b := &testsite.Browser{}
	st.Begin(b)
	site := st
	if elsewhere {
		site = testsite.NewSite(t, store, cfg)
	}
	st.Visit(b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		sse(s, w, r)
		if told {
			r.Context().Done()
		}
		time.Sleep(10 * time.Minute)
		if other != nil {
			site.Do(b, other)
		}
		time.Sleep(10 * time.Minute)
	})
	ago := time.Since(testsite.RecordsOf(t, store)[0].Accessed)
	if got := ago == 0; got != used {
		t.Errorf("the session was used %v ago; want the end of the long request to be a use: %v", ago, used)
	}
}

// Contexts made of the request's end with it, have its cause, and cost no goroutine.
func TestContextsOfAStream(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{WatchEvery: -1})
	b := st.Login("alice")
	ran := make(chan struct{}, 1)
	st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		before := runtime.NumGoroutine()
		var list []context.Context
		type key struct{}
		for range 100 {
			one, cancel := context.WithCancel(context.WithValue(r.Context(), key{}, 1))
			defer cancel()
			two, cancel := context.WithTimeout(one, time.Hour)
			defer cancel()
			list = append(list, one, two)
		}
		context.AfterFunc(r.Context(), func() { ran <- struct{}{} })
		stop := context.AfterFunc(r.Context(), func() { t.Error("a stopped AfterFunc runs") })
		without := context.WithoutCancel(r.Context())
		if n := runtime.NumGoroutine() - before; n > 50 {
			t.Errorf("%d goroutines for 200 contexts", n)
		}
		if !stop() {
			t.Error("it cannot be stopped")
		}
		if r.Context().Err() != nil || context.Cause(r.Context()) != nil {
			t.Error("it has an Err from the start")
		}
		sse(s, w, r)
		testsite.Must(t, st.M.Revoke(t.Context(), s.ID()))
		for _, ctx := range append(list, r.Context()) {
			select {
			case <-ctx.Done():
			default:
				t.Fatal("a context is not done")
			}
			if ctx.Err() != context.Canceled || !errors.Is(context.Cause(ctx), session2.ErrNotFound) {
				t.Fatalf("%v: Err = %v, Cause = %v", ctx, ctx.Err(), context.Cause(ctx))
			}
		}
		<-ran
		late, cancel := context.WithCancel(r.Context())
		defer cancel()
		if !errors.Is(context.Cause(late), session2.ErrNotFound) {
			t.Errorf("one that is made later: %v", context.Cause(late))
		}
		if without.Err() != nil || without.Done() != nil || session2.FromContext(without) != s {
			t.Error("WithoutCancel is not without")
		}
		if text := fmt.Sprint(r.Context(), late, without); strings.Contains(text, b.Token()) {
			t.Errorf("it prints %s", text)
		}
	})
}

// The server's own end of the context is told as ever, with its own cause; so it is
// before anybody has asked for Done. The first cause counts.
func TestServersEndOfTheContext(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	why := errors.New("the server's")
	for _, asked := range []bool{true, false} {
		r := httptest.NewRequest("GET", "/", nil)
		b.Send(r)
		ctx, cancel := context.WithCancelCause(r.Context())
		st.M.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, s := r.Context(), st.M.Session(r)
			s.User()
			if asked {
				ctx.Done()
			}
			cancel(why)
			if ctx.Err() != context.Canceled || context.Cause(ctx) != why {
				t.Errorf("asked %t: Err = %v, Cause = %v", asked, ctx.Err(), context.Cause(ctx))
			}
			st.Do(b, (*session2.Session).Renew)
			w.WriteHeader(http.StatusOK)
			<-ctx.Done()
			if ctx.Err() != context.Canceled || context.Cause(ctx) != why {
				t.Errorf("asked %t, then: Err = %v, Cause = %v", asked, ctx.Err(), context.Cause(ctx))
			}
		})).ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx))
	}
}

// When the handler has returned, the context has ended, as net/http's has, and holds
// nothing of it back. Whoever asks for the first time then gets the server's.
func TestContextAfterItsHandler(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	parent, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, asked := range []bool{true, false} {
		var ctx context.Context
		r := httptest.NewRequest("GET", "/", nil).WithContext(parent)
		b.Send(r)
		st.M.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			st.M.Session(r).User()
			if ctx = r.Context(); asked {
				ctx.Done()
			}
		})).ServeHTTP(httptest.NewRecorder(), r)
		if asked {
			<-ctx.Done()
			if context.Cause(ctx) != context.Canceled {
				t.Errorf("Cause = %v", context.Cause(ctx))
			}
		} else if ctx.Done() != parent.Done() || ctx.Err() != nil {
			t.Errorf("not the server's: Err = %v", ctx.Err())
		}
	}
}

// Many goroutines ask, look, commit and end at once.
func TestStreamsAtOnce(t *testing.T) {
	store := session2.NewMemoryStore()
	st := testsite.NewSite(t, store, session2.Config{WatchEvery: time.Millisecond, RenewEvery: time.Second})
	for range 20 {
		b := &testsite.Browser{}
		st.Begin(b)
		var wg, ready sync.WaitGroup
		ready.Add(8)
		for i := range 8 {
			wg.Go(func() {
				st.Visit(b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					s.User()
					var in sync.WaitGroup
					for range 4 {
						in.Go(func() { r.Context().Done(); r.Context().Err(); context.Cause(r.Context()) })
					}
					if s.Set("k", i); i%2 == 0 {
						s.Commit(r.Context())
					}
					w.(http.Flusher).Flush()
					in.Wait()
					ready.Done()
					<-r.Context().Done()
					if !errors.Is(context.Cause(r.Context()), session2.ErrNotFound) {
						t.Errorf("Cause = %v", context.Cause(r.Context()))
					}
				})
			})
		}
		ready.Wait()
		st.Do(b, (*session2.Session).Destroy)
		wg.Wait()
	}
}

// A manager inside another one: each one's session ends the handler's context, and the
// outer one's also that of handlers between them.
func TestStreamInsideTwoManagers(t *testing.T) {
	for _, outer := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
			in := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Realm: "in",
				Cookie: session2.CookieConfig{Name: "inner"}})
			r := httptest.NewRequest("GET", "https://example.com/", nil)
			w := httptest.NewRecorder()
			st.M.Wrap(in.M.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				so, si := st.M.Session(r), in.M.Session(r)
				so.SetUser("alice")
				si.SetUser("alice")
				w.(http.Flusher).Flush()
				done := r.Context().Done()
				if outer {
					st.M.Revoke(context.Background(), so.ID())
				} else {
					in.M.Revoke(context.Background(), si.ID())
				}
				<-done
				if !errors.Is(context.Cause(r.Context()), session2.ErrNotFound) {
					t.Errorf("Cause = %v", context.Cause(r.Context()))
				}
				if so.Set("k", 1); outer == (so.Commit(context.Background()) == nil) {
					t.Errorf("outer ended %t: Err = %v", outer, so.Err())
				}
				if si.Set("k", 1); outer != (si.Commit(context.Background()) == nil) {
					t.Errorf("outer ended %t: the inner one's Err = %v", outer, si.Err())
				}
			}))).ServeHTTP(w, r)
		})
	}
}

// http.TimeoutHandler goes on working inside and outside of Wrap.
func TestTimeoutHandlerAndStreams(t *testing.T) {
	for _, inside := range []bool{true, false} {
		for _, ends := range []bool{true, false} {
			t.Run(fmt.Sprintf("inside %t, ends %t", inside, ends), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
					b := st.Login("alice")
					var err, cause error
					returned := make(chan struct{})
					var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						defer close(returned)
						s := st.M.Session(r)
						s.Set("k", 1)
						done := r.Context().Done()
						if ends {
							st.M.Revoke(context.Background(), s.ID())
						}
						<-done
						err, cause = r.Context().Err(), context.Cause(r.Context())
					})
					if inside {
						h = st.M.Wrap(http.TimeoutHandler(h, time.Minute, "too late"))
					} else {
						h = http.TimeoutHandler(st.M.Wrap(h), time.Minute, "too late")
					}
					r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
					b.Send(r)
					h.ServeHTTP(w, r)
					<-returned
					switch {
					case ends && (err != context.Canceled || !errors.Is(cause, session2.ErrNotFound)):
						t.Errorf("ended: %v, %v", err, cause)
					case !ends && (err != context.DeadlineExceeded || w.Code != http.StatusServiceUnavailable):
						t.Errorf("timed out: %v, %d", err, w.Code)
					case !ends && st.Stored(b, "k") != nil:
						t.Error("a request whose time was over has stored something")
					}
				})
			})
		}
	}
}

// A proxy's request to its back end ends with the session.
func TestReverseProxyEndsWithTheSession(t *testing.T) {
	ended := make(chan struct{})
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(ended)
	}))
	defer back.Close()
	to, _ := url.Parse(back.URL)
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.FlushInterval, proxy.ErrorLog = -1, slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	var id session2.ID
	srv := testsite.Serve(t, st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		id = s.ID()
		proxy.ServeHTTP(w, r)
	}), false)
	r, err := http.NewRequest("GET", srv.URL, nil)
	testsite.Must(t, err)
	st.Login("alice").Send(r)
	res, err := srv.Client().Do(r)
	testsite.Must(t, err)
	defer res.Body.Close()
	testsite.Must(t, st.M.Revoke(t.Context(), id))
	<-ended
}

// WatchEvery is 5 s, and less where the token would be forgotten in that time.
func TestWatchEvery(t *testing.T) {
	for _, c := range []struct{ renew, set, want time.Duration }{
		{0, 0, 5 * time.Second},
		{time.Minute, 0, 5 * time.Second},
		{10 * time.Millisecond, 0, 320 * time.Millisecond},
		{time.Minute, time.Hour, 0},
		{0, time.Hour, time.Hour},
		{time.Minute, -1, -1},
	} {
		m, err := session2.NewManager(session2.NewMemoryStore(),
			session2.Config{RenewEvery: c.renew, RenewGrace: time.Microsecond, WatchEvery: c.set})
		if c.want == 0 {
			if err == nil || !strings.Contains(err.Error(), "Config.WatchEvery") {
				t.Errorf("RenewEvery %v, WatchEvery %v: %v", c.renew, c.set, err)
			}
			continue
		}
		testsite.Must(t, err)
		if got := session2.Effective(m).WatchEvery; got != c.want {
			t.Errorf("RenewEvery %v, WatchEvery %v: effective %v, want %v", c.renew, c.set, got, c.want)
		}
	}
}

// streamEnv has a process serve streams over the sessions in this directory.
const streamEnv = "SESSION2_TEST_STREAM"

// streamSite is a site over plain HTTP whose sessions processes share.
func streamSite(t *testing.T, dir string) *testsite.Site {
	return testsite.NewSite(t, openFile(t, dir, nil), session2.Config{
		WatchEvery: 50 * time.Millisecond, Cookie: session2.CookieConfig{Insecure: true}})
}

// events is an SSE handler: it says who is signed in, and why it ends.
func events(s *session2.Session, w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprintf(w, "data: hello %s\n\n", s.User())
	w.(http.Flusher).Flush()
	<-r.Context().Done()
	cause := context.Cause(r.Context())
	fmt.Fprintf(w, "data: ended %t, stale %t\n\n", errors.Is(cause, session2.ErrNotFound), errors.Is(cause, session2.ErrStale))
}

// serveStreams does not return in a process that startStreams started, until that
// closes its standard input.
func serveStreams(t *testing.T) {
	dir := os.Getenv(streamEnv)
	if dir == "" {
		return
	}
	srv := httptest.NewServer(streamSite(t, dir).Handler(events))
	fmt.Println(srv.URL)
	io.Copy(io.Discard, os.Stdin)
	srv.Close()
	os.Exit(0)
}

// startStreams runs the test again in another process, and returns its address.
func startStreams(t *testing.T, test, dir string) (url string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^"+test+"$")
	cmd.Env = append(os.Environ(), streamEnv+"="+dir)
	in, err := cmd.StdinPipe()
	testsite.Must(t, err)
	out, err := cmd.StdoutPipe()
	testsite.Must(t, err)
	testsite.Must(t, cmd.Start())
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	url, err = bufio.NewReader(out).ReadString('\n')
	testsite.Must(t, err)
	return strings.TrimSpace(url)
}

// subscribe opens a stream as b and reads its first event.
func subscribe(t *testing.T, url string, b *testsite.Browser) *bufio.Scanner {
	t.Helper()
	r, err := http.NewRequest("GET", url, nil)
	testsite.Must(t, err)
	b.Send(r)
	res, err := http.DefaultClient.Do(r)
	testsite.Must(t, err)
	t.Cleanup(func() { res.Body.Close() })
	lines := bufio.NewScanner(res.Body)
	if text := nextEvent(lines); text != "hello alice" {
		t.Fatalf("the stream begins with %q", text)
	}
	return lines
}

// nextEvent waits for a stream's next event.
func nextEvent(lines *bufio.Scanner) string {
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			return text
		}
	}
	return "(the end)"
}

// A stream in one process ends, with its cause, when another one ends its session.
func TestStreamEndsByAnotherProcess(t *testing.T) {
	serveStreams(t)
	dir := t.TempDir()
	url := startStreams(t, "TestStreamEndsByAnotherProcess", dir)
	ways := map[string]struct {
		do   func(st *testsite.Site, b *testsite.Browser)
		want string
	}{
		"RevokeUser": {func(st *testsite.Site, _ *testsite.Browser) {
			_, err := st.M.RevokeUser(t.Context(), "alice")
			testsite.Must(t, err)
		}, "ended true, stale false"},
		"Destroy": {func(st *testsite.Site, b *testsite.Browser) {
			st.Do(b, (*session2.Session).Destroy)
		}, "ended true, stale false"},
		"the idle limit": {func(st *testsite.Site, b *testsite.Browser) {
			st.Do(b, func(s *session2.Session) { s.SetIdleTimeout(10 * time.Millisecond) })
		}, "ended true, stale false"},
		"Renew": {func(st *testsite.Site, b *testsite.Browser) {
			st.Do(b, (*session2.Session).Renew)
		}, "ended false, stale true"},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			st := streamSite(t, dir)
			b := st.Login("alice")
			one, two := subscribe(t, url, b), subscribe(t, url, b)
			way.do(st, b)
			for _, lines := range []*bufio.Scanner{one, two} {
				if text := nextEvent(lines); text != way.want {
					t.Errorf("the stream says %q, want %q", text, way.want)
				}
			}
		})
	}
}

// The same in one process, over HTTP/1.1 and HTTP/2.
func TestStreamOverHTTPEnds(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		b := st.Login("alice")
		srv := testsite.Serve(t, st.Handler(events), http2)
		r, err := http.NewRequest("GET", srv.URL, nil)
		testsite.Must(t, err)
		b.Send(r)
		res, err := srv.Client().Do(r)
		testsite.Must(t, err)
		lines := bufio.NewScanner(res.Body)
		nextEvent(lines)
		st.Do(b, (*session2.Session).Destroy)
		if text := nextEvent(lines); text != "ended true, stale false" {
			t.Errorf("HTTP/2 %t: the stream says %q", http2, text)
		}
		res.Body.Close()
	}
}

// A WebSocket's handler has taken the connection over: its context ends as well, and it
// says goodbye.
func TestHijackedConnectionEnds(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Logger: slog.New(slog.DiscardHandler)})
	b := st.Login("alice")
	srv := testsite.Serve(t, st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.User()
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\nhello\n")
		rw.Flush()
		<-r.Context().Done()
		fmt.Fprintf(rw, "goodbye %t\n", errors.Is(context.Cause(r.Context()), session2.ErrNotFound))
		rw.Flush()
	}), false)
	r, err := http.NewRequest("GET", srv.URL, nil)
	testsite.Must(t, err)
	b.Send(r)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "chat")
	res, err := srv.Client().Do(r)
	testsite.Must(t, err)
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	if lines.Scan(); lines.Text() != "hello" {
		t.Fatalf("it says %q", lines.Text())
	}
	_, err = st.M.RevokeUser(t.Context(), "alice")
	testsite.Must(t, err)
	if lines.Scan(); lines.Text() != "goodbye true" {
		t.Errorf("it says %q", lines.Text())
	}
}
