package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
	redisstore "github.com/session2/session2/stores/redis"
)

// prepared returns a store before its Setup.
func prepared(t testing.TB, c redis.UniversalClient, opts redisstore.Options) *redisstore.Store {
	t.Helper()
	s, err := redisstore.NewStore(c, &opts)
	testsite.Must(t, err)
	return s
}

// TestSetupLooksAtTheServer changes a server's settings, and what Setup then says.
func TestSetupLooksAtTheServer(t *testing.T) {
	server := testdb.NewRedis(t)
	c := connect(t, server.DSN())
	ctx := t.Context()
	want := func(settings string, opts redisstore.Options, durable bool, refused string) {
		t.Helper()
		for _, s := range strings.Fields(settings) {
			name, value, _ := strings.Cut(s, "=")
			testsite.Must(t, c.ConfigSet(ctx, name, value).Err())
		}
		store := prepared(t, c, opts)
		if store.Capabilities().Durable != opts.DeclareDurable {
			t.Errorf("%s: Durable was promised before Setup, or not although it was declared", settings)
		}
		err := store.Setup(ctx)
		if refused == "" && err != nil || refused != "" && (err == nil || !strings.Contains(err.Error(), refused)) {
			t.Errorf("%s: got %v, want an error with %q", settings, err, refused)
		}
		if got := store.Capabilities().Durable; err == nil && got != durable {
			t.Errorf("%s: Durable is %v, want %v", settings, got, durable)
		}
	}
	declared := redisstore.Options{DeclareDurable: true}
	want("", redisstore.Options{}, true, "")
	want("", declared, true, "")
	want("maxmemory-policy=volatile-lru", redisstore.Options{}, true, "")
	want("maxmemory-policy=allkeys-lfu", redisstore.Options{}, false, "maxmemory-policy")
	want("maxmemory-policy=noeviction no-appendfsync-on-rewrite=yes", redisstore.Options{}, false, "")
	want("no-appendfsync-on-rewrite=no appendfsync=everysec", redisstore.Options{}, false, "")
	want("", declared, true, "declared durable")
	want("appendfsync=always appendonly=no", redisstore.Options{}, false, "")
	want("", declared, true, "declared durable")
	want("appendonly=yes", redisstore.Options{}, true, "")

	password, _ := parse(t, server.DSN()).User.Password()
	replica := testdb.NewRedis(t, "replicaof "+strings.Replace(server.Addr(), ":", " ", 1), "masterauth "+password)
	store := prepared(t, connect(t, replica.DSN()), redisstore.Options{})
	if err := store.Setup(ctx); err == nil || !strings.Contains(err.Error(), "replica") {
		t.Errorf("got %v, want an error about a replica", err)
	}
	if err := store.Save(ctx, record(1), 0); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("save to a replica: got %v, want %v", err, fs.ErrPermission)
	}
	want("", redisstore.Options{}, false, "") // a failover may lose what the replica lacks
}

func parse(t testing.TB, rawURL string) *url.URL {
	t.Helper()
	u, err := url.Parse(rawURL)
	testsite.Must(t, err)
	return u
}

// rights is what docs/STORES.md says that the store needs.
const rights = "~session2:* +info +config|get +evalsha +eval +get +exists +getrange +set +setrange +del " +
	"+zadd +zrem +zscan +zrangebyscore +zrangebylex +ping"

// TestRights has a user with the rights that the documentation names make every call, and
// others that lack some.
func TestRights(t *testing.T) {
	server := testdb.NewRedis(t)
	admin := connect(t, server.DSN())
	ctx := t.Context()
	as := func(user, rights string) *redis.Client {
		t.Helper()
		args := []any{"ACL", "SETUSER", user, "on", ">hunter2", "resetkeys", "resetchannels", "-@all"}
		for _, r := range strings.Fields(rights) {
			args = append(args, r)
		}
		testsite.Must(t, admin.Do(ctx, args...).Err())
		return connect(t, urlWith(t, server.DSN(), user, "hunter2"))
	}
	store := prepared(t, as("app", rights), redisstore.Options{})
	testsite.Must(t, everyCall(ctx, store))
	if !store.Capabilities().Durable {
		t.Error("Durable is not promised where CONFIG GET is allowed")
	}

	silent := as("managed", strings.Replace(rights, "+config|get", "", 1))
	store = prepared(t, silent, redisstore.Options{})
	testsite.Must(t, everyCall(ctx, store))
	if store.Capabilities().Durable {
		t.Error("Durable is promised where CONFIG GET is forbidden")
	}
	store = prepared(t, silent, redisstore.Options{DeclareDurable: true})
	testsite.Must(t, store.Setup(ctx))
	if !store.Capabilities().Durable {
		t.Error("Durable is not promised where it was declared")
	}

	reader := prepared(t, as("reader", strings.Replace(rights, "+set ", "", 1)), redisstore.Options{})
	if err := reader.Save(ctx, record(1), 0); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("save without the right: got %v, want %v", err, fs.ErrPermission)
	}
	for _, c := range []*redis.Client{
		connect(t, urlWith(t, server.DSN(), "app", "hunter3")), connect(t, "redis://"+server.Addr()),
	} {
		err := prepared(t, c, redisstore.Options{}).Save(ctx, record(1), 0)
		if !errors.Is(err, fs.ErrPermission) || strings.Contains(fmt.Sprint(err), "hunter") {
			t.Errorf("a wrong password, or none: got %v, want %v without the password", err, fs.ErrPermission)
		}
	}
}

// everyCall makes each call once.
func everyCall(ctx context.Context, s *redisstore.Store) error {
	rec := record(1)
	errs := []error{s.Setup(ctx), s.Save(ctx, rec, 0), s.Save(ctx, next(rec, 2), rec.Version)}
	_, err := s.Load(ctx, rec.ID)
	errs = append(errs, err, s.Touch(ctx, rec.ID, rec.Accessed.Add(1e9), rec.Expires))
	for _, records := range []func(func(session2.Record, error) bool){s.Iter(ctx), s.IterUser(ctx, "alice")} {
		n := 0
		for _, err := range records {
			errs = append(errs, err)
			n++
		}
		if n != 1 {
			errs = append(errs, fmt.Errorf("listed %d records, want 1", n))
		}
	}
	_, err = s.Has(ctx, rec.ID)
	errs = append(errs, err, s.Delete(ctx, rec.ID), s.Save(ctx, rec, 0))
	_, err = s.DeleteUser(ctx, "alice")
	errs = append(errs, err, s.Save(ctx, rec, 0))
	_, err = s.DeleteOld(ctx, 0)
	return errors.Join(append(errs, err)...)
}

// TestMemoryIsFull fills a server up: what does not fit is refused for good, and nothing of
// it is there; what is there can be read, deleted and replaced afterwards.
func TestMemoryIsFull(t *testing.T) {
	c := connect(t, testdb.NewRedis(t, "maxmemory 8mb", "maxmemory-policy noeviction").DSN())
	store := open(t, c, redisstore.Options{})
	ctx := t.Context()
	var err error
	rec := record(0)
	rec.Data = make([]byte, 64<<10)
	n := byte(0)
	for ; n < 200 && err == nil; n++ {
		rec.ID[0] = n
		err = store.Save(ctx, rec, 0)
	}
	if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, session2.ErrUncertain) {
		t.Fatalf("after %d records: got %v, want %v", n, err, syscall.ENOSPC)
	}
	if found, err := store.Has(ctx, rec.ID); found || err != nil {
		t.Errorf("got %v, %v, want nothing of what was refused", found, err)
	}
	if got, want := c.Keys(ctx, "*accessed").Val(), int(min(n-1, 64)); len(got) != want {
		t.Errorf("got %d indexes by access, want %d", len(got), want)
	}
	if n, err := store.DeleteUser(ctx, "alice"); n == 0 || err != nil {
		t.Errorf("delete user: got %d, %v", n, err)
	}
	testsite.Must(t, store.Save(ctx, rec, 0))
}
