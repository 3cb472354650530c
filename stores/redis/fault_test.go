package redisstore_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/session2/session2"
	redisstore "github.com/session2/session2/stores/redis"
)

func contains(err error, part string) bool { return strings.Contains(fmt.Sprint(err), part) }

// said is an error that a server answered.
type said string

func (s said) Error() string { return string(s) }
func (said) RedisError()     {}

// TestAnswers tells what errors of servers mean: a sentinel, or nil for what passes and what
// says nothing of the outcome.
func TestAnswers(t *testing.T) {
	for _, a := range []struct {
		err  error
		want error
	}{
		{said("NOAUTH Authentication required."), fs.ErrPermission},
		{said("WRONGPASS invalid username-password pair or user is disabled."), fs.ErrPermission},
		{said("NOPERM this user has no permissions to run the 'set' command"), fs.ErrPermission},
		{said("READONLY You can't write against a read only replica."), fs.ErrPermission},
		{said("ERR Error running script (call to f_ab): @user_script:9: -READONLY You can't write"), fs.ErrPermission},
		{said("MISCONF Redis is configured to save RDB snapshots"), fs.ErrPermission},
		{said("ERR unknown command 'EVALSHA', with args beginning with: "), fs.ErrPermission},
		{said("CROSSSLOT Keys in request don't hash to the same slot"), fs.ErrPermission},
		{said("OOM command not allowed when used memory > 'maxmemory'."), syscall.ENOSPC},
		{said("ERR Error running script (call to f_ab): @user_script:9: -OOM command not allowed"), syscall.ENOSPC},
		{said("ERR string exceeds maximum allowed size (proto-max-bulk-len)"), session2.ErrTooLarge},
		{fmt.Errorf("in a pool: %w", said("WRONGPASS invalid")), fs.ErrPermission},
		{redis.ErrClosed, fs.ErrClosed},
		{said("LOADING Redis is loading the dataset in memory"), nil},
		{said("CLUSTERDOWN The cluster is down"), nil},
		{said("TRYAGAIN Multiple keys request during rehashing of slot"), nil},
		{said("MASTERDOWN Link with MASTER is down"), nil},
		{said("NOREPLICAS Not enough good replicas to write."), nil},
		{said("BUSY Redis is busy running a script."), nil},
		{said("ERR max number of clients reached"), nil},
		{said("ERR upstream failure"), nil},
		{errors.New("OOM that no server said"), nil},
	} {
		got := redisstore.Explain(a.err)
		for _, no := range []error{fs.ErrPermission, fs.ErrClosed, syscall.ENOSPC, session2.ErrTooLarge} {
			if errors.Is(got, no) != (no == a.want) {
				t.Errorf("%v: got %v for %v", a.err, errors.Is(got, no), no)
			}
		}
		if !errors.Is(got, a.err) {
			t.Errorf("%v: got %v, which hides it", a.err, got)
		}
	}
}
