package redisstore_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/faultproxy"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
	redisstore "github.com/session2/session2/stores/redis"
)

// proxied is a proxy to the server, and a client by it with one connection.
type proxied struct {
	*faultproxy.Proxy
	gate sync.RWMutex // who holds it lets the client not connect
	c    *redis.Client
}

func viaProxy(t testing.TB, change func(*redis.Options)) *proxied {
	t.Helper()
	return viaProxyTo(t, testdb.Redis(t), change)
}

func viaProxyTo(t testing.TB, url string, change func(*redis.Options)) *proxied {
	t.Helper()
	o, err := redis.ParseURL(url)
	testsite.Must(t, err)
	p := &proxied{Proxy: faultproxy.New(t, o.Addr)}
	o.Addr, o.PoolSize, o.ContextTimeoutEnabled = p.Addr(), 1, true
	o.DialTimeout, o.ReadTimeout, o.PoolTimeout = time.Minute, time.Minute, time.Minute
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		p.gate.RLock()
		defer p.gate.RUnlock()
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	if change != nil {
		change(o)
	}
	p.c = redis.NewClient(o)
	t.Cleanup(func() { p.c.Close() })
	return p
}

// two returns a store behind a proxy and another one over the same data.
func two(t *testing.T) (p *proxied, store, other *redisstore.Store) {
	t.Helper()
	p = viaProxy(t, nil)
	opts := redisstore.Options{Prefix: prefix(t.TempDir())}
	store, other = open(t, p.c, opts), open(t, connect(t, testdb.Redis(t)), opts)
	rec := record(255) // so that the server has the scripts
	testsite.Must(t, store.Save(t.Context(), rec, 0))
	testsite.Must(t, store.Delete(t.Context(), rec.ID))
	return p, store, other
}

// next returns the record in another version.
func next(rec session2.Record, version session2.Version) session2.Record {
	rec.Version = version
	return rec
}

// TestAnswerLost loses the answer to a call that the server has carried out.
func TestAnswerLost(t *testing.T) {
	p, store, _ := two(t)
	ctx, rec := t.Context(), record(1)
	lose := func(what string, call func() error) {
		t.Helper()
		dropped := p.DropAnswer()
		if err := call(); err != nil {
			t.Errorf("%s: got %v, want nil", what, err)
		}
		<-dropped
	}
	lose("create", func() error { return store.Save(ctx, rec, 0) })
	for v := session2.Version(2); v < 6; v++ {
		lose("replace", func() error { return store.Save(ctx, next(rec, v), rec.Version) })
		rec.Version = v
	}
	lose("touch", func() error { return store.Touch(ctx, rec.ID, rec.Accessed.Add(time.Second), rec.Expires) })
	if got, err := store.Load(ctx, rec.ID); err != nil || got.Version != rec.Version {
		t.Errorf("got version %v, %v, want %v", got.Version, err, rec.Version)
	}
	lose("delete", func() error { return store.Delete(ctx, rec.ID) })
	lose("load", func() error {
		if _, err := store.Load(ctx, rec.ID); !errors.Is(err, session2.ErrNotFound) {
			return err
		}
		return nil
	})
}

// TestAnswerLostAndOthersWrote lets another store write between the lost answer and the next
// attempt: the store cannot tell, and says so. It never carries out a create again.
func TestAnswerLostAndOthersWrote(t *testing.T) {
	p, store, other := two(t)
	ctx, rec := t.Context(), record(1)
	meanwhile := func(save, then func() error) error {
		t.Helper()
		dropped := p.DropAnswer()
		p.gate.Lock() // until the other has written
		saved := make(chan error, 1)
		go func() { saved <- save() }()
		<-dropped
		testsite.Must(t, then())
		p.gate.Unlock()
		return <-saved
	}
	testsite.Must(t, store.Save(ctx, next(rec, 4), 0))
	err := meanwhile(
		func() error { return store.Save(ctx, next(rec, 5), 4) },
		func() error { return other.Save(ctx, next(rec, 6), 5) },
	)
	if !errors.Is(err, session2.ErrUncertain) || errors.Is(err, session2.ErrConflict) {
		t.Errorf("replaced since: got %v, want %v", err, session2.ErrUncertain)
	}
	err = meanwhile(
		func() error { return store.Save(ctx, next(rec, 7), 6) },
		func() error { return other.Delete(ctx, rec.ID) },
	)
	if !errors.Is(err, session2.ErrUncertain) || !errors.Is(err, session2.ErrNotFound) {
		t.Errorf("deleted since: got %v, want %v and %v", err, session2.ErrUncertain, session2.ErrNotFound)
	}
	err = meanwhile(
		func() error { return store.Save(ctx, rec, 0) },
		func() error { return other.Delete(ctx, rec.ID) },
	)
	if !errors.Is(err, session2.ErrUncertain) {
		t.Errorf("created, and deleted since: got %v, want %v", err, session2.ErrUncertain)
	}
	if found, err := other.Has(ctx, rec.ID); found || err != nil {
		t.Errorf("got %v, %v: a session that was ended is back", found, err)
	}
}

// TestDeletedCountWhoseAnswerIsLost finds that a number that may be too small says so.
func TestDeletedCountWhoseAnswerIsLost(t *testing.T) {
	p := viaProxy(t, nil)
	hook := &beforeScript{}
	p.c.AddHook(hook)
	store := open(t, p.c, redisstore.Options{Prefix: prefix(t.TempDir())})
	ctx := t.Context()
	for what, call := range map[string]func() (int, error){
		"delete user": func() (int, error) { return store.DeleteUser(ctx, "alice") },
		"delete old":  func() (int, error) { return store.DeleteOld(ctx, 0) },
	} {
		for range 2 { // so that the server has the script
			testsite.Must(t, store.Save(ctx, record(1), 0))
			if n, err := call(); n != 1 || err != nil {
				t.Errorf("%s: got %d, %v, want 1", what, n, err)
			}
		}
		testsite.Must(t, store.Save(ctx, record(1), 0))
		hook.arm = func() { p.DropAnswer() }
		n, err := call()
		if n != 0 || !errors.Is(err, session2.ErrUncertain) {
			t.Errorf("%s: got %d, %v, want 0, %v", what, n, err, session2.ErrUncertain)
		}
		if found, err := store.Has(ctx, record(1).ID); found || err != nil {
			t.Errorf("%s: got %v, %v, want the record gone", what, found, err)
		}
	}
}

// beforeScript calls arm once, before the next script.
type beforeScript struct{ arm func() }

func (h *beforeScript) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *beforeScript) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h *beforeScript) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if h.arm != nil && cmd.Name() == "evalsha" {
			h.arm()
			h.arm = nil
		}
		return next(ctx, cmd)
	}
}

// TestNothingSentIsNothingLost finds that a Save that could not connect at first is certain of
// what it says.
func TestNothingSentIsNothingLost(t *testing.T) {
	opts := redisstore.Options{Prefix: prefix(t.TempDir())}
	direct := open(t, connect(t, testdb.Redis(t)), opts)
	ctx, rec := t.Context(), record(1)
	testsite.Must(t, direct.Save(ctx, rec, 0))
	var refuse atomic.Bool
	p := viaProxy(t, func(o *redis.Options) {
		o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if refuse.Swap(false) {
				testsite.Must(t, direct.Save(ctx, next(rec, 6), rec.Version))
				return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		}
	})
	store, err := redisstore.NewStore(p.c, &opts)
	testsite.Must(t, err)
	refuse.Store(true)
	if err := store.Save(ctx, next(rec, 5), rec.Version); !errors.Is(err, session2.ErrConflict) {
		t.Errorf("got %v, want %v", err, session2.ErrConflict)
	}
}

// TestScriptsAreFlushed has the server forget all scripts in the midst of creates and counts:
// each is sent whole then, and is no second attempt.
func TestScriptsAreFlushed(t *testing.T) {
	c := connect(t, testdb.NewRedis(t).DSN())
	store := open(t, c, redisstore.Options{})
	ctx := t.Context()
	var work sync.WaitGroup
	for w := range byte(4) {
		work.Go(func() {
			for i := range 50 {
				rec := record(w)
				rec.ID[1] = byte(i)
				err := errors.Join(store.Save(ctx, rec, 0), store.Save(ctx, next(rec, 7), rec.Version))
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 50 {
		testsite.Must(t, c.ScriptFlush(ctx).Err())
	}
	work.Wait()
	if n, err := store.DeleteUser(ctx, "alice"); n != 200 || err != nil {
		t.Errorf("got %d, %v, want 200", n, err)
	}
}

// TestHungServer finds that every call keeps its timeout and its context when the server is
// silent, over a client that heeds neither, and that the store goes on when it is back.
func TestHungServer(t *testing.T) {
	p := viaProxy(t, func(o *redis.Options) {
		o.ContextTimeoutEnabled, o.MaxRetries, o.ReadTimeout = false, -1, time.Second
	})
	opts := redisstore.Options{Prefix: prefix(t.TempDir())}
	ctx, rec := t.Context(), record(1)
	patient := open(t, p.c, opts)
	testsite.Must(t, patient.Save(ctx, rec, 0))
	opts.Timeout = 200 * time.Millisecond
	store, err := redisstore.NewStore(p.c, &opts)
	testsite.Must(t, err)
	p.Hang(true)
	gone, cancel := context.WithCancel(ctx)
	for what, call := range map[string]func(ctx context.Context) error{
		"load":        func(ctx context.Context) error { _, err := store.Load(ctx, rec.ID); return err },
		"has":         func(ctx context.Context) error { _, err := store.Has(ctx, rec.ID); return err },
		"save":        func(ctx context.Context) error { return store.Save(ctx, next(rec, 2), rec.Version) },
		"touch":       func(ctx context.Context) error { return store.Touch(ctx, rec.ID, rec.Accessed, rec.Expires) },
		"delete":      func(ctx context.Context) error { return store.Delete(ctx, rec.ID) },
		"delete old":  func(ctx context.Context) error { _, err := store.DeleteOld(ctx, time.Hour); return err },
		"delete user": func(ctx context.Context) error { _, err := store.DeleteUser(ctx, "alice"); return err },
		"set up":      store.Setup,
		"iter":        func(ctx context.Context) error { return first(store, ctx) },
	} {
		if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: got %v, want %v", what, err, context.DeadlineExceeded)
		}
		if err := call(ctx); (what == "delete" || what == "touch") && !errors.Is(err, session2.ErrUncertain) {
			t.Errorf("%s: got %v, want %v", what, err, session2.ErrUncertain)
		}
	}
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := patient.Load(gone, rec.ID); !errors.Is(err, context.Canceled) {
		t.Errorf("load, cancelled: got %v, want %v", err, context.Canceled)
	}
	p.Hang(false)
	recovers(t, store, rec)
}

// first returns the error of the first step of an iteration.
func first(store *redisstore.Store, ctx context.Context) error {
	for _, err := range store.Iter(ctx) {
		return err
	}
	return nil
}

// recovers wants a store to answer again, in the end: a busy machine may need longer than the
// store's timeout for a connection.
func recovers(t *testing.T, store session2.Store, rec session2.Record) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if _, err = store.Load(t.Context(), rec.ID); err == nil {
			return
		}
	}
	t.Fatalf("the store does not recover: %v", err)
}

var counter = session2.NewKey[int]("counter")

func increment(s *session2.Session) { counter.Update(s, func(n int) int { return n + 1 }) }

// TestIncrementsWhoseAnswersAreLost loses the answer to the Save of each request: it counts once,
// whether nobody else writes meanwhile or somebody does, so that the manager has to find out.
func TestIncrementsWhoseAnswersAreLost(t *testing.T) {
	p, store, other := two(t)
	st := testsite.NewSite(t, store, session2.Config{CommitTimeout: time.Minute})
	direct := testsite.NewSite(t, other, session2.Config{})
	b := &testsite.Browser{}
	st.Do(b, increment)
	for i := range 8 {
		armed, answered := make(chan (<-chan struct{}), 1), make(chan int, 1)
		go func() {
			answered <- st.Do(b.Clone(), func(s *session2.Session) {
				increment(s)
				p.gate.Lock()
				armed <- p.DropAnswer()
			}).StatusCode
		}()
		<-(<-armed)
		if i%2 == 1 {
			direct.Do(b.Clone(), increment)
		}
		p.gate.Unlock()
		if status := <-answered; status != http.StatusOK {
			t.Errorf("request %d: status %d, %v", i, status, st.Events.List)
		}
	}
	direct.Do(b, func(s *session2.Session) {
		if n, _ := counter.Get(s); n != 1+8+4 {
			t.Errorf("counted %d, want %d", n, 1+8+4)
		}
	})
}

// TestAnswerLostAndNobodyThere loses an answer, and then nobody can be connected to for longer
// than a call tries: that does not say that nothing was changed. Where nobody was there from the
// start, nothing was.
func TestAnswerLostAndNobodyThere(t *testing.T) {
	for name, call := range map[string]func(ctx context.Context, s *redisstore.Store, rec session2.Record) error{
		"create": func(ctx context.Context, s *redisstore.Store, _ session2.Record) error {
			return s.Save(ctx, record(2), 0)
		},
		"replace": func(ctx context.Context, s *redisstore.Store, rec session2.Record) error {
			return s.Save(ctx, next(rec, 2), rec.Version)
		},
		"touch": func(ctx context.Context, s *redisstore.Store, rec session2.Record) error {
			return s.Touch(ctx, rec.ID, rec.Accessed.Add(time.Hour), rec.Expires)
		},
		"delete": func(ctx context.Context, s *redisstore.Store, rec session2.Record) error {
			return s.Delete(ctx, rec.ID)
		},
	} {
		for _, sent := range []bool{true, false} {
			p, store, other := two(t)
			rec := record(1)
			testsite.Must(t, other.Save(t.Context(), rec, 0))
			if sent {
				testsite.Must(t, store.Touch(t.Context(), rec.ID, rec.Accessed, rec.Expires)) // so that the server has it
				p.DropAnswer()
			} else {
				var err error
				p = viaProxy(t, nil) // which has no connection yet
				store, err = redisstore.NewStore(p.c, &redisstore.Options{Prefix: prefix(t.TempDir())})
				testsite.Must(t, err)
			}
			p.Refuse(true)
			err := call(t.Context(), store, rec)
			p.Refuse(false)
			if err == nil || errors.Is(err, session2.ErrUncertain) != sent {
				t.Errorf("%s, sent before %t: got %v, want it to match %v: %t", name, sent, err, session2.ErrUncertain, sent)
			}
		}
	}
}

// TestAnswerLostAndThenRefused loses an answer, and the next attempt is refused: that one has
// changed nothing, and does not say what the one before has.
func TestAnswerLostAndThenRefused(t *testing.T) {
	server := testdb.NewRedis(t)
	admin := connect(t, server.DSN())
	p := viaProxyTo(t, server.DSN(), nil)
	store := open(t, p.c, redisstore.Options{Prefix: prefix(t.TempDir())})
	ctx, rec := t.Context(), record(1)
	may := func(what string) { testsite.Must(t, admin.Do(ctx, "ACL", "SETUSER", "default", what).Err()) }
	for name, call := range map[string]func() error{
		"create":  func() error { return store.Save(ctx, record(2), 0) },
		"replace": func() error { return store.Save(ctx, next(rec, 2), rec.Version) },
		"touch":   func() error { return store.Touch(ctx, rec.ID, rec.Accessed.Add(time.Hour), rec.Expires) },
		"delete":  func() error { return store.Delete(ctx, rec.ID) },
	} {
		for _, sent := range []bool{true, false} {
			testsite.Must(t, store.Delete(ctx, record(2).ID))
			testsite.Must(t, store.Delete(ctx, rec.ID))
			testsite.Must(t, store.Save(ctx, rec, 0))
			testsite.Must(t, store.Touch(ctx, rec.ID, rec.Accessed, rec.Expires)) // so that the server has it
			answered := make(chan error, 1)
			p.gate.Lock()
			if sent {
				dropped := p.DropAnswer()
				go func() { answered <- call() }()
				<-dropped
				may("-@scripting")
			} else {
				may("-@scripting")
				go func() { answered <- call() }()
			}
			p.gate.Unlock()
			err := <-answered
			may("+@scripting")
			if err == nil || errors.Is(err, session2.ErrUncertain) != sent {
				t.Errorf("%s, sent before %t: got %v, want it to match %v: %t", name, sent, err, session2.ErrUncertain, sent)
			}
		}
	}
}

// TestIncrementsAtOnce counts concurrent requests of one session over HTTP exactly.
func TestIncrementsAtOnce(t *testing.T) {
	store := open(t, connect(t, testdb.Redis(t)), redisstore.Options{Prefix: prefix(t.TempDir())})
	st := testsite.NewSite(t, store, session2.Config{CommitTimeout: time.Minute})
	srv := testsite.Serve(t, st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		increment(s)
	}), true)
	b := &testsite.Browser{}
	testsite.Get(t, srv, b, "/")
	var work sync.WaitGroup
	for range 32 {
		work.Go(func() {
			if res, _ := testsite.Get(t, srv, b.Clone(), "/"); res.StatusCode != http.StatusOK {
				t.Errorf("status %d", res.StatusCode)
			}
		})
	}
	work.Wait()
	st.Do(b, func(s *session2.Session) {
		if n, _ := counter.Get(s); n != 33 {
			t.Errorf("counted %d, want 33", n)
		}
	})
}

// TestClosed finds that a closed client, and a closed store, are definite refusals.
func TestClosed(t *testing.T) {
	c := connect(t, testdb.Redis(t))
	store := open(t, c, redisstore.Options{Prefix: prefix(t.TempDir())})
	testsite.Must(t, c.Close())
	for range 2 {
		if err := store.Save(t.Context(), record(1), 0); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("got %v, want %v", err, fs.ErrClosed)
		}
		testsite.Must(t, store.Close())
	}
	opened, err := redisstore.Open(t.Context(), testdb.Redis(t))
	testsite.Must(t, err)
	testsite.Must(t, session2.Close(opened))
	if _, err := opened.Load(t.Context(), session2.ID{}); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("got %v, want %v", err, fs.ErrClosed)
	}
}

// urlWith returns a server's URL with another user.
func urlWith(t testing.TB, rawURL, user, password string) string {
	t.Helper()
	u, err := url.Parse(rawURL)
	testsite.Must(t, err)
	u.User = url.UserPassword(user, password)
	return u.String()
}
