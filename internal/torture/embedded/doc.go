// Package embedded tests that the stores on files outlive the death of those who write to
// them. Processes create, replace, touch and delete records, and say on a pipe what
// they begin and what was acknowledged, until kill -9 meets them at a random instant.
// Then the store is opened again: each acknowledged change is there whole, nothing that
// was deleted is, what was under way is there or not, and both indexes know the same
// records.
//
// TORTURE_KILLS=n has each store's writers killed n times, TORTURE_SECONDS=n for about n
// seconds; both together, until both are reached. TORTURE_SEED=n begins with that seed,
// which a failure prints; the moment of a kill is never the same again, though.
package embedded
