package command

import (
	"bytes"
	"context"
	"iter"
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

// unmade is a store of one's own that is not there before Setup, as OpenFunc says.
type unmade struct {
	*session2.MemoryStore
	made bool
}

func (u *unmade) Setup(context.Context) error { u.made = true; return nil }
func (u *unmade) Close() error                { return nil }

func (u *unmade) Has(ctx context.Context, id session2.ID) (bool, error) {
	if !u.made {
		return false, session2.ErrNotSetUp
	}
	return u.MemoryStore.Has(ctx, id)
}

func (u *unmade) Iter(ctx context.Context) iter.Seq2[session2.Record, error] {
	if !u.made {
		return func(yield func(session2.Record, error) bool) { yield(session2.Record{}, session2.ErrNotSetUp) }
	}
	return u.MemoryStore.Iter(ctx)
}

// TestStoreOfOnesOwnThatIsNotThere mistypes the name of a store whose scheme is not built
// in: no command makes one in silence, and with -n none is made.
func TestStoreOfOnesOwnThatIsNotThere(t *testing.T) {
	opened := make(map[string]*unmade)
	schemes := map[string]session2.OpenFunc{"own": func(_ context.Context, url string) (session2.Store, error) {
		if opened[url] == nil {
			opened[url] = &unmade{MemoryStore: session2.NewMemoryStore()}
		}
		return opened[url], nil
	}}
	run := func(args ...string) ran { return runWith(t, schemes, args...) }
	absent := func(url string) {
		t.Helper()
		if opened[url] != nil && opened[url].made {
			t.Fatalf("%s is there", url)
		}
	}
	run("setup", "own:from").want(0).says("own:from is ready")
	seed(t, opened["own:from"], "alice", 2)
	run("setup", "-n", "own:from").want(0).says("own:from is ready")

	run("setup", "-n", "own:x").want(0).says("would make own:x").hides("ready")
	for _, command := range []string{"list", "stats", "check"} {
		run(command, "own:x").want(exitFailed).says("not set up")
	}
	run("copy", "own:x", "own:y").want(exitFailed).says("no store at own:x")
	absent("own:y")
	run("copy", "-n", "-json", "own:from", "own:x").want(0).number("copied", 2).hides("made one")
	absent("own:x")
	run("copy", "own:from", "own:x").want(0).says("no store at own:x: made one").says("copied 2")
	run("copy", "own:from", "own:x").want(0).hides("made one").says("already there 2")
}

// unindexed is a store that lists its sessions and has no index of users; before its Setup its
// Has finds nothing, and only Load says why.
type unindexed struct {
	store *session2.MemoryStore
	made  bool
}

func (p *unindexed) Setup(context.Context) error { p.made = true; return nil }

func (p *unindexed) Load(ctx context.Context, id session2.ID) (session2.Record, error) {
	if !p.made {
		return session2.Record{}, session2.ErrNotSetUp
	}
	return p.store.Load(ctx, id)
}

func (p *unindexed) Has(ctx context.Context, id session2.ID) (bool, error) {
	return p.store.Has(ctx, id)
}

func (p *unindexed) Save(ctx context.Context, rec session2.Record, prev session2.Version) error {
	return p.store.Save(ctx, rec, prev)
}

func (p *unindexed) Delete(ctx context.Context, id session2.ID) error { return p.store.Delete(ctx, id) }

func (p *unindexed) Iter(ctx context.Context) iter.Seq2[session2.Record, error] {
	return p.store.Iter(ctx)
}

func TestStoreWithoutAnIndexOfUsers(t *testing.T) {
	p := &unindexed{store: session2.NewMemoryStore()}
	schemes := map[string]session2.OpenFunc{"own": func(context.Context, string) (session2.Store, error) { return p, nil }}
	runWith(t, schemes, "setup", "-n", "own:").want(0).says("would make own:")
	runWith(t, schemes, "setup", "own:").want(0).says("own: is ready")
	seed(t, p.store, "alice", 3)
	seed(t, p.store, "bob", 2)
	out := runWith(t, schemes, "list", "-user", "bob", "own:").want(0).hides("alice").stdout
	if strings.Count(out, "bob") != 2 {
		t.Errorf("list -user: %s", out)
	}
	runWith(t, schemes, "delete-user", "-n", "alice", "-store", "own:").want(0).says("3")
	runWith(t, schemes, "delete-user", "alice", "-store", "own:").want(0).says("deleted 3")
	runWith(t, schemes, "delete-user", "alice", "-store", "own:").want(0).says("deleted 0")
	runWith(t, schemes, "list", "own:").want(0).says("bob").hides("alice")
}
