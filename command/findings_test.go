package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
)

// damagedFiles makes a file store with five sessions of alice, flips a byte in
// three of them, and returns the IDs of those three and of the others.
func damagedFiles(t testing.TB) (url string, bad, good []string) {
	t.Helper()
	url = stores[0].url(t)
	session(t, "setup", url).want(0)
	with(t, url+"?nosync=true", func(store session2.Store) {
		for i, s := range seed(t, store, "alice", 5) {
			if i < 3 {
				bad = append(bad, s.id)
			} else {
				good = append(good, s.id)
			}
		}
	})
	for _, id := range bad {
		damageFile(t, url, id)
	}
	return url, bad, good
}

func damageFile(t testing.TB, url, id string) {
	t.Helper()
	name := filepath.Join(strings.TrimPrefix(url, "file:"), "sessions", id[:2], id)
	b, err := os.ReadFile(name)
	must(t, err)
	b[len(b)-1] ^= 1
	must(t, os.WriteFile(name, b, 0o600))
}

// names checks that the output has each of the texts.
func (r ran) names(texts []string) ran {
	r.t.Helper()
	for _, text := range texts {
		r.says(text)
	}
	return r
}

// TestSetAsideIsNotForgotten goes through a file store with every command that
// lists it. The first one sets the corrupt records aside, and the others count
// them all the same, until the operator has removed them.
func TestSetAsideIsNotForgotten(t *testing.T) {
	url, bad, good := damagedFiles(t)
	report := session(t, "check", "-json", url).want(exitCorrupt).names(bad).number("records", 5).number("set_aside", 0)
	if got := fmt.Sprint(report.object()["corrupt"]); len(got) != len(fmt.Sprint(bad)) {
		t.Errorf("check: got %s, want %q", got, bad)
	}
	session(t, "check", "-json", url).want(exitCorrupt).names(bad).number("records", 5).number("set_aside", 3)
	session(t, "check", url).want(exitCorrupt).says("5 records, 3 corrupt (3 of them set aside)")
	session(t, "copy", "-json", url, stores[1].url(t)).want(exitCorrupt).names(bad).
		number("copied", 2).number("verified", 2).number("corrupt", 3).number("set_aside", 3)
	session(t, "copy", url, stores[2].url(t)).want(exitCorrupt).says("left out: expired 0, corrupt 3")
	session(t, "copy", "-n", "-json", url, stores[1].url(t)).want(exitCorrupt).names(bad).number("corrupt", 3)
	session(t, "stats", "-json", url).want(exitCorrupt).names(bad).
		number("records", 2).number("corrupt", 3).number("set_aside", 3)
	session(t, "list", url).want(exitCorrupt).names(bad).names(good)
	session(t, "show", url, good[0]).want(0)
	session(t, "delete-old", "-n", "-age", "1h", url).want(0)

	must(t, os.RemoveAll(filepath.Join(strings.TrimPrefix(url, "file:"), "corrupt")))
	for _, command := range []string{"check", "stats", "list"} {
		session(t, command, url).want(0).hides(bad...)
	}
	session(t, "copy", "-json", url, stores[1].url(t)).want(0).number("corrupt", 0)
}

// TestEachCommandNamesTheCorrupt lets each command be the first to meet the
// corrupt records.
func TestEachCommandNamesTheCorrupt(t *testing.T) {
	for _, args := range [][]string{
		{"list"}, {"list", "-values"}, {"list", "-json"}, {"list", "-user", "alice"},
		{"stats"}, {"stats", "-json"}, {"check"},
		{"delete-old", "-n", "-age", "1h"}, {"delete-user", "-n", "alice"}, {"delete-user", "alice"},
	} {
		url, bad, _ := damagedFiles(t)
		session(t, append(args, "-store", url)...).want(exitCorrupt).names(bad).says("corrupt records: 3")
	}
	url, bad, _ := damagedFiles(t)
	session(t, "copy", url, stores[1].url(t)).want(exitCorrupt).names(bad).says("corrupt 3")
	url, bad, good := damagedFiles(t)
	session(t, "show", url, good[0]).want(0).hides(bad...)
	session(t, "show", url, bad[0]).want(exitCorrupt).says(bad[0])
	session(t, "delete", url, bad[1]).want(0).says("deleted 1")
}

// TestSweepNamesWhatItSetsAside sweeps a store in which a record that is due
// cannot be read.
func TestSweepNamesWhatItSetsAside(t *testing.T) {
	url := stores[0].url(t)
	session(t, "setup", url).want(0)
	var bad session2.Record
	with(t, url, func(store session2.Store) {
		bad = raw(t, store, 2, time.Now().Add(-time.Hour), "old")
		raw(t, store, 1, time.Now().Add(-time.Hour), "old")
	})
	damageFile(t, url, bad.ID.String())
	session(t, "delete-old", "-age", "1h", url).want(exitCorrupt).says("deleted 2").says(bad.ID.String())
	session(t, "delete-old", "-age", "1h", url).want(0).says("deleted 0")
	session(t, "check", url).want(exitCorrupt).says(bad.ID.String())
}

// TestCopyAgreesWithCheck copies sessions that no manager can read: they arrive,
// and whoever copies is told of as many as check finds.
func TestCopyAgreesWithCheck(t *testing.T) {
	for i, kind := range stores {
		t.Run(kind.name, func(t *testing.T) {
			from, to := kind.url(t), stores[(i+1)%3].url(t)
			session(t, "setup", from).want(0)
			var bad []string
			with(t, from, func(store session2.Store) {
				seed(t, store, "alice", 2)
				for id := range byte(3) {
					bad = append(bad, raw(t, store, id+1, time.Now().Add(time.Hour), "scrambled").ID.String())
				}
			})
			session(t, "check", from).want(exitCorrupt).names(bad).says("5 records, 3 corrupt")
			session(t, "stats", "-json", from).want(exitCorrupt).names(bad).number("corrupt", 3).number("records", 5)
			for range 2 {
				session(t, "copy", "-json", from, to).want(exitCorrupt).names(bad).
					number("corrupt", 3).number("unread", 3).number("verified", 5)
			}
			if got, want := records(t, to), records(t, from); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// TestCopyDeleteKeepsWhatTheSourceLost copies again with -delete, after the
// source has lost records that the target still has.
func TestCopyDeleteKeepsWhatTheSourceLost(t *testing.T) {
	url, bad, good := damagedFiles(t)
	to := stores[1].url(t)
	session(t, "setup", to).want(0)
	with(t, to, func(store session2.Store) {
		for _, id := range append(slices.Clone(bad), strings.Repeat("0e", 16)) {
			saveID(t, store, id)
		}
	})
	for range 2 { // the second time they are set aside before
		session(t, "copy", "-delete", url, to).want(exitCorrupt).names(bad)
		session(t, "list", to).want(exitCorrupt).names(bad).names(good).hides(strings.Repeat("0e", 16))
	}
}

// saveID saves a record with that ID, and no data that a manager could read.
func saveID(t testing.TB, store session2.Store, text string) {
	t.Helper()
	id, err := session2.ParseID(text)
	must(t, err)
	now := time.Now()
	rec := session2.Record{ID: id, Version: 1, Created: now, Accessed: now, Expires: now.Add(time.Hour)}
	must(t, store.Save(t.Context(), rec, 0))
}

// lossyGob makes a gob store with three sessions, and damages one of them beyond
// recognition.
func lossyGob(t testing.TB) (url string, lost string) {
	t.Helper()
	url = stores[2].url(t)
	path := strings.TrimPrefix(url, "gob:")
	var from, to int64
	with(t, url, func(store session2.Store) {
		size := func() int64 {
			info, err := os.Stat(path)
			must(t, err)
			return info.Size()
		}
		seed(t, store, "alice", 1)
		from = size()
		lost = seed(t, store, "alice", 1)[0].id
		to = size()
		seed(t, store, "alice", 1)
	})
	b, err := os.ReadFile(path)
	must(t, err)
	clear(b[from:to])
	must(t, os.WriteFile(path, b, 0o600))
	return url, lost
}

// TestLostInAGobStore goes through a store that can no longer tell whose record
// it has lost.
func TestLostInAGobStore(t *testing.T) {
	url, lost := lossyGob(t)
	to := stores[1].url(t)
	session(t, "setup", to).want(0)
	for _, command := range []string{"list", "stats", "check", "copy"} {
		args := []string{command, url, "-json"}
		if command == "copy" {
			args = append(args, to)
		}
		r := session(t, args...).want(exitCorrupt).says("damaged").hides(lost)
		if command != "list" {
			r.number("damaged", 1)
		}
	}
	with(t, to, func(store session2.Store) { saveID(t, store, lost) })
	session(t, "copy", "-delete", url, to).want(exitCorrupt).says("nothing was deleted")
	session(t, "list", to).want(exitCorrupt).says(lost)
}

// TestDryRunsNameTheLost counts what would be deleted from a store that has lost
// a record.
func TestDryRunsNameTheLost(t *testing.T) {
	url, _ := lossyGob(t)
	session(t, "delete-old", "-n", "-age", "1h", url).want(exitCorrupt).says("would have deleted 0").says("damaged")
	session(t, "delete-user", "-n", url, "alice").want(exitCorrupt).says("would have deleted 2").says("damaged")
}

// failing is a store that deletes two sessions, and then no more.
type failing struct {
	*session2.MemoryStore
	left int
	err  error
}

func (f *failing) Delete(context.Context, session2.ID) error {
	if f.left == 0 {
		return f.err
	}
	f.left--
	return nil
}

func (f *failing) Has(context.Context, session2.ID) (bool, error)                  { return true, nil }
func (f *failing) DeleteOld(context.Context, time.Duration) (int, error)           { return 2, f.err }
func (f *failing) DeleteUser(context.Context, string, ...session2.ID) (int, error) { return 2, f.err }

// TestUnfinishedDeletionSaysHowFarItCame fails in the midst of each deletion.
func TestUnfinishedDeletionSaysHowFarItCame(t *testing.T) {
	broken := errors.New("the store broke")
	for name, f := range map[string]func(context.Context, *job) error{
		"delete": remove, "delete-old": removeOld, "delete-user": removeUser,
	} {
		var out bytes.Buffer
		j := &job{out: newPrinter(&out, false), bar: newProgress(io.Discard, name)}
		j.store = &failing{session2.NewMemoryStore(), 2, broken}
		j.args, j.age = slices.Repeat([]string{strings.Repeat("0f", 16)}, 3), time.Hour
		err := f(t.Context(), j)
		must(t, j.out.flush())
		if !errors.Is(err, broken) || out.String() != "deleted 2\n" {
			t.Errorf("%s: got %q, %v, want it to say that 2 were deleted, and %v", name, out.String(), err, broken)
		}
	}
}

// TestUncertainDeletionSaysSo does not know how much each deletion has deleted.
func TestUncertainDeletionSaysSo(t *testing.T) {
	for name, f := range map[string]func(context.Context, *job) error{
		"delete": remove, "delete-old": removeOld, "delete-user": removeUser,
	} {
		for _, asJSON := range []bool{true, false} {
			var out bytes.Buffer
			j := &job{out: newPrinter(&out, asJSON), bar: newProgress(io.Discard, name)}
			j.store = &failing{session2.NewMemoryStore(), 2, session2.ErrUncertain}
			j.args, j.age = slices.Repeat([]string{strings.Repeat("0f", 16)}, 3), time.Hour
			err := f(t.Context(), j)
			must(t, j.out.flush())
			want := "deleted 2 or more\n"
			if asJSON {
				want = `"uncertain":true`
			}
			if !errors.Is(err, session2.ErrUncertain) || !strings.Contains(out.String(), want) {
				t.Errorf("%s: got %q, %v, want %q", name, out.String(), err, want)
			}
		}
	}
}

// interrupting is a store during whose Delete the user presses Ctrl-C.
type interrupting struct {
	*session2.MemoryStore
	press func()
}

func (s *interrupting) Has(ctx context.Context, _ session2.ID) (bool, error) { return true, ctx.Err() }

func (s *interrupting) Delete(ctx context.Context, _ session2.ID) error {
	s.press()
	return ctx.Err()
}

// TestInterruptedDeleteCountsWhole presses Ctrl-C while a session is deleted: that
// one is deleted and counted, and no other.
func TestInterruptedDeleteCountsWhole(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	j := &job{out: newPrinter(&out, false), bar: newProgress(io.Discard, "delete")}
	j.store = &interrupting{session2.NewMemoryStore(), cancel}
	j.args = slices.Repeat([]string{strings.Repeat("0f", 16)}, 3)
	err := remove(ctx, j)
	must(t, j.out.flush())
	if !errors.Is(err, context.Canceled) || out.String() != "deleted 1\n" {
		t.Errorf("got %q, %v, want 1 and %v", out.String(), err, context.Canceled)
	}
}

// TestAbsentAreAllNamed ends sessions of which two are not there.
func TestAbsentAreAllNamed(t *testing.T) {
	url := stores[2].url(t)
	session(t, "setup", url).want(0)
	absent := []string{strings.Repeat("1", 32), strings.Repeat("2", 32)}
	session(t, "delete", url, absent[0], absent[1]).want(exitNotFound).names(absent)
}

// TestOutputThatIsLost writes to a full disk and to nobody.
func TestOutputThatIsLost(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	must(t, err)
	defer full.Close()
	r, closed, err := os.Pipe()
	must(t, err)
	defer closed.Close()
	must(t, r.Close())
	help := exec.Command(program, "help")
	help.Stdout = full
	if help.Run(); help.ProcessState.ExitCode() != exitFailed {
		t.Errorf("help: got status %d, want %d", help.ProcessState.ExitCode(), exitFailed)
	}
	url, bad, _ := damagedFiles(t)
	for _, args := range [][]string{{"list"}, {"stats"}, {"check"}, {"check", "-json"}, {"copy", stores[1].url(t)}} {
		for _, to := range []*os.File{full, closed} {
			cmd := exec.Command(program, append(args[:1:1], append([]string{url}, args[1:]...)...)...)
			var stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = to, &stderr
			cmd.Run()
			// To a closed pipe it ends by the signal, which has no exit status.
			status, said := cmd.ProcessState.ExitCode(), stderr.String()
			if status != exitFailed && (status != -1 || to == full) || !strings.Contains(said, bad[0]) {
				t.Errorf("%q to %s: got status %d, %q, want a failure", args, to.Name(), status, said)
			}
			both := strings.Contains(said, "no space left") && strings.Contains(said, "corrupt records: 3")
			if to == full && !both {
				t.Errorf("%q: got %q, want both reasons", args, said)
			}
		}
	}
}

// TestInterruptedSaysWhatItWas ends with an error of its own while it is
// interrupted.
func TestInterruptedSaysWhatItWas(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stderr bytes.Buffer
	status := run(ctx, []string{"list", "nonsense"}, nil, io.Discard, &stderr)
	if status != exitInterrupted || !strings.Contains(stderr.String(), "not a URL") {
		t.Errorf("got status %d, %q, want %d and the error", status, stderr.String(), exitInterrupted)
	}
}

// TestExpiredWhileCopied verifies a session whose time ran out meanwhile, and
// which the target has swept.
func TestExpiredWhileCopied(t *testing.T) {
	j := &job{bar: newProgress(io.Discard, "copy")}
	j.found = newFindings(j.bar)
	c := &copying{job: j, tally: make(map[outcome]int)}
	c.from, c.to = session2.NewMemoryStore(), forgetful{session2.NewMemoryStore()}
	c.began = time.Now().Add(-time.Minute)
	rec := raw(t, c.from, 1, time.Now().Add(-time.Second), "")
	c.one(t.Context(), rec, c.verify)
	if c.tally[missing] != 0 || c.tally[gone] != 1 {
		t.Errorf("got %v, want it gone and not missing", c.tally)
	}
}

// forgetful is a store that forgets what it is given.
type forgetful struct{ *session2.MemoryStore }

func (forgetful) Save(context.Context, session2.Record, session2.Version) error { return nil }
