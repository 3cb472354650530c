// Package protocol runs managers over a store that a scheduler plays with, and
// checks what clients were told against what is stored. Each store call waits
// until the scheduler lets it go on, and may lose its question or its answer,
// arrive late, hang, be refused or return ErrUncertain; so may a response be lost
// on its way. The schedules of a scenario are enumerated within bounds, and drawn by
// seeds, in turn, and so are those of the same scenario with sealed values.
//
// These variables of the environment say how much is done:
//
//	TORTURE_SECONDS   how long each scenario is explored; default 0.7
//	TORTURE_SEED      the first seed; default drawn, and printed with -v
//	TORTURE_REPLAY    one schedule, as a failure prints it: it runs alone, with its trace
//	TORTURE_PLANT     "1": TestPlanted plants faults in the core, and each must be found; another
//	                  value is a regular expression: those whose names match
//	TORTURE_BREAKS    set by TestPlanted: only schedules that break this promise count
package protocol
