//go:build unix

package fsys_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/session2/session2/internal/fsys"
)

// Of many who create one file or directory at once, all get the same one, and
// nobody ever sees it closed to the group.
func TestShareCreatesOnceAndOpen(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	dir := t.TempDir()
	info, err := os.Lstat(dir)
	if err != nil {
		t.Fatal(err)
	}
	shared := fsys.Share(fsys.OS, info)
	var mu sync.Mutex
	seen := map[string]fs.FileInfo{}
	note := func(name string, want fs.FileMode) {
		info, err := os.Lstat(filepath.Join(dir, name))
		mu.Lock()
		defer mu.Unlock()
		if err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, %v, want %v", name, info.Mode(), err, want)
		}
		if old := seen[name]; old != nil && !info.IsDir() && !os.SameFile(old, info) {
			t.Errorf("%s was created twice", name)
		}
		seen[name] = info
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 50 {
				name := string(rune('a'+i%26)) + string(rune('a'+i/26))
				f, err := shared.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
				if err != nil {
					t.Error(err)
					return
				}
				f.Close()
				note(name, 0o660)
				err = shared.Mkdir(filepath.Join(dir, "dir "+name), 0o700)
				if err != nil && !errors.Is(err, fs.ErrExist) {
					t.Error(err)
				}
				note("dir "+name, fs.ModeDir|fs.ModeSetgid|0o770)
			}
		})
	}
	wg.Wait()
	names, err := os.ReadDir(dir)
	if len(names) != 100 || err != nil {
		t.Errorf("%d names, %v, want 100", len(names), err)
	}
}

// What a killed writer left is in nobody's way, even if it is closed.
func TestShareReplacesTemporaries(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "x")
	if err := os.WriteFile(fsys.Temp(name), []byte("half"), 0o400); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := fsys.WriteFile(fsys.Share(fsys.OS, info), name, false, write("new")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode() != 0o660 || info.Size() != 3 {
		t.Errorf("got %v, %v, want three bytes with mode 0660", info, err)
	}
}

func TestLate(t *testing.T) {
	for _, refusal := range []error{
		syscall.EACCES, syscall.EPERM, syscall.EROFS, syscall.ENOSPC, syscall.EFBIG, syscall.EDQUOT, fs.ErrClosed, errors.ErrUnsupported,
	} {
		err := fsys.Late(&fs.PathError{Op: "sync", Path: "x", Err: refusal})
		if err == nil || errors.Is(err, refusal) || errors.Is(err, fs.ErrPermission) {
			t.Errorf("Late of %v: got %v, want an error that is no refusal", refusal, err)
		}
	}
	if err := fsys.Late(nil); err != nil {
		t.Errorf("Late of nil: %v", err)
	}
	if err := fsys.Late(fs.ErrNotExist); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Late of what is no refusal: %v", err)
	}
}
