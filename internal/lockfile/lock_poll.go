//go:build !linux

package lockfile

import (
	"math/rand/v2"
	"time"
)

// The pause between two tries starts at the shorter one, which is about the
// time that a write without sync takes, and doubles up to the longer one.
const (
	firstPause = 100 * time.Microsecond
	lastPause  = 5 * time.Millisecond
)

// waitLock waits for the lock.
func waitLock(f File) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		if ok, err := tryLock(f); err != nil || ok {
			return err
		}
		time.Sleep(pause/2 + rand.N(pause)) // jitter, or two waiters might meet for ever
	}
}
