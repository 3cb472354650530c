package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testdb"
)

// program is the path of the binary, as it was built for these tests.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "session2-cmd-")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "session2")
	if out, err := exec.Command("go", "build", "-o", program, "../cmd/session2").CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v\n%s", err, out))
	}
	code := testdb.Run(m)
	os.RemoveAll(dir)
	os.Exit(code)
}

// ran is what a run of the program came to.
type ran struct {
	t      testing.TB
	args   []string
	status int
	stdout string
	stderr string
}

// session runs the program with these arguments.
func session(t testing.TB, args ...string) ran { return sessionEnv(t, nil, args...) }

func sessionEnv(t testing.TB, env []string, args ...string) ran {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return ran{t, args, cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// want checks the exit status.
func (r ran) want(status int) ran {
	r.t.Helper()
	if r.status != status {
		r.t.Fatalf("session2 %q: got status %d, want %d\n%s%s", r.args[0], r.status, status, r.stdout, r.stderr)
	}
	return r
}

// says checks that the output has the text, on either stream.
func (r ran) says(text string) ran {
	r.t.Helper()
	if !strings.Contains(r.stdout+r.stderr, text) {
		r.t.Errorf("session2 %q: got %q, want it to say %q", r.args[0], r.stdout+r.stderr, text)
	}
	return r
}

// hides checks that the output has none of the texts.
func (r ran) hides(texts ...string) ran {
	r.t.Helper()
	for _, text := range texts {
		if strings.Contains(r.stdout+r.stderr, text) {
			r.t.Errorf("session2 %q: the output has %q:\n%s%s", r.args[0], text, r.stdout, r.stderr)
		}
	}
	return r
}

// object reads the output as one JSON object.
func (r ran) object() map[string]any {
	r.t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil {
		r.t.Fatalf("session2 %q -json: %v\n%s", r.args[0], err, r.stdout)
	}
	return v
}

// number checks a number of the JSON object.
func (r ran) number(name string, want int) ran {
	r.t.Helper()
	if got := r.object()[name]; got != float64(want) {
		r.t.Errorf("session2 %q: %s: got %v, want %d\n%s", r.args[0], name, got, want, r.stderr)
	}
	return r
}

// objects reads the output as one JSON object a line.
func (r ran) objects() (list []map[string]any) {
	r.t.Helper()
	for d := json.NewDecoder(strings.NewReader(r.stdout)); d.More(); {
		var v map[string]any
		if err := d.Decode(&v); err != nil {
			r.t.Fatalf("session2 %q -json: %v\n%s", r.args[0], err, r.stdout)
		}
		list = append(list, v)
	}
	return list
}

// stores are the kinds of stores, each a function that returns the URL of one
// that is not there yet.
var stores = []struct {
	name string
	url  func(t testing.TB) string
}{
	{"file", func(t testing.TB) string { return "file:" + filepath.Join(t.TempDir(), "sessions") }},
	{"bolt", func(t testing.TB) string { return "bolt:" + filepath.Join(t.TempDir(), "sessions.db") }},
	{"gob", func(t testing.TB) string { return "gob:" + filepath.Join(t.TempDir(), "sessions.gob") }},
	{"postgres", func(t testing.TB) string { return testdb.Postgres(t) + "&table=" + tableName() }},
	{"mysql", func(t testing.TB) string { return testdb.MySQLURL(t, testdb.MySQL(t)) + "table=" + tableName() }},
}

func tableName() string { return fmt.Sprintf("t%d", time.Now().UnixNano()) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// with opens the store for as long as f runs.
func with(t testing.TB, url string, f func(store session2.Store)) {
	t.Helper()
	store, err := session2.Open(context.Background(), url)
	must(t, err)
	defer func() { must(t, session2.Close(store)) }()
	f(store)
}

// seeded is a session as a manager made it.
type seeded struct{ id, token string }

const secretValue = "the-secret-value"

// seed makes n sessions of a user.
func seed(t testing.TB, store session2.Store, user string, n int) (list []seeded) {
	t.Helper()
	m, err := session2.NewManager(store, session2.Config{Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	for range n {
		s, err := m.Open(t.Context(), "")
		must(t, err)
		s.SetUser(user)
		s.Set("color\x1b[31m", secretValue)
		s.Set("number", 42)
		s.Flash("a " + secretValue)
		s.FormToken()
		must(t, s.Commit(t.Context()))
		list = append(list, seeded{s.ID().String(), s.Token()})
	}
	return list
}

// raw saves a record that no manager made.
func raw(t testing.TB, store session2.Store, id byte, expires time.Time, data string) session2.Record {
	t.Helper()
	now := time.Now()
	rec := session2.Record{
		ID: session2.ID{id, 15: id}, Version: 1,
		Created: now, Accessed: now, Expires: expires, Data: []byte(data),
	}
	must(t, store.Save(t.Context(), rec, 0))
	return rec
}

// secrets are what no output shows: the verifier of each token.
func secrets(list []seeded) (texts []string) {
	for _, s := range list {
		_, verifier, _ := strings.Cut(s.token, ".")
		texts = append(texts, verifier)
	}
	return texts
}

const evil = "bob\x1b]0;evil\x07"

// TestOperator does on every store what an operator does.
func TestOperator(t *testing.T) {
	for _, kind := range stores {
		t.Run(kind.name, func(t *testing.T) {
			url := kind.url(t)
			session(t, "list", "-store", url).want(exitFailed).says("etup")
			session(t, "setup", "-n", url).want(0)
			session(t, "list", url).want(exitFailed)
			session(t, "setup", url).want(0).says("ready")
			session(t, "setup", url).want(0)

			var alice, bob []seeded
			with(t, url, func(store session2.Store) {
				alice, bob = seed(t, store, "alice", 3), seed(t, store, evil, 2)
			})
			hidden := append(secrets(append(alice, bob...)), "\x1b", "\x07")
			testLooking(t, url, alice, hidden)
			testDeleting(t, url, alice, hidden)
			testChecking(t, url)
		})
	}
}

func testLooking(t *testing.T, url string, alice []seeded, hidden []string) {
	t.Helper()
	noValues := append(slices.Clone(hidden), secretValue)
	list := session(t, "list", "-store", url).want(0).says(alice[0].id).hides(noValues...)
	if got := strings.Count(list.stdout, "\n"); got != 6 {
		t.Errorf("list: got %d lines, want a head and 5", got)
	}
	for _, args := range [][]string{
		{"list", "-json", url}, {"-json", "-store", url, "list"}, {"list", url, "-json", "-values"},
	} {
		if got := len(session(t, args...).want(0).hides(hidden...).objects()); got != 5 {
			t.Errorf("%q: got %d objects, want 5", args, got)
		}
	}
	if got := len(session(t, "list", "-json", "-user", "alice", url).want(0).objects()); got != 3 {
		t.Errorf("list -user: got %d, want 3", got)
	}
	id := alice[0].id
	session(t, "show", "-store", url, id).want(0).says("alice").says("color").hides(noValues...)
	session(t, "show", url, id, "-values").want(0).says(secretValue).says("42").hides(hidden...)
	shown := session(t, "show", "-json", url, id).want(0).hides(noValues...).object()
	if shown["id"] != id || shown["user"] != "alice" || len(shown["values"].([]any)) != 2 {
		t.Errorf("show -json: got %v", shown)
	}
	session(t, "show", url, strings.Repeat("0", 32)).want(exitNotFound)
	session(t, "show", url, alice[0].token).want(exitUsage).hides(hidden...)
	sessionEnv(t, []string{"SESSION2_STORE=" + url}, "stats", "-json").want(0).
		number("records", 5).number("signed_in", 5).number("expired", 0).number("corrupt", 0)
}

func testDeleting(t *testing.T, url string, alice []seeded, hidden []string) {
	t.Helper()
	left := func(want int) {
		t.Helper()
		session(t, "stats", "-json", url).want(0).number("records", want)
	}
	session(t, "delete", "-n", url, alice[0].id).want(0).says("would have deleted 1")
	left(5)
	session(t, "delete", url, alice[0].id, "-json").want(0).number("deleted", 1)
	left(4)
	session(t, "delete", url, alice[0].id, alice[1].id).want(exitNotFound).says("deleted 1")
	left(3)
	session(t, "delete-user", "-n", url, evil).want(0).says("would have deleted 2").hides(hidden...)
	left(3)
	session(t, "delete-user", url, evil, "-json").want(0).number("deleted", 2)
	session(t, "delete-user", "-store", url, "").want(exitUsage)
	left(1)
	with(t, url, func(store session2.Store) { raw(t, store, 1, time.Now().Add(-time.Minute), "old") })
	session(t, "delete-old", url).want(exitUsage)
	session(t, "delete-old", url, "-age", "0s").want(exitUsage)
	session(t, "delete-old", "-n", "-age", "30d", url).want(0).says("would have deleted 1")
	left(2)
	session(t, "delete-old", "-age", "30d", url, "-json").want(0).number("deleted", 1)
	left(1)
}

func testChecking(t *testing.T, url string) {
	t.Helper()
	session(t, "check", url).want(0).says("1 records, 0 corrupt")
	var bad session2.Record
	with(t, url, func(store session2.Store) { bad = raw(t, store, 2, time.Now().Add(time.Hour), "scrambled eggs") })
	session(t, "check", url).want(exitCorrupt).says(bad.ID.String()).hides("scrambled")
	report := session(t, "check", "-json", url).want(exitCorrupt)
	if got := report.object()["corrupt"]; fmt.Sprint(got) != "["+bad.ID.String()+"]" {
		t.Errorf("check -json: got %v, want %v", got, bad.ID)
	}
	session(t, "show", url, bad.ID.String()).want(exitCorrupt).hides("scrambled")
	session(t, "delete", url, bad.ID.String()).want(0)
}

func TestCommandLine(t *testing.T) {
	url := stores[2].url(t)
	session(t, "setup", url).want(0)
	for _, args := range [][]string{
		{}, {"frobnicate", url}, {"list"}, {"list", url, "extra"}, {"list", "-age", "3d", url}, {"show", url},
		{"list", "-nonsense", url}, {"list", "-store", url, url}, {"list", "sessions.db"},
		{"copy", url}, {"copy", url, url}, {"copy", "-workers", "0", url, stores[2].url(t)},
		{"delete-old", "-age", "soon", url}, {"delete", url, "short"},
	} {
		r := session(t, args...)
		if r.status != exitUsage || r.stderr == "" || r.stdout != "" {
			t.Errorf("session2 %q: got status %d, %q, %q; want %d and an explanation",
				args, r.status, r.stdout, r.stderr, exitUsage)
		}
	}
	for _, args := range [][]string{{"help"}, {"-h"}, {"list", "-help"}} {
		session(t, args...).want(0).says("SESSION2_PASSWORD").says("130")
	}
	session(t, "delete-user", "-store", url, "--", "-user").want(0)
	session(t, "delete-user", url).want(exitUsage).says("delete-user needs one user")
	session(t, "delete-user", "alice").want(exitUsage).says("no store is named")
	for _, args := range [][]string{ // the store comes last; any of these may be a password
		{"show", "0123456789abcdef", url}, {"delete", "0123456789abcdef", url}, {"delete-user", "alice", "@" + url},
		{"list", "alice"},
	} {
		session(t, args...).want(exitUsage).says("before the other arguments, or by -store").hides(args[1])
	}
	sessionEnv(t, []string{"SESSION2_STORE=" + url}, "delete-user", "file:alice").want(0)
	for age, says := range map[string]string{
		"106752d": "too large: at most 106751d", "1e400d": "too large", "9999999h": "too large",
		"0s": "positive", "-3d": "positive", "-infd": "positive",
		"nand": "not a duration", "soon": "not a duration", "d": "not a duration", "h": "not a duration",
	} {
		session(t, "delete-old", "-n", "-age", age, url).want(exitUsage).says(says)
	}
	session(t, "delete-old", "-n", "-age", "106751d", url).want(0)
	session(t, "copy", url, stores[2].url(t)).want(0).says("made one")
}

// TestPassword gives the password in each way that keeps it out of the command
// line, and finds that nothing repeats it.
func TestPassword(t *testing.T) {
	for _, kind := range stores[3:] {
		t.Run(kind.name, func(t *testing.T) {
			whole := kind.url(t)
			password := whole[strings.Index(whole, ":")+len("://session2:") : strings.LastIndex(whole, "@")]
			without := strings.Replace(whole, ":"+password+"@", "@", 1)
			file := filepath.Join(t.TempDir(), "password")
			must(t, os.WriteFile(file, []byte(password+"\n"), 0o600))
			urlFile := filepath.Join(t.TempDir(), "url")
			must(t, os.WriteFile(urlFile, []byte(whole+"\n"), 0o600))

			session(t, "setup", without).want(exitFailed)
			session(t, "setup", without, "-password-file", file).want(0).hides(password)
			env := []string{"SESSION2_PASSWORD=" + password, "SESSION2_STORE=" + without}
			sessionEnv(t, env, "list").want(0).hides(password)
			session(t, "list", "-store", "@"+urlFile).want(0).hides(password)
			session(t, "list", strings.Replace(whole, "?", "%zz?", 1)).want(exitUsage).hides(password)
			session(t, "list", whole+"&timeout=never").want(exitFailed).hides(password)
			session(t, "list", strings.Replace(whole, "127.0.0.1:", "127.0.0.1:1", 1)).want(exitFailed).hides(password)
		})
	}
}

// TestNoOutputRepeatsAPassword gives URLs with the password where it does not
// belong.
func TestNoOutputRepeatsAPassword(t *testing.T) {
	for _, url := range []string{
		"app:hunter2@tcp(h)/db", "postgres:u:hunter2@h/db", "postgres:/u:hunter2@h/db", "mysql:u:hunter2@h/db",
		"postgres:u:hunter2@h/db?sslmode=disable", "postgresql:/u:hunter2@h/db?sslmode=disable",
		"mysql://u:12?hunter2=x@h/db", "mysql://u:hunter2@h:port/db", "file://u:hunter2@h/x",
	} {
		for _, args := range [][]string{{"list", url}, {"setup", "-n", url}, {"copy", url, "memory:"}} {
			r := session(t, args...)
			if r.status == 0 && args[0] != "setup" || strings.Contains(r.stdout+r.stderr, "hunter2") {
				t.Errorf("session2 %s: got status %d and %q", args[0], r.status, r.stdout+r.stderr)
			}
		}
	}
}

// TestPasswordBesideAHostOption completes a URL that names the host among its
// options.
func TestPasswordBesideAHostOption(t *testing.T) {
	u, err := url.Parse(testdb.Postgres(t))
	must(t, err)
	password, _ := u.User.Password()
	q := u.Query()
	q.Set("host", u.Hostname())
	q.Set("port", u.Port())
	q.Set("user", u.User.Username())
	q.Set("table", tableName())
	text := "postgres://" + u.Path + "?" + q.Encode()
	sessionEnv(t, []string{"SESSION2_PASSWORD=" + password}, "setup", text).want(0)
	sessionEnv(t, []string{"SESSION2_PASSWORD=wrong"}, "list", text).want(1)
}

// TestOddRecords prints records that a terminal or JSON would choke on, and does
// not take nobody for everybody.
func TestOddRecords(t *testing.T) {
	store := stores[1].url(t)
	session(t, "setup", store).want(0)
	with(t, store, func(s session2.Store) {
		for i, user := range []string{"\u009b31m", "\u202e", "\x7f", "\U000e0001"} {
			rec := session2.Record{
				ID: session2.ID{byte(i)}, Version: 1, User: user,
				Created: time.Now(), Accessed: time.Now(), Expires: time.Date(12345, 1, 2, 3, 4, 5, 0, time.UTC),
			}
			must(t, s.Save(t.Context(), rec, 0))
		}
	})
	for _, args := range [][]string{{"list", store}, {"list", "-json", store}, {"stats", "-json", store}} {
		out := session(t, args...).want(exitCorrupt).stdout // there are no data
		for _, r := range out {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Errorf("session2 %q prints %U", args, r)
			}
		}
	}
	for line := range strings.Lines(session(t, "list", "-json", store).says("12345-01-02T03:04:05Z").stdout) {
		var e struct{ User string }
		must(t, json.Unmarshal([]byte(line), &e))
		if len([]rune(e.User)) == 0 || unicode.IsPrint([]rune(e.User)[0]) {
			t.Errorf("got the user %q", e.User)
		}
	}
	session(t, "list", "-user", "", store).want(2)
}

// TestPlacesThatAreNoStore finds that looking at a place makes nothing there.
func TestPlacesThatAreNoStore(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "empty"), nil, 0o600))
	for _, url := range []string{"file:" + dir, "bolt:" + dir + "/empty", "gob:" + dir + "/empty"} {
		session(t, "list", url).want(1).says("there is no store")
		session(t, "setup", "-n", url).want(0).says("would make")
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 1 {
		t.Errorf("got %v, %v, want nothing but the file", list, err)
	}
}

// TestInterruptedWhileOpening ends the program while it waits for a lock.
func TestInterruptedWhileOpening(t *testing.T) {
	store := stores[1].url(t)
	session(t, "setup", store).want(0)
	with(t, store, func(session2.Store) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		var stderr bytes.Buffer
		start := time.Now()
		status := run(ctx, []string{"list", store + "?timeout=1m"}, nil, io.Discard, &stderr)
		if status != exitInterrupted || time.Since(start) > 50*time.Second {
			t.Errorf("got status %d after %v, %s", status, time.Since(start), stderr.String())
		}
	})
}
