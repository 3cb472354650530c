package filestore_test

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/session2/session2/internal/faultfs"
	"github.com/session2/session2/internal/filestore"
	"github.com/session2/session2/internal/fsys"
	"github.com/session2/session2/internal/record"
)

// fileState is what is stored: versions by ID.
type fileState map[[16]byte]uint64

// fileStep is one call, and what it does to the state once it has returned.
type fileStep struct {
	name string
	call func(s *filestore.Store) error
	then func(fileState)
}

// fileLife is a sequence of calls that takes the store through all of its
// writes, with the indexes changing.
func fileLife() []fileStep {
	ctx := context.Background()
	now := time.Now().Add(-15 * time.Minute) // all accesses are in the past, also the touch
	var steps []fileStep
	save := func(id byte, version, prev uint64, user string, expires time.Duration) {
		rec := record.Record{ID: [16]byte{id}, Version: version, User: user, Created: now.UnixMicro(),
			Access: access(now, now.Add(15*time.Minute+expires)), Data: []byte("data")}
		steps = append(steps, fileStep{fmt.Sprintf("save %d version %d", id, version),
			func(s *filestore.Store) error { return s.Save(ctx, rec, prev) },
			func(st fileState) { st[rec.ID] = version }})
	}
	remove := func(name string, call func(s *filestore.Store) error, ids ...byte) {
		steps = append(steps, fileStep{name, call, func(st fileState) {
			for _, id := range ids {
				delete(st, [16]byte{id})
			}
		}})
	}
	sweep := func(s *filestore.Store) error { _, err := deleteOld(ctx, s, 24*time.Hour); return err }

	save(1, 11, 0, "ada", time.Hour)
	save(2, 21, 0, "", time.Hour)
	save(2, 22, 21, "ada", time.Hour)
	remove("touch", func(s *filestore.Store) error {
		return s.Touch(ctx, [16]byte{1}, access(now.Add(time.Minute), now.Add(2*time.Hour)))
	})
	save(1, 12, 11, "bob", time.Hour)
	save(3, 31, 0, "ada", -time.Hour)
	save(2, 23, 22, "ada", 2*time.Hour)
	remove("sweep", sweep, 3)
	save(2, 24, 23, "ada", -time.Minute)
	remove("delete", func(s *filestore.Store) error { return s.Delete(ctx, [16]byte{1}) }, 1)
	save(1, 13, 0, "bob", time.Hour)
	remove("sweep again", sweep, 2)
	save(4, 41, 0, "bob", time.Hour)
	remove("delete user", func(s *filestore.Store) error { _, err := s.DeleteUser(ctx, "bob"); return err }, 1, 4)
	save(5, 51, 0, "eve", time.Hour)
	save(5, 52, 51, "", time.Hour)
	return steps
}

// live goes through the calls until one fails, and returns the states before
// and after that one.
func live(d *faultfs.Disk, root string, opts filestore.Options, steps []fileStep) (before, after fileState, at string) {
	before, after = fileState{}, fileState{}
	s, err := filestore.Open(d, filepath.Join(root, "store"), opts)
	if err != nil {
		return before, after, "open"
	}
	for _, step := range steps {
		step.then(after)
		if step.call(s) != nil {
			return before, after, step.name
		}
		step.then(before)
	}
	return before, after, ""
}

// A crash after any step of any call: what was acknowledged is there, the call
// under way has happened to each record or not, and both indexes lead to all
// that is stored.
func TestFileStoreCrash(t *testing.T) {
	t.Parallel()
	for name, shared := range map[string]bool{"private": false, "shared": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			crashEverywhere(t, shared)
		})
	}
}

func crashEverywhere(t *testing.T, shared bool) {
	n := 0
	for ; !t.Failed(); n++ {
		root := t.TempDir()
		d := faultfs.NewDisk(t, root, n)
		before, after, at := live(d, root, filestore.Options{SharedGroup: shared}, fileLife())
		if at == "" {
			break
		}
		for _, crash := range faultfs.Crashes() {
			dir := filepath.Join(crash.Die(t, d), "store")
			if !checkAfterCrash(t, dir, shared, before, after) {
				t.Fatalf("%s after step %d, in %s", crash.Name, n, at)
			}
		}
	}
	if n < 100 {
		t.Errorf("only %d steps: the disk was not asked", n)
	}
}

func checkAfterCrash(t *testing.T, dir string, shared bool, before, after fileState) bool {
	t.Helper()
	s := openFile(t, dir, filestore.Options{NoSync: true, SharedGroup: shared})
	ctx := t.Context()
	users := map[string]map[[16]byte]bool{"ada": {}, "bob": {}, "eve": {}}
	for user, ids := range users {
		for rec, err := range s.IterUser(ctx, user) {
			if err != nil || rec.User != user {
				t.Errorf("IterUser(%q) yields a record of %q, %v", user, rec.User, err)
			}
			ids[rec.ID] = true
		}
	}
	got := 0
	for rec, err := range s.Iter(ctx) {
		if err != nil {
			t.Errorf("Iter: %v", err)
			continue
		}
		got++
		if rec.Version != before[rec.ID] && rec.Version != after[rec.ID] {
			t.Errorf("record %v has version %d, want %d or %d", rec.ID, rec.Version, before[rec.ID], after[rec.ID])
		}
		if rec.User != "" && !users[rec.User][rec.ID] {
			t.Errorf("record %v of %q is missing in the index by user", rec.ID, rec.User)
		}
		if string(rec.Data) != "data" {
			t.Errorf("record %v has data %q", rec.ID, rec.Data)
		}
	}
	for id, version := range before {
		if _, err := s.Load(ctx, id); err != nil && after[id] != 0 {
			t.Errorf("record %v, version %d acknowledged: %v", id, version, err)
		}
	}
	checkSwept(t, s, dir, got, slices.Collect(maps.Keys(users)))
	return !t.Failed()
}

// checkSwept deletes all records through the index by time, and looks for
// leftovers.
func checkSwept(t *testing.T, s *filestore.Store, dir string, want int, users []string) {
	t.Helper()
	ctx := t.Context()
	n, err := deleteOld(ctx, s, 0)
	if err != nil || n != want {
		t.Errorf("DeleteOld = %d, %v; want %d", n, err, want)
	}
	for _, user := range users { // listing drops what leads nowhere
		for rec := range s.IterUser(ctx, user) {
			t.Errorf("IterUser(%q) still yields %v", user, rec.ID)
		}
	}
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && !strings.Contains(path, "locks") && !isIndexMark(path) {
			t.Errorf("left behind: %s", path)
		}
		return err
	})
}

// killEnv makes the test binary, run again, write to the store in the directory
// that it names until it is killed.
const killEnv = "SESSION2_TEST_FILE_KILL"

var killUsers = []string{"", "ada", "bob", "eve"}

// writeForever creates, changes, touches, sweeps and deletes a few records.
func writeForever(dir string) {
	s, err := filestore.Open(fsys.OS, dir, filestore.Options{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				writeOnce(s, [16]byte{byte(rand.N(8))})
			}
		})
	}
	wg.Wait()
}

func writeOnce(s *filestore.Store, id [16]byte) {
	ctx, now := context.Background(), time.Now()
	switch rand.N(12) {
	case 0:
		s.Delete(ctx, id)
	case 1:
		deleteOld(ctx, s, time.Hour)
	case 2:
		s.DeleteUser(ctx, killUsers[rand.N(len(killUsers))])
	case 3, 4:
		s.Touch(ctx, id, access(now, now.Add(time.Hour)))
	default:
		old, _ := s.Load(ctx, id)
		rec := record.Record{ID: id, Version: uint64(rand.Uint64() | 1), User: killUsers[rand.N(len(killUsers))],
			Access: access(now, now.Add(time.Duration(rand.N(3)-1)*time.Hour))}
		rec.Data = fmt.Appendf(make([]byte, rand.N(20000)), "%d", rec.Version)
		s.Save(ctx, rec, old.Version)
	}
}

// However often writers are killed: each record is whole, both indexes lead to
// it, and nothing stays locked.
func TestFileStoreKill(t *testing.T) {
	if dir := os.Getenv(killEnv); dir != "" {
		writeForever(dir)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := filepath.Join(t.TempDir(), "store")
	seen := 0
	for range 12 {
		killed := exec.Command(os.Args[0], "-test.run=^TestFileStoreKill$")
		killed.Env = append(os.Environ(), killEnv+"="+dir)
		if err := killed.Start(); err != nil {
			t.Fatal(err)
		}
		for start := time.Now(); time.Since(start) < 10*time.Second; { // until it writes
			if names, _ := filepath.Glob(filepath.Join(dir, "sessions", "*", "*")); len(names) > 0 {
				break
			}
		}
		time.Sleep(time.Duration(20+random.IntN(100)) * time.Millisecond) // this moment is what is random
		killed.Process.Kill()
		killed.Wait()
		seen += checkKilled(t, dir)
	}
	if seen == 0 {
		t.Error("no round left a record: nothing was tested")
	}
}

func checkKilled(t *testing.T, dir string) (n int) {
	t.Helper()
	s := openFile(t, dir, filestore.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	indexed := map[[16]byte]string{}
	for _, user := range killUsers {
		for rec, err := range s.IterUser(ctx, user) {
			if err != nil {
				t.Error(err)
			}
			indexed[rec.ID] = user
		}
	}
	for rec, err := range s.Iter(ctx) {
		if err != nil {
			t.Error(err)
			continue
		}
		n++
		zeros := len(rec.Data) - len(fmt.Sprint(rec.Version))
		if zeros < 0 || string(rec.Data[zeros:]) != fmt.Sprint(rec.Version) {
			t.Errorf("record %v has version %d and other data", rec.ID, rec.Version)
		}
		if indexed[rec.ID] != rec.User {
			t.Errorf("record %v is %q's, but the index has %q", rec.ID, rec.User, indexed[rec.ID])
		}
	}
	if got, err := deleteOld(ctx, s, 0); got != n || err != nil {
		t.Errorf("DeleteOld(0) = %d, %v; want all %d", got, err, n)
	}
	if left := filesIn(t, filepath.Join(dir, "sessions")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if moved := filesIn(t, filepath.Join(dir, "corrupt")); len(moved) > 0 {
		t.Errorf("corrupt: %v", moved)
	}
	return n
}
