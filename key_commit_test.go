package session2_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

var errFull = errors.New("there is no room for more")

func plusOne(n int) (int, error) { return n + 1, nil }

// upTo returns an increment that refuses to go beyond limit.
func upTo(limit int) func(int) (int, error) {
	return func(n int) (int, error) {
		if n >= limit {
			return n, errFull
		}
		return n + 1, nil
	}
}

// numbers collects what responses have shown.
type numbers struct {
	mu   sync.Mutex
	list []int
}

func (l *numbers) add(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, n)
}

// want fails the test unless the numbers are 1 to n.
func (l *numbers) want(t *testing.T, n int) {
	t.Helper()
	slices.Sort(l.list)
	for i, got := range l.list {
		if got != i+1 || len(l.list) != n {
			t.Fatalf("%d responses show %v, want 1 to %d", len(l.list), l.list, n)
		}
	}
}

// 16 requests that have all loaded the session before the first one commits.
func TestParallelCommitsAreToldDifferentNumbers(t *testing.T) {
	for name, open := range map[string]func(dir string) (session2.Store, error){
		"memory": func(string) (session2.Store, error) { return session2.NewMemoryStore(), nil },
		"file":   func(dir string) (session2.Store, error) { return session2.OpenFileStore(filepath.Join(dir, "s"), nil) },
		"bolt":   func(dir string) (session2.Store, error) { return session2.OpenBoltStore(filepath.Join(dir, "s"), nil) },
		"gob":    func(dir string) (session2.Store, error) { return session2.OpenGobStore(filepath.Join(dir, "s"), nil) },
	} {
		t.Run(name, func(t *testing.T) {
			store, err := open(t.TempDir())
			testsite.Must(t, err)
			defer closeStore(t, store)
			testsite.Must(t, session2.Setup(t.Context(), store))
			st := testsite.NewSite(t, store, session2.Config{CommitTimeout: time.Minute})
			var loaded sync.WaitGroup
			loaded.Add(16)
			srv := testsite.Serve(t, st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
				s.User()
				loaded.Done()
				loaded.Wait()
				n, err := counter.Commit(r.Context(), s, plusOne)
				if err != nil {
					t.Error(err)
				}
				fmt.Fprint(w, n)
			}), false)
			b := st.Login("alice")
			var shown numbers
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					_, body := testsite.Get(t, srv, b.Clone(), "/")
					var n int
					fmt.Sscan(body, &n)
					shown.add(n)
				})
			}
			wg.Wait()
			shown.want(t, 16)
		})
	}
}

// Goroutines of one request are told different numbers, too, also where the first one
// begins the session.
func TestCommitsOfOneRequestAreToldDifferentNumbers(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{CommitTimeout: time.Minute})
	b := &testsite.Browser{}
	var shown numbers
	st.Visit(b, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				n, err := counter.Commit(r.Context(), s, plusOne)
				if err != nil {
					t.Error(err)
				}
				shown.add(n)
				s.Set(fmt.Sprint("after ", n), true)
			})
		}
		wg.Wait()
	})
	shown.want(t, 16)
	if got := st.Stored(b, "counter"); got != 16 || st.Stored(b, "after 16") != true {
		t.Errorf("counter = %v, want 16", got)
	}
}

// On a store that loses questions and answers, what requests are told is stored, and no
// number is told twice or is beyond the limit.
func TestCommitsOnAnUnreliableStore(t *testing.T) {
	const limit = 12
	r := testsite.Seeded(t)
	for range 5 {
		synctest.Test(t, func(t *testing.T) {
			store := newHookStore()
			st := testsite.NewSite(t, store, session2.Config{CommitTimeout: time.Minute, RenewEvery: time.Second})
			b := st.Login("alice")
			store.unreliable(r.Uint64())
			var shown numbers
			var unsure, refused numbers
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for range 3 {
						st.Visit(b.Clone(), func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
							n, err := counter.Commit(r.Context(), s, upTo(limit))
							switch {
							case err == nil:
								shown.add(n)
							case errors.Is(err, errFull):
								refused.add(n)
							default:
								unsure.add(0)
							}
						})
					}
				})
			}
			wg.Wait()
			store.set(func() { store.onSave = nil })
			n, _ := st.Stored(b, "counter").(int)
			slices.Sort(shown.list)
			if n > limit || len(slices.Compact(slices.Clone(shown.list))) != len(shown.list) || len(shown.list) > n ||
				n > len(shown.list)+len(unsure.list) || len(shown.list) > 0 && slices.Max(shown.list) > n {
				t.Errorf("told %v, %d unsure; stored %d, at most %d", shown.list, len(unsure.list), n, limit)
			}
			for _, got := range refused.list {
				if got != limit {
					t.Errorf("refused at %d, want %d", got, limit)
				}
			}
		})
	}
}

// f may draw what it returns: what is told is what is stored, also if a Save lands late
// whose answer was lost, and that was asked again.
func TestCommitTellsWhatALateSaveHasStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookStore()
		st := testsite.NewSite(t, store, session2.Config{CommitTimeout: time.Minute})
		b := st.Login("alice")
		number := session2.NewKey[uint64]("number")
		saves := 0
		var late func() error
		store.set(func() {
			store.onSave = func(rec session2.Record, _ session2.Version, save func() error) error {
				switch saves++; saves {
				case 1:
					late = save
					return fmt.Errorf("save: %w", session2.ErrUncertain)
				case 2:
					testsite.Must(t, late())
				}
				return save()
			}
		})
		var told uint64
		st.Do(b, func(s *session2.Session) {
			var err error
			told, err = number.Commit(t.Context(), s, func(uint64) (uint64, error) { return rand.Uint64(), nil })
			testsite.Must(t, err)
		})
		if got := st.Stored(b, "number"); saves < 2 || got != told {
			t.Errorf("told %d, stored %v, after %d saves", told, got, saves)
		}
	})
}

// A veto is of the newest value, and leaves the request's other changes as they were.
func TestCommitMayBeRefused(t *testing.T) {
	set := func(n int) func(*session2.Session) { return func(s *session2.Session) { counter.Set(s, n) } }
	other := func(s *session2.Session) { s.Set("k", 1) }
	for name, c := range map[string]struct {
		stored    int
		meanwhile func(*session2.Session)
		told      int
		err       error
		left      int
		calls     int
	}{
		"at once":                {stored: 3, told: 3, err: errFull, left: 3, calls: 1},
		"at a replay":            {stored: 2, meanwhile: set(3), told: 3, err: errFull, left: 3, calls: 2},
		"not any more":           {stored: 3, meanwhile: set(1), told: 2, left: 2, calls: 2},
		"not at all":             {stored: 0, told: 1, left: 1, calls: 1},
		"not, beside another":    {stored: 0, meanwhile: set(1), told: 2, left: 2, calls: 2},
		"not, beside other keys": {stored: 1, meanwhile: other, told: 2, left: 2, calls: 1},
	} {
		t.Run(name, func(t *testing.T) {
			st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
			b := st.Login("alice")
			st.Do(b, set(c.stored))
			calls := 0
			res := st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
				s.Set("other", "changed")
				if c.meanwhile != nil {
					st.Do(b.Clone(), c.meanwhile)
				}
				n, err := counter.Commit(r.Context(), s, func(n int) (int, error) {
					calls++
					return upTo(3)(n)
				})
				if n != c.told || err != c.err || s.Dirty() != (c.err != nil) || s.Err() != nil {
					t.Errorf("Commit = %d, %v; want %d, %v", n, err, c.told, c.err)
					t.Errorf("dirty: %t, Err() = %v", s.Dirty(), s.Err())
				}
				if got := st.Stored(b.Clone(), "other"); (got == nil) != (c.err != nil) {
					t.Errorf("other = %v beside %v", got, err)
				}
			})
			if n := st.Stored(b, "counter"); n != c.left || res.StatusCode != 200 || calls != c.calls {
				t.Errorf("counter = %v, want %d; status %d; %d calls, want %d", n, c.left, res.StatusCode, calls, c.calls)
			}
			if got := st.Stored(b, "other"); got != "changed" {
				t.Errorf("other = %v: the request's other change is lost", got)
			}
			if n := st.Events.Count(session2.EventDropped); n > 0 {
				t.Errorf("%d events of dropped changes", n)
			}
		})
	}
}

// The error of f may be any, and means nothing to the commit.
func TestRefusalsByAnyError(t *testing.T) {
	for _, cause := range []error{
		session2.ErrNotFound, session2.ErrStale, session2.ErrConflict, session2.ErrUncertain, session2.ErrLostUpdate,
		context.DeadlineExceeded, &limitError{7},
	} {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		b := st.Login("alice")
		res := st.Do(b, func(s *session2.Session) {
			s.Destroy()
			s.Set("k", 1)
			n, err := counter.Commit(t.Context(), s, func(int) (int, error) { return 0, fmt.Errorf("no: %w", cause) })
			var limit *limitError
			if n != 0 || !errors.Is(err, cause) || errors.As(err, &limit) != (cause == error(limit)) || s.Err() != nil {
				t.Errorf("Commit = %d, %v, want %v; Err() = %v", n, err, cause, s.Err())
			}
			if st.UserOf(b.Clone()) != "alice" {
				t.Errorf("%v: a logout was committed with what was refused", cause)
			}
			s.Discard()
			s.Set("k", 2)
		})
		if got := st.Stored(b, "k"); res.StatusCode != 200 || got != 2 {
			t.Errorf("%v: status %d, k = %v", cause, res.StatusCode, got)
		}
	}
}

type limitError struct{ n int }

func (e *limitError) Error() string { return fmt.Sprint("the limit is ", e.n) }

// What f returns unchanged is looked at again, and not written.
func TestCommitOfNoChange(t *testing.T) {
	store := testsite.NewBrittle()
	st := testsite.NewSite(t, store, session2.Config{})
	b := st.Login("alice")
	st.Do(b, func(s *session2.Session) { counter.Set(s, 3) })
	saves := store.Saves.Load()
	same := func(n int) (int, error) { return n, nil }
	st.Visit(b, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		if n, err := counter.Commit(r.Context(), s, same); n != 3 || err != nil {
			t.Errorf("Commit = %d, %v", n, err)
		}
	})
	if n := store.Saves.Load() - saves; n != 0 {
		t.Errorf("%d saves of no change", n)
	}
	st.Visit(b, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		s.User()
		st.Do(b.Clone(), func(s *session2.Session) { counter.Set(s, 4) })
		if n, err := counter.Commit(r.Context(), s, same); n != 4 || err != nil {
			t.Errorf("Commit = %d, %v, where 4 is stored", n, err)
		}
		if n, _ := counter.Get(s); n != 4 {
			t.Errorf("Get = %d after Commit", n)
		}
	})
}

// What Commit has told is known to the request: to set the key then must not undo what
// another one has done since.
func TestWhatCommitTellsIsALook(t *testing.T) {
	for _, allowed := range []bool{false, true} {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{AllowLostUpdates: allowed})
		b := st.Login("alice")
		visit := func(meanwhile func(s *session2.Session)) (*http.Response, error) {
			return st.During(b, func(s *session2.Session) {
				counter.Get(s)
				n, err := counter.Commit(t.Context(), s, plusOne)
				testsite.Must(t, err)
				s.Set("told", n)
			}, func() { st.Do(b.Clone(), meanwhile) }, func(s *session2.Session) { counter.Set(s, s.Get("told").(int)*10) })
		}
		if res, err := visit(func(*session2.Session) {}); res.StatusCode != 200 || err != nil {
			t.Errorf("status %d, Err() = %v, though nobody has changed the key", res.StatusCode, err)
		}
		res, err := visit(func(s *session2.Session) { counter.Set(s, 99) })
		if refused := errors.Is(err, session2.ErrLostUpdate); refused == allowed || (res.StatusCode == 409) != refused {
			t.Errorf("allowed %t: status %d, Err() = %v", allowed, res.StatusCode, err)
		}
	}
}

// A commit that fails tells so, and what it was for is nowhere.
func TestCommitThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nothing := func(*session2.Session) {}
		for name, c := range map[string]struct {
			before, meanwhile func(s *session2.Session) // in the request, and in another one
			down              bool
			want              error
			status            int
		}{
			"the store is down":      {nothing, nothing, true, testsite.ErrDown, 503},
			"the session has ended":  {look, (*session2.Session).Destroy, false, session2.ErrNotFound, 200},
			"the token was replaced": {look, (*session2.Session).Renew, false, session2.ErrStale, 409},
			"it was replaced before": {nothing, (*session2.Session).Renew, false, session2.ErrStale, 200},
			"a lost update":          {naive, naive, false, session2.ErrLostUpdate, 409},
			"a value of no codec":    {func(s *session2.Session) { s.Set("f", func() {}) }, nothing, false, nil, 500},
		} {
			store := testsite.NewBrittle()
			st := testsite.NewSite(t, store, session2.Config{})
			b := st.Login("alice")
			res := st.Visit(b.Clone(), func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
				c.before(s)
				st.Do(b.Clone(), c.meanwhile)
				store.FailSave.Store(c.down)
				n, err := counter.Commit(r.Context(), s, func(int) (int, error) { return 7, nil })
				if n != 0 || err == nil || !errors.Is(err, c.want) && c.want != nil {
					t.Errorf("%s: Commit = %d, %v, want %v", name, n, err, c.want)
				}
				store.FailSave.Store(false)
			})
			if res.StatusCode != c.status {
				t.Errorf("%s: status %d, want %d", name, res.StatusCode, c.status)
			}
			for _, rec := range testsite.RecordsOf(t, store) {
				contents, err := session2.Inspect(rec)
				if err == nil && strings.Contains(fmt.Sprint(contents.Values), "counter") {
					t.Errorf("%s: what has failed is stored", name)
				}
			}
		}
	})
}

func look(s *session2.Session) { s.User() }

// A veto where the newest value cannot be had is the store's failure.
func TestARefusalIsLookedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := testsite.NewBrittle()
		st := testsite.NewSite(t, store, session2.Config{})
		b := st.Login("alice")
		res := st.Visit(b, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
			s.User()
			store.FailLoad.Store(true)
			_, err := counter.Commit(r.Context(), s, upTo(0))
			if !errors.Is(err, testsite.ErrDown) || errors.Is(err, errFull) {
				t.Errorf("Commit = %v", err)
			}
			store.FailLoad.Store(false)
		})
		if res.StatusCode != 503 {
			t.Errorf("status %d", res.StatusCode)
		}
	})
}

// Once the response has begun a session that is there is committed to, and a new one is
// not begun.
func TestCommitWhenTheResponseHasBegun(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	for _, b := range []*testsite.Browser{{}, st.Login("alice")} {
		there := b.Token() != ""
		st.Visit(b, func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
			s.User()
			w.WriteHeader(200)
			if n, err := counter.Commit(r.Context(), s, plusOne); (err == nil) != there || (n == 1) != there {
				t.Errorf("Commit = %d, %v; a session is there: %t", n, err, there)
			}
		})
		if got := st.Stored(b, "counter"); (got == 1) != there {
			t.Errorf("counter = %v; a session is there: %t", got, there)
		}
	}
}

// Where f panics, nothing is stored, and the rest of the request is as it was. If it was
// asked again, for another value, the session commits nothing any more.
func TestCommitWhoseFunctionPanics(t *testing.T) {
	for _, late := range []bool{false, true} {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		b := st.Login("alice")
		res := st.Visit(b, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
			s.Set("k", "changed")
			if late {
				st.Do(b.Clone(), func(s *session2.Session) { counter.Set(s, 5) })
			}
			func() {
				defer func() {
					if p := recover(); p != "oh" {
						t.Errorf("recovered %v", p)
					}
				}()
				counter.Commit(r.Context(), s, func(n int) (int, error) {
					if n == 5 || !late {
						panic("oh")
					}
					return n + 1, nil
				})
			}()
			n, err := counter.Commit(r.Context(), s, plusOne)
			if (n == 1) != !late || (err == nil) != !late {
				t.Errorf("late %t: the next Commit = %d, %v", late, n, err)
			}
		})
		if got := st.Stored(b, "k"); (got == "changed") != !late || (res.StatusCode == 200) != !late {
			t.Errorf("late %t: status %d, k = %v", late, res.StatusCode, got)
		}
	}
}

// What cannot be stored is refused as f itself refuses.
func TestCommitOfWhatCannotBeStored(t *testing.T) {
	text := session2.NewKey[string]("text")
	fn := session2.NewKey[func()]("function")
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{MaxBytes: 1000})
	b := st.Login("alice")
	st.Do(b, func(s *session2.Session) { text.Set(s, "short") })
	res := st.Visit(b, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		s.Set("k", "changed")
		long := func(string) (string, error) { return strings.Repeat("x", 2000), nil }
		if got, err := text.Commit(r.Context(), s, long); got != "" || !errors.Is(err, session2.ErrTooLarge) {
			t.Errorf("Commit of 2000 bytes = %q, %v", got, err)
		}
		if _, err := fn.Commit(r.Context(), s, func(func()) (func(), error) { return func() {}, nil }); err == nil {
			t.Error("Commit of a function is acknowledged")
		}
		if !s.Dirty() || s.Get("text") != "short" || s.Err() != nil {
			t.Errorf("dirty: %t, text = %v, Err() = %v", s.Dirty(), s.Get("text"), s.Err())
		}
	})
	if got := st.Stored(b, "k"); res.StatusCode != 200 || got != "changed" {
		t.Errorf("status %d, k = %v", res.StatusCode, got)
	}
}

// A value that another type has left counts as none, and is an event.
func TestCommitOverAValueOfAnotherType(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := st.Login("alice")
	st.Do(b, func(s *session2.Session) { s.Set("counter", "many") })
	st.Visit(b, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		if n, err := counter.Commit(r.Context(), s, plusOne); n != 1 || err != nil {
			t.Errorf("Commit = %d, %v", n, err)
		}
	})
	if n := st.Events.Count(session2.EventCorrupt); n != 1 || st.Stored(b, "counter") != 1 {
		t.Errorf("%d events, counter = %v", n, st.Stored(b, "counter"))
	}
}

// Commit in Exclusive, for a session of Manager.Open, in one that begins, at a login, and
// for a second time.
func TestCommitElsewhere(t *testing.T) {
	commit := func(ctx context.Context, s *session2.Session, want int) {
		t.Helper()
		if n, err := counter.Commit(ctx, s, plusOne); n != want || err != nil {
			t.Errorf("Commit = %d, %v, want %d", n, err, want)
		}
		if n, _ := counter.Get(s); n != want {
			t.Errorf("Get = %d after Commit, want %d", n, want)
		}
	}
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	st.Visit(b, func(s *session2.Session, _ http.ResponseWriter, r *http.Request) {
		commit(r.Context(), s, 1)
		commit(r.Context(), s, 2)
		s.SetUser("alice")
		commit(r.Context(), s, 3)
		counter.Update(s, inc)
		commit(r.Context(), s, 5)
		counter.Update(s, inc)
	})
	srv := testsite.Serve(t, st.M.Exclusive(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		commit(r.Context(), st.M.Session(r), 7)
		commit(r.Context(), st.M.Session(r), 8)
	})), false)
	if res, _ := testsite.Get(t, srv, b, "/"); res.StatusCode != 200 {
		t.Errorf("status %d in Exclusive", res.StatusCode)
	}
	s, err := st.M.Open(t.Context(), b.Token())
	testsite.Must(t, err)
	commit(t.Context(), s, 9)
	st.Do(b, func(s *session2.Session) { counter.Set(s, 20) })
	commit(t.Context(), s, 21)
	if got := st.UserOf(b); got != "alice" || st.Stored(b, "counter") != 21 {
		t.Errorf("user %q, counter %v", got, st.Stored(b, "counter"))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := counter.Commit(ctx, s, plusOne); n != 0 || err != context.Canceled || s.Dirty() {
		t.Errorf("Commit = %d, %v with a context that had ended; dirty: %t", n, err, s.Dirty())
	}
}
