package session2_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// Tests of features that work together: Exclusive, sealed values, MaxPerUser, levels,
// rotation, and contexts that end with their session.

// slow is a store whose answers to a Load or Save come late.

type slow struct {
	*session2.MemoryStore
	load, save atomic.Int64 // ns; for the next call only
}

func (s *slow) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	rec, err := s.MemoryStore.Load(ctx, id)
	time.Sleep(time.Duration(s.load.Swap(0)))
	return rec, err
}

func (s *slow) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	err := s.MemoryStore.Save(ctx, rec, prev)
	time.Sleep(time.Duration(s.save.Swap(0)))
	return err
}

// A: a look whose Load was overtaken by a periodic rotation.

func TestALookThatARotationHasOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &slow{MemoryStore: session2.NewMemoryStore()}
		st := testsite.NewSite(t, store, session2.Config{RenewEvery: time.Minute})
		b := &testsite.Browser{}
		st.Begin(b)
		x := openStream(st, b, sse) // looks every 5 s
		time.Sleep(62 * time.Second)
		st2 := testsite.NewSite(t, store, session2.Config{}) // no RenewEvery: just a change
		st2.Do(b, func(s *session2.Session) { s.Set("k", 1) })
		store.load.Store(int64(2 * time.Second)) // next Load (the look at 65 s) takes 2 s
		time.Sleep(4 * time.Second)              // 66 s: the look is under way
		st.UserOf(b)                             // rotates
		time.Sleep(10 * time.Second)
		synctest.Wait()
		x.mustGoOn()
	})
}

// B: news that another process has overtaken.

func TestNewsThatAnotherProcessHasOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session2.NewMemoryStore()
		sites := sitesOver(t, session2.Config{RenewEvery: time.Minute}, store, store)
		b := &testsite.Browser{}
		sites[0].Begin(b)
		x := openStream(sites[0], b, sse)
		time.Sleep(61 * time.Second)
		sites[0].UserOf(b) // rotates at process 0: news
		for range 4 {
			sites[1].UserOf(b)
			time.Sleep(61 * time.Second)
		}
		for i := range 20 {
			sites[1].Do(b, func(s *session2.Session) { s.Set("k", i) })
		}
		sites[0].Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			if s.User() != "alice" {
				t.Fatal("not alice")
			}
			r.Context().Done()
			if r.Context().Err() != nil {
				t.Error("a fresh request with the present cookie: ", context.Cause(r.Context()))
			}
		})
		x.mustGoOn()
	})
}

// C: a request's own Renew, whose Save's answer is slow.

func TestOwnRenewDoesNotEndTheContext(t *testing.T) {
	for _, how := range []string{"renew", "level", "login", "max1"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &slow{MemoryStore: session2.NewMemoryStore()}
				cfg := session2.Config{}
				if how == "max1" {
					cfg.MaxPerUser = 1
				}
				st := testsite.NewSite(t, store, cfg)
				b := st.Login("alice")
				st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					s.User()
					r.Context().Done()
					time.Sleep(4 * time.Second) // a slow second factor
					switch how {
					case "renew":
						s.Renew()
					case "level":
						s.SetLevel(2)
					default:
						s.SetUser("alice")
						s.SetLevel(2)
					}
					store.save.Store(int64(2 * time.Second))
					if err := s.Commit(r.Context()); err != nil {
						t.Error(err)
					}
					if r.Context().Err() != nil {
						t.Error("own context ended: ", context.Cause(r.Context()))
					}
				})
			})
		})
	}
}

type ctxKey struct{}

// D: Exclusive inside a middleware that derives a context.

func TestAWaiterWhoseSessionEndsIsNobody(t *testing.T) {
	for _, derived := range []bool{false, true} {
		for _, how := range []string{"revoke", "renew", "login"} {
			t.Run(fmt.Sprint(derived, how), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
					b := st.Login("alice")
					holder := b.Clone()
					leave := make(chan struct{})
					go exclusive(st, holder, func(s *session2.Session, w http.ResponseWriter, r *http.Request) { <-leave })
					synctest.Wait()
					h := st.M.Exclusive(bare(st, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
						fmt.Fprintf(w, "%q", s.User())
					}))
					inner := h
					if derived {
						inner = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), ctxKey{}, 1)))
						})
					}
					done := make(chan *http.Response, 1)
					go func() { done <- serveIn(context.Background(), b.Clone(), st.M.Wrap(inner)) }()
					time.Sleep(time.Second)
					switch how {
					case "revoke":
						st.M.RevokeUser(context.Background(), "alice")
					case "renew":
						st.Do(b, (*session2.Session).Renew)
					case "login":
						st.Do(b, func(s *session2.Session) { s.SetUser("alice") })
					}
					time.Sleep(time.Second)
					close(leave)
					res := <-done
					if res.StatusCode != 200 {
						t.Errorf("status %d", res.StatusCode)
					}
					synctest.Wait()
				})
			})
		}
	}
}

// E: own login committed in Exclusive, and then a panic: is the turn left?

func TestALoginInExclusiveKeepsItsTurn(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		t.Run(fmt.Sprint("panic", sealed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := session2.NewMemoryStore()
				st := testsite.NewSite(t, store, session2.Config{Sealed: sealed})
				b := st.Login("alice")
				exclusive(st, b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					s.SetLevel(2)
					testsite.Must(t, s.Commit(r.Context()))
					w.WriteHeader(500)
				})
				free(t, store, st.M)
				exclusive(st, b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					if s.Level() != 2 {
						t.Error("level", s.Level())
					}
				})
			})
		})
		t.Run(fmt.Sprint("overlap", sealed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := session2.NewMemoryStore()
				sites := sitesOver(t, session2.Config{Sealed: sealed}, store, store)
				b := sites[0].Login("alice")
				twin := b.Clone()
				var in atomic.Int32
				var wg sync.WaitGroup
				wg.Go(func() {
					res := exclusive(sites[0], b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
						in.Add(1)
						s.SetUser("alice")
						testsite.Must(t, s.Commit(r.Context()))
						time.Sleep(25 * time.Second)
						s.Set("n", 1)
						in.Add(-1)
					})
					if res.StatusCode != 200 {
						t.Error("holder", res.StatusCode)
					}
				})
				time.Sleep(time.Second)
				// the login sent twice, not in Exclusive: gets the cookie
				sites[1].Do(twin, func(s *session2.Session) { s.SetUser("alice") })
				exclusive(sites[1], twin, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					if s.User() != "alice" {
						t.Error("twin is nobody")
					}
					if in.Load() != 0 {
						t.Error("two at a time")
					}
				})
				wg.Wait()
			})
		})
	}
}

// F: the end of one's own session by a method, then a login in the same request.

func TestALoginAfterOnesOwnEndIsWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		b := st.Login("alice")
		x := openStream(st, b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			s.User()
			st.M.RevokeAll(r.Context())
			s.Destroy()
			s.SetUser("alice")
			testsite.Must(t, s.Commit(r.Context()))
			sse(s, w, r)
		})
		st.M.RevokeUser(context.Background(), "alice")
		time.Sleep(time.Minute)
		synctest.Wait()
		x.mustEnd(session2.ErrNotFound)
	})
}

// G: an old cookie beside the right one.

// slowUser deletes a user's sessions one by one, as a store with files does, slowly.

type slowUser struct{ *session2.MemoryStore }

func (s *slowUser) DeleteUser(ctx context.Context, user string, keep ...session2.ID) (n int, err error) {
	for rec, err := range s.MemoryStore.IterUser(ctx, user) {
		if err != nil {
			return n, err
		}
		if err := ctx.Err(); err != nil {
			return n, err
		}
		s.MemoryStore.Delete(ctx, rec.ID)
		n++
		time.Sleep(3 * time.Second)
	}
	return n, nil
}

// H: a request's own RevokeUser that takes its time.

func TestOwnRevokeUserIsNotCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, &slowUser{session2.NewMemoryStore()}, session2.Config{})
		b := st.Login("alice")
		for range 6 {
			st.Login("alice")
		}
		st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			s.User()
			r.Context().Done()
			n, err := st.M.RevokeUser(r.Context(), "alice")
			if n != 7 || err != nil || r.Context().Err() != nil {
				t.Error(n, err, context.Cause(r.Context()))
			}
		})
		n := 0
		for range st.M.Sessions(context.Background(), "alice") {
			n++
		}
		if n != 0 {
			t.Error(n, "sessions left")
		}
	})
}

// I: the oldest by the latest login, where a login's handler takes its time.

// J: increments in Exclusive, sealed, with rotations and logins meanwhile.

func TestIncrementsOfAllKinds(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		t.Run(fmt.Sprint(sealed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := session2.NewMemoryStore()
				sites := sitesOver(t, session2.Config{Sealed: sealed, RenewEvery: time.Second, RenewGrace: 30 * time.Second,
					MaxPerUser: 2, CommitTimeout: time.Minute}, store, store)
				b := sites[0].Login("alice")
				acked := 0
				var mu sync.Mutex
				var wg sync.WaitGroup
				for i := range 40 {
					wg.Go(func() {
						time.Sleep(time.Duration(i) * 300 * time.Millisecond)
						c := b.Clone()
						st := sites[i%2]
						alice := false
						res := exclusive(st, c, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
							alice = s.User() == "alice"
							if alice {
								naive(s)
								if i%3 == 0 {
									testsite.Must(t, s.Commit(r.Context()))
								}
								time.Sleep(time.Duration(i%5) * 400 * time.Millisecond)
								if i%13 == 12 {
									s.SetUser("alice")
								}
								if i%11 == 10 {
									s.SetLevel(2)
								}
							}
							fmt.Fprint(w, "done")
						})
						mu.Lock()
						defer mu.Unlock()
						if res.StatusCode == 200 && alice {
							acked++
							if tok := c.Token(); tok != "" {
								b.Receive(res)
							}
						}
						if res.StatusCode != 200 {
							t.Errorf("%d: status %d", i, res.StatusCode)
						}
					})
				}
				wg.Wait()
				time.Sleep(time.Second)
				if n := sites[0].Stored(b, "n"); n != acked {
					t.Errorf("n = %v, want %d", n, acked)
				}
				free(t, store, sites[0].M, sites[1].M)
				for _, st := range sites {
					for _, e := range st.Events.List {
						if e.Kind == session2.EventStoreError || e.Kind == session2.EventCorrupt || e.Kind == session2.EventReuse {
							t.Error(e.Kind, e.Err)
						}
					}
				}
			})
		})
	}
}

// K: logins at once: switch, destroy first, exclusive, sealed.

func TestLoginsOfAllKindsAtOnce(t *testing.T) {
	for _, reject := range []bool{false, true} {
		t.Run(fmt.Sprint(reject), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := session2.NewMemoryStore()
				sites := sitesOver(t, session2.Config{Sealed: true, MaxPerUser: 3, RejectLogin: reject, RenewEvery: time.Second,
					Anomalies: true, ClearSiteData: true, CommitTimeout: time.Minute}, store, store)
				count := func(user string) (n int) {
					for range sites[0].M.Sessions(context.Background(), user) {
						n++
					}
					return n
				}
				for round := range 10 {
					var wg sync.WaitGroup
					var bs []*testsite.Browser
					for range 6 {
						b := &testsite.Browser{}
						sites[0].Do(b, func(s *session2.Session) { s.Set("k", 1) })
						if round%2 == 0 {
							sites[0].Do(b, func(s *session2.Session) { s.SetUser("bob" + fmt.Sprint(len(bs))) })
						}
						bs = append(bs, b)
					}
					for i, b := range bs {
						for j := range 2 {
							c := b.Clone()
							wg.Go(func() {
								exclusive(sites[(i+j)%2], c, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
									s.Get("k")
									if i%3 == 0 {
										s.Destroy()
									}
									s.SetUser("alice")
									if i%2 == 0 {
										s.SetLevel(1 + j)
									}
									if n := count("alice"); n > 6 {
										t.Error(n)
									}
									fmt.Fprint(w, "x")
								})
							})
						}
					}
					wg.Wait()
					if n := count("alice"); n != 3 {
						t.Errorf("round %d: %d sessions", round, n)
					}
					if reject {
						for info := range sites[0].M.Sessions(context.Background(), "alice") {
							sites[1].M.Revoke(context.Background(), info.ID)
							break
						}
					}
				}
				free(t, store, sites[0].M, sites[1].M)
				for _, st := range sites {
					for _, e := range st.Events.List {
						if e.Kind == session2.EventStoreError || e.Kind == session2.EventCorrupt || e.Kind == session2.EventReuse {
							t.Error(e.Kind, e.Err)
						}
					}
				}
			})
		})
	}
}

// L: a logout inside of another manager that begins a session in the same response.

// R: MaxPerUser, RevokeAll and streams.

// refusing refuses Saves from one manager while set.

type refusing struct {
	*session2.MemoryStore
	on atomic.Bool
}

func (s *refusing) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	if s.on.Load() {
		return session2.Record{}, errors.New("stalled")
	}
	return s.MemoryStore.Load(ctx, id)
}

// N: a holder that has lost its turn, and signs in as its twin has meanwhile.

func TestATurnThatIsLostIsLostForATwin(t *testing.T) {
	for _, login := range []bool{false, true} {
		t.Run(fmt.Sprint(login), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := session2.NewMemoryStore()
				stalling := &refusing{MemoryStore: store}
				cfg := session2.Config{AllowLostUpdates: true, CommitTimeout: time.Second, WatchEvery: -1}
				s0, s1 := testsite.NewSite(t, stalling, cfg), testsite.NewSite(t, store, cfg)
				b := &testsite.Browser{}
				s1.Do(b, func(s *session2.Session) { s.Set("n", 0) })
				twin := b.Clone()
				done := make(chan int, 1)
				go func() {
					res := exclusive(s0, b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
						naive(s) // 1
						stalling.on.Store(true)
						time.Sleep(15 * time.Second) // stands still
						stalling.on.Store(false)
						if login {
							s.SetUser("alice")
						}
						fmt.Fprint(w, "x")
					})
					done <- res.StatusCode
				}()
				time.Sleep(12 * time.Second)
				res := exclusive(s1, twin, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					s.Set("n", s.Get("n").(int)+10)
					if login {
						s.SetUser("alice")
					}
					fmt.Fprint(w, "x")
				})
				code := <-done
				n := s1.Stored(twin, "n")
				if code == 200 && n != 11 || code != 200 && n != 10 {
					t.Error("twin", res.StatusCode, "holder", code, "n", n)
				}
			})
		})
	}
}

// O: TimeoutHandler between Wrap and Exclusive.

// P: Check of a derived context after the end.

// S: a login clicked twice in Exclusive, where one session is allowed.

// T: a passive request's turn takes back a Touch.

// TestCheckByADerivedContext is about a context made of the request's, which has ended
// with the session: the session still says so.
func TestCheckByADerivedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		b := st.Login("alice")
		st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			s.User()
			ctx := context.WithValue(r.Context(), ctxKey{}, 1)
			ctx.Done()
			st.M.RevokeUser(context.Background(), "alice")
			if ctx.Err() == nil || !errors.Is(s.Check(ctx), session2.ErrNotFound) {
				t.Errorf("Err = %v, Check = %v", ctx.Err(), s.Check(ctx))
			}
		})
	})
}

// blindChanges look like nothing to who makes them: another request has set grant since.
var blindChanges = map[string]func(*session2.Session){
	"Delete":         func(s *session2.Session) { s.Delete("grant") },
	"Clear":          func(s *session2.Session) { s.Clear() },
	"Set and Delete": func(s *session2.Session) { s.Set("grant", 2); s.Delete("grant") },
}

// A change that looks like nothing is not acknowledged where it could not be compared
// with what others have done meanwhile.
func TestABlindChangeIsAcknowledgedOnlyIfItWasStored(t *testing.T) {
	grant := func(s *session2.Session) { s.Set("grant", 1) }
	meanwhile := map[string]blindCase{
		"the store fails": {func(st *testsite.Site, store *testsite.Brittle, b *testsite.Browser) {
			st.Do(b, grant)
			store.FailLoad.Store(true)
		}, http.StatusServiceUnavailable, testsite.ErrDown, 1, session2.EventStoreError},
		"the token is replaced": {func(st *testsite.Site, _ *testsite.Brittle, b *testsite.Browser) {
			st.Do(b, func(s *session2.Session) { grant(s); s.Renew() })
		}, http.StatusConflict, session2.ErrStale, 1, session2.EventConflict},
		"the session ends": {func(st *testsite.Site, _ *testsite.Brittle, b *testsite.Browser) {
			st.M.RevokeUser(context.Background(), "alice")
		}, http.StatusOK, session2.ErrNotFound, nil, session2.EventDropped},
		"nothing else": {func(st *testsite.Site, _ *testsite.Brittle, b *testsite.Browser) {
			st.Do(b, grant)
		}, http.StatusOK, nil, nil, 0},
	}
	for name, c := range meanwhile {
		for change, do := range blindChanges {
			for _, commits := range []bool{false, true} {
				t.Run(fmt.Sprint(name, "/", change, " commits=", commits), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { c.test(t, do, commits) })
				})
			}
		}
	}
}

type blindCase struct {
	while  func(st *testsite.Site, store *testsite.Brittle, b *testsite.Browser)
	status int
	want   error
	stored any
	event  session2.EventKind
}

func (c *blindCase) test(t *testing.T, do func(*session2.Session), commits bool) {
	store := testsite.NewBrittle()
	st := testsite.NewSite(t, store, session2.Config{CommitTimeout: time.Second})
	b := st.Login("alice")
	var note error
	res := st.Visit(b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.User()
		c.while(st, store, b)
		st.Events.List = nil
		do(s)
		if commits {
			if err := s.Commit(r.Context()); !errors.Is(err, c.want) {
				t.Errorf("Commit returns %v, want %v", err, c.want)
			}
		}
		fmt.Fprint(w, "done")
		note = s.Err()
	})
	store.FailLoad.Store(false)
	if res.StatusCode != c.status || !errors.Is(note, c.want) {
		t.Errorf("status %d, Err %v; want %d, %v", res.StatusCode, note, c.status, c.want)
	}
	for _, kind := range []session2.EventKind{
		session2.EventStoreError, session2.EventConflict, session2.EventDropped,
	} {
		n := st.Events.Count(kind)
		if c.want != nil && (n == 0) == (kind == c.event) {
			t.Errorf("%d of %v: %v", n, kind, st.Events.List)
		}
	}
	if got := st.Stored(b, "grant"); got != c.stored {
		t.Errorf("grant is %v, want %v", got, c.stored)
	}
}

// A stream stores what it has to store however often its token was rotated meanwhile.
func TestALongStreamStores(t *testing.T) {
	learns := map[string]func(s *session2.Session, r *http.Request){
		"by its context": func(s *session2.Session, r *http.Request) { time.Sleep(10 * time.Second) },
		"by Check": func(s *session2.Session, r *http.Request) {
			if err := s.Check(r.Context()); err != nil {
				s.Set("check", err.Error())
			}
		},
	}
	for name, learn := range learns {
		for _, sealed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, sealed=%t", name, sealed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testLongStream(t, sealed, name == "by its context", learn) })
			})
		}
	}
}

func testLongStream(t *testing.T, sealed, asks bool, learn func(s *session2.Session, r *http.Request)) {
	st := testsite.NewSite(t, session2.NewMemoryStore(),
		session2.Config{RenewEvery: 10 * time.Minute, Lifetime: 48 * time.Hour, Sealed: sealed})
	b := &testsite.Browser{}
	st.Begin(b)
	st.Visit(b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		if asks {
			r.Context().Done()
		}
		sse(s, w, r)
		for range 4 {
			rotations(st, b, 20)
			learn(s, r)
		}
		s.Set("stream", "done")
		if err := s.Commit(r.Context()); err != nil || r.Context().Err() != nil {
			t.Errorf("Commit returns %v; the context's error is %v", err, r.Context().Err())
		}
	})
	if got := st.Stored(b, "stream"); got != "done" || st.Stored(b, "check") != nil {
		t.Errorf("stored %v; Check said %v", got, st.Stored(b, "check"))
	}
	if n := st.Events.Count(session2.EventReuse); n != 0 {
		t.Errorf("%d reuses: nobody has presented an old token", n)
	}
}

// RevokeOthers does not end nobody's sessions and call that a success.
func TestRevokeOthersAfterASignOut(t *testing.T) {
	revoke := func(before func(*session2.Session)) (n int, err error) {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		b, other := st.Login("alice"), st.Login("alice")
		st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			before(s)
			n, err = st.M.RevokeOthers(r.Context(), s)
		})
		if st.UserOf(other) != "alice" {
			t.Error("another session has ended")
		}
		return n, err
	}
	if n, err := revoke((*session2.Session).Destroy); n != 0 || err == nil {
		t.Errorf("after Destroy, RevokeOthers returns %d, %v", n, err)
	}
	if n, err := revoke(func(s *session2.Session) { s.SetUser("") }); n != 0 || err == nil {
		t.Errorf("after a sign-out, RevokeOthers returns %d, %v", n, err)
	}
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	stale := b.Clone()
	st.Do(b, func(s *session2.Session) { s.Renew() })
	st.Visit(stale, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		if n, err := st.M.RevokeOthers(r.Context(), s); n != 0 || !errors.Is(err, session2.ErrStale) {
			t.Errorf("with a replaced token, RevokeOthers returns %d, %v", n, err)
		}
	})
	st.Visit(&testsite.Browser{}, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		if n, err := st.M.RevokeOthers(r.Context(), s); n != 0 || err != nil {
			t.Errorf("for nobody, RevokeOthers returns %d, %v", n, err)
		}
	})
}

// A second commit says of a session that has ended what the first one said.
func TestEachCommitSaysThatTheSessionHasEnded(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		testsite.Must(t, st.M.Revoke(t.Context(), s.ID()))
		for i := range 3 {
			s.Set("n", i)
			if err := s.Commit(r.Context()); !errors.Is(err, session2.ErrNotFound) || errors.Is(err, session2.ErrStale) {
				t.Errorf("commit %d returns %v, want ErrNotFound", i, err)
			}
		}
	})
}

// The form of a second factor sent twice is a click too many, and no mistake of the
// program.
func TestASecondFactorClickedTwice(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	again := b.Clone()
	var note error
	factor := func(s *session2.Session, w http.ResponseWriter, _ *http.Request) {
		s.SetLevel(2)
		fmt.Fprint(w, "hello")
		note = s.Err()
	}
	st.Visit(b, factor)
	res := st.Visit(again, factor)
	if res.StatusCode != http.StatusOK || !errors.Is(note, session2.ErrStale) || len(res.Cookies()) != 0 {
		t.Errorf("status %d, Err %v, cookies %v", res.StatusCode, note, res.Cookies())
	}
	level := 0
	st.Do(b, func(s *session2.Session) { level = s.Level() })
	if level != 2 {
		t.Errorf("level %d, want 2", level)
	}
}
