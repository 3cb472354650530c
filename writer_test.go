package session2_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/session2/session2"
	"github.com/session2/session2/internal/testsite"
)

// closeNotifier is http.CloseNotifier, which is deprecated.
type closeNotifier interface{ CloseNotify() <-chan bool }

// extras names the optional methods of a ResponseWriter.
func extras(w http.ResponseWriter) string {
	var b strings.Builder
	if _, ok := w.(http.Flusher); ok {
		b.WriteString("F")
	}
	if _, ok := w.(http.Hijacker); ok {
		b.WriteString("H")
	}
	if _, ok := w.(http.Pusher); ok {
		b.WriteString("P")
	}
	if _, ok := w.(closeNotifier); ok {
		b.WriteString("C")
	}
	return b.String()
}

func TestEachCombinationOfExtras(t *testing.T) {
	for has := range 16 {
		want := ""
		for i, letter := range []string{"F", "H", "P", "C"} {
			if has&(1<<i) != 0 {
				want += letter
			}
		}
		if got := extras(session2.WriterWith(has)); got != want {
			t.Errorf("%04b: %q, want %q", has, got, want)
		}
	}
}

// hijackOnly can hijack, and not flush.
type hijackOnly struct{ plainWriter }

func (hijackOnly) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, testsite.ErrDown }

// What the writer outside can, the handler's can, and nothing else, through any
// number of Wraps and of other middleware's wrappers.
func TestWriterHasWhatTheServersHas(t *testing.T) {
	over := func(wrap func(http.Handler) http.Handler, http2 bool) func(http.Handler) {
		return func(h http.Handler) { testsite.Get(t, testsite.Serve(t, wrap(h), http2), &testsite.Browser{}, "/") }
	}
	direct := func(h http.Handler) http.Handler { return h }
	fake := func(w http.ResponseWriter) func(http.Handler) {
		return func(h http.Handler) { h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil)) }
	}
	plain := plainWriter{httptest.NewRecorder()}
	timeout := func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Hour, "late") }
	coated := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(coat{coat{w}}, r) })
	}
	tests := map[string]struct {
		serve func(http.Handler)
		want  string
	}{
		"HTTP/1.1":                   {over(direct, false), "FHC"},
		"HTTP/2":                     {over(direct, true), "FPC"},
		"HTTP/1.1, Unwrap":           {over(coated, false), "FHC"},
		"HTTP/2, Unwrap":             {over(coated, true), "FPC"},
		"HTTP/1.1 in TimeoutHandler": {over(timeout, false), "P"},
		"HTTP/2 in TimeoutHandler":   {over(timeout, true), "P"},
		"ResponseRecorder":           {fake(httptest.NewRecorder()), "F"},
		"nothing":                    {fake(plain), ""},
		"Hijack alone":               {fake(hijackOnly{plain}), "H"},
	}
	for name, c := range tests {
		for n := 1; n <= 2; n++ {
			got := make(chan string, 1)
			c.serve(nested(t, n, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { got <- extras(w) })))
			if got := <-got; got != c.want {
				t.Errorf("%s, %d Wraps: the handler's writer has %q, want %q", name, n, got, c.want)
			}
		}
	}
}

// A handler that streams learns that its client has gone, as by gin's Stream.
func TestCloseNotify(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		told := make(chan bool, 1)
		srv := testsite.Serve(t, nested(t, 2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			session2.FromContext(r.Context()).Set("color", "green")
			gone := w.(closeNotifier).CloseNotify()
			io.WriteString(w, "first")
			w.(http.Flusher).Flush()
			told <- <-gone
		})), http2)
		res, err := srv.Client().Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if !<-told || len(res.Cookies()) != 1 {
			t.Errorf("http2=%v: %d cookies, want 1", http2, len(res.Cookies()))
		}
	}
}

// A proxy inside Wrap takes the connection over for another protocol.
func TestReverseProxyUpgrade(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", r.Header.Get("Upgrade"))
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		line, _ := rw.ReadString('\n')
		fmt.Fprintf(rw, "echo %s", line)
		rw.Flush()
	}))
	defer backend.Close()
	target, _ := url.Parse(backend.URL)
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	b := &testsite.Browser{}
	st.Begin(b)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	srv := httptest.NewServer(st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.Set("color", "blue")
		proxy.ServeHTTP(w, r)
	}))
	defer srv.Close()
	r, _ := http.NewRequest("GET", srv.URL, nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "echo")
	b.Send(r)
	res, err := srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	conn, ok := res.Body.(io.ReadWriteCloser)
	if !ok {
		t.Fatalf("status %d and no connection", res.StatusCode)
	}
	defer conn.Close()
	fmt.Fprintln(conn, "hello")
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "echo hello\n" || st.Stored(b, "color") != "blue" {
		t.Errorf("%q, %v; color = %v", line, err, st.Stored(b, "color"))
	}
}

// http.MaxBytesReader cannot tell a writer that is not the server's own to close
// the connection. The server does so by itself where much of the body is left.
func TestMaxBytesReader(t *testing.T) {
	st := testsite.NewSite(t, session2.NewMemoryStore(), session2.Config{})
	srv := testsite.Serve(t, st.Handler(func(s *session2.Session, w http.ResponseWriter, r *http.Request) {
		s.Set("color", "green")
		if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, 1000)); err == nil {
			t.Error("more was read than is allowed")
		}
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
	}), false)
	res, err := srv.Client().Post(srv.URL, "text/plain", strings.NewReader(strings.Repeat("x", 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 413 || !res.Close || len(res.Cookies()) != 1 {
		t.Errorf("status %d, closed %v, %d cookies; want 413, true, 1", res.StatusCode, res.Close, len(res.Cookies()))
	}
}
