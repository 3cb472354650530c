package lockfile

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Open-file-description locks can be put on single bytes, whether the file has
// them or not. The first byte is the lock. The bytes behind it are the queue:
// who waits locks the one behind all that are locked, its ticket, and keeps it
// until it gives the lock up. It waits until no ticket before its own is left
// and then for the lock, for which nobody else asks by then but one who looked
// at an empty queue just before. When a process dies, its tickets are gone, and
// the others close up. The queue keeps order only; what excludes is the lock.
const (
	theLock     = 0
	firstTicket = 1
	toTheEnd    = 0 // as a length
)

// tryLock takes the lock, unless somebody has it or waits for it.
func tryLock(f File) (ok bool, err error) {
	err = control(f, func(fd uintptr) error {
		queue, err := blocker(fd, firstTicket)
		if err != nil || queue.Type != unix.F_UNLCK {
			return err
		}
		ok, err = take(fd, theLock)
		return err
	})
	return ok, err
}

// waitLock waits for the lock behind those who wait already. It keeps a thread
// busy until it has the lock.
func waitLock(f File) error {
	return control(f, func(fd uintptr) error {
		ticket, err := drawTicket(fd)
		if err == nil && ticket > firstTicket {
			err = setLock(fd, unix.F_OFD_SETLKW, unix.F_RDLCK, firstTicket, ticket-firstTicket)
		}
		if err != nil {
			return err
		}
		if err := setLock(fd, unix.F_OFD_SETLKW, unix.F_WRLCK, theLock, 1); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(fd), &st); err == nil && st.Nlink == 0 {
			return errRemoved
		}
		return nil
	})
}

// drawTicket returns a ticket behind all others, or zero where earlier releases
// of this package are at work, which lock all of the file.
func drawTicket(fd uintptr) (int64, error) {
	for {
		ticket := int64(firstTicket)
		for {
			other, err := blocker(fd, ticket)
			if err != nil {
				return 0, err
			}
			if other.Type == unix.F_UNLCK {
				break
			}
			if other.Len == toTheEnd {
				return 0, nil
			}
			ticket = other.Start + other.Len
		}
		if ok, err := take(fd, ticket); err != nil || ok {
			return ticket, err
		} // else somebody else has drawn it meanwhile
	}
}

// unlock gives the lock and the ticket up, at once: so the next in the queue
// finds both of them gone.
func unlock(f File) error {
	return control(f, func(fd uintptr) error {
		return setLock(fd, unix.F_OFD_SETLK, unix.F_UNLCK, 0, toTheEnd)
	})
}

// take locks one byte, unless somebody else has it.
func take(fd uintptr, at int64) (ok bool, err error) {
	err = setLock(fd, unix.F_OFD_SETLK, unix.F_WRLCK, at, 1)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return false, nil
	}
	return err == nil, err
}

// blocker returns somebody else's lock on the byte at from or behind it; if
// there is none, one of type F_UNLCK.
func blocker(fd uintptr, from int64) (unix.Flock_t, error) {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: from, Len: toTheEnd}
	err := unix.FcntlFlock(fd, unix.F_OFD_GETLK, &lock)
	return lock, err
}

func setLock(fd uintptr, how int, kind int16, start, length int64) error {
	for {
		lock := unix.Flock_t{Type: kind, Start: start, Len: length} // Pid must be zero
		if err := unix.FcntlFlock(fd, how, &lock); err != unix.EINTR {
			return err
		}
	}
}
