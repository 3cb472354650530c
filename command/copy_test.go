package command

import (
	"database/sql"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
)

// records returns everything that a store holds, as text.
func records(t testing.TB, url string) (list []string) {
	t.Helper()
	with(t, url, func(store session2.Store) {
		for rec, err := range store.(session2.IterStore).Iter(t.Context()) {
			must(t, err)
			list = append(list, fmt.Sprintf("%v %v %q %v %v %v %x",
				rec.ID, rec.Version, rec.User, rec.Created, rec.Accessed, rec.Expires, rec.Data))
		}
	})
	slices.Sort(list)
	return list
}

// TestCopyRound copies from each store to the next, and the last to a fresh one
// of the first kind: what arrives is what left.
func TestCopyRound(t *testing.T) {
	first := stores[0].url(t)
	session(t, "setup", first).want(0)
	with(t, first, func(store session2.Store) {
		seed(t, store, "alice", 100)
		raw(t, store, 9, time.Now().Add(-time.Second), "expired")
	})
	want := records(t, first)
	want = slices.DeleteFunc(want, func(s string) bool { return strings.HasPrefix(s, session2.ID{9, 15: 9}.String()) })
	from := first
	for i := range stores {
		kind := stores[(i+1)%len(stores)]
		to := kind.url(t)
		session(t, "copy", "-n", from, to, "-json").want(0).number("copied", 100) // it is not there, or not set up
		left := 0
		if i == 0 {
			left = 1
		}
		session(t, "copy", "-json", from, to).want(0).says("made one").
			number("copied", 100).number("verified", 100).number("expired", left)
		session(t, "copy", "-json", from, to, "-workers", "1").want(0).hides("made one").
			number("copied", 0).number("present", 100).number("verified", 100)
		if got := records(t, to); !slices.Equal(got, want) {
			t.Fatalf("copy to %s: got %d records, want the %d of the source", kind.name, len(got), len(want))
		}
		from = to
	}
}

// TestCopyAgain copies over an earlier copy, after both stores went on.
func TestCopyAgain(t *testing.T) {
	from, to := stores[2].url(t), stores[1].url(t)
	session(t, "setup", from).want(0)
	var list []seeded
	change := func(url string, s seeded) {
		with(t, url, func(store session2.Store) {
			m, err := session2.NewManager(store, session2.Config{})
			must(t, err)
			handle, err := m.Open(t.Context(), s.token)
			must(t, err)
			handle.Set("changed", url)
			must(t, handle.Commit(t.Context()))
		})
	}
	with(t, from, func(store session2.Store) { list = seed(t, store, "alice", 4) })
	session(t, "copy", from, to).want(0)
	change(from, list[0]) // newer in the source
	change(to, list[1])   // newer in the target
	change(from, list[2]) // both went on: nothing tells which is later, but the access
	change(to, list[2])

	session(t, "copy", "-n", "-json", from, to).want(0).number("replaced", 1).number("newer", 2).number("present", 1)
	session(t, "copy", "-json", from, to).want(0).
		number("replaced", 1).number("newer", 2).number("present", 1).number("verified", 4)
	with(t, to, func(store session2.Store) {
		m, err := session2.NewManager(store, session2.Config{})
		must(t, err)
		for i, want := range []any{from, to, to, nil} {
			handle, err := m.Open(t.Context(), list[i].token)
			must(t, err)
			if got := handle.Get("changed"); got != want {
				t.Errorf("session %d: got %v, want %v", i, got, want)
			}
		}
	})
}

// TestCopyCorrupt copies what can be read, whoever wrote it, and says that it
// was not all.
func TestCopyCorrupt(t *testing.T) {
	from, to := stores[3].url(t), stores[2].url(t)
	session(t, "setup", from).want(0)
	var bad seeded
	with(t, from, func(store session2.Store) {
		bad = seed(t, store, "alice", 3)[1]
		raw(t, store, 3, time.Now().Add(time.Hour), "no manager's")
	})
	server, table, _ := strings.Cut(from, "&table=")
	db, err := sql.Open("postgres", server)
	must(t, err)
	defer db.Close()
	_, err = db.Exec("UPDATE " + table + " SET version = 0 WHERE encode(id, 'hex') = '" + bad.id + "'")
	must(t, err)
	session(t, "copy", "-json", from, to).want(exitCorrupt).says(bad.id).
		number("copied", 3).number("verified", 3).number("corrupt", 2).number("unread", 1)
	session(t, "list", from).want(exitCorrupt).says(bad.id)
	session(t, "stats", from).want(exitCorrupt).says(bad.id)
	session(t, "delete-old", "-n", "-age", "1h", from).want(exitCorrupt).says("would have deleted 0").says(bad.id)
	session(t, "delete-user", "-n", from, "alice").want(exitCorrupt).says("would have deleted 3").says(bad.id)
	session(t, "delete-user", from, "alice").want(0).says("deleted 3")
}

// TestLaterSchema refuses tables that a later release has made, whatever the command, and
// changes nothing there.
func TestLaterSchema(t *testing.T) {
	store, other := stores[3].url(t), stores[2].url(t)
	session(t, "stats", store).want(exitFailed).says("call Setup first") // no tables are no later ones
	session(t, "setup", store).want(0)
	session(t, "setup", other).want(0)
	with(t, store, func(store session2.Store) { seed(t, store, "alice", 1) })
	server, table, _ := strings.Cut(store, "&table=")
	db, err := sql.Open("postgres", server)
	must(t, err)
	defer db.Close()
	_, err = db.Exec("INSERT INTO " + table + "_meta (version) VALUES (2)")
	must(t, err)
	for _, args := range [][]string{
		{"setup", store}, {"stats", store}, {"list", store}, {"delete-user", store, "alice"}, {"check", store},
		{"delete-old", "-age", "1s", store}, {"copy", store, other}, {"copy", other, store},
	} {
		session(t, args...).want(exitFailed).says("of a later release")
	}
}

// TestCopyInterrupted stops a copy in the middle, and goes on with it.
func TestCopyInterrupted(t *testing.T) {
	for total := 2000; ; total *= 2 {
		from, to := stores[2].url(t), stores[0].url(t)
		with(t, from+"?nosync=true", func(store session2.Store) { seed(t, store, "alice", total) })
		session(t, "setup", to).want(0)
		status, out := interrupted(t, from, to)
		if status == 0 && total < 16000 { // it was faster than we were
			continue
		}
		if status != exitInterrupted || !strings.Contains(out, "interrupted") {
			t.Fatalf("got status %d, %q, want %d", status, out, exitInterrupted)
		}
		done := len(records(t, to))
		if done < 1 || done >= total {
			t.Fatalf("got %d records after the interruption, want some and not all", done)
		}
		session(t, "check", to).want(0)
		session(t, "copy", "-json", from, to).want(0).
			number("present", done).number("copied", total-done).number("verified", total)
		return
	}
}

// interrupted copies, and interrupts that as soon as there is something new in the target.
func interrupted(t *testing.T, from, to string) (status int, out string) {
	t.Helper()
	files := func() (n int) {
		filepath.WalkDir(strings.TrimPrefix(to, "file:"), func(string, fs.DirEntry, error) error { n++; return nil })
		return n
	}
	before := files()
	cmd := exec.Command(program, "copy", "-workers", "2", from, to)
	var b strings.Builder
	cmd.Stdout, cmd.Stderr = &b, &b
	must(t, cmd.Start())
	for deadline := time.Now().Add(time.Minute); files() < before+40 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	cmd.Process.Signal(os.Interrupt) // it may have ended
	cmd.Wait()
	return cmd.ProcessState.ExitCode(), b.String()
}

// TestCopyDelete moves an application: who logged out of the source after the
// first copy is logged out in the target after the second.
func TestCopyDelete(t *testing.T) {
	from, to := stores[2].url(t), stores[0].url(t)
	session(t, "setup", from).want(0)
	with(t, from, func(store session2.Store) { seed(t, store, "alice", 3); seed(t, store, "bob", 2) })
	session(t, "copy", from, to).want(0).says("copied 5")
	session(t, "delete-user", from, "alice").want(0)
	session(t, "copy", "-n", "-delete", from, to).want(0).says("deleted 3")
	session(t, "copy", from, to).want(0).says("deleted 0")
	session(t, "list", to).want(0).says("alice")
	session(t, "copy", "-delete", from, to).want(0).says("deleted 3")
	if out := session(t, "list", to).want(0).stdout; strings.Contains(out, "alice") || strings.Count(out, "bob") != 2 {
		t.Errorf("got %s, want bob's two sessions alone", out)
	}
}

// TestCopyDeleteOfAll refuses to end all sessions of the target for a source that has none,
// as where the two are swapped.
func TestCopyDeleteOfAll(t *testing.T) {
	for name, fill := range map[string]func(session2.Store){
		"empty":   func(session2.Store) {},
		"expired": func(store session2.Store) { raw(t, store, 1, time.Now().Add(-time.Hour), "") },
	} {
		from, to := stores[2].url(t), stores[0].url(t)
		session(t, "setup", from).want(0)
		session(t, "setup", to).want(0)
		with(t, from, fill)
		session(t, "copy", "-delete", from, to).want(exitFailed).says("-force") // also where there is nothing to lose
		with(t, to, func(store session2.Store) { seed(t, store, "alice", 2) })
		for _, dry := range []string{"-json", "-n"} {
			session(t, "copy", "-delete", dry, from, to).want(exitFailed).
				says("nothing was deleted").says("all of " + to + " would go").says("-force")
		}
		if out := session(t, "list", to).want(0).stdout; strings.Count(out, "alice") != 2 {
			t.Errorf("%s: got %s, want both sessions left", name, out)
		}
		session(t, "copy", "-force", from, to).want(exitUsage).says("-delete")
		session(t, "list", "-force", from).want(exitUsage).says("takes no flag -force")
		session(t, "copy", "-delete", "-force", from, to).want(0).says("deleted 2")
	}
}

// TestCopyVerifyCopiesWhatCame finds that what the source has by the second look
// is copied, too.
func TestCopyVerifyCopiesWhatCame(t *testing.T) {
	c := &copying{
		job:   &job{bar: newProgress(io.Discard, "copy")},
		from:  session2.NewMemoryStore(),
		to:    session2.NewMemoryStore(),
		tally: make(map[outcome]int),
	}
	rec, err := c.from.Load(t.Context(), raw(t, c.from, 1, time.Now().Add(time.Hour), "").ID)
	must(t, err)
	if o, err := c.verify(t.Context(), rec); o != verified || err != nil || c.tally[copied] != 1 {
		t.Errorf("got %v, %v with %d copied, want it copied and verified", o, err, c.tally[copied])
	}
}

// In the middle of a move by NewMigrating, each store has markers of what the other has: a
// copy takes none for a session, and says so.
func TestCopyInTheMiddleOfAMove(t *testing.T) {
	old, next := stores[0].url(t), stores[1].url(t)
	session(t, "setup", old).want(0)
	session(t, "setup", next).want(0)
	with(t, old, func(a session2.Store) {
		with(t, next, func(b session2.Store) {
			seed(t, a, "stays", 3)
			gone := seed(t, a, "moved", 5)
			m := session2.NewMigrating(a, b)
			for _, s := range gone {
				id, err := session2.ParseID(s.id)
				must(t, err)
				rec, err := m.Load(t.Context(), id)
				must(t, err)
				prev := rec.Version
				rec.Version++
				must(t, m.Save(t.Context(), rec, prev))
			}
		})
	})
	moved := records(t, next)
	for _, args := range [][]string{{old, next}, {next, old}, {old, stores[2].url(t)}} {
		before := records(t, args[0])
		out := session(t, "copy", args[0], args[1]).want(exitFailed)
		if !strings.Contains(out.stdout+out.stderr, "NewMigrating") {
			t.Errorf("copy %v: %s%s", args, out.stdout, out.stderr)
		}
		if !slices.Equal(records(t, args[0]), before) {
			t.Errorf("copy %v has changed its source", args)
		}
	}
	if got := records(t, next); len(got) != 8 || !slices.ContainsFunc(got, func(s string) bool { return s == moved[0] }) {
		t.Errorf("the new store has %d records, want the 5 that moved and the 3 that were copied", len(got))
	}
}
