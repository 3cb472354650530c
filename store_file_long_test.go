package session2_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/fsys"
)

// readingFS notes how many bytes are read from files, and the most at once.
type readingFS struct {
	fsys.FS
	all, most atomic.Int64
}

func (r *readingFS) OpenFile(name string, flag int, perm fs.FileMode) (fsys.File, error) {
	f, err := r.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return readingFile{f, r}, nil
}

type readingFile struct {
	fsys.File
	fs *readingFS
}

func (f readingFile) ReadAt(b []byte, off int64) (int, error) {
	f.fs.all.Add(int64(len(b)))
	f.fs.most.Store(max(f.fs.most.Load(), int64(len(b))))
	return f.File.ReadAt(b, off)
}

// longSize is that of a file that takes too much memory when it is read whole.
const longSize = 1 << 28

// A record's file that somebody has made very long is corrupt, which is found out
// without reading it.
func TestFileStoreOverlongRecord(t *testing.T) {
	rec := fileRecord(1, "ada")
	file := func(n int64) func(t *testing.T, name string) {
		return func(t *testing.T, name string) { must(t, os.Truncate(name, n)) }
	}
	damages := map[string]func(t *testing.T, name string){
		"longer": file(longSize),
		"zeros": func(t *testing.T, name string) {
			file(0)(t, name)
			file(longSize)(t, name)
		},
		"long user": func(t *testing.T, name string) {
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			must(t, err)
			_, err = f.WriteAt([]byte{0x0f, 0xff, 0xff, 0xff}, 2*20+33)
			must(t, errors.Join(err, f.Close()))
			file(longSize)(t, name)
		},
	}
	calls := map[string]func(ctx context.Context, s *session2.FileStore) error{
		"Load": func(ctx context.Context, s *session2.FileStore) error { _, err := s.Load(ctx, rec.ID); return err },
		"Save": func(ctx context.Context, s *session2.FileStore) error { return s.Save(ctx, rec, 0) },
		"Iter": func(ctx context.Context, s *session2.FileStore) (err error) {
			for _, err = range s.Iter(ctx) {
			}
			return err
		},
		"Touch": func(ctx context.Context, s *session2.FileStore) error {
			return s.Touch(ctx, rec.ID, rec.Accessed, rec.Expires)
		},
		"Delete":         func(ctx context.Context, s *session2.FileStore) error { return s.Delete(ctx, rec.ID) },
		"DeleteOld":      func(ctx context.Context, s *session2.FileStore) error { _, err := s.DeleteOld(ctx, 0); return err },
		"DeleteUser":     func(ctx context.Context, s *session2.FileStore) error { _, err := s.DeleteUser(ctx, "ada"); return err },
		"CheckIndexes":   func(ctx context.Context, s *session2.FileStore) error { _, _, err := s.CheckIndexes(ctx); return err },
		"RebuildIndexes": func(ctx context.Context, s *session2.FileStore) error { return s.RebuildIndexes(ctx) },
	}
	for damage, do := range damages {
		for name, call := range calls {
			t.Run(damage+" "+name, func(t *testing.T) {
				r := &readingFS{FS: fsys.OS}
				dir := t.TempDir()
				s, err := session2.OpenFileStoreFS(r, dir, &session2.FileOptions{NoSync: true})
				must(t, err)
				mustSave(t, s, rec, 0)
				do(t, sessionFile(dir, rec.ID))
				r.all.Store(0)
				if err := call(t.Context(), s); err != nil && !errors.Is(err, session2.ErrCorrupt) {
					t.Errorf("got %v, want %v or no error", err, session2.ErrCorrupt)
				}
				if n := r.all.Load(); n > 1<<16 {
					t.Errorf("reads %d bytes", n)
				}
				_, err = s.Load(t.Context(), rec.ID)
				if name == "Load" || name == "Iter" { // they have set it aside
					if _, err := os.Lstat(filepath.Join(dir, "corrupt", rec.ID.String())); err != nil {
						t.Error(err)
					}
				}
				if !errors.Is(err, session2.ErrCorrupt) && !errors.Is(err, session2.ErrNotFound) {
					t.Errorf("Load: got %v", err)
				}
			})
		}
	}
}

// A record may be long, also one in a later format, which stays where it is.
func TestFileStoreLongRecord(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, &session2.FileOptions{NoSync: true})
	for i, user := range []string{"ada", string(make([]byte, 3<<20))} {
		rec := fileRecord(byte(i), user)
		rec.Data = bytes.Repeat([]byte("data"), 1<<20)
		mustSave(t, s, rec, 0)
		got, err := s.Load(t.Context(), rec.ID)
		if err != nil || got.User != user || !bytes.Equal(got.Data, rec.Data) {
			t.Errorf("Load of a record with %d bytes of data: got %d, %v", len(rec.Data), len(got.Data), err)
		}
	}
	name := sessionFile(dir, fileRecord(0, "").ID)
	b, err := os.ReadFile(name)
	must(t, err)
	b[40] = 2
	binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[40:len(b)-4], crc32.MakeTable(crc32.Castagnoli)))
	must(t, os.WriteFile(name, b, 0o600))
	for range 2 {
		if _, err := s.Load(t.Context(), fileRecord(0, "").ID); !errors.Is(err, session2.ErrCorrupt) {
			t.Errorf("Load of a later format: got %v, want %v", err, session2.ErrCorrupt)
		}
	}
	if _, err := os.Lstat(name); err != nil {
		t.Errorf("a record in a later format was set aside: %v", err)
	}
}

// A file of entries that somebody has made very long is read in pieces, and what is
// valid in it counts.
func TestFileStoreOverlongIndex(t *testing.T) {
	for _, filed := range []bool{false, true} {
		r := &readingFS{FS: fsys.OS}
		dir := t.TempDir()
		s, err := session2.OpenFileStoreFS(r, dir, &session2.FileOptions{NoSync: true})
		must(t, err)
		mustSave(t, s, fileRecord(1, "ada"), 0)
		if filed {
			_, err := s.DeleteOld(t.Context(), math.MaxInt64)
			must(t, err)
		}
		for _, name := range filesIn(t, filepath.Join(dir, "due")) {
			must(t, os.Truncate(filepath.Join(dir, "due", name), longSize/4))
		}
		if !filed { // behind what is no entry
			bob := fileRecord(1, "bob")
			bob.Version = 2
			mustSave(t, s, bob, 1)
			rec := fileRecord(1, "ada")
			rec.ID[1] = 1
			mustSave(t, s, rec, 0)
		}
		_, due, err := s.CheckIndexes(t.Context())
		if len(due) > 0 || err != nil {
			t.Errorf("filed %v: CheckIndexes: got %v, %v, want none", filed, due, err)
		}
		want := 2
		if filed {
			want = 1
		}
		if n, err := s.DeleteOld(t.Context(), 0); n != want || err != nil {
			t.Errorf("filed %v: DeleteOld returns %d, %v, want %d", filed, n, err, want)
		}
		if most := r.most.Load(); most > 1<<17 {
			t.Errorf("filed %v: reads %d bytes at once", filed, most)
		}
		if left := leftovers(t, dir); len(left) > 0 {
			t.Errorf("filed %v: left: %q", filed, left)
		}
	}
}
