package lockfile

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Waiting returns how many tickets there are for the lock on f, which are those
// of who waits and may be that of who has it.
func Waiting(f File) (n int, err error) {
	err = control(f, func(fd uintptr) error {
		seen := int64(0)
		for at := int64(firstTicket); ; at = seen {
			lock, err := blocker(fd, at)
			if err != nil || lock.Type == unix.F_UNLCK {
				return err
			}
			if seen = lock.Start + lock.Len; lock.Type == unix.F_WRLCK {
				n++
			}
		}
	})
	return n, err
}

// LockAsBefore takes the lock as the releases before the queue did.
func LockAsBefore(f File) error {
	return control(f, func(fd uintptr) error {
		return setLock(fd, unix.F_OFD_SETLK, unix.F_WRLCK, 0, toTheEnd)
	})
}

// Unlock gives up what LockAsBefore took.
func Unlock(f File) error { return unlock(f) }

// AwaitResumed calls start, which has a goroutine lock m, and returns when that
// goroutine has taken up the wait that was left.
func AwaitResumed(m *Mutex, start func()) {
	w := m.left
	start()
	for {
		w.mu.Lock()
		left := w.left
		w.mu.Unlock()
		if !left {
			return
		}
		runtime.Gosched()
	}
}
