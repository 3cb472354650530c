package session2_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// TestEveryCallCanFail walks a browser through all that a session can do, once for
// every call of the store and every way in which that call, or the store from then on
// to the end of the request, can go wrong. Whatever it is, the client is never told of
// a success that is not stored, nothing of a failed request is, nothing is applied
// twice, and a logout that was acknowledged holds.
func TestEveryCallCanFail(t *testing.T) {
	total := walkWith(t, -1, "", false, nil)
	if total < 40 {
		t.Fatalf("the walk makes %d calls of the store: it is not the whole one", total)
	}
	runs := 0
	for name, fault := range faults {
		for _, outage := range []bool{false, true} {
			for n := range total {
				walkWith(t, n, name, outage, fault)
				runs++
			}
		}
	}
	t.Logf("%d calls of the store, %d runs", total, runs)
}

// fault is what becomes of a call of the store.
type fault func(ctx context.Context, call func(context.Context) error) error

var errDown = errors.New("the store is down")

var faults = map[string]fault{
	"fails":               func(context.Context, func(context.Context) error) error { return errDown },
	"is called uncertain": func(context.Context, func(context.Context) error) error { return session2.ErrUncertain },
	"loses its answer":    func(ctx context.Context, call func(context.Context) error) error { call(ctx); return errDown },
	"is uncertain and lands": func(ctx context.Context, call func(context.Context) error) error {
		call(ctx)
		return session2.ErrUncertain
	},
	"hangs": func(ctx context.Context, _ func(context.Context) error) error {
		return hang(ctx)
	},
	"hangs and lands": func(ctx context.Context, call func(context.Context) error) error {
		err := hang(ctx)
		call(context.WithoutCancel(ctx))
		return err
	},
	"lands late": func(ctx context.Context, call func(context.Context) error) error {
		time.AfterFunc(landsLate, func() { call(context.WithoutCancel(ctx)) })
		return errDown
	},
	"is slow": func(ctx context.Context, call func(context.Context) error) error {
		time.Sleep(time.Second)
		return call(ctx)
	},
}

// landsLate is when a call lands whose answer was given up long before.
const landsLate = 20 * time.Second

func hang(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Minute): // who calls without a limit waits for the network's
		return errDown
	}
}

// failing is a store whose n-th call meets a fault.
type failing struct {
	*session2.MemoryStore
	n      int64 // negative: none
	outage bool  // those after it as well, until the request has ended
	fault  fault
	calls  atomic.Int64
	struck atomic.Bool
	over   atomic.Bool
}

func (f *failing) call(ctx context.Context, do func(context.Context) error) error {
	at := f.calls.Add(1) - 1
	if f.n < 0 || f.over.Load() || at < f.n || at > f.n && !f.outage {
		return do(ctx)
	}
	f.struck.Store(true)
	return f.fault(ctx, do)
}

// requestEnds ends an outage that has begun.
func (f *failing) requestEnds() { f.over.Store(f.struck.Load()) }

func (f *failing) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	var found atomic.Pointer[session2.Record] // what comes late is nobody's
	err := f.call(ctx, func(ctx context.Context) error {
		rec, err := f.MemoryStore.Load(ctx, id)
		found.Store(&rec)
		return err
	})
	if err != nil {
		return session2.Record{}, err
	}
	return *found.Load(), nil
}

func (f *failing) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	rec.Data = slices.Clone(rec.Data) // it may land late
	return f.call(ctx, func(ctx context.Context) error { return f.MemoryStore.Save(ctx, rec, prev) })
}

func (f *failing) Delete(ctx context.Context, id session2.ID) error {
	return f.call(ctx, func(ctx context.Context) error { return f.MemoryStore.Delete(ctx, id) })
}

func (f *failing) Touch(ctx context.Context, id session2.ID, accessed, expires time.Time) error {
	return f.call(ctx, func(ctx context.Context) error { return f.MemoryStore.Touch(ctx, id, accessed, expires) })
}

func (f *failing) DeleteUser(ctx context.Context, user string, keep ...session2.ID) (int, error) {
	var n atomic.Int64
	err := f.call(ctx, func(ctx context.Context) error {
		deleted, err := f.MemoryStore.DeleteUser(ctx, user, keep...)
		n.Store(int64(deleted))
		return err
	})
	if err != nil {
		return 0, err
	}
	return int(n.Load()), nil
}

func (f *failing) IterUser(ctx context.Context, user string) iter.Seq2[session2.Record, error] {
	return func(yield func(session2.Record, error) bool) {
		err := f.call(ctx, func(context.Context) error { return nil })
		if err != nil {
			yield(session2.Record{}, err)
			return
		}
		f.MemoryStore.IterUser(ctx, user)(yield)
	}
}

// facts is what a browser's session holds, as a request without faults sees it.
type facts struct {
	user, color, flash string
	n                  int
}

// nobody is what a browser has whose session has ended, or whose cookie never came.
var nobody = facts{}

// walk is a browser's way through a site, and what is known of its session.
type walk struct {
	t         *testing.T
	name      string // of the fault
	st, clean *testsite.Site
	store     *failing
	b         *testsite.Browser
	now       facts
	joined    facts // what a login may find besides
	uncertain bool  // of the latest failure: ErrUncertain
	step      string
}

func walkWith(t *testing.T, n int, name string, outage bool, f fault) (calls int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &walk{t: t, b: &testsite.Browser{}, name: fmt.Sprintf("call %d %s, outage %t", n, name, outage)}
		w.store = &failing{MemoryStore: session2.NewMemoryStore(), n: int64(n), outage: outage, fault: f}
		w.st = testsite.NewSite(t, w.store, session2.Config{
			RenewEvery: 10 * time.Minute, Lifetime: 10 * time.Hour,
			ErrorHandler: func(rw http.ResponseWriter, _ *http.Request, err error) {
				w.uncertain = errors.Is(err, session2.ErrUncertain)
				http.Error(rw, "sorry", http.StatusServiceUnavailable)
			},
		})
		w.clean = testsite.NewSite(t, w.store.MemoryStore, session2.Config{Lifetime: 10 * time.Hour})
		w.all()
		time.Sleep(2 * time.Minute) // nothing is under way any more
		calls = int(w.store.calls.Load())
		if n >= 0 && !w.store.struck.Load() {
			calls = -1 // an earlier fault of the same kind has shortened the walk
		}
	})
	return calls
}

// looked returns what a request without faults sees.
func (w *walk) looked(b *testsite.Browser) (f facts) {
	w.clean.Do(b.Clone(), func(s *session2.Session) {
		f.user = s.User()
		f.n, _ = visits.Get(s)
		f.color, _ = s.Get("color").(string)
		for _, v := range s.Flashes() {
			f.flash += v.(string)
		}
		s.Discard()
	})
	return f
}

var visits = session2.NewKey[int]("visits")

// count is what most handlers do as well.
func count(s *session2.Session) { visits.Update(s, func(n int) int { return n + 1 }) }

// visit has a handler serve the browser, and settles what its session then holds: want
// if it was acknowledged; what it was if it failed for certain; else either, or one of
// those between, or nobody's where a new token is lost with the answer.
func (w *walk) visit(step string, h sessionHandler, want facts, otherwise ...facts) bool {
	w.t.Helper()
	w.step, w.uncertain = step, false
	r := httptest.NewRequest("GET", "https://example.com/", nil)
	w.b.Send(r)
	rec := httptest.NewRecorder()
	func() {
		defer func() { recover() }()
		w.st.Handler(h).ServeHTTP(rec, r)
	}()
	w.store.requestEnds()
	res := rec.Result()
	w.b.Receive(res)
	body, _ := io.ReadAll(res.Body)
	time.Sleep(landsLate + time.Second)
	acked := res.StatusCode < 400 && string(body) != "failed"
	w.settle(acked, want, otherwise...)
	return acked
}

func (w *walk) settle(acked bool, want facts, otherwise ...facts) {
	w.t.Helper()
	allowed := []facts{want}
	switch {
	case acked && w.joined != nobody:
		allowed = append(allowed, w.joined)
	case acked:
	case w.uncertain:
		allowed = append(append(allowed, w.now), otherwise...)
	default:
		allowed = append([]facts{w.now}, otherwise...)
	}
	got := w.looked(w.b)
	if !slices.Contains(allowed, got) {
		w.t.Fatalf("%s: %s: acknowledged %t, uncertain %t: the session holds %+v, want one of %+v",
			w.name, w.step, acked, w.uncertain, got, allowed)
	}
	w.now = got
}

// with returns what the session holds after a change.
func (w *walk) with(change func(f *facts)) facts {
	f := w.now
	change(&f)
	return f
}

func (w *walk) counted() facts { return w.with(func(f *facts) { f.n++ }) }

// writePage writes what the handler sees.
func writePage(s *session2.Session, rw http.ResponseWriter) {
	n, _ := visits.Get(s)
	fmt.Fprintf(rw, "%s has been here %d times", s.User(), n)
}

func (w *walk) all() {
	w.anonymous()
	w.login("alice")
	w.messages()
	w.tokens()
	w.failures()
	w.stream()
	w.time()
	w.devices()
	w.login("bob")
	w.logout()
}

func (w *walk) anonymous() {
	set := func(s *session2.Session, rw http.ResponseWriter, _ *http.Request) {
		count(s)
		s.Set("color", "red")
		writePage(s, rw)
	}
	w.visit("first visit", set, w.with(func(f *facts) { f.n++; f.color = "red" }), nobody)
	read := func(s *session2.Session, rw http.ResponseWriter, _ *http.Request) { writePage(s, rw) }
	w.visit("read", read, w.now)
	drop := func(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
		count(s)
		s.Delete("color")
		http.Redirect(rw, r, "/", http.StatusSeeOther)
	}
	w.visit("delete", drop, w.with(func(f *facts) { f.n++; f.color = "" }))
	w.visit("set again", set, w.with(func(f *facts) { f.n++; f.color = "red" }))
}

func (w *walk) login(user string) {
	h := func(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
		s.SetUser(user)
		count(s)
		http.Redirect(rw, r, "/", http.StatusSeeOther)
	}
	want, old := w.loggedIn(user), w.b.Clone()
	acked := w.visit("login", h, want, w.lostToken()...)
	if acked && w.looked(old) != nobody {
		w.t.Fatalf("%s: after a login, the token of before opens %+v", w.name, w.looked(old))
	}
	if !acked {
		w.joined = want // by the token of before: the second login finds the first one
		w.joined.n++
		w.visit("login again", h, w.loggedIn(user), w.lostToken()...)
		w.joined = nobody
	}
}

// loggedIn returns what the session holds after a login.
func (w *walk) loggedIn(user string) facts {
	f := w.counted()
	if w.now.user != "" && w.now.user != user {
		f = facts{n: 1}
	}
	f.user = user
	return f
}

// lostToken is what a browser may be left with whose token was replaced by a request
// that failed: the answer with the new one is gone.
func (w *walk) lostToken() []facts { return []facts{nobody} }

func (w *walk) messages() {
	w.visit("flash", func(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
		s.Flash("saved")
		http.Redirect(rw, r, "/", http.StatusSeeOther)
	}, w.with(func(f *facts) { f.flash = "saved" }))
	had := w.now.flash
	shown := 0
	show := func(s *session2.Session, rw http.ResponseWriter, _ *http.Request) {
		for _, v := range s.Flashes() {
			fmt.Fprint(rw, v)
		}
		fmt.Fprint(rw, ".")
	}
	for range 2 {
		if w.visit("flashes", show, w.with(func(f *facts) { f.flash = "" })) && had != "" && w.now.flash == "" {
			shown++
			had = ""
		}
	}
	if w.now.flash == "" && shown > 1 {
		w.t.Fatalf("%s: a flash message was shown %d times", w.name, shown)
	}
}

func (w *walk) tokens() {
	var form, csrf string
	w.visit("tokens", func(s *session2.Session, rw http.ResponseWriter, _ *http.Request) {
		form, csrf = s.FormToken(), s.CSRFToken()
		count(s)
		fmt.Fprint(rw, form, csrf)
	}, w.counted())
	times := 0
	submit := func(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
		ok, err := s.UseFormToken(r.Context(), form)
		if err != nil {
			w.uncertain = errors.Is(err, session2.ErrUncertain)
			http.Error(rw, "sorry", http.StatusServiceUnavailable)
			return
		}
		if ok {
			times++
		}
		writePage(s, rw)
	}
	for range 3 {
		w.visit("submit", submit, w.now)
	}
	if times > 1 {
		w.t.Fatalf("%s: a form token was spent %d times", w.name, times)
	}
	valid := false
	check := func(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
		r.Header.Set("X-CSRF-Token", csrf)
		valid = s.ValidCSRFToken(r)
		writePage(s, rw)
	}
	if before := w.now; w.visit("csrf", check, w.now) && before == w.now && !valid && !w.store.struck.Load() {
		w.t.Fatalf("%s: the CSRF token of a page is refused", w.name)
	}
}

func (w *walk) failures() {
	w.visit("panic", func(s *session2.Session, _ http.ResponseWriter, _ *http.Request) {
		count(s)
		panic("handler's own")
	}, w.now)
	w.visit("status 500", func(s *session2.Session, rw http.ResponseWriter, _ *http.Request) {
		count(s)
		rw.WriteHeader(500)
		writePage(s, rw)
	}, w.now)
	w.visit("discard", func(s *session2.Session, rw http.ResponseWriter, _ *http.Request) {
		count(s)
		s.Discard()
		writePage(s, rw)
	}, w.now)
}

func (w *walk) stream() {
	once, twice := w.counted(), w.with(func(f *facts) { f.n += 2 })
	w.visit("commit twice", func(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
		count(s)
		if err := s.Commit(r.Context()); err != nil {
			return // the response fails
		}
		count(s)
		writePage(s, rw)
	}, twice, once)
	once = w.counted()
	w.visit("stream", func(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
		s.User()
		rw.(http.Flusher).Flush()
		count(s)
		if err := s.Commit(r.Context()); err != nil {
			w.uncertain = errors.Is(err, session2.ErrUncertain)
			fmt.Fprint(rw, "failed")
		}
	}, once)
}

func (w *walk) time() {
	time.Sleep(5 * time.Minute)
	w.visit("touch", func(s *session2.Session, rw http.ResponseWriter, _ *http.Request) { writePage(s, rw) }, w.now)
	for range 3 { // a periodic rotation loses nobody, whatever answer is lost
		time.Sleep(11 * time.Minute)
		w.visit("rotation", func(s *session2.Session, rw http.ResponseWriter, _ *http.Request) {
			count(s)
			writePage(s, rw)
		}, w.counted())
	}
	w.visit("renew", func(s *session2.Session, rw http.ResponseWriter, _ *http.Request) {
		s.Renew()
		count(s)
		writePage(s, rw)
	}, w.counted(), w.lostToken()...)
}

func (w *walk) devices() {
	if w.now.user == "" {
		w.login("alice")
	}
	other := w.clean.Login(w.now.user)
	revoked := false
	w.visit("revoke others", func(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
		_, err := w.st.M.RevokeOthers(r.Context(), s)
		if revoked = err == nil; !revoked {
			http.Error(rw, "sorry", http.StatusServiceUnavailable)
			return
		}
		writePage(s, rw)
	}, w.now)
	if revoked && w.now.user != "" && w.looked(other) != nobody {
		w.t.Fatalf("%s: a session that was revoked is open", w.name)
	}
}

func (w *walk) logout() {
	old := w.b.Clone()
	h := func(s *session2.Session, rw http.ResponseWriter, r *http.Request) {
		s.Destroy()
		http.Redirect(rw, r, "/", http.StatusSeeOther)
	}
	if !w.visit("logout", h, nobody) && !w.visit("logout again", h, nobody) {
		w.t.Fatalf("%s: a logout failed twice", w.name)
	}
	if w.looked(old) != nobody || w.b.Token() != "" {
		w.t.Fatalf("%s: after a logout the session is open, or the cookie there", w.name)
	}
}
