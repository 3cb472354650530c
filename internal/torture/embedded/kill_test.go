package embedded

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/session2/session2"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // a gob store says what it has cut off of the change of who was killed
	if text := os.Getenv(jobEnv); text != "" {
		fmt.Fprintln(os.Stderr, write(text))
		os.Exit(1)
	}
	if text := os.Getenv(troubleEnv); text != "" {
		if err := outlive(text); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// However often, and whenever, those who write are killed: what was acknowledged is
// there whole, what was deleted is not, and both indexes lead to what there is.
func TestKilledWriters(t *testing.T) {
	for _, test := range []struct {
		name      string
		url       func(dir string) string
		processes int // at once
	}{
		{"file", func(dir string) string { return "file:" + filepath.Join(dir, "sessions") }, 2},
		{"bolt", func(dir string) string { return "bolt:" + filepath.Join(dir, "sessions.db") + "?timeout=1m" }, 1},
		{"gob", func(dir string) string { return "gob:" + filepath.Join(dir, "sessions.gob") }, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			seed := number(t, "TORTURE_SEED", rand.Uint64()>>12)
			w := newWorld(t, test.url(t.TempDir()), seed)
			t.Logf("TORTURE_SEED=%d", seed)
			kills, seconds := int(number(t, "TORTURE_KILLS", 10)), number(t, "TORTURE_SECONDS", 0)
			start := time.Now()
			for (w.kills < kills || time.Since(start) < time.Duration(seconds)*time.Second) && !t.Failed() {
				w.round(test.processes)
			}
			t.Logf("%d kills in %v: %d changes acknowledged, %d cut off, of which %d have landed; "+
				"%d records found again, %d swept", w.kills, time.Since(start).Round(time.Second), w.acked, w.cut, w.landed, w.found, w.swept)
			if w.acked == 0 || w.cut == 0 || w.found == 0 {
				t.Error("nothing was tested")
			}
		})
	}
}

// A store that acknowledges a change before it is made is found out.
func TestLateWritersAreFound(t *testing.T) {
	var wrong atomic.Int64
	w := newWorld(t, "gob:"+filepath.Join(t.TempDir(), "sessions.gob"), rand.Uint64())
	w.late, w.wrong = true, func(string, ...any) { wrong.Add(1) }
	for wrong.Load() == 0 {
		if w.round(1); w.kills == 200 {
			t.Fatal("not found in 200 kills")
		}
	}
	t.Logf("found after %d kills", w.kills)
}

// number reads a number from the environment.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// state is what is known of a record.
type state struct {
	there bool
	step       // by which it is what it is
	gone  bool // it has expired, and a sweep may have taken it since
	begun *step
}

// after returns what the record is when the step has landed.
func (st state) after(s step) state {
	switch {
	case s.Op == "save" && s.Result != "absent":
		return state{there: true, step: s, gone: s.Dead}
	case s.Op == "touch" && s.Result != "absent":
		st.Dead = false
		return st
	}
	return state{}
}

// has reports whether the record may be as it was found; a zero version is none.
func (st state) has(rec session2.Record) bool {
	if rec.Version == 0 {
		return !st.there || st.gone
	}
	want := st.record()
	return st.there && rec.Version == want.Version && rec.User == want.User && rec.Expires.Equal(want.Expires) &&
		bytes.Equal(rec.Data, want.Data)
}

// world is a store, and what is known of it.
type world struct {
	t     *testing.T
	wrong func(format string, args ...any)
	url   string
	late  bool // break the store: see late
	rng   *rand.Rand

	mu     sync.Mutex
	states map[int]state

	kills, acked, cut, landed, found, swept int
}

func newWorld(t *testing.T, url string, seed uint64) *world {
	return &world{t: t, wrong: t.Errorf, url: url, rng: rand.New(rand.NewPCG(seed, 0)), states: make(map[int]state)}
}

// round runs processes until they are killed, and looks at what they have left.
func (w *world) round(processes int) {
	var wg sync.WaitGroup
	for i := range processes {
		text, err := json.Marshal(job{URL: w.url, First: i * writers * own, Seed: w.rng.Uint64(), Late: w.late})
		if err != nil {
			w.t.Fatal(err)
		}
		lines, extra := 1+w.rng.IntN(200), time.Duration(w.rng.IntN(3000))*time.Microsecond
		wg.Go(func() { w.killed(string(text), lines, extra) })
	}
	wg.Wait()
	w.kills += processes
	w.open()
}

// killed runs a process that writes, and kills it some time after so many lines.
func (w *world) killed(text string, lines int, extra time.Duration) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), jobEnv+"="+text)
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		w.t.Error(err)
		return
	}
	in := bufio.NewReader(out)
	for n := 1; ; n++ {
		line, err := in.ReadBytes('\n')
		if err != nil { // half a line is of a change that has not begun
			break
		}
		var s step
		if err := json.Unmarshal(line, &s); err != nil {
			w.wrong("%v in %q", err, line)
		}
		w.heard(s)
		if n == lines {
			time.AfterFunc(extra, func() { cmd.Process.Kill() }) // in the midst of whatever it does by then
		}
	}
	cmd.Wait() // it was killed, or says why not
	if log.Len() > 0 {
		w.wrong("a writer: %s", log.Bytes())
	}
}

// heard notes a step.
func (w *world) heard(s step) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.Op == "sweep" {
		return
	}
	st := w.states[s.Key]
	if s.Result != "" {
		w.acked++
		st.begun = nil
		w.states[s.Key] = st.after(s)
		return
	}
	switch there := s.Prev != 0; {
	case there && (!st.there || st.Version != s.Prev), !there && st.there && !st.gone:
		w.wrong("record %d: its writer finds version %v, want %v", s.Key, s.Prev, st)
	case !there:
		st = state{}
	case !st.Dead:
		st.gone = false
	}
	st.begun = &s
	w.states[s.Key] = st
}

// open opens the store again, and compares it with what is known.
func (w *world) open() {
	ctx := context.Background()
	opened, err := session2.Open(ctx, w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	defer session2.Close(opened)
	s := opened.(store)
	w.must(session2.Setup(ctx, s))
	byUser, dead := w.records(s)
	if f, ok := opened.(*session2.FileStore); ok {
		lost, due, err := f.CheckIndexes(ctx)
		if w.must(err); len(lost)+len(due) > 0 {
			w.wrong("after %d kills: the indexes lack %v and %v", w.kills, lost, due)
		}
	}
	for _, user := range users[1:] {
		w.same("IterUser of "+user, versions(w, s.IterUser(ctx, user)), byUser[user])
	}
	if w.rng.IntN(2) == 0 { // some rounds leave the index to the writers
		return
	}
	n, err := s.DeleteOld(ctx, age)
	if w.must(err); n != dead {
		w.wrong("after %d kills: DeleteOld: %d, want %d", w.kills, n, dead)
	}
	w.swept += n
	user := users[1+w.rng.IntN(len(users)-1)]
	alive := 0
	for key, st := range w.states {
		if st.there && !st.Dead && st.User == user {
			alive++
		}
		if st.there && (st.Dead || st.User == user) {
			w.states[key] = state{}
		}
	}
	if n, err := s.DeleteUser(ctx, user); n != alive || err != nil {
		w.wrong("after %d kills: DeleteUser: %d, %v, want %d", w.kills, n, err, alive)
	}
	w.records(s)
}

// records compares each record with what is known of it, and all of them with the list.
func (w *world) records(s store) (byUser map[string][]session2.Version, dead int) {
	w.t.Helper()
	byUser = make(map[string][]session2.Version)
	var all []session2.Version
	for key, st := range w.states {
		rec, err := s.Load(context.Background(), id(key))
		if err != nil && !errors.Is(err, session2.ErrNotFound) {
			w.wrong("after %d kills: record %d: %v", w.kills, key, err)
			continue
		}
		is := st
		if st.begun != nil {
			w.cut++
			if next := st.after(*st.begun); !st.has(rec) && next.has(rec) {
				w.landed++
				is = next
			}
		}
		if !is.has(rec) {
			w.wrong("after %d kills: record %d has version %v, user %q, %d bytes, expires %v: "+
				"want %+v, or what began after it: %+v", w.kills, key, rec.Version, rec.User, len(rec.Data), rec.Expires, st.step, st.begun)
		}
		is.begun, is.there = nil, rec.Version != 0
		if is.gone = is.Dead; !is.there {
			is = state{}
		}
		w.states[key] = is
		if is.there {
			w.found++
			all = append(all, rec.Version)
			byUser[rec.User] = append(byUser[rec.User], rec.Version)
			if is.Dead {
				dead++
			}
		}
	}
	w.same("Iter", versions(w, s.Iter(context.Background())), all)
	return byUser, dead
}

func versions(w *world, records iter.Seq2[session2.Record, error]) (list []session2.Version) {
	for rec, err := range records {
		w.must(err)
		list = append(list, rec.Version)
	}
	return list
}

func (w *world) same(what string, got, want []session2.Version) {
	w.t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.wrong("after %d kills: %s: %d records, %v, want %d, %v", w.kills, what, len(got), got, len(want), want)
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.wrong("after %d kills: %v", w.kills, err)
	}
}
