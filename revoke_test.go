package session2_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// forwarder is a wrapper that forwards an index of users which is not there.
type forwarder struct{ *session2.MemoryStore }

func (forwarder) IterUser(context.Context, string) iter.Seq2[session2.Record, error] {
	return func(yield func(session2.Record, error) bool) {
		yield(session2.Record{}, fmt.Errorf("iter user: %w", errors.ErrUnsupported))
	}
}

func TestRevokeUserWithoutAnIndexOfUsers(t *testing.T) {
	st := testsite.NewSite(t, forwarder{session2.NewMemoryStore()}, session2.Config{})
	a, bob := st.Login("alice"), st.Login("bob")
	if n, err := st.M.RevokeUser(t.Context(), "alice"); n != 1 || err != nil {
		t.Errorf("RevokeUser = %d, %v; want 1, nil: the store can Iter", n, err)
	}
	if st.UserOf(a) != "" || st.UserOf(bob) != "bob" {
		t.Error("RevokeUser ended the wrong sessions")
	}
}

// unsureStore deletes a user's sessions, and has lost count of them.
type unsureStore struct{ *session2.MemoryStore }

func (u unsureStore) DeleteUser(ctx context.Context, user string, keep ...session2.ID) (int, error) {
	_, err := u.MemoryStore.DeleteUser(ctx, user, keep...)
	return 0, errors.Join(session2.ErrUncertain, err)
}

// brokenOffStore is cancelled when it has deleted one session of a user, and does
// not know of it.
type brokenOffStore struct{ *session2.MemoryStore }

func (b brokenOffStore) DeleteUser(ctx context.Context, user string, _ ...session2.ID) (int, error) {
	for rec, err := range b.MemoryStore.IterUser(ctx, user) {
		return 0, errors.Join(session2.ErrUncertain, context.Canceled, err, b.Delete(ctx, rec.ID))
	}
	return 0, nil
}

// Of a deletion that was called off, the sessions that have ended are events, and
// those that live are not.
func TestRevokeUserCalledOff(t *testing.T) {
	st := testsite.NewSite(t, brokenOffStore{session2.NewMemoryStore()}, session2.Config{})
	first, second := st.Login("alice"), st.Login("alice")
	if _, err := st.M.RevokeUser(t.Context(), "alice"); !errors.Is(err, session2.ErrUncertain) {
		t.Errorf("RevokeUser = %v, want ErrUncertain", err)
	}
	if n := st.Events.Count(session2.EventRevoked); n != 1 || (st.UserOf(first) == "") == (st.UserOf(second) == "") {
		t.Errorf("%d revoked events, users %q and %q; want 1 and one of them", n, st.UserOf(first), st.UserOf(second))
	}
}

// A store that has lost count has ended the sessions all the same: each is an event.
func TestRevokeUserOfAnUncertainNumber(t *testing.T) {
	st := testsite.NewSite(t, unsureStore{session2.NewMemoryStore()}, session2.Config{})
	b := st.Login("alice")
	if _, err := st.M.RevokeUser(t.Context(), "alice"); !errors.Is(err, session2.ErrUncertain) {
		t.Errorf("RevokeUser = %v, want ErrUncertain", err)
	}
	if n := st.Events.Count(session2.EventRevoked); n != 1 || st.UserOf(b) != "" {
		t.Errorf("%d revoked events, user %q; want 1 and nobody", n, st.UserOf(b))
	}
}

// lateStore lets a session begin between the listing of a user's sessions and
// their deletion.
type lateStore struct {
	*session2.MemoryStore
	meanwhile func()
}

func (l *lateStore) DeleteUser(ctx context.Context, user string, keep ...session2.ID) (int, error) {
	l.meanwhile()
	return l.MemoryStore.DeleteUser(ctx, user, keep...)
}

// As many events as sessions that ended, those included that began meanwhile.
func TestRevokeUserBesideALogin(t *testing.T) {
	store := &lateStore{MemoryStore: session2.NewMemoryStore()}
	st := testsite.NewSite(t, store, session2.Config{})
	st.Login("alice")
	store.meanwhile = func() { st.Login("alice"); st.Login("alice") }
	if n, err := st.M.RevokeUser(t.Context(), "alice"); n != 3 || err != nil {
		t.Errorf("RevokeUser = %d, %v; want 3, nil", n, err)
	}
	if n := st.Events.Count(session2.EventRevoked); n != 3 {
		t.Errorf("%d revoked events, want 3", n)
	}
}
