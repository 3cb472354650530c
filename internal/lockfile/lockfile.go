// Package lockfile excludes goroutines and processes from one another by an
// advisory lock on a file.
//
// The lock belongs to the open file (F_OFD_SETLK, flock, LockFileEx) and not
// to the process, as POSIX F_SETLK would have it: that kind does not exclude
// inside one process, and vanishes when any descriptor of the file is closed.
// The kernel gives the lock up when its holder dies, kill -9 included. The
// file must never be renamed, replaced or removed.
package lockfile

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"
)

// A File is what the lock is put on; an [*os.File] is one.
type File interface {
	syscall.Conn
	io.Closer
}

// A Mutex is a lock that all Mutexes on the same file share, in this process
// and in others. Goroutines that wait for one Mutex queue without polling;
// only the one whose turn it is asks the system for the lock, again and again
// with a short pause while another process has it, so that its context can
// end the wait.
type Mutex struct {
	open func() (File, error)
	turn chan struct{} // full while someone holds the lock exclusively, or is on the way to it

	mu      sync.Mutex
	readers int           // who share the lock in this process
	shared  File          // theirs
	drained chan struct{} // closed when the last of them is gone
}

// New returns a Mutex on the file that open opens. The file is opened for each
// lock that is taken, and closed when the lock is given up, so that a Mutex at
// rest costs no descriptor. It must be open for writing.
func New(open func() (File, error)) *Mutex {
	return &Mutex{open: open, turn: make(chan struct{}, 1)}
}

// Lock takes the lock for the caller alone. The error is the context's if that
// ends first; it matches [errors.ErrUnsupported] where the system has no locks.
// Calling unlock again does nothing.
func (m *Mutex) Lock(ctx context.Context) (unlock func(), err error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	if err := m.waitDrained(ctx); err != nil {
		<-m.turn
		return nil, err
	}
	f, err := m.acquire(ctx, true)
	if err != nil {
		<-m.turn
		return nil, err
	}
	return sync.OnceFunc(func() { release(f); <-m.turn }), nil
}

// RLock takes the lock together with other callers of RLock. It answers like
// [Mutex.Lock]. One that waits in Lock goes before those that come later.
func (m *Mutex) RLock(ctx context.Context) (unlock func(), err error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer func() { <-m.turn }()
	if m.join() {
		return sync.OnceFunc(m.leave), nil
	}
	f, err := m.acquire(ctx, false)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.readers, m.shared, m.drained = 1, f, make(chan struct{})
	return sync.OnceFunc(m.leave), nil
}

// enter waits for the caller's turn among the goroutines of this Mutex.
func (m *Mutex) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case m.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// waitDrained waits until no reader of this Mutex is left. No new one comes,
// because the caller has the turn.
func (m *Mutex) waitDrained(ctx context.Context) error {
	m.mu.Lock()
	readers, drained := m.readers, m.drained
	m.mu.Unlock()
	if readers == 0 {
		return nil
	}
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// join adds a reader if there is one already, whose lock it shares.
func (m *Mutex) join() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.readers == 0 {
		return false
	}
	m.readers++
	return true
}

// leave takes a reader away, and with the last one the lock.
func (m *Mutex) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.readers--; m.readers == 0 {
		release(m.shared)
		close(m.drained)
	}
}

// The pause between two tries starts at the shorter one, which is about the
// time that a write without sync takes, and doubles up to the longer one.
const (
	firstPause = 100 * time.Microsecond
	lastPause  = 5 * time.Millisecond
)

// acquire gets the system's lock on a newly opened file.
func (m *Mutex) acquire(ctx context.Context, exclusive bool) (File, error) {
	f, err := m.open()
	if err != nil {
		return nil, fmt.Errorf("lock file: %w", err)
	}
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		ok, err := tryLock(f, exclusive)
		if err == nil && ok {
			return f, nil
		}
		if err == nil {
			err = sleep(ctx, pause/2+rand.N(pause)) // jitter, or two waiters might meet for ever
		} else {
			err = fmt.Errorf("lock file: %w", err)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
	}
}

// sleep waits for d, or fails when the context ends before.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// release gives the system's lock up. Closing alone would do so too, unless a
// process started meanwhile has inherited the file.
func release(f File) {
	unlock(f)
	f.Close()
}

// control calls fn with the file's descriptor or handle.
func control(f File, fn func(fd uintptr) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var fnErr error
	if err := c.Control(func(fd uintptr) { fnErr = fn(fd) }); err != nil {
		return err
	}
	return fnErr
}
