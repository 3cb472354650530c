// Package soak runs managers at full load for a long time over each store, and fails if
// anything grows.
//
// A fixed number of clients signs in and out, reads, writes, rotates, spends form tokens,
// revokes, waits in streams and in Exclusive, and stays away until a session has expired.
// The sessions of half of the clients are sealed. All the while the store is swept. So
// there is a bound for the number of records, and whatever grows is a leak.
//
// At regular intervals the requests are held up, and the test measures memory, goroutines,
// file descriptors, records, the size of the store, and the latency since the last time.
// In the end it compares the second quarter of the run with the last one. Then all
// sessions are ended and swept, and the store must be as empty as a new one, with no
// goroutine and no descriptor left.
//
//	SOAK_SECONDS    how long each store is used; default 2, which is too short to see a
//	                trend: then only what is left in the end is judged
//	SOAK_INTERVAL   seconds between two measurements; default a 120th of the time, and
//	                at least 0.1
//
// With -v each store prints its measurements, and a row of a table. The figures are of
// a whole process, so the stores take turns. To run several side by side, start several
// processes, as in
//
//	SOAK_SECONDS=600 go test -v -timeout 1h -run TestSoak/bolt ./soak
package soak
