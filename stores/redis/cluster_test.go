package redisstore_test

import (
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
	redisstore "github.com/session2/session2/stores/redis"
	"github.com/session2/session2/storetest"
)

// TestClusterStore runs the suite on a Cluster of three masters, which refuses a script whose
// keys are in different slots.
func TestClusterStore(t *testing.T) {
	t.Parallel()
	url := testdb.Inherited(t, "REDIS_CLUSTER", func() string {
		nodes := testdb.NewRedisCluster(t, 3)
		return nodes[0].DSN() + "?addr=" + nodes[1].Addr() + "&addr=" + nodes[2].Addr()
	})
	storetest.Run(t, func(t testing.TB, dir string) session2.Store {
		return open(t, connectCluster(t, url), redisstore.Options{Prefix: prefix(dir)})
	}, &storetest.Options{Corrupt: func(t testing.TB, dir string, id session2.ID) {
		testsite.Must(t, connectCluster(t, url).Set(t.Context(), key(prefix(dir), id), "damage", 0).Err())
	}})
}

func connectCluster(t testing.TB, url string) *redis.ClusterClient {
	t.Helper()
	o, err := redis.ParseClusterURL(strings.Replace(url, "/0?", "?", 1))
	testsite.Must(t, err)
	o.ContextTimeoutEnabled = true
	c := redis.NewClusterClient(o)
	t.Cleanup(func() { c.Close() })
	return c
}

// TestReplicasAreNotRead finds that a client which reads from replicas is refused.
func TestReplicasAreNotRead(t *testing.T) {
	for _, o := range []redis.ClusterOptions{{ReadOnly: true}, {RouteByLatency: true}, {RouteRandomly: true}} {
		o.Addrs = []string{"127.0.0.1:1"}
		c := redis.NewClusterClient(&o)
		defer c.Close()
		if _, err := redisstore.NewStore(c, nil); err == nil || !strings.Contains(err.Error(), "replicas") {
			t.Errorf("got %v, want an error about replicas", err)
		}
	}
}
