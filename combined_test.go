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
