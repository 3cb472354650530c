package command

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/session2/session2"
)

// runWith runs a command line in a program that knows the schemes.
func runWith(t testing.TB, schemes map[string]session2.OpenFunc, args ...string) ran {
	t.Helper()
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), args, schemes, &stdout, &stderr)
	return ran{t, args, status, stdout.String(), stderr.String()}
}

// TestSchemesOfOnesOwn uses a store whose scheme the program gave to Main, wherever a
// command line may name one.
func TestSchemesOfOnesOwn(t *testing.T) {
	dir := t.TempDir()
	var opened []string
	schemes := map[string]session2.OpenFunc{"own": func(ctx context.Context, url string) (session2.Store, error) {
		opened = append(opened, url)
		return session2.OpenBoltStore(filepath.Join(dir, filepath.Base(url)), nil)
	}}
	file := "own:" + "///tmp/sessions"
	runWith(t, schemes, "setup", file).want(0).says(file + " is ready")
	with(t, "bolt:"+dir+"/sessions", func(store session2.Store) { seed(t, store, "alice", 2) })
	runWith(t, schemes, "list", file).want(0).says("alice")
	runWith(t, schemes, "delete-user", file, "alice").want(0).says("deleted 2")
	runWith(t, schemes, "delete-user", file).want(exitUsage).says("delete-user needs one user")
	runWith(t, schemes, "delete-user", "own").want(exitUsage).says("no store is named")
	runWith(t, schemes, "copy", file, "own:other").want(0)

	t.Setenv("SESSION2_PASSWORD", "hunter2")
	opened = nil
	runWith(t, schemes, "list", file).want(0)
	runWith(t, schemes, "list", "own:sessions").want(0)
	runWith(t, schemes, "list", "own://app@host/sessions").want(0)
	if want := file + " own:sessions own://app:hunter2@host/sessions"; strings.Join(opened, " ") != want {
		t.Errorf("got the URLs %q, want %q", opened, want)
	}
	for _, url := range []string{"own:u:hunter2@h/sessions", "own:/u:hunter2@h/sessions", "own://u:hunter2@h/sessions"} {
		runWith(t, schemes, "setup", url).hides("hunter2")
	}
	runWith(t, nil, "list", file).want(exitFailed).says("no store has the URL scheme")
	schemes["bolt"] = schemes["own"]
	runWith(t, schemes, "list", file).want(exitFailed).says("built in")
}
