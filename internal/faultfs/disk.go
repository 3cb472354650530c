package faultfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/session2/session2/internal/fsys"
)

// Disk is a file system, on top of that of the machine, that stops after a number of
// steps, and that knows what of its state was synced. Nothing is really synced.
type Disk struct {
	fsys.FS
	mu    sync.Mutex
	root  string
	left  int              // steps until it stops
	nodes map[string]*node // by path: what a process sees
}

// node is a file or directory.
type node struct {
	dir     bool
	mode    fs.FileMode // a directory's; file systems keep it in the order of the names
	data    []byte      // a file's, as the last sync left it
	written []byte      // as the last write did
	names   map[string]*node
}

// ErrStopped is what a Disk fails with when it has stopped.
var ErrStopped = errors.New("the disk has stopped")

// NewDisk returns a disk that has the directory root with all that is in it, synced,
// and stops after n steps.
func NewDisk(t testing.TB, root string, n int) *Disk {
	t.Helper()
	d := &Disk{FS: fsys.OS, root: root, left: n, nodes: map[string]*node{}}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		nd := &node{dir: e.IsDir(), mode: info.Mode()}
		if !nd.dir {
			if nd.data, err = os.ReadFile(path); err != nil {
				return err
			}
			nd.written = nd.data
		}
		d.nodes[path] = nd
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, nd := range d.nodes {
		if nd.dir {
			nd.names = d.list(path)
		}
	}
	return d
}

// step does one step, with its effect on the nodes, unless the disk has stopped.
func (d *Disk) step(do func() error, note func()) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left <= 0 {
		return ErrStopped
	}
	d.left--
	err := do()
	if err == nil {
		note()
	}
	return err
}

func (d *Disk) OpenFile(name string, flag int, perm fs.FileMode) (f fsys.File, err error) {
	changes := flag & os.O_TRUNC
	if _, err := d.FS.Lstat(name); err != nil {
		changes = flag & os.O_CREATE
	}
	if changes == 0 || isLock(name) {
		return d.openOld(name, flag, perm)
	}
	var nd *node
	err = d.step(func() error {
		f, err = d.FS.OpenFile(name, flag, perm)
		return err
	}, func() {
		if d.nodes[name] == nil {
			d.nodes[name] = &node{}
		}
		nd = d.nodes[name]
		if flag&os.O_TRUNC != 0 {
			nd.written = nil
		}
	})
	if err != nil {
		return nil, err
	}
	return diskFile{f, d, nd}, nil
}

// isLock reports whether a file is only there for its lock, and nothing that a crash
// could lose.
func isLock(name string) bool {
	return filepath.Base(filepath.Dir(name)) == "locks" || filepath.Ext(name) == ".lock"
}

// openOld opens what is there, or a lock, which is no step: it changes nothing that a
// crash could lose.
func (d *Disk) openOld(name string, flag int, perm fs.FileMode) (fsys.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left <= 0 {
		return nil, ErrStopped
	}
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return diskFile{f, d, d.nodes[name]}, nil
}

func (d *Disk) Mkdir(name string, perm fs.FileMode) error {
	return d.step(func() error { return d.FS.Mkdir(name, perm) }, func() {
		d.nodes[name] = &node{dir: true, mode: perm}
	})
}

func (d *Disk) Rename(oldName, newName string) error {
	return d.step(func() error { return d.FS.Rename(oldName, newName) }, func() {
		d.nodes[newName] = d.nodes[oldName]
		delete(d.nodes, oldName)
	})
}

func (d *Disk) Link(oldName, newName string) error {
	return d.step(func() error { return d.FS.Link(oldName, newName) }, func() {
		if nd := d.nodes[oldName]; nd != nil { // a lock has none
			d.nodes[newName] = nd
		}
	})
}

func (d *Disk) Remove(name string) error {
	return d.step(func() error { return d.FS.Remove(name) }, func() { delete(d.nodes, name) })
}

func (d *Disk) SyncDir(name string) error {
	return d.step(func() error { _, err := d.FS.Lstat(name); return err },
		func() { d.nodes[name].names = d.list(name) })
}

// list returns what is in a directory.
func (d *Disk) list(dir string) map[string]*node {
	names := map[string]*node{}
	for path, nd := range d.nodes {
		if filepath.Dir(path) == dir && path != dir {
			names[filepath.Base(path)] = nd
		}
	}
	return names
}

type diskFile struct {
	fsys.File
	d    *Disk
	node *node // nil for a lock
}

// note takes down what is in the file after a write.
func (f diskFile) note() {
	if f.node == nil {
		return
	}
	if info, err := f.File.Stat(); err == nil {
		b := make([]byte, info.Size())
		n, _ := f.File.ReadAt(b, 0)
		if n < len(b) { // it was opened for writing only
			b, _ = os.ReadFile(f.Name())
		}
		f.node.written = b
	}
}

func (f diskFile) Write(b []byte) (n int, err error) {
	err = f.d.step(func() error { n, err = f.File.Write(b); return err }, f.note)
	return n, err
}

func (f diskFile) WriteAt(b []byte, off int64) (n int, err error) {
	err = f.d.step(func() error { n, err = f.File.WriteAt(b, off); return err }, f.note)
	return n, err
}

func (f diskFile) Truncate(size int64) error {
	return f.d.step(func() error { return f.File.Truncate(size) }, f.note)
}

func (f diskFile) Chmod(mode fs.FileMode) error {
	err := f.File.Chmod(mode)
	if err == nil && f.node != nil {
		f.d.mu.Lock()
		f.node.mode = mode
		f.d.mu.Unlock()
	}
	return err
}

func (f diskFile) Sync() error {
	return f.d.step(func() error { return nil }, func() {
		if f.node != nil {
			f.node.data = f.node.written
		}
	})
}

// Crash is a way to die after a disk has stopped.
type Crash struct {
	Name string
	// Die returns the directory in which life goes on, in place of the disk's root.
	Die func(t testing.TB, d *Disk) string
}

// Crashes returns the ways to die. What a system may have done of its own accord with
// names and data that were not synced is done to all of them alike. The last one uses
// the disk's root up.
func Crashes() []Crash {
	cut := func(allNames bool, data func(*node) []byte) func(t testing.TB, d *Disk) string {
		return func(t testing.TB, d *Disk) string {
			to := t.TempDir()
			d.restore(t, d.root, to, d.nodes[d.root], allNames, data)
			return to
		}
	}
	synced := func(nd *node) []byte { return nd.data }
	written := func(nd *node) []byte { return nd.written }
	return []Crash{
		{"power cut that loses names and data", cut(false, synced)},
		{"power cut that loses names and tears data", cut(false, torn)},
		{"power cut that keeps names and loses data", cut(true, synced)},
		{"power cut that keeps names and tears data", cut(true, torn)},
		{"power cut that loses names and keeps data", cut(false, written)},
		{"kill -9", func(_ testing.TB, d *Disk) string { return d.root }},
	}
}

// torn returns what was synced with the first half of what was written since over it,
// and the half of the rest as zeros: a block whose place was noted before its data.
func torn(nd *node) []byte {
	same := 0
	for same < len(nd.data) && same < len(nd.written) && nd.data[same] == nd.written[same] {
		same++
	}
	half := same + (len(nd.written)-same)/2
	b := append([]byte(nil), nd.written[:half]...)
	if len(nd.written) > len(nd.data) {
		return append(b, make([]byte, (len(nd.written)-half+1)/2)...)
	}
	return append(b, nd.data[min(half, len(nd.data)):]...)
}

// restore writes what is left of the directory from into the directory to: of its
// names all, or only the synced ones; of the files what data says.
func (d *Disk) restore(t testing.TB, from, to string, dir *node, allNames bool, data func(*node) []byte) {
	t.Helper()
	names := dir.names
	if allNames {
		names = d.list(from)
	}
	for name, nd := range names {
		path := filepath.Join(to, name)
		var err error
		if nd.dir {
			if err = os.Mkdir(path, 0o700); err == nil {
				err = os.Chmod(path, nd.mode)
			}
			d.restore(t, filepath.Join(from, name), path, nd, allNames, data)
		} else {
			err = os.WriteFile(path, data(nd), 0o600)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
	}
}
