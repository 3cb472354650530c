package lockfile_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/session2/session2/internal/lockfile"
)

// childEnv makes the test binary, run again, hold the lock on the file that it
// names until its standard input ends.
const childEnv = "SESSION2_TEST_LOCKFILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		if _, err := open(path).Lock(context.Background()); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("locked")
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func open(path string) *lockfile.Mutex {
	return lockfile.New(func() (lockfile.File, error) {
		return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	})
}

// child starts a process that holds the lock.
func child(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); cmd.Process.Kill(); cmd.Wait() })
	if line, _ := bufio.NewReader(stdout).ReadString('\n'); line != "locked\n" {
		t.Fatalf("child says %q", line)
	}
	return cmd
}

func within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	context.AfterFunc(ctx, cancel)
	return ctx
}

const (
	short = 30 * time.Millisecond // long enough to see that a call blocks
	long  = 20 * time.Second      // only a bug takes this long
)

func TestLockExcludes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	one, other := open(path), open(path)
	for name, second := range map[string]*lockfile.Mutex{"same": one, "other": other} {
		unlock, err := one.Lock(within(long))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := second.Lock(within(short)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: Lock while locked: %v, want the context's error", name, err)
		}
		if _, err := second.RLock(within(short)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: RLock while locked: %v, want the context's error", name, err)
		}
		unlock()
		unlock() // does nothing
		again, err := second.Lock(within(long))
		if err != nil {
			t.Fatalf("%s: Lock after unlock: %v", name, err)
		}
		again()
	}
}

// A goroutine that waits for another one leaves the file alone.
func TestWaitersDoNotPoll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var opened atomic.Int32
	m := lockfile.New(func() (lockfile.File, error) {
		opened.Add(1)
		return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	})
	unlock, err := m.Lock(within(long))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Lock(within(short)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Lock while locked: %v, want the context's error", err)
	}
	unlock()
	if got := opened.Load(); got != 1 {
		t.Errorf("the file was opened %d times, want once", got)
	}
}

func TestReadersShare(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	one, other := open(path), open(path)
	var unlocks []func()
	for _, m := range []*lockfile.Mutex{one, one, other} {
		unlock, err := m.RLock(within(long))
		if err != nil {
			t.Fatal(err)
		}
		unlocks = append(unlocks, unlock)
	}
	for i, unlock := range unlocks {
		if _, err := one.Lock(within(short)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Lock beside %d readers: %v, want the context's error", len(unlocks)-i, err)
		}
		unlock()
	}
	unlock, err := one.Lock(within(long))
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestEndedContext(t *testing.T) {
	m := open(filepath.Join(t.TempDir(), "lock"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := m.Lock(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Lock with an ended context: %v", err)
	}
	if _, err := m.RLock(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("RLock with an ended context: %v", err)
	}
}

func TestOpenFails(t *testing.T) {
	m := open(filepath.Join(t.TempDir(), "absent", "lock"))
	for range 2 { // the first failure must not keep the turn
		if _, err := m.Lock(within(long)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Lock without a file: %v, want %v", err, os.ErrNotExist)
		}
		if _, err := m.RLock(within(long)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("RLock without a file: %v, want %v", err, os.ErrNotExist)
		}
	}
}

func TestProcessesExclude(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	cmd := child(t, path)
	m := open(path)
	if _, err := m.Lock(within(short)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Lock while a child has it: %v, want the context's error", err)
	}
	got := make(chan error)
	go func() {
		unlock, err := m.Lock(within(long))
		if err == nil {
			unlock()
		}
		got <- err
	}()
	cmd.Process.Kill() // kill -9: the kernel gives the lock up
	if err := <-got; err != nil {
		t.Errorf("Lock after the child was killed: %v", err)
	}
}

// Goroutines on one Mutex and on another of the same file: no two inside.
func TestStress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var writers, readers atomic.Int32
	var wg sync.WaitGroup
	for _, m := range []*lockfile.Mutex{open(path), open(path)} {
		for g := range 4 {
			wg.Go(func() {
				for i := range 50 {
					if (g+i)%3 == 0 {
						unlock, err := m.RLock(within(long))
						if err != nil {
							t.Error(err)
							return
						}
						readers.Add(1)
						if writers.Load() != 0 {
							t.Error("a reader beside a writer")
						}
						readers.Add(-1)
						unlock()
						continue
					}
					unlock, err := m.Lock(within(long))
					if err != nil {
						t.Error(err)
						return
					}
					if writers.Add(1) != 1 || readers.Load() != 0 {
						t.Error("a writer is not alone")
					}
					writers.Add(-1)
					unlock()
				}
			})
		}
	}
	wg.Wait()
}
