package filestore_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/session2/session2/internal/faultfs"
	"github.com/session2/session2/internal/filestore"
	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/lockfile"
	"github.com/session2/session2/internal/record"
	"github.com/session2/session2/internal/testsite"
)

func openFile(t testing.TB, dir string, opts filestore.Options) *filestore.Store {
	t.Helper()
	store, err := filestore.Open(fsys.OS, dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// sessionFile returns where a FileStore keeps a record.
func sessionFile(dir string, id [16]byte) string {
	return filepath.Join(dir, "sessions", hexID(id)[:2], hexID(id))
}

func fileRecord(n byte, user string) record.Record {
	now := time.Now()
	return record.Record{ID: [16]byte{n, 15: n}, Version: 1, User: user, Created: now.UnixMicro(),
		Access: access(now, now.Add(time.Hour)), Data: []byte("data")}
}

func access(accessed, expires time.Time) record.Access {
	return record.Access{Accessed: accessed.UnixMicro(), Expires: expires.UnixMicro()}
}

func hexID(id [16]byte) string { return hex.EncodeToString(id[:]) }

// deleteOld sweeps the records that were not accessed for age or have expired.
func deleteOld(ctx context.Context, s *filestore.Store, age time.Duration) (int, error) {
	now := time.Now()
	return s.DeleteOld(ctx, now.Add(-age).UnixMicro(), now.UnixMicro())
}

func mustSave(t testing.TB, s *filestore.Store, rec record.Record, prev uint64) {
	t.Helper()
	if err := s.Save(t.Context(), rec, prev); err != nil {
		t.Fatal(err)
	}
}

// filesIn returns the files below a directory by their paths in it, but for the marks
// of a FileStore's indexes, of which there are four, without content.
func filesIn(t testing.TB, dir string) (names []string) {
	t.Helper()
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && !isIndexMark(path) {
			name, _ := filepath.Rel(dir, path)
			names = append(names, filepath.ToSlash(name))
		}
		return nil
	})
	return names
}

func isIndexMark(path string) bool {
	tree := filepath.Base(filepath.Dir(path))
	return filepath.Base(path) == "complete" && slices.Contains([]string{"users", "new", "accessed", "expires"}, tree)
}

func TestFileStoreNames(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, filestore.Options{})
	rec := fileRecord(0xab, "../../ada/\x00")
	mustSave(t, s, rec, 0)
	want := []string{"ab/" + hexID(rec.ID)}
	if got := filesIn(t, filepath.Join(dir, "sessions")); !slices.Equal(got, want) {
		t.Errorf("files of records are %q, want %q", got, want)
	}
	sum := sha256.Sum256([]byte(rec.User))
	hash := hex.EncodeToString(sum[:])
	want = []string{hash[:2] + "/" + hash + "/" + hexID(rec.ID)}
	if got := filesIn(t, filepath.Join(dir, "users")); !slices.Equal(got, want) {
		t.Errorf("files of users are %q, want %q", got, want)
	}
	if runtime.GOOS == "windows" {
		return
	}
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if info, err := e.Info(); path != dir && (err != nil || info.Mode().Perm()&0o077 != 0) {
			t.Errorf("%s has mode %v, %v: others may read it", path, info.Mode(), err)
		}
		return nil
	})
}

// Who may write to the directory that the store's is in could put one of theirs in its
// place.
func TestFileStoreRefusesAnOpenParent(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("mode bits say nothing here")
		return
	}
	alone := fsys.OwnGroup(os.Getegid())
	for mode, want := range map[fs.FileMode][2]bool{ // without SharedGroup, and with it
		0o700: {true, true}, 0o755: {true, true}, 0o775: {alone, true}, 0o777: {false, false},
		fs.ModeSticky | 0o777: {true, true}, fs.ModeSetgid | 0o770: {alone, true},
	} {
		for i, shared := range []bool{false, true} {
			parent := t.TempDir()
			testsite.Must(t, os.Chmod(parent, mode))
			s, err := filestore.Open(fsys.OS, filepath.Join(parent, "s"), filestore.Options{SharedGroup: shared})
			if (err == nil) != want[i] || err != nil && !strings.Contains(err.Error(), parent+": others may write") {
				t.Errorf("in a directory of mode %v, shared=%t: %v", mode, shared, err)
			}
			if err == nil {
				s.Close()
			}
		}
	}
}

// So could its owner, whatever its mode.
func TestFileStoreRefusesAnothersParent(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can give a directory away; not checked")
		return
	}
	for _, mode := range []fs.FileMode{0o700, 0o755, fs.ModeSticky | 0o777} {
		for shared, gid := range map[bool]int{false: -1, true: 12345} {
			parent := t.TempDir()
			testsite.Must(t, os.Chown(parent, 12345, gid))
			testsite.Must(t, os.Chmod(parent, mode))
			s, err := filestore.Open(fsys.OS, filepath.Join(parent, "s"), filestore.Options{SharedGroup: shared})
			if err == nil || !strings.Contains(err.Error(), parent+": it belongs to another user") {
				t.Errorf("in another user's directory of mode %v: %v", mode, err)
			}
			if err == nil {
				s.Close()
			}
		}
	}
	parent := t.TempDir() // its group is root's own
	testsite.Must(t, os.Chown(parent, 12345, -1))
	s, err := filestore.Open(fsys.OS, filepath.Join(parent, "s"), filestore.Options{SharedGroup: true})
	testsite.Must(t, err)
	s.Close()
}

func TestFileStoreRefusesFolders(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("mode bits say nothing here")
		return
	}
	for _, sub := range []string{".", "sessions", "locks", "due/new"} {
		for _, mode := range []fs.FileMode{0o720, 0o702, 0o777} {
			if mode == 0o720 && fsys.OwnGroup(os.Getegid()) {
				continue
			}
			dir := t.TempDir()
			openFile(t, dir, filestore.Options{})
			os.Chmod(filepath.Join(dir, sub), mode)
			if _, err := filestore.Open(fsys.OS, dir, filestore.Options{}); err == nil ||
				!strings.Contains(err.Error(), "others may write") {
				t.Errorf("%s with mode %v: error %v, want a refusal", sub, mode, err)
			}
		}
	}
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)
	if _, err := filestore.Open(fsys.OS, filepath.Join(dir, "file"), filestore.Options{}); err == nil {
		t.Error("a file is accepted as the directory")
	}
	os.Symlink(t.TempDir(), filepath.Join(dir, "sessions"))
	if _, err := filestore.Open(fsys.OS, dir, filestore.Options{}); err == nil {
		t.Error("a link is accepted as a subdirectory")
	}
}

func TestFileStoreRefusesOthersFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can give a directory away; not checked")
		return
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 12345, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := filestore.Open(fsys.OS, dir, filestore.Options{}); err == nil ||
		!strings.Contains(err.Error(), "another user") {
		t.Errorf("another user's directory: error %v, want a refusal", err)
	}
}

// A record of a later version of session2 is not ours to put away.
func TestFileStoreLaterFormat(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, filestore.Options{})
	rec := fileRecord(1, "")
	mustSave(t, s, rec, 0)
	name := sessionFile(dir, rec.ID)
	b, _ := os.ReadFile(name)
	b[record.HeadSize] = 2
	body := b[record.HeadSize : len(b)-4]
	binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	os.WriteFile(name, b, 0o600)
	for range 2 {
		if _, err := s.Load(t.Context(), rec.ID); !errors.Is(err, record.ErrCorrupt) {
			t.Errorf("Load: %v, want ErrCorrupt", err)
		}
	}
	if err := s.Delete(t.Context(), rec.ID); err != nil {
		t.Error(err)
	}
	if has, err := s.Has(t.Context(), rec.ID); has || err != nil {
		t.Errorf("Has after Delete = %v, %v", has, err)
	}
}

// Touch writes a few bytes of the same file: no new file, nothing else changed.
func TestFileStoreTouchesInPlace(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, filestore.Options{})
	rec := fileRecord(1, "ada")
	rec.Data = make([]byte, 100_000)
	mustSave(t, s, rec, 0)
	name := sessionFile(dir, rec.ID)
	before, _ := os.Stat(name)
	was, _ := os.ReadFile(name)
	for range 3 {
		if err := s.Touch(t.Context(), rec.ID, rec.Access); err != nil {
			t.Fatal(err)
		}
		rec.Accessed += time.Minute.Microseconds()
	}
	after, _ := os.Stat(name)
	is, _ := os.ReadFile(name)
	if !os.SameFile(before, after) {
		t.Error("Touch replaced the file")
	}
	if !bytes.Equal(was[record.HeadSize:], is[record.HeadSize:]) {
		t.Error("Touch changed more than the access")
	}
}

// Readers take no lock: they are not held up by a writer that has stopped.
func TestFileStoreReadsWithoutLock(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, filestore.Options{})
	rec := fileRecord(7, "")
	mustSave(t, s, rec, 0)
	m := lockfile.New(func() (lockfile.File, error) {
		return os.OpenFile(filepath.Join(dir, "locks", "07"), os.O_RDWR, 0)
	})
	unlock, err := m.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if _, err := s.Load(t.Context(), rec.ID); err != nil {
		t.Errorf("Load beside a writer: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	rec.Version = 2
	if err := s.Save(ctx, rec, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Save beside a writer: %v, want the context's error", err)
	}
	rec = fileRecord(8, "")
	mustSave(t, s, rec, 0) // another lock
}

// A process that stands still with a lock holds nobody up for good, with or without a
// deadline; nor who opens an empty store. A sweep waits for another one.
func TestFileStoreNamesAHeldLock(t *testing.T) {
	dir := t.TempDir()
	opts := filestore.Options{Timeout: time.Millisecond, NoSync: true}
	s := openFile(t, dir, opts)
	hold := func(name string) (unlock func()) {
		unlock, err := lockfile.New(func() (lockfile.File, error) {
			return os.OpenFile(filepath.Join(dir, "locks", name), os.O_RDWR|os.O_CREATE, 0o600)
		}).Lock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return unlock
	}
	held := func(what, name string, err error) {
		t.Helper()
		if !errors.Is(err, lockfile.ErrHeld) || !strings.Contains(err.Error(), filepath.Join(dir, "locks", name)) {
			t.Errorf("%s: got %v, want %v, with the file's name", what, err, lockfile.ErrHeld)
		}
	}
	ctx := context.Background()
	unlock := hold("sweep")
	if err := os.Remove(filepath.Join(dir, "users", "complete")); err != nil {
		t.Fatal(err)
	}
	_, err := filestore.Open(fsys.OS, dir, opts)
	held("Open", "sweep", err)
	_, err = deleteOld(lockfile.WithPatience(ctx, time.Millisecond), s, time.Hour)
	held("an impatient DeleteOld", "sweep", err)
	soon, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if _, err := deleteOld(soon, s, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("DeleteOld beside another one: got %v, want the context's error", err)
	}
	unlock()
	old := fileRecord(7, "ada")
	old.Expires = 1
	mustSave(t, s, old, 0)
	defer hold("07")()
	held("Delete", "07", s.Delete(ctx, old.ID))
	_, err = s.DeleteUser(ctx, "ada")
	held("DeleteUser", "07", err)
	_, err = deleteOld(ctx, s, time.Hour)
	held("DeleteOld", "07", err)
}

// counting counts how often a file below sessions is opened.
type counting struct {
	fsys.FS
	opens atomic.Int64
}

func (c *counting) OpenFile(name string, flag int, perm fs.FileMode) (fsys.File, error) {
	if strings.Contains(filepath.ToSlash(name), "/sessions/") {
		c.opens.Add(1)
	}
	return c.FS.OpenFile(name, flag, perm)
}

// The cost of a sweep follows what it deletes.
func TestFileStoreSweepsByIndex(t *testing.T) {
	c := &counting{FS: fsys.OS}
	s, err := filestore.Open(c, t.TempDir(), filestore.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		rec := fileRecord(byte(i), "ada")
		if i < 5 {
			rec.Expires = time.Now().Add(-time.Second).UnixMicro()
		}
		mustSave(t, s, rec, 0)
	}
	for _, want := range []struct{ deleted, opens int }{{5, 5}, {0, 0}} {
		c.opens.Store(0)
		n, err := deleteOld(t.Context(), s, time.Hour)
		if err != nil || n != want.deleted || c.opens.Load() > int64(want.opens) {
			t.Errorf("DeleteOld = %d, %v, and opens %d of 200 records; want %d deleted, %d opened", n, err,
				c.opens.Load(), want.deleted, want.opens)
		}
	}
	if n, err := deleteOld(t.Context(), s, 0); n != 195 || err != nil {
		t.Errorf("DeleteOld(0) = %d, %v; want the other 195", n, err)
	}
}

// Entries whose record lives on are filed again, once.
func TestFileStoreSweepsLater(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, filestore.Options{NoSync: true})
	now := time.Now()
	rec := fileRecord(1, "ada")
	rec.Access = access(now.Add(-2*time.Hour), now.Add(time.Minute))
	mustSave(t, s, rec, 0)
	if err := s.Touch(t.Context(), rec.ID, access(now.Add(-30*time.Minute), now.Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
	for range 3 { // by its first times it would be due
		if n, err := deleteOld(t.Context(), s, time.Hour); n != 0 || err != nil {
			t.Errorf("DeleteOld = %d, %v; want the touched record to live", n, err)
		}
	}
	if got := len(filesIn(t, filepath.Join(dir, "due"))); got != 2 {
		t.Errorf("%d files in the index by time, want one in each tree: %v", got,
			filesIn(t, filepath.Join(dir, "due")))
	}
	if n, err := deleteOld(t.Context(), s, 20*time.Minute); n != 1 || err != nil {
		t.Errorf("DeleteOld = %d, %v; want the record", n, err)
	}
}

// What killed writers leave is removed where it is met, and nobody else's.
func TestFileStoreSweepsLeftovers(t *testing.T) {
	for name, sweep := range map[string]func(t *testing.T, s *filestore.Store){
		"DeleteOld": func(t *testing.T, s *filestore.Store) { deleteOld(t.Context(), s, 0) },
		"Delete":    func(t *testing.T, s *filestore.Store) { s.Delete(t.Context(), fileRecord(1, "").ID) },
		"Iter": func(t *testing.T, s *filestore.Store) {
			for range s.Iter(t.Context()) {
			}
		},
	} {
		dir := t.TempDir()
		s := openFile(t, dir, filestore.Options{})
		rec := fileRecord(1, "ada")
		mustSave(t, s, rec, 0)
		temp := fsys.Temp(sessionFile(dir, rec.ID))
		os.WriteFile(temp, []byte("half a rec"), 0o600)
		sweep(t, s)
		if _, err := os.Lstat(temp); err == nil {
			t.Errorf("%s leaves the temporary of a killed writer", name)
		}
	}
}

// A torn or foreign entry in the index leads nowhere and hides no other.
func TestFileStoreTornEntries(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, filestore.Options{})
	name := filepath.Join(dir, "due", "new", "01")
	os.WriteFile(name, make([]byte, 36+7), 0o600) // zeros where a power cut lost data, and a part
	mustSave(t, s, fileRecord(1, "ada"), 0)
	os.WriteFile(filepath.Join(dir, "due", "new", "zz"), []byte("foreign"), 0o600)
	os.WriteFile(filepath.Join(dir, "due", "expires", "0000000000000000.tmp"), []byte("left"), 0o600)
	if n, err := deleteOld(t.Context(), s, 0); n != 1 || err != nil {
		t.Errorf("DeleteOld = %d, %v; want 1", n, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "due", "expires", "0000000000000000.tmp")); err == nil {
		t.Error("the temporary of a killed sweep is left")
	}
}

// leftovers returns what a FileStore has beside its locks, which have no size and
// whose number is fixed.
func leftovers(t *testing.T, dir string) (names []string) {
	t.Helper()
	for _, name := range filesIn(t, dir) {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(name, "locks/") || info.Size() > 0 {
			names = append(names, name)
		}
	}
	if locks := filesIn(t, filepath.Join(dir, "locks")); len(locks) > 258 {
		t.Errorf("%d locks", len(locks))
	}
	return names
}

// Sessions that expire under Manager.Cleanup, which goes by no age, leave nothing,
// also while others live on.
func TestFileStoreCleanupLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, filestore.Options{NoSync: true})
	for round := range 5 {
		for i := range byte(100) {
			rec := fileRecord(i, "ada")
			rec.ID[1] = byte(round)
			rec.Accessed -= (time.Duration(i) * time.Hour).Microseconds()
			rec.Expires = time.Now().UnixMicro()
			mustSave(t, s, rec, 0)
		}
		if n, err := deleteOld(t.Context(), s, math.MaxInt64); n != 100 || err != nil {
			t.Fatalf("DeleteOld: got %d, %v, want 100", n, err)
		}
		if left := leftovers(t, dir); len(left) > 0 {
			t.Fatalf("round %d leaves %d files: %.200q", round, len(left), left)
		}
	}
}

// Where nobody sweeps, sessions that end by a logout leave a few entries at most,
// however many there were.
func TestFileStoreWithoutSweepsLeavesLittle(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir, filestore.Options{NoSync: true})
	nth := func(i int) record.Record {
		rec := fileRecord(byte(i%4), "ada")
		rec.ID[1] = byte(i)
		return rec
	}
	few := func(when string) {
		t.Helper()
		for _, name := range leftovers(t, dir) {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil || info.Size() > 16*36 || !strings.HasPrefix(name, "due/new/") {
				t.Errorf("%s: left: %s of %d bytes, %v", when, name, info.Size(), err)
			}
		}
	}
	for i := range 200 {
		mustSave(t, s, nth(i), 0)
		if err := s.Delete(t.Context(), nth(i).ID); err != nil {
			t.Fatal(err)
		}
	}
	few("one after the other")
	for i := range 200 {
		mustSave(t, s, nth(i), 0)
	}
	if n, err := s.DeleteUser(t.Context(), "ada"); n != 200 || err != nil {
		t.Fatalf("DeleteUser: got %d, %v, want 200", n, err)
	}
	few("all at once")
}

// A Save that fails before it stores anything leaves nothing that a sweep would
// not take.
func TestFileStoreFailedSaveLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	f := faultfs.New()
	s, err := filestore.Open(f, dir, filestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	full := &atomic.Bool{}
	f.FS = faultfs.Full{FS: fsys.OS, Now: full}
	for _, prev := range []uint64{0, 1} {
		rec := fileRecord(1, "ada")
		rec.Version = 1 + prev
		full.Store(true)
		if err := s.Save(t.Context(), rec, prev); err == nil {
			t.Fatal("saved on a full disk")
		}
		full.Store(false)
		deleteOld(t.Context(), s, time.Hour)
		for _, name := range leftovers(t, dir) {
			if strings.HasPrefix(name, "users/fd/") {
				t.Errorf("left: %s", name)
			}
		}
		if prev == 0 {
			mustSave(t, s, fileRecord(1, "bob"), 0)
		}
	}
}

// lstats counts the looks at records.
type lstats struct {
	fsys.FS
	n atomic.Int64
}

func (l *lstats) Lstat(name string) (fs.FileInfo, error) {
	if strings.Contains(filepath.ToSlash(name), "/sessions/") {
		l.n.Add(1)
	}
	return l.FS.Lstat(name)
}

// A sweep that finds nothing to drop looks at a few records, however many live.
func TestFileStoreThinsAtNoCost(t *testing.T) {
	l := &lstats{FS: fsys.OS}
	s, err := filestore.Open(l, t.TempDir(), filestore.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	var looks [2]int64
	for i := range looks {
		for j := range 1000 {
			rec := fileRecord(byte(j), "ada")
			rec.ID[1], rec.ID[2] = byte(j>>8), byte(i)
			rec.Accessed -= (time.Duration(j) * time.Minute).Microseconds()
			mustSave(t, s, rec, 0)
		}
		for range 2 { // the first one takes the entries over
			l.n.Store(0)
			if n, err := deleteOld(t.Context(), s, math.MaxInt64); n != 0 || err != nil {
				t.Fatalf("DeleteOld: got %d, %v, want 0", n, err)
			}
		}
		looks[i] = l.n.Load()
	}
	if looks[1] > 2*8*16 {
		t.Errorf("a sweep looks at %d records of 1000 and at %d of 2000", looks[0], looks[1])
	}
}

// fileMix does random things to a store.
type fileMix struct {
	*filestore.Store
	rnd *rand.Rand
}

func (m *fileMix) time() time.Time {
	return time.Now().Add(time.Duration(m.rnd.Int64N(int64(60*24*time.Hour))) - 20*24*time.Hour)
}

func (m *fileMix) access() record.Access { return access(m.time(), m.time()) }

func (m *fileMix) record(id [16]byte) record.Record {
	return record.Record{ID: id, Version: uint64(m.rnd.Uint64() | 1), User: killUsers[m.rnd.IntN(len(killUsers))],
		Created: time.Now().UnixMicro(), Access: m.access(), Data: make([]byte, m.rnd.IntN(100))}
}

func (m *fileMix) pick() [16]byte {
	return [16]byte{byte(m.rnd.IntN(6)), byte(m.rnd.IntN(30))}
}

// step does one thing, now and then with a context that ends in its midst, and
// sees what it came to.
func (m *fileMix) step(t *testing.T) error {
	ctx, id := t.Context(), m.pick()
	if m.rnd.IntN(10) == 0 {
		ctx = &endingContext{Context: ctx, looks: 1 + m.rnd.IntN(12), done: make(chan struct{})}
	}
	var err error
	switch m.rnd.IntN(16) {
	case 0:
		err = m.Delete(ctx, id)
	case 1:
		_, err = m.DeleteUser(ctx, killUsers[m.rnd.IntN(len(killUsers))], m.pick(), m.pick())
	case 2:
		ages := []time.Duration{math.MaxInt64, math.MaxInt64, time.Hour, 10 * 24 * time.Hour, 0}
		_, err = deleteOld(ctx, m.Store, ages[m.rnd.IntN(len(ages))])
	case 3, 4:
		err = m.Touch(ctx, id, m.access())
	default:
		old, _ := m.Load(t.Context(), id)
		err = m.Save(ctx, m.record(id), old.Version)
	}
	if ctx != t.Context() && err != nil { // it was told to end
		return nil
	}
	return err
}

// endingContext is done once it was looked at so many times.
type endingContext struct {
	context.Context
	looks int
	done  chan struct{}
}

func (c *endingContext) Done() <-chan struct{} {
	if c.looks--; c.looks == 0 {
		close(c.done)
	}
	return c.done
}

func (c *endingContext) Err() error {
	select {
	case <-c.Done():
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// end ends all sessions, one way or another.
func (m *fileMix) end(t *testing.T) {
	ctx := t.Context()
	var err error
	switch m.rnd.IntN(3) {
	case 0:
		for rec := range m.Iter(ctx) {
			if err == nil {
				err = m.Delete(ctx, rec.ID)
			}
		}
	case 1:
		for _, user := range killUsers {
			_, err = m.DeleteUser(ctx, user)
		}
		fallthrough
	default:
		for rec := range m.Iter(ctx) { // some have times to come
			rec, prev := m.record(rec.ID), rec.Version
			rec.User, rec.Expires = "", time.Now().UnixMicro()
			if err == nil {
				err = m.Save(ctx, rec, prev)
			}
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Once all sessions have ended, a sweep as Cleanup does it leaves nothing,
// whatever went before.
func TestFileStoreLeavesNothing(t *testing.T) {
	seed := rand.Uint64()
	dir := t.TempDir()
	m := &fileMix{Store: openFile(t, dir, filestore.Options{NoSync: true}), rnd: rand.New(rand.NewPCG(seed, 0))}
	for round := range 8 {
		for range m.rnd.IntN(300) {
			if err := m.step(t); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		m.end(t)
		if _, err := deleteOld(t.Context(), m.Store, math.MaxInt64); err != nil {
			t.Fatal(err)
		}
		for rec := range m.Iter(t.Context()) {
			t.Errorf("seed %d, round %d: %v is still there", seed, round, rec.ID)
		}
		if left := leftovers(t, dir); len(left) > 0 {
			t.Fatalf("seed %d, round %d: %d files are left: %.300q", seed, round, len(left), left)
		}
	}
}

// brokenFS fails at what has a certain name.
type brokenFS struct {
	fsys.FS
	name string // a suffix
}

func (b *brokenFS) fault(name string) error {
	if b.name != "" && strings.HasSuffix(filepath.ToSlash(name), b.name) {
		return &fs.PathError{Op: "use", Path: name, Err: syscall.EIO}
	}
	return nil
}

func (b *brokenFS) OpenFile(name string, flag int, perm fs.FileMode) (fsys.File, error) {
	if err := b.fault(name); err != nil {
		return nil, err
	}
	return b.FS.OpenFile(name, flag, perm)
}

func (b *brokenFS) Rename(oldName, newName string) error {
	if err := b.fault(newName); err != nil {
		return err
	}
	return b.FS.Rename(oldName, newName)
}

func (b *brokenFS) SyncDir(name string) error {
	if err := b.fault(name); err != nil {
		return err
	}
	return b.FS.SyncDir(name)
}

// What a sweep fails at does not keep it from the rest; and later it does that, too.
func TestFileStoreSweepsPastFailures(t *testing.T) {
	for _, test := range []struct {
		fails string // the bucket of the first record if empty
		filed bool   // the entries are in buckets
		n     int    // what is removed meanwhile
	}{
		{fails: "/sessions/01", n: 2},
		{fails: "/sessions/01", filed: true, n: 2},
		{fails: "/sessions/01/" + hexID(fileRecord(1, "").ID), n: 1},
		{fails: "/sessions/01/" + hexID(fileRecord(1, "").ID), filed: true, n: 1},
		{fails: "/new/01.old", n: 2},
		{fails: "/due/new", n: 0},
		{filed: true, n: 1},
	} {
		dir := t.TempDir()
		b := &brokenFS{FS: fsys.OS}
		s, err := filestore.Open(b, dir, filestore.Options{})
		testsite.Must(t, err)
		mustSave(t, s, agedRecord(1, 4), 0)
		mustSave(t, s, agedRecord(2, 3), 0)
		if test.filed {
			sweeps(t, "before", s, math.MaxInt64, 0, nil)
		}
		if b.name = test.fails; b.name == "" {
			b.name = filesIn(t, filepath.Join(dir, "due", "accessed"))[0]
		}
		n, err := deleteOld(t.Context(), s, time.Hour)
		if err == nil || n != test.n {
			t.Errorf("%s fails: DeleteOld returns %d, %v, want %d and an error", b.name, n, err, test.n)
		}
		b.name = ""
		sweeps(t, "in the end", s, time.Hour, 2-n, nil)
		if left := filesIn(t, filepath.Join(dir, "sessions")); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	}
}
