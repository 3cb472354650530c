package main

import (
	"bufio"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/session2/session2"
)

// wantShown checks what the page that the browser is on shows.
func (b *browser) wantShown(status int, pairs ...string) {
	b.t.Helper()
	b.want(status)
	for i := 0; i < len(pairs); i += 2 {
		if got := b.shows(pairs[i]); !strings.HasPrefix(got, pairs[i+1]) {
			b.t.Errorf("the page shows %s %q, want %q", pairs[i], got, pairs[i+1])
		}
	}
}

func (b *browser) wantEvents(kinds ...session2.EventKind) {
	b.t.Helper()
	for _, kind := range kinds {
		if !strings.Contains(b.body, `data-event="`+kind.String()+`"`) {
			b.t.Errorf("the page does not show the event %q", kind)
		}
	}
}

func checkFailed(t *testing.T, st *site, b *browser) {
	b.post("/login", "user", "alice")
	b.post("/increment")
	b.wantShown(200, "message", "Stored: the counter is 1.")
	st.restart()
	b.post("/increment-fail")
	b.wantShown(500, "was-counter", "1", "had-counter", "2", "now-counter", "1", "now-user", "alice")
	b.post("/logout-fail")
	b.wantShown(500, "was-user", "alice", "had-user", "nobody", "now-user", "alice")
	b.submit("/keep", "csrf_token", "x", "value", "y")
	b.wantShown(403, "was-user", "alice", "had-user", "alice", "now-user", "alice")
}

func checkAtOnce(t *testing.T, st *site, b *browser) {
	b.post("/increment")
	b.post("/at-once")
	b.wantShown(200,
		"commit-kept", "64 of 64", "commit-counter", "1 → 65", "commit-distinct", "64 ", "commit-lost", "0",
		"plain-kept", "1 of 64", "plain-counter", "1 → 2", "plain-distinct", "1 ", "plain-lost", "63",
		"get-and-set-kept", "1 of 1", "get-and-set-counter", "65 → 66", "get-and-set-refused", "63")
	st.restart()
	b.want(200, "counter", "66")
}

func checkSlowLogout(t *testing.T, st *site, b *browser) {
	b.post("/login", "user", "alice")
	b.post("/slow-logout")
	b.wantShown(200, "slow", "dropped", "there", "is gone", "plain", "is back, and alice is logged in")
	b.wantEvents(session2.EventDestroyed, session2.EventDropped)
	b.wantCookies(0)
	if n := count(t, st.store); n != 0 {
		t.Errorf("%d records, want none", n)
	}
	st.restart()
	b.want(200, "user", "")
}

func checkStolen(t *testing.T, st *site, b *browser) {
	b.post("/login", "user", "alice")
	b.post("/use-stolen")
	b.wantShown(409, "problem", "No thief")
	b.post("/steal")
	b.post("/use-stolen")
	b.wantShown(200, "thief", "The thief is in", "status", "200", "response", "alice")
	b.post("/renew")
	b.post("/use-stolen")
	b.wantShown(200, "thief", "The thief is out", "status", "401", "response", "Nobody")
	b.wantEvents(session2.EventUnknown)
	st.restart()
	b.want(200, "user", "alice")
}

func checkLive(t *testing.T, st *site, b *browser) {
	b.get("/live")
	b.wantShown(200, "none", "You have no session")
	b.post("/login", "user", "alice")
	stream := openLive(t, b)
	second := newBrowser(t, st.base)
	second.post("/login", "user", "alice")
	second.post("/logout-everywhere")
	if end := readAll(t, stream); !strings.Contains(end, "The session has ended.") {
		t.Errorf("the stream ends with %q", end)
	}
}

func TestLiveEndsWithTheDemo(t *testing.T) {
	d, err := newDemo(session2.NewMemoryStore())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(d)
	defer server.Close()
	b := newBrowser(t, func() string { return server.URL })
	b.post("/login", "user", "alice")
	stream := openLive(t, b)
	d.close()
	if end := readAll(t, stream); !strings.Contains(end, "The demo is ending.") {
		t.Errorf("the stream ends with %q", end)
	}
}

// openLive opens the stream and returns what comes of it after the beginning.
func openLive(t *testing.T, b *browser) *bufio.Reader {
	t.Helper()
	res, err := b.client.Get(b.base() + "/live")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	stream := bufio.NewReader(res.Body)
	for {
		line, err := stream.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line, `data-is="live-user">alice<`) {
			return stream
		}
	}
}

func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	all, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

func checkOutside(t *testing.T, st *site, b *browser) {
	for _, path := range []string{"/at-once", "/slow-logout", "/use-stolen", "/steal"} {
		b.post(path)
		b.wantShown(409)
	}
	b.wantCookies(0)
	b.post("/increment")
	for _, path := range []string{"/count?by=commit", "/count?by=commit&experiment=x", "/slow", "/slow?experiment=x"} {
		b.get(path)
		b.want(404)
	}
	b.get("/")
	b.submit("/at-once", "csrf_token", "x")
	b.want(403, "counter", "1")
	st.restart()
	b.want(200, "counter", "1")
}

func TestEvents(t *testing.T) {
	a, b := session2.ID{1}, session2.ID{2}
	var e events
	add := func(kind session2.EventKind, id session2.ID, err error) {
		e.add(t.Context(), session2.Event{Kind: kind, ID: id, Err: err})
	}
	for range maxEvents {
		add(session2.EventCreated, a, nil)
	}
	add(session2.EventUnknown, a, nil)
	mark := e.mark()
	add(session2.EventUnknown, a, nil)
	add(session2.EventRenewed, b, nil)
	for range 3 { // the two are mixed when 64 requests count
		add(session2.EventConflict, a, session2.ErrConflict)
		add(session2.EventConflict, a, session2.ErrLostUpdate)
	}
	show := func(list []happened) (s string) {
		for _, h := range list {
			s += fmt.Sprintf("%v %d, ", h.Event.Kind, h.Times)
		}
		return s
	}
	if got, want := show(e.since(mark, a)), "conflict 3, conflict 3, unknown 1, "; got != want {
		t.Errorf("since the mark: %s, want %s", got, want)
	}
	if got, want := show(e.since(0, session2.ID{})),
		fmt.Sprintf("conflict 3, conflict 3, renewed 1, unknown 2, created %d, ", maxEvents-9); got != want {
		t.Errorf("since the beginning: %s, want %s", got, want)
	}
}

// TestTextsAreTrue looks for the lines of Go on the pages in the demo's code, and for what
// they link to in the library's.
func TestTextsAreTrue(t *testing.T) {
	pages, demo, library := source(t, "*.html"), source(t, "*.go"), source(t, "../../*.go")
	lines := regexp.MustCompile(`(?s)class="go"[^>]*><code>(.*?)</code>`).FindAllStringSubmatch(pages, -1)
	if len(lines) < 15 {
		t.Errorf("%d lines of Go on the pages", len(lines))
	}
	for _, m := range lines {
		if line := html.UnescapeString(m[1]); !strings.Contains(demo, line) {
			t.Errorf("the demo's code has no %s", line)
		}
	}
	names := map[string]bool{}
	for _, m := range declaration.FindAllStringSubmatch(library, -1) {
		names[strings.TrimPrefix(m[1]+"."+m[2], ".")] = true
	}
	for _, m := range regexp.MustCompile(`session2/session2#([\w.]+)"`).FindAllStringSubmatch(pages, -1) {
		if !names[m[1]] {
			t.Errorf("the library has no %s", m[1])
		}
	}
}

// declaration matches the declaration of a method of a type, of a type, or of an error.
var declaration = regexp.MustCompile(`\n(?:func \(\w+ \*?(\w+)(?:\[T\])?\) |type |\t|var )(\w+)\b`)

// source returns the files of a pattern, but for tests.
func source(t *testing.T, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || files == nil {
		t.Fatalf("no %s: %v", pattern, err)
	}
	var all strings.Builder
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

func TestPageNeedsNoScript(t *testing.T) {
	d, err := newDemo(session2.NewMemoryStore())
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/", "/style.css", "/details"} {
		w := httptest.NewRecorder()
		d.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		csp := w.Header().Get("Content-Security-Policy")
		if w.Code != http.StatusOK || !strings.HasPrefix(csp, "default-src 'none'; style-src 'self'; form-action") {
			t.Errorf("%s: %d, Content-Security-Policy %q", path, w.Code, csp)
		}
	}
	if pages := source(t, "*.html"); strings.Contains(pages, "<script") || strings.Contains(pages, " style=") {
		t.Error("a page holds what the policy forbids")
	}
}
