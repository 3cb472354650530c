// Package linear tests that the stores are linearizable: each call takes effect at
// one moment between its start and its end, whatever runs beside it. It is a module
// of its own, so that the library does not depend on the checker.
//
// A test runs clients, which make random calls on a few records: goroutines over one
// store or over several that share their data, and other processes. It writes down
// when each call started and ended and what it returned: that is a history. Beside
// the clients, processes and servers are killed, answers are lost, and contexts end.
// A call without a definite result may have taken effect at any time after its start,
// or not at all. Then github.com/anishathalye/porcupine looks for an order of the
// calls that explains all results by the contract of session2.Store, which
// model_test.go states as a function on one record. A call on many records, such as
// DeleteUser, is one step on each of them, at moments of their own. If there is no
// such order, the test fails and prints the calls on that record; if the checker
// finds no answer in time, it fails as well.
//
// TORTURE_SECONDS=n has each test try each store for about n seconds, not only for its
// usual number of histories. TORTURE_SEED=n begins with that seed, which a failure
// prints, as in
//
//	cd internal/torture
//	TORTURE_SEED=12345 TORTURE_SECONDS=60 go test -race -v -run TestProcesses/gob ./linear
//
// The history then has the same plan: its clients, their random choices, and the
// faults. But the scheduler, the disk and the server have their part in it, so that it
// may take more than one try to see the failure again. With -v each test says how many
// histories it has tried, with how many calls, how many of them without a definite
// result, and how many kills.
package linear
