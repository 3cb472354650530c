package main

import (
	"syscall"
	"time"
)

// processorTime returns what this process has had so far, in all of its threads. Unlike
// the wall's, this clock stands still while others have the processor.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
