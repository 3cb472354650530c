package session2_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// streamEnv has a process serve streams over the sessions in this directory.
const streamEnv = "SESSION2_TEST_STREAM"

// streamSite is a site over plain HTTP whose sessions processes share.
func streamSite(t *testing.T, dir string) *testsite.Site {
	return testsite.NewSite(t, openFile(t, dir, nil), session2.Config{
		WatchEvery: 50 * time.Millisecond, Cookie: session2.CookieConfig{Insecure: true}})
}

// events is an SSE handler: it says who is signed in, and why it ends.
func events(s *session2.Session, w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprintf(w, "data: hello %s\n\n", s.User())
	w.(http.Flusher).Flush()
	<-r.Context().Done()
	cause := context.Cause(r.Context())
	fmt.Fprintf(w, "data: ended %t, stale %t\n\n", errors.Is(cause, session2.ErrNotFound), errors.Is(cause, session2.ErrStale))
}

// serveStreams does not return in a process that startStreams started, until that
// closes its standard input.
func serveStreams(t *testing.T) {
	dir := os.Getenv(streamEnv)
	if dir == "" {
		return
	}
	srv := httptest.NewServer(streamSite(t, dir).Handler(events))
	fmt.Println(srv.URL)
	io.Copy(io.Discard, os.Stdin)
	srv.Close()
	os.Exit(0)
}

// startStreams runs the test again in another process, and returns its address.
func startStreams(t *testing.T, test, dir string) (url string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^"+test+"$")
	cmd.Env = append(os.Environ(), streamEnv+"="+dir)
	in, err := cmd.StdinPipe()
	testsite.Must(t, err)
	out, err := cmd.StdoutPipe()
	testsite.Must(t, err)
	testsite.Must(t, cmd.Start())
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	url, err = bufio.NewReader(out).ReadString('\n')
	testsite.Must(t, err)
	return strings.TrimSpace(url)
}

// subscribe opens a stream as b and reads its first event.
func subscribe(t *testing.T, url string, b *testsite.Browser) *bufio.Scanner {
	t.Helper()
	r, err := http.NewRequest("GET", url, nil)
	testsite.Must(t, err)
	b.Send(r)
	res, err := http.DefaultClient.Do(r)
	testsite.Must(t, err)
	t.Cleanup(func() { res.Body.Close() })
	lines := bufio.NewScanner(res.Body)
	if text := nextEvent(lines); text != "hello alice" {
		t.Fatalf("the stream begins with %q", text)
	}
	return lines
}

// nextEvent waits for a stream's next event.
func nextEvent(lines *bufio.Scanner) string {
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			return text
		}
	}
	return "(the end)"
}

// A stream in one process ends, with its cause, when another one ends its session.
func TestStreamEndsByAnotherProcess(t *testing.T) {
	serveStreams(t)
	dir := t.TempDir()
	url := startStreams(t, "TestStreamEndsByAnotherProcess", dir)
	ways := map[string]struct {
		do   func(st *testsite.Site, b *testsite.Browser)
		want string
	}{
		"RevokeUser": {func(st *testsite.Site, _ *testsite.Browser) {
			_, err := st.M.RevokeUser(t.Context(), "alice")
			testsite.Must(t, err)
		}, "ended true, stale false"},
		"Destroy": {func(st *testsite.Site, b *testsite.Browser) {
			st.Do(b, (*session2.Session).Destroy)
		}, "ended true, stale false"},
		"the idle limit": {func(st *testsite.Site, b *testsite.Browser) {
			st.Do(b, func(s *session2.Session) { s.SetIdleTimeout(10 * time.Millisecond) })
		}, "ended true, stale false"},
		"Renew": {func(st *testsite.Site, b *testsite.Browser) {
			st.Do(b, (*session2.Session).Renew)
		}, "ended false, stale true"},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			st := streamSite(t, dir)
			b := st.Login("alice")
			one, two := subscribe(t, url, b), subscribe(t, url, b)
			way.do(st, b)
			for _, lines := range []*bufio.Scanner{one, two} {
				if text := nextEvent(lines); text != way.want {
					t.Errorf("the stream says %q, want %q", text, way.want)
				}
			}
		})
	}
}

// The same in one process, over HTTP/1.1 and HTTP/2.
func TestStreamOverHTTPEnds(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
		b := st.Login("alice")
		srv := testsite.Serve(t, st.Handler(events), http2)
		r, err := http.NewRequest("GET", srv.URL, nil)
		testsite.Must(t, err)
		b.Send(r)
		res, err := srv.Client().Do(r)
		testsite.Must(t, err)
		lines := bufio.NewScanner(res.Body)
		nextEvent(lines)
		st.Do(b, (*session2.Session).Destroy)
		if text := nextEvent(lines); text != "ended true, stale false" {
			t.Errorf("HTTP/2 %t: the stream says %q", http2, text)
		}
		res.Body.Close()
	}
}

// A WebSocket's handler has taken the connection over: its context ends as well, and it
// says goodbye.
func TestHijackedConnectionEnds(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{Logger: slog.New(slog.DiscardHandler)})
	b := st.Login("alice")
	srv := testsite.Serve(t, st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.User()
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\nhello\n")
		rw.Flush()
		<-r.Context().Done()
		fmt.Fprintf(rw, "goodbye %t\n", errors.Is(context.Cause(r.Context()), session2.ErrNotFound))
		rw.Flush()
	}), false)
	r, err := http.NewRequest("GET", srv.URL, nil)
	testsite.Must(t, err)
	b.Send(r)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "chat")
	res, err := srv.Client().Do(r)
	testsite.Must(t, err)
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	if lines.Scan(); lines.Text() != "hello" {
		t.Fatalf("it says %q", lines.Text())
	}
	_, err = st.M.RevokeUser(t.Context(), "alice")
	testsite.Must(t, err)
	if lines.Scan(); lines.Text() != "goodbye true" {
		t.Errorf("it says %q", lines.Text())
	}
}
