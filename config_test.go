package session2_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"path/filepath"
	"reflect"
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

func TestZeroConfig(t *testing.T) {
	m, err := session2.NewManager(session2.NewMemoryStore(), session2.Config{})
	if err != nil {
		t.Fatal(err)
	}
	c := session2.Effective(m)
	if c.Lifetime != 24*time.Hour || c.IdleTimeout != 30*time.Minute || c.AccessResolution != time.Minute ||
		c.RenewEvery != 0 || c.RenewGrace != 30*time.Second || c.CommitTimeout != 5*time.Second || c.MaxBytes != 1<<20 {
		t.Errorf("the zero Config's limits are %+v", c)
	}
	if c.Codec != (session2.Gob{}) || c.Logger == nil || c.ErrorHandler == nil || c.KeepOnReuse {
		t.Errorf("the zero Config's rest is %+v", c)
	}
	want := session2.CookieConfig{Name: "__Host-session", Path: "/", SameSite: http.SameSiteLaxMode}
	if !reflect.DeepEqual(c.Cookie, want) {
		t.Errorf("the zero Config's cookie is %+v, want %+v", c.Cookie, want)
	}
}

func TestDerivedDefaults(t *testing.T) {
	m, err := session2.NewManager(session2.NewMemoryStore(), session2.Config{Lifetime: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if c := session2.Effective(m); c.IdleTimeout != 5*time.Minute || c.AccessResolution != 30*time.Second {
		t.Errorf("with a Lifetime of 5 min: IdleTimeout %v, AccessResolution %v", c.IdleTimeout, c.AccessResolution)
	}
}

func TestRefusedConfigs(t *testing.T) {
	type (
		config = session2.Config
		cookie = session2.CookieConfig
	)
	long := strings.Repeat("a", 1025)
	tests := []struct {
		cfg   config
		names string // of the fields that the error must name
	}{
		{config{Lifetime: -1}, "Lifetime"},
		{config{Lifetime: time.Minute, IdleTimeout: time.Hour}, "IdleTimeout"},
		{config{AccessResolution: -1}, "AccessResolution"},
		{config{IdleTimeout: time.Minute, AccessResolution: time.Minute}, "AccessResolution"},
		{config{RenewEvery: -1}, "RenewEvery"},
		{config{RenewEvery: 25 * time.Hour}, "RenewEvery"},
		{config{RenewEvery: time.Second, RenewGrace: time.Hour}, "RenewEvery"},
		{config{RenewGrace: -1}, "RenewGrace"},
		{config{CommitTimeout: -1}, "CommitTimeout"},
		{config{MaxBytes: -1}, "MaxBytes"},
		{config{MaxPerUser: -1}, "MaxPerUser"},
		{config{RejectLogin: true}, "RejectLogin"},
		{config{NotBefore: time.Now().Add(time.Hour)}, "NotBefore"},
		{config{Cookie: cookie{Name: "a b"}}, "Cookie.Name"},
		{config{Cookie: cookie{Name: "a=b"}}, "Cookie.Name"},
		{config{Cookie: cookie{Name: long}}, "Cookie.Name"},
		{config{Cookie: cookie{Name: "__Host-x", Insecure: true}}, "Cookie.Insecure"},
		{config{Cookie: cookie{Name: "__hOsT-x", Insecure: true}}, "Cookie.Insecure"},
		{config{Cookie: cookie{Name: "__Secure-x", Insecure: true}}, "Cookie.Insecure"},
		{config{Cookie: cookie{Name: "__Http-x", Insecure: true}}, "Cookie.Insecure"},
		{config{Cookie: cookie{Name: "__Host-x", Domain: "example.com"}}, "Cookie.Domain"},
		{config{Cookie: cookie{Name: "__Host-x", Path: "/app"}}, "Cookie.Path"},
		{config{Cookie: cookie{Domain: "exa mple"}}, "Cookie.Domain"},
		{config{Cookie: cookie{Domain: long}}, "Cookie.Domain"},
		{config{Cookie: cookie{Path: "app"}}, "Cookie.Path"},
		{config{Cookie: cookie{Path: "/a;b"}}, "Cookie.Path"},
		{config{Cookie: cookie{Path: "/" + long}}, "Cookie.Path"},
		{config{Cookie: cookie{SameSite: http.SameSiteDefaultMode}}, "Cookie.SameSite"},
		{config{Cookie: cookie{SameSite: 99}}, "Cookie.SameSite"},
		{config{Cookie: cookie{SameSite: http.SameSiteNoneMode, Insecure: true}}, "Cookie.SameSite"},
		{config{Cookie: cookie{Partitioned: true, Insecure: true}}, "Cookie.Partitioned"},
		{config{Require: session2.Capabilities{Durable: true}}, "Require.Durable"},
		{config{Lifetime: -1, RenewEvery: -1, MaxBytes: -1, Cookie: cookie{Path: "x", Name: ";"},
			Require: session2.Capabilities{MultiprocessSafe: true, MultihostSafe: true}},
			"Lifetime RenewEvery MaxBytes Cookie.Path Cookie.Name Require.MultiprocessSafe Require.MultihostSafe"},
	}
	for _, c := range tests {
		m, err := session2.NewManager(session2.NewMemoryStore(), c.cfg)
		if err == nil || m != nil {
			t.Errorf("%s: NewManager took it", c.names)
			continue
		}
		for _, name := range strings.Fields(c.names) {
			if !strings.Contains(err.Error(), "Config."+name+":") {
				t.Errorf("the error does not name %s: %v", name, err)
			}
		}
	}
	for _, store := range []session2.Store{
		nil, (*session2.MemoryStore)(nil), &session2.MemoryStore{}, &session2.BoltStore{}, &session2.FileStore{},
		&session2.GobStore{}, &session2.PostgresStore{}, &session2.MySQLStore{},
	} {
		if _, err := session2.NewManager(store, config{}); err == nil {
			t.Errorf("NewManager took %T that nothing has made", store)
		}
	}
}

// bareStore has no more than the four methods.
type bareStore struct{ session2.Store }

func TestRequireOfBareStore(t *testing.T) {
	want := session2.Capabilities{ThreadSafe: true, MultiprocessSafe: true, MultihostSafe: true, Durable: true}
	_, err := session2.NewManager(bareStore{session2.NewMemoryStore()}, session2.Config{Require: want})
	for _, name := range []string{"ThreadSafe", "MultiprocessSafe", "MultihostSafe", "Durable"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("a store that promises nothing: %v, which does not name %s", err, name)
		}
	}
	m, err := session2.NewManager(bareStore{session2.NewMemoryStore()}, session2.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.RevokeUser(t.Context(), "alice"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("RevokeUser = %v, want ErrUnsupported", err)
	}
	if err := m.Cleanup(t.Context(), time.Hour); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Cleanup = %v, want ErrUnsupported", err)
	}
}

// lonelyStore must be called by one goroutine at a time, and notices when it is not.
type lonelyStore struct {
	*session2.MemoryStore
	busy     atomic.Bool
	overlaps atomic.Int64
	calls    atomic.Int64
}

func (l *lonelyStore) Capabilities() session2.Capabilities { return session2.Capabilities{} }

// enter returns what leaves again.
func (l *lonelyStore) enter() func() {
	l.calls.Add(1)
	if !l.busy.CompareAndSwap(false, true) {
		l.overlaps.Add(1)
		return func() {}
	}
	runtime.Gosched() // lets another meet it
	return func() { l.busy.Store(false) }
}

func (l *lonelyStore) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	defer l.enter()()
	return l.MemoryStore.Load(ctx, id)
}

func (l *lonelyStore) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	defer l.enter()()
	return l.MemoryStore.Save(ctx, rec, prev)
}

func (l *lonelyStore) Delete(ctx context.Context, id session2.ID) error {
	defer l.enter()()
	return l.MemoryStore.Delete(ctx, id)
}

func (l *lonelyStore) DeleteOld(ctx context.Context, age time.Duration) (int, error) {
	defer l.enter()()
	return l.MemoryStore.DeleteOld(ctx, age)
}

func (l *lonelyStore) IterUser(ctx context.Context, user string) iter.Seq2[session2.Record, error] {
	return func(yield func(session2.Record, error) bool) {
		leave := l.enter()
		for rec, err := range l.MemoryStore.IterUser(ctx, user) {
			leave()
			if !yield(rec, err) {
				return
			}
			leave = l.enter()
		}
		leave()
	}
}

func TestStoresAreSerialised(t *testing.T) {
	store := &lonelyStore{MemoryStore: session2.NewMemoryStore()}
	st := testsite.NewSite(t, store, session2.Config{CommitTimeout: time.Minute})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			b := &testsite.Browser{}
			for range 10 {
				st.Do(b, func(s *session2.Session) { s.SetUser("alice") })
				st.Do(b, func(s *session2.Session) { counter.Update(s, func(n int) int { return n + 1 }) })
				if _, err := st.M.RevokeUser(t.Context(), "alice"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	sweep := make(chan error)
	go func() { sweep <- st.M.Cleanup(ctx, time.Millisecond) }()
	wg.Wait()
	cancel()
	if err := <-sweep; !errors.Is(err, context.Canceled) {
		t.Errorf("Cleanup = %v", err)
	}
	if n := store.overlaps.Load(); n != 0 {
		t.Errorf("%d of %d calls overlapped another", n, store.calls.Load())
	}
}

// plainStore has the four methods and nothing else.
type plainStore struct{ session2.Store }

// listStore can list as well, and its iterator must not run beside other calls.
type listStore struct {
	session2.Store
	list session2.IterStore
}

func (l listStore) Iter(ctx context.Context) iter.Seq2[session2.Record, error] {
	return l.list.Iter(ctx)
}

func TestPlainStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := session2.NewMemoryStore()
		st := testsite.NewSite(t, plainStore{memory}, session2.Config{})
		b := st.Login("alice")
		for range 40 { // accesses are saved where they cannot be touched
			time.Sleep(time.Minute)
			if st.UserOf(b) != "alice" {
				t.Fatal("the session ended while in use")
			}
		}
		if _, err := st.M.RevokeUser(t.Context(), "alice"); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("RevokeUser = %v", err)
		}
		if err := st.M.Cleanup(t.Context(), time.Minute); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Cleanup = %v", err)
		}
		st = testsite.NewSite(t, listStore{memory, memory}, session2.Config{})
		st.Login("bob")
		if n, err := st.M.RevokeUser(t.Context(), "alice"); n != 1 || err != nil {
			t.Errorf("RevokeUser by listing = %d, %v", n, err)
		}
		if n := records(t, memory); n != 1 {
			t.Errorf("%d records left, want bob's", n)
		}
	})
}

func TestOpen(t *testing.T) {
	for i, test := range []struct {
		url  string // with % for a path
		caps session2.Capabilities
	}{
		{"memory:", session2.Capabilities{ThreadSafe: true}},
		{"file:%", session2.Capabilities{ThreadSafe: true, MultiprocessSafe: true, Durable: true}},
		{"file:%?nosync=true", session2.Capabilities{ThreadSafe: true, MultiprocessSafe: true}},
		{"bolt:%", session2.Capabilities{ThreadSafe: true, Durable: true}},
		{"bolt:%?timeout=3s&nosync=1", session2.Capabilities{ThreadSafe: true}},
		{"gob:%", session2.Capabilities{ThreadSafe: true, MultiprocessSafe: true, Durable: true}},
		{"gob://%?nosync=false", session2.Capabilities{ThreadSafe: true, MultiprocessSafe: true, Durable: true}},
		{"gob:%?nosync=true", session2.Capabilities{ThreadSafe: true, MultiprocessSafe: true}},
	} {
		t.Run(fmt.Sprintf("%d", i), func(t *testing.T) {
			path := filepath.ToSlash(filepath.Join(t.TempDir(), "store"))
			store, err := session2.Open(t.Context(), strings.Replace(test.url, "%", path, 1))
			if err != nil {
				t.Fatal(err)
			}
			defer closeStore(t, store)
			if got := store.(session2.CapableStore).Capabilities(); got != test.caps {
				t.Errorf("capabilities %+v, want %+v", got, test.caps)
			}
		})
	}
}

func TestOpenRelativePath(t *testing.T) {
	t.Chdir(t.TempDir())
	store, err := session2.Open(t.Context(), "bolt:a%20b.db")
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, store)
	if list, _ := filepath.Glob("a b.db"); len(list) != 1 {
		t.Error("the file is not where the URL says")
	}
}

func TestOpenRefuses(t *testing.T) {
	for url, want := range map[string]string{
		"":                             "there are file, bolt",
		"sessions":                     "scheme",
		"redis:localhost":              "redis",
		"file:":                        "names no path",
		"bolt:":                        "names no path",
		"memory:x":                     "memory:",
		"file://host/path":             "without host",
		"file:x#y":                     "fragment",
		"file:x?color=green":           `unknown option "color"`,
		"file:x?nosync=perhaps":        "nosync",
		"bolt:x?timeout=soon":          "timeout",
		"bolt:x?timeout=1s&timeout=2s": `"timeout" is given more than once`,
		"bolt:x?timeout=1s;nosync=1":   "malformed options",
		"bolt:x?timeout=%zz":           "malformed options",
		"memory:?nosync=true":          `unknown option "nosync"`,
		"file:%zz":                     "URL",
		"postgres://u:hunter2@h:x/db":  "URL",
		"pg://u:hunter2@h/db":          "postgres",
	} {
		store, err := session2.Open(t.Context(), url)
		if store != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q) = %v, %v; want an error with %q", url, store, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := session2.Open(ctx, "memory:"); !errors.Is(err, context.Canceled) {
		t.Errorf("Open with a context that has ended: %v", err)
	}
}

// TestOpenMySQLTLS finds that the driver expects the certificate of the URL's
// host.
func TestOpenMySQLTLS(t *testing.T) {
	for url, want := range map[string]string{
		"mysql://u@db.example:3307/db?tls=true": "db.example",
		"mysql://u@db.example/db?tls=true":      "db.example",
		"mysql://u@[::1]/db?tls=true":           "::1",
	} {
		if got, err := session2.MySQLServerName(url); got != want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", url, got, err, want)
		}
	}
}

// A number without a unit is no duration.
func TestDurationsWithoutAUnit(t *testing.T) {
	for field, cfg := range map[string]session2.Config{
		"Lifetime":      {Lifetime: 3600},
		"IdleTimeout":   {IdleTimeout: 1800, AccessResolution: 1},
		"CommitTimeout": {CommitTimeout: 5},
		"WatchEvery":    {WatchEvery: 5},
	} {
		_, err := session2.NewManager(session2.NewMemoryStore(), cfg)
		if err == nil || !strings.Contains(err.Error(), "Config."+field+":") || !strings.Contains(err.Error(), "time.Second?") {
			t.Errorf("%s: %v", field, err)
		}
	}
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	for name, set := range map[string]func(*session2.Session){
		"set lifetime":     func(s *session2.Session) { s.SetLifetime(3600) },
		"set idle timeout": func(s *session2.Session) { s.SetIdleTimeout(1800) },
		"remember":         func(s *session2.Session) { s.Remember(30) },
	} {
		var err error
		res := st.Do(&testsite.Browser{}, func(s *session2.Session) { s.Set("k", 1); set(s); err = s.Err() })
		if res.StatusCode != http.StatusInternalServerError || !strings.Contains(fmt.Sprint(err), name+": ") {
			t.Errorf("%s: %s, %v", name, res.Status, err)
		}
	}
	if err := st.M.Cleanup(t.Context(), 60); err == nil || !strings.Contains(err.Error(), "60*time.Second") {
		t.Errorf("Cleanup: %v", err)
	}
}
