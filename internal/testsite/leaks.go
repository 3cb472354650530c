package testsite

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// Exit is for a TestMain: it ends the test binary with the exit code of the tests, or
// with 1 if they have left goroutines behind, which it prints.
func Exit(code int) {
	if left := leaks(time.Minute); len(left) > 0 && code == 0 {
		fmt.Printf("%d goroutines are left:\n\n%s\n", len(left), strings.Join(left, "\n\n"))
		code = 1
	}
	os.Exit(code)
}

// leaks returns the goroutines that are there besides the caller's, when they have had
// time to end.
func leaks(patience time.Duration) (left []string) {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if left = goroutines(); len(left) == 0 || time.Now().After(deadline) {
			return left
		}
	}
}

// goroutines returns the stacks of all goroutines but the caller's, and but those
// that the standard library keeps for ever.
func goroutines() (list []string) {
	buf := make([]byte, 16<<20)
	stacks := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	for _, s := range stacks[1:] {
		if !strings.Contains(s, "os/signal.") {
			list = append(list, s)
		}
	}
	return list
}
