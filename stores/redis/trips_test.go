package redisstore_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
	redisstore "github.com/session2/session2/stores/redis"
)

// TestRoundTrips counts on the wire how often the client sends something and waits.
func TestRoundTrips(t *testing.T) {
	o, err := redis.ParseURL(testdb.Redis(t))
	testsite.Must(t, err)
	trips := new(testdb.Trips)
	o.PoolSize = 1
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return trips.Conn(c), nil
	}
	c := redis.NewClient(o)
	defer c.Close()
	store := open(t, c, redisstore.Options{Prefix: prefix(t.TempDir())})
	ctx, rec := t.Context(), record(1)
	user := func() error { _, err := count(store.IterUser(ctx, "alice")); return err }
	sweep := func() error { _, err := store.DeleteOld(ctx, time.Hour); return err }
	calls := []struct {
		name string
		want int
		make func() error
	}{
		{"create", 1, func() error { return store.Save(ctx, rec, 0) }},
		{"load", 1, func() error { _, err := store.Load(ctx, rec.ID); return err }},
		{"has", 1, func() error { _, err := store.Has(ctx, rec.ID); return err }},
		{"touch", 1, func() error { return store.Touch(ctx, rec.ID, rec.Accessed.Add(time.Second), rec.Expires) }},
		{"replace", 1, func() error { return store.Save(ctx, next(rec, 2), rec.Version) }},
		{"iter user", 2, user},
		{"a sweep with nothing to do", 2, sweep},
		{"delete", 1, func() error { return store.Delete(ctx, rec.ID) }},
		{"iter user of nobody", 1, user},
	}
	for range 2 { // the first time, the server gets the scripts
		for _, call := range calls {
			before := trips.Count()
			testsite.Must(t, call.make())
			if got := trips.Count() - before; got != call.want && rec.Version == 77 {
				t.Errorf("%s: got %d round trips, want %d", call.name, got, call.want)
			}
		}
		rec.Version = 77
	}
}

// TestOpen opens stores by URL, and finds that no error repeats one.
func TestOpen(t *testing.T) {
	schemes := map[string]session2.OpenFunc{"redis": redisstore.Open, "rediss": redisstore.Open}
	url := testdb.Redis(t)
	store, err := session2.OpenWith(t.Context(), url+"?prefix=open:&timeout=1m&declaredurable=true&pool_size=3", schemes)
	testsite.Must(t, err)
	testsite.Must(t, session2.Setup(t.Context(), store))
	testsite.Must(t, store.Save(t.Context(), record(1), 0))
	if n := connect(t, url).Exists(t.Context(), key("open:", record(1).ID)).Val(); n != 1 {
		t.Errorf("got %d keys with the prefix of the URL, want 1", n)
	}
	testsite.Must(t, store.Delete(t.Context(), record(1).ID))
	testsite.Must(t, session2.Close(store))
	for _, bad := range []string{
		"redis:", "redis:hunter2", "redis:///0", "redis://app:hunter2@host:port/0", "redis://app:hunter2@host/nine",
		"redis://app:hunt?er2@host/0", "redis://app:hunter2@host/0?hunter2=1", "redis://app:hunter2@host/0#hunter2",
		"redis://app:hunter2@host/0?timeout=hunter2", "redis://app:hunter2@host/0?cluster=hunter2",
		"redis://app:hunter2@host/0?prefix={hunter2}", "redis://app:hunter2@host?prefix=a&prefix=hunter2",
	} {
		store, err := session2.OpenWith(t.Context(), bad, schemes)
		if err == nil || store != nil {
			t.Errorf("%s: got %v, want an error", bad, store)
			continue
		}
		for _, part := range []string{"hunt", "er2"} {
			if contains(err, part) {
				t.Errorf("%s: the error repeats the URL: %v", bad, err)
			}
		}
	}
}
