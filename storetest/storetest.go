// Package storetest checks that a session store keeps the contract of
// [session2.Store] and of the optional interfaces beside it. Every store of
// session2 passes it, and so should yours:
//
//	func TestConformance(t *testing.T) {
//		storetest.Run(t, func(t testing.TB, dir string) session2.Store {
//			store, err := mystore.Open(filepath.Join(dir, "sessions"))
//			if err != nil {
//				t.Fatal(err)
//			}
//			return store
//		}, nil)
//	}
//
// Each clause of the contract is a subtest named by the clause itself, so that
// a failure reads as the sentence that does not hold, and go test -run picks
// one by its words. What is checked follows from what the store says of itself:
// an optional interface is checked if the store has it (and does not return
// [errors.ErrUnsupported]), sharing between goroutines if its Capabilities
// promise ThreadSafe, sharing between processes if they promise
// MultiprocessSafe, and kill -9 if they promise Durable. What a store does not
// promise is not checked, and the log of the test says so.
//
// A store that keeps its data elsewhere than in a directory, say in a database,
// derives the place (a table, a key prefix) from dir: the same dir must give
// the same data, another dir other data.
//
// Run the suite with the race detector: it finds what an unlucky schedule
// would have to show otherwise. It makes thousands of calls, so that a slow Save
// makes it slow.
package storetest

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/session2/session2"
)

// Options tell Run what it cannot find out about a store by itself. A nil *Options is
// the zero value.
type Options struct {
	// Corrupt damages the stored record with the given ID, and no other, so
	// that it cannot be read any more. No store is open on dir meanwhile. Nil
	// leaves out the clauses on corrupt records.
	Corrupt func(t testing.TB, dir string, id session2.ID)

	// Seed repeats the random choices of an earlier run, which logged it. Zero
	// draws a new seed.
	Seed uint64
}

// Run checks the store that open opens, each clause over a dir of its own. The dir is a
// fresh directory that names the data: opening the same dir again shows the same data
// if the store promises Durable or MultiprocessSafe, and in the latter case while the
// first store is still open as well. A failure of its own the function open reports to
// t. Run closes the store if it is an [io.Closer].
//
// To check several processes Run starts the test binary again for the test that called
// it. There, Run works on the data that it was started for and ends the process, so
// whatever precedes it in the test happens once more.
func Run(t *testing.T, open func(t testing.TB, dir string) session2.Store, opts *Options) {
	t.Helper()
	s := newSuite(t.Name(), open, opts)
	if s.serve(t) {
		return
	}
	t.Logf("storetest: seed %d", s.Seed)
	has := s.traitsOf(t)
	for _, c := range clauses() {
		if missing := c.needs &^ has; missing != 0 {
			t.Logf("not checked, as this store has no %v: %s", missing, c.says)
			continue
		}
		t.Run(c.says, func(t *testing.T) { s.examine(t, c, has) })
	}
}

// A clause is one rule of the contract.
type clause struct {
	says  string // the rule, as a sentence without its full stop
	needs trait  // the stores that it applies to
	check func(e *exam)
}

// clauses returns the whole contract, by subject.
func clauses() []clause {
	var all []clause
	for _, subject := range [][]clause{
		saving, keeping, calling, capable, settingUp,
		touching, listing, owning, sweeping,
		sharing, processing, damaging,
	} {
		all = append(all, subject...)
	}
	return all
}

// A suite is one call of Run.
type suite struct {
	Options
	test  string // that called Run
	open  func(t testing.TB, dir string) session2.Store
	limit time.Duration // of one clause: a store that hangs fails by the clause's name
}

func newSuite(test string, open func(t testing.TB, dir string) session2.Store, opts *Options) *suite {
	s := &suite{test: test, open: open, limit: 2 * time.Minute}
	if opts != nil {
		s.Options = *opts
	}
	if s.Seed == 0 {
		s.Seed = rand.Uint64()
	}
	return s
}
