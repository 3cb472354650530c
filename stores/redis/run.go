package redisstore

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// attempts is an argument of a script that says how often it was sent and may have been
// carried out. A client of a Cluster asks again by itself where a connection breaks, and tells
// nobody; but it writes each argument anew.
type attempts struct{ n atomic.Int64 }

// MarshalBinary returns the number of this attempt.
func (a *attempts) MarshalBinary() ([]byte, error) {
	return strconv.AppendInt(nil, a.n.Add(1), 10), nil
}

// outcome is what became of a script.
type outcome struct {
	n    int64   // its answer, if that is a number
	list []int64 // or else
	err  error   // as explain has it
	lost bool    // an attempt was sent whose answer is not known
}

// run runs a script.
func (s *Store) run(ctx context.Context, script *script, keys []string, args ...any) outcome {
	sent := new(attempts)
	args = append([]any{sent}, args...)
	answer, err := call(ctx, s, func(ctx context.Context) (any, error) {
		return s.retry(ctx, sent, func() (any, error) { return s.eval(ctx, sent, script, keys, args) })
	})
	var abandoned *gaveUp
	o := outcome{err: explain(err), lost: sent.n.Load() > 0 || errors.As(err, &abandoned)}
	switch v := answer.(type) {
	case int64:
		o.n = v
	case []any:
		for _, each := range v {
			n, _ := each.(int64)
			o.list = append(o.list, n)
		}
	}
	return o
}

// retry calls f again while its failure is one that passes, as often as the options of the
// client say. It does so in the client's place, which does not tell an attempt that was refused
// from one whose answer was lost. A client of a Cluster, which finds out about a failover
// meanwhile, and of a Ring do so by themselves.
func (s *Store) retry(ctx context.Context, sent *attempts, f func() (any, error)) (any, error) {
	c, ok := s.client.(*redis.Client)
	for i := 0; ; i++ {
		before := sent.n.Load()
		v, err := f()
		if err == nil || answered(err) {
			sent.n.Store(max(before, sent.n.Load()-1)) // the answer to that one is known
		}
		if !ok || i >= c.Options().MaxRetries || !passes(err) {
			return v, err
		}
		o := c.Options()
		wait := min(o.MaxRetryBackoff, o.MinRetryBackoff<<min(i, 16))
		if ended := pause(ctx, wait/2+rand.N(wait/2+1)); ended != nil {
			return v, err
		}
	}
}

// passes reports whether to ask again: the connection broke, or the server is not ready, or no
// master any more.
func passes(err error) bool {
	if err == nil || errors.Is(err, redis.ErrClosed) {
		return false
	}
	text, ok := answer(err)
	if !ok {
		return !errors.Is(err, redis.Nil)
	}
	for _, begins := range []string{
		"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "BUSY ", "ERR max number of clients",
	} {
		if strings.HasPrefix(text, begins) {
			return true
		}
	}
	return false
}

// eval makes one attempt: by the script's hash, and in full where the server has forgotten it.
func (s *Store) eval(ctx context.Context, sent *attempts, script *script, keys []string, args []any) (any, error) {
	before := sent.n.Load()
	v, err := s.do(ctx, "evalsha", script.hash, keys, args)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		sent.n.Store(before)
		return s.do(ctx, "eval", script.source, keys, args)
	}
	return v, err
}

func (s *Store) do(ctx context.Context, name, what string, keys []string, args []any) (any, error) {
	all := []any{name, what, len(keys)}
	for _, key := range keys {
		all = append(all, key)
	}
	cmd := redis.NewCmd(ctx, append(all, args...)...)
	cmd.SetFirstKeyPos(3)
	if _, ok := s.client.(*redis.Client); ok {
		s.client.Process(ctx, once{cmd})
	} else {
		s.client.Process(ctx, cmd)
	}
	return cmd.Result()
}

// once is a command that the client does not send again by itself.
type once struct{ *redis.Cmd }

// NoRetry is what a client asks.
func (once) NoRetry() bool { return true }
