package storetest

import (
	"fmt"
	"math"
	"strings"

	"github.com/session2/session2"
)

// saving holds the clauses on Load, Save, Delete and Has.
var saving = []clause{
	{says: "Load and Has find nothing in a fresh store", check: freshIsEmpty},
	{says: "Save with a zero prev creates the record", check: saveCreates},
	{says: "Save with a zero prev over a record is ErrConflict and changes nothing", check: createOverRecord},
	{says: "Save over the version that is stored replaces the record", check: saveReplaces},
	{says: "Save over another version than the stored one is ErrConflict and changes nothing", check: saveOverOther},
	{says: "Save over an absent record is ErrNotFound and creates nothing", check: saveOverNothing},
	{says: "Save over a deleted record is ErrNotFound and does not revive it", check: saveOverDeleted},
	{says: "Save asked again answers nil and changes nothing", check: saveAgain},
	{says: "Save asked again after others have written is ErrConflict", check: saveAgainTooLate},
	{says: "Save refuses the version zero and changes nothing", check: saveZeroVersion},
	{says: "Every version but zero is good, the largest too", check: allVersions},
	{says: "Delete removes the record whatever its version", check: deleteRemoves},
	{says: "Delete of an absent record is no error", check: deleteAbsent},
	{says: "Delete leaves every other record alone", check: deleteLeavesOthers},
	{says: "After Delete a zero prev creates the record anew", check: createAfterDelete},
	{says: "Expired records are shown by Load and Has", check: expiredIsShown},
	{says: "An error of Save repeats nothing of the data", check: errorsKeepSecrets},
	{says: "Any sequence of calls leaves what the contract says", check: randomCalls},
}

func freshIsEmpty(e *exam) {
	e.lacks(session2.ID{}, e.id())
}

func saveCreates(e *exam) {
	rec := e.record()
	rec.User = "alice"
	e.save(rec, 0)
	e.holds(rec)
}

func createOverRecord(e *exam) {
	rec := e.record()
	e.save(rec, 0)
	e.answers("Save over 0", e.store.Save(e.ctx(), e.next(rec), 0), session2.ErrConflict)
	e.holds(rec)
}

func saveReplaces(e *exam) {
	old := e.record()
	old.User, old.Data = "alice", e.data(900)
	e.save(old, 0)
	rec := e.record() // all of it changes
	rec.ID, rec.Created = old.ID, old.Created.Add(-1)
	e.save(rec, old.Version)
	e.holds(rec)

	other := e.next(rec)
	other.User, other.Data = "bob", e.data(2000)
	e.save(other, rec.Version)
	e.holds(other)
}

func saveOverOther(e *exam) {
	rec := e.record()
	e.save(rec, 0)
	for _, prev := range []session2.Version{rec.Version + 1, rec.Version - 1, e.version(), math.MaxUint64} {
		if prev != 0 && prev != rec.Version {
			e.answers("Save", e.store.Save(e.ctx(), e.next(rec), prev), session2.ErrConflict)
		}
	}
	e.holds(rec)

	second := e.next(rec)
	e.save(second, rec.Version)
	e.answers("Save over the version before", e.store.Save(e.ctx(), e.next(rec), rec.Version), session2.ErrConflict)
	e.holds(second)
}

func saveOverNothing(e *exam) {
	rec := e.record()
	e.answers("Save", e.store.Save(e.ctx(), rec, e.version()), session2.ErrNotFound)
	e.answers("Save of the version that it replaces", e.store.Save(e.ctx(), rec, rec.Version), session2.ErrNotFound)
	e.lacks(rec.ID)
}

func saveOverDeleted(e *exam) {
	rec := e.record()
	e.save(rec, 0)
	second := e.next(rec)
	e.save(second, rec.Version)
	e.remove(rec.ID)
	e.answers("Save", e.store.Save(e.ctx(), e.next(rec), second.Version), session2.ErrNotFound)
	e.answers("Save asked again", e.store.Save(e.ctx(), second, rec.Version), session2.ErrNotFound)
	e.lacks(rec.ID)
}

func saveAgain(e *exam) {
	first := e.record()
	e.save(first, 0)
	e.save(first, 0)
	second := e.next(first)
	e.save(second, first.Version)
	e.save(second, first.Version)

	changed := second // the same version tells the same state: nothing is written
	changed.Data = e.data(30)
	for _, prev := range []session2.Version{first.Version, second.Version, 0, e.version()} {
		e.save(changed, prev)
	}
	e.holds(second)
}

func saveAgainTooLate(e *exam) {
	first := e.record()
	e.save(first, 0)
	second := e.next(first)
	e.save(second, first.Version)
	third := e.next(second)
	e.save(third, second.Version)
	e.answers("create again", e.store.Save(e.ctx(), first, 0), session2.ErrConflict)
	e.answers("Save again", e.store.Save(e.ctx(), second, first.Version), session2.ErrConflict)
	e.holds(third)
}

func saveZeroVersion(e *exam) {
	rec := e.record()
	rec.Version = 0
	e.fails("Save that creates", e.store.Save(e.ctx(), rec, 0))
	e.lacks(rec.ID)

	rec.Version = e.version()
	e.save(rec, 0)
	zero := e.next(rec)
	zero.Version = 0
	e.fails("Save that replaces", e.store.Save(e.ctx(), zero, rec.Version))
	e.holds(rec)
}

func allVersions(e *exam) {
	rec := e.record()
	var prev session2.Version
	for _, v := range []session2.Version{
		1, math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64, math.MaxUint32, 1<<53 + 1, 2,
	} {
		rec.Version = v
		e.save(rec, prev)
		e.holds(rec)
		prev = v
	}
}

func deleteRemoves(e *exam) {
	rec := e.record()
	e.save(rec, 0)
	e.remove(rec.ID)
	e.lacks(rec.ID)

	rec = e.record()
	e.save(rec, 0)
	e.save(e.next(rec), rec.Version)
	e.remove(rec.ID)
	e.lacks(rec.ID)
}

func deleteAbsent(e *exam) {
	id := e.id()
	e.remove(id)
	e.remove(id)
	e.lacks(id)
}

// deleteLeavesOthers uses IDs that differ little, so that a store that folds
// their case, trims them or cuts them short mixes them up.
func deleteLeavesOthers(e *exam) {
	first := e.record()
	neighbours := []session2.ID{{}, {0xff}, {15: 0xff}, {'A'}, {'a'}, {'a', ' '}, {'.', '.', '/'}, {'*'}, {'%'}}
	for i := range first.ID {
		id := first.ID
		id[i] ^= 1 << e.rand.IntN(8)
		neighbours = append(neighbours, id)
	}
	recs := e.records(len(neighbours))
	for i, id := range neighbours {
		recs[i].ID = id
	}
	e.create(first)
	e.create(recs...)
	e.remove(first.ID)
	e.lacks(first.ID)
	e.holds(recs...)
}

func createAfterDelete(e *exam) {
	rec := e.record()
	rec.User = "alice"
	e.save(rec, 0)
	e.remove(rec.ID)
	anew := e.record()
	anew.ID = rec.ID
	e.save(anew, 0)
	e.holds(anew)
	e.remove(rec.ID)
	e.save(rec, 0) // the version of its first life is as good as any
	e.holds(rec)
}

func expiredIsShown(e *exam) {
	rec := e.record()
	rec.Expires = rec.Created
	e.save(rec, 0)
	e.holds(rec)
	second := e.next(rec)
	e.save(second, rec.Version)
	e.holds(second)
}

func errorsKeepSecrets(e *exam) {
	const secret = "correct-horse-battery-staple"
	rec := e.record()
	rec.Data = []byte(secret)
	notFound := e.store.Save(e.ctx(), rec, e.version())
	e.save(rec, 0)
	next := e.next(rec)
	next.Data = rec.Data
	conflict := e.store.Save(e.ctx(), next, e.version())
	zero := rec
	zero.Version = 0
	refused := e.store.Save(e.ctx(), zero, rec.Version)
	for _, err := range []error{notFound, conflict, refused} {
		for _, form := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprint([]byte(secret))} {
			if strings.Contains(fmt.Sprint(err), form) {
				e.Errorf("got an error that holds the record's data: %v", err)
			}
		}
	}
}
