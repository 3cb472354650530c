//go:build linux || darwin || dragonfly || freebsd || illumos || netbsd || openbsd

package lockfile

import "golang.org/x/sys/unix"

// Unflock gives up a flock that somebody else's code has put on the file.
// Closing the file does not, as long as it is mapped into memory.
func Unflock(f File) error { return flock(f, unix.LOCK_UN) }

func flock(f File, how int) error {
	return control(f, func(fd uintptr) error {
		for {
			if err := unix.Flock(int(fd), how); err != unix.EINTR {
				return err
			}
		}
	})
}
