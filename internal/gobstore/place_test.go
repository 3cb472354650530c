//go:build unix

package gobstore_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/gobstore"
	"github.com/session2/session2/internal/record"
	"github.com/session2/session2/internal/testsite"
)

func TestGobStoreRefusesWhatOthersCanWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	testsite.Must(t, open(t, path).Close())
	for _, name := range []string{path, dir} {
		old, err := os.Stat(name)
		testsite.Must(t, err)
		testsite.Must(t, os.Chmod(name, old.Mode().Perm()|0o022))
		if s, err := gobstore.Open(fsys.OS, path, quiet); err == nil {
			s.Close()
			t.Errorf("opened although others may write to %s", filepath.Base(name))
		}
		testsite.Must(t, os.Chmod(name, old.Mode().Perm()))
	}
	open(t, path)
}

// Nor does it go on with such a file that was put in the place of its own.
func TestGobStoreRefusesAStrangersFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	s := open(t, path)
	defer s.Close()
	other := filepath.Join(dir, "other")
	testsite.Must(t, open(t, other).Close())
	testsite.Must(t, os.Chmod(other, 0o666))
	testsite.Must(t, os.Rename(other, path))
	if _, err := s.Has(t.Context(), [16]byte{1}); err == nil || !strings.Contains(err.Error(), "others may write") {
		t.Errorf("got %v, want a refusal", err)
	}
	testsite.Must(t, os.Chmod(path, 0o600))
	if _, err := s.Has(t.Context(), [16]byte{1}); err != nil {
		t.Errorf("after a chmod: %v", err)
	}
}

// A link to the file stays one when the file is replaced, and the file is private.
func TestGobStoreThroughLink(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	testsite.Must(t, open(t, path).Close())
	link := filepath.Join(t.TempDir(), "link")
	testsite.Must(t, os.Symlink(path, link))
	s, err := openOn(fsys.OS, link, false, 0)
	testsite.Must(t, err)
	defer s.Close()
	versions := make(map[int]uint64)
	for range 10 {
		testsite.Must(t, update(s, versions, 0))
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v, want a link still", info.Mode(), err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, %v, want 0600", info.Mode(), err)
	}
}

// A log that is moved away and put back costs the calls in between, which fail
// and do not take the records for ended, and nothing else.
func TestGobStoreFileComesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	s := open(t, path)
	rec := numbered(1, 1)
	testsite.Must(t, s.Save(t.Context(), rec, 0))
	testsite.Must(t, os.Rename(path, path+".away"))
	_, err := s.Load(t.Context(), rec.ID)
	if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, record.ErrNotFound) {
		t.Errorf("Load without the file: got %v, want fs.ErrNotExist", err)
	}
	if err := s.Save(t.Context(), numbered(2, 1), 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Save without the file: got %v, want fs.ErrNotExist", err)
	}
	if err := s.Setup(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Setup without the file: got %v, want fs.ErrNotExist", err)
	}
	testsite.Must(t, os.WriteFile(path, []byte("something else altogether, of some length"), 0o600))
	if _, err := s.Load(t.Context(), rec.ID); err == nil || errors.Is(err, record.ErrNotFound) {
		t.Errorf("Load from another file: got %v, want a failure", err)
	}
	if err := s.Save(t.Context(), numbered(2, 1), 0); err == nil {
		t.Error("Save into another file: got nil, want an error")
	}
	if b, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(b), "something else") {
		t.Errorf("the other file holds %.20q, %v", b, err)
	}
	testsite.Must(t, os.Rename(path+".away", path))
	testsite.Must(t, s.Save(t.Context(), numbered(3, 1), 0))
	if _, err := s.Load(t.Context(), rec.ID); err != nil {
		t.Errorf("Load with the file back: got %v, want the record", err)
	}
	testsite.Must(t, s.Setup(t.Context()))
	testsite.Must(t, s.Close())
	if err := s.Setup(t.Context()); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Setup when closed: got %v, want fs.ErrClosed", err)
	}
}
