package storetest

import (
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/session2/session2"
)

// owning holds the clauses on IterUser and DeleteUser.
var owning = []clause{
	{says: "IterUser yields the user's records exactly once and nobody else's", needs: users, check: iterUser},
	{says: "IterUser stops when it is told to", needs: users, check: iterUserStops},
	{says: "The body of an IterUser loop may call the store", needs: users, check: iterUserBodyCalls},
	{says: "IterUser hands out Data that the caller may change and keep", needs: users, check: iterUserCopies},
	{says: "DeleteUser removes the user's records and counts them and leaves all others",
		needs: users, check: deleteUser},
	{says: "DeleteUser leaves the records that it is told to keep, and their user",
		needs: users, check: deleteUserKeeps},
	{says: "Users are told apart byte by byte", needs: users, check: usersApart},
	{says: "The empty user has no records", needs: users, check: emptyUser},
	{says: "A Save with another user moves the record from the one to the other", needs: users, check: userChanges},
	{says: "A record that is deleted is the user's no more", needs: users, check: userDeleted},
	{says: "A record that a sweep removed is the user's no more", needs: users | sweeps, check: userSwept},
	{says: "A record that was touched stays the user's", needs: users | touches, check: userTouched},
	{says: "Opened again the store knows whose the records are", needs: users | reopens, check: userReopened},
	{says: "A Save of another user beside DeleteUser is kept or told that it was too late",
		needs: users | threads, check: saveBesideDeleteUser},
	{says: "IterUser yields the user's records exactly once while others change the store",
		needs: users | threads, check: iterUserBesideOthers},
}

// oddUsers differ by case, blanks, what databases fold, trim or match, and are
// prefixes of one another.
var oddUsers = []string{
	"alice", "Alice", "ALICE", "alic", "alice2", "alice ", " alice", "alice\x00", "alice\x00bob", "alice/bob",
	"al%", "al_ce", "*", "?", ".", "..", "../alice", "a/../b", "/", "\\",
	"\x00", "\x00\x00", "\xff", "\xff\xfe", "alice\xff",
	"ä", "a\u0308", "Ä", "ß", "ss", "ı", "i", "日本", "\n", "'; DROP TABLE sessions; --",
	strings.Repeat("u", 254), strings.Repeat("u", 255), strings.Repeat("u", 254) + "v", strings.Repeat("\xfe", 255),
}

func (e *exam) iterUser(user string) iter.Seq2[session2.Record, error] {
	return e.store.(session2.UserStore).IterUser(e.ctx(), user)
}

// owns wants IterUser to yield exactly these records.
func (e *exam) owns(user string, want ...session2.Record) {
	e.Helper()
	got, err := collect(e.iterUser(user))
	if err != nil {
		e.Fatalf("IterUser(%q): got %v after %d records, want %d records", user, err, len(got), len(want))
	}
	if d := diffAll(got, want); d != "" {
		e.Fatalf("IterUser(%q): %s", user, d)
	}
}

// dismiss wants DeleteUser to remove that many records.
func (e *exam) dismiss(user string, want int) {
	e.Helper()
	n, err := e.store.(session2.UserStore).DeleteUser(e.ctx(), user)
	if n != want || err != nil {
		e.Fatalf("DeleteUser(%q): got %d, %v, want %d", user, n, err, want)
	}
}

func iterUser(e *exam) {
	alice, bob := e.recordsOf("alice", 30), e.recordsOf("bob", 2)
	alice[0].Expires = alice[0].Created // expired ones are shown
	alice[1].Data = e.data(100_000)
	e.create(alice...)
	e.create(bob...)
	e.create(e.records(5)...)
	e.owns("alice", alice...)
	e.owns("bob", bob...)
	e.owns("carol")
}

func iterUserStops(e *exam) {
	recs := e.recordsOf("alice", 20)
	e.create(recs...)
	for _, stop := range []int{1, 7, 20} {
		n := 0
		for _, err := range e.iterUser("alice") {
			if n++; err != nil || n == stop {
				break
			}
		}
		if n != stop {
			e.Fatalf("got %d records, want %d", n, stop)
		}
		next := e.next(recs[0]) // nothing is left locked
		e.save(next, recs[0].Version)
		recs[0] = next
	}
}

// iterUserBodyCalls ends the user's sessions one by one, as RevokeOthers does.
func iterUserBodyCalls(e *exam) {
	recs := e.recordsOf("alice", 20)
	e.create(recs...)
	n := 0
	for rec, err := range e.iterUser("alice") {
		if err != nil {
			e.Fatalf("IterUser: %v", err)
		}
		n++
		if rec.ID == recs[0].ID {
			continue
		}
		e.load(rec.ID)
		e.remove(rec.ID)
	}
	if n != len(recs) {
		e.Fatalf("got %d records, want %d", n, len(recs))
	}
	e.owns("alice", recs[0])
}

func iterUserCopies(e *exam) {
	recs := e.recordsOf("alice", 10)
	e.create(recs...)
	kept, err := collect(e.iterUser("alice"))
	if err != nil {
		e.Fatalf("IterUser: %v", err)
	}
	for rec := range e.iterUser("alice") {
		clear(rec.Data)
	}
	e.holds(recs...)
	for _, rec := range recs {
		e.save(e.next(rec), rec.Version)
	}
	e.dismiss("alice", len(recs))
	if d := diffAll(kept, recs); d != "" {
		e.Fatalf("records kept from an iteration: %s", d)
	}
}

func deleteUser(e *exam) {
	alice, bob, none := e.recordsOf("alice", 30), e.recordsOf("bob", 2), e.records(5)
	e.create(alice...)
	e.create(bob...)
	e.create(none...)
	e.dismiss("alice", 30)
	e.dismiss("alice", 0)
	e.dismiss("carol", 0)
	for _, rec := range alice {
		e.lacks(rec.ID)
	}
	e.answers("Save", e.store.Save(e.ctx(), e.next(alice[0]), alice[0].Version), session2.ErrNotFound)
	e.holds(append(bob, none...)...)
	e.owns("alice")
	e.owns("bob", bob...)
}

// deleteUserKeeps keeps more than the first and the last, and names some that are
// none of the user's.
func deleteUserKeeps(e *exam) {
	alice, bob := e.recordsOf("alice", 30), e.recordsOf("bob", 2)
	e.create(alice...)
	e.create(bob...)
	users := e.store.(session2.UserStore)
	keep := []session2.ID{alice[0].ID, alice[17].ID, alice[29].ID, bob[0].ID, e.record().ID}
	if n, err := users.DeleteUser(e.ctx(), "alice", keep...); n != 27 || err != nil {
		e.Fatalf("DeleteUser(alice) of 30 with three to keep: got %d, %v, want 27", n, err)
	}
	e.owns("alice", alice[0], alice[17], alice[29])
	e.owns("bob", bob...)
	e.dismiss("alice", 3)
}

func usersApart(e *exam) {
	recs := e.records(2 * len(oddUsers))
	for i := range recs {
		recs[i].User = oddUsers[i/2]
	}
	e.create(recs...)
	for i, user := range oddUsers {
		e.owns(user, recs[2*i:2*i+2]...)
	}
	for i, user := range oddUsers {
		e.dismiss(user, 2)
		e.lacks(recs[2*i].ID, recs[2*i+1].ID)
		e.holds(recs[2*i+2:]...)
	}
}

func emptyUser(e *exam) {
	recs := e.records(5)
	e.create(recs...)
	e.create(e.recordsOf("alice", 2)...)
	e.owns("")
	e.dismiss("", 0)
	e.holds(recs...)
}

func userChanges(e *exam) {
	rec := e.record()
	e.save(rec, 0)
	last := ""
	for _, user := range []string{"alice", "bob", "bobby", "bob", "", "alice"} {
		next := e.next(rec)
		next.User = user
		e.save(next, rec.Version)
		rec = next
		if last != "" {
			e.owns(last)
			e.dismiss(last, 0)
		}
		if user != "" {
			e.owns(user, rec)
		}
		e.holds(rec)
		last = user
	}
	e.dismiss("alice", 1)
	e.lacks(rec.ID)
}

func userDeleted(e *exam) {
	recs := e.recordsOf("alice", 3)
	e.create(recs...)
	e.remove(recs[0].ID)
	e.owns("alice", recs[1:]...)
	anew := e.next(recs[0])
	anew.User = "bob"
	e.save(anew, 0)
	e.owns("alice", recs[1:]...)
	e.dismiss("alice", 2)
	e.owns("bob", anew)
}

func userSwept(e *exam) {
	recs := e.recordsOf("alice", 4)
	recs[0].Expires = recs[0].Created
	e.create(recs...)
	e.sweep(time.Hour, 1)
	e.owns("alice", recs[1:]...)
	e.dismiss("alice", 3)
}

func userTouched(e *exam) {
	rec := e.recordsOf("alice", 1)[0]
	e.save(rec, 0)
	rec.Accessed, rec.Expires = rec.Accessed.Add(time.Second), rec.Expires.Add(time.Second)
	e.touch(rec.ID, rec.Accessed, rec.Expires)
	e.owns("alice", rec)
	e.dismiss("alice", 1)
	e.lacks(rec.ID)
}

func userReopened(e *exam) {
	alice, bob := e.recordsOf("alice", 5), e.recordsOf("bob", 5)
	e.create(alice...)
	e.create(bob...)
	e.remove(alice[4].ID)
	next := e.next(alice[3])
	next.User = "bob"
	e.save(next, alice[3].Version)
	e.reopen()
	e.owns("alice", alice[:3]...)
	e.owns("bob", append(bob, next)...)
	e.dismiss("alice", 3)
	e.reopen()
	e.owns("alice")
	e.dismiss("bob", 6)
}

func saveBesideDeleteUser(e *exam) {
	for range 30 {
		recs := e.recordsOf("alice", 3)
		e.create(recs...)
		next := make([]session2.Record, len(recs))
		for i, rec := range recs {
			next[i] = e.next(rec)
			next[i].User = "bob"
		}
		kept := make([]bool, len(recs))
		e.together(len(recs)+1, func(i int) error {
			if i == len(recs) {
				_, err := e.store.(session2.UserStore).DeleteUser(e.ctx(), "alice")
				return err
			}
			err := e.store.Save(e.ctx(), next[i], recs[i].Version)
			kept[i] = err == nil
			if errors.Is(err, session2.ErrNotFound) {
				return nil
			}
			return err
		})
		for i, rec := range next {
			if kept[i] {
				e.holds(rec)
				e.remove(rec.ID)
			} else {
				e.lacks(rec.ID)
			}
		}
		e.owns("alice")
		e.owns("bob")
	}
}

func iterUserBesideOthers(e *exam) {
	steady, passing := e.recordsOf("alice", 50), e.recordsOf("alice", 40)
	e.create(steady...)
	e.create(e.recordsOf("bob", 20)...)
	passes := make([][]session2.Record, 8)
	e.together(2, func(worker int) error {
		if worker == 0 {
			return e.comeAndGo(passing)
		}
		for i := range passes {
			var err error
			if passes[i], err = collect(e.iterUser("alice")); err != nil {
				return fmt.Errorf("IterUser: %w", err)
			}
		}
		return nil
	})
	for _, got := range passes {
		e.sawThroughout(got, steady)
		for _, rec := range got {
			if rec.User != "alice" {
				e.Fatalf("IterUser(alice): got a record of %q", rec.User)
			}
		}
	}
}
