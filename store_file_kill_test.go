package session2_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/session2/session2"
)

// killEnv makes the test binary, run again, write to the store in the folder
// that it names until it is killed.
const killEnv = "SESSION2_TEST_FILE_KILL"

var killUsers = []string{"", "ada", "bob", "eve"}

// writeForever creates, changes, touches, sweeps and deletes a few records.
func writeForever(dir string) {
	s, err := session2.OpenFileStore(dir, nil)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				writeOnce(s, session2.ID{byte(rand.N(8))})
			}
		})
	}
	wg.Wait()
}

func writeOnce(s *session2.FileStore, id session2.ID) {
	ctx, now := context.Background(), time.Now()
	switch rand.N(12) {
	case 0:
		s.Delete(ctx, id)
	case 1:
		s.DeleteOld(ctx, time.Hour)
	case 2:
		s.DeleteUser(ctx, killUsers[rand.N(len(killUsers))])
	case 3, 4:
		s.Touch(ctx, id, now, now.Add(time.Hour))
	default:
		old, _ := s.Load(ctx, id)
		rec := session2.Record{ID: id, Version: session2.Version(rand.Uint64() | 1), User: killUsers[rand.N(len(killUsers))],
			Accessed: now, Expires: now.Add(time.Duration(rand.N(3)-1) * time.Hour)}
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
	s := openFile(t, dir, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	indexed := map[session2.ID]string{}
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
	if got, err := s.DeleteOld(ctx, 0); got != n || err != nil {
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
