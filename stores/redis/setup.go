package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/session2/session2"
)

// Setup checks what must be true of each master, and changes nothing: its version is 6.2 or
// later, it is no replica, it evicts no keys of the store (maxmemory-policy is noeviction, or
// one of those named volatile, for no key here has a time to live), and it runs scripts. It
// also finds out whether [session2.Capabilities] may promise Durable.
func (s *Store) Setup(ctx context.Context) error {
	_, err := call(ctx, s, func(ctx context.Context) (struct{}, error) { return struct{}{}, s.setup(ctx) })
	if err == nil { // of a record that is not there, or is later than that
		err = s.Touch(ctx, session2.ID{}, time.Time{}, time.Time{})
	}
	return failed("set up", explain(err))
}

func (s *Store) setup(ctx context.Context) error {
	var mu sync.Mutex
	durable, servers := true, 0
	err := s.eachServer(ctx, func(ctx context.Context, c *redis.Client) error {
		st, err := stateOf(ctx, c)
		if err == nil {
			err = st.check(s.opts.DeclareDurable)
		}
		mu.Lock()
		defer mu.Unlock()
		servers++
		durable = durable && st.durable()
		return err
	})
	if err != nil {
		return err
	}
	s.durable.Store(s.opts.DeclareDurable || durable && servers > 0)
	return nil
}

// eachServer calls f for each master.
func (s *Store) eachServer(ctx context.Context, f func(context.Context, *redis.Client) error) error {
	switch c := s.client.(type) {
	case *redis.Client:
		return f(ctx, c)
	case *redis.ClusterClient:
		return c.ForEachMaster(ctx, f)
	case *redis.Ring:
		return c.ForEachShard(ctx, f)
	}
	return errors.New("the client is none of go-redis's own, and Setup does not know how to ask its servers")
}

// state is what a server says of itself.
type state struct {
	version    string
	role       string
	policy     string // maxmemory-policy
	replicas   string // how many are connected
	appendOnly string // "1" if it keeps a file
	fsync      string // appendfsync; "" if it does not say
	rewrite    string // no-appendfsync-on-rewrite, likewise
}

// stateOf asks a server.
func stateOf(ctx context.Context, c *redis.Client) (st state, err error) {
	info, err := c.Info(ctx).Result()
	if err != nil {
		return st, err
	}
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "redis_version": // Valkey says so, too, which one it is like
			st.version = value
		case "role":
			st.role = value
		case "maxmemory_policy":
			st.policy = value
		case "connected_slaves":
			st.replicas = value
		case "aof_enabled":
			st.appendOnly = value
		}
	}
	st.fsync, err = setting(ctx, c, "appendfsync")
	if err == nil {
		st.rewrite, err = setting(ctx, c, "no-appendfsync-on-rewrite")
	}
	return st, err
}

// setting returns a setting, or "" where the server does not tell.
func setting(ctx context.Context, c *redis.Client, name string) (string, error) {
	values, err := c.ConfigGet(ctx, name).Result()
	if err != nil && answered(err) {
		return "", nil // forbidden
	}
	return values[name], err
}

// check returns what speaks against keeping sessions in the server.
func (st state) check(declaredDurable bool) error {
	var major, minor int
	fmt.Sscanf(st.version, "%d.%d", &major, &minor)
	var errs []error
	if st.version != "" && (major < 6 || major == 6 && minor < 2) {
		errs = append(errs, fmt.Errorf("the server's version is %s, and 6.2 is needed", st.version))
	}
	if st.role == "slave" {
		errs = append(errs, errors.New("the server is a replica"))
	}
	if strings.HasPrefix(st.policy, "allkeys-") {
		errs = append(errs, fmt.Errorf("the server's maxmemory-policy is %s, by which it ends sessions in silence: "+
			"set it to noeviction", st.policy))
	}
	if declaredDurable && (st.appendOnly == "0" || st.fsync != "" && st.fsync != "always") {
		errs = append(errs, errors.New("the server was declared durable, and does not write to its disk before "+
			"it answers: it needs appendonly yes and appendfsync always"))
	}
	return errors.Join(errs...)
}

// durable reports whether the server is seen to keep all that it acknowledges. With a replica
// it is not: a failover may lose what that has not heard of.
func (st state) durable() bool {
	return st.appendOnly == "1" && st.fsync == "always" && st.rewrite == "no" && st.replicas == "0"
}
