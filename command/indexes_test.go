package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
)

// indexedFiles makes a file store with three sessions of alice, and five of nobody
// that have expired. It returns its URL and directory, and the ID of one of the five.
func indexedFiles(t *testing.T) (url, dir, old string) {
	t.Helper()
	url = stores[0].url(t)
	session(t, "setup", url).want(0)
	with(t, url+"?nosync=true", func(store session2.Store) {
		seed(t, store, "alice", 3)
		for _, s := range seed(t, store, "", 5) {
			id, err := session2.ParseID(s.id)
			must(t, err)
			rec, err := store.Load(t.Context(), id)
			must(t, err)
			must(t, store.Delete(t.Context(), id))
			rec.Accessed, rec.Expires = time.Now().Add(-100*24*time.Hour), time.Now().Add(-time.Hour)
			must(t, store.Save(t.Context(), rec, 0))
			old = s.id
		}
	})
	return url, strings.TrimPrefix(url, "file:"), old
}

// TestVanishedIndexes removes a file store's indexes under the commands that go by
// them.
func TestVanishedIndexes(t *testing.T) {
	url, dir, _ := indexedFiles(t)
	must(t, os.RemoveAll(filepath.Join(dir, "users")))
	if got := len(session(t, "list", "-json", "-user", "alice", url).want(0).objects()); got != 3 {
		t.Errorf("list -user: got %d sessions, want 3", got)
	}
	must(t, os.RemoveAll(filepath.Join(dir, "users")))
	session(t, "delete-user", "-json", url, "alice").want(0).number("deleted", 3)
	must(t, os.RemoveAll(filepath.Join(dir, "due")))
	session(t, "delete-old", "-json", "-age", "30d", url).want(0).number("deleted", 5)
	session(t, "stats", "-json", url).want(0).number("records", 0)
}

// TestCheckFindsMissingEntries removes single entries: check names the records, and
// setup enters them again.
func TestCheckFindsMissingEntries(t *testing.T) {
	url, dir, old := indexedFiles(t)
	var ids []string
	entries, err := filepath.Glob(filepath.Join(dir, "users", "*", "*", "*"))
	must(t, err)
	for _, entry := range entries[:2] {
		ids = append(ids, filepath.Base(entry))
		must(t, os.Remove(entry))
	}
	must(t, os.Truncate(filepath.Join(dir, "due", "new", old[:2]), 0))
	for range 2 {
		r := session(t, "check", url).want(exitCorrupt).names(ids).says("missing from the index by user").
			says("8 records, 0 corrupt").says(old + ": missing from the index by time")
		if !strings.Contains(r.stderr, "session2 setup") {
			t.Errorf("check does not say what helps: %q", r.stderr)
		}
	}
	session(t, "setup", "-n", url).want(0)
	session(t, "check", url).want(exitCorrupt)
	session(t, "setup", url).want(0).says("is ready").says("missing from an index")
	session(t, "setup", "-json", url).want(0).number("missing", 0)
	session(t, "check", url).want(0).says("0 missing from an index")
	session(t, "delete-user", "-json", url, "alice").want(0).number("deleted", 3)
	session(t, "delete-old", "-json", "-age", "30d", url).want(0).number("deleted", 5)
}

// TestSetupDropsStrayEntries leaves an entry by user behind, as a killed writer does:
// setup removes it though no record is missing from an index.
func TestSetupDropsStrayEntries(t *testing.T) {
	url, dir, _ := indexedFiles(t)
	entries, err := filepath.Glob(filepath.Join(dir, "users", "*", "*", "*"))
	must(t, err)
	stray := filepath.Join(filepath.Dir(entries[0]), strings.Repeat("0", 32))
	must(t, os.WriteFile(stray, nil, 0o600))
	session(t, "setup", "-json", url).want(0).number("missing", 0)
	if _, err := os.Lstat(stray); !os.IsNotExist(err) {
		t.Errorf("the stray entry: got %v, want that it is gone", err)
	}
	session(t, "delete-user", "-json", url, "alice").want(0).number("deleted", 3)
}
