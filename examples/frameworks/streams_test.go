package frameworks

import (
	"bufio"
	"net/http"
	"strings"
	"testing"

	coder "github.com/coder/websocket"

	"github.com/session2/session2"
)

// sockets are a site with a WebSocket by each library.
func sockets(t *testing.T) *browser {
	m := manager(t, session2.Config{})
	mux := http.NewServeMux()
	mux.HandleFunc("/coder", coderSocket(m))
	mux.HandleFunc("/gorilla", gorillaSocket(m))
	mux.HandleFunc("POST /login", login)
	mux.HandleFunc("POST /count", count)
	mux.HandleFunc("POST /logout", logout)
	return open(t, m.Wrap(mux))
}

// dial opens a WebSocket as the browser b does.
func dial(t *testing.T, b *browser, path string) *coder.Conn {
	t.Helper()
	conn, _, err := coder.Dial(t.Context(), "wss"+strings.TrimPrefix(b.URL, "https")+path,
		&coder.DialOptions{HTTPClient: b.client})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	return conn
}

func echoed(t *testing.T, conn *coder.Conn) {
	t.Helper()
	if err := conn.Write(t.Context(), coder.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, text, err := conn.Read(t.Context()); err != nil || string(text) != "hello" {
		t.Fatalf("%q, %v", text, err)
	}
}

// A first visit by a WebSocket gets its cookie with the 101, and the next request counts on.
func TestAWebSocketsFirstVisit(t *testing.T) {
	for _, path := range []string{"/coder", "/gorilla"} {
		b := sockets(t)
		echoed(t, dial(t, b, path))
		if len(b.cookies()) != 1 {
			t.Errorf("%s: cookies %v, want one", path, b.cookies())
		}
		b.want(200, "2", "POST", "/count")
		echoed(t, dial(t, b, path))
		crowdFrom(b, 3)
	}
}

// Another site's page opens no WebSocket.
func TestAWebSocketOfAnotherSite(t *testing.T) {
	for _, path := range []string{"/coder", "/gorilla"} {
		b := sockets(t)
		conn, res, err := coder.Dial(t.Context(), "wss"+strings.TrimPrefix(b.URL, "https")+path, &coder.DialOptions{
			HTTPClient: b.client, HTTPHeader: http.Header{"Origin": {"https://evil.example"}},
		})
		if err == nil {
			conn.CloseNow()
		}
		if err == nil || res == nil || res.StatusCode != 403 {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// A WebSocket ends when the user logs out, in whichever tab.
func TestAWebSocketEndsAtALogout(t *testing.T) {
	for _, path := range []string{"/coder", "/gorilla"} {
		b := sockets(t)
		b.send("POST", "/login")
		conn := dial(t, b, path)
		echoed(t, conn)
		b.send("POST", "/logout")
		if _, _, err := conn.Read(t.Context()); err == nil {
			t.Errorf("%s: a message after the logout", path)
		}
	}
}

// An event stream says that the user has logged out, and an EventSource that comes again
// is told to stay away.
func TestAnEventStreamSeesALogout(t *testing.T) {
	m, news := manager(t, session2.Config{}), make(chan string)
	mux := http.NewServeMux()
	mux.HandleFunc("/events", events(m, news))
	mux.HandleFunc("POST /login", login)
	mux.HandleFunc("POST /count", count)
	mux.HandleFunc("POST /logout", logout)
	b := open(t, m.Wrap(mux))
	b.want(204, "", "GET", "/events")
	b.send("POST", "/login")
	b.want(200, "1", "POST", "/count")
	crowdFrom(b, 1)
	if got := stream(t, b, news); got != "data: something new||event: signed-out|data:|" {
		t.Errorf("%q", got)
	}
	b.want(204, "", "GET", "/events")
}

// stream opens /events, logs out when there was something new, and returns what came.
func stream(t *testing.T, b *browser, news chan<- string) string {
	t.Helper()
	res, err := b.client.Get(b.URL + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	news <- "something new"
	b.send("POST", "/logout")
	var lines []string
	for in := bufio.NewScanner(res.Body); in.Scan(); {
		lines = append(lines, in.Text())
	}
	return strings.Join(lines, "|")
}
