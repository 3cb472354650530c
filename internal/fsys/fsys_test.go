package fsys_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/session2/session2/internal/fsys"
)

// failing is a file system whose operation number n and later ones fail. It
// records all operations that it did.
type failing struct {
	fsys.FS
	n   int
	ops []string
}

var errStopped = errors.New("stopped")

func (f *failing) op(name, path string) error {
	if f.n--; f.n < 0 {
		return errStopped
	}
	f.ops = append(f.ops, name+" "+filepath.Base(path))
	return nil
}

func (f *failing) OpenFile(name string, flag int, perm fs.FileMode) (fsys.File, error) {
	if err := f.op("open", name); err != nil {
		return nil, err
	}
	file, err := f.FS.OpenFile(name, flag, perm)
	return failingFile{file, f}, err
}

func (f *failing) Rename(oldName, newName string) error {
	if err := f.op("rename", oldName); err != nil {
		return err
	}
	return f.FS.Rename(oldName, newName)
}

func (f *failing) SyncDir(name string) error {
	if err := f.op("syncdir", name); err != nil {
		return err
	}
	return f.FS.SyncDir(name)
}

type failingFile struct {
	fsys.File
	fs *failing
}

func (f failingFile) Write(b []byte) (int, error) {
	if err := f.fs.op("write", f.Name()); err != nil {
		return 0, err
	}
	return f.File.Write(b)
}

func (f failingFile) Sync() error {
	if err := f.fs.op("sync", f.Name()); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f failingFile) Close() error {
	err := f.fs.op("close", f.Name())
	return errors.Join(err, f.File.Close())
}

func write(s string) func(io.Writer) error {
	return func(w io.Writer) error { _, err := io.WriteString(w, s); return err }
}

func TestWriteFileOrder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	os.Mkdir(dir, 0o700)
	f := &failing{FS: fsys.OS, n: 100}
	if err := fsys.WriteFile(f, filepath.Join(dir, "x"), true, write("new")); err != nil {
		t.Fatal(err)
	}
	want := "open x.tmp, write x.tmp, sync x.tmp, close x.tmp, rename x.tmp, syncdir dir"
	if got := strings.Join(f.ops, ", "); got != want {
		t.Errorf("operations %s, want %s", got, want)
	}
	if info, _ := os.Stat(filepath.Join(dir, "x")); runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestWriteFileFailsClean(t *testing.T) {
	for _, sync := range []bool{true, false} {
		for n := 0; ; n++ {
			dir := t.TempDir()
			name := filepath.Join(dir, "x")
			os.WriteFile(name, []byte("old"), 0o600)
			f := &failing{FS: fsys.OS, n: n}
			err := fsys.WriteFile(f, name, sync, write("new"))
			got, _ := os.ReadFile(name)
			if err == nil {
				if string(got) != "new" {
					t.Errorf("sync %v: holds %q after success", sync, got)
				}
				break
			}
			if last := sync && n == 5; (string(got) == "new") != last {
				t.Errorf("sync %v, stopped at %d: holds %q", sync, n, got)
			}
			if names, _ := filepath.Glob(filepath.Join(dir, "*")); !slices.Equal(names, []string{name}) {
				t.Errorf("sync %v, stopped at %d: leaves %v", sync, n, names)
			}
		}
	}
}

func TestWriteFilePassesErrorsOn(t *testing.T) {
	dir := t.TempDir()
	err := fsys.WriteFile(fsys.OS, filepath.Join(dir, "x"), true, func(io.Writer) error { return errStopped })
	if !errors.Is(err, errStopped) {
		t.Errorf("error %v, want %v", err, errStopped)
	}
	if names, _ := os.ReadDir(dir); len(names) != 0 {
		t.Errorf("leaves %v", names)
	}
}

func TestOpenFileAnswersNil(t *testing.T) {
	if f, err := fsys.OS.OpenFile(filepath.Join(t.TempDir(), "absent"), os.O_RDONLY, 0); f != nil ||
		!errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opening nothing: %v, %v", f, err)
	}
}
