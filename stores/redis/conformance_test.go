package redisstore_test

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
	redisstore "github.com/session2/session2/stores/redis"
	"github.com/session2/session2/storetest"
)

// prefix returns a prefix of keys for the data that dir names.
func prefix(dir string) string { return fmt.Sprintf("t%x:", sha256.Sum256([]byte(dir)))[:24] }

// connect returns a client of the server at a URL. It ends with the test.
func connect(t testing.TB, url string) *redis.Client {
	t.Helper()
	o, err := redis.ParseURL(url)
	testsite.Must(t, err)
	o.ContextTimeoutEnabled = true
	c := redis.NewClient(o)
	t.Cleanup(func() { c.Close() })
	return c
}

// open returns a store that is set up.
func open(t testing.TB, c redis.UniversalClient, opts redisstore.Options) *redisstore.Store {
	t.Helper()
	if opts.Timeout == 0 {
		opts.Timeout = time.Minute // a busy machine is no failure
	}
	s, err := redisstore.NewStore(c, &opts)
	testsite.Must(t, err)
	testsite.Must(t, s.Setup(t.Context()))
	return s
}

func TestStore(t *testing.T) {
	t.Parallel()
	url := testdb.Redis(t)
	storetest.Run(t, func(t testing.TB, dir string) session2.Store {
		return open(t, connect(t, url), redisstore.Options{Prefix: prefix(dir)})
	}, &storetest.Options{Corrupt: func(t testing.TB, dir string, id session2.ID) {
		testsite.Must(t, connect(t, url).Set(t.Context(), key(prefix(dir), id), "damage", 0).Err())
	}})
}

// key is the key of a record, as docs/STORES.md has it.
func key(prefix string, id session2.ID) string {
	return fmt.Sprintf("%s{%02x}:%v", prefix, id[0]%64, id)
}
