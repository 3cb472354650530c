package session2_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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
	"github.com/session2/session2/storetest"
)

func openBolt(t testing.TB, dir string) *session2.BoltStore {
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
		func(t testing.TB, dir string) session2.Store { return openBolt(t, dir) },
		&storetest.Options{Corrupt: func(t testing.TB, dir string, id session2.ID) {
			editBolt(t, dir, func(tx *bolt.Tx) error {
				return damageBolt(tx, "sessions", id[:])
			})
		}})
}

// editBolt changes the file behind the back of the store, which is closed.
func editBolt(t testing.TB, dir string, f func(tx *bolt.Tx) error) {
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

// damageBolt flips a bit in the midst of a value.
func damageBolt(tx *bolt.Tx, bucket string, key []byte) error {
	b := tx.Bucket([]byte(bucket))
	value := append([]byte(nil), b.Get(key)...)
	value[len(value)/2] ^= 1
	return b.Put(key, value)
}

// boltRecord returns a record with a number for an ID.
func boltRecord(n uint64, user string) session2.Record {
	now := time.Now().UTC().Truncate(time.Microsecond)
	rec := session2.Record{
		Version: 1, User: user, Created: now, Accessed: now, Expires: now.Add(time.Hour),
		Data: bytes.Repeat([]byte{byte(n)}, 200),
	}
	binary.BigEndian.PutUint64(rec.ID[8:], n)
	return rec
}

func saveBolt(t testing.TB, b *session2.BoltStore, recs ...session2.Record) {
	t.Helper()
	for _, rec := range recs {
		if err := b.Save(context.Background(), rec, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// listBolt returns the number and the errors of what a sequence yields.
func listBolt(seq func(func(session2.Record, error) bool)) (n int, errs []error) {
	for _, err := range seq {
		if err != nil {
			errs = append(errs, err)
		} else {
			n++
		}
	}
	return n, errs
}

func TestBoltSaversShareCommits(t *testing.T) {
	b := openBolt(t, t.TempDir())
	commits := b.Commits()
	const savers, each = 64, 10
	var wg sync.WaitGroup
	for i := range uint64(savers) {
		wg.Go(func() {
			for j := range uint64(each) {
				if err := b.Save(t.Context(), boltRecord(i*each+j, ""), 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	n := commits()
	t.Logf("%d saves in %d commits: %.1f each", savers*each, n, float64(savers*each)/float64(n))
	if n > savers*each/4 {
		t.Errorf("%d saves by %d savers took %d commits, want at most a quarter", savers*each, savers, n)
	}
	if n, errs := listBolt(b.Iter(t.Context())); n != savers*each || errs != nil {
		t.Errorf("%d records, errors %v", n, errs)
	}
}

func TestBoltRefusalsCommitNothing(t *testing.T) {
	b := openBolt(t, t.TempDir())
	rec := boltRecord(1, "ann")
	saveBolt(t, b, rec)
	commits := b.Commits()
	saveBolt(t, b, rec) // landed before
	other := rec
	other.Version = 2
	if err := b.Save(t.Context(), other, 0); !errors.Is(err, session2.ErrConflict) {
		t.Errorf("Save = %v, want ErrConflict", err)
	}
	b.Delete(t.Context(), boltRecord(2, "").ID)
	b.Touch(t.Context(), rec.ID, rec.Accessed, rec.Expires)
	b.DeleteOld(t.Context(), time.Hour)
	if n := commits(); n != 0 {
		t.Errorf("%d commits for nothing", n)
	}
}

// A refusal in a batch must not take the others along, nor they it.
func TestBoltRefusalInABatch(t *testing.T) {
	b := openBolt(t, t.TempDir())
	saveBolt(t, b, boltRecord(0, ""))
	var wg sync.WaitGroup
	for i := range uint64(64) {
		wg.Go(func() {
			rec := boltRecord(i/2, "")
			rec.Version = session2.Version(10 + i)
			b.Save(t.Context(), rec, 0)
		})
	}
	wg.Wait()
	if n, errs := listBolt(b.Iter(t.Context())); n != 32 || errs != nil {
		t.Errorf("%d records, want 32; errors %v", n, errs)
	}
	if rec, err := b.Load(t.Context(), boltRecord(0, "").ID); rec.Version != 1 || err != nil {
		t.Errorf("the record that was there has version %d, %v", rec.Version, err)
	}
}

func TestBoltSaveWritesAgainAfterAFailedCommit(t *testing.T) {
	b := openBolt(t, t.TempDir())
	lost := errors.New("input/output error")
	b.LoseAnswers(&lost)
	rec := boltRecord(1, "ann")
	if err := b.Save(t.Context(), rec, 0); !errors.Is(err, lost) {
		t.Fatalf("Save = %v, want %v", err, lost)
	}
	if err := b.Save(t.Context(), rec, 0); !errors.Is(err, lost) {
		t.Errorf("Save asked again while nothing lasts = %v, want %v", err, lost)
	}
	lost = nil
	commits := b.Commits()
	saveBolt(t, b, rec)
	if n := commits(); n != 1 {
		t.Errorf("Save asked again made %d commits, want 1", n)
	}
}

func TestBoltTouchLeavesDataAndIndexesAlone(t *testing.T) {
	dir := t.TempDir()
	b := openBolt(t, dir)
	rec := boltRecord(1, "ann")
	saveBolt(t, b, rec)
	b.Close()
	before := dumpBolt(t, dir)
	b = openBolt(t, dir)
	if err := b.Touch(t.Context(), rec.ID, rec.Accessed.Add(time.Minute), rec.Expires.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	b.Close()
	var changed []string
	for key, value := range dumpBolt(t, dir) {
		if before[key] != value {
			changed = append(changed, key)
		}
	}
	if want := []string{"access " + rec.ID.String()}; !slices.Equal(changed, want) {
		t.Errorf("Touch changed %q, want %q", changed, want)
	}
}

// dumpBolt returns what is in the buckets of the file.
func dumpBolt(t *testing.T, dir string) map[string]string {
	dump := map[string]string{}
	editBolt(t, dir, func(tx *bolt.Tx) error {
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
		rec := boltRecord(rnd.Uint64N(30), users[rnd.IntN(len(users))])
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
	if dump := dumpBolt(t, dir); len(dump) != 1 {
		t.Errorf("left behind: %q", dump)
	}
}

func TestBoltSweepsManyInBatches(t *testing.T) {
	b := openBolt(t, t.TempDir())
	const old, live = 2*session2.BoltSweep + 7, 20
	var wg sync.WaitGroup
	for i := range uint64(old + live) {
		rec := boltRecord(i, "ann")
		rec.Accessed = rec.Accessed.Add(-time.Hour)
		wg.Go(func() { saveBolt(t, b, rec) })
	}
	wg.Wait()
	for i := range uint64(live) {
		rec := boltRecord(i, "")
		b.Touch(t.Context(), rec.ID, rec.Accessed, rec.Expires)
	}
	commits := b.Commits()
	if n, err := b.DeleteOld(t.Context(), time.Minute); n != old || err != nil {
		t.Errorf("DeleteOld = %d, %v, want %d", n, err, old)
	}
	if n := commits(); n < 3 {
		t.Errorf("DeleteOld took %d transactions, want several", n)
	}
	commits = b.Commits()
	if n, err := b.DeleteOld(t.Context(), time.Minute); n != 0 || err != nil || commits() != 0 {
		t.Errorf("DeleteOld again = %d, %v in %d transactions: it looked at records that it had filed", n, err, commits())
	}
	if n, err := b.DeleteUser(t.Context(), "ann"); n != live || err != nil {
		t.Errorf("DeleteUser = %d, %v, want %d", n, err, live)
	}
}

// The loop's body may write so much that the file must grow.
func TestBoltIterWithAWritingBody(t *testing.T) {
	b := openBolt(t, t.TempDir())
	const n = 3*session2.BoltPage + 1
	for i := range uint64(n) {
		saveBolt(t, b, boltRecord(2*i, ""))
	}
	big := boltRecord(1<<40, "")
	big.Data = make([]byte, 1<<20)
	seen := map[session2.ID]int{}
	for rec, err := range b.Iter(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		seen[rec.ID]++
		if len(seen)%50 == 0 {
			big.ID[0]++
			saveBolt(t, b, big)
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

// boltChild starts this test in another process, which sees dir.
func boltChild(t *testing.T, dir string) *exec.Cmd {
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
		fmt.Printf("%v\n%v\n", time.Since(start) < 10*time.Second, err)
		os.Exit(0)
	}
	dir := t.TempDir()
	b := openBolt(t, dir)
	out, err := boltChild(t, dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	if s := string(out); !strings.HasPrefix(s, "true\nsession2: open bolt store ") || !strings.Contains(s, "in use by another process") {
		t.Errorf("the second process says %q", s)
	}
	saveBolt(t, b, boltRecord(1, ""))
}

// What was acknowledged before kill -9 is there.
func TestBoltKilledWriter(t *testing.T) {
	if dir := os.Getenv("SESSION2_BOLT_CHILD"); dir != "" {
		killedBoltWriter(dir)
	}
	dir := t.TempDir()
	seen := 0
	for round := range uint64(3) {
		cmd := boltChild(t, dir)
		cmd.Env = append(cmd.Env, fmt.Sprintf("SESSION2_BOLT_FIRST=%d", round<<32))
		acknowledged := readUntilKilled(t, cmd, 40)
		b := openBolt(t, dir)
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
		n, errs := listBolt(b.Iter(t.Context()))
		if n < seen || errs != nil {
			t.Errorf("%d records, errors %v, want %d records at least", n, errs, seen)
		}
		if users, errs := listBolt(b.IterUser(t.Context(), "ann")); users != n || errs != nil {
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

// killedBoltWriter saves from several goroutines and says what was
// acknowledged, for ever.
func killedBoltWriter(dir string) {
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
				rec := boltRecord(n, "ann")
				if err := b.Save(context.Background(), rec, 0); err != nil {
					os.Exit(1)
				}
				fmt.Println(rec.ID)
			}
		}()
	}
	select {}
}

func ExampleOpenBoltStore() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	store, err := session2.OpenBoltStore(filepath.Join(dir, "sessions.db"), nil)
	if err != nil {
		panic(err)
	}
	defer store.Close()

	ctx := context.Background()
	now := time.Now()
	rec := session2.Record{
		ID: session2.ID{15: 1}, Version: 1, User: "ann",
		Created: now, Accessed: now, Expires: now.Add(time.Hour),
	}
	if err := store.Save(ctx, rec, 0); err != nil {
		panic(err)
	}
	for rec, err := range store.IterUser(ctx, "ann") {
		fmt.Println(rec.ID, err)
	}
	// Output: 00000000000000000000000000000001 <nil>
}

func BenchmarkBoltLoad(b *testing.B) {
	store := openBolt(b, b.TempDir())
	rec := boltRecord(1, "ann")
	saveBolt(b, store, rec)
	for b.Loop() {
		if _, err := store.Load(b.Context(), rec.ID); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBoltSave(b *testing.B) {
	store := openBolt(b, b.TempDir())
	rec := boltRecord(1, "ann")
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
	store := openBolt(b, b.TempDir())
	rec := boltRecord(1, "ann")
	saveBolt(b, store, rec)
	for b.Loop() {
		rec.Accessed = rec.Accessed.Add(time.Second)
		if err := store.Touch(b.Context(), rec.ID, rec.Accessed, rec.Expires); err != nil {
			b.Fatal(err)
		}
	}
}

// 64 savers of a session each.
func BenchmarkBoltSaveParallel(b *testing.B) {
	store := openBolt(b, b.TempDir())
	commits := store.Commits()
	var mu sync.Mutex
	var n uint64
	b.SetParallelism(max(1, 64/runtime.GOMAXPROCS(0)))
	b.RunParallel(func(pb *testing.PB) {
		mu.Lock()
		n++
		rec := boltRecord(n, "ann")
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
	b.ReportMetric(float64(b.N)/float64(commits()), "saves/commit")
}
