package session2_test

import (
	"context"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/fsys"
)

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
	s := openFile(t, dir, &session2.FileOptions{NoSync: true})
	for round := range 5 {
		for i := range byte(100) {
			rec := fileRecord(i, "ada")
			rec.ID[1] = byte(round)
			rec.Accessed = rec.Accessed.Add(-time.Duration(i) * time.Hour)
			rec.Expires = time.Now()
			mustSave(t, s, rec, 0)
		}
		if n, err := s.DeleteOld(t.Context(), math.MaxInt64); n != 100 || err != nil {
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
	s := openFile(t, dir, &session2.FileOptions{NoSync: true})
	record := func(i int) session2.Record {
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
		mustSave(t, s, record(i), 0)
		if err := s.Delete(t.Context(), record(i).ID); err != nil {
			t.Fatal(err)
		}
	}
	few("one after the other")
	for i := range 200 {
		mustSave(t, s, record(i), 0)
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
	f := &faultFS{FS: fsys.OS, n: math.MaxInt}
	s, err := session2.OpenFileStoreFS(f, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	full := &atomic.Bool{}
	f.FS = fullFS{fsys.OS, full}
	for _, prev := range []session2.Version{0, 1} {
		rec := fileRecord(1, "ada")
		rec.Version = 1 + prev
		full.Store(true)
		if err := s.Save(t.Context(), rec, prev); err == nil {
			t.Fatal("saved on a full disk")
		}
		full.Store(false)
		s.DeleteOld(t.Context(), time.Hour)
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
	s, err := session2.OpenFileStoreFS(l, t.TempDir(), &session2.FileOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	var looks [2]int64
	for i := range looks {
		for j := range 1000 {
			rec := fileRecord(byte(j), "ada")
			rec.ID[1], rec.ID[2] = byte(j>>8), byte(i)
			rec.Accessed = rec.Accessed.Add(-time.Duration(j) * time.Minute)
			mustSave(t, s, rec, 0)
		}
		for range 2 { // the first one takes the entries over
			l.n.Store(0)
			if n, err := s.DeleteOld(t.Context(), math.MaxInt64); n != 0 || err != nil {
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
	*session2.FileStore
	rnd *rand.Rand
}

func (m *fileMix) time() time.Time {
	return time.Now().Add(time.Duration(m.rnd.Int64N(int64(60*24*time.Hour))) - 20*24*time.Hour)
}

func (m *fileMix) record(id session2.ID) session2.Record {
	return session2.Record{ID: id, Version: session2.Version(m.rnd.Uint64() | 1), User: killUsers[m.rnd.IntN(len(killUsers))],
		Created: time.Now(), Accessed: m.time(), Expires: m.time(), Data: make([]byte, m.rnd.IntN(100))}
}

func (m *fileMix) pick() session2.ID {
	return session2.ID{byte(m.rnd.IntN(6)), byte(m.rnd.IntN(30))}
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
		_, err = m.DeleteOld(ctx, ages[m.rnd.IntN(len(ages))])
	case 3, 4:
		err = m.Touch(ctx, id, m.time(), m.time())
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
			rec.User, rec.Expires = "", time.Now()
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
	m := &fileMix{FileStore: openFile(t, dir, &session2.FileOptions{NoSync: true}), rnd: rand.New(rand.NewPCG(seed, 0))}
	for round := range 8 {
		for range m.rnd.IntN(300) {
			if err := m.step(t); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		m.end(t)
		if _, err := m.DeleteOld(t.Context(), math.MaxInt64); err != nil {
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
