package redisstore_test

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/session2/session2/internal/testdb"
	"github.com/session2/session2/internal/testsite"
)

// TestMain stops the servers when the tests have run, and finds that no test leaves a
// goroutine behind. What go-redis has to say of connections that tests break, it says to
// nobody.
func TestMain(m *testing.M) {
	redis.SetLogger(silent{})
	testsite.Exit(testdb.Run(m))
}

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}
