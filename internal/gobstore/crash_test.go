package gobstore_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/session2/session2/internal/faultfs"
	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/gobstore"
	"github.com/session2/session2/internal/lockfile"
	"github.com/session2/session2/internal/record"
	"github.com/session2/session2/internal/testsite"
)

var errDead = errors.New("the process is dead")

// dyingFS does its first operations that change something and none after them,
// as if the process had been killed; the last one is done by half.
type dyingFS struct {
	fsys.FS
	left atomic.Int64
}

func (d *dyingFS) step() error {
	if d.left.Add(-1) < 0 {
		return errDead
	}
	return nil
}

func (d *dyingFS) OpenFile(name string, flag int, perm fs.FileMode) (fsys.File, error) {
	if err := d.step(); err != nil {
		return nil, err
	}
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return dyingFile{f, d}, nil
}

func (d *dyingFS) Rename(oldName, newName string) error {
	if err := d.step(); err != nil {
		return err
	}
	return d.FS.Rename(oldName, newName)
}

func (d *dyingFS) Remove(name string) error {
	if err := d.step(); err != nil {
		return err
	}
	return d.FS.Remove(name)
}

func (d *dyingFS) SyncDir(name string) error {
	if err := d.step(); err != nil {
		return err
	}
	return d.FS.SyncDir(name)
}

type dyingFile struct {
	fsys.File
	d *dyingFS
}

func (f dyingFile) Write(b []byte) (int, error) {
	if f.d.step() != nil {
		n, _ := f.File.Write(b[:len(b)/2])
		return n, errDead
	}
	return f.File.Write(b)
}

func (f dyingFile) WriteAt(b []byte, off int64) (int, error) {
	if f.d.step() != nil {
		n, _ := f.File.WriteAt(b[:len(b)/2], off)
		return n, errDead
	}
	return f.File.WriteAt(b, off)
}

func (f dyingFile) Truncate(n int64) error {
	if err := f.d.step(); err != nil {
		return err
	}
	return f.File.Truncate(n)
}

func (f dyingFile) Sync() error {
	if err := f.d.step(); err != nil {
		return err
	}
	return f.File.Sync()
}

// update saves the next version of record n over the one in versions.
func update(s *gobstore.Store, versions map[int]uint64, n int) error {
	prev := versions[n]
	err := s.Save(background, numbered(n, prev+1), prev)
	if err == nil {
		versions[n] = prev + 1
	}
	return err
}

// Whatever operation is the last, what was acknowledged is there afterwards.
// With no slack, most updates compact the file.
func TestGobStoreKilledAtEveryOperation(t *testing.T) {
	for left := int64(0); ; left++ {
		path := filepath.Join(t.TempDir(), "log")
		d := &dyingFS{FS: fsys.OS}
		d.left.Store(left)
		versions := make(map[int]uint64)
		s, err := openOn(d, path, false, 0)
		for i := 0; err == nil && i < 14; i++ {
			err = update(s, versions, i%3)
		}
		if s != nil {
			s.Close()
		}
		checkVersions(t, fmt.Sprintf("killed after %d operations", left), path, versions)
		if err == nil {
			t.Logf("%d operations", left)
			return
		}
		if !errors.Is(err, errDead) {
			t.Fatalf("after %d operations: %v, want %v", left, err, errDead)
		}
	}
}

// A power cut after any step, which does with names and data that were not synced what
// it likes: what was acknowledged is there, what was deleted is not, and the call under
// way has happened or not. With no slack, most updates compact the file.
func TestGobStorePowerCut(t *testing.T) {
	for _, slack := range []int64{0, 1 << 20} {
		for n := 0; !t.Failed(); n++ {
			root := t.TempDir()
			d := faultfs.NewDisk(t, root, n)
			before, after, err := gobLife(d, filepath.Join(root, "log"), slack)
			if err == nil {
				t.Logf("slack %d: %d steps", slack, n)
				break
			}
			if !errors.Is(err, faultfs.ErrStopped) {
				t.Fatalf("after %d steps: %v, want %v", n, err, faultfs.ErrStopped)
			}
			for _, crash := range faultfs.Crashes() {
				checkAfterCrash(t, fmt.Sprintf("%s after step %d, slack %d", crash.Name, n, slack),
					filepath.Join(crash.Die(t, d), "log"), before, after)
			}
		}
	}
}

// gobLife creates, updates, touches and deletes records until a call fails, and returns
// the versions by record before that call and after it.
func gobLife(d fsys.FS, path string, slack int64) (before, after map[int]uint64, err error) {
	before = map[int]uint64{}
	s, err := openOn(d, path, false, slack)
	if err != nil {
		return before, before, err
	}
	defer s.Close()
	for i := range 15 {
		n := i % 3
		after = maps.Clone(before)
		switch v := before[n]; {
		case i%5 == 4:
			delete(after, n)
			err = s.Delete(background, idOf(n))
		case i%4 == 3 && v != 0:
			now := time.Now().UnixMicro()
			err = s.Touch(background, idOf(n), record.Access{Accessed: now, Expires: now + hour})
		default:
			after[n] = v + 1
			err = s.Save(background, numbered(n, v+1), v)
		}
		if err != nil {
			return before, after, err
		}
		before = after
	}
	return before, before, s.Close()
}

// checkAfterCrash checks that each record is as it was before the call under way or as
// it is after it, and that the store goes on.
func checkAfterCrash(t *testing.T, when, path string, before, after map[int]uint64) {
	t.Helper()
	s := open(t, path)
	defer s.Close()
	for n := range 3 {
		rec, err := s.Load(background, idOf(n))
		if err != nil && !errors.Is(err, record.ErrNotFound) {
			t.Errorf("%s: record %d: %v", when, n, err)
		}
		if rec.Version != before[n] && rec.Version != after[n] {
			t.Errorf("%s: record %d has version %d, want %d or %d", when, n, rec.Version, before[n], after[n])
		}
	}
	testsite.Must(t, s.Save(background, numbered(99, 1), 0))
}

// checkVersions checks that the store holds the versions, or the next ones,
// which were not acknowledged.
func checkVersions(t *testing.T, when, path string, versions map[int]uint64) {
	t.Helper()
	s := open(t, path)
	defer s.Close()
	for n, v := range versions {
		rec, err := s.Load(background, idOf(n))
		if err != nil || rec.Version != v && rec.Version != v+1 {
			t.Fatalf("%s: record %d has version %v, %v; %v was acknowledged", when, n, rec.Version, err, v)
		}
	}
	testsite.Must(t, s.Save(background, numbered(99, 1), 0))
}

// syncing counts syncs, and has something done before each.
type syncing struct {
	fsys.FS
	before func()
	n      atomic.Int64
}

func (s *syncing) OpenFile(name string, flag int, perm fs.FileMode) (fsys.File, error) {
	f, err := s.FS.OpenFile(name, flag, perm)
	return syncingFile{f, s}, err
}

type syncingFile struct {
	fsys.File
	s *syncing
}

func (f syncingFile) Sync() error {
	f.s.before()
	f.s.n.Add(1)
	return f.File.Sync()
}

func TestGobStoreGroupCommit(t *testing.T) {
	crowd := testsite.NewCrowd(64)
	d := &syncing{FS: fsys.OS, before: func() {}}
	s, err := openOn(d, filepath.Join(t.TempDir(), "log"), false, 1<<20)
	testsite.Must(t, err)
	defer s.Close()
	d.before = crowd.Await
	d.n.Store(0)
	crowd.Run(func(ctx context.Context, one int) { testsite.Must(t, s.Save(ctx, numbered(one, 7), 0)) })
	// The first, which waits for the lock, may be taken for one of the others, and one of
	// them come too late.
	if n := d.n.Load(); n == 0 || n > 3 {
		t.Errorf("%d syncs for 64 saves at once, want one to three", n)
	}
}

// failSync fails one sync and goes on: the system has then forgotten the pages.
type failSync struct {
	fsys.FS
	fail atomic.Bool
	done atomic.Int64
}

func (f *failSync) OpenFile(name string, flag int, perm fs.FileMode) (fsys.File, error) {
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return failSyncFile{file, f}, nil
}

type failSyncFile struct {
	fsys.File
	f *failSync
}

func (f failSyncFile) Sync() error {
	if f.f.fail.CompareAndSwap(true, false) {
		return errDead
	}
	f.f.done.Add(1)
	return f.File.Sync()
}

func TestGobStoreFailedSync(t *testing.T) {
	f := &failSync{FS: fsys.OS}
	path := filepath.Join(t.TempDir(), "log")
	s, err := openOn(f, path, false, 1<<20)
	testsite.Must(t, err)
	defer s.Close()
	testsite.Must(t, s.Save(background, numbered(0, 7), 0))
	f.fail.Store(true)
	if err := s.Save(background, numbered(0, 8), 7); !errors.Is(err, errDead) {
		t.Fatalf("Save with a failing sync: %v, want its error", err)
	}
	before := f.done.Load()
	testsite.Must(t, s.Save(background, numbered(0, 8), 7)) // the same again: landed, and made durable
	if f.done.Load() == before {
		t.Error("a repeated Save was acknowledged without a sync")
	}
	checkVersions(t, "after a failed sync", path, map[int]uint64{0: 8})
}

// Two stores on one file, as two processes have them, compact and write.
func TestGobStoreSharedCompaction(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var wg sync.WaitGroup
	for p := range 2 {
		s, err := openOn(fsys.OS, path, true, 500)
		testsite.Must(t, err)
		defer s.Close()
		wg.Go(func() {
			versions := make(map[int]uint64)
			for i := range 300 {
				n := 10*p + i%5
				if err := update(s, versions, n); err != nil {
					t.Errorf("store %d, update %d: %v", p, i, err)
					return
				}
				if rec, err := s.Load(background, idOf(n)); err != nil || rec.Version != versions[n] {
					t.Errorf("store %d: version %v, %v, want %v", p, rec.Version, err, versions[n])
				}
			}
		})
	}
	wg.Wait()
	info, err := fsys.OS.Lstat(path)
	testsite.Must(t, err)
	if info.Size() > 8192 { // without compaction it would have 75 KB
		t.Errorf("the file has %d bytes, want at most 8192", info.Size())
	}
}

// Touches alone must not let the file grow without bounds.
func TestGobStoreTouchesAreCompacted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	s, err := openOn(fsys.OS, path, false, 4096)
	testsite.Must(t, err)
	defer s.Close()
	rec := numbered(0, 7)
	testsite.Must(t, s.Save(background, rec, 0))
	for i := range 1000 {
		to := record.Access{Accessed: rec.Accessed + int64(i+1)*second, Expires: rec.Expires}
		testsite.Must(t, s.Touch(background, rec.ID, to))
	}
	info, err := fsys.OS.Lstat(path)
	testsite.Must(t, err)
	if info.Size() > 8192 {
		t.Errorf("the file has %d bytes after 1000 touches, want at most 8192", info.Size())
	}
	got, err := s.Load(background, rec.ID)
	if want := rec.Accessed + 1000*second; err != nil || got.Accessed != want {
		t.Errorf("Accessed is %v, %v, want %v", got.Accessed, err, want)
	}
}

// roomFS is a file system with room for so many more bytes, on which writing
// then fails with err after the part that fits. What is to fail, too, does from
// then on, but for stat, which fails once; and sync fails before, as where the system
// finds out late that there is no room.
type roomFS struct {
	fsys.FS
	err  error
	fail string // what fails, too: an operation of a File

	room atomic.Int64
	full atomic.Bool
}

const plenty = 1 << 40

// limit leaves room for n more bytes.
func (f *roomFS) limit(n int64) {
	f.room.Store(n)
	f.full.Store(false)
}

func (f *roomFS) OpenFile(name string, flag int, perm fs.FileMode) (fsys.File, error) {
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return roomFile{file, f}, nil
}

func (f *roomFS) op(op string) error {
	if f.fail != op {
		return nil
	}
	fails := f.full.Load()
	switch op {
	case "sync":
		fails = f.room.Load() < plenty/2
	case "stat":
		fails = f.full.Swap(false)
	}
	if fails {
		return &fs.PathError{Op: op, Path: "log", Err: f.err}
	}
	return nil
}

type roomFile struct {
	fsys.File
	fs *roomFS
}

func (f roomFile) WriteAt(b []byte, off int64) (int, error) {
	return f.write(b, func(b []byte) (int, error) { return f.File.WriteAt(b, off) })
}

func (f roomFile) Write(b []byte) (int, error) { return f.write(b, f.File.Write) }

func (f roomFile) write(b []byte, write func([]byte) (int, error)) (n int, err error) {
	fits := max(0, min(int64(len(b)), f.fs.room.Load()))
	if fits > 0 {
		n, err = write(b[:fits])
	}
	f.fs.room.Add(-int64(n))
	if err == nil && n < len(b) {
		f.fs.full.Store(true)
		err = &fs.PathError{Op: "write", Path: "log", Err: f.fs.err}
	}
	return n, err
}

func (f roomFile) Stat() (fs.FileInfo, error) {
	if err := f.fs.op("stat"); err != nil {
		return nil, err
	}
	return f.File.Stat()
}

func (f roomFile) Truncate(n int64) error {
	if err := f.fs.op("truncate"); err != nil {
		return err
	}
	return f.File.Truncate(n)
}

func (f roomFile) Sync() error {
	if err := f.fs.op("sync"); err != nil {
		return err
	}
	return f.File.Sync()
}

// queuedCtx says when a call waits for its turn: that is when it first looks
// whether it has been called off.
type queuedCtx struct {
	context.Context
	queued func()
}

func (c queuedCtx) Done() <-chan struct{} {
	c.queued()
	return c.Context.Done()
}

// inOneBatch makes the calls in one batch, in their order.
func inOneBatch(t *testing.T, path string, calls []call, s *gobstore.Store) []error {
	t.Helper()
	unlock, err := lockfile.New(func() (lockfile.File, error) {
		return os.OpenFile(path+".lock", os.O_RDWR, 0)
	}).Lock(background)
	testsite.Must(t, err)
	errs := make([]error, len(calls))
	var wg sync.WaitGroup
	for i, c := range calls {
		queued := make(chan struct{})
		ctx := queuedCtx{background, sync.OnceFunc(func() { close(queued) })}
		wg.Go(func() { errs[i] = c.do(ctx, s) })
		<-queued
	}
	unlock()
	wg.Wait()
	return errs
}

// call is a change, and how much of it a store shows.
type call struct {
	name string
	do   func(context.Context, *gobstore.Store) error
	made func(v map[int]record.Record) (part, all bool)
}

// fullCalls are changes of the records 0 to 7, which have version 1.
func fullCalls() []call {
	save := func(n int, v, prev uint64) func(context.Context, *gobstore.Store) error {
		return func(ctx context.Context, s *gobstore.Store) error { return s.Save(ctx, numbered(n, v), prev) }
	}
	del := func(n int) func(context.Context, *gobstore.Store) error {
		return func(ctx context.Context, s *gobstore.Store) error { return s.Delete(ctx, idOf(n)) }
	}
	version := func(n int, want uint64) func(map[int]record.Record) (part, all bool) {
		return func(v map[int]record.Record) (part, all bool) {
			return v[n].Version == want, v[n].Version == want
		}
	}
	later := numbered(3, 1).Accessed + hour
	return []call{
		{"create", save(20, 1, 0), version(20, 1)},
		{"replace", save(0, 2, 1), version(0, 2)},
		{"replace again", save(0, 2, 1), version(0, 2)},
		{"replace what was replaced", save(0, 3, 1), version(0, 3)},
		{"touch", func(ctx context.Context, s *gobstore.Store) error {
			return s.Touch(ctx, idOf(3), record.Access{Accessed: later, Expires: later + hour})
		}, func(v map[int]record.Record) (part, all bool) {
			return v[3].Accessed == later, v[3].Accessed == later
		}},
		{"delete", del(2), version(2, 0)},
		{"delete nothing", del(99), func(map[int]record.Record) (part, all bool) { return false, true }},
		{"delete user", func(ctx context.Context, s *gobstore.Store) error {
			_, err := s.DeleteUser(ctx, "user1")
			return err
		}, func(v map[int]record.Record) (part, all bool) {
			left := v[1].Version + v[4].Version + v[7].Version
			return left < 3, left == 0
		}},
		{"create last", save(21, 1, 0), version(21, 1)},
	}
}

func view(t *testing.T, s *gobstore.Store) map[int]record.Record {
	t.Helper()
	v := make(map[int]record.Record)
	for n := range 22 {
		rec, err := s.Load(background, idOf(n))
		if err == nil {
			v[n] = rec
		} else if !errors.Is(err, record.ErrNotFound) {
			t.Errorf("Load: %v", err)
		}
	}
	return v
}

// The disk gets full at any byte of a batch. Each of its calls is then told about
// its own change: what was refused is nowhere to be seen, now and later, and what
// was not is there. With a failure of cleaning up it may be told neither, but
// never the wrong one.
func TestGobStoreFullDiskWithinABatch(t *testing.T) {
	t.Parallel()
	template := filepath.Join(t.TempDir(), "log")
	s := open(t, template)
	for n := range 8 {
		testsite.Must(t, s.Save(background, numbered(n, 1), 0))
	}
	log, err := os.ReadFile(template)
	testsite.Must(t, err)
	inOneBatch(t, template, fullCalls(), s)
	info, err := os.Stat(template)
	testsite.Must(t, err)
	size := info.Size() - int64(len(log))

	for _, c := range []struct {
		err  syscall.Errno
		fail string
		step int64
	}{
		{syscall.ENOSPC, "", 13},
		{syscall.EFBIG, "", 71},
		{syscall.EDQUOT, "", 71},
		{syscall.ENOSPC, "truncate", 71},
		{syscall.ENOSPC, "stat", 71},
		{syscall.ENOSPC, "sync", 71},
	} {
		for room := int64(0); room <= size; room += c.step {
			f := &roomFS{FS: fsys.OS, err: c.err, fail: c.fail}
			f.limit(plenty)
			path := filepath.Join(t.TempDir(), "log")
			testsite.Must(t, os.WriteFile(path, log, 0o600))
			fullBatch(t, f, path, room, fmt.Sprintf("%v with room for %d of %d bytes, failing %q", c.err, room, size,
				c.fail))
			if t.Failed() {
				return
			}
		}
	}
}

// fullBatch makes a batch on a disk with so much room, looks at what became of
// it from all sides, and makes it again with room for all.
func fullBatch(t *testing.T, f *roomFS, path string, room int64, when string) {
	t.Helper()
	s, err := openOn(f, path, false, 1<<20)
	testsite.Must(t, err)
	defer s.Close()
	beside := open(t, path)
	calls := fullCalls()
	f.limit(room)
	errs := inOneBatch(t, path, calls, s)
	views := map[string]map[int]record.Record{"at once": view(t, s), "beside it": view(t, beside)}
	f.limit(plenty)
	views["opened again"] = view(t, open(t, path))
	views["with room again"] = view(t, s)
	testsite.Must(t, s.Save(background, numbered(10, 1), 0))
	views["after the next change"] = view(t, s)
	views["after the next change, beside it"] = view(t, beside)
	for i, c := range calls {
		refused := errors.Is(errs[i], f.err)
		conflict := c.name == "replace what was replaced" && errors.Is(errs[i], record.ErrConflict)
		for view, v := range views {
			part, all := c.made(v)
			switch {
			case refused && part:
				t.Errorf("%s: %s: refused with %v, and made all the same, seen %s", when, c.name, errs[i], view)
			case errs[i] == nil && !all:
				t.Errorf("%s: %s: not made, without an error, seen %s", when, c.name, view)
			case conflict && v[0].Version != 2:
				t.Errorf("%s: %s: %v, with version %d stored, seen %s", when, c.name, errs[i], v[0].Version, view)
			case f.fail == "" && !refused && !conflict && errs[i] != nil && part == all:
				t.Errorf("%s: %s: got %v, want a refusal or none, seen %s", when, c.name, errs[i], view)
			}
		}
		if f.fail == "" && c.name == "delete nothing" && errs[i] != nil {
			t.Errorf("%s: %s: got %v, want nil: it needs no room", when, c.name, errs[i])
		}
	}
	for _, c := range calls {
		err := c.do(background, s)
		if _, all := c.made(view(t, s)); (err != nil || !all) && c.name != "replace what was replaced" {
			t.Errorf("%s: %s with room again: %v, made: %t", when, c.name, err, all)
		}
	}
}

// Where the disk turns out to be full when a change is in the file, and is too full
// to make the file anew, asking for the same change again is no refusal either.
func TestGobStoreFullDiskAfterTheAppend(t *testing.T) {
	for _, full := range []syscall.Errno{syscall.ENOSPC, syscall.EFBIG, syscall.EDQUOT} {
		f := &roomFS{FS: fsys.OS, err: full, fail: "sync"}
		f.limit(plenty)
		path := filepath.Join(t.TempDir(), "log")
		s, err := openOn(f, path, false, 1<<20)
		testsite.Must(t, err)
		defer s.Close()
		testsite.Must(t, s.Save(background, numbered(0, 1), 0))
		f.limit(1000)
		for _, try := range []string{"a sync", "making the file anew"} {
			if err := s.Save(background, numbered(0, 2), 1); err == nil || errors.Is(err, full) {
				t.Errorf("Save where %s fails with %v: got %v, want an error that is no refusal", try, full, err)
			}
			f.limit(10)
		}
		f.limit(plenty)
		testsite.Must(t, s.Save(background, numbered(0, 2), 1))
		checkVersions(t, "with room again", path, map[int]uint64{0: 2})
	}
}

// A deletion of many records that gets only so far is no refusal.
func TestGobStoreFullDiskBetweenBatches(t *testing.T) {
	f := &roomFS{FS: fsys.OS, err: syscall.ENOSPC}
	f.limit(plenty)
	s, err := openOn(f, filepath.Join(t.TempDir(), "log"), true, 1<<30)
	testsite.Must(t, err)
	defer s.Close()
	const records = 300 // more than are deleted at once
	for n := range records {
		rec := numbered(n, 1)
		rec.User = "ada"
		testsite.Must(t, s.Save(background, rec, 0))
	}
	delete := func() (int, error) { return s.DeleteUser(background, "ada") }
	before := f.room.Load()
	testsite.Must(t, s.Delete(background, idOf(0)))
	size := before - f.room.Load() // of a deletion
	f.limit(0)
	if n, err := delete(); n != 0 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("DeleteUser without room: got %d, %v, want a refusal", n, err)
	}
	f.limit(280 * size) // more than one batch, and less than all
	n, err := delete()
	if n == 0 || n == records || err == nil || errors.Is(err, syscall.ENOSPC) {
		t.Errorf("DeleteUser with room for a part: got %d, %v, want some and an error that is no refusal", n, err)
	}
	f.limit(plenty)
	if _, err := delete(); err != nil {
		t.Error(err)
	}
}

// However full the disk gets in the midst of it, a deletion of many records returns
// how many are gone, or says that it does not know.
func TestGobStoreCountsOnAFullDisk(t *testing.T) {
	t.Parallel()
	const records = 40
	for name, remove := range map[string]func(*gobstore.Store) (int, error){
		"delete user": func(s *gobstore.Store) (int, error) { return s.DeleteUser(background, "ada") },
		"delete old": func(s *gobstore.Store) (int, error) {
			return s.DeleteOld(background, time.Now().Add(-time.Hour).UnixMicro(), time.Now().UnixMicro())
		},
	} {
		for _, fail := range []string{"", "truncate", "stat", "sync"} {
			parts := 0
			for room := int64(0); room < 60*records; room += 83 {
				f := &roomFS{FS: fsys.OS, err: syscall.ENOSPC, fail: fail}
				f.limit(plenty)
				s, err := openOn(f, filepath.Join(t.TempDir(), "log"), false, 1<<20)
				testsite.Must(t, err)
				for n := range records {
					rec := numbered(n, 1)
					rec.User, rec.Accessed = "ada", time.Now().Add(-2*time.Hour).UnixMicro()
					testsite.Must(t, s.Save(background, rec, 0))
				}
				f.limit(room)
				n, err := remove(s)
				f.limit(plenty)
				gone := 0
				for i := range records {
					if _, err := s.Load(background, idOf(i)); errors.Is(err, record.ErrNotFound) {
						gone++
					}
				}
				if gone > 0 && gone < records {
					parts++
				}
				if n != gone && !(n < gone && errors.Is(err, record.ErrUncertain)) || err == nil && gone < records {
					t.Errorf("%s with room for %d bytes, failing %q, returned %d, %v, and %d are gone", name, room,
						fail, n, err, gone)
				}
				s.Close()
			}
			if parts == 0 {
				t.Errorf("%s, failing %q, was never made in part: the test tests nothing", name, fail)
			}
		}
	}
}
