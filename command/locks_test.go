package command

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/session2/session2/internal/lockfile"
)

// No command waits for good for a process that stands still with a lock: it names the lock.
// A copy gives up at the first record that fails so.
func TestHeldLocks(t *testing.T) {
	dir := t.TempDir()
	file, gob := "file:"+filepath.Join(dir, "file"), "gob:"+filepath.Join(dir, "gob")
	other := "gob:" + filepath.Join(dir, "other")
	for _, url := range []string{file, gob, other} {
		session(t, "setup", url).want(0)
	}
	hold := func(name string) {
		unlock, err := lockfile.New(func() (lockfile.File, error) {
			return os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
		}).Lock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(unlock)
	}
	tries := [][]string{ // each with the lock's file
		{"gob.lock", "stats", gob + "?timeout=1ms"},
		{"gob.lock", "setup", gob + "?timeout=1ms"},
		{"gob.lock", "copy", gob + "?timeout=1ms", other},
		{"file/locks/sweep", "delete-old", "-age", "1h", file},
		{"file/locks/sweep", "check", file},
	}
	for _, first := range []string{"gob.lock", "file/locks/sweep"} {
		hold(filepath.FromSlash(first))
	}
	for _, try := range tries {
		var out bytes.Buffer
		ctx := lockfile.WithPatience(t.Context(), time.Millisecond)
		status := run(ctx, try[1:], nil, &out, &out)
		ran{t, try[1:], status, out.String(), ""}.want(exitFailed).says(filepath.FromSlash(try[0])).
			says(lockfile.ErrHeld.Error())
	}
}
