package storetest

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/session2/session2"
)

// A recorder takes the failures that would fail a test.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	failures []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Fatal(args ...any) { r.Fatalf("%s", fmt.Sprint(args...)) }

// Failures checks the one clause that says so, as Run does, and returns its
// failures instead of reporting them. It reports to t a clause that there is
// not, or that does not apply to the store.
func Failures(
	t testing.TB, says string, limit time.Duration,
	open func(t testing.TB, dir string) session2.Store, opts *Options,
) []string {
	t.Helper()
	s := newSuite(t.Name(), open, opts)
	s.limit = limit
	if s.serve(t) {
		return nil
	}
	t.Logf("storetest: seed %d", s.Seed)
	has := s.traitsOf(t)
	for _, c := range clauses() {
		if c.says != says {
			continue
		}
		if missing := c.needs &^ has; missing != 0 {
			t.Fatalf("the clause does not apply: the store has no %v", missing)
		}
		r := &recorder{TB: t}
		s.examine(r, c, has)
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.failures
	}
	t.Fatalf("no clause says: %s", says)
	return nil
}

// Sentences returns what the clauses say.
func Sentences() []string {
	var all []string
	for _, c := range clauses() {
		all = append(all, c.says)
	}
	return all
}
