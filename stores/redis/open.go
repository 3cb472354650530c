package redisstore

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/session2/session2"
)

// errURL repeats nothing of what go-redis says: that may hold a password.
var errURL = errors.New("session2: open: go-redis refuses the URL or one of its options")

// Open is the [session2.OpenFunc] of the schemes redis and rediss, the latter over TLS, for
// [session2.OpenWith] and for the command line:
//
//	redis://user:password@host:6379/0
//	rediss://user:password@host:6379?cluster=true&addr=host2:6379
//
// Its options are prefix, timeout and declaredurable, as in [Options]; cluster, for a Redis
// Cluster, which has no database number; and those of go-redis, such as pool_size. A server is
// not called yet. The store owns its client: close it.
//
// For Sentinel, or for settings that no URL has, make a client and call [NewStore].
func Open(ctx context.Context, rawURL string) (session2.Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errURL
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil || u.Hostname() == "" || u.Fragment != "" {
		return nil, errURL
	}
	var opts Options
	cluster, err := takeOptions(query, &opts)
	if err != nil {
		return nil, err
	}
	u.RawQuery = query.Encode()
	client, err := newClient(u.String(), cluster)
	if err != nil {
		return nil, errURL
	}
	s, err := NewStore(client, &opts)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	s.owned = client
	return s, nil
}

// newClient makes a client that heeds contexts.
func newClient(rawURL string, cluster bool) (redis.UniversalClient, error) {
	if cluster {
		o, err := redis.ParseClusterURL(rawURL)
		if err != nil {
			return nil, err
		}
		o.ContextTimeoutEnabled = true
		return redis.NewClusterClient(o), nil
	}
	o, err := redis.ParseURL(rawURL)
	if err != nil {
		return nil, err
	}
	o.ContextTimeoutEnabled = true
	return redis.NewClient(o), nil
}

// takeOptions takes the options that are not go-redis's.
func takeOptions(query url.Values, o *Options) (cluster bool, err error) {
	var errs []error
	take := func(name string, parse func(string) error) {
		values, ok := query[name]
		delete(query, name)
		if ok && (len(values) > 1 || parse(values[0]) != nil) {
			errs = append(errs, fmt.Errorf("session2: open: option %s is malformed, or given more than once", name))
		}
	}
	take("prefix", func(s string) error { o.Prefix = s; return nil })
	take("timeout", func(s string) (err error) { o.Timeout, err = time.ParseDuration(s); return err })
	take("declaredurable", func(s string) (err error) { o.DeclareDurable, err = strconv.ParseBool(s); return err })
	take("cluster", func(s string) (err error) { cluster, err = strconv.ParseBool(s); return err })
	return cluster, errors.Join(errs...)
}
