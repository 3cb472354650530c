package command

import (
	"path/filepath"
	"testing"

	"github.com/session2/session2"
)

// TestSealed looks at sessions that only their clients can read, and copies them.
func TestSealed(t *testing.T) {
	dir := t.TempDir()
	from, to := "bolt:"+filepath.Join(dir, "from.db"), "gob:"+filepath.Join(dir, "to.gob")
	var id, token string
	with(t, from, func(store session2.Store) {
		m, err := session2.NewManager(store, session2.Config{Sealed: true})
		must(t, err)
		s, err := m.Open(t.Context(), "")
		must(t, err)
		s.SetUser("alice")
		s.Set("color", secretValue)
		s.Flash(secretValue)
		s.FormToken()
		must(t, s.Commit(t.Context()))
		id, token = s.ID().String(), s.Token()
	})
	session(t, "list", from).want(0).says("alice").says(id)
	if listed := session(t, "list", "-json", from).want(0).object(); listed["sealed"] != true {
		t.Errorf("list -json: %v", listed)
	}
	session(t, "list", "-values", from).want(0).says(id).hides("color", secretValue)
	session(t, "show", from, id).want(0).says("alice").says("\nsealed ").hides("color", secretValue, "forms")
	shown := session(t, "show", "-json", "-values", from, id).want(0).hides("color", secretValue).object()
	if shown["sealed"] != true || shown["user"] != "alice" {
		t.Errorf("show -json: %v", shown)
	}
	session(t, "check", "-json", from).want(0).number("records", 1)
	session(t, "stats", "-json", from).want(0).number("signed_in", 1).number("corrupt", 0)
	session(t, "setup", to).want(0)
	session(t, "copy", "-json", from, to).want(0).number("copied", 1).number("verified", 1)
	with(t, to, func(store session2.Store) {
		m, err := session2.NewManager(store, session2.Config{Sealed: true})
		must(t, err)
		s, err := m.Open(t.Context(), token)
		must(t, err)
		if s.Get("color") != secretValue || s.User() != "alice" {
			t.Errorf("the copy holds %v of %q", s.Get("color"), s.User())
		}
	})
	session(t, "delete-user", from, "alice").want(0)
}
