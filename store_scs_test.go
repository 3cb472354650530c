package session2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/storetest"
)

// scsMap is the least that a store for scs is. It forgets what has expired, and keeps and
// hands out the caller's bytes.
type scsMap struct {
	mu sync.Mutex
	m  map[string]scsItem
}

type scsItem struct {
	b      []byte
	expiry time.Time
}

func newSCSMap() *scsMap { return &scsMap{m: make(map[string]scsItem)} }

func (s *scsMap) Find(token string) ([]byte, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	item, found := s.m[token]
	return item.b, found && time.Now().Before(item.expiry), nil
}

func (s *scsMap) Commit(token string, b []byte, expiry time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[token] = scsItem{b, expiry}
	return nil
}

func (s *scsMap) Delete(token string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, token)
	return nil
}

// scsMapAll can list, and takes a context.
type scsMapAll struct{ *scsMap }

var errPlain = errors.New("called without the context")

func (s scsMapAll) Find(string) ([]byte, bool, error)      { return nil, false, errPlain }
func (s scsMapAll) Commit(string, []byte, time.Time) error { return errPlain }
func (s scsMapAll) Delete(string) error                    { return errPlain }

func (s scsMapAll) FindCtx(ctx context.Context, token string) ([]byte, bool, error) {
	b, found, err := s.scsMap.Find(token)
	return b, found, errors.Join(err, ctx.Err())
}

func (s scsMapAll) CommitCtx(ctx context.Context, token string, b []byte, expiry time.Time) error {
	return errors.Join(s.scsMap.Commit(token, b, expiry), ctx.Err())
}

func (s scsMapAll) DeleteCtx(ctx context.Context, token string) error {
	return errors.Join(s.scsMap.Delete(token), ctx.Err())
}

func (s scsMapAll) AllCtx(ctx context.Context) (map[string][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string][]byte)
	for token, item := range maps.All(s.m) {
		all[token] = bytes.Clone(item.b)
	}
	return all, ctx.Err()
}

func TestFromSCSConformance(t *testing.T) {
	t.Run("plain", func(t *testing.T) {
		storetest.Run(t, func(testing.TB, string) session2.Store { return session2.FromSCS(newSCSMap()) }, nil)
	})
	t.Run("with contexts", func(t *testing.T) {
		storetest.Run(t, func(testing.TB, string) session2.Store {
			return session2.FromSCS(scsMapAll{newSCSMap()})
		}, nil)
	})
}

// What it cannot promise it does not claim, and what it cannot do it says.
func TestFromSCSPromisesLittle(t *testing.T) {
	store := session2.FromSCS(newSCSMap())
	for name, need := range map[string]session2.Capabilities{
		"processes": {MultiprocessSafe: true}, "machines": {MultihostSafe: true}, "durable": {Durable: true},
	} {
		if _, err := session2.NewManager(store, session2.Config{Require: need}); err == nil {
			t.Errorf("%s: NewManager took it", name)
		}
	}
	if _, err := session2.NewManager(store, session2.Config{Require: session2.Capabilities{ThreadSafe: true}}); err != nil {
		t.Error(err)
	}
	if _, err := store.(session2.DeleteOldStore).DeleteOld(t.Context(), 0); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("DeleteOld: got %v, want %v", err, errors.ErrUnsupported)
	}
}

// scs's own sessions in the same store are not touched, nor is another session's record
// under an ID of ours taken for one.
func TestFromSCSBesideSCS(t *testing.T) {
	all := scsMapAll{newSCSMap()}
	store := session2.FromSCS(all)
	rec, far := houseRecord(1, "alice"), time.Now().Add(time.Hour)
	for _, err := range []error{
		all.scsMap.Commit("mXsSp5kqIj1cE1gFv3qYzvY5nJ5W7d9mYJ4oGQ4a0bI", []byte("scs's"), far),
		store.Save(t.Context(), rec, 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	other := session2.ID{9}
	b, _, _ := all.scsMap.Find(rec.ID.String())
	all.scsMap.Commit(other.String(), b, far)
	if _, err := store.Load(t.Context(), other); !errors.Is(err, session2.ErrCorrupt) {
		t.Errorf("Load of another session's record: got %v, want %v", err, session2.ErrCorrupt)
	}
	if err := store.Delete(t.Context(), other); err != nil {
		t.Error(err)
	}
	n, err := store.(session2.DeleteOldStore).DeleteOld(t.Context(), 0)
	if n != 1 || err != nil {
		t.Errorf("DeleteOld: got %d, %v, want our record alone", n, err)
	}
	if len(all.m) != 1 {
		t.Errorf("%d sessions are left, want scs's own", len(all.m))
	}
}

func ExampleFromSCS() {
	store := session2.FromSCS(newSCSMap()) // or postgresstore.New(db), for example
	_, err := session2.NewManager(store, session2.Config{Require: session2.Capabilities{MultiprocessSafe: true}})
	fmt.Println(err)
	// Output: session2: Config.Require.MultiprocessSafe: the store is not
}
