package session2_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// An OnEvent that panics at the commit: stored, yet the handler's recovery answers 500.
// A store that panics once the save has been tried.
type panicSave struct {
	*hookStore
	on string
	n  int
}

func (p *panicSave) hit(op string) {
	if p.on == op {
		p.n++
		panic("store: " + op)
	}
}
func (p *panicSave) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	p.hit("save")
	err := p.hookStore.Save(ctx, rec, prev)
	p.hit("saved")
	return err
}
func (p *panicSave) Delete(ctx context.Context, id session2.ID) error {
	p.hit("delete")
	return p.hookStore.Delete(ctx, id)
}
func (p *panicSave) Touch(ctx context.Context, id session2.ID, a, e time.Time) error {
	p.hit("touch")
	return p.hookStore.Touch(ctx, id, a, e)
}
func (p *panicSave) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	p.hit("load")
	return p.hookStore.Load(ctx, id)
}
func (p *panicSave) Capabilities() session2.Capabilities { return session2.Capabilities{} } // serialised

// After any panic: the handler recovers and goes on; no success may be told of what is not stored, and no hang.
func TestStorePanics(t *testing.T) {
	for _, op := range []string{"save", "saved", "delete", "touch", "load"} {
		for _, what := range []string{"set", "destroy", "form", "check", "empty", "renewset", "commit-then-confirm"} {
			t.Run(op+" "+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := &panicSave{hookStore: newHookStore()}
					st := testsite.NewSite(t, store, session2.Config{})
					b := st.Login("alice")
					var form string
					st.Do(b, func(s *session2.Session) { form = s.FormToken() })
					time.Sleep(5 * time.Minute)
					var told []string
					h := st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
						safe := func(f func()) {
							defer func() {
								if p := recover(); p != nil {
									told = append(told, fmt.Sprint(p))
								}
							}()
							f()
						}
						s.User()
						store.on = op
						switch what {
						case "set":
							s.Set("k", 1)
							safe(func() { s.Commit(r.Context()) })
						case "destroy":
							s.Destroy()
							safe(func() { s.Commit(r.Context()) })
						case "form":
							safe(func() { s.UseFormToken(r.Context(), form) })
						case "check":
							safe(func() { s.Check(r.Context()) })
						case "empty":
							s.SetUser("")
							s.Clear()
							safe(func() { s.Commit(r.Context()) })
						case "renewset":
							s.Renew()
							safe(func() { s.Set("k", 1); w.Header() })
						case "commit-then-confirm":
							s.Renew()
							s.Set("k", 1)
							store.on = ""
							s.Commit(r.Context())
							store.on = op
							safe(func() { w.WriteHeader(200) })
						}
						store.on = ""
						safe(func() { s.Err(); s.Get("k"); s.Dirty(); s.Keys(); s.Has("x") })
						safe(func() { io.WriteString(w, "done") })
					})
					w := testsite.RecordPanics(h, b.Clone())
					store.on = ""
					res := w.Result()
					b.Receive(res)
					var stored any
					var user string
					st.Do(b, func(s *session2.Session) { stored, user = s.Get("k"), s.User() })
					if res.StatusCode == 200 && (what == "set" || what == "renewset") && stored == nil {
						t.Errorf("success for what is not stored")
					}
					if res.StatusCode == 200 && what == "destroy" && user != "" {
						t.Errorf("success for a logout that is none")
					}
					if what != "destroy" && what != "empty" && user != "alice" {
						t.Errorf("locked out")
					}
				})
			})
		}
	}
}

type pcodec struct{ boom *string }

func (c pcodec) Marshal(v any) ([]byte, error) {
	if *c.boom == "m" {
		panic("marshal")
	}
	return session2.JSON{}.Marshal(v)
}
func (c pcodec) Unmarshal(b []byte, v any) error {
	if *c.boom == "u" {
		panic("unmarshal")
	}
	return session2.JSON{}.Unmarshal(b, v)
}

type thing struct{ N int }

func TestCodecPanics(t *testing.T) {
	boom := ""
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Codec: pcodec{&boom}})
	k := session2.NewKey[thing]("t")
	b := st.Login("alice")
	st.Do(b, func(s *session2.Session) { k.Set(s, thing{1}); s.Flash(thing{2}) })
	for _, mode := range []string{"m", "u"} {
		for name, f := range map[string]func(s *session2.Session){
			"set":     func(s *session2.Session) { k.Set(s, thing{9}) },
			"update":  func(s *session2.Session) { k.Update(s, func(t thing) thing { t.N++; return t }) },
			"flash":   func(s *session2.Session) { s.Flash(thing{3}) },
			"flashes": func(s *session2.Session) { s.Flashes() },
			"pop":     func(s *session2.Session) { k.Pop(s) },
		} {
			done := make(chan bool)
			var wrote int
			go func() {
				defer close(done)
				res := st.Do(b, func(s *session2.Session) {
					boom = mode
					func() { defer func() { recover() }(); f(s) }()
					boom = ""
					v, _ := k.Get(s)
					_ = v
					s.Set("after", 1)
				})
				wrote = res.StatusCode
			}()
			select {
			case <-done:
			case <-time.After(5 * time.Second):
				t.Fatalf("%s %s hangs", mode, name)
			}
			st.Do(b, func(s *session2.Session) {
				v, ok := k.Get(s)
				t.Log(mode, name, wrote, v, ok, s.Err())
				if !ok {
					k.Set(s, thing{1})
				}
			})
		}
	}
}

// Update functions that panic in a rework (after the commit, for what came meanwhile).
func TestReworkPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{})
		b := st.Login("alice")
		var cerr error
		w := testsite.RecordPanics(st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			var wg sync.WaitGroup
			store.once(func(_ session2.Record, _ session2.Version, save func() error) error {
				time.Sleep(time.Second)
				return save()
			})
			s.Set("a", 1)
			wg.Go(func() {
				defer func() { recover() }()
				cerr = s.Commit(context.Background())
			})
			time.Sleep(time.Millisecond)
			calls := 0
			counter.Update(s, func(n int) int {
				if calls++; calls > 1 {
					panic("oh")
				}
				return n + 1
			})
			wg.Wait()
			io.WriteString(w, "done")
		}), b)
		t.Log(w.Code, cerr, st.Stored(b, "a"), st.Stored(b, "counter"))
		if w.Code == 200 && st.Stored(b, "counter") == nil {
			t.Error("lost in silence")
		}
	})
}

// A goroutine storm on one session, for -race.
func TestGoroutinesOfOneSession(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{
		RenewEvery: time.Millisecond, RenewGrace: 20 * time.Millisecond,
	})
	b := st.Login("alice")
	var outer sync.WaitGroup
	for range 3 {
		outer.Go(func() {
			for i := range 30 {
				st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
					var wg sync.WaitGroup
					for g := range 8 {
						wg.Go(func() {
							switch (g + i) % 16 {
							case 0:
								s.Set("a", g)
							case 1:
								counter.Update(s, inc)
							case 2:
								s.Commit(r.Context())
							case 3:
								s.Keys()
								s.Dump(io.Discard)
							case 4:
								tok := s.FormToken()
								s.UseFormToken(r.Context(), tok)
							case 5:
								s.Flash(1)
								s.Flashes()
							case 6:
								s.Renew()
							case 7:
								s.CSRFToken()
								s.ValidCSRFToken(csrfReq("x"))
							case 8:
								s.Token()
								s.ID()
								s.Expires()
							case 9:
								s.Check(r.Context())
							case 10:
								s.Clear()
							case 11:
								s.SetUser("alice")
							case 12:
								if i%7 == 0 {
									s.Destroy()
								}
							case 13:
								s.Discard()
							case 14:
								s.Remember(time.Hour)
								s.Passive()
							case 15:
								_ = s.Err()
								_ = fmt.Sprint(s, s.Dirty(), s.HasInfo())
								st.M.RevokeOthers(r.Context(), s)
							}
						})
					}
					if i%3 == 0 {
						w.Write([]byte("x"))
					}
					wg.Wait()
				})
			}
		})
	}
	outer.Wait()
	_ = errors.New
	_ = httptest.NewRecorder
}

// A function of the application that panics, uses the session or commits it leaves
// no lock behind: its request ends, and the next one goes on.
func TestTheApplicationsFunctionsMayDoWhatTheyLike(t *testing.T) {
	type visit = func(st *testsite.Site, b *testsite.Browser) *httptest.ResponseRecorder
	replayed := func(second func(s *session2.Session)) visit {
		return func(st *testsite.Site, b *testsite.Browser) *httptest.ResponseRecorder {
			return testsite.RecordPanics(st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
				first := true
				counter.Update(s, func(n int) int {
					if !first {
						second(s)
					}
					first = false
					return n + 1
				})
				st.Do(b.Clone(), func(s *session2.Session) { counter.Update(s, inc) })
				io.WriteString(w, "done")
			}), b)
		}
	}
	for name, c := range map[string]struct {
		run   visit
		count int // what the counter is left at
	}{
		"panics at the replay":  {replayed(func(*session2.Session) { panic("oh") }), 1},
		"reads at the replay":   {replayed(func(s *session2.Session) { s.Get("k"); s.Err(); s.Dirty() }), 2},
		"changes at the replay": {replayed(func(s *session2.Session) { s.Set("k", 1) }), 2},
		"discards":              {replayed((*session2.Session).Discard), 2},
	} {
		t.Run(name, func(t *testing.T) {
			st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
			b := st.Login("alice")
			c.run(st, b)
			if n := st.Stored(b, "counter"); n != c.count {
				t.Errorf("counter = %v, want %d", n, c.count)
			}
		})
	}
	t.Run("commits at the replay", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
			b := st.Login("alice")
			var err error
			w := replayed(func(s *session2.Session) { err = s.Commit(context.Background()) })(st, b)
			if err == nil || w.Code == 0 {
				t.Errorf("Commit within a commit = %v", err)
			}
		})
	})
}

// What a panic leaves of a session stores nothing a second time.
func TestACommitThatPanickedIsNotDoneAgain(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	res := st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		calls := 0
		counter.Update(s, func(n int) int {
			if calls++; calls > 1 {
				panic("oh")
			}
			return n + 1
		})
		st.Do(b.Clone(), func(s *session2.Session) { s.Set("k", 1) })
		func() {
			defer func() { recover() }()
			s.Commit(r.Context())
		}()
		if err := s.Commit(r.Context()); err == nil {
			t.Error("a commit after one that panicked is acknowledged")
		}
	})
	if res.StatusCode != 500 || st.Stored(b, "counter") != nil {
		t.Errorf("status %d, counter %v", res.StatusCode, st.Stored(b, "counter"))
	}
}

type panickyStore struct {
	*hookStore
	panics bool
}

func (p *panickyStore) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	if p.panics {
		panic("oh")
	}
	return p.hookStore.Load(ctx, id)
}

func TestALoadThatPanickedIsNoSession(t *testing.T) {
	store := &panickyStore{hookStore: newHookStore()}
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	store.panics = true
	res := st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		func() {
			defer func() { recover() }()
			s.User()
		}()
		if s.User() != "" || s.Err() == nil {
			t.Errorf("User() = %q, Err() = %v after a load that panicked", s.User(), s.Err())
		}
		s.Set("k", 1)
		io.WriteString(w, "hello, stranger")
	})
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode < 500 || strings.Contains(string(body), "stranger") {
		t.Errorf("status %d, body %q", res.StatusCode, body)
	}
	store.panics = false
	if user := st.UserOf(b); user != "alice" {
		t.Errorf("user %q afterwards", user)
	}
}

// A store that panics after it has stored: certain error, stored all the same.
func TestPanicIsNotUncertain(t *testing.T) {
	store := &panicSave{hookStore: newHookStore()}
	var got error
	m, err := session2.NewManager(store, session2.Config{Logger: slog.New(slog.DiscardHandler),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) { got = err; w.WriteHeader(503) }})
	testsite.Must(t, err)
	st := &testsite.Site{T: t, M: m, Store: store, Events: &testsite.EventLog{}}
	b := st.Login("alice")
	st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.Set("k", 1)
		store.on = "saved"
		func() { defer func() { recover() }(); s.Commit(r.Context()) }()
		store.on = ""
	})
	if got != nil && !errors.Is(got, session2.ErrUncertain) && st.Stored(b, "k") != nil {
		t.Errorf("%v: not uncertain, and stored", got)
	}
}

// A store panics where the cookie of an earlier Commit is confirmed: no cookie, status 200.
func TestConfirmPanics(t *testing.T) {
	store := &panicSave{hookStore: newHookStore()}
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	res := st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.Renew()
		if err := s.Commit(r.Context()); err != nil {
			t.Error(err)
		}
		store.on = "load"
		func() { defer func() { recover() }(); w.WriteHeader(200) }()
		store.on = ""
		w.WriteHeader(500)
	})
	if u := st.UserOf(b); u != "alice" {
		t.Errorf("status %d without the cookie: locked out", res.StatusCode)
	}
}

// Whoever recovers from a panic after an explicit Commit answers with its cookie:
// the old one may be dead by then.
func TestPanicAfterCommitKeepsTheCookie(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	h := st.Handler(func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		s.SetUser("alice")
		if err := s.Commit(r.Context()); err != nil {
			t.Error(err)
		}
		s.Set("color", "green")
		panic("oops")
	})
	rec, b := httptest.NewRecorder(), &testsite.Browser{}
	func() {
		defer func() { recover(); rec.WriteHeader(500) }()
		h.ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
	}()
	b.Receive(rec.Result())
	st.Do(b, func(s *session2.Session) {
		if s.User() != "alice" || s.Has("color") {
			t.Errorf("User() = %q, Has(color) = %v, want alice and false", s.User(), s.Has("color"))
		}
	})
}
