//go:build unix

package session2_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/fsys"
)

func TestGobStoreRefusesWhatOthersCanWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	mustGob(t, openGob(t, path).Close())
	for _, name := range []string{path, dir} {
		old, err := os.Stat(name)
		mustGob(t, err)
		mustGob(t, os.Chmod(name, old.Mode().Perm()|0o022))
		if s, err := session2.OpenGobStore(path, nil); err == nil {
			s.Close()
			t.Errorf("opened although others may write to %s", filepath.Base(name))
		}
		mustGob(t, os.Chmod(name, old.Mode().Perm()))
	}
	openGob(t, path)
}

// A link to the file stays one when the file is replaced, and the file is private.
func TestGobStoreThroughLink(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	mustGob(t, openGob(t, path).Close())
	link := filepath.Join(t.TempDir(), "link")
	mustGob(t, os.Symlink(path, link))
	s, err := session2.OpenGobStoreOn(fsys.OS, link, nil, 0)
	mustGob(t, err)
	defer s.Close()
	versions := make(map[int]session2.Version)
	for range 10 {
		mustGob(t, update(s, versions, 0))
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v, want a link still", info.Mode(), err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, %v, want 0600", info.Mode(), err)
	}
}
