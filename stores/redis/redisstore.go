// Package redisstore keeps sessions in Redis or Valkey, alone, behind Sentinel or as a
// Cluster, by github.com/redis/go-redis/v9. It is a module of its own, so that nobody else
// depends on that client:
//
//	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379"})
//	store, err := redisstore.NewStore(client, nil)
//	...
//	err = store.Setup(ctx)
package redisstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/session2/session2"
)

// Options are the options of [NewStore]. The zero value is the default.
type Options struct {
	// Prefix begins the names of all keys, by default "session2:". It may be 100 bytes
	// long and has no braces. Stores with different prefixes share a server. No prefix
	// may begin another one's.
	Prefix string

	// Timeout bounds each call, with its retries and its wait for a free connection. By
	// default 5 seconds; negative: none but the caller's context.
	Timeout time.Duration

	// DeclareDurable is the operator's word that no acknowledged write is ever lost, for
	// servers that Setup cannot ask, or not about all that matters: those that forbid
	// CONFIG, that keep their data by other means than an append-only file, or that have
	// replicas which only hold every acknowledged write. Setup fails if it finds that the
	// server does not write to a disk before it answers.
	DeclareDurable bool
}

const (
	defaultPrefix  = "session2:"
	maxPrefix      = 100
	defaultTimeout = 5 * time.Second
)

// fill returns the options with their defaults, and what is wrong with them.
func (o *Options) fill() (Options, error) {
	var f Options
	if o != nil {
		f = *o
	}
	if f.Prefix == "" {
		f.Prefix = defaultPrefix
	}
	if f.Timeout == 0 {
		f.Timeout = defaultTimeout
	}
	if len(f.Prefix) > maxPrefix || strings.ContainsAny(f.Prefix, "{}") {
		return f, fmt.Errorf("session2: a prefix of keys has at most %d bytes and no braces", maxPrefix)
	}
	return f, nil
}

// Store keeps records in Redis 6.2 and later, or Valkey. Load, Save, Delete, Has and
// Touch cost one round trip each; Save, Delete and Touch are a script, which is one
// atomic step. Goroutines, processes and machines may share the data.
//
// Keys are in 64 buckets by the session's ID. A bucket's keys have one hash tag: its
// records, and three sorted sets that find them by user, by last access and by expiry.
// So each script has its keys in one slot of a Cluster, and changes a record together
// with its indexes. An index is a hint all the same: every call looks at the record
// before it believes it.
//
// No key has a time to live: a session ends by the manager's clock, and DeleteOld
// removes it.
//
// Where a connection breaks, or the server is no master any more, the store asks again,
// as often and with such pauses as the options of the client say. A Save whose answer
// was lost is recognised by its version, and a create is not carried out twice. Where
// the context ended while the server had a script, or the answer was lost for good, the
// error of Delete and Touch matches [session2.ErrUncertain]: it may have been done. So
// it is with DeleteOld and DeleteUser: their number may then be too small.
//
// Capabilities promise Durable only where Setup has seen, on each master, an
// append-only file with appendfsync always and no replica, or where
// [Options].DeclareDurable says so. A failover to a replica may lose acknowledged
// writes: replication is asynchronous.
type Store struct {
	client  redis.UniversalClient
	opts    Options
	owned   io.Closer // what Close closes; nil: nothing
	durable atomic.Bool
	closed  atomic.Bool
}

var (
	_ session2.Store          = (*Store)(nil)
	_ session2.SetupStore     = (*Store)(nil)
	_ session2.DeleteOldStore = (*Store)(nil)
	_ session2.IterStore      = (*Store)(nil)
	_ session2.TouchStore     = (*Store)(nil)
	_ session2.UserStore      = (*Store)(nil)
	_ session2.CapableStore   = (*Store)(nil)
	_ io.Closer               = (*Store)(nil)
)

// NewStore returns a store on client, which stays the caller's to close; nil options
// are the defaults. It does not call the server: Setup does. A client of a Cluster that
// reads from replicas is refused, for these lag behind: a logout would be seen late.
// Set ContextTimeoutEnabled in the client's options, so that a call to a server that
// hangs gives its connection back when its time is over.
func NewStore(client redis.UniversalClient, opts *Options) (*Store, error) {
	if client == nil {
		return nil, errors.New("session2: a store needs a client, and this one is nil")
	}
	if c, ok := client.(*redis.ClusterClient); ok && c.Options().ReadOnly {
		return nil, errors.New("session2: the client reads from replicas (ReadOnly, RouteByLatency or RouteRandomly), " +
			"which may not know yet that a session has ended")
	}
	o, err := opts.fill()
	if err != nil {
		return nil, err
	}
	s := &Store{client: client, opts: o}
	s.durable.Store(o.DeclareDurable)
	return s, nil
}

// Capabilities returns what the store promises. Durable is false before Setup, unless it was
// declared.
func (s *Store) Capabilities() session2.Capabilities {
	return session2.Capabilities{
		ThreadSafe: true, MultiprocessSafe: true, MultihostSafe: true, Durable: s.durable.Load(),
	}
}

// Close ends the use of the store. Later calls return an error matching [io/fs.ErrClosed], but
// for Close itself, which may be called again. The client of NewStore stays open; a store of
// [Open] closes its own.
func (s *Store) Close() error {
	if s.closed.Swap(true) || s.owned == nil {
		return nil
	}
	return failed("close", s.owned.Close())
}

// Load returns the record, or an error matching [session2.ErrNotFound], or
// [session2.ErrCorrupt] if it cannot be read. The caller owns its Data.
func (s *Store) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	value, err := call(ctx, s, func(ctx context.Context) ([]byte, error) {
		return s.client.Get(ctx, s.key(id)).Bytes()
	})
	var rec session2.Record
	if err = absent(err); err == nil {
		rec, err = decode(id, value)
	}
	return rec, opError("load", id, err)
}

// Has reports whether there is a record, without reading it.
func (s *Store) Has(ctx context.Context, id session2.ID) (bool, error) {
	n, err := call(ctx, s, func(ctx context.Context) (int64, error) {
		return s.client.Exists(ctx, s.key(id)).Result()
	})
	return n > 0, opError("has", id, explain(err))
}

// Save replaces the record if its version is still prev, or creates it for a zero prev. It
// returns [session2.ErrConflict], [session2.ErrNotFound] and [session2.ErrUncertain] as
// [session2.Store] says, and [session2.ErrCorrupt] if the stored record cannot be read and so
// not be compared. The store keeps no reference to the Data.
func (s *Store) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	value, err := encode(&rec)
	if err != nil {
		return opError("save", rec.ID, err)
	}
	before := ""
	if prev != 0 {
		before = string(bigEndian(uint64(prev)))
	}
	o := s.run(ctx, saveScript, s.keys(rec.ID), string(rec.ID[:]), before, value,
		score(rec.Accessed), score(rec.Expires))
	return opError("save", rec.ID, savedBy(o))
}

// savedBy says what became of a Save.
func savedBy(o outcome) error {
	switch err := o.failure(); {
	case err != nil:
		return err
	case o.n == saveWritten || o.n == saveLanded:
		return nil
	case o.n == saveCorrupt:
		return session2.ErrCorrupt
	case o.n == saveNotFound && o.lost: // written, and deleted since; or deleted
		return uncertain(session2.ErrNotFound)
	case o.n == saveNotFound:
		return session2.ErrNotFound
	case o.n == saveConflict && !o.lost:
		return session2.ErrConflict
	}
	return session2.ErrUncertain
}

// Delete removes the record, whatever its version. An absent one is no error.
func (s *Store) Delete(ctx context.Context, id session2.ID) error {
	return opError("delete", id, s.run(ctx, deleteScript, s.keys(id), string(id[:])).failure())
}

// Touch moves Accessed and Expires forward, each by itself and never back. An absent record is
// no error. It writes no index.
func (s *Store) Touch(ctx context.Context, id session2.ID, accessed, expires time.Time) error {
	o := s.run(ctx, touchScript, []string{s.key(id)}, instant(accessed), instant(expires))
	return opError("touch", id, o.failure())
}
