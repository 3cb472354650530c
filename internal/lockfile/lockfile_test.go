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
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/session2/session2/internal/lockfile"
)

// childEnv makes the test binary, run again, do what child says with the lock
// on the file that it names.
const childEnv = "SESSION2_TEST_LOCKFILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		if err := childMain(path); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// childMain takes the lock and says so. When its standard input ends it gives
// the lock up and takes it again at once, as often as it can, and adds a byte
// to the file of its turns each time.
func childMain(path string) error {
	m := open(path)
	unlock, err := m.Lock(context.Background())
	if err != nil {
		return err
	}
	fmt.Println("locked")
	io.Copy(io.Discard, os.Stdin)
	turns, err := os.OpenFile(path+".turns", os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	for err == nil {
		unlock()
		if unlock, err = m.Lock(context.Background()); err == nil {
			_, err = turns.Write([]byte{1})
		}
	}
	return err
}

// turns returns how many turns the children had.
func turns(t *testing.T, path string) int {
	t.Helper()
	b, err := os.ReadFile(path + ".turns")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return len(b)
}

func open(path string) *lockfile.Mutex {
	return lockfile.New(func() (lockfile.File, error) {
		return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	})
}

// child starts a process that holds the lock, and returns what makes it busy.
func child(t *testing.T, path string) (cmd *exec.Cmd, goOn func()) {
	t.Helper()
	cmd, stdin, stdout := startChild(t, path)
	if line, _ := bufio.NewReader(stdout).ReadString('\n'); line != "locked\n" {
		t.Fatalf("child says %q", line)
	}
	return cmd, func() { stdin.Close() }
}

// startChild starts a process that goes for the lock.
func startChild(t *testing.T, path string) (*exec.Cmd, io.Closer, io.Reader) {
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
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd, stdin, stdout
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

func mustLock(t *testing.T, m *lockfile.Mutex) (unlock func()) {
	t.Helper()
	unlock, err := m.Lock(within(long))
	if err != nil {
		t.Fatal(err)
	}
	return unlock
}

func TestLockExcludes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	one, other := open(path), open(path)
	for name, second := range map[string]*lockfile.Mutex{"same": one, "other": other} {
		unlock := mustLock(t, one)
		if _, err := second.Lock(within(short)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: Lock while locked: %v, want the context's error", name, err)
		}
		if err := second.Probe(); err != nil {
			t.Errorf("%s: Probe while locked: %v", name, err)
		}
		unlock()
		unlock() // does nothing
		mustLock(t, second)()
	}
}

// Where there is no deadline, patience has an end, and the error names the file. A deadline
// is kept as it is.
func TestPatience(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock := mustLock(t, open(path))
	own, callers := open(path), open(path)
	own.Patience = time.Millisecond
	impatient := lockfile.WithPatience(context.Background(), time.Millisecond)
	for range 2 { // the second one takes up the wait of the first
		for m, ctx := range map[*lockfile.Mutex]context.Context{own: context.Background(), callers: impatient} {
			if _, err := m.Lock(ctx); !errors.Is(err, lockfile.ErrHeld) || !strings.Contains(err.Error(), path) {
				t.Errorf("Lock while locked: %v, want %v, with the file's name", err, lockfile.ErrHeld)
			}
		}
	}
	if _, err := own.Lock(within(short)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a deadline: %v, want the context's error", err)
	}
	unlock()
	mustLock(t, own)()
	mustLock(t, callers)()
}

// A goroutine that waits for another one leaves the file alone.
func TestWaitersDoNotPoll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var opened atomic.Int32
	m := lockfile.New(func() (lockfile.File, error) {
		opened.Add(1)
		return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	})
	unlock := mustLock(t, m)
	if _, err := m.Lock(within(short)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Lock while locked: %v, want the context's error", err)
	}
	unlock()
	if got := opened.Load(); got != 1 {
		t.Errorf("the file was opened %d times, want once", got)
	}
}

func TestEndedContext(t *testing.T) {
	m := open(filepath.Join(t.TempDir(), "lock"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := m.Lock(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Lock with an ended context: %v", err)
	}
}

func TestOpenFails(t *testing.T) {
	m := open(filepath.Join(t.TempDir(), "absent", "lock"))
	for range 2 { // the first failure must not keep the turn
		if _, err := m.Lock(within(long)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Lock without a file: %v, want %v", err, os.ErrNotExist)
		}
		if err := m.Probe(); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Probe without a file: %v, want %v", err, os.ErrNotExist)
		}
	}
}

func TestProcessesExclude(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	cmd, _ := child(t, path)
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

// However often callers give up while somebody else has the lock, one of the
// Mutex's files is open and one goroutine waits; and when the lock comes and
// nobody wants it any more, it is given up.
func TestAbandonedWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	other := open(path)
	unlock := mustLock(t, other)
	var opened atomic.Int32
	m := lockfile.New(func() (lockfile.File, error) {
		opened.Add(1)
		return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	})
	before := runtime.NumGoroutine()
	for range 100 {
		if _, err := m.Lock(within(time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Lock while locked: %v, want the context's error", err)
		}
	}
	if got := opened.Load(); got != 1 {
		t.Errorf("the file was opened %d times, want once", got)
	}
	for runtime.NumGoroutine() > before+1 {
		runtime.Gosched() // those of the contexts' ends
	}
	unlock()
	mustLock(t, other)()
	mustLock(t, m)()
	mustLock(t, other)()
	for runtime.NumGoroutine() > before {
		runtime.Gosched()
	}
}

// Goroutines on one Mutex and on another of the same file, some of which give
// up: no two inside.
func TestStress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var inside atomic.Int32
	var wg sync.WaitGroup
	for _, m := range []*lockfile.Mutex{open(path), open(path)} {
		for g := range 4 {
			wg.Go(func() {
				for i := range 100 {
					patience := long
					if (g+i)%3 == 0 {
						patience = 100 * time.Microsecond
					}
					unlock, err := m.Lock(within(patience))
					if errors.Is(err, context.DeadlineExceeded) && patience < long {
						continue
					}
					if err != nil {
						t.Error(err)
						return
					}
					if inside.Add(1) != 1 {
						t.Error("two inside")
					}
					runtime.Gosched()
					inside.Add(-1)
					unlock()
				}
			})
		}
	}
	wg.Wait()
	mustLock(t, open(path))()
}
