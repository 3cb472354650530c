package boltstore_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/boltstore"
	"github.com/session2/session2/internal/record"
	"github.com/session2/session2/internal/testsite"
	"github.com/session2/session2/storetest"
)

func openStore(t testing.TB, dir string) *session2.BoltStore {
	t.Helper()
	b, err := session2.OpenBoltStore(filepath.Join(dir, "sessions.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestBoltConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t,
		func(t testing.TB, dir string) session2.Store { return openStore(t, dir) },
		&storetest.Options{Corrupt: func(t testing.TB, dir string, id session2.ID) {
			edit(t, dir, func(tx *bolt.Tx) error {
				return damage(tx, "sessions", id[:])
			})
		}})
}

// edit changes the file behind the back of the store, which is closed.
func edit(t testing.TB, dir string, f func(tx *bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(filepath.Join(dir, "sessions.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(f); err != nil {
		t.Fatal(err)
	}
}

// damage flips a bit in the midst of a value.
func damage(tx *bolt.Tx, bucket string, key []byte) error {
	b := tx.Bucket([]byte(bucket))
	value := append([]byte(nil), b.Get(key)...)
	value[len(value)/2] ^= 1
	return b.Put(key, value)
}

// newRecord returns a record with a number for an ID.
func newRecord(n uint64, user string) session2.Record {
	now := time.Now().UTC().Truncate(time.Microsecond)
	rec := session2.Record{
		Version: 1, User: user, Created: now, Accessed: now, Expires: now.Add(time.Hour),
		Data: bytes.Repeat([]byte{byte(n)}, 200),
	}
	binary.BigEndian.PutUint64(rec.ID[8:], n)
	return rec
}

// backRecord is newRecord as back ends know it.
func backRecord(n uint64, user string) record.Record {
	rec := newRecord(n, user)
	return record.Record{
		ID: rec.ID, Version: uint64(rec.Version), User: user, Created: rec.Created.UnixMicro(), Data: rec.Data,
		Access: record.Access{Accessed: rec.Accessed.UnixMicro(), Expires: rec.Expires.UnixMicro()},
	}
}

// save creates records in a store or a back end.
func save[R any, V ~uint64](t testing.TB, s interface {
	Save(context.Context, R, V) error
}, recs ...R) {
	t.Helper()
	for _, rec := range recs {
		if err := s.Save(context.Background(), rec, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// list returns the number and the errors of what a sequence yields.
func list[R any](seq iter.Seq2[R, error]) (n int, errs []error) {
	for _, err := range seq {
		if err != nil {
			errs = append(errs, err)
		} else {
			n++
		}
	}
	return n, errs
}

// commits makes a store's commits.
type commits struct {
	n      int    // that succeeded
	lost   error  // of commits that take effect, as after a failed fsync
	failed error  // of commits that change nothing
	breaks bool   // bbolt panics in the midst of a commit, and keeps its lock
	before func() // called in the midst of a commit
}

func (c *commits) update(db *bolt.DB, f func(*bolt.Tx) error) error {
	if c.breaks {
		if _, err := db.Begin(true); err != nil {
			return err
		}
		panic("damaged page")
	}
	err := db.Update(func(tx *bolt.Tx) error {
		if c.before != nil {
			c.before()
		}
		return cmp.Or(f(tx), c.failed)
	})
	if err = cmp.Or(err, c.lost); err == nil {
		c.n++
	}
	return err
}

// openBack opens the back end alone.
func openBack(t testing.TB, dir string) (*boltstore.Store, *commits) {
	t.Helper()
	c := new(commits)
	b, err := boltstore.OpenWith(filepath.Join(dir, "sessions.db"), boltstore.Options{}, c.update)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b, c
}

// sweep has a back end delete what was not used for age or has expired.
func sweep(t *testing.T, b *boltstore.Store, age time.Duration) (int, error) {
	now := time.Now()
	return b.DeleteOld(t.Context(), now.Add(-age).UnixMicro(), now.UnixMicro())
}

func TestBoltSaversShareCommits(t *testing.T) {
	b, c := openBack(t, t.TempDir())
	crowd := testsite.NewCrowd(64)
	c.before = crowd.Await
	crowd.Run(func(ctx context.Context, one int) {
		if err := b.Save(ctx, backRecord(uint64(one), ""), 0); err != nil {
			t.Error(err)
		}
	})
	if c.n != 2 {
		t.Errorf("%d commits for 64 saves at once, want one for the first and one for the others", c.n)
	}
	if n, errs := list(b.Iter(t.Context())); n != 64 || errs != nil {
		t.Errorf("%d records, errors %v", n, errs)
	}
}

func TestBoltRefusalsCommitNothing(t *testing.T) {
	b, c := openBack(t, t.TempDir())
	rec := backRecord(1, "ann")
	save(t, b, rec)
	c.n = 0
	save(t, b, rec) // landed before
	other := rec
	other.Version = 2
	if err := b.Save(t.Context(), other, 0); !errors.Is(err, record.ErrConflict) {
		t.Errorf("Save = %v, want ErrConflict", err)
	}
	b.Delete(t.Context(), backRecord(2, "").ID)
	b.Touch(t.Context(), rec.ID, rec.Access)
	sweep(t, b, time.Hour)
	if c.n != 0 {
		t.Errorf("%d commits for nothing", c.n)
	}
}

// A refusal in a batch must not take the others along, nor they it.
func TestBoltRefusalInABatch(t *testing.T) {
	b := openStore(t, t.TempDir())
	save(t, b, newRecord(0, ""))
	var wg sync.WaitGroup
	for i := range uint64(64) {
		wg.Go(func() {
			rec := newRecord(i/2, "")
			rec.Version = session2.Version(10 + i)
			b.Save(t.Context(), rec, 0)
		})
	}
	wg.Wait()
	if n, errs := list(b.Iter(t.Context())); n != 32 || errs != nil {
		t.Errorf("%d records, want 32; errors %v", n, errs)
	}
	if rec, err := b.Load(t.Context(), newRecord(0, "").ID); rec.Version != 1 || err != nil {
		t.Errorf("the record that was there has version %d, %v", rec.Version, err)
	}
}

func TestBoltSaveWritesAgainAfterAFailedCommit(t *testing.T) {
	b, c := openBack(t, t.TempDir())
	lost := errors.New("input/output error")
	c.lost = lost
	rec := backRecord(1, "ann")
	if err := b.Save(t.Context(), rec, 0); !errors.Is(err, lost) {
		t.Fatalf("Save = %v, want %v", err, lost)
	}
	if err := b.Save(t.Context(), rec, 0); !errors.Is(err, lost) {
		t.Errorf("Save asked again while nothing lasts = %v, want %v", err, lost)
	}
	c.lost = nil
	save(t, b, rec)
	if c.n != 1 {
		t.Errorf("Save asked again made %d commits, want 1", c.n)
	}
}

func TestBoltTouchLeavesDataAndIndexesAlone(t *testing.T) {
	dir := t.TempDir()
	b := openStore(t, dir)
	rec := newRecord(1, "ann")
	save(t, b, rec)
	b.Close()
	before := contents(t, dir)
	b = openStore(t, dir)
	if err := b.Touch(t.Context(), rec.ID, rec.Accessed.Add(time.Minute), rec.Expires.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	b.Close()
	var changed []string
	for key, value := range contents(t, dir) {
		if before[key] != value {
			changed = append(changed, key)
		}
	}
	if want := []string{"access " + rec.ID.String()}; !slices.Equal(changed, want) {
		t.Errorf("Touch changed %q, want %q", changed, want)
	}
}

// contents returns what is in the buckets of the file.
func contents(t *testing.T, dir string) map[string]string {
	dump := map[string]string{}
	edit(t, dir, func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				dump[fmt.Sprintf("%s %x", name, k)] = string(v)
				return nil
			})
		})
	})
	return dump
}

// Whatever comes and goes, when all is deleted no index entry is left.
func TestBoltLeavesNoIndexEntry(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	b, err := session2.OpenBoltStore(filepath.Join(dir, "sessions.db"), &session2.BoltOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	users := []string{"", "a", "ab", strings.Repeat("long", 20_000)}
	for i := range 1000 {
		rec := newRecord(rnd.Uint64N(30), users[rnd.IntN(len(users))])
		rec.Accessed = rec.Accessed.Add(-time.Duration(rnd.IntN(3600)) * time.Second)
		rec.Expires = rec.Expires.Add(-time.Duration(rnd.IntN(7000)) * time.Second)
		switch rnd.IntN(10) {
		case 0:
			err = b.Delete(t.Context(), rec.ID)
		case 1:
			_, err = b.DeleteOld(t.Context(), time.Duration(rnd.IntN(3600))*time.Second)
		case 2:
			_, err = b.DeleteUser(t.Context(), rec.User)
		case 3, 4:
			err = b.Touch(t.Context(), rec.ID, rec.Accessed, rec.Expires)
		default:
			old, _ := b.Load(t.Context(), rec.ID)
			rec.Version = session2.Version(2 + i)
			err = b.Save(t.Context(), rec, old.Version)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	b.DeleteOld(t.Context(), 0)
	b.Close()
	if dump := contents(t, dir); len(dump) != 1 {
		t.Errorf("left behind: %q", dump)
	}
}

func TestBoltSweepsManyInBatches(t *testing.T) {
	b, c := openBack(t, t.TempDir())
	const old, live = 2*boltstore.Sweep + 7, 20
	var wg sync.WaitGroup
	for i := range uint64(old + live) {
		rec := backRecord(i, "ann")
		rec.Accessed -= time.Hour.Microseconds()
		wg.Go(func() { save(t, b, rec) })
	}
	wg.Wait()
	for i := range uint64(live) {
		rec := backRecord(i, "")
		b.Touch(t.Context(), rec.ID, rec.Access)
	}
	c.n = 0
	if n, err := sweep(t, b, time.Minute); n != old || err != nil {
		t.Errorf("DeleteOld = %d, %v, want %d", n, err, old)
	}
	if c.n < 3 {
		t.Errorf("DeleteOld took %d transactions, want several", c.n)
	}
	c.n = 0
	if n, err := sweep(t, b, time.Minute); n != 0 || err != nil || c.n != 0 {
		t.Errorf("DeleteOld again = %d, %v in %d transactions: it looked at records that it had filed", n, err, c.n)
	}
	if n, err := b.DeleteUser(t.Context(), "ann"); n != live || err != nil {
		t.Errorf("DeleteUser = %d, %v, want %d", n, err, live)
	}
}

// The loop's body may write so much that the file must grow.
func TestBoltIterWithAWritingBody(t *testing.T) {
	b := openStore(t, t.TempDir())
	const n = 3*boltstore.Page + 1
	for i := range uint64(n) {
		save(t, b, newRecord(2*i, ""))
	}
	big := newRecord(1<<40, "")
	big.Data = make([]byte, 1<<20)
	seen := map[session2.ID]int{}
	for rec, err := range b.Iter(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		seen[rec.ID]++
		if len(seen)%50 == 0 {
			big.ID[0]++
			save(t, b, big)
		}
		if seen[rec.ID] > 1 || len(seen) > 2*n {
			t.Fatal("Iter repeats itself")
		}
	}
	if len(seen) < n {
		t.Errorf("Iter saw %d records, want %d at least", len(seen), n)
	}
}

func TestBoltOptions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	if _, err := session2.OpenBoltStore(path, &session2.BoltOptions{Timeout: -1}); err == nil {
		t.Error("a negative Timeout is taken")
	}
	b, err := session2.OpenBoltStore(path, &session2.BoltOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if want := (session2.Capabilities{ThreadSafe: true}); b.Capabilities() != want {
		t.Errorf("Capabilities with NoSync = %+v, want %+v", b.Capabilities(), want)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 && runtime.GOOS != "windows" {
		t.Errorf("mode %v, want 0600", mode)
	}
}

// child starts this test in another process, which sees dir.
func child(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "SESSION2_BOLT_CHILD="+dir)
	cmd.Stderr = os.Stderr
	return cmd
}

func TestBoltSecondProcess(t *testing.T) {
	if dir := os.Getenv("SESSION2_BOLT_CHILD"); dir != "" {
		start := time.Now()
		_, err := session2.OpenBoltStore(filepath.Join(dir, "sessions.db"), nil)
		fmt.Printf("%v\n%v\n", time.Since(start) < time.Minute, err)
		os.Exit(0)
	}
	dir := t.TempDir()
	b := openStore(t, dir)
	out, err := child(t, dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	if s := string(out); !strings.HasPrefix(s, "true\nsession2: open bolt store ") ||
		!strings.Contains(s, "in use by another process") {
		t.Errorf("the second process says %q", s)
	}
	save(t, b, newRecord(1, ""))
}

// What was acknowledged before kill -9 is there.
func TestBoltKilledWriter(t *testing.T) {
	if dir := os.Getenv("SESSION2_BOLT_CHILD"); dir != "" {
		killedWriter(dir)
	}
	dir := t.TempDir()
	seen := 0
	for round := range uint64(3) {
		cmd := child(t, dir)
		cmd.Env = append(cmd.Env, fmt.Sprintf("SESSION2_BOLT_FIRST=%d", round<<32))
		acknowledged := readUntilKilled(t, cmd, 40)
		b := openStore(t, dir)
		for _, line := range acknowledged {
			id, err := session2.ParseID(line)
			if err != nil {
				continue // the last line, torn
			}
			if _, err := b.Load(t.Context(), id); err != nil {
				t.Errorf("acknowledged and then: %v", err)
			}
			seen++
		}
		n, errs := list(b.Iter(t.Context()))
		if n < seen || errs != nil {
			t.Errorf("%d records, errors %v, want %d records at least", n, errs, seen)
		}
		if users, errs := list(b.IterUser(t.Context(), "ann")); users != n || errs != nil {
			t.Errorf("%d records by user, errors %v, want %d", users, errs, n)
		}
		b.Close()
	}
}

// readUntilKilled kills the process after so many lines and returns all that
// it wrote.
func readUntilKilled(t *testing.T, cmd *exec.Cmd, lines int) (all []string) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	in := bufio.NewScanner(out)
	for in.Scan() {
		if all = append(all, in.Text()); len(all) == lines {
			cmd.Process.Kill()
		}
	}
	if len(all) < lines {
		t.Fatalf("the writer ended after %q", all)
	}
	return all
}

// killedWriter saves from several goroutines and says what was
// acknowledged, for ever.
func killedWriter(dir string) {
	b, err := session2.OpenBoltStore(filepath.Join(dir, "sessions.db"), nil)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	var first uint64
	fmt.Sscan(os.Getenv("SESSION2_BOLT_FIRST"), &first)
	for w := range uint64(4) {
		go func() {
			for n := first + w; ; n += 4 {
				rec := newRecord(n, "ann")
				if err := b.Save(context.Background(), rec, 0); err != nil {
					os.Exit(1)
				}
				fmt.Println(rec.ID)
			}
		}()
	}
	select {}
}

func BenchmarkBoltLoad(b *testing.B) {
	store := openStore(b, b.TempDir())
	rec := newRecord(1, "ann")
	save(b, store, rec)
	for b.Loop() {
		if _, err := store.Load(b.Context(), rec.ID); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBoltSave(b *testing.B) {
	store := openStore(b, b.TempDir())
	rec := newRecord(1, "ann")
	rec.Version = 0
	for b.Loop() {
		prev := rec.Version
		rec.Version++
		if err := store.Save(b.Context(), rec, prev); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBoltTouch(b *testing.B) {
	store := openStore(b, b.TempDir())
	rec := newRecord(1, "ann")
	save(b, store, rec)
	for b.Loop() {
		rec.Accessed = rec.Accessed.Add(time.Second)
		if err := store.Touch(b.Context(), rec.ID, rec.Accessed, rec.Expires); err != nil {
			b.Fatal(err)
		}
	}
}

// 64 savers of a session each.
func BenchmarkBoltSaveParallel(b *testing.B) {
	store, c := openBack(b, b.TempDir())
	var mu sync.Mutex
	var n uint64
	b.SetParallelism(max(1, 64/runtime.GOMAXPROCS(0)))
	b.RunParallel(func(pb *testing.PB) {
		mu.Lock()
		n++
		rec := backRecord(n, "ann")
		mu.Unlock()
		rec.Version = 0
		for pb.Next() {
			prev := rec.Version
			rec.Version++
			if err := store.Save(b.Context(), rec, prev); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/float64(c.n), "saves/commit")
}
