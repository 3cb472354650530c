// Package lockfile excludes goroutines and processes from one another by an
// advisory lock on a file, and lets them wait for it in a queue.
//
// The lock belongs to the open file (F_OFD_SETLK, flock, LockFileEx) and not
// to the process, as POSIX F_SETLK would have it: that kind does not exclude
// inside one process, and vanishes when any descriptor of the file is closed.
// The kernel gives the lock up when its holder dies, kill -9 included. The
// file must never be renamed, replaced or removed: the holder of the lock
// and whoever opens the new file would not exclude one another. One who waits,
// at least, goes on to the new file.
package lockfile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A File is what the lock is put on; an [*os.File] is one.
type File interface {
	syscall.Conn
	io.Closer
	Name() string
	Stat() (fs.FileInfo, error)
}

// A Mutex is a lock that all Mutexes on the same file share, in this process
// and in others.
//
// Waiting is fair. The goroutines that wait for one Mutex queue, and the first
// of them queues with those of other Mutexes and processes. So while it waits,
// each of these has the lock once at most. The second queue is there on Linux
// only: other systems have no locks to build it with, and the first waiter asks
// for the lock again and again.
type Mutex struct {
	// Patience is how long Lock waits for another process if its context has no deadline,
	// zero as long as [WithPatience] says. It is for locks that are held for a moment, and is
	// set before the Mutex is used.
	Patience time.Duration

	open   func() (File, error)
	lstat  func() (fs.FileInfo, error) // of the file's path; nil if the file is not kept open
	turn   chan struct{}               // full while someone holds the lock, or is on the way to it
	taken  atomic.Uint64               // goes up whenever the lock is taken, and when it is given up
	closed atomic.Bool

	// What follows belongs to whoever has the turn.
	left *wait       // a wait that nobody waits for any more
	file File        // that the lock is on, or that is kept open
	info fs.FileInfo // of the file that is kept open; nil if there is none
}

// Patience is the usual one: no process in good order holds a lock of the stores for so long, on a
// machine that is slow and busy either.
const Patience = 30 * time.Second

// ErrHeld says that another process has held a lock for longer than a caller's patience: it
// stands still, perhaps, for then no kernel takes the lock from it.
var ErrHeld = errors.New("another process holds it")

type patienceKey struct{}

// WithPatience returns a context, by which a Mutex that has no Patience of its own waits for
// another process for d at most, each time. It is for callers who would rather give up than
// wait for the end of long work elsewhere.
func WithPatience(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, patienceKey{}, d)
}

// patience returns how long to wait for another process, zero for as long as it takes.
func (m *Mutex) patience(ctx context.Context) time.Duration {
	if _, ok := ctx.Deadline(); ok {
		return 0
	}
	d, _ := ctx.Value(patienceKey{}).(time.Duration)
	return cmp.Or(m.Patience, d)
}

// New returns a Mutex on the file that open opens. The file is opened for each
// lock that is taken, and closed when the lock is given up, so that a Mutex at
// rest costs no descriptor. It must be open for reading and writing.
func New(open func() (File, error)) *Mutex {
	return &Mutex{open: open, turn: make(chan struct{}, 1)}
}

// NewKept is New but that the file stays open until Close, for as long as it is the
// one that lstat finds: whoever takes the lock looks. That is less than half of the
// system's work, and costs a Mutex at rest one descriptor.
func NewKept(open func() (File, error), lstat func() (fs.FileInfo, error)) *Mutex {
	m := New(open)
	m.lstat = lstat
	return m
}

// Close closes the file that is kept open, now or when the lock is given up. The
// Mutex can be used further, as if it came from New.
func (m *Mutex) Close() {
	m.closed.Store(true)
	select {
	case m.turn <- struct{}{}:
		m.drop()
		<-m.turn
	default: // who has the turn will look
	}
}

// Lock takes the lock. The error is the context's if that ends first; it matches
// [ErrHeld] if there is no deadline and another process holds the lock for longer than
// the Mutex has patience, and [errors.ErrUnsupported] where the system has no locks. Calling unlock
// again does nothing.
func (m *Mutex) Lock(ctx context.Context) (unlock func(), err error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	f, err := m.acquire(ctx)
	if err != nil {
		m.leave()
		return nil, err
	}
	return m.locked(f), nil
}

// TryLock takes the lock if that is possible at once, and reports whether it was.
func (m *Mutex) TryLock() (unlock func(), ok bool) {
	select {
	case m.turn <- struct{}{}:
	default:
		return nil, false
	}
	f, ok, err := m.try()
	if !ok {
		if err == nil {
			f.Close()
		}
		m.leave()
		return nil, false
	}
	return m.locked(f), true
}

// locked returns what gives the lock up that is on f. The caller has the turn.
func (m *Mutex) locked(f File) (unlock func()) {
	m.file = f
	n := m.taken.Add(1)
	return func() {
		if m.taken.CompareAndSwap(n, n+1) {
			m.release()
		}
	}
}

// release gives the lock up, and keeps the file if it is to be kept.
func (m *Mutex) release() {
	if m.info == nil && m.lstat != nil {
		m.info, _ = m.file.Stat() // without it, the file is not kept
	}
	if unlock(m.file) != nil || m.info == nil {
		m.drop()
	}
	m.leave()
}

// leave gives up the turn.
func (m *Mutex) leave() {
	<-m.turn
	if m.closed.Load() {
		m.Close()
	}
}

// drop closes the file, if there is one. The caller has the turn.
func (m *Mutex) drop() {
	if m.file != nil {
		m.file.Close()
	}
	m.file, m.info = nil, nil
}

// reuse returns the file that was kept open, if it still is the one to lock. It is
// locked if ok. The caller has the turn.
func (m *Mutex) reuse() (f File, ok bool) {
	if m.info == nil {
		return nil, false
	}
	ok, err := tryLock(m.file)
	if err == nil {
		var info fs.FileInfo
		info, err = m.lstat()
		if err == nil && !os.SameFile(info, m.info) {
			err = errRemoved
		}
	}
	if err != nil {
		m.drop() // which unlocks it, too
		return nil, false
	}
	return m.file, ok
}

// Probe returns the error that Lock would return for another reason than
// somebody else's lock. It does not wait.
func (m *Mutex) Probe() error {
	f, _, err := m.try()
	if err == nil {
		release(f)
	}
	return err
}

// enter waits for the caller's turn among the goroutines of this Mutex. A
// channel serves those that wait in their order.
func (m *Mutex) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case m.turn <- struct{}{}:
		return nil
	default: // to ask for the context's Done may cost a timer
	}
	select {
	case m.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errRemoved says that a file was removed while somebody waited for its lock.
var errRemoved = errors.New("removed")

// acquire gets the system's lock. The caller has the turn.
func (m *Mutex) acquire(ctx context.Context) (File, error) {
	for {
		f, err := m.acquireOnce(ctx)
		if !errors.Is(err, errRemoved) {
			return f, err
		}
	}
}

func (m *Mutex) acquireOnce(ctx context.Context) (File, error) {
	w := m.left
	if m.left = nil; w == nil || !w.resume() {
		f, ok := m.reuse()
		if f == nil {
			var err error
			if f, ok, err = m.try(); err != nil {
				return nil, err
			}
		}
		if ok {
			return f, nil
		}
		m.file, m.info = nil, nil // it is the wait's
		w = &wait{file: f, done: make(chan struct{})}
		go w.run()
	}
	err := w.await(ctx, m.patience(ctx))
	if err == nil {
		return w.file, w.err
	}
	if w.leave() {
		m.left = w
	}
	return nil, err
}

// try opens the file and takes the lock if nobody has it or waits for it.
func (m *Mutex) try() (f File, ok bool, err error) {
	f, err = m.open()
	if err != nil {
		return nil, false, fmt.Errorf("lock file: %w", err)
	}
	ok, err = tryLock(f)
	if err != nil {
		f.Close()
		return nil, false, fmt.Errorf("lock file: %w", err)
	}
	return f, ok, nil
}

// A wait is a wait for the system's lock. The kernel does not let it be broken
// off, so it goes on when its caller's context has ended. The next caller takes
// it up, with its place in the queue; if there is none when the lock comes, it
// gives the lock up at once. So a Mutex never has more than one.
type wait struct {
	file File
	done chan struct{} // closed when the wait is over
	err  error         // written before

	mu   sync.Mutex
	left bool // nobody waits for it
	over bool
}

// run waits for the lock.
func (w *wait) run() {
	err := waitLock(w.file)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err != nil:
		w.err = fmt.Errorf("lock file: %w", err)
		w.file.Close()
	case w.left:
		release(w.file)
	}
	w.over = true
	close(w.done)
}

// await returns nil when the wait is over, or an error that says why its caller does not
// wait any more.
func (w *wait) await(ctx context.Context, patience time.Duration) error {
	var enough <-chan time.Time
	if patience > 0 {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		enough = timer.C
	}
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-enough:
		return fmt.Errorf("lock file %s: %w (waited %v)", w.file.Name(), ErrHeld, patience)
	}
}

// leave says that nobody waits any more, and reports whether the wait goes on.
func (w *wait) leave() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over && w.err == nil {
		release(w.file)
	}
	w.left = true
	return !w.over
}

// resume says that somebody waits again, and reports whether that is still
// possible.
func (w *wait) resume() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left = w.over
	return !w.over
}

// release gives the system's lock up. Closing alone would do so too, unless a
// process started meanwhile has inherited the file.
func release(f File) {
	unlock(f)
	f.Close()
}

// control calls fn with the file's descriptor or handle. Nobody closes a file meanwhile,
// so that of an [os.File] can be had without what a RawConn costs.
func control(f File, fn func(fd uintptr) error) error {
	if f, ok := f.(*os.File); ok {
		defer runtime.KeepAlive(f)
		return fn(f.Fd())
	}
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
