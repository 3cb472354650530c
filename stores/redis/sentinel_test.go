package redisstore_test

import (
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
	redisstore "github.com/session2/session2/stores/redis"
)

// TestSentinel kills a master behind Sentinel: the store goes on with the replica that was
// promoted, which has what it had heard of, and a Save that began before is carried out once.
// It promises no Durable.
func TestSentinel(t *testing.T) {
	t.Parallel()
	master, replica, sentinel := testdb.NewRedisSentinel(t)
	password, _ := parse(t, master.DSN()).User.Password()
	c := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: "sessions", SentinelAddrs: []string{sentinel.Addr()}, SentinelPassword: password,
		Password: password, ContextTimeoutEnabled: true, MaxRetries: 100, MaxRetryBackoff: 100 * time.Millisecond,
	})
	defer c.Close()
	store := open(t, c, redisstore.Options{})
	if store.Capabilities().Durable {
		t.Error("Durable is promised, and a failover may lose what the replica lacks")
	}
	ctx := t.Context()
	testsite.Must(t, everyCall(ctx, store))
	rec := record(1)
	testsite.Must(t, store.Save(ctx, rec, 0))
	copied := connect(t, replica.DSN())
	for deadline := time.Now().Add(time.Minute); copied.Exists(ctx, key("session2:", rec.ID)).Val() == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the replica has not heard of the record")
		}
		time.Sleep(time.Millisecond)
	}

	master.Kill()
	testsite.Must(t, store.Save(ctx, next(rec, 2), rec.Version))
	got, err := store.Load(ctx, rec.ID)
	if err != nil || got.Version != 2 {
		t.Errorf("after the failover: got version %d, %v, want 2", got.Version, err)
	}
	testsite.Must(t, store.Delete(ctx, rec.ID))
	testsite.Must(t, everyCall(ctx, store))
	if info := copied.Info(ctx, "replication").Val(); !strings.Contains(info, "role:master") {
		t.Errorf("the replica was not promoted: %s", info)
	}
}
