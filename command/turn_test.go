package command

import (
	"context"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// killed is a store whose process dies as it saves a session of a user's.
type killed struct{ *session2.FileStore }

func (k killed) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	if rec.User != "" {
		panic("killed")
	}
	return k.FileStore.Save(ctx, rec, prev)
}

// What a login under Config.MaxPerUser leaves behind when it is killed is a record like
// any other here, and no session of the user's.
func TestATurnIsNoSessionOfTheUser(t *testing.T) {
	url := stores[0].url(t)
	store, err := session2.Open(t.Context(), url)
	testsite.Must(t, err)
	defer session2.Close(store)
	login := func(store session2.Store) {
		m, err := session2.NewManager(store, session2.Config{MaxPerUser: 5})
		testsite.Must(t, err)
		s, err := m.Open(t.Context(), "")
		testsite.Must(t, err)
		s.SetUser("alice")
		testsite.Must(t, s.Commit(t.Context()))
	}
	login(store)
	func() {
		defer func() { recover() }()
		login(killed{store.(*session2.FileStore)})
	}()
	session(t, "check", "-json", url).want(0).number("records", 2)
	if n := len(session(t, "list", "-json", "-user", "alice", url).want(0).objects()); n != 1 {
		t.Errorf("alice has %d sessions, want 1", n)
	}
	for _, rec := range session(t, "list", "-json", url).want(0).objects() {
		session(t, "show", url, rec["id"].(string)).want(0)
	}
	session(t, "delete-user", url, "alice").want(0)
	session(t, "check", "-json", url).want(0).number("records", 1)
}
