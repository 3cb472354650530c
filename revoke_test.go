package session2_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"

	"github.com/session2/session2"
)

// forwarder is a wrapper that forwards an index of users which is not there.
type forwarder struct{ *session2.MemoryStore }

func (forwarder) IterUser(context.Context, string) iter.Seq2[session2.Record, error] {
	return func(yield func(session2.Record, error) bool) {
		yield(session2.Record{}, fmt.Errorf("iter user: %w", errors.ErrUnsupported))
	}
}

func TestRevokeUserWithoutAnIndexOfUsers(t *testing.T) {
	st := newSite(t, forwarder{session2.NewMemoryStore()}, session2.Config{})
	a, bob := st.login("alice"), st.login("bob")
	if n, err := st.m.RevokeUser(t.Context(), "alice"); n != 1 || err != nil {
		t.Errorf("RevokeUser = %d, %v; want 1, nil: the store can Iter", n, err)
	}
	if st.userOf(a) != "" || st.userOf(bob) != "bob" {
		t.Error("RevokeUser ended the wrong sessions")
	}
}
