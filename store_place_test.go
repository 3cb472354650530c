package session2_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/session2/session2"
)

// placed opens the stores that are somewhere.
var placed = map[string]func(path string) (houseStore, error){
	"file": func(path string) (houseStore, error) { return session2.OpenFileStore(path, nil) },
	"bolt": func(path string) (houseStore, error) { return session2.OpenBoltStore(path, nil) },
	"gob":  func(path string) (houseStore, error) { return session2.OpenGobStore(path, nil) },
}

// A place that cannot be a store is an error that names it, and stays as it is.
func TestStoresRefuseWrongPlaces(t *testing.T) {
	for name, open := range placed {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			wrong := filepath.Join(dir, "wrong")
			if name == "file" {
				if err := os.WriteFile(wrong, []byte("keep me"), 0o600); err != nil {
					t.Fatal(err)
				}
			} else if err := os.Mkdir(wrong, 0o700); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadDir(dir)
			s, err := open(wrong)
			if err == nil {
				s.Close()
				t.Fatal("the wrong kind of file was opened")
			}
			if text := err.Error(); !strings.HasPrefix(text, "session2: open "+name+" store") || !strings.Contains(text, wrong) {
				t.Errorf("got the error %q, want it to name the store and the path", text)
			}
			if b, err := os.ReadFile(wrong); name == "file" && (err != nil || string(b) != "keep me") {
				t.Errorf("the file holds %q, %v", b, err)
			}
			if after, _ := os.ReadDir(wrong); name != "file" && len(after) != 0 {
				t.Errorf("the folder holds %v, was %v", after, before)
			}
		})
	}
}

// A path may be relative, and the working folder change; its characters mean
// nothing.
func TestStoresTakeAnyPath(t *testing.T) {
	for name, open := range placed {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Chdir(dir)
			path := "ä b%2f#&*'[x]"
			if os.PathSeparator == '\\' {
				path = "ä b%2f#&'[x]"
			}
			s, err := open(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Chdir(t.TempDir())
			rec := houseRecord(1, "alice")
			if err := s.Save(t.Context(), rec, 0); err != nil {
				t.Fatal(err)
			}
			s.Close()
			if s, err = open(filepath.Join(dir, path)); err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if _, err := s.Load(t.Context(), rec.ID); err != nil {
				t.Errorf("Load: got %v, want the record", err)
			}
		})
	}
}

// An empty path is that of a variable that nobody has set.
func TestStoresRefuseAnEmptyPath(t *testing.T) {
	for name, open := range placed {
		dir := t.TempDir()
		t.Chdir(dir)
		if s, err := open(""); err == nil {
			s.Close()
			t.Errorf("%s: opened", name)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%s: left behind: %v", name, left)
		}
	}
}
