package boltstore_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/boltstore"
	"github.com/session2/session2/internal/testsite"
)

// filesOpen returns how many files this process has open, or zero where the
// system does not tell.
func filesOpen() int {
	entries, _ := os.ReadDir("/proc/self/fd")
	return len(entries)
}

// shareRoots lets the bucket of users begin at the page of another one.
func shareRoots(whole []byte) []byte {
	data := bytes.Clone(whole)
	from, to := []byte("expires"), []byte("users")
	for i := range whole { // on each copy of the page of buckets
		if !bytes.HasPrefix(whole[i:], from) {
			continue
		}
		j := i + bytes.Index(whole[i:], to)
		copy(data[j+len(to):], whole[i+len(from):i+len(from)+8])
	}
	return data
}

// breakFreelist makes bbolt panic over its list of free pages, which is on a page
// of the kind 16 after it has written without our options.
func breakFreelist(data []byte) []byte {
	for at := 0; at < len(data); at += os.Getpagesize() {
		if data[at+8] == 16 {
			data[at+8] = 64
		}
	}
	return data
}

// A file that is refused is let go: put right, it opens at once.
func TestBoltRefusedFileIsLetGo(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sessions.db")
	b := openStore(t, dir)
	for i := range uint64(200) {
		save(t, b, newRecord(i, fmt.Sprint(i)))
	}
	testsite.Must(t, b.Close())
	whole, err := os.ReadFile(path)
	testsite.Must(t, err)
	edited := func(f func(tx *bolt.Tx) error) []byte {
		testsite.Must(t, os.WriteFile(path, whole, 0o600))
		edit(t, dir, f)
		data, err := os.ReadFile(path)
		testsite.Must(t, err)
		return data
	}
	for name, data := range map[string][]byte{
		"not a database": bytes.Repeat([]byte("no database\n"), 10_000),
		"later format": edited(func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("meta")).Put([]byte("format"), []byte("2"))
		}),
		"no bucket of users":     edited(func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("users")) }),
		"a page in two buckets":  shareRoots(whole),
		"a panic inside of bolt": breakFreelist(edited(func(*bolt.Tx) error { return nil })),
	} {
		testsite.Must(t, os.WriteFile(path, data, 0o600))
		before := filesOpen()
		if b, err := session2.OpenBoltStore(path, nil); err == nil {
			b.Close()
			t.Errorf("%s: opened", name)
		}
		if n := filesOpen(); n != before {
			t.Errorf("%s: %d files are open, want %d as before", name, n, before)
		}
		testsite.Must(t, os.WriteFile(path, whole, 0o600))
		b, err := session2.OpenBoltStore(path, nil)
		if err != nil {
			t.Fatalf("%s, put right: %v", name, err)
		}
		testsite.Must(t, b.Close())
	}
}

// After bbolt has panicked in a commit the store takes no more changes, says so at
// once, and lets the file go when it is closed.
func TestBoltBrokenStoreIsLetGo(t *testing.T) {
	dir := t.TempDir()
	b, c := openBack(t, dir)
	save(t, b, backRecord(1, ""))
	c.breaks = true
	if err := b.Save(t.Context(), backRecord(2, ""), 0); err == nil || errors.Is(err, fs.ErrClosed) {
		t.Errorf("the Save that broke it: %v, want an error that is no refusal", err)
	}
	if err := b.Save(t.Context(), backRecord(2, ""), 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("a later Save: %v, want fs.ErrClosed", err)
	}
	testsite.Must(t, b.Close())
	if _, err := b.Load(t.Context(), backRecord(1, "").ID); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Load after Close: %v, want fs.ErrClosed", err)
	}
	if _, err := openStore(t, dir).Load(t.Context(), backRecord(1, "").ID); err != nil {
		t.Errorf("opened again: %v", err)
	}
}

// A refusal of the system is one where nothing was changed, and none where the
// change shows.
func TestBoltRefusals(t *testing.T) {
	for _, refusal := range []error{syscall.EROFS, fs.ErrPermission} {
		err := fmt.Errorf("write: %w", refusal)
		b, c := openBack(t, t.TempDir())
		c.failed = err
		if err := b.Save(t.Context(), backRecord(1, ""), 0); !errors.Is(err, refusal) {
			t.Errorf("nothing changed: %v, want %v", err, refusal)
		}
		b, c = openBack(t, t.TempDir())
		c.lost = err
		if err := b.Save(t.Context(), backRecord(1, ""), 0); err == nil || errors.Is(err, refusal) {
			t.Errorf("changed and not known to be durable: %v, want an error that is no refusal", err)
		}
		if _, err := b.Load(t.Context(), backRecord(1, "").ID); err != nil {
			t.Errorf("Load: %v", err)
		}
	}
}

// Damaged records do not tell where their index entries are. When no record is
// left, a sweep finds these.
func TestBoltSweepsWhatDamageLeft(t *testing.T) {
	dir := t.TempDir()
	b := openStore(t, dir)
	for i := range uint64(20) {
		save(t, b, newRecord(i, "alice"))
	}
	testsite.Must(t, b.Close())
	edit(t, dir, func(tx *bolt.Tx) error {
		for i := range uint64(20) {
			id := newRecord(i, "").ID
			bucket := []string{"sessions", "access"}[i%2]
			testsite.Must(t, damage(tx, bucket, id[:]))
		}
		return nil
	})
	b = openStore(t, dir)
	for i := range uint64(20) {
		testsite.Must(t, b.Delete(t.Context(), newRecord(i, "").ID))
	}
	if _, err := b.DeleteOld(t.Context(), 1<<62); err != nil {
		t.Fatal(err)
	}
	testsite.Must(t, b.Close())
	if dump := contents(t, dir); len(dump) != 1 {
		t.Errorf("left behind: %q", dump)
	}
}

// A file that may not grow any more (RLIMIT_FSIZE, or the largest file of the file
// system) is a refusal: it comes at once, is known as one, and changes nothing.
func TestBoltFileTooLarge(t *testing.T) {
	if dir := os.Getenv("SESSION2_BOLT_CHILD"); dir != "" {
		fill(t, dir)
		return
	}
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such limit")
	}
	cmd := child(t, t.TempDir())
	cmd.Args = append([]string{"sh", "-c", `ulimit -f 700; exec "$0" "$@"`}, cmd.Args...)
	cmd.Path, cmd.Err = exec.LookPath("sh")
	if out, err := cmd.Output(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// fill saves until the file is too large.
func fill(t *testing.T, dir string) {
	b := openStore(t, dir)
	n := uint64(0)
	save := func() error {
		rec := newRecord(n, "")
		rec.Data = make([]byte, 10_000)
		return b.Save(t.Context(), rec, 0)
	}
	var err error
	for ; err == nil && n < 1000; n++ {
		err = save()
	}
	n-- // of the one that was refused
	if !errors.Is(err, syscall.EFBIG) {
		t.Errorf("Save = %v, want EFBIG", err)
	}
	if _, err := b.Load(t.Context(), newRecord(n, "").ID); !errors.Is(err, session2.ErrNotFound) {
		t.Errorf("Load of what was refused: %v", err)
	}
	site := testsite.NewSite(t, b, session2.Config{CommitTimeout: time.Hour})
	w := site.Do(&testsite.Browser{}, func(s *session2.Session) { s.Set("key", make([]byte, 50_000)) })
	if w.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %d, want 503", w.StatusCode)
	}
	for i := range n { // with room again, it goes on
		testsite.Must(t, b.Delete(t.Context(), newRecord(i, "").ID))
	}
	testsite.Must(t, save())
}

func TestBoltCorruptRecordIsAlone(t *testing.T) {
	for _, bucket := range []string{"sessions", "access"} {
		t.Run(bucket, func(t *testing.T) {
			dir := t.TempDir()
			b := openStore(t, dir)
			bad, good := newRecord(1, "ann"), newRecord(2, "ann")
			save(t, b, bad, good)
			b.Close()
			edit(t, dir, func(tx *bolt.Tx) error { return damage(tx, bucket, bad.ID[:]) })
			b = openStore(t, dir)
			wantCorrupt := func(what string, err error) {
				t.Helper()
				if !errors.Is(err, session2.ErrCorrupt) || !strings.Contains(err.Error(), bad.ID.String()) {
					t.Errorf("%s: %v, want ErrCorrupt and the ID", what, err)
				}
			}
			_, err := b.Load(t.Context(), bad.ID)
			wantCorrupt("Load", err)
			for what, seq := range map[string]iter.Seq2[session2.Record, error]{
				"Iter": b.Iter(t.Context()), "IterUser": b.IterUser(t.Context(), "ann"),
			} {
				n, errs := list(seq)
				if n != 1 || len(errs) != 1 {
					t.Fatalf("%s: %d records, errors %v", what, n, errs)
				}
				wantCorrupt(what, errs[0])
			}
			if n, err := b.DeleteUser(t.Context(), "ann"); n != 2 || err != nil {
				t.Errorf("DeleteUser = %d, %v, want 2", n, err)
			}
		})
	}
}

func TestBoltDamagedIndexes(t *testing.T) {
	dir := t.TempDir()
	b := openStore(t, dir)
	ann, bob := newRecord(1, "ann"), newRecord(2, "bob")
	ghost := newRecord(3, "").ID
	save(t, b, ann, bob)
	b.Close()
	edit(t, dir, func(tx *bolt.Tx) error {
		for bucket, keys := range map[string][][]byte{
			"accessed": {boltstore.TimeKey(0, ann.ID), boltstore.TimeKey(0, ghost), {0}, make([]byte, 30)},
			"expires":  {boltstore.TimeKey(0, ann.ID), boltstore.TimeKey(0, ghost), {0}, make([]byte, 30)},
			"users": {boltstore.UserKey("ann", bob.ID), boltstore.UserKey("ann", ghost),
				boltstore.UserKey("ann", ghost)[:20], {0}},
		} {
			for _, key := range keys {
				if err := tx.Bucket([]byte(bucket)).Put(key, []byte("?")); err != nil {
					return err
				}
			}
		}
		return nil
	})
	b = openStore(t, dir)
	if n, errs := list(b.IterUser(t.Context(), "ann")); n != 1 || errs != nil {
		t.Errorf("IterUser saw %d records, errors %v, want 1", n, errs)
	}
	if n, err := b.DeleteOld(t.Context(), time.Minute); n != 0 || err != nil {
		t.Errorf("DeleteOld = %d, %v, want 0: both records are fresh", n, err)
	}
	if n, err := b.DeleteUser(t.Context(), "ann"); n != 1 || err != nil {
		t.Errorf("DeleteUser = %d, %v, want 1", n, err)
	}
	if n, errs := list(b.IterUser(t.Context(), "bob")); n != 1 || errs != nil {
		t.Errorf("bob has %d records, errors %v, want 1", n, errs)
	}
}

// Damaged pages are errors; they neither end the process nor hang it.
func TestBoltDamagedPages(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	path := filepath.Join(dir, "sessions.db")
	b := openStore(t, dir)
	for i := range uint64(200) {
		save(t, b, newRecord(i, fmt.Sprint(i)))
	}
	b.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	damaged := 0
	for i := range 100 {
		data := bytes.Clone(whole)
		// Two times in three in the page's header or its first elements.
		at := rnd.IntN(len(data)/page-2)*page + 2*page + rnd.IntN([]int{16, 80, page}[i%3]-3)
		binary.LittleEndian.PutUint32(data[at:], rnd.Uint32())
		if i == 0 {
			data = whole[:len(whole)/2]
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := session2.OpenBoltStore(path, &session2.BoltOptions{NoSync: true})
		if err != nil {
			damaged++
			continue
		}
		_, errs := list(b.Iter(t.Context()))
		_, err = b.DeleteOld(t.Context(), 0)
		if errs != nil || err != nil {
			damaged++
		}
		b.Close()
	}
	if damaged == 0 {
		t.Error("no damage was noticed")
	}
}

// A list of free pages that takes one for free which is in use would have bbolt write over
// it: the file is refused. The list is long, so that its number stands in the list itself.
func TestBoltListOfFreePages(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sessions.db")
	openStore(t, dir).Close()
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true})
	testsite.Must(t, err)
	size := db.Info().PageSize
	testsite.Must(t, db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("sessions")).Put([]byte("long"), make([]byte, 66_000*size))
	}))
	testsite.Must(t, db.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte("sessions")).Delete([]byte("long")) }))
	testsite.Must(t, db.Close())
	wantList := func(want bool) {
		t.Helper()
		if listed, err := boltstore.CheckFile(path); listed != want || err != nil {
			t.Fatalf("there is a list: %v, %v, want %v", listed, err, want)
		}
	}
	wantList(true)
	b := openStore(t, dir)
	save(t, b, newRecord(1, "ann"))
	wantNoList(t, path)
	testsite.Must(t, b.Close())
	wantList(true)

	f, err := os.OpenFile(path, os.O_RDWR, 0)
	testsite.Must(t, err)
	defer f.Close()
	list := listOf(t, f, size)
	var used [8]byte
	if n, err := f.ReadAt(used[:], list+16); err != nil || binary.NativeEndian.Uint64(used[:n]) < 65_000 {
		t.Fatalf("%d pages are free, %v", binary.NativeEndian.Uint64(used[:]), err)
	}
	binary.NativeEndian.PutUint64(used[:], uint64(list/int64(size))) // its own page
	if _, err := f.WriteAt(used[:], list+16+8); err != nil {
		t.Fatal(err)
	}
	wantOpenError(t, path, "takes a page for free that is not")
}

// What is cut off may be free pages alone, so that all that is alive can be read. The next
// change would write behind the end.
func TestBoltCutOff(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sessions.db")
	b := openStore(t, dir)
	r := newRecord(1, "ann")
	for _, r.Data = range [][]byte{make([]byte, 1<<20), nil} {
		save(t, b, r)
		_, err := b.DeleteUser(t.Context(), r.User)
		testsite.Must(t, err)
	}
	testsite.Must(t, b.Close())
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	testsite.Must(t, err)
	var size int64
	testsite.Must(t, db.View(func(tx *bolt.Tx) error { size = tx.Size(); return nil }))
	testsite.Must(t, db.Close())
	testsite.Must(t, os.Truncate(path, size))
	openStore(t, dir).Close()
	for _, size := range []int64{size - 1, size * 3 / 4, size / 2} {
		testsite.Must(t, os.Truncate(path, size))
		wantOpenError(t, path, "was cut off after")
	}
}

// wantNoList finds that a file in use has no list: a copy of it opens by a search.
func wantNoList(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	testsite.Must(t, err)
	copied := filepath.Join(t.TempDir(), "copy.db")
	testsite.Must(t, os.WriteFile(copied, data, 0o600))
	if listed, err := boltstore.CheckFile(copied); listed || err != nil {
		t.Errorf("a file that is in use has a list of free pages: %v, %v", listed, err)
	}
}

// listOf returns where the list of free pages is, by the page of the latest transaction.
func listOf(t *testing.T, f *os.File, size int) int64 {
	t.Helper()
	var latest, list uint64
	for page := range int64(2) {
		var meta [16 + 64]byte
		if _, err := f.ReadAt(meta[:], page*int64(size)); err != nil {
			t.Fatal(err)
		}
		if tx := binary.NativeEndian.Uint64(meta[16+48:]); tx >= latest {
			latest, list = tx, binary.NativeEndian.Uint64(meta[16+32:])
		}
	}
	return int64(list) * int64(size)
}

// Bytes all over a small file changed, and the file cut at many lengths: the store does
// not open, or a record is read as it was, or not at all. bbolt's pages have no checksum:
// a record may be out of reach, but is never another.
func TestBoltEveryByte(t *testing.T) {
	const stride = 13 // each byte has its turn in so many runs
	first := rand.IntN(stride)
	t.Logf("from byte %d", first)
	dir := t.TempDir()
	path := filepath.Join(dir, "sessions.db")
	b := openStore(t, dir)
	recs := []session2.Record{newRecord(1, "ann"), newRecord(2, "bob")}
	for _, rec := range recs {
		save(t, b, rec)
	}
	b.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	noticed := 0
	look := func(what string, at int, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := session2.OpenBoltStore(path, &session2.BoltOptions{NoSync: true})
		if err != nil {
			noticed++
			return
		}
		defer b.Close()
		for _, rec := range recs {
			got, err := b.Load(t.Context(), rec.ID)
			if err != nil {
				noticed++
			} else if got.Version != rec.Version || got.User != rec.User || !bytes.Equal(got.Data, rec.Data) {
				t.Errorf("%s %d: got %v, want %v", what, at, got, rec)
			}
		}
	}
	for at := first; at < len(whole); at += stride {
		content := bytes.Clone(whole)
		content[at] ^= byte(1 + rand.IntN(255))
		look("byte", at, content)
	}
	for n := first; n < len(whole); n += 64 * stride {
		look("length", n, whole[:n])
	}
	if noticed == 0 {
		t.Error("no damage was noticed")
	}
}

func TestBoltRefusesOtherFiles(t *testing.T) {
	for name, content := range map[string][]byte{
		"text":  []byte("this is no database\n"),
		"zeros": make([]byte, 1<<15),
		"large": bytes.Repeat([]byte("no database\n"), 10_000),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "sessions.db")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			wantOpenError(t, path, "not a bolt database")
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
				t.Errorf("the file was changed, %v", err)
			}
		})
	}
	t.Run("other application", func(t *testing.T) {
		dir := t.TempDir()
		edit(t, dir, func(tx *bolt.Tx) error {
			_, err := tx.CreateBucket([]byte("theirs"))
			return err
		})
		wantOpenError(t, filepath.Join(dir, "sessions.db"), "of another application")
		if dump := contents(t, dir); len(dump) != 0 {
			t.Errorf("the file was changed: %v", dump)
		}
	})
	t.Run("later format", func(t *testing.T) {
		dir := t.TempDir()
		openStore(t, dir).Close()
		edit(t, dir, func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("meta")).Put([]byte("format"), []byte("2"))
		})
		wantOpenError(t, filepath.Join(dir, "sessions.db"), `written in format "2"`)
	})
	t.Run("no directory", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "none", "sessions.db")
		if err := wantOpenError(t, path, path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("OpenBoltStore: %v, want fs.ErrNotExist", err)
		}
	})
}

func wantOpenError(t *testing.T, path, text string) error {
	t.Helper()
	b, err := session2.OpenBoltStore(path, nil)
	if err == nil {
		b.Close()
		t.Fatalf("OpenBoltStore opened it, want an error with %q", text)
	}
	if !strings.HasPrefix(err.Error(), "session2: open bolt store "+path) || !strings.Contains(err.Error(), text) {
		t.Errorf("OpenBoltStore: %v, want an error with %q", err, text)
	}
	return err
}

// A file that is emptied beneath a store that has it open: each call ends, in an
// error, and so does Close.
func TestBoltFileThatIsEmptiedBeneathIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	b, err := session2.OpenBoltStore(path, nil)
	testsite.Must(t, err)
	rec := session2.Record{ID: session2.ID{1}, Version: 1, Created: time.Now(), Accessed: time.Now(),
		Expires: time.Now().Add(time.Hour)}
	testsite.Must(t, b.Save(t.Context(), rec, 0))
	testsite.Must(t, os.Truncate(path, 0))
	failed := 0
	for range 20 {
		if _, err := b.Load(t.Context(), rec.ID); err != nil {
			failed++
		}
		next := rec
		next.Version++
		if err := b.Save(t.Context(), next, rec.Version); err != nil {
			failed++
		}
	}
	if failed == 0 {
		t.Error("no call failed: nothing was tested")
	}
	b.Close()
}

// A file that was moved away beneath a store that has it open takes no changes, for they
// would be gone with the process; nor does one that came in its place. When it is back,
// the store goes on.
func TestBoltFileComesBack(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sessions.db")
	b := openStore(t, dir)
	save(t, b, newRecord(1, "ann"))
	testsite.Must(t, os.Rename(path, path+".away"))
	if err := b.Save(t.Context(), newRecord(2, "ann"), 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Save without the file: %v, want fs.ErrNotExist", err)
	}
	if err := b.Setup(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Setup without the file: %v, want fs.ErrNotExist", err)
	}
	other, err := session2.OpenBoltStore(path, nil)
	testsite.Must(t, err)
	if err := b.Delete(t.Context(), newRecord(1, "").ID); err == nil {
		t.Error("Delete with another file in its place: no error")
	}
	testsite.Must(t, other.Close())
	testsite.Must(t, os.Rename(path+".away", path))
	save(t, b, newRecord(3, "ann"))
	testsite.Must(t, b.Setup(t.Context()))
	if n, errs := list(b.IterUser(t.Context(), "ann")); n != 2 || errs != nil {
		t.Errorf("%d records, %v, want the two that were acknowledged", n, errs)
	}
}
